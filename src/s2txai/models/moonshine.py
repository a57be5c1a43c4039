"""Moonshine (Jeffries et al. 2024), which receives the waveform itself.

A frame is what the first convolution steps over, a block of samples. The convolutions pad nothing,
so that the waveform would give one or two steps fewer than ceil(T / r); ``encode`` lets silence
follow it, until there are that many. The silence is shorter than the kernels together (56 ms).
"""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import MoonshineForConditionalGeneration, Wav2Vec2FeatureExtractor

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import Facts, Features, n_steps
from s2txai.models.options import NO_OPTIONS
from s2txai.models.pieces import WordPieces
from s2txai.models.transformers_base import TransformersModel
from s2txai.models.transformers_loading import (
    check_checkpoint,
    generation_settings,
    load_extractor,
    load_network,
    load_tokenizer,
    searched,
)


def load_moonshine(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "MoonshineModel":
    """Load a Moonshine, as a :class:`~s2txai.models.base.Loader`."""
    network = load_network(MoonshineForConditionalGeneration, directory, options).to(device)
    tokenizer = load_tokenizer(directory)
    check_checkpoint(directory, network, tokenizer)
    return MoonshineModel(
        network,
        tokenizer,
        load_extractor(Wav2Vec2FeatureExtractor, directory, feature_size=1),
        precision=precision,
        search=searched(directory, network.config, generation_settings(directory, network)),
    )


class MoonshineModel(TransformersModel):
    """Moonshine behind the interface of :class:`s2txai.models.base.Model`."""

    _decoder_norm = "norm"

    def __init__(
        self,
        network: MoonshineForConditionalGeneration,
        tokenizer: Any,
        extractor: Wav2Vec2FeatureExtractor,
        *,
        precision: torch.dtype,
        search: Mapping[str, Any],
    ) -> None:
        config, encoder = network.config, network.get_encoder()
        convolutions = [encoder.conv1, encoder.conv2, encoder.conv3]
        self._block, *later = (convolution.stride[0] for convolution in convolutions)
        self._field = _receptive_field(convolutions)
        super().__init__(
            network,
            WordPieces(tokenizer, config.eos_token_id),
            Facts(
                sampling_rate=extractor.sampling_rate,
                frame_shift=self._block / extractor.sampling_rate,
                subsampling=math.prod(later),
                # The prompt has one token.
                max_new_tokens=config.max_position_embeddings - 1,
                time_only=True,
            ),
            precision=precision,
            **search,
        )
        self._extractor = extractor
        self._start: int = config.decoder_start_token_id

    def prompt(self, task: Task) -> list[int]:
        """Return the decoder's start: a checkpoint transcribes one language.

        Raises
        ------
        UserError
            If the task is translation.
        """
        if task.kind != "asr":
            raise UserError(
                f"Moonshine only transcribes, so it cannot do '{task.name}'; "
                f"use 'asr-{task.source}' or a model that translates."
            )
        return [self._start]

    def features(self, audio: np.ndarray) -> Features:
        """Return the waveform in blocks [T, F], the last filled up with silence."""
        samples = self._extractor(
            audio, sampling_rate=self.facts.sampling_rate, return_tensors="np"
        ).input_values[0]
        filled = np.pad(samples.astype(np.float32), (0, -len(samples) % self._block))
        return Features(filled.reshape(-1, self._block), padding_value=0.0)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return waveforms [N, samples] that give ceil(T / r) steps, of blocks [N, T, F]."""
        r = self.facts.subsampling
        steps = n_steps(features.shape[1], r)
        waveform = features.flatten(1)
        needed = (steps - 1) * r * self._block + self._field
        return torch.nn.functional.pad(
            waveform, (0, needed - waveform.shape[1]), value=padding_value
        )


def _receptive_field(convolutions: list[torch.nn.Conv1d]) -> int:
    """Return how many samples one step sees."""
    field, step = 1, 1
    for convolution in convolutions:
        field += (convolution.kernel_size[0] - 1) * step
        step *= convolution.stride[0]
    return field
