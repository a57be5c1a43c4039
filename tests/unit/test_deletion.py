from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2txai.deletion import (
    area_under_curve,
    cell_order,
    decode_deleted,
    delete,
    deletion_map,
    insert,
    map_names,
    random_map,
    sentence_map,
    spread_over_cells,
)
from tests.toy import PROMPT, WORDS, WordModel

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "spes_small.npz"
T, F = 7, 5
BASELINE = np.array([-1, -2, -3, -4, -5], np.float32)


def features(seed=0):
    return np.random.default_rng(seed).random((T, F)).astype(np.float32) + 1


def ranking():
    """Return a map without ties."""
    return np.random.default_rng(9).permutation(T * F).reshape(T, F).astype(float)


def deleted_cells(saliency, percent, seed=0):
    ones = np.ones(saliency.shape, np.float32)
    return delete(ones, saliency, percent, seed=seed) == 0


@settings(deadline=None)
@given(percent=st.integers(0, 100), levels=st.integers(1, 50), seed=st.integers(0, 5))
def test_floor_of_the_share_in_descending_order(percent, levels, seed):
    saliency = ranking() // levels  # with ties
    hidden = deleted_cells(saliency, percent, seed)
    assert hidden.sum() == T * F * percent // 100
    if hidden.any() and not hidden.all():
        assert saliency[hidden].min() >= saliency[~hidden].max()


@pytest.mark.parametrize(("percent", "n"), [(2, 0), (3, 1), (29, 10), (58, 20), (99, 34)])
def test_floor_by_hand(percent, n):
    assert deleted_cells(ranking(), percent).sum() == n  # of 35 cells


@settings(deadline=None)
@given(percents=st.lists(st.integers(0, 100), min_size=2, max_size=5), ties=st.booleans())
def test_deleted_sets_are_nested(percents, ties):
    saliency = np.zeros((T, F)) if ties else ranking()
    sets = [deleted_cells(saliency, percent) for percent in sorted(percents)]
    for smaller, larger in pairwise(sets):
        assert (larger | ~smaller).all()


def test_baseline_by_bin_and_untouched_source():
    x = features()
    kept = x.copy()
    hidden = deleted_cells(ranking(), 40)
    found = delete(x, ranking(), 40, BASELINE)
    np.testing.assert_array_equal(found, np.where(hidden, BASELINE, x))
    assert found.dtype == x.dtype
    found[:] = 0
    insert(x, ranking(), 40, BASELINE)[:] = 0
    np.testing.assert_array_equal(x, kept)


def test_a_deletion_without_cells_is_a_copy():
    x = features()
    found = delete(x, ranking(), 0)
    np.testing.assert_array_equal(found, x)
    assert not np.shares_memory(found, x)


def test_ends():
    x, everything = features(), np.broadcast_to(BASELINE, (T, F))
    np.testing.assert_array_equal(delete(x, ranking(), 100, BASELINE), everything)
    np.testing.assert_array_equal(insert(x, ranking(), 0, BASELINE), everything)
    np.testing.assert_array_equal(insert(x, ranking(), 100, BASELINE), x)


@pytest.mark.parametrize("percent", [0, 5, 50, 95, 100])
def test_deletion_and_insertion_part_the_cells(percent):
    x, saliency = features(), np.round(ranking() / 8)
    without = delete(x, saliency, percent, BASELINE, seed=4)
    only = insert(x, saliency, percent, BASELINE, seed=4)
    assert ((without == x) ^ (only == x)).all()


