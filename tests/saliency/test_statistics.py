from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.statistics import Statistics, heatmap
from s2txai.storage.artifacts import load, save

# Two segmentations of 3 frames and 2 bins: by frame (ids 0-2), by bin (ids 3-4).
SEGMENTS = np.array([[[0, 0], [1, 1], [2, 2]], [[3, 4], [3, 4], [3, 4]]], np.int32)


MORE = {
    "occluded_log_sum": (4, 5, 2), "log_sum": (4, 2, 2), "log_square_sum": (4, 2, 2),
    "token_sum": (2, 2), "token_count": (2,),
}  # fmt: skip


def filled(seed, n_masks=40, n_rows=2, p=0.5):
    """Return statistics of random masks, and the masks and scores they sum."""
    rng = np.random.default_rng(seed)
    statistics = Statistics.zeros(SEGMENTS, n_rows, subsampling=2, n_steps=2)
    masks = []
    for m in range(n_masks):
        k, fold = m % 2, (m // 2) % N_FOLDS
        ids = np.unique(SEGMENTS[k])
        occluded = ids[rng.random(len(ids)) < p]
        score = rng.random(n_rows)
        statistics.occluded_sum[fold, occluded] += score
        statistics.occluded_count[fold, occluded] += 1
        masks.append((fold, np.isin(SEGMENTS[k], occluded), score))
    return statistics, masks


def direct(masks, folds):
    """Mean score by cell, from the masks themselves."""
    total = sum(score[:, None, None] * cells for fold, cells, score in masks if fold in folds)
    count = sum(cells.astype(int) for fold, cells, _ in masks if fold in folds)
    return np.divide(total, count, out=np.zeros(total.shape), where=count > 0)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    p=st.sampled_from([0.05, 0.5, 1.0]),
    folds=st.sets(st.integers(0, 3), min_size=1),
)
def test_heatmap_is_the_mean_over_masks_by_cell(seed, p, folds):
    statistics, masks = filled(seed, p=p)
    np.testing.assert_allclose(heatmap(statistics, sorted(folds)), direct(masks, folds), atol=1e-12)


def test_heatmap_uses_all_folds_unless_told():
    statistics, masks = filled(0)
    np.testing.assert_allclose(heatmap(statistics), direct(masks, {0, 1, 2, 3}), atol=1e-12)
    assert not np.allclose(heatmap(statistics), heatmap(statistics, [0, 1]))


def test_segmentations_are_pooled_not_averaged():
    statistics = Statistics.zeros(SEGMENTS, 1, subsampling=2, n_steps=2)
    statistics.occluded_sum[0, 0], statistics.occluded_count[0, 0] = 3.0, 3  # frame 0
    statistics.occluded_sum[1, 3], statistics.occluded_count[1, 3] = 5.0, 1  # bin 0
    expected = [[[8 / 4, 1], [5, 0], [5, 0]]]
    np.testing.assert_allclose(heatmap(statistics), expected)


def test_an_archive_of_numpy_is_enough(tmp_path):
    """With what the optional arrays hold and without, and in single precision."""
    statistics, _ = filled(1)
    plain = {
        k: v.astype(np.float32) if v.dtype == float else v for k, v in statistics.arrays().items()
    }
    more = {name: np.zeros(shape) for name, shape in MORE.items()}
    for arrays in (plain, plain | more):
        np.savez(tmp_path / "u1.npz", meta=np.array("{}"), **arrays)
        with np.load(tmp_path / "u1.npz", allow_pickle=False) as archive:
            read = Statistics.from_mapping(archive)
        assert read.has_logarithms == (arrays is not plain)
        expected = (
            plain["occluded_sum"].astype(float).sum(axis=0)
            / statistics.occluded_count.sum(0)[:, None]
        )
        found = heatmap(replace(read, segments=SEGMENTS[:1]))
        np.testing.assert_allclose(found[:, :, 0], expected[:3].T, rtol=1e-12)


def test_no_masks_give_zeros():
    statistics = Statistics.zeros(SEGMENTS, 4, subsampling=2, n_steps=2)
    np.testing.assert_array_equal(heatmap(statistics), np.zeros((4, 3, 2)))
    assert statistics.occluded_sum.shape == (4, 5, 4)
    assert statistics.score_sum.shape == (4, 2, 4)


def test_encoder_steps_are_segments():
    steps = np.arange(5, dtype=np.int32).reshape(1, 5, 1)
    statistics = Statistics.zeros(steps, 2, subsampling=2, n_steps=5)
    statistics.occluded_sum[0, 3] = [6, 8]
    statistics.occluded_count[:2, 3] = 1
    expected = np.zeros((2, 5, 1))
    expected[:, 3, 0] = [3, 4]
    np.testing.assert_array_equal(heatmap(statistics), expected)


def test_result_file_round_trip(tmp_path):
    statistics, _ = filled(1)
    meta = {
        **dict.fromkeys(["dataset", "model", "model_sha256", "audio_sha256", "task"], "x"),
        **{"step": "smx", "utterance": "u1", "parameters": {}},
        **{"axes": statistics.axes, "units": Statistics.UNITS},
    }
    save(tmp_path / "u1.npz", statistics.arrays(), meta)
    read = Statistics.from_mapping(load(tmp_path / "u1.npz", "smx").arrays)
    assert (read.subsampling, read.n_steps) == (2, 2)
    for name, array in statistics.arrays().items():
        stored = read.arrays()[name]
        np.testing.assert_array_equal(stored, array)
        assert stored.dtype == array.dtype
    np.testing.assert_array_equal(heatmap(read), heatmap(statistics))


def test_lacking_array_is_named():
    arrays = filled(0)[0].arrays()
    del arrays["occluded_count"]
    with pytest.raises(KeyError, match="occluded_count"):
        Statistics.from_mapping(arrays)
