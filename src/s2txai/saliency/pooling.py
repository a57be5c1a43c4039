"""Bringing maps of input cells down to encoder steps."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from s2txai.registry import Registry
from s2txai.saliency.methods import METHODS


@dataclass(frozen=True)
class Pooling:
    """How the cells of an encoder step become one value.

    Attributes
    ----------
    step
        From the cells of one step, [I, r, F] with r frames, to one value a row, [I].
    linear
        Whether noise averages out: only then is a correction for noise valid.
    name
        For people; where it is empty, the name under which the pooling is registered.
    """

    step: Callable[[np.ndarray], np.ndarray]
    linear: bool
    name: str = ""


POOLINGS: Registry[Pooling] = Registry("pooling", reserved=("full",), in_results=True)


def avg2d(cells: np.ndarray) -> np.ndarray:
    """Mean over bins and frames: cells [I, r, F] of one step to [I]."""
    return np.asarray(cells.mean(axis=(1, 2)))


def max_freq_avg_time(cells: np.ndarray) -> np.ndarray:
    """Maximum over bins, then mean over frames: cells [I, r, F] of one step to [I]."""
    return np.asarray(cells.max(axis=2).mean(axis=1))


def max2d(cells: np.ndarray) -> np.ndarray:
    """Maximum over bins and frames: cells [I, r, F] of one step to [I]; the paper's best."""
    return np.asarray(cells.max(axis=(1, 2)))


POOLINGS.register("avg2d")(Pooling(avg2d, linear=True))
POOLINGS.register("max_freq_avg_time")(Pooling(max_freq_avg_time, linear=False))
POOLINGS.register("max2d")(Pooling(max2d, linear=False))


def is_linear(saliency: str) -> bool:
    """Return whether a map at encoder steps is linear in scores: noise averages out over masks.

    ``saliency`` is ``smh``, ``smx_<pooling>`` or a gradient method.
    """
    if saliency == "smh" or saliency in METHODS:
        return True
    return POOLINGS[saliency.removeprefix("smx_")].linear


def pool(saliency: np.ndarray, pooling: str, subsampling: int, n_steps: int) -> np.ndarray:
    """Bring a map of input cells down to encoder steps.

    Step j covers frames [j r, min((j + 1) r, T)).

    Parameters
    ----------
    saliency
        [I, T, F].
    pooling
        A name of :data:`POOLINGS`.
    subsampling
        Frames for one encoder step (r).
    n_steps
        T' = ceil(T / r).

    Returns
    -------
    ndarray
        [I, T'].
    """
    pool_step = POOLINGS[pooling].step
    steps = [
        pool_step(saliency[:, step * subsampling : (step + 1) * subsampling])
        for step in range(n_steps)
    ]
    return np.stack(steps, axis=1)
