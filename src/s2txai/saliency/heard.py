"""An utterance as every attribution takes it: the input, and the hypothesis that is explained."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import torch

from s2txai.models.base import Model, n_steps


class Arrays(Protocol):
    """Arrays by name: a dictionary, or a result file of the step ``decode``."""

    def __getitem__(self, name: str, /) -> npt.NDArray[Any]:
        """Return an array."""


@dataclass(frozen=True, eq=False)
class Heard:
    """What a model received, and what it made of it.

    Attributes
    ----------
    features
        Unperturbed input over speech, float32 [T, F].
    padding_value
        What the model's input holds after the speech.
    prompt
        Tokens that the decoder is given before the first row: context, not rows.
    tokens
        The hypothesis, teacher-forced in every pass; row i predicts ``tokens[i]``.
    """

    features: npt.NDArray[np.float32]
    padding_value: float
    prompt: Sequence[int]
    tokens: Sequence[int]

    @classmethod
    def of(cls, decoded: Arrays) -> Self:
        """Return input and hypothesis of what :func:`s2txai.models.decoding.decode` returns."""
        return cls(
            features=decoded["features"],
            padding_value=float(decoded["padding_value"]),
            prompt=decoded["prompt"].tolist(),
            tokens=decoded["tokens"].tolist(),
        )

    def n_steps(self, subsampling: int) -> int:
        """Return T', the encoder steps that cover the speech."""
        return n_steps(len(self.features), subsampling)

    def inputs(self, device: torch.device) -> torch.Tensor:
        """Return the input as a batch of one on a device, [1, T, F]."""
        return torch.from_numpy(self.features).to(device)[None]

    def encode(self, model: Model) -> torch.Tensor:
        """Return the encoder's states of the unperturbed input, [1, steps, D]."""
        return model.encode(self.inputs(model.device), self.padding_value)

    def logits(self, model: Model, inputs: torch.Tensor) -> torch.Tensor:
        """Return logits [N, I, V] of the hypothesis for perturbed inputs [N, T, F]."""
        states = model.encode(inputs, self.padding_value)
        return model.decode(states, self.prompt, self.tokens)
