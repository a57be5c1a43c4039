"""Whisper over perturbations of one input, without the cost of its padding.

Whisper encodes 1,500 steps however short the speech is, and cropping them changes transcripts. But
a perturbation of the speech hardly moves the padding, and moves it together. So most of its steps
are not computed: their keys and values, which enter every layer's attention and the decoder's, are
predicted from those of the first steps of padding, which are. What a few whole passes show is
combined linearly, by ridge regression.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch

from s2txai.models.occlusion import KeysAndValues, split_heads

ACTIVE_SHARES = (64 / 1500, 128 / 1500)
"""Active steps of padding, the first after the speech, as shares of all steps: a pass for each."""

MOST_COMPUTED = 0.75
"""The most that a pass computes, as a share of all steps: beyond it it saves no time."""

RIDGE = 0.1
"""Penalty of the regression, relative to the mean square of what predicts."""

_NEXT_TO_NOTHING = 1e-12


def reached_steps(n_frames: int) -> int:
    """Return how many steps depend directly on ``n_frames`` frames, through the convolutions.

    Step j sees the frames from 2 j - 2 to 2 j + 2: two convolutions of width 3, one with stride 2.
    """
    return (n_frames + 1) // 2 + 1


def active_counts(n_frames: int, n_steps: int) -> list[int]:
    """Return the numbers of active steps of padding with which predicting the others pays."""
    most = MOST_COMPUTED * n_steps - reached_steps(n_frames)
    counts = [round(share * n_steps) for share in ACTIVE_SHARES]
    return [n for n in counts if n <= most]


@dataclass(frozen=True)
class Prediction:
    """Keys and values of the steps that are not computed, predicted from those that are.

    Attributes
    ----------
    mean
        Of the predicting values [A D'] over the passes from which it has learnt.
    weights
        [A D', P], from their deviations to the weights of the P passes.
    keys, values
        Each [1, R D], the mean of what is predicted.
    key_changes, value_changes
        Each [P, R D], the deviations of the passes from it.
    """

    mean: torch.Tensor
    weights: torch.Tensor
    keys: torch.Tensor
    values: torch.Tensor
    key_changes: torch.Tensor
    value_changes: torch.Tensor

    @classmethod
    def learn(
        cls, predicting: torch.Tensor, keys: torch.Tensor, values: torch.Tensor
    ) -> "Prediction":
        """Learn from P passes: predicting values [P, A, D'], keys and values [P, R, D]."""
        flat = predicting.float().flatten(1)
        mean = flat.mean(dim=0)
        deviations = flat - mean  # (P, A D')
        # Sums over tens of thousands of small numbers: not in half precision.
        with torch.autocast(predicting.device.type, enabled=False):
            products = deviations @ deviations.T  # (P, P)
            # Passes that do not differ predict nothing, and divide by nothing.
            penalty = RIDGE * products.diagonal().mean().clamp(min=_NEXT_TO_NOTHING)
            identity = torch.eye(len(products), device=products.device)
            weights = torch.linalg.solve(products + penalty * identity, deviations).T
        means, changes = [], []
        for projected in (keys, values):
            flat = projected.flatten(1)
            means.append(flat.float().mean(dim=0, keepdim=True).to(flat.dtype))
            changes.append(flat - means[-1])
        return cls(mean, weights, *means, *changes)

    def of(self, predicting: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return keys and values, each [N, R D], for predicting values [N, A, D']."""
        with torch.autocast(predicting.device.type, enabled=False):
            weights = (predicting.float().flatten(1) - self.mean) @ self.weights  # (N, P)
            weights = weights.to(self.keys.dtype)
            return (
                torch.addmm(self.keys, weights, self.key_changes),
                torch.addmm(self.values, weights, self.value_changes),
            )


@dataclass(frozen=True)
class PredictedPadding:
    """The padding of one utterance, of which most steps are not computed.

    Attributes
    ----------
    n_reached
        Steps that perturbations reach directly, the first ones.
    n_computed
        These and the active steps of padding after them.
    encoder
        Keys and values of the other steps in each layer, from those of the active ones.
    decoder
        The same in each layer of the decoder, from the encoder's states at the active steps.
    """

    n_reached: int
    n_computed: int
    encoder: Sequence[Prediction]
    decoder: Sequence[Prediction]


class LearntOnce:
    """A padding that is learnt when it is first needed.

    What it has learnt from is then released: keys and values of some passes take gigabytes.

    Parameters
    ----------
    learn
        Returns the padding.
    """

    def __init__(self, learn: Callable[[], PredictedPadding]) -> None:
        self._learn: Callable[[], PredictedPadding] | None = learn
        self._padding: PredictedPadding | None = None

    def __call__(self) -> PredictedPadding:
        """Return the padding."""
        if self._learn is not None:
            self._padding, self._learn = self._learn(), None
        assert self._padding is not None
        return self._padding


def attend_predicted(
    attention: Any,
    prediction: Prediction,
    n_reached: int,
    project: Callable[[Any, torch.Tensor], KeysAndValues],
    hidden_states: torch.Tensor,
    key_value_states: torch.Tensor,
    **_: object,
) -> tuple[torch.Tensor, None]:
    """Attend from [N, I, D] to states [N, n, D] and the steps that are predicted from them.

    Takes the place of the ``forward`` of a cross-attention; ``project`` makes keys and values
    [N, H, n, d] of an attention's states.
    """
    computed = project(attention, key_value_states)
    N, H, _n, d = computed[0].shape
    predicted = prediction.of(key_value_states[:, n_reached:])
    # Predicted ones are stored by head, as they are projected.
    keys, values = (
        torch.cat([of_computed, of_predicted.view(N, H, -1, d)], dim=2)
        for of_computed, of_predicted in zip(computed, predicted, strict=True)
    )
    query = split_heads(attention.q_proj(hidden_states), H)  # (N, H, I, d)
    context = torch.nn.functional.scaled_dot_product_attention(
        query, keys, values, scale=attention.scaling
    )
    return attention.out_proj(context.transpose(1, 2).flatten(2)), None


def encode_reached(
    encoder: Any, padding: PredictedPadding, features: torch.Tensor, padding_value: float
) -> torch.Tensor:
    """Return states [N, n_computed, D] of features [N, T, F].

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
    n = padding.n_computed
    # As far as the last of these steps sees, so that no convolution pads before the context ends.
    n_frames = min(2 * n + 1, 2 * len(encoder.embed_positions.weight))
    missing = n_frames - features.shape[1]
    frames = torch.nn.functional.pad(features.transpose(1, 2), (0, missing), value=padding_value)
    convolved = torch.nn.functional.gelu(encoder.conv1(frames))
    convolved = torch.nn.functional.gelu(encoder.conv2(convolved))  # (N, D, at least n)
    hidden = convolved.transpose(1, 2)[:, :n] + encoder.embed_positions.weight[:n]
    for layer, prediction in zip(encoder.layers, padding.encoder, strict=True):
        hidden = _encoder_layer(layer, hidden, prediction, padding.n_reached)
    states: torch.Tensor = encoder.layer_norm(hidden)
    return states


def _encoder_layer(
    layer: Any, hidden: torch.Tensor, prediction: Prediction, n_reached: int
) -> torch.Tensor:
    """Return a layer's output [N, n, D] where its attention also sees predicted steps."""
    attention = layer.self_attn
    normed = layer.self_attn_layer_norm(hidden)
    computed = attention.k_proj(normed), attention.v_proj(normed)  # (N, n, D)
    active = torch.cat(computed, dim=2)[:, n_reached:]
    N, _n, D = hidden.shape
    keys, values = (
        split_heads(
            torch.cat([of_computed, of_predicted.view(N, -1, D)], dim=1), attention.num_heads
        )
        for of_computed, of_predicted in zip(computed, prediction.of(active), strict=True)
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
        # Of each layer and pass, [1, padding, D]
        self._keys: list[list[torch.Tensor]] = [[] for _ in encoder.layers]
        self._values: list[list[torch.Tensor]] = [[] for _ in encoder.layers]
        self._states: list[torch.Tensor] = []

    def observe(self, inputs: torch.Tensor) -> None:
        """Run the encoder on one input [1, F, context], and record its padding."""
        n = self._n_reached

        def record(seen: list[torch.Tensor]) -> Callable[..., None]:
            return lambda _module, _inputs, output: seen.append(output[:, n:])

        with ExitStack() as stack:
            for layer, keys, values in zip(
                self._encoder.layers, self._keys, self._values, strict=True
            ):
                attention = layer.self_attn
                stack.callback(attention.k_proj.register_forward_hook(record(keys)).remove)
                stack.callback(attention.v_proj.register_forward_hook(record(values)).remove)
            # A compiled encoder would run without these hooks.
            states = self._encoder.forward(inputs).last_hidden_state
        self._states.append(states[:, n:])

    def padding(
        self, n_active: int, project: Callable[[torch.Tensor], Iterable[KeysAndValues]]
    ) -> PredictedPadding:
        """Return the padding of which the first ``n_active`` steps are computed.

        Parameters
        ----------
        n_active
            At most the steps of padding.
        project
            From states [P, R, D] to keys and values of each layer of the decoder.
        """
        encoder = []
        for of_layer in zip(self._keys, self._values, strict=True):
            keys, values = (torch.cat(passes) for passes in of_layer)  # (P, padding, D)
            active = torch.cat([keys[:, :n_active], values[:, :n_active]], dim=2)
            encoder.append(Prediction.learn(active, keys[:, n_active:], values[:, n_active:]))
        states = torch.cat(self._states)
        decoder = [
            Prediction.learn(states[:, :n_active], keys, values)
            for keys, values in project(states[:, n_active:])
        ]
        return PredictedPadding(self._n_reached, self._n_reached + n_active, encoder, decoder)
