"""The families of models: what they are and consist of, light enough to import while planning.

To add a family, write a module with a :class:`s2txai.models.base.Loader` and register it here.
"""

import fnmatch
import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from s2txai.registry import Registry


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes
    ----------
    loader
        Module and name of its :class:`s2txai.models.base.Loader`.
    models
        For people: which models these are.
    tasks, input
        For people: what they do, and from what.
    checkpoint
        For people: what the folder of a model must hold.
    weights
        Patterns of file names, one of which must be there.
    settings
        Pattern of the file that tells what the weights are.
    others
        Patterns of vocabularies and the like; what fits no pattern is left alone.
    options
        Keys of a model's ``options`` that the family understands.
    """

    loader: tuple[str, str]
    models: str
    tasks: str
    input: str
    checkpoint: str
    weights: tuple[str, ...] = ("*.safetensors",)
    settings: str = "config.json"
    # Leaves out weights of other frameworks, and pickles, which can run code.
    others: tuple[str, ...] = ("*.json", "*.txt", "*.model")
    options: tuple[str, ...] = ()

    def files(self, names: Sequence[str]) -> list[str]:
        """Return those of ``names`` that make up a model."""
        return [name for name in names if _fits(name, self.patterns)]

    def has_weights(self, names: Sequence[str]) -> bool:
        """Tell whether weights are among ``names``."""
        return any(_fits(name, self.weights) for name in names)

    def has_settings(self, names: Sequence[str]) -> bool:
        """Tell whether the settings are among ``names``."""
        return any(_fits(name, (self.settings,)) for name in names)

    @property
    def patterns(self) -> tuple[str, ...]:
        """All patterns."""
        return (*self.weights, self.settings, *self.others)

    def load(self) -> Any:
        """Import the loader, and the libraries that it needs."""
        module, name = self.loader
        return getattr(importlib.import_module(module), name)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


FAMILIES: Registry[Family] = Registry("model family")
FAMILIES.register("whisper")(
    Family(
        ("s2txai.models.whisper", "load_whisper"),
        models="Whisper of any size, distilled and fine-tuned ones too",
        tasks="recognition; translation into English by the multilingual ones",
        input="log-mel spectrogram, at most 30 s",
        checkpoint="what `save_pretrained` of transformers writes, or CTranslate2's `model.bin` "
        "with `config.json`; and `tokenizer.json`",
        weights=("model.bin", "*.safetensors"),
    )
)
FAMILIES.register("conformer")(
    Family(
        ("s2txai.models.conformer", "load_conformer"),
        models="the paper's: Conformer encoder, Transformer decoder, as FAMA",
        tasks="recognition and translation, by language tags where the dictionary has them",
        input="Kaldi filterbank, normalised by utterance, of any length",
        checkpoint="one fairseq checkpoint `*.pt`, one `*.yaml` with the settings of the data, the "
        "dictionary and the sentencepiece model that it names",
        # These are pickles, too, but are read without running what they hold.
        weights=("*.pt",),
        settings="*.yaml",
        others=("*.txt", "*.model"),
        options=("ctc_weight",),
    )
)

_SAVED = "what `save_pretrained` of transformers writes: `config.json`, `generation_config.json`, "
FAMILIES.register("speech-to-text")(
    Family(
        ("s2txai.models.speech_to_text", "load_speech_to_text"),
        models="Speech2Text (fairseq S2T): `Speech2TextForConditionalGeneration`",
        tasks="the one that a checkpoint was trained for; multilingual ones translate by language "
        "tag",
        input="Kaldi filterbank, normalised by utterance, of any length",
        checkpoint=_SAVED + "`*.safetensors`, `preprocessor_config.json`, `vocab.json` and "
        "`sentencepiece.bpe.model`",
    )
)
FAMILIES.register("canary")(
    Family(
        ("s2txai.models.canary", "load_canary"),
        models="Canary with the tags of its version 2: `CanaryForConditionalGeneration`",
        tasks="recognition and translation, by language tags",
        input="log-mel spectrogram, normalised by utterance, of any length",
        checkpoint=_SAVED + "`*.safetensors`, `preprocessor_config.json` or "
        "`processor_config.json`, `tokenizer.json` and `tokenizer_config.json`",
    )
)
FAMILIES.register("seamless-m4t-v2")(
    Family(
        ("s2txai.models.seamless_m4t_v2", "load_seamless_m4t_v2"),
        models="SeamlessM4T v2, its speech-to-text part: `SeamlessM4Tv2ForSpeechToText`",
        tasks="recognition and translation, by the tag of the text's language",
        input="filterbank, normalised by utterance, of any length",
        checkpoint=_SAVED
        + "`*.safetensors`, `preprocessor_config.json`, `tokenizer_config.json`, and "
        "`tokenizer.json` or `sentencepiece.bpe.model`",
    )
)
FAMILIES.register("moonshine")(
    Family(
        ("s2txai.models.moonshine", "load_moonshine"),
        models="Moonshine: `MoonshineForConditionalGeneration`",
        tasks="recognition of the one language that a checkpoint was trained for",
        input="waveform, of any length; SMX occludes stretches of time",
        checkpoint=_SAVED + "`*.safetensors`, `preprocessor_config.json`, `tokenizer.json` and "
        "`tokenizer_config.json`",
    )
)
FAMILIES.register("cohere-asr")(
    Family(
        ("s2txai.models.cohere_asr", "load_cohere_asr"),
        models="Cohere Transcribe: `CohereAsrForConditionalGeneration`",
        tasks="recognition, by language tag",
        input="log-mel spectrogram, normalised by utterance, at most 35 s",
        checkpoint=_SAVED + "`*.safetensors`, `preprocessor_config.json` or "
        "`processor_config.json`, `tokenizer.json` and `tokenizer_config.json`",
    )
)
