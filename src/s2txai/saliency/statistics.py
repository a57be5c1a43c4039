"""The sums over masks from which saliency maps are made.

Saliency of a segment is the mean score of the masks that occlude it (SPES, arXiv 2411.01710). The
sums below are all that the mean needs; they add up over masks, so more masks extend a result.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from s2txai.saliency.checks import correction, correction_of_rows
from s2txai.saliency.masks import N_FOLDS

ALL_FOLDS = tuple(range(N_FOLDS))

HALVES = (((0, 1), (2, 3)), ((0, 2), (1, 3)), ((0, 3), (1, 2)))
"""The three ways to deal four folds into two halves."""

# From folds to the map [I, T, F] of their masks.
MapOfFolds = Callable[[Sequence[int]], np.ndarray]


@dataclass(kw_only=True)
class MaskSums:
    """What all sums over the masks of one utterance have in common; they are kept apart by fold.

    They add up over masks, so more masks extend a result. S counts the segments of all K
    segmentations together. For saliency of encoder states the segments are the steps themselves:
    ``segments`` is ``arange(T')`` shaped ``[1, T', 1]``.

    Attributes
    ----------
    segments : int32 [K, T, F]
        Segment of each cell; ids from 0, unique over segmentations.
    n_masks : int64 [4, K]
        Number of masks of a segmentation.
    subsampling
        Input frames per encoder step (r).
    n_steps
        Encoder steps that cover speech (T').
    """

    AXES: ClassVar[Mapping[str, list[str]]] = {
        "segments": ["segmentation", "frame", "frequency"],
        "n_masks": ["fold", "segmentation"],
        "subsampling": [],
        "n_steps": [],
    }
    """The axes of ``arrays``, for the description of a result file; a subclass adds its own."""

    OPTIONAL: ClassVar[Mapping[str, list[str]]] = {}
    """The axes of arrays that are not always there."""

    UNITS: ClassVar[Mapping[str, str]] = {"subsampling": "frames per encoder step"}
    """The units of arrays that are not plain counts or ids."""

    segments: npt.NDArray[np.int32]
    n_masks: npt.NDArray[np.int64]
    subsampling: int
    n_steps: int

    @classmethod
    def from_mapping(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the sums that ``arrays`` gave, for instance from a result file.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        values: dict[str, Any] = {
            **{name: arrays[name] for name in cls.AXES},
            **{name: arrays.get(name) for name in cls.OPTIONAL},
        }
        for name in ("subsampling", "n_steps"):
            values[name] = int(values[name])
        return cls(**values)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays by name, as a result file holds them."""
        values = {name: getattr(self, name) for name in (*self.AXES, *self.OPTIONAL)}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}

    @property
    def axes(self) -> dict[str, list[str]]:
        """The axes of ``arrays``."""
        axes = {**self.AXES, **self.OPTIONAL}
        return {name: axes[name] for name in self.arrays()}

    @property
    def total_masks(self) -> int:
        """Number of masks of all segmentations and folds."""
        return int(self.n_masks.sum())

    def n_missing(self, wished: Sequence[int]) -> int:
        """Return how many masks are missing to ``wished`` masks of each segmentation."""
        present = self.n_masks.sum(axis=0).tolist()
        return sum(max(0, n - m) for n, m in zip(wished, present, strict=True))

    def count(self, k: int, start: int, stop: int) -> None:
        """Count masks ``start`` to ``stop - 1`` of segmentation k; mask m is of fold m mod 4."""
        folds = np.arange(start, stop) % N_FOLDS
        self.n_masks[:, k] += np.bincount(folds, minlength=N_FOLDS)


