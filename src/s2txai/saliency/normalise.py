"""Bringing maps of different tokens onto one scale (SPES, arXiv 2411.01710).

A map of the input may come with one of the preceding tokens: entry j of row k is the saliency of
the token that the decoder read at position j, and only positions up to k exist.
"""

from typing import Any, overload

import numpy as np
import numpy.typing as npt

Map = npt.NDArray[np.floating[Any]]
Result = npt.NDArray[np.float64]


@overload
def single_mean_std(heatmap: Map) -> Result: ...
@overload
def single_mean_std(heatmap: Map, token_heatmap: Map) -> tuple[Result, Result]: ...
def single_mean_std(
    heatmap: Map, token_heatmap: Map | None = None
) -> Result | tuple[Result, Result]:
    """Standardise each row's map, and each row's token map, to mean 0 and deviation 1.

    The deviation has ``ddof`` 1. Constant maps, a single value among them, become zeros.

    Parameters
    ----------
    heatmap : [I, T, F]
        Saliency of the input's cells.
    token_heatmap : [I, I, 1]
        Saliency of the preceding tokens; entries above the diagonal are ignored.

    Returns
    -------
    float64 [I, T, F], and float64 [I, I, 1] where a token map was given
    """
    cells = np.stack([_standardised(row) for row in heatmap.astype(np.float64)])
    if token_heatmap is None:
        return cells
    tokens = np.zeros(token_heatmap.shape)
    for k, row in enumerate(token_heatmap):
        tokens[k, : k + 1] = _standardised(row[: k + 1].astype(np.float64))
    return cells, tokens


@overload
def paired_min_max(heatmap: Map) -> Result: ...
@overload
def paired_min_max(heatmap: Map, token_heatmap: Map) -> tuple[Result, Result]: ...
def paired_min_max(
    heatmap: Map, token_heatmap: Map | None = None
) -> Result | tuple[Result, Result]:
    """Scale each row to [0, 1], by the least and greatest value of its two maps together.

    Rows in which both maps are one and the same constant become zeros.

    Parameters
    ----------
    heatmap : [I, T, F]
        Saliency of the input's cells.
    token_heatmap : [I, I, 1]
        Saliency of the preceding tokens; entries above the diagonal are ignored.

    Returns
    -------
    float64 [I, T, F], and float64 [I, I, 1] where a token map was given
    """
    cells = np.zeros(heatmap.shape)
    tokens = np.zeros((len(heatmap), 0, 1) if token_heatmap is None else token_heatmap.shape)
    for k, row in enumerate(heatmap.astype(np.float64)):
        preceding = tokens[k] if token_heatmap is None else token_heatmap[k, : k + 1]
        both = _near_one(np.concatenate([row.ravel(), preceding.ravel().astype(np.float64)]))
        if (spread := np.ptp(both)) > 0:
            scaled = (both - both.min()) / spread
            cells[k] = scaled[: row.size].reshape(row.shape)
            tokens[k, : k + 1] = scaled[row.size :].reshape(preceding.shape)
    return cells if token_heatmap is None else (cells, tokens)


def _standardised(values: Result) -> Result:
    values = _near_one(values)
    # Compared by range: the computed deviation of equal values need not be exactly 0.
    if np.ptp(values) == 0:
        return np.zeros_like(values)
    standardised: Result = (values - values.mean()) / values.std(ddof=1)
    return standardised


def _near_one(values: Result) -> Result:
    """Divide by a power of two, which changes no ratio, so that no square leaves the range."""
    _, exponent = np.frexp(np.abs(values).max())
    scaled: Result = np.ldexp(values, -exponent)
    return scaled
