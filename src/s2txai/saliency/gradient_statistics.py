"""The gradient methods by name, and the sums over masks from which the map of ``grad`` is made.

Light enough to import while Snakemake plans; what runs a model is in
:mod:`s2txai.saliency.gradients`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from s2txai.registry import Registry
from s2txai.saliency.statistics import N_FOLDS


def one_pass_per_row(
    parameters: Mapping[str, Any], rows: float, forward: float, backward: float
) -> float:
    """Return the seconds of a method that runs every row forward and backward once."""
    return rows * (forward + backward)


@dataclass(frozen=True)
class Method:
    """What the rest of the package must know of a gradient method.

    Attributes
    ----------
    sampled
        Whether its map is a mean over random masks, and hence has sampling noise.
    parameters
        From a configuration to what the method uses of it: the keywords of its function, and what
        makes its jobs run again.
    seconds
        From these parameters, the rows of an utterance and the seconds of a forward and of a
        backward pass to the seconds that an utterance takes.
    """

    sampled: bool
    parameters: Callable[[Mapping[str, Any]], dict[str, Any]] = lambda config: {}
    seconds: Callable[[Mapping[str, Any], float, float, float], float] = one_pass_per_row


def _of_grad(config: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "n_segments": config["smx"]["n_segments"],
        "p": config["smx"]["p"],
        "n_masks": config["gradient"]["n_masks"],
        "seed": config["seed"],
    }


GRADIENTS: Registry[Method] = Registry("gradient method")
GRADIENTS.register("grad")(
    Method(
        sampled=True,
        parameters=_of_grad,
        seconds=lambda parameters, rows, forward, backward: (
            parameters["n_masks"] * (forward + rows * backward)
        ),
    )
)
GRADIENTS.register("input_x_gradient")(Method(sampled=False))
GRADIENTS.register("integrated_gradients")(
    Method(
        sampled=False,
        parameters=lambda config: {"n_steps": config["gradient"]["n_steps"]},
        seconds=lambda parameters, rows, forward, backward: (
            parameters["n_steps"] * one_pass_per_row(parameters, rows, forward, backward)
        ),
    )
)

AXES: dict[str, list[str]] = {
    "segments": ["segmentation", "frame", "frequency"],
    "segment_sum": ["fold", "segment", "token"],
    "n_masks": ["fold", "segmentation"],
    "subsampling": [],
    "n_steps": [],
}
"""The axes of ``GradientStatistics.arrays``, for the description of a result file."""

UNITS: dict[str, str] = {"segment_sum": "nat", "subsampling": "frames per encoder step"}
"""The units of ``GradientStatistics.arrays`` that are not plain counts or ids."""

MAP_AXES: dict[str, list[str]] = {
    "map": ["token", "frame", "frequency"],
    "subsampling": [],
    "n_steps": [],
}
"""The axes of what the methods without masks keep."""

MAP_UNITS: dict[str, str] = {"map": "nat", "subsampling": "frames per encoder step"}


@dataclass
class GradientStatistics:
    """Sums of first-order changes over the masks of one utterance, kept apart by fold.

    They add up over masks, so more masks extend a result. S counts the segments of all K
    segmentations together.

    Attributes
    ----------
    segments : int32 [K, T, F]
        Segment of each cell; ids from 0, unique over segmentations.
    segment_sum : float64 [4, S, I]
        Sum over masks, and over the cells of a segment, of the first-order change of the score were
        the cell occluded, in nats; see :func:`s2txai.saliency.gradients.first_order_change`.
    n_masks : int64 [4, K]
        Number of masks of a segmentation.
    subsampling
        Input frames to an encoder step (r).
    n_steps
        Encoder steps that cover speech (T').
    """

    segments: npt.NDArray[np.int32]
    segment_sum: npt.NDArray[np.float64]
    n_masks: npt.NDArray[np.int64]
    subsampling: int
    n_steps: int

    @classmethod
    def zeros(
        cls, segments: npt.NDArray[np.int32], n_rows: int, subsampling: int, n_steps: int
    ) -> Self:
        """Return the statistics of no masks at all.

        Parameters
        ----------
        segments : int32 [K, T, F]
            Segment of each cell; every id from 0 to the greatest belongs to a segment.
        n_rows
            Predicted tokens (I).
        subsampling, n_steps
            See the class.
        """
        S = int(segments.max()) + 1
        return cls(
            segments=segments,
            segment_sum=np.zeros((N_FOLDS, S, n_rows)),
            n_masks=np.zeros((N_FOLDS, len(segments)), np.int64),
            subsampling=subsampling,
            n_steps=n_steps,
        )

    @classmethod
    def from_mapping(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the statistics that ``arrays`` gave, for instance from a result file.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        values: dict[str, Any] = {name: arrays[name] for name in AXES}
        values["subsampling"] = int(values["subsampling"])
        values["n_steps"] = int(values["n_steps"])
        return cls(**values)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays by name, as a result file holds them."""
        return {name: np.asarray(getattr(self, name)) for name in AXES}


def gradient_map(
    statistics: GradientStatistics, folds: Sequence[int] = tuple(range(N_FOLDS))
) -> npt.NDArray[np.float64]:
    """Return the mean first-order change for each cell, spread evenly over its segment.

    The segmentations are pooled: each mask gives the densities (sum / area) of its own segments,
    and the map is their mean over all masks.

    Parameters
    ----------
    statistics
        Sums over masks.
    folds
        The folds to use; half of them give a map with independent noise.

    Returns
    -------
    float64 [I, T, F], nats for a cell
        0 where there are no masks.
    """
    chosen = list(folds)
    area = np.bincount(statistics.segments.ravel())  # (S)
    density = statistics.segment_sum[chosen].sum(axis=0).T / area  # (I, S)
    _, T, F = statistics.segments.shape
    total = np.zeros((len(density), T, F))
    for segments in statistics.segments:  # one at a time: K copies of the map would not fit
        total += density[:, segments]
    total /= max(1, int(statistics.n_masks[chosen].sum()))
    return total


def cells_of(method: str, arrays: Mapping[str, npt.NDArray[Any]]) -> npt.NDArray[np.float64]:
    """Return the map [I, T, F] that the arrays of an artefact of a method hold."""
    if GRADIENTS[method].sampled:
        return gradient_map(GradientStatistics.from_mapping(arrays))
    return arrays["map"].astype(np.float64)
