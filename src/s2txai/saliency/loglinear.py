"""The log-linear estimator: the same saliency from fewer masks.

Scores multiply rather than add: a mask that hides two segments that matter scores more than both
together. So the logarithm of the score is fitted as a sum over the occluded segments, ln score =
a + sum_s b_s o_s, and the mean score of the masks that occlude a segment follows from its b. A
ridge penalty, chosen by the error on masks that were left out, keeps the fit quiet where there are
fewer masks than segments.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_factor, cho_solve

from s2txai.errors import UserError
from s2txai.saliency.checks import correction
from s2txai.saliency.masks import N_FOLDS, MaskPlan
from s2txai.saliency.statistics import ALL_FOLDS, MapOfFolds, Statistics

# Ridge penalties that are tried, as shares of the variance that one indicator has over all masks.
PENALTIES = tuple(float(share) for share in np.logspace(-4, 2, 13))

# Masks drawn at a time to rebuild the Gram matrix.
_BLOCK = 1024

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class _Moments:
    """Sums over masks of one segmentation: what a linear regression needs.

    ``n`` masks; of the indicators ``x`` [S] and ``xx`` [S, S]; of the logarithms of the scores
    ``y`` [I] and ``yy`` [I]; of both ``xy`` [S, I].
    """

    n: int
    x: Array
    xx: Array
    y: Array
    yy: Array
    xy: Array

    def __add__(self, other: "_Moments") -> "_Moments":
        return _Moments(
            self.n + other.n, self.x + other.x, self.xx + other.xx,
            self.y + other.y, self.yy + other.yy, self.xy + other.xy,
        )  # fmt: skip

    def slopes(self, penalty: float) -> tuple[Array, Array]:
        """Return intercept [I] and slopes [S, I] of the ridge regression."""
        n = max(self.n, 1)
        covariance = self.xx - np.outer(self.x, self.x) / n
        covariance[np.diag_indices_from(covariance)] += penalty
        factor = cho_factor(covariance, lower=True, overwrite_a=True, check_finite=False)
        slopes: Array = cho_solve(factor, self.xy - np.outer(self.x, self.y) / n)
        return (self.y - self.x @ slopes) / n, slopes

    def squared_error(self, intercept: Array, slopes: Array) -> Array:
        """Return the squared error [I] of a regression on these masks."""
        explained = (slopes * (self.xx @ slopes)).sum(axis=0)
        crossed = intercept * (self.x @ slopes) - (slopes * self.xy).sum(axis=0)
        error: Array = (
            self.yy + self.n * intercept**2 + explained + 2 * crossed - 2 * intercept * self.y
        )
        return error


def prepare(statistics: Statistics, plan: MaskPlan) -> MapOfFolds:
    """Return the function that makes the log-linear map of some folds.

    Parameters
    ----------
    statistics
        With sums of logarithms.
    plan
        The masks that they are of; from it the Gram matrices of the indicators are rebuilt.

    Returns
    -------
    callable
        From folds to float64 [I, T, F], nats: the mean score of the masks that occlude a cell.

    Raises
    ------
    UserError
        If the statistics hold no sums of logarithms.
    """
    if not statistics.has_logarithms:
        raise UserError(
            "These masks were computed without logarithms of the scores, which the estimator "
            "'loglinear' needs: run the saliency step again with 'estimator: loglinear'."
        )
    offsets = np.concatenate([[0], np.cumsum(plan.sizes)]).astype(int)

    @cache
    def moments(k: int) -> tuple[_Moments, ...]:
        return _moments(statistics, plan, k, slice(offsets[k], offsets[k + 1]))

    @cache
    def penalty(k: int) -> float:
        return _penalty(moments(k), plan.p)

    def make(folds: Sequence[int] = ALL_FOLDS) -> Array:
        selected = list(folds)
        _, T, F = statistics.segments.shape
        corrections = np.broadcast_to(
            correction(statistics, selected), statistics.occluded_sum.shape[:0:-1]
        )  # (I, S)
        total, count = 0.0, np.zeros((T, F))
        for k, segments in enumerate(statistics.segments):
            _, slopes = _sum([moments(k)[fold] for fold in selected]).slopes(penalty(k))
            mean = statistics.score_sum[selected, k].sum(axis=0) / max(
                1, statistics.n_masks[selected, k].sum()
            )  # (I)
            # Over all masks the mean is p times that of the occluded and 1 - p times the rest.
            occluded = mean / (plan.p + (1 - plan.p) * np.exp(-slopes))  # (S, I)
            own = slice(offsets[k], offsets[k + 1])
            # The logarithms are of cheap scores.
            occluded = occluded + corrections[:, own].T
            weight = statistics.occluded_count[selected, own].sum(axis=0)  # (S)
            ids = segments - offsets[k]
            total = total + (occluded * weight[:, None]).T[:, ids]  # (I, T, F)
            count += weight[ids]
        return np.asarray(total / np.maximum(count, 1))

    return make


def _moments(
    statistics: Statistics, plan: MaskPlan, k: int, segments: slice
) -> tuple[_Moments, ...]:
    """Return the moments of each fold."""
    assert statistics.occluded_log_sum is not None
    assert statistics.log_sum is not None
    assert statistics.log_square_sum is not None
    size = plan.sizes[k]
    grams = np.zeros((N_FOLDS, size, size))
    for start in range(0, plan.n_masks[k], _BLOCK):
        stop = min(start + _BLOCK, plan.n_masks[k])
        # Counts up to 2^24 are exact in float32.
        occluded = plan.draw(k, start, stop).astype(np.float32)  # (N, S)
        for fold in range(N_FOLDS):
            own = occluded[(fold - start) % N_FOLDS :: N_FOLDS]
            grams[fold] += own.T @ own
    return tuple(
        _Moments(
            n=int(statistics.n_masks[fold, k]),
            x=statistics.occluded_count[fold, segments].astype(float),
            xx=grams[fold],
            y=statistics.log_sum[fold, k],
            yy=statistics.log_square_sum[fold, k],
            xy=statistics.occluded_log_sum[fold, segments],
        )
        for fold in range(N_FOLDS)
    )


def _penalty(folds: Sequence[_Moments], p: float) -> float:
    """Return the penalty with the least error on folds that were left out, over all rows.

    The best penalty is the variance of the noise over that of the slopes and does not depend on the
    number of masks, so one is selected from all folds and serves half-maps as well.
    """
    scale = sum(fold.n for fold in folds) * p * (1 - p)
    everything = _sum(folds)
    variance = everything.yy - everything.y**2 / max(everything.n, 1)  # (I)
    varying = variance > 1e-12 * np.maximum(everything.yy, 1)
    if not varying.any():
        return scale
    errors = []
    for share in PENALTIES:
        error = np.zeros_like(variance)
        for left_out in range(N_FOLDS):
            training = _sum([fold for f, fold in enumerate(folds) if f != left_out])
            error += folds[left_out].squared_error(*training.slopes(share * scale))
        errors.append((error[varying] / variance[varying]).mean())
    return scale * PENALTIES[int(np.argmin(errors))]


def _sum(moments: Sequence[_Moments]) -> _Moments:
    total = moments[0]
    for other in moments[1:]:
        total = total + other
    return total
