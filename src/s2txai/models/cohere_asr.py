"""Cohere Transcribe: a Fast Conformer whose states are projected to the decoder's width."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    CohereAsrFeatureExtractor,
    CohereAsrForConditionalGeneration,
)

from s2txai.datasets import Task
from s2txai.errors import UserError, UtteranceError
from s2txai.models.base import Features
from s2txai.models.fast_conformer import FastConformerModel
from s2txai.models.options import NO_OPTIONS
from s2txai.models.pieces import SPACE
from s2txai.models.transformers_loading import (
    check_checkpoint,
    generation_settings,
    load_extractor,
    load_network,
    load_tokenizer,
    searched,
)
from s2txai.wording import number_beside


def load_cohere_asr(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "CohereAsrModel":
    """Load a Cohere Transcribe, as a :class:`~s2txai.models.base.Loader`."""
    network = load_network(CohereAsrForConditionalGeneration, directory, options).to(device)
    tokenizer = load_tokenizer(directory)
    check_checkpoint(directory, network, tokenizer)
    bins = network.config.encoder_config.num_mel_bins
    return CohereAsrModel(
        network,
        tokenizer,
        load_extractor(CohereAsrFeatureExtractor, directory, feature_size=bins),
        max_positions=network.config.max_position_embeddings,
        precision=precision,
        search=searched(directory, network.config, generation_settings(directory, network)),
    )


class CohereAsrModel(FastConformerModel):
    """Cohere Transcribe behind the interface of :class:`s2txai.models.base.Model`."""

    _opening = (SPACE,)

    def prompt(self, task: Task) -> list[int]:
        """Return the tags of language and format.

        Raises
        ------
        UserError
            If the task is translation, or the vocabulary lacks the language.
        """
        if task.kind != "asr":
            raise UserError(
                f"Cohere's model only transcribes, so it cannot do '{task.name}'; "
                f"use 'asr-{task.source}' or a model that translates."
            )
        return self._prompt(task.source, task.source)

    def features(self, audio: np.ndarray) -> Features:
        """Return log-mel frames, each bin normalised over the utterance.

        Raises
        ------
        UtteranceError
            If the audio is longer than what the model accepts at once.
        """
        seconds, longest = len(audio) / self.facts.sampling_rate, self._extractor.max_audio_clip_s
        if seconds > longest:
            raise UtteranceError(
                f"The audio lasts {number_beside(seconds, longest, 1)} s, but this model accepts "
                f"at most {longest:g} s at once; cut it into shorter utterances."
            )
        return super().features(audio)

    def _seen(self, states: torch.Tensor) -> torch.Tensor:
        projected: torch.Tensor = self._decoder.proj(states)
        return projected
