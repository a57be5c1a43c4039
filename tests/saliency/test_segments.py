import logging

import numpy as np
import pytest
from scipy.ndimage import label

from s2txai.saliency.segments import requested_segments, segmentations, slic_segments, time_segments


@pytest.fixture(scope="module")
def features():
    return np.random.default_rng(0).standard_normal((60, 20)).astype(np.float32)


@pytest.mark.parametrize(
    ("n_frames", "limits", "expected"),
    [
        (500, {}, 300),
        (250, {}, 150),
        (750, {}, 450),
        (3000, {}, 450),
        (3000, {"max_frames": None}, 1800),
        (100, {"reference_frames": 100}, 300),
        (1, {"reference_frames": 10_000}, 1),
    ],
)
def test_requested_number_follows_the_duration(n_frames, limits, expected):
    assert requested_segments(300, n_frames, **limits) == expected


def test_segments_cover_the_cells_and_are_connected(features):
    labels = slic_segments(features, 300)
    assert labels.shape == features.shape
    assert set(np.unique(labels)) == set(range(1, labels.max() + 1))
    for segment in np.unique(labels):
        assert label(labels == segment)[1] == 1


def test_limits_reach_the_segments(features):
    few = slic_segments(features, 300, max_frames=20)
    assert few.max() < slic_segments(features, 300).max()
    np.testing.assert_array_equal(few, slic_segments(features, 100))


def test_scale_and_offset_do_not_matter(features):
    np.testing.assert_array_equal(
        slic_segments(features.astype(np.float64) * 8 - 3, 300),
        slic_segments(features.astype(np.float64), 300),
    )


def test_silence_has_segments():
    labels = slic_segments(np.full((50, 20), -1.5, np.float32), 300)
    assert labels.max() > 1


def test_ids_are_contiguous_and_owned_by_one_segmentation(features, caplog):
    segmented = segmentations(features, [100, 300], compactness=1.0)
    assert segmented.labels.shape == (2, 60, 20)
    assert segmented.labels.dtype == np.int32
    first, second = segmented.n_segments
    assert set(np.unique(segmented.labels[0])) == set(range(first))
    assert set(np.unique(segmented.labels[1])) == set(range(first, first + second))
    assert segmented.levels == ((100,), (300,))
    assert not caplog.records
    for labels, level in zip(segmented.labels, [100, 300], strict=True):
        own = slic_segments(features, level, compactness=1.0)
        np.testing.assert_array_equal(labels - labels.min(), own - 1)


def test_equal_segmentations_are_merged_also_when_not_neighbours(features, caplog):
    with caplog.at_level(logging.WARNING):
        segmented = segmentations(features, [100, 300, 100])
    assert segmented.levels == ((100, 100), (300,))
    assert len(segmented.labels) == len(segmented.n_segments) == 2
    assert len(caplog.records) == 1


@pytest.mark.parametrize(("n_frames", "level"), [(100, 40), (500, 7), (2000, 30), (5, 3000)])
def test_segments_in_time_are_contiguous_and_of_equal_length(n_frames, level):
    labels = time_segments(n_frames, level)
    lengths = np.bincount(labels)
    assert (np.diff(labels) >= 0).all()
    assert len(lengths) == min(n_frames, requested_segments(level, n_frames))
    assert lengths.min() >= 1
    assert np.ptp(lengths) <= 1


def test_segments_in_time_are_whole_frames_and_merged_where_equal(features, caplog):
    segmented = segmentations(features, [50, 100, 1000, 2000], time_only=True)
    # 6 and 12 of 60 frames; from 60 on every frame is a segment.
    assert segmented.n_segments == (6, 12, 60)
    assert segmented.levels == ((50,), (100,), (1000, 2000))
    assert segmented.kind == "time"
    assert "Asking for 2000 segments gives the same ones as asking for 1000" in caplog.text
    assert (segmented.labels == segmented.labels[:, :, :1]).all()
    assert set(np.unique(segmented.labels)) == set(range(78))
