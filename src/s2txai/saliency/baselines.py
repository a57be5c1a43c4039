"""What an occluded cell of the input holds: three answers to "no information here"."""

from collections.abc import Callable

import numpy as np

from s2txai.registry import Registry

# From features [T, F] and the value of the model's padding to one value a bin, [F].
OccludedValue = Callable[[np.ndarray, float], np.ndarray]

OCCLUDED_VALUES: Registry[OccludedValue] = Registry("occluded value")


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
    """Return float32 [F], what the model's input holds behind the speech."""
    return np.full(features.shape[1], padding_value, np.float32)
