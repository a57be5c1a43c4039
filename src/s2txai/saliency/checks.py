"""Fast SMX: cheap scores of all masks, corrected by exact scores of some (docs/definitions.md).

How far cheap scores are from exact ones, and the correction of the mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from s2txai.saliency.statistics import Statistics

ENCODERS = ("auto", "exact")
"""How masks of the input are scored: ``auto`` is cheaply where the pilot allows it."""

SHARES = (0.02, 0.05, 0.1)
"""Shares of checked masks that ``auto`` selects from."""

N_LEARNING, N_MEASURING = 8, 24
"""Pilot masks from which cheap passes learn, and by which they are measured."""

LOW_NOISE = 0.1
"""The noise that checks add, relative to that of the masks, which ``auto`` accepts at once."""

MOST_NOISE = 0.25
"""The most such noise; beyond it the utterance is scored exactly."""

FEWEST_CHECKS = 8
"""Checks expected to occlude a segment, in half of the masks, for a correction of its own."""

MOMENTS = ("masks", "cheap", "exact", "cheap squared", "exact squared", "cheap times exact")
"""Of the scores that were computed both ways, sums of these."""

FACTS = (
    "encoder", "check_share", "n_scored_both_ways", "score_correlation", "score_correlation_worst",
    "score_bias_percent", "score_bias_percent_worst", "unbiased",
)  # fmt: skip
"""What a result says of how its masks were scored; the worst are those of single rows."""


@dataclass(frozen=True)
class Fidelity:
    """How close cheap scores are to exact ones, by row.

    Attributes
    ----------
    n_masks
        Scored both ways.
    correlation
        float64 [I]; NaN where exact scores do not vary, 0 where only cheap ones do not.
    bias
        float64 [I], mean of the cheap over that of the exact scores, less 1; NaN where the exact
        ones are 0.
    mean_bias
        The same of the means over all rows; NaN where these are 0.
    unexplained
        float64 [I], variance of exact - cheap over that of exact; 0 where nothing differs, infinite
        where scores are not finite.
    """

    n_masks: int
    correlation: npt.NDArray[np.float64]
    bias: npt.NDArray[np.float64]
    mean_bias: float
    unexplained: npt.NDArray[np.float64]

    @classmethod
    def of_moments(cls, moments: npt.NDArray[np.float64]) -> "Fidelity":
        """Return the fidelity of scores of which ``moments`` [6, I] are the :data:`MOMENTS`."""
        n = np.maximum(moments[0], 1)
        cheap, exact, cheap_square, exact_square, product = moments[1:] / n
        with np.errstate(divide="ignore", invalid="ignore"):
            of_cheap = np.maximum(cheap_square - cheap**2, 0)
            of_exact = np.maximum(exact_square - exact**2, 0)
            covariance = product - cheap * exact
            of_difference = np.maximum(of_cheap + of_exact - 2 * covariance, 0)
            # What rounding leaves of a constant row is no variance.
            of_exact = np.where(of_exact > 1e-12 * exact_square, of_exact, 0)
            of_difference = np.where(of_difference <= 1e-12 * exact_square, 0, of_difference)
            # Scores that are not finite are as far off as can be.
            of_difference = np.nan_to_num(of_difference, nan=np.inf)
            deviations = np.sqrt(of_cheap * of_exact)
            correlation = np.where(deviations > 0, covariance / deviations, 0).clip(-1, 1)
            return cls(
                n_masks=int(moments[0].max(initial=0)),
                correlation=np.where(of_exact > 0, correlation, np.nan),
                bias=np.where(exact > 0, cheap / exact - 1, np.nan),
                # Where no mask changes the input, all exact scores are 0.
                mean_bias=float(cheap.sum() / exact.sum() - 1) if exact.sum() > 0 else math.nan,
                unexplained=np.where(of_difference > 0, of_difference / of_exact, 0),
            )

    @property
    def mean_correlation(self) -> float:
        """Mean over rows; NaN where exact scores vary in none."""
        varying = self.correlation[~np.isnan(self.correlation)]
        return float(varying.mean()) if len(varying) else math.nan

    @property
    def worst_correlation(self) -> float:
        """Least of the rows; NaN where exact scores vary in none."""
        varying = self.correlation[~np.isnan(self.correlation)]
        return float(varying.min()) if len(varying) else math.nan

    @property
    def worst_bias(self) -> float:
        """Of the row where it is largest, with its sign; NaN where it is not defined for any."""
        defined = self.bias[~np.isnan(self.bias)]
        return float(defined[np.abs(defined).argmax()]) if len(defined) else math.nan

    def noise(self, share: float) -> float:
        """Return the noise that checking a share of the masks adds, relative to that of the masks.

        The mean over rows of Var(exact - cheap) / (share Var exact); infinite where a row's exact
        scores do not vary, but its cheap ones do.
        """
        return float(self.unexplained.mean()) / share


def fidelity(statistics: "Statistics") -> Fidelity | None:
    """Return how close cheap scores were in pilot and checks; None where there were none."""
    if statistics.pilot_moments is None or statistics.check_moments is None:
        return None
    checked = statistics.check_moments.sum(axis=(0, 2))  # (6, I)
    return Fidelity.of_moments(statistics.pilot_moments + checked)


def is_fast(statistics: "Statistics") -> bool:
    """Return whether the masks were scored cheaply."""
    return statistics.check_share is not None and bool(statistics.check_share > 0)


def is_unbiased(statistics: "Statistics") -> bool:
    """Return whether the map has the expectation of the exact one."""
    return not is_fast(statistics) or bool(_has_own_corrections(statistics).all())


def facts(statistics: "Statistics") -> dict[str, Any]:
    """Return what a result says of how its masks were scored, by the names of :data:`FACTS`.

    Empty where nothing had to be decided: all masks were scored exactly.
    """
    close = fidelity(statistics)
    if close is None or statistics.check_share is None:
        return {}
    values = (
        "cheap" if is_fast(statistics) else "exact",
        float(statistics.check_share),
        close.n_masks,
        close.mean_correlation,
        close.worst_correlation,
        100 * close.mean_bias,
        100 * close.worst_bias,
        is_unbiased(statistics),
    )
    # JSON knows no NaN: scores that do not vary correlate with nothing.
    return {
        name: None if isinstance(value, float) and math.isnan(value) else value
        for name, value in zip(FACTS, values, strict=True)
    }


def correction(statistics: "Statistics", folds: Sequence[int]) -> npt.NDArray[np.float64] | float:
    """Return what is added to the mean cheap score of each segment, [I, S] in nats.

    The mean of exact - cheap over the checked masks that occlude the segment, or over all checked
    masks of its segmentation where too few are expected to occlude it. 0 without cheap scores.

    Parameters
    ----------
    statistics
        Sums over masks.
    folds
        The folds to use.
    """
    if not is_fast(statistics):
        return 0.0
    assert statistics.difference_sum is not None
    assert statistics.difference_count is not None
    assert statistics.check_moments is not None
    selected = list(folds)
    total = statistics.difference_sum[selected].sum(axis=0)  # (S, I)
    count = statistics.difference_count[selected].sum(axis=0)[:, None]  # (S, 1)
    moments = statistics.check_moments[selected].sum(axis=0)  # (6, K, I)
    of_segmentation = (moments[2] - moments[1]) / np.maximum(moments[0], 1)  # (K, I)
    k = segmentation_of_segments(statistics)  # (S)
    own = _has_own_corrections(statistics)[k, None] & (count > 0)
    by_segment = np.where(own, total / np.maximum(count, 1), of_segmentation[k])  # (S, I)
    return np.asarray(by_segment.T)


def correction_of_rows(statistics: "Statistics") -> npt.NDArray[np.float64] | float:
    """Return the mean of exact - cheap over all checked masks, [I] in nats; 0 without any."""
    if not is_fast(statistics):
        return 0.0
    assert statistics.check_moments is not None
    moments = statistics.check_moments.sum(axis=(0, 2))  # (6, I)
    return np.asarray((moments[2] - moments[1]) / np.maximum(moments[0], 1))


def segmentation_of_segments(statistics: "Statistics") -> npt.NDArray[np.int64]:
    """Return the segmentation of each segment, int64 [S]."""
    last = statistics.segments.max(axis=(1, 2))  # (K)
    return np.searchsorted(last, np.arange(int(last[-1]) + 1))


def _has_own_corrections(statistics: "Statistics") -> npt.NDArray[np.bool_]:
    """Return for which segmentations each segment has a correction of its own, bool [K].

    Decided by how many checks are expected, not by how many there are, in half of the masks: maps
    and half-maps are corrected alike.
    """
    assert statistics.check_moments is not None
    assert statistics.p is not None
    n_checks = statistics.check_moments[:, 0, :, 0].sum(axis=0)  # (K)
    enough: npt.NDArray[np.bool_] = n_checks / 2 * float(statistics.p) >= FEWEST_CHECKS
    return enough
