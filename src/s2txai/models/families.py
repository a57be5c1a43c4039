"""The families of models: what they are and consist of, light enough to import while planning.

To add a family, write a module with a :class:`s2txai.models.base.Loader` and register it here.
"""

import fnmatch
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from s2txai.registry import Registry, load_object

if TYPE_CHECKING:
    from s2txai.models.base import Loader  # which imports torch


@dataclass(frozen=True)
class Family:
    """One family of models.

    Attributes
    ----------
    loader
        Its :class:`s2txai.models.base.Loader`, or ``module:name`` of it.
    models
        For people: which models these are.
    tasks, input
        For people: what they do, and from what.
    checkpoint
        For people: what the folder of a model must hold.
    weights
        Patterns of file names, one of which must be there.
    settings
        Pattern of the file that says what the weights are.
    others
        Patterns of vocabularies and the like; what fits no pattern is left alone.
    options
        Keys of a model's ``options`` that the family understands.
    model_types
        What ``model_type`` in ``config.json`` is for these models, if transformers wrote it.
    abilities
        A function of :mod:`s2txai.models.abilities`, or ``module:name`` of one, that refuses tasks
        while planning; None leaves all to the loader.
    experimental
        Whether the family never ran with trained weights in the tests.
    layouts
        Of files without a ``model_type``: patterns of names that are all there in a folder of this
        family.
    tested
        For people: with which weights.
    notes
        For people: what else to know, in sentences.
    """

    loader: "str | Loader"
    models: str
    tasks: str
    input: str
    checkpoint: str
    tested: str
    notes: str = ""
    weights: tuple[str, ...] = ("*.safetensors",)
    settings: str = "config.json"
    # Leaves out weights of other frameworks, and pickles, which can run code.
    others: tuple[str, ...] = ("*.json", "*.txt", "*.model")
    options: tuple[str, ...] = ()
    abilities: "str | Callable[..., None] | None" = None
    experimental: bool = True
    model_types: tuple[str, ...] = ()
    layouts: tuple[tuple[str, ...], ...] = ()

    def files(self, names: Sequence[str], *, with_code: bool = False) -> list[str]:
        """Return those of ``names`` that make up a model."""
        return [name for name in names if _fits(name, self.patterns(with_code=with_code))]

    def has_weights(self, names: Sequence[str]) -> bool:
        """Return whether weights are among ``names``."""
        return any(_fits(name, self.weights) for name in names)

    def has_settings(self, names: Sequence[str]) -> bool:
        """Return whether the settings are among ``names``."""
        return any(_fits(name, (self.settings,)) for name in names)

    def has_layout(self, names: Sequence[str]) -> bool:
        """Return whether ``names`` has the files of one of the layouts."""
        return any(
            all(any(_fits(name, (pattern,)) for name in names) for pattern in layout)
            for layout in self.layouts
        )

    def patterns(self, *, with_code: bool = False) -> tuple[str, ...]:
        """Return all patterns; those of Python code only where a configuration trusts it."""
        return (*self.weights, self.settings, *self.others, *(("*.py",) if with_code else ()))

    def load(self) -> Any:
        """Import the loader, and the libraries that it needs."""
        return load_object(self.loader)


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) for pattern in patterns)


FAMILIES: Registry[Family] = Registry("model family")
FAMILIES.register("whisper")(
    Family(
        "s2txai.models.whisper:load_whisper",
        models="Whisper of any size, distilled and fine-tuned ones too",
        tasks="recognition; translation into English by the multilingual ones, into other "
        "languages by a prompt of your own",
        input="log-mel spectrogram, at most 30 s",
        checkpoint="what `save_pretrained` of transformers writes, or CTranslate2's `model.bin` "
        "with `config.json`; and `tokenizer.json`, or `vocab.json` with `merges.txt`",
        tested="tiny.en on real speech; random weights",
        notes="The 30 s that it was trained with are kept; attention after the speech is "
        "`padding_mass`. Quantised weights of CTranslate2 are multiplied out on loading; products "
        "are those of the run's precision. A model that was trained to translate into other "
        "languages than English needs the prompt of its training: `options: {translation_prompt: "
        '["<|startoftranscript|>", "<|{target}|>", "<|transcribe|>", "<|notimestamps|>"]}`, '
        "special tokens of its tokenizer, in which `{source}` and `{target}` stand for the codes "
        "of the languages.",
        weights=("model.bin", "*.safetensors"),
        options=("trust_remote_code", "translation_prompt"),
        abilities="s2txai.models.abilities:whisper",
        experimental=False,
        model_types=("whisper",),
        layouts=(("model.bin", "config.json"),),  # of CTranslate2
    )
)
FAMILIES.register("conformer")(
    Family(
        "s2txai.models.conformer:load_conformer",
        models="the paper's: Conformer encoder, Transformer decoder, as FAMA",
        tasks="recognition and translation, by language tags where the dictionary has them",
        input="Kaldi filterbank, normalised by utterance, of any length",
        checkpoint="one fairseq checkpoint `*.pt`, one `*.yaml` with the settings of the data, the "
        "dictionary and the sentencepiece model that it names",
        tested="values of a published implementation; random weights",
        notes="Beam search never says five tokens twice and scores by the mean log-probability; "
        "with `options: {ctc_weight: 0.2}` the prefix scores of the joint CTC head, where a "
        "checkpoint has one, are added with this weight. Positions count by the length of each "
        "utterance, whatever training did, so that no result depends on its batch. Checkpoints "
        "that merge encoder steps (`ctc_compress_strategy`) are refused: their steps have no time.",
        # Pickles as well, but read without running what they hold.
        weights=("*.pt",),
        settings="*.yaml",
        others=("*.txt", "*.model"),
        options=("ctc_weight",),
        abilities="s2txai.models.abilities:conformer",
        layouts=(("*.pt", "*.yaml"),),
    )
)

