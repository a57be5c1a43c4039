"""What Canary and Cohere's model share: a Fast Conformer (Rekesh et al. 2023) and its prompt."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from s2txai.models.base import Facts, Features
from s2txai.models.pieces import WordPieces
from s2txai.models.transformers_base import TransformersModel


class FastConformerModel(TransformersModel):
    """A Fast Conformer encoder and a Transformer decoder.

    Parameters
    ----------
    network, tokenizer, extractor
        Of the checkpoint.
    max_positions
        Of the decoder, the prompt included.
    precision
        Of the forward passes.
    search
        What is honoured of the checkpoint's settings of decoding.
    """

    _decoder_norm = "norm"
    # What the prompt begins with, before the tags.
    _opening: Sequence[str] = ()

    def __init__(
        self,
        network: Any,
        tokenizer: Any,
        extractor: Any,
        *,
        max_positions: int,
        precision: torch.dtype,
        search: Mapping[str, Any],
    ) -> None:
        self._pieces = WordPieces(tokenizer, network.config.eos_token_id)
        self._extractor = extractor
        super().__init__(
            network,
            self._pieces,
            Facts(
                sampling_rate=extractor.sampling_rate,
                frame_shift=extractor.hop_length / extractor.sampling_rate,
                subsampling=network.config.encoder_config.subsampling_factor,
                max_new_tokens=max_positions - len(self._tags("", "")),
            ),
            precision=precision,
            **search,
        )

    def _tags(self, source: str, target: str) -> list[str]:
        """Return the prompt: with punctuation, without times, speakers and written numbers."""
        return [
            *self._opening,
            "<|startofcontext|>",
            "<|startoftranscript|>",
            "<|emo:undefined|>",
            f"<|{source}|>",
            f"<|{target}|>",
            "<|pnc|>",
            "<|noitn|>",
            "<|notimestamp|>",
            "<|nodiarize|>",
        ]

    def _prompt(self, source: str, target: str) -> list[int]:
        return [self._pieces.token(tag) for tag in self._tags(source, target)]

    def features(self, audio: np.ndarray) -> Features:
        """Return log-mel frames, each bin normalised over the utterance."""
        output = self._extractor(audio, sampling_rate=self.facts.sampling_rate, return_tensors="pt")
        # The extractor gives one frame more than it counts as speech.
        speech = output["input_features"][0][output["attention_mask"][0].bool()]
        return Features(np.ascontiguousarray(speech.numpy()), padding_value=0.0)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        return features

    def _encoder_parts(self) -> tuple[torch.nn.Module, Sequence[torch.nn.Module]]:
        return torch.nn.ModuleList(), self._encoder.layers
