"""Speech2Text (Wang et al. 2020, fairseq S2T): a convolutional subsampler and a Transformer."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import (
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    Speech2TextTokenizer,
)

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import Facts, Features
from s2txai.models.options import NO_OPTIONS
from s2txai.models.pieces import WordPieces
from s2txai.models.transformers_base import TransformersModel
from s2txai.models.transformers_loading import (
    check_checkpoint,
    generation_settings,
    load_extractor,
    load_network,
    load_part,
    searched,
)

FRAME_SHIFT = 0.01  # seconds; the extractor leaves Kaldi's default


def load_speech_to_text(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "SpeechToTextModel":
    """Load a Speech2Text, as a :class:`~s2txai.models.base.Loader`."""
    network = load_network(Speech2TextForConditionalGeneration, directory, options).to(device)
    tokenizer = load_part(Speech2TextTokenizer, directory)
    check_checkpoint(directory, network, tokenizer)
    bins = network.config.input_feat_per_channel
    return SpeechToTextModel(
        network,
        tokenizer,
        load_extractor(Speech2TextFeatureExtractor, directory, num_mel_bins=bins),
        precision=precision,
        search=searched(directory, network.config, generation_settings(directory, network)),
    )


class SpeechToTextModel(TransformersModel):
    """Speech2Text behind the interface of :class:`s2txai.models.base.Model`."""

    def __init__(
        self,
        network: Speech2TextForConditionalGeneration,
        tokenizer: Speech2TextTokenizer,
        extractor: Speech2TextFeatureExtractor,
        *,
        precision: torch.dtype,
        search: Mapping[str, Any],
    ) -> None:
        config = network.config
        pieces = WordPieces(tokenizer, config.eos_token_id)
        super().__init__(
            network,
            pieces,
            Facts(
                sampling_rate=extractor.sampling_rate,
                frame_shift=FRAME_SHIFT,
                subsampling=2**config.num_conv_layers,
                # The longest prompt has two tokens.
                max_new_tokens=config.max_target_positions - 2,
            ),
            precision=precision,
            **search,
        )
        # Noise, another one each time an utterance is read.
        extractor.dither = 0.0
        self._extractor = extractor
        self._start: int = config.decoder_start_token_id
        self._targets = {
            language: pieces.token(f"<lang:{language}>") for language in tokenizer.lang_code_to_id
        }

    def prompt(self, task: Task) -> list[int]:
        """Return the decoder's start and, in a multilingual translator, the target language.

        A checkpoint without languages does one task, which it does not name.

        Raises
        ------
        UserError
            If a multilingual checkpoint cannot do the task.
        """
        if not self._targets:
            return [self._start]
        if task.kind == "asr" or task.target not in self._targets:
            raise UserError(
                f"This Speech2Text only translates, into {', '.join(sorted(self._targets))}, so it "
                f"cannot do '{task.name}'; choose a translation into one of these."
            )
        return [self._start, self._targets[task.target]]

    def features(self, audio: np.ndarray) -> Features:
        """Return log-mel frames, each bin normalised over the utterance."""
        frames = self._extractor(
            audio, sampling_rate=self.facts.sampling_rate, return_tensors="np"
        ).input_features[0]
        return Features(np.ascontiguousarray(frames, dtype=np.float32), padding_value=0.0)

    def _inputs(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        return features
