"""The paper's models behind the interface of :class:`s2txai.models.base.Model`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import Facts, Features, TokenTable
from s2txai.models.conformer.beam_search import SearchSettings
from s2txai.models.conformer.checkpoint import checkpoint_settings, load_fairseq_checkpoint
from s2txai.models.conformer.decoder import EOS
from s2txai.models.conformer.features import FRAME_SHIFT, SAMPLING_RATE, filterbank, normalise
from s2txai.models.conformer.network import Conformer, compression
from s2txai.models.conformer.session import search
from s2txai.models.conformer.vocabulary import Vocabulary, read_preprocessing, the_only
from s2txai.models.network_model import NetworkModel, inference
from s2txai.models.options import NO_OPTIONS

NO_REPEAT_NGRAM = 5  # as the models are documented to be decoded
LONGEST = 200  # tokens before end of sentence, the toolkit's default
_DEFAULT_POSITIONS = 1024  # of the decoder, where the checkpoint does not say


def load_conformer(
    directory: Path,
    *,
    device: torch.device,
    precision: torch.dtype,
    options: Mapping[str, Any] = NO_OPTIONS,
) -> "ConformerModel":
    """Load FAMA, or another model of its kind.

    Parameters
    ----------
    directory
        Holds one fairseq checkpoint (``*.pt``), one YAML file with the settings of the data, and
        the dictionary and the sentencepiece model that it names.
    device, precision
        Where and in which type to compute.
    options
        ``ctc_weight``: of the joint CTC head in decoding.

    Raises
    ------
    UserError
        If a file is missing or malformed, or the network is not one that is implemented.
    """
    checkpoint = the_only(directory, "*.pt", "checkpoint")
    network = load_fairseq_checkpoint(checkpoint)
    settings = checkpoint_settings(checkpoint)
    if compression(settings) != "none":
        raise UserError(
            f"{checkpoint} averages encoder steps (ctc_compress_strategy="
            f"'{compression(settings)}'), so that they no longer have a time; "
            "such a model cannot be analysed."
        )
    files = read_preprocessing(directory)
    n_symbols = network.decoder.embed_tokens.num_embeddings
    return ConformerModel(
        network.to(device),
        Vocabulary.read(files, n_symbols),
        n_bins=files.n_bins,
        max_positions=int(settings.get("max_target_positions") or _DEFAULT_POSITIONS),
        ctc_weight=float(options.get("ctc_weight", 0.0)),
        precision=precision,
    )


class ConformerModel(NetworkModel):
    """Conformer encoder, Transformer decoder.

    Parameters
    ----------
    network
        On its device.
    vocabulary
        Of the target.
    n_bins
        Of the filterbank.
    max_positions
        Tokens that the decoder can read.
    ctc_weight
        Of the joint CTC head in decoding; 0 decodes without.
    precision
        Of the passes, by autocast.
    """

    def __init__(
        self,
        network: Conformer,
        vocabulary: Vocabulary,
        *,
        n_bins: int,
        max_positions: int,
        ctc_weight: float,
        precision: torch.dtype,
    ) -> None:
        with_head = network.auxiliary_decoder is not None and vocabulary.has_language_tags
        if ctc_weight and not with_head:
            raise UserError(
                "The model has no CTC head over its target that knows the language; "
                "remove 'options.ctc_weight' from its entry in the table of models, or from the "
                "'options' of load_model."
            )
        super().__init__(
            Facts(
                sampling_rate=SAMPLING_RATE,
                frame_shift=FRAME_SHIFT,
                subsampling=2 ** len(network.encoder.subsample.conv_layers),
                max_new_tokens=min(LONGEST + 1, max_positions),
            ),
            network.decoder.embed_tokens.weight.device,
            precision,
        )
        self._network = network
        self._vocabulary = vocabulary
        self._n_bins = n_bins
        self._ctc_weight = ctc_weight

    def compile(self) -> None:
        """Compile the encoder, where most of the time of a mask goes."""
        self._network.encoder.compile()

    def prompt(self, task: Task) -> list[int]:
        """Return end of sentence, from which every hypothesis starts."""
        return [EOS]

    def forced(self, task: Task) -> list[int]:
        """Return the tag of the language that the task writes; nothing if the model has no tags.

        Raises
        ------
        UserError
            If the model does not write this language.
        """
        tag = self._vocabulary.language_tag(task.target)
        return [] if tag is None else [tag]

    def features(self, audio: np.ndarray) -> Features:
        """Return filterbanks [T, F], every bin with mean 0 and variance 1 over the utterance."""
        return Features(normalise(filterbank(audio, self._n_bins)), padding_value=0.0)

    def _encoder_states(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        states: torch.Tensor = self._network.encoder(features).states  # nothing is padded
        return states

    def _decoder_states(
        self, states: torch.Tensor, inputs: torch.Tensor, visible: torch.Tensor | None
    ) -> torch.Tensor:
        reads = self._network.reads(states)
        hidden: torch.Tensor
        hidden, _ = self._network.decoder(inputs.expand(len(states), -1), reads, visible=visible)
        return hidden

    def _occluded_decoder_states(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        inputs: torch.Tensor,
        occluded_value: torch.Tensor | None,
    ) -> torch.Tensor:
        reads = self._network.occluded_reads(states, occluded, occluded_value)
        hidden: torch.Tensor
        hidden, _ = self._network.decoder(inputs.expand(len(occluded), -1), reads)
        return hidden

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._network.decoder.logits(hidden)

    def _attention(
        self, states: torch.Tensor, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        with self._autocast():
            weights = self._network.cross_attention(states, self._everywhere(states), inputs)[0]
        attentions = self._network.decoder.cross_attentions()
        norms = [attention.value_norms(states) for attention in attentions]
        return weights.float(), torch.stack(norms)

    def _encoder_attention(
        self, features: torch.Tensor, padding_value: float
    ) -> Sequence[torch.Tensor]:
        attention: Sequence[torch.Tensor] = self._network.encoder(
            features, keep_attention=True
        ).attention
        return attention

    @inference
    def generate(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        *,
        beam: int,
        max_new_tokens: int,
        forced: Sequence[int] = (),
    ) -> list[list[int]]:
        """Decode the states by beam search, side by side.

        No five tokens occur twice in a row; a hypothesis that gets long is made to end.
        """
        settings = SearchSettings(
            beam=beam,
            last_step=min(max_new_tokens, self.facts.max_new_tokens) - 1,
            forced=forced,
            no_repeat_ngram=NO_REPEAT_NGRAM,
            ctc_weight=self._ctc_weight,
        )
        with self._autocast():
            utterances = search(self._network, states, self._everywhere(states), settings)
        return [hypotheses[0].tokens for hypotheses in utterances]

    def _everywhere(self, states: torch.Tensor) -> torch.Tensor:
        """Return that no step of states [N, steps, D] is padding, bool [N, steps]."""
        return torch.ones(states.shape[:2], dtype=torch.bool, device=self.device)

    def layers(self) -> list[nn.Module]:
        """Return the outputs, the decoder's layers, its embeddings, then those of the encoder."""
        encoder, decoder = self._network.encoder, self._network.decoder
        outputs: list[Any] = [decoder.layer_norm, encoder.ctc_fc, self._network.auxiliary_decoder]
        if decoder.output_projection.weight is not decoder.embed_tokens.weight:
            outputs.append(decoder.output_projection)
        return [
            nn.ModuleList([module for module in outputs if module is not None]),
            *reversed(decoder.layers),
            decoder.embed_tokens,
            *reversed(encoder.conformer_layers),
            encoder.subsample,
        ]

    def token_table(self, tokens: Sequence[int]) -> TokenTable:
        """Describe each token."""
        return self._vocabulary.table(tokens)

    def text(self, tokens: Sequence[int]) -> str:
        """Return the hypothesis as text."""
        return self._vocabulary.text(tokens)