def test_ties_are_broken_by_the_seed():
    flat = np.full((T, F), 0.3)
    one, same, other = (deleted_cells(flat, 40, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    # At random, not from the front.
    assert not one.ravel()[: T * F * 40 // 100].all()
    assert sorted(cell_order(flat, 1)) == list(range(T * F))


def test_ties_cannot_overrule_the_order():
    np.testing.assert_array_equal(cell_order(np.array([[1.0, 3], [2, 0]]), 5), [1, 2, 0, 3])


def test_area_by_hand():
    # 0 to 20: mean 20; 20 to 100: mean 70.
    assert area_under_curve([0, 20, 100], [10, 30, 110]) == pytest.approx(20 * 20 + 80 * 70)
    assert area_under_curve(range(0, 101, 5), np.full(21, 42.0)) == pytest.approx(4200)


def test_sentence_map_equals_the_published_one():
    with np.load(GOLDEN) as golden:
        found = sentence_map(golden["heatmap"])
        np.testing.assert_allclose(found, golden["sentence_map"][0], rtol=0, atol=1e-9)


def test_every_row_has_the_same_say():
    rows = np.random.default_rng(0).random((3, T, F))
    scaled = rows * np.array([1, 1e6, 1e-6])[:, None, None] + 5
    np.testing.assert_allclose(sentence_map(scaled), sentence_map(rows), atol=1e-6)
    assert sentence_map(np.concatenate([rows, np.ones((3, T, F))])) == pytest.approx(
        sentence_map(rows) / 2
    )


def test_spread_over_cells():
    steps = np.array([[1.0, 2, 3], [4, 5, 6]])
    found = spread_over_cells(steps, n_frames=5, n_bins=2, subsampling=2)
    assert found.shape == (2, 5, 2)
    expected = np.array([[1, 1, 2, 2, 3], [4, 4, 5, 5, 6]])
    np.testing.assert_array_equal(found, np.stack([expected, expected], axis=2))


def test_random_order_knows_only_the_seed():
    np.testing.assert_array_equal(random_map(T, F, 3), random_map(T, F, 3))
    assert (random_map(T, F, 3) != random_map(T, F, 4)).any()


def test_maps_by_name():
    names = map_names(["avg2d", "max2d"])
    assert names == ("ca_mean", "ca_last", "smx_avg2d", "smx_max2d", "smx_full", "random")
    rng = np.random.default_rng(0)
    steps = {name: rng.random((3, 4)) for name in ("ca_mean", "smx_avg2d", "smx_max2d")}
    steps["ca_layer"] = rng.random((2, 3, 4))
    full = rng.random((3, T, F))
    found = {name: deletion_map(name, steps, full, 2, seed=1) for name in names}
    for name in ("ca_mean", "smx_avg2d", "smx_max2d"):
        np.testing.assert_array_equal(
            found[name], sentence_map(spread_over_cells(steps[name], T, F, 2))
        )
    last = sentence_map(spread_over_cells(steps["ca_layer"][1], T, F, 2))
    np.testing.assert_array_equal(found["ca_last"], last)
    np.testing.assert_array_equal(found["smx_full"], sentence_map(full))
    np.testing.assert_array_equal(found["random"], random_map(T, F, 1))


def spoken(words):
    """Return the input [T, F] in which the toy hears these words."""
    loud = np.eye(len(WORDS), dtype=np.float32)[[WORDS.index(word) for word in words]]
    return np.repeat(loud, 8, axis=0)


@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_decoding_deleted_inputs(batch_size):
    """The words vanish in the order in which their cells are deleted."""
    words = ["north", "east", "south", "north"]
    saliency = np.repeat([4.0, 3, 2, 1], 8)[:, None] * np.ones(4)
    model = WordModel()
    found = decode_deleted(
        model, spoken(words), 0.0, PROMPT, saliency, [0, 25, 50, 100],
        beam=1, max_new_tokens=20, batch_size=batch_size, seed=0,
    )  # fmt: skip
    # A deleted stretch sounds like the mean of the input, in which north prevails.
    assert found == [
        "north east south north",
        "north east south north",
        "north north south north",
        "north north north north",
    ]
    assert model.calls == {"encode": 4, "generate": 4}


def test_new_tokens_are_capped():
    options = {"beam": 1, "batch_size": 4, "seed": 0}
    found = decode_deleted(
        WordModel(), spoken(["north", "east", "south"]), 0.0, PROMPT, np.zeros((24, 4)), [0],
        max_new_tokens=2, **options,
    )  # fmt: skip
    assert found == ["north east"]


def test_random_order_of_a_waveform_deletes_whole_frames():
    full = np.zeros((1, 12, 5))
    found = deletion_map("random", {}, full, 2, seed=1, time_only=True)
    np.testing.assert_array_equal(found, np.repeat(random_map(12, 1, 1), 5, axis=1))
    deleted = delete(np.ones((12, 5)), found, 25) == 0
    assert deleted.all(axis=1).sum() == deleted.any(axis=1).sum() == 3
