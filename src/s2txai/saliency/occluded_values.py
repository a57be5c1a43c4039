"""What an occluded cell of the input holds, and what an occluded encoder step becomes.

Several answers to "no information here". Nothing in this module imports torch, since planning
checks the names.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from s2txai.registry import Registry

if TYPE_CHECKING:
    import torch

# From features [T, F] and the value of the model's padding to one value per bin, [F].
OccludedValue = Callable[[np.ndarray, float], np.ndarray]

# From states [T', D] to what an occluded step becomes, [D], or None: hidden from cross-attention.
OccludedState = Callable[["torch.Tensor"], "torch.Tensor | None"]

OCCLUDED_VALUES: Registry[OccludedValue] = Registry("occluded value")
OCCLUDED_STATES: Registry[OccludedState] = Registry("occluded state")


@OCCLUDED_VALUES.register("bin mean")
def bin_mean(features: np.ndarray, padding_value: float = 0.0) -> np.ndarray:
    """Return float32 [F], the mean of each bin over the speech frames of features [T, F].

    What SPES takes (arXiv 2411.01710): 0 where features are normalised by utterance.
    """
    return np.asarray(features.mean(axis=0, dtype=np.float64).astype(np.float32))


@OCCLUDED_VALUES.register("bin minimum")
def bin_minimum(features: np.ndarray, padding_value: float = 0.0) -> np.ndarray:
    """Return float32 [F], the least value of each bin over the speech frames: its quietest."""
    return np.asarray(features.min(axis=0).astype(np.float32))


@OCCLUDED_VALUES.register("padding")
def padding(features: np.ndarray, padding_value: float = 0.0) -> np.ndarray:
    """Return float32 [F], what the model's input holds after the speech."""
    return np.full(features.shape[1], padding_value, np.float32)


@OCCLUDED_STATES.register("zero")
def zero(states: "torch.Tensor") -> "torch.Tensor":
    """Return the zero vector [D]; the paper does not publish its choice; this is our reading."""
    return states.new_zeros(states.shape[1])


@OCCLUDED_STATES.register("mean")
def mean_state(states: "torch.Tensor") -> "torch.Tensor":
    """Return the mean [D] of the states [T', D] over speech."""
    return states.mean(dim=0)


@OCCLUDED_STATES.register("attention-mask")
def attention_mask(states: "torch.Tensor") -> None:
    """Hide the step from cross-attention."""
