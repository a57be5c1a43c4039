"""Step 4: each saliency map at encoder steps, with the half-maps that tell its reliability."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s2txai.registry import load_object
from s2txai.saliency.methods import METHODS
from s2txai.saliency.pooling import pool
from s2txai.saliency.reliability import half_maps
from s2txai.saliency.statistics import ALL_FOLDS, HALVES, MapOfFolds

if TYPE_CHECKING:
    from s2txai.saliency.engine import Perturbation

# Linear, and keeps signs.
GRADIENT_POOLING = "avg2d"


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

    maps = at_steps(ALL_FOLDS)
    halves = [[at_steps(folds) for folds in pair] for pair in HALVES]
    for name in tuple(maps):
        maps[f"{name}_halves"] = np.array([[half[name] for half in pair] for pair in halves])
    return {name: values.astype(np.float32) for name, values in maps.items()}


def gradient_maps(arrays_of: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the map of each gradient method at encoder steps, the mean over the cells of a step.

    Parameters
    ----------
    arrays_of
        Arrays of the methods' artefacts.

    Returns
    -------
    dict
        ``<method>`` [I, T']; ``<method>_halves`` [3, 2, I, T'] where masks were drawn, as in
        :func:`saliency_maps`.
    """
    maps = {}
    for method, arrays in arrays_of.items():
        size = int(arrays["subsampling"]), int(arrays["n_steps"])
        maps[method] = pool(cells_of(method, arrays), GRADIENT_POOLING, *size)
        if METHODS[method].sampled:
            perturbation = _perturbation(method)
            statistics = perturbation.kind.from_mapping(arrays)
            maps[f"{method}_halves"] = half_maps(statistics, GRADIENT_POOLING, perturbation.map_of)
    return {name: values.astype(np.float32) for name, values in maps.items()}


def cells_of(method: str, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the map [I, T, F] that the arrays of an artefact of a gradient method hold."""
    if METHODS[method].sampled:
        perturbation = _perturbation(method)
        return perturbation.map_of(perturbation.kind.from_mapping(arrays), ALL_FOLDS)
    return arrays["map"].astype(np.float64)


def _perturbation(method: str) -> "Perturbation[Any]":
    perturbation: Perturbation[Any] = load_object(METHODS[method].compute)
    return perturbation