_SAVED = (
    "what `save_pretrained` of transformers writes: `config.json`, `generation_config.json`, "
    "`*.safetensors`, `preprocessor_config.json` (or `processor_config.json`), "
)
_TOKENIZER = "`tokenizer_config.json` and `tokenizer.json`"
_RANDOM = "random weights only"
_TRUST = ("trust_remote_code",)
FAMILIES.register("speech-to-text")(
    Family(
        "s2txai.models.speech_to_text:load_speech_to_text",
        models="Speech2Text (fairseq S2T), `Speech2TextForConditionalGeneration` of transformers",
        tasks="the one that a checkpoint was trained for; translation by language tag in "
        "multilingual ones",
        input="Kaldi filterbank, normalised by utterance, of any length",
        checkpoint=_SAVED + "`vocab.json` and `sentencepiece.bpe.model`",
        tested=_RANDOM,
        options=_TRUST,
        abilities="s2txai.models.abilities:speech_to_text",
        model_types=("speech_to_text",),
        notes="A checkpoint for one task does not say which, so that any task is accepted: give "
        "its `languages` and `translation_targets` in the table of models with care.",
    )
)
FAMILIES.register("canary")(
    Family(
        "s2txai.models.canary:load_canary",
        models="Canary, `CanaryForConditionalGeneration` of transformers",
        tasks="recognition and translation, by language tags",
        input="log-mel spectrogram, normalised by utterance, of any length",
        checkpoint=_SAVED + _TOKENIZER,
        tested=_RANDOM,
        options=_TRUST,
        abilities="s2txai.models.abilities:canary",
        model_types=("canary",),
        notes="The prompt has the nine tags of Canary 2, from `<|startofcontext|>` to "
        "`<|nodiarize|>`: punctuation is asked for, times, speakers and written numbers are not.",
    )
)
FAMILIES.register("seamless-m4t-v2")(
    Family(
        "s2txai.models.seamless_m4t_v2:load_seamless_m4t_v2",
        models="SeamlessM4T v2 from speech to text, `SeamlessM4Tv2ForSpeechToText` of transformers",
        tasks="recognition and translation, by the tag of the text's language",
        input="Kaldi filterbank, normalised by utterance, of any length",
        checkpoint=_SAVED + _TOKENIZER,
        tested=_RANDOM,
        options=_TRUST,
        abilities="s2txai.models.abilities:seamless_m4t_v2",
        model_types=("seamless_m4t_v2",),
        notes="Features are single frames; `encode` stacks them in pairs, as the model wants them, "
        "and of an odd number the last is left out, which the library masks. Where T is a multiple "
        "of 16 the encoder has one step more than T / 16, of the last frames; its attention counts "
        "as `padding_mass`, and it is never occluded. The encoder's layers work at another rate "
        "than its output, so its self-attention cannot be had by steps.",
    )
)
FAMILIES.register("moonshine")(
    Family(
        "s2txai.models.moonshine:load_moonshine",
        models="Moonshine, `MoonshineForConditionalGeneration` of transformers",
        tasks="recognition of the language that a checkpoint was trained for",
        input="waveform, of any length, in blocks of 64 samples (4 ms)",
        checkpoint=_SAVED + _TOKENIZER,
        tested=_RANDOM,
        options=_TRUST,
        abilities="s2txai.models.abilities:transcription_only",
        model_types=("moonshine",),
        notes="SMX occludes stretches of time, whole blocks; `smx.n_segments` counts them in 500 "
        "blocks, which are 2 s, and no longer grows from 750 blocks on. The convolutions pad "
        "nothing, so less than 56 ms of silence follow the utterance, for "
        "ceil(T / 6) steps.",
    )
)
FAMILIES.register("cohere-asr")(
    Family(
        "s2txai.models.cohere_asr:load_cohere_asr",
        models="Cohere Transcribe, `CohereAsrForConditionalGeneration` of transformers",
        tasks="recognition, by language tag",
        input="log-mel spectrogram, normalised by utterance, at most 35 s",
        checkpoint=_SAVED + _TOKENIZER,
        tested=_RANDOM,
        options=_TRUST,
        abilities="s2txai.models.abilities:cohere_asr",
        model_types=("cohere_asr",),
        notes="Cross-attention sees the encoder's output after a projection; SMH occludes it "
        "before.",
    )
)
