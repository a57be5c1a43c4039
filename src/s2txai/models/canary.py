"""Canary (Puvvada et al. 2024; Sekoyan et al. 2025): transcription and translation by prompt."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from transformers import CanaryForConditionalGeneration, ParakeetFeatureExtractor

from s2txai.datasets import Task
from s2txai.models.fast_conformer import FastConformerModel
from s2txai.models.options import NO_OPTIONS
from s2txai.models.transformers_loading import (
    check_checkpoint,
    generation_settings,
    load_extractor,
    load_network,
    load_tokenizer,
    searched,
)


def load_canary(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "CanaryModel":
    """Load a Canary of the second prompt format, as a :class:`~s2txai.models.base.Loader`."""
    network = load_network(CanaryForConditionalGeneration, directory, options).to(device)
    tokenizer = load_tokenizer(directory)
    check_checkpoint(directory, network, tokenizer)
    bins = network.config.encoder_config.num_mel_bins
    return CanaryModel(
        network,
        tokenizer,
        load_extractor(ParakeetFeatureExtractor, directory, feature_size=bins),
        max_positions=network.config.decoder_config.max_position_embeddings,
        precision=precision,
        search=searched(directory, network.config, generation_settings(directory, network)),
    )


class CanaryModel(FastConformerModel):
    """Canary behind the interface of :class:`s2txai.models.base.Model`."""

    def prompt(self, task: Task) -> list[int]:
        """Return the tags of language and format; both languages are alike for transcription.

        Raises
        ------
        UserError
            If the vocabulary lacks a language.
        """
        return self._prompt(task.source, task.target)
