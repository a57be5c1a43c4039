"""Cutting a spectrogram into segments, finely and coarsely (SPES, arXiv 2411.01710)."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from skimage.segmentation import slic

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Segmentations:
    """Several segmentations of one spectrogram.

    Attributes
    ----------
    labels : int32 [K, T, F]
        Segment of each cell. Ids start at 0 and each segmentation owns a contiguous range of them.
    levels
        The requested numbers of segments that led to each segmentation.
    n_segments
        Number of segments of each segmentation.
    kind
        ``slic`` or ``time``.
    """

    labels: npt.NDArray[np.int32]
    levels: tuple[tuple[int, ...], ...]
    n_segments: tuple[int, ...]
    kind: str = "slic"


def requested_segments(
    n_segments: int, n_frames: int, *, max_frames: int | None = 750, reference_frames: int = 500
) -> int:
    """Return how many segments to ask for, so that their size does not depend on the duration.

    Parameters
    ----------
    n_segments
        Segments to ask for in ``reference_frames`` frames.
    n_frames
        Frames of the spectrogram.
    max_frames
        Duration in frames from which on the number no longer grows; None sets no limit.
    reference_frames
        Frames that ``n_segments`` speaks of.
    """
    counted = n_frames if max_frames is None else min(n_frames, max_frames)
    return max(1, round(n_segments * counted / reference_frames))


def slic_segments(
    features: npt.NDArray[np.floating[Any]],
    n_segments: int,
    *,
    max_frames: int | None = 750,
    reference_frames: int = 500,
    compactness: float = 0.1,
    sigma: float = 1,
) -> npt.NDArray[np.int64]:
    """Cut a spectrogram into connected segments of similar energy with SLIC.

    Parameters
    ----------
    features : [T, F]
        Spectrogram, of speech frames only.
    n_segments, max_frames, reference_frames
        See ``requested_segments``.
    compactness
        Weight of closeness against similarity, for energies scaled to [0, 1].
    sigma
        Width in cells of the Gaussian that smooths the spectrogram first.

    Returns
    -------
    int64 [T, F]
        Segment of each cell, from 1.
    """
    low, high = features.min(), features.max()
    image = np.zeros_like(features) if high == low else (features - low) / (high - low)
    labels: npt.NDArray[np.int64] = slic(
        image,
        n_segments=requested_segments(
            n_segments, len(features), max_frames=max_frames, reference_frames=reference_frames
        ),
        compactness=compactness,
        sigma=sigma,
        channel_axis=None,
    )
    return labels


def time_segments(
    n_frames: int,
    n_segments: int,
    *,
    max_frames: int | None = 750,
    reference_frames: int = 500,
) -> npt.NDArray[np.int64]:
    """Cut frames into contiguous segments of equal length, give or take one frame.

    For inputs whose frames hold samples of a waveform, of which SLIC could make nothing.

    Parameters
    ----------
    n_frames
        Frames of the input.
    n_segments, max_frames, reference_frames
        See ``requested_segments``. There are never more segments than frames.

    Returns
    -------
    int64 [T]
        Segment of each frame, from 0.
    """
    requested = requested_segments(
        n_segments, n_frames, max_frames=max_frames, reference_frames=reference_frames
    )
    return np.arange(n_frames) * min(requested, n_frames) // n_frames


def segmentations(
    features: npt.NDArray[np.floating[Any]],
    levels: Sequence[int],
    *,
    time_only: bool = False,
    **options: Any,
) -> Segmentations:
    """Segment an input at several levels, keeping equal results once.

    SLIC starts from a grid of whole cells, so that different requests may give the same segments;
    scores of such levels then belong to one segmentation, which is reported as a warning.

    Parameters
    ----------
    features : [T, F]
        Input, of speech frames only.
    levels
        Requested numbers of segments, one for each level.
    time_only
        Whether segments consist of whole frames (``time_segments``), not of cells
        (``slic_segments``).
    **options
        Of that function.
    """
    maps: list[npt.NDArray[np.int64]] = []
    merged: list[list[int]] = []
    for level in levels:
        if time_only:
            frames = time_segments(len(features), level, **options)
            labels = np.broadcast_to(frames[:, None], features.shape)
        else:
            labels = slic_segments(features, level, **options)
        same = next((k for k, earlier in enumerate(maps) if np.array_equal(earlier, labels)), None)
        if same is None:
            maps.append(labels)
            merged.append([level])
        else:
            log.warning(
                "Asking for %d segments gives the same ones as asking for %d: merged.",
                level,
                merged[same][0],
            )
            merged[same].append(level)

    labels_from_zero = []
    counts: list[int] = []
    for labels in maps:
        names, ids = np.unique(labels, return_inverse=True)
        labels_from_zero.append(ids.reshape(labels.shape) + sum(counts))
        counts.append(len(names))
    return Segmentations(
        labels=np.stack(labels_from_zero).astype(np.int32),
        levels=tuple(tuple(group) for group in merged),
        n_segments=tuple(counts),
        kind="time" if time_only else "slic",
    )


def masks_per_segmentation(n_masks: int, segmentations: Segmentations) -> tuple[int, ...]:
    """Deal ``n_masks`` evenly over the requested levels, rounded down.

    A segmentation that stands for several levels (SLIC made the same map for them) gets the masks
    of all of them.
    """
    n_levels = sum(len(levels) for levels in segmentations.levels)
    return tuple(n_masks // n_levels * len(levels) for levels in segmentations.levels)


def segmentation_names(segmentations: Segmentations) -> tuple[str, ...]:
    """Name each segmentation after its first level; part of the key of its masks."""
    return tuple(f"{segmentations.kind}-{levels[0]}" for levels in segmentations.levels)
