"""SeamlessM4T v2 (Seamless Communication 2023), from speech to text.

Two frames are stacked before the encoder; here features are frames again, and ``encode`` stacks
them. The adapter after the encoder takes every eighth of these pairs, starting half of its kernel
before the first. Where the number of frames is a multiple of all the subsampling, it therefore has
one step more than there are cells: what that step gets counts as attention outside the speech.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import SeamlessM4TFeatureExtractor, SeamlessM4Tv2ForSpeechToText

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import Facts, Features
from s2txai.models.options import NO_OPTIONS
from s2txai.models.pieces import WordPieces
from s2txai.models.seamless_languages import LANGUAGES
from s2txai.models.transformers_base import TransformersModel
from s2txai.models.transformers_loading import (
    check_checkpoint,
    generation_settings,
    load_extractor,
    load_network,
    load_tokenizer,
    searched,
)

# Of a checkpoint that also reads and speaks.
_OTHER_PARTS = ("text_encoder.", "t2u_model.", "vocoder.")
SAMPLING_RATE = 16_000  # Hz
FRAME_SHIFT = 0.01  # seconds; the extractor's windows are fixed


def load_seamless_m4t_v2(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "SeamlessM4Tv2Model":
    """Load a SeamlessM4T v2, as a :class:`~s2txai.models.base.Loader`.

    Of a checkpoint that also speaks, only what turns speech into text is read.

    Raises
    ------
    UserError
        If the checkpoint does not list its languages.
    """
    network = load_network(
        SeamlessM4Tv2ForSpeechToText, directory, options, other_parts=_OTHER_PARTS
    ).to(device)
    if not hasattr(network.generation_config, "text_decoder_lang_to_code_id"):
        raise UserError(
            f"{directory / 'generation_config.json'} has no text_decoder_lang_to_code_id, which "
            "lists the languages; take the file from the checkpoint this one was made of."
        )
    tokenizer, settings = load_tokenizer(directory), generation_settings(directory, network)
    names = check_checkpoint(directory, network, tokenizer)
    table = "text_decoder_lang_to_code_id"
    codes = settings[table]
    names.check_same(directory, {f"__{code}__": i for code, i in codes.items()}, table)
    # Frames are counted in samples, whatever their rate.
    extractor = load_extractor(SeamlessM4TFeatureExtractor, directory, sampling_rate=SAMPLING_RATE)
    bins, expected = extractor.num_mel_bins * extractor.stride, network.config
    if bins != expected.feature_projection_input_dim:
        raise UserError(
            f"{directory}: the settings of the features give {bins} numbers per pair of frames, "
            f"but the network was made for {expected.feature_projection_input_dim}; take "
            "preprocessor_config.json from the checkpoint this one was made of."
        )
    return SeamlessM4Tv2Model(
        network,
        tokenizer,
        extractor,
        targets=codes,
        precision=precision,
        search=searched(directory, expected, settings),
    )


class SeamlessM4Tv2Model(TransformersModel):
    """SeamlessM4T v2 behind the interface of :class:`s2txai.models.base.Model`."""

    _cross_attention = "cross_attention"

    def __init__(
        self,
        network: SeamlessM4Tv2ForSpeechToText,
        tokenizer: Any,
        extractor: SeamlessM4TFeatureExtractor,
        *,
        targets: Mapping[str, int],
        precision: torch.dtype,
        search: Mapping[str, Any],
    ) -> None:
        config = network.config
        super().__init__(
            network,
            WordPieces(tokenizer, config.eos_token_id),
            Facts(
                sampling_rate=extractor.sampling_rate,
                frame_shift=FRAME_SHIFT,
                subsampling=extractor.stride * config.adaptor_stride**config.num_adapter_layers,
                max_new_tokens=config.max_new_tokens,
            ),
            precision=precision,
            **search,
        )
        self._extractor = extractor
        self._start: int = config.decoder_start_token_id
        self._targets = targets

    def prompt(self, task: Task) -> list[int]:
        """Return the decoder's start and the language of the text; the speech's is not stated.

        Raises
        ------
        UserError
            If the model does not write that language.
        """
        language = LANGUAGES.get(task.target, task.target)
        if language not in self._targets:
            raise UserError(
                f"This SeamlessM4T writes no '{task.target}', so it cannot do '{task.name}'; "
                f"it writes {', '.join(sorted(self._targets))}."
            )
        return [self._start, self._targets[language]]

    def features(self, audio: np.ndarray) -> Features:
        """Return log-mel frames, each bin normalised over the utterance.

        Of an odd number of frames the last is left out: the extractor masks the pair it is in.
        """
        output = self._extractor(audio, sampling_rate=self.facts.sampling_rate, return_tensors="np")
        pairs = output["input_features"][0][output["attention_mask"][0].astype(bool)]
        frames = pairs.reshape(-1, self._extractor.num_mel_bins)
        return Features(np.ascontiguousarray(frames, dtype=np.float32), padding_value=0.0)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return pairs of frames [N, T / 2, 2 F] of [N, T, F]; T is even, see ``features``."""
        N, T, F = features.shape
        stride = self._extractor.stride
        return features.reshape(N, T // stride, stride * F)

    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Refuse: the layers work at eight times the rate of the adapter's output.

        Raises
        ------
        UserError
            Always.
        """
        raise UserError(
            "The encoder of SeamlessM4T works at another rate than its adapter's output, so its "
            "self-attention cannot be compared by steps; leave it out for this model."
        )

    def _encoder_parts(self) -> tuple[torch.nn.Module, Sequence[torch.nn.Module]]:
        speech = self._encoder
        top = [speech.inner_layer_norm, speech.adapter, speech.intermediate_ffn]
        return torch.nn.ModuleList([*top, speech.encoder.layer_norm]), speech.encoder.layers
