"""Step 4: heads and layers of attention, saliency brought down to encoder steps."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from s2txai.registry import Registry
from s2txai.saliency.gradient_statistics import (
    GRADIENTS,
    GradientStatistics,
    cells_of,
    gradient_map,
)
from s2txai.saliency.statistics import N_FOLDS


@dataclass(frozen=True)
class Pooling:
    """How the cells of an encoder step become one value.

    Attributes
    ----------
    step
        From the cells of one step, [I, r, F] with r frames, to one value a row, [I].
    linear
        Whether noise averages out: only then is a correction for noise valid.
    """

    step: Callable[[np.ndarray], np.ndarray]
    linear: bool


POOLINGS: Registry[Pooling] = Registry("pooling")

# Linear, and keeps signs.
GRADIENT_POOLING = "avg2d"

# What the name of a single layer's map begins with where layers are not an axis.
LAYER = "ca_layer_"

# From folds to the map of their masks.
MapOfFolds = Callable[[Sequence[int]], np.ndarray]

# The three ways to deal four folds into two halves.
HALVES = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))


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
    if saliency == "smh" or saliency in GRADIENTS:
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


# Kinds of attention by the prefix of their maps, with their array among the step attention's.
ATTENTION_KINDS = {
    "ca": "cross_attention",
    "vn": "value_norm_attention",
    "ro": "rolled_out_attention",
}


def attention_maps(heads: np.ndarray, kind: str = "ca") -> dict[str, np.ndarray]:
    """Return every head, every layer's mean and the mean over all heads of [L, H, I, T'].

    ``kind`` is a key of :data:`ATTENTION_KINDS`; names of the maps begin with it.
    """
    layers = heads.mean(axis=1)
    return {f"{kind}_head": heads, f"{kind}_layer": layers, f"{kind}_mean": layers.mean(axis=0)}


def all_attention_maps(attention: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return :func:`attention_maps` of each kind that the step ``attention`` found."""
    maps: dict[str, np.ndarray] = {}
    for kind, name in ATTENTION_KINDS.items():
        if name in attention:
            maps |= attention_maps(attention[name], kind)
    return maps


def kinds_of(maps: Mapping[str, np.ndarray]) -> list[str]:
    """Return the kinds of attention among maps, see :data:`ATTENTION_KINDS`."""
    return [kind for kind in ATTENTION_KINDS if f"{kind}_mean" in maps]


def saliency_maps(
    smx: MapOfFolds, smh: MapOfFolds, poolings: Sequence[str], subsampling: int, n_steps: int
) -> dict[str, np.ndarray]:
    """Return each saliency map at encoder steps, with its half-maps.

    Parameters
    ----------
    smx, smh
        Make the map [I, T, F] of some folds, and [I, T', 1] for ``smh``.
    poolings
        Names of :data:`POOLINGS`.
    subsampling, n_steps
        As for :func:`pool`.

    Returns
    -------
    dict
        ``smx_<pooling>`` and ``smh`` [I, T']; ``<map>_halves`` [3, 2, I, T'], the two halves of the
        masks in each of the three ways to deal the folds, from which reliability is computed.
    """

    def at_steps(folds: Sequence[int]) -> dict[str, np.ndarray]:
        # Once for all poolings: [I, T, F] is by far the largest array of the step.
        cells = smx(folds)
        maps = {f"smx_{name}": pool(cells, name, subsampling, n_steps) for name in poolings}
        # An encoder step has one cell, so there is nothing to pool.
        return maps | {"smh": smh(folds)[:, :, 0]}

    maps = at_steps(range(N_FOLDS))
    halves = [[at_steps(folds) for folds in pair] for pair in HALVES]
    for name in tuple(maps):
        maps[f"{name}_halves"] = np.array([[half[name] for half in pair] for pair in halves])
    return {name: values.astype(np.float32) for name, values in maps.items()}


def gradient_maps(found: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the map of each gradient method at encoder steps, the mean over the cells of a step.

    Parameters
    ----------
    found
        Arrays of the methods' artefacts.

    Returns
    -------
    dict
        ``<method>`` [I, T']; ``<method>_halves`` [3, 2, I, T'] where masks were drawn, as in
        :func:`saliency_maps`.
    """
    maps = {}
    for method, arrays in found.items():
        size = int(arrays["subsampling"]), int(arrays["n_steps"])
        maps[method] = pool(cells_of(method, arrays), GRADIENT_POOLING, *size)
        if GRADIENTS[method].sampled:
            maps[f"{method}_halves"] = gradient_halves(GradientStatistics.from_mapping(arrays))
    return {name: values.astype(np.float32) for name, values in maps.items()}


def gradient_halves(statistics: GradientStatistics) -> np.ndarray:
    """Return [3, 2, I, T'], maps from half of the masks in each way to deal the folds."""

    def at_steps(folds: Sequence[int]) -> np.ndarray:
        cells = gradient_map(statistics, folds)
        return pool(cells, GRADIENT_POOLING, statistics.subsampling, statistics.n_steps)

    return np.array([[at_steps(folds) for folds in pair] for pair in HALVES])
