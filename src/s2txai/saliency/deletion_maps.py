"""The maps in whose order cells are deleted or inserted, and the order of their cells.

Light enough for an estimate of costs: nothing here imports torch (``docs/definitions.md``).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from s2txai.log import logger
from s2txai.saliency.aggregation import LAYER
from s2txai.saliency.methods import NO_GRADIENTS
from s2txai.saliency.normalise import paired_min_max, single_mean_std

# 0 % and 100 % are the same input whatever the map.
ENDS = (0, 100)


def cell_order(saliency: npt.ArrayLike, seed: int) -> np.ndarray:
    """Return int [T F], flat cell indices from most to least salient, ties permuted by ``seed``."""
    # Unsigned numbers have no negative.
    flat = np.asarray(saliency, dtype=np.float64).ravel()
    ties = np.random.default_rng(seed).permutation(flat.size)
    return np.lexsort((ties, -flat))


def scaled_rows(saliency: np.ndarray) -> np.ndarray:
    """Return [I, T, F], each row's map standardised and brought to [0, 1]."""
    return paired_min_max(single_mean_std(saliency))


def spread_over_cells(
    steps: np.ndarray, n_frames: int, n_bins: int, subsampling: int
) -> np.ndarray:
    """Give every cell [I, T, F] of an encoder step that step's value [I, T']."""
    frames = np.repeat(steps, subsampling, axis=1)[:, :n_frames]  # (I, T)
    return np.broadcast_to(frames[:, :, None], (*frames.shape, n_bins))


def random_map(n_frames: int, n_bins: int, seed: int) -> np.ndarray:
    """Return [T, F] of uniform noise, the order that knows nothing."""
    return np.random.default_rng(seed).random((n_frames, n_bins))


def energy_map(features: np.ndarray, *, time_only: bool = False) -> np.ndarray:
    """Return [T, F], how loud each cell is: the order that knows the speech but not the model.

    Parameters
    ----------
    features
        [T, F]: log-energies, whose own values are ordered, or blocks of a waveform.
    time_only
        Whether they are blocks of a waveform: then the sum of the squares of a block.
    """
    if not time_only:
        return np.asarray(features, dtype=np.float64)
    energy = np.square(features, dtype=np.float64).sum(axis=1, keepdims=True)  # (T, 1)
    return np.broadcast_to(energy, features.shape)


def map_names(
    poolings: Sequence[str], gradients: Sequence[str] = (), layers: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the maps that are compared.

    Attention of all heads, of the last layer and of further ``layers``, SMX in each pooling and in
    full, gradient methods in full, random, energy.
    """
    smx = (*(f"smx_{name}" for name in poolings), "smx_full")
    attention = ("ca_mean", "ca_last", *(f"{LAYER}{layer}" for layer in layers))
    return (*attention, *smx, *gradients, "random", "energy")


def further_layers(layers: Sequence[int], n_layers: int) -> list[int]:
    """Return the listed layers that a decoder has beside its last, in order, from 0.

    ``layers`` count from 0, or from -1 for the last.
    """
    present = [layer for layer in layers if -n_layers <= layer < n_layers]
    for layer in set(layers) - set(present):
        logger.warning(
            "Layer %d of the configuration is left out: the decoder has layers 0 to %d.",
            layer, n_layers - 1,
        )  # fmt: skip
    return sorted({layer % n_layers for layer in present} - {n_layers - 1})


def scaled_maps(
    name: str,
    aggregated: Mapping[str, np.ndarray],
    full: np.ndarray,
    subsampling: int,
    seed: int,
    gradients: Mapping[str, np.ndarray] = NO_GRADIENTS,
    *,
    features: np.ndarray | None = None,
    time_only: bool = False,
) -> np.ndarray:
    """Return the maps within [0, 1] that a name of :func:`map_names` stands for, one a row.

    Parameters
    ----------
    name
        A name of :func:`map_names`.
    aggregated
        Arrays of the ``aggregate`` artefact.
    full
        SMX at full resolution [I, T, F].
    subsampling
        Frames for one encoder step.
    seed
        Of the random order.
    gradients
        Maps [I, T, F] of gradient methods by their name.
    features
        Input [T, F]; only ``energy`` reads it.
    time_only
        Whether random order and energy are of whole frames.

    Returns
    -------
    ndarray
        [I, T, F]; [1, T, F] for random order and energy, which are the same for all rows. The mean
        over the first axis is the sentence map, in whose order cells are deleted.
    """
    n_frames, n_bins = full.shape[1:]
    if name == "random":
        noise = random_map(n_frames, 1 if time_only else n_bins, seed)
        return np.broadcast_to(noise, (1, n_frames, n_bins))
    if name == "energy" and features is not None:
        return scaled_rows(energy_map(features, time_only=time_only)[None])
    if name == "smx_full":
        return scaled_rows(full)
    if name in gradients:
        return scaled_rows(gradients[name])
    if name == "ca_last":
        steps = aggregated["ca_layer"][-1]
    elif name.startswith(LAYER):
        steps = aggregated["ca_layer"][int(name.removeprefix(LAYER))]
    else:
        steps = aggregated[name]
    return scaled_rows(spread_over_cells(steps, n_frames, n_bins, subsampling))
