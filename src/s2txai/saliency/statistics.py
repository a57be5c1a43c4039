"""The sums over masks from which saliency maps are made.

Saliency of a segment is the mean score of the masks that occlude it (SPES, arXiv 2411.01710). The
sums below are all that the mean needs; they add up over masks, so more masks extend a result.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

N_FOLDS = 4
"""Masks are dealt into this many folds (mask m to fold m mod 4), to measure reliability."""

AXES: dict[str, list[str]] = {
    "segments": ["segmentation", "frame", "frequency"],
    "occluded_sum": ["fold", "segment", "token"],
    "occluded_count": ["fold", "segment"],
    "score_sum": ["fold", "segmentation", "token"],
    "score_square_sum": ["fold", "segmentation", "token"],
    "n_masks": ["fold", "segmentation"],
    "subsampling": [],
    "n_steps": [],
}
"""The axes of ``Statistics.arrays``, for the description of a result file."""

LOG_AXES: dict[str, list[str]] = {
    "occluded_log_sum": ["fold", "segment", "token"],
    "log_sum": ["fold", "segmentation", "token"],
    "log_square_sum": ["fold", "segmentation", "token"],
}
"""The axes of what only the log-linear estimator needs; absent elsewhere."""

TOKEN_AXES: dict[str, list[str]] = {
    "token_sum": ["token", "preceding token"],
    "token_count": ["preceding token"],
}
"""The axes of what is there only where preceding tokens are occluded, too."""

_OPTIONAL = (*LOG_AXES, *TOKEN_AXES)

UNITS: dict[str, str] = {
    "occluded_sum": "nat",
    "score_sum": "nat",
    "score_square_sum": "nat^2",
    "token_sum": "nat",
    "subsampling": "frames per encoder step",
}
"""The units of ``Statistics.arrays`` that are not plain counts or ids."""


@dataclass
class Statistics:
    """Sums over the masks of one utterance, kept apart by fold.

    S counts the segments of all K segmentations together. For saliency of encoder states the
    segments are the steps themselves: ``segments`` is ``arange(T')`` shaped ``[1, T', 1]``.

    Attributes
    ----------
    segments : int32 [K, T, F]
        Segment of each cell; ids from 0, unique over segmentations.
    occluded_sum : float64 [4, S, I]
        Sum of the scores of the masks that occlude a segment, in nats.
    occluded_count : int64 [4, S]
        Number of those masks.
    score_sum, score_square_sum : float64 [4, K, I]
        Sums of the scores and of their squares over all masks of a segmentation.
    n_masks : int64 [4, K]
        Number of masks of a segmentation.
    subsampling
        Input frames to an encoder step (r).
    n_steps
        Encoder steps that cover speech (T').
    occluded_log_sum : float64 [4, S, I], optional
        As ``occluded_sum``, of the natural logarithms of the scores.
    log_sum, log_square_sum : float64 [4, K, I], optional
        As ``score_sum`` and ``score_square_sum``, of the logarithms.
    token_sum : float64 [I, I], optional
        Sum of the scores of each row over the masks that occlude each preceding token; entry j is
        the token that the decoder reads to predict row j.
    token_count : int64 [I], optional
        Number of those masks.
    """

    segments: npt.NDArray[np.int32]
    occluded_sum: npt.NDArray[np.float64]
    occluded_count: npt.NDArray[np.int64]
    score_sum: npt.NDArray[np.float64]
    score_square_sum: npt.NDArray[np.float64]
    n_masks: npt.NDArray[np.int64]
    subsampling: int
    n_steps: int
    occluded_log_sum: npt.NDArray[np.float64] | None = None
    log_sum: npt.NDArray[np.float64] | None = None
    log_square_sum: npt.NDArray[np.float64] | None = None
    token_sum: npt.NDArray[np.float64] | None = None
    token_count: npt.NDArray[np.int64] | None = None

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
            Whether logarithms of the scores are summed, too.
        tokens
            Whether preceding tokens are occluded, too.
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

    @property
    def axes(self) -> dict[str, list[str]]:
        """The axes of ``arrays``."""
        known = AXES | LOG_AXES | TOKEN_AXES
        return {name: known[name] for name in self.arrays()}

    @property
    def has_logarithms(self) -> bool:
        """Whether logarithms of the scores are summed, too."""
        return self.occluded_log_sum is not None

    @classmethod
    def from_mapping(cls, arrays: Mapping[str, npt.NDArray[Any]]) -> Self:
        """Return the statistics that ``arrays`` gave, for instance from a result file.

        Raises
        ------
        KeyError
            If an array is missing.
        """
        values: dict[str, Any] = {
            **{name: arrays[name] for name in AXES},
            **{name: arrays.get(name) for name in _OPTIONAL},
        }
        values["subsampling"] = int(values["subsampling"])
        values["n_steps"] = int(values["n_steps"])
        return cls(**values)

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """Return everything as arrays by name, as a result file holds them."""
        values = {name: getattr(self, name) for name in (*AXES, *_OPTIONAL)}
        return {name: np.asarray(value) for name, value in values.items() if value is not None}


def heatmap(
    statistics: Statistics, folds: Sequence[int] = tuple(range(N_FOLDS))
) -> npt.NDArray[np.float64]:
    """Return the mean score of the masks that occlude each cell, for each predicted token.

    The segmentations are pooled: total score over total count (arXiv 2411.01710).

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
    chosen = list(folds)
    segment_sum = statistics.occluded_sum[chosen].sum(axis=0, dtype=np.float64).T  # (I, S)
    segment_count = statistics.occluded_count[chosen].sum(axis=0)  # (S)
    _, T, F = statistics.segments.shape
    total = np.zeros((len(segment_sum), T, F))
    for segments in statistics.segments:  # one at a time: K copies of the map would not fit
        total += segment_sum[:, segments]
    count = segment_count[statistics.segments].sum(axis=0)  # (T, F)
    total /= np.maximum(count, 1)
    return total


def token_heatmap(statistics: Statistics) -> npt.NDArray[np.float64]:
    """Return the mean score of the masks that occlude each preceding token (arXiv 2411.01710).

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
    return np.tril(statistics.token_sum / np.maximum(statistics.token_count, 1))[:, :, None]
