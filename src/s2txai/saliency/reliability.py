"""How much of a saliency map is signal: split halves and the ceiling of a correlation."""

from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np

from s2txai.saliency.correlation import correlation
from s2txai.saliency.pooling import pool
from s2txai.saliency.statistics import HALVES, MaskSums, Statistics, heatmap

S = TypeVar("S", bound=MaskSums)


def half_correlation(
    halves: np.ndarray, *, metric: str = "pearson", normalise: str = "token"
) -> float:
    """Return the mean correlation between two half-maps over the ways to deal the folds.

    Parameters
    ----------
    halves
        [3, 2, I, T'], as the aggregate step writes them.
    metric, normalise
        As for :func:`s2txai.saliency.correlation.correlation`.
    """
    return float(
        np.mean([correlation(a, b, metric=metric, normalise=normalise).value for a, b in halves])
    )


def spearman_brown(half: float) -> float:
    """Return the reliability of the full map from the correlation of its halves: 2r / (1 + r).

    A negative correlation of halves means no signal was found; the formula has a pole at -1, so it
    is cut off at 0. NaN where nothing was measured.
    """
    return 0.0 if half <= 0 else 2 * half / (1 + half)


def ceiling(*reliabilities: float) -> float:
    """Return the largest correlation that noise leaves possible: sqrt of the product.

    Attention has no sampling noise, so its correlation with one map has sqrt(reliability).
    """
    return float(np.sqrt(np.prod(reliabilities)))


def split_half(statistics: Statistics, pooling: str = "avg2d") -> float:
    """Return the reliability of an utterance's map at encoder steps (Pearson, rows standardised).

    Parameters
    ----------
    statistics
        Of SPES, with its four folds.
    pooling
        A name of :data:`s2txai.saliency.pooling.POOLINGS`.
    """
    return spearman_brown(half_correlation(half_maps(statistics, pooling, heatmap)))


def half_maps(
    statistics: S, pooling: str, map_of: Callable[[S, Sequence[int]], np.ndarray]
) -> np.ndarray:
    """Return [3, 2, I, T'], maps from half of the masks in each way to deal the folds.

    Parameters
    ----------
    statistics
        With their four folds.
    pooling
        A name of :data:`s2txai.saliency.pooling.POOLINGS`.
    map_of
        Makes the map [I, T, F] of some folds.
    """

    def at_steps(folds: Sequence[int]) -> np.ndarray:
        cells = map_of(statistics, folds)
        return pool(cells, pooling, statistics.subsampling, statistics.n_steps)

    return np.array([[at_steps(folds) for folds in pair] for pair in HALVES])
