"""From sums over masks to a map: two estimators of the same saliency."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from s2txai.registry import Registry
from s2txai.saliency import loglinear
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.statistics import MapOfFolds, Statistics, heatmap


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

    prepare: Callable[[Statistics, MaskPlan], MapOfFolds]
    logarithms: bool = False


ESTIMATORS: Registry[Estimator] = Registry("estimator")
ESTIMATORS.register("mean")(Estimator(lambda statistics, _: partial(heatmap, statistics)))
ESTIMATORS.register("loglinear")(Estimator(loglinear.prepare, logarithms=True))