@dataclass(kw_only=True)
class Statistics(MaskSums):
    """Sums of the scores of SPES, from which SMX and SMH are made; see :class:`MaskSums`.

    Attributes
    ----------
    occluded_sum : float64 [4, S, I]
        Sum of the scores of the masks that occlude a segment, in nats.
    occluded_count : int64 [4, S]
        Number of those masks.
    score_sum, score_square_sum : float64 [4, K, I]
        Sums of the scores and of their squares over all masks of a segmentation.
    occluded_log_sum : float64 [4, S, I], optional
        As ``occluded_sum``, of the natural logarithms of the scores.
    log_sum, log_square_sum : float64 [4, K, I], optional
        As ``score_sum`` and ``score_square_sum``, of the logarithms.
    token_sum : float64 [I, I], optional
        Sum of the scores of each row over the masks that occlude each preceding token; entry j is
        the token that the decoder reads to predict row j.
    token_count : int64 [I], optional
        Number of those masks.
    check_share : float64 [], optional
        Where a pilot decided how masks are scored: the share of the masks that were also scored
        exactly, all others cheaply. 0: all were scored exactly. The sums above are then of cheap
        scores; see :mod:`s2txai.saliency.checks`.
    cheap_pass : int64 [], optional
        Which of the model's cheap passes; -1 for none.
    p : float64 [], optional
        Probability that a segment is occluded.
    pilot_moments : float64 [6, I], optional
        Sums over the pilot masks of :data:`s2txai.saliency.checks.MOMENTS`.
    check_moments : float64 [4, 6, K, I], optional
        The same over the checked masks.
    difference_sum : float64 [4, S, I], optional
        Sum of exact less cheap scores over the checked masks that occlude a segment, in nats.
    difference_count : int64 [4, S], optional
        Number of those masks.
    """

    AXES: ClassVar[Mapping[str, list[str]]] = {
        **MaskSums.AXES,
        "occluded_sum": ["fold", "segment", "token"],
        "occluded_count": ["fold", "segment"],
        "score_sum": ["fold", "segmentation", "token"],
        "score_square_sum": ["fold", "segmentation", "token"],
    }
    OPTIONAL: ClassVar[Mapping[str, list[str]]] = {
        # For the log-linear estimator only.
        "occluded_log_sum": ["fold", "segment", "token"],
        "log_sum": ["fold", "segmentation", "token"],
        "log_square_sum": ["fold", "segmentation", "token"],
        # Only where preceding tokens are occluded as well.
        "token_sum": ["token", "preceding token"],
        "token_count": ["preceding token"],
        # Only where masks may be scored cheaply.
        "check_share": [],
        "cheap_pass": [],
        "p": [],
        "pilot_moments": ["moment", "token"],
        "check_moments": ["fold", "moment", "segmentation", "token"],
        "difference_sum": ["fold", "segment", "token"],
        "difference_count": ["fold", "segment"],
    }
    UNITS: ClassVar[Mapping[str, str]] = {
        **MaskSums.UNITS,
        "occluded_sum": "nat",
        "score_sum": "nat",
        "score_square_sum": "nat^2",
        "token_sum": "nat",
        "difference_sum": "nat",
    }

    occluded_sum: npt.NDArray[np.float64]
    occluded_count: npt.NDArray[np.int64]
    score_sum: npt.NDArray[np.float64]
    score_square_sum: npt.NDArray[np.float64]
    occluded_log_sum: npt.NDArray[np.float64] | None = None
    log_sum: npt.NDArray[np.float64] | None = None
    log_square_sum: npt.NDArray[np.float64] | None = None
    token_sum: npt.NDArray[np.float64] | None = None
    token_count: npt.NDArray[np.int64] | None = None
    check_share: npt.NDArray[np.float64] | None = None
    cheap_pass: npt.NDArray[np.int64] | None = None
    p: npt.NDArray[np.float64] | None = None
    pilot_moments: npt.NDArray[np.float64] | None = None
    check_moments: npt.NDArray[np.float64] | None = None
    difference_sum: npt.NDArray[np.float64] | None = None
    difference_count: npt.NDArray[np.int64] | None = None

    @classmethod
    def zeros(
        cls,
        segments: npt.NDArray[np.int32],
        n_rows: int,
        subsampling: int,
        n_steps: int,
        *,
        logarithms: bool = False,
        tokens: bool = False,
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
        logarithms
            Whether logarithms of the scores are summed as well.
        tokens
            Whether preceding tokens are occluded as well.
        """
        K = len(segments)
        S = int(segments.max()) + 1
        statistics = cls(
            segments=segments,
            occluded_sum=np.zeros((N_FOLDS, S, n_rows)),
            occluded_count=np.zeros((N_FOLDS, S), np.int64),
            score_sum=np.zeros((N_FOLDS, K, n_rows)),
            score_square_sum=np.zeros((N_FOLDS, K, n_rows)),
            n_masks=np.zeros((N_FOLDS, K), np.int64),
            subsampling=subsampling,
            n_steps=n_steps,
        )
        if logarithms:
            statistics.occluded_log_sum = np.zeros_like(statistics.occluded_sum)
            statistics.log_sum = np.zeros_like(statistics.score_sum)
            statistics.log_square_sum = np.zeros_like(statistics.score_sum)
        if tokens:
            statistics.token_sum = np.zeros((n_rows, n_rows))
            statistics.token_count = np.zeros(n_rows, np.int64)
        return statistics

    def begin_checks(
        self, *, share: float, cheap_pass: int, p: float, pilot_moments: npt.NDArray[np.float64]
    ) -> None:
        """Note what a pilot decided, before the first mask; arguments are attributes."""
        S, n_rows = self.occluded_sum.shape[1:]
        self.check_share, self.p = np.array(share), np.array(p)
        self.cheap_pass = np.array(cheap_pass)
        self.pilot_moments = pilot_moments
        shape = (N_FOLDS, len(pilot_moments), len(self.segments), n_rows)
        self.check_moments = np.zeros(shape)
        self.difference_sum = np.zeros((N_FOLDS, S, n_rows))
        self.difference_count = np.zeros((N_FOLDS, S), np.int64)

    @property
    def has_logarithms(self) -> bool:
        """Whether logarithms of the scores are summed as well."""
        return self.occluded_log_sum is not None


@dataclass(kw_only=True)
class GradientStatistics(MaskSums):
    """Sums of first-order changes, from which the map of ``grad`` is made; see :class:`MaskSums`.

    Attributes
    ----------
    segment_sum : float64 [4, S, I]
        Sum over masks, and over the cells of a segment, of the first-order change of the score were
        the cell occluded, in nats; see :func:`s2txai.saliency.gradients.first_order_change`.
    """

    AXES: ClassVar[Mapping[str, list[str]]] = {
        **MaskSums.AXES,
        "segment_sum": ["fold", "segment", "token"],
    }
    UNITS: ClassVar[Mapping[str, str]] = {**MaskSums.UNITS, "segment_sum": "nat"}

    segment_sum: npt.NDArray[np.float64]

    @classmethod
    def zeros(
        cls, segments: npt.NDArray[np.int32], n_rows: int, subsampling: int, n_steps: int
    ) -> Self:
        """Return the statistics of no masks at all; parameters as for :meth:`Statistics.zeros`."""
        S = int(segments.max()) + 1
        return cls(
            segments=segments,
            segment_sum=np.zeros((N_FOLDS, S, n_rows)),
            n_masks=np.zeros((N_FOLDS, len(segments)), np.int64),
            subsampling=subsampling,
            n_steps=n_steps,
        )


def heatmap(statistics: Statistics, folds: Sequence[int] = ALL_FOLDS) -> npt.NDArray[np.float64]:
    """Return the mean score of the masks that occlude each cell, for each predicted token.

    The segmentations are pooled: total score over total count (arXiv 2411.01710). Cheap scores are
    corrected by the checked masks of the same folds.

    Parameters
    ----------
    statistics
        Sums over masks.
    folds
        The folds to use; half of them give a map with independent noise.

    Returns
    -------
    float64 [I, T, F], nats
        0 at cells that no mask occluded.
    """
    selected = list(folds)
    segment_sum = statistics.occluded_sum[selected].sum(axis=0, dtype=np.float64).T  # (I, S)
    segment_count = statistics.occluded_count[selected].sum(axis=0)  # (S)
    segment_sum += segment_count * correction(statistics, selected)
    _, T, F = statistics.segments.shape
    total = np.zeros((len(segment_sum), T, F))
    for segments in statistics.segments:  # one at a time: K copies of the map would not fit
        total += segment_sum[:, segments]
    count = segment_count[statistics.segments].sum(axis=0)  # (T, F)
    total /= np.maximum(count, 1)
    return total


def gradient_map(
    statistics: GradientStatistics, folds: Sequence[int] = ALL_FOLDS
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
    selected = list(folds)
    area = np.bincount(statistics.segments.ravel())  # (S)
    density = statistics.segment_sum[selected].sum(axis=0).T / area  # (I, S)
    _, T, F = statistics.segments.shape
    total = np.zeros((len(density), T, F))
    for segments in statistics.segments:  # one at a time: K copies of the map would not fit
        total += density[:, segments]
    total /= max(1, int(statistics.n_masks[selected].sum()))
    return total


def token_heatmap(statistics: Statistics) -> npt.NDArray[np.float64]:
    """Return the mean score of the masks that occlude each preceding token (arXiv 2411.01710).

    Cheap scores are corrected by one number per row, from all checked masks.

    Returns
    -------
    float64 [I, I, 1], nats
        Entry j of row k: the token that the decoder reads to predict row j. 0 above the diagonal,
        where it is read too late for row k, and for tokens that no mask occluded.

    Raises
    ------
    ValueError
        If the masks occluded no tokens.
    """
    if statistics.token_sum is None or statistics.token_count is None:
        raise ValueError("these masks occluded no preceding tokens (smx.token_p was 0)")
    mean = statistics.token_sum / np.maximum(statistics.token_count, 1)  # (I, I)
    rows = np.broadcast_to(correction_of_rows(statistics), len(mean))
    mean += np.where(statistics.token_count > 0, rows[:, None], 0)
    return np.tril(mean)[:, :, None]
