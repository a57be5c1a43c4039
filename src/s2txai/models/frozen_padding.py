"""Whisper over perturbations of one input, without the cost of its padding.

Whisper encodes 1,500 steps however short the speech is, and cropping them changes transcripts. But
a perturbation of the speech hardly moves most steps of the padding: they can be frozen at their
means over a few perturbations. Their keys and values then enter every layer's attention, and the
decoder's, without being computed again.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from s2txai.models.occlusion import KeysAndValues, partly_shared_attention, split_heads

ACTIVE_SHARES = (64 / 1500, 128 / 1500)
"""Of all steps, how many of the padding are computed as well: those that vary most."""

MOST_COMPUTED = 0.75
"""Of all steps: with more, checks and pilot would cost what is saved."""


def reached_steps(n_frames: int) -> int:
    """Return how many steps depend directly on ``n_frames`` frames, through the convolutions.

    Step j sees the frames from 2 j - 2 to 2 j + 2: two convolutions of width 3, one with stride 2.
    """
    return (n_frames + 1) // 2 + 1


def active_counts(n_frames: int, n_steps: int) -> list[int]:
    """Return the numbers of active steps of padding with which freezing the others pays."""
    most = MOST_COMPUTED * n_steps - reached_steps(n_frames)
    counts = [round(share * n_steps) for share in ACTIVE_SHARES]
    return [n for n in counts if n <= most]


@dataclass(frozen=True)
class FrozenPadding:
    """The padding of one utterance, of which most steps are frozen.

    Attributes
    ----------
    n_reached
        Steps that perturbations reach directly, the first ones.
    positions
        int64 [A], the active steps of padding.
    inputs
        [1, A, D], what enters the first layer there; the same for all perturbations.
    encoder
        Of each layer keys and values [1, R, D] of the R frozen steps.
    decoder
        Of each layer keys and values [1, H, R, d] of its cross-attention.
    """

    n_reached: int
    positions: torch.Tensor
    inputs: torch.Tensor
    encoder: Sequence[KeysAndValues]
    decoder: Sequence[KeysAndValues]

    @property
    def n_computed(self) -> int:
        """Steps that are computed for each perturbation."""
        return self.n_reached + len(self.positions)

    @contextmanager
    def in_cross_attentions(
        self, attentions: Sequence[Any], project: Callable[[Any, torch.Tensor], KeysAndValues]
    ) -> Iterator[None]:
        """Make cross-attentions see the frozen steps beside the states that they are given.

        Parameters
        ----------
        attentions
            Of each layer of the decoder.
        project
            From an attention and states [N, n, D] to keys and values [N, H, n, d].
        """
        with ExitStack() as stack:
            for attention, frozen in zip(attentions, self.decoder, strict=True):
                attention.forward = partial(_attend, attention, frozen, project)
                stack.callback(delattr, attention, "forward")  # uncovers the class's own
            yield


def _attend(
    attention: Any,
    frozen: KeysAndValues,
    project: Callable[[Any, torch.Tensor], KeysAndValues],
    hidden_states: torch.Tensor,
    key_value_states: torch.Tensor,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from [N, I, D] to states [N, n, D] and the frozen steps."""
    query = split_heads(attention.q_proj(hidden_states), frozen[0].shape[1])  # (N, H, I, d)
    own = project(attention, key_value_states)
    context = partly_shared_attention(query, own, frozen, attention.scaling)
    return attention.out_proj(context.transpose(1, 2).flatten(2)), None


def encode_reached(
    encoder: Any, padding: FrozenPadding, features: torch.Tensor, padding_value: float
) -> torch.Tensor:
    """Return states [N, n_reached + A, D] of features [N, T, F], the frozen steps as they are.

    Parameters
    ----------
    encoder
        Of Whisper.
    padding
        Of this utterance.
    features
        Perturbations of its input.
    padding_value
        What follows them.
    """
    n = padding.n_reached
    # One frame more than the last of these steps sees, so that no convolution pads within reach.
    missing = 2 * n + 1 - features.shape[1]
    frames = torch.nn.functional.pad(features.transpose(1, 2), (0, missing), value=padding_value)
    convolved = torch.nn.functional.gelu(encoder.conv1(frames))
    convolved = torch.nn.functional.gelu(encoder.conv2(convolved))  # (N, D, n + 1)
    reached = convolved.transpose(1, 2)[:, :n] + encoder.embed_positions.weight[:n]
    hidden = torch.cat([reached, padding.inputs.expand(len(features), -1, -1)], dim=1)
    for layer, frozen in zip(encoder.layers, padding.encoder, strict=True):
        hidden = _encoder_layer(layer, hidden, frozen)
    states: torch.Tensor = encoder.layer_norm(hidden)
    return states


