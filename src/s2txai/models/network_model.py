"""What models that run a network of torch have in common, whichever library it is from.

A family adds what is its own: the network's parts, and how audio and task become its input.
"""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import torch

from s2txai.models.base import CrossAttention, Facts, Model, pad_steps
from s2txai.models.memory import to_device

P = ParamSpec("P")
R = TypeVar("R")
M = TypeVar("M", bound=Model)


def inference(method: Callable[Concatenate[M, P], R]) -> Callable[Concatenate[M, P], R]:
    """Make a method run without a graph, in the arithmetic of its model."""

    @wraps(method)
    def run(model: M, /, *args: P.args, **kwargs: P.kwargs) -> R:
        with torch.inference_mode(), model.arithmetic():
            return method(model, *args, **kwargs)

    return run


class NetworkModel(Model):
    """A model whose passes run a network under autocast.

    Parameters
    ----------
    facts
        What stays the same for every utterance.
    device
        Of the network.
    precision
        Of the forward passes; states, logits and attention are float32 always.
    """

    def __init__(self, facts: Facts, device: torch.device, precision: torch.dtype) -> None:
        self.facts = facts
        self.device = device
        self._precision = precision

    def _encoder_states(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Return states [N, steps, D] of features [N, T, F]."""
        raise NotImplementedError

    def _decoder_states(
        self, states: torch.Tensor, inputs: torch.Tensor, visible: torch.Tensor | None
    ) -> torch.Tensor:
        """Return the decoder's output [N, length, D] for inputs [1, length].

        ``visible`` is bool [N, length], False where an input's embedding is set to zero.
        """
        raise NotImplementedError

    def _occluded_decoder_states(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        inputs: torch.Tensor,
        occluded_value: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return the decoder's output [N, length, D] for inputs [1, length].

        Cross-attention reads states [1, steps, D] occluded by bool [N, steps]; keys and values of
        the steps are computed once for all N.
        """
        raise NotImplementedError

    def _project(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return logits [N, I, V] of the decoder's output [N, I, D]."""
        raise NotImplementedError

    def _attention(
        self, states: torch.Tensor, inputs: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weights [L, H, length, steps] and value norms [L, H, steps], float32.

        ``states`` is [1, steps, D], ``inputs`` [1, length].
        """
        raise NotImplementedError

    def _encoder_attention(
        self, features: torch.Tensor, padding_value: float
    ) -> Sequence[torch.Tensor]:
        """Return the self-attention [N, H, steps, steps] of each layer of the encoder."""
        raise NotImplementedError

    @inference
    def encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Encode features [N, T, F] into states [N, steps, D]."""
        return self._encode(features, padding_value)

    def _encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        with self._autocast():
            states = self._encoder_states(features, padding_value)
        return states.float()

    @inference
    def decode(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V]."""
        return self._decode(states, prompt, tokens)

    def _decode(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        visible: torch.Tensor | None = None,
    ) -> torch.Tensor:
        with self._autocast():
            hidden = self._decoder_states(states, self._read_tokens(prompt, tokens), visible)
            return self._logits(hidden, prompt)

    def _logits(self, hidden: torch.Tensor, prompt: Sequence[int]) -> torch.Tensor:
        # Only the rows that predict a token: the vocabulary makes this the largest product.
        return self._project(rows_of(hidden, prompt)).float()

    def _read_tokens(self, prompt: Sequence[int], tokens: Sequence[int]) -> torch.Tensor:
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
        with self.arithmetic():
            return self._decode(self._encode(features, padding_value), prompt, tokens)

    @inference
    def decode_occluded(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        occluded_value: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return logits [N, I, V]; keys and values of the steps are computed once for all N."""
        occluded = pad_steps(occluded, states.shape[1])  # (N, steps)
        with self._autocast():
            inputs = self._read_tokens(prompt, tokens)
            hidden = self._occluded_decoder_states(states, occluded, inputs, occluded_value)
            return self._logits(hidden, prompt)

    @inference
    def decode_without_tokens(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] with embeddings of preceding tokens set to zero."""
        return self._decode(states, prompt, tokens, visible_inputs(occluded, prompt))

    @inference
    def cross_attention(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> CrossAttention:
        """Return attention [L, H, I, steps] of one utterance; ``states`` is [1, steps, D]."""
        weights, norms = self._attention(states, self._read_tokens(prompt, tokens))
        weights = rows_of(weights, prompt)  # (L, H, I, steps)
        value_norm = weights * norms[:, :, None]
        return CrossAttention(weights.cpu().numpy(), value_norm.cpu().numpy())

    @inference
    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Return self-attention [layers, steps, steps], mean over heads, of one [1, T, F]."""
        with self._autocast():
            layers = self._encoder_attention(features, padding_value)
        means = [layer[0].float().mean(dim=0) for layer in layers]
        return torch.stack(means).cpu().numpy()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, self._precision, enabled=self._precision != torch.float32
        )


def first_row(prompt: Sequence[int]) -> int:
    """Return the decoder's position that predicts the first token: the last of the prompt."""
    return len(prompt) - 1


def visible_inputs(occluded: torch.Tensor, prompt: Sequence[int]) -> torch.Tensor:
    """Return bool [N, length], False at inputs of the decoder that are occluded, bool [N, I]."""
    # Only the last token of the prompt is the direct predecessor of a row.
    return torch.nn.functional.pad(~occluded, (first_row(prompt), 0), value=True)


def rows_of(positions: torch.Tensor, prompt: Sequence[int]) -> torch.Tensor:
    """Return [..., I, n], the positions [..., length, n] of the decoder that predict a token."""
    return positions[..., first_row(prompt) :, :]
