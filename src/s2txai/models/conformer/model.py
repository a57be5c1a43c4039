"""The paper's models behind the interface of :class:`s2txai.models.base.Model`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.base import CrossAttention, Facts, Features, Model, TokenTable, pad_steps
from s2txai.models.conformer.beam_search import Settings
from s2txai.models.conformer.checkpoint import checkpoint_settings, load_fairseq_checkpoint
from s2txai.models.conformer.decoder import EOS, Read
from s2txai.models.conformer.features import FRAME_SHIFT, SAMPLING_RATE, filterbank, normalise
from s2txai.models.conformer.network import Conformer, compression
from s2txai.models.conformer.session import search
from s2txai.models.conformer.vocabulary import Vocabulary, read_preprocessing, the_only
from s2txai.models.memory import to_device
from s2txai.study.fetch_model import read_options

NO_REPEAT_NGRAM = 5  # as the models are documented to be decoded
LONGEST = 200  # tokens before end of sentence, the toolkit's default
_DEFAULT_POSITIONS = 1024  # of the decoder, where the checkpoint does not say


def load_conformer(
    directory: Path, *, device: torch.device, precision: torch.dtype
) -> "ConformerModel":
    """Load FAMA, or another model of its kind.

    Parameters
    ----------
    directory
        Holds one fairseq checkpoint (``*.pt``), one YAML file with the settings of the data, and
        the dictionary and the sentencepiece model that it names.
    device, precision
        Where and in which type to compute.

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
            f"'{compression(settings)}'), so that they no longer tell time; "
            "such a model cannot be audited."
        )
    files = read_preprocessing(directory)
    n_symbols = network.decoder.embed_tokens.num_embeddings
    return ConformerModel(
        network.to(device),
        Vocabulary.read(files, n_symbols),
        n_bins=files.n_bins,
        max_positions=int(settings.get("max_target_positions") or _DEFAULT_POSITIONS),
        ctc_weight=float(read_options(directory).get("ctc_weight", 0.0)),
        precision=precision,
    )


class ConformerModel(Model):
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
                "remove 'options.ctc_weight' from its entry in the table of models."
            )
        self._network = network
        self._vocabulary = vocabulary
        self._n_bins = n_bins
        self._ctc_weight = ctc_weight
        self._precision = precision
        self.device = network.decoder.embed_tokens.weight.device
        self.facts = Facts(
            sampling_rate=SAMPLING_RATE,
            frame_shift=FRAME_SHIFT,
            subsampling=2 ** len(network.encoder.subsample.conv_layers),
            max_new_tokens=min(LONGEST + 1, max_positions),
        )

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

    @torch.inference_mode()
    def encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Encode features [N, T, F] into states [N, ceil(T / r), D]; nothing is padded."""
        return self._encode(features)

    def _encode(self, features: torch.Tensor) -> torch.Tensor:
        with self._autocast():
            states: torch.Tensor = self._network.encoder(features).states
        return states.float()

    @torch.inference_mode()
    def decode(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V]."""
        return self._decode(states, prompt, tokens)

    def _decode(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        with self._autocast():
            reads = self._network.reads(states)
            return self._logits(reads, len(states), prompt, tokens)

    def _logits(
        self,
        reads: Sequence[Read],
        n_rows: int,
        prompt: Sequence[int],
        tokens: Sequence[int],
        visible: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] of a pass that reads the encoder through ``reads``."""
        inputs = self._inputs(prompt, tokens).expand(n_rows, -1)
        with self._autocast():
            hidden, _ = self._network.decoder(inputs, reads, visible=visible)
            # Only the rows that predict a token.
            logits = self._network.decoder.logits(hidden[:, len(prompt) - 1 :])
        return logits.float()

    def _inputs(self, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
        # The last token is predicted, never read.
        return to_device(torch.tensor([[*prompt, *tokens[:-1]]]), self.device)  # (1, length)

    def differentiable_logits(
        self,
        features: torch.Tensor,
        padding_value: float,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] with a graph that leads back to features [N, T, F]."""
        return self._decode(self._encode(features), prompt, tokens)

    @torch.inference_mode()
    def decode_occluded(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        filling: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return logits [N, I, V]; keys and values of the steps are computed once for all N."""
        hidden = pad_steps(occluded, states.shape[1])  # (N, steps)
        with self._autocast():
            reads = self._network.occluded_reads(states, hidden, filling)
            return self._logits(reads, len(occluded), prompt, tokens)

    @torch.inference_mode()
    def decode_without_tokens(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] with embeddings of preceding tokens set to zero."""
        # Only the last token of the prompt is the direct predecessor of a row.
        visible = torch.nn.functional.pad(~occluded, (len(prompt) - 1, 0), value=True)
        with self._autocast():
            reads = self._network.reads(states)
            return self._logits(reads, len(states), prompt, tokens, visible)

    @torch.inference_mode()
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
        settings = Settings(
            beam=beam,
            last_step=min(max_new_tokens, self.facts.max_new_tokens) - 1,
            forced=forced,
            no_repeat_ngram=NO_REPEAT_NGRAM,
            ctc_weight=self._ctc_weight,
        )
        with self._autocast():
            found = search(self._network, states, self._everywhere(states), settings)
        return [hypotheses[0].tokens for hypotheses in found]

    def _everywhere(self, states: torch.Tensor) -> torch.Tensor:
        """Return that no step of states [N, steps, D] is padding, bool [N, steps]."""
        return torch.ones(states.shape[:2], dtype=torch.bool, device=self.device)

    @torch.inference_mode()
    def cross_attention(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> CrossAttention:
        """Return attention [L, H, I, steps] of one utterance; ``states`` is [1, steps, D]."""
        with self._autocast():
            weights = self._network.cross_attention(
                states, self._everywhere(states), self._inputs(prompt, tokens)
            )[0].float()
        weights = weights[:, :, len(prompt) - 1 :]  # (L, H, I, steps)
        norms = torch.stack(
            [
                attention.value_norms(states)
                for attention in self._network.decoder.cross_attentions()
            ]
        )  # (L, H, steps)
        value_norm = weights * norms[:, :, None]
        return CrossAttention(weights.cpu().numpy(), value_norm.cpu().numpy())

    @torch.inference_mode()
    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Return self-attention [layers, steps, steps], mean over heads, of one [1, T, F]."""
        with self._autocast():
            output = self._network.encoder(features, keep_attention=True)
        means = [layer[0].float().mean(dim=0) for layer in output.attention]
        return torch.stack(means).cpu().numpy()

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

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, self._precision, enabled=self._precision != torch.float32
        )