def _encoder_layer(layer: Any, hidden: torch.Tensor, frozen: KeysAndValues) -> torch.Tensor:
    """Return a layer's output [N, n, D] where its attention also sees frozen steps."""
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(hidden)
    keys, values = (
        split_heads(
            torch.cat([projection(normed), of_frozen.expand(len(normed), -1, -1)], dim=1),
            attention.num_heads,
        )
        for projection, of_frozen in zip((attention.k_proj, attention.v_proj), frozen, strict=True)
    )
    query = split_heads(attention.q_proj(normed), attention.num_heads)
    context = torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, scale=attention.scaling
    )
    hidden = hidden + attention.out_proj(context.transpose(1, 2).flatten(2))
    normed = layer.final_layer_norm(hidden)
    fed: torch.Tensor = layer.fc2(layer.activation_fn(layer.fc1(normed)))
    return hidden + fed


class PaddingObserver:
    """Records what the steps of padding hold while the encoder runs on perturbations.

    Parameters
    ----------
    encoder
        Of Whisper.
    n_reached
        Steps before the padding.
    """

    def __init__(self, encoder: Any, n_reached: int) -> None:
        self._encoder, self._n_reached = encoder, n_reached
        self._inputs = torch.empty(0)
        # Of each layer
        self._keys = [_Moments() for _ in encoder.layers]
        self._values = [_Moments() for _ in encoder.layers]
        self._states = _Moments()

    def observe(self, inputs: torch.Tensor) -> None:
        """Run the encoder on one input [1, F, context], and record its padding."""
        n = self._n_reached

        def record(moments: _Moments) -> Callable[..., None]:
            return lambda _module, _inputs, output: moments.add(output[:, n:])

        def record_input(_module: object, inputs: tuple[torch.Tensor, ...]) -> None:
            self._inputs = inputs[0][:, n:]

        with ExitStack() as stack:
            hooks = [self._encoder.layers[0].register_forward_pre_hook(record_input)]
            for layer, keys, values in zip(
                self._encoder.layers, self._keys, self._values, strict=True
            ):
                hooks.append(layer.self_attn.k_proj.register_forward_hook(record(keys)))
                hooks.append(layer.self_attn.v_proj.register_forward_hook(record(values)))
            for hook in hooks:
                stack.callback(hook.remove)
            # A compiled encoder would run without these hooks.
            states = self._encoder.forward(inputs).last_hidden_state
        self._states.add(states[:, n:])

    def frozen(
        self, n_active: int, project: Callable[[torch.Tensor], list[KeysAndValues]]
    ) -> FrozenPadding:
        """Return the padding with all but the ``n_active`` steps that vary most frozen.

        Parameters
        ----------
        n_active
            At most the steps of padding.
        project
            From states [1, R, D] to keys and values of each layer of the decoder.
        """
        order = self._variation().argsort(descending=True, stable=True)
        active, others = order[:n_active].sort().values, order[n_active:].sort().values
        return FrozenPadding(
            n_reached=self._n_reached,
            positions=active + self._n_reached,
            inputs=self._inputs[:, active],
            encoder=[
                (keys.mean[:, others], values.mean[:, others])
                for keys, values in zip(self._keys, self._values, strict=True)
            ],
            decoder=project(self._states.mean[:, others]),
        )

    def _variation(self) -> torch.Tensor:
        """Return how much each step of padding varies, all layers alike, [R]."""
        parts = [(moments, 1.0) for moments in (*self._keys, *self._values)]
        # The decoder makes keys and values of the states.
        parts.append((self._states, 2.0))
        total = torch.zeros(self._inputs.shape[1], device=self._inputs.device)
        for moments, weight in parts:
            variance = moments.variance
            total += weight * variance / variance.mean().clamp(min=torch.finfo(torch.float32).tiny)
        return total


class _Moments:
    """Mean of what steps hold and, summed over its dimensions, the variance of each step."""

    def __init__(self) -> None:
        self._n = 0
        self._first = self._sum = self._squares = torch.empty(0)

    def add(self, values: torch.Tensor) -> None:
        """Add values [1, R, D]."""
        if self._n == 0:
            self._first = values
            self._sum = torch.zeros_like(values, dtype=torch.float32)
            self._squares = torch.zeros(values.shape[1], device=values.device)
        # From the first one on: sums of the values themselves would hide small changes.
        deviation = values.float() - self._first.float()
        self._sum += deviation
        self._squares += deviation.square().sum(dim=(0, 2))
        self._n += 1

    @property
    def mean(self) -> torch.Tensor:
        """[1, R, D], of the type of the values."""
        return (self._first.float() + self._sum / self._n).to(self._first.dtype)

    @property
    def variance(self) -> torch.Tensor:
        """float32 [R]."""
        squared_mean = (self._sum / self._n).square().sum(dim=(0, 2))
        return (self._squares / self._n - squared_mean).clamp(min=0)
