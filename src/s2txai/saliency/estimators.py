"""From sums over masks to a map: two estimators of the same saliency."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from s2txai.registry import Registry, load_object
from s2txai.saliency.pooling import MapOfFolds
from s2txai.saliency.statistics import Statistics, heatmap
from s2txai.storage.artifacts import Artifact

if TYPE_CHECKING:
    from s2txai.saliency.smx import Plan  # which imports torch


@dataclass(frozen=True)
class Estimator:
    """How a map is made from sums.

    Attributes
    ----------
    prepare
        From the sums, and the masks that they are of, to a function that makes the map of some of
        their folds.
    logarithms
        Whether it needs sums of the logarithms of the scores.
    """

    prepare: Callable[[Statistics, "Plan"], MapOfFolds]
    logarithms: bool


ESTIMATORS: Registry[Estimator] = Registry("estimator")
ESTIMATORS.register("mean")(
    Estimator(lambda statistics, _: partial(heatmap, statistics), logarithms=False)
)
ESTIMATORS.register("loglinear")(
    Estimator(
        lambda statistics, masks: load_object("s2txai.saliency.loglinear:prepare")(
            statistics, masks
        ),
        logarithms=True,
    )
)


def maps_of(artifact: Artifact, estimator: str) -> MapOfFolds:
    """Return the function that makes the map of some folds of an ``smx`` or ``smh`` artefact.

    Parameters
    ----------
    artifact
        With sums over masks.
    estimator
        A name of :data:`ESTIMATORS`.
    """
    statistics = Statistics.from_mapping(artifact.arrays)
    return ESTIMATORS[estimator].prepare(statistics, _plan(statistics, artifact.meta))


def _plan(statistics: Statistics, meta: dict[str, Any]) -> "Plan":
    """Return the masks behind an artefact, as they were drawn."""
    from s2txai.saliency.smx import Plan

    sizes = [len(np.unique(segments)) for segments in statistics.segments]
    return Plan(
        seed=meta["parameters"]["seed"],
        utterance=meta["utterance"],
        names=tuple(meta["masks"]["segmentations"]),
        sizes=tuple(sizes),
        n_masks=tuple(statistics.n_masks.sum(axis=0).tolist()),
        p=meta["parameters"]["p"],
    )
