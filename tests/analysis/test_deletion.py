from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from s2txai.analysis.deletion import (
    BeamSearch,
    Perturbation,
    area_under_curve,
    delete,
    insert,
    perturb,
    salient_share,
)
from s2txai.errors import UserError
from s2txai.saliency.deletion_maps import (
    cell_order,
    random_map,
    scaled_maps,
)
from s2txai.saliency.heard import Heard
from tests.toy import PROMPT, WORDS, LinearModel, WordModel

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "spes_small.npz"
T, F = 7, 5
OCCLUDED = np.array([-1, -2, -3, -4, -5], np.float32)


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


@pytest.mark.parametrize(("percent", "n"), [(2.8, 0), (2.9, 1), (12.5, 4), (99.9, 34)])
def test_floor_of_fractions_by_hand(percent, n):
    assert deleted_cells(ranking(), percent).sum() == n  # of 35 cells


def test_percentages_of_any_type_of_number():
    """Eight bits hold 50, but not 50 times 8,000 cells."""
    saliency = np.random.default_rng(0).random((100, 80))
    for percent in (np.uint8(50), np.int64(50), np.float32(50), torch.tensor(50)):
        assert deleted_cells(saliency, percent).sum() == 4000


@pytest.mark.parametrize("kind", [np.uint8, np.int16, bool, np.float16])
def test_maps_of_any_type_of_number(kind):
    saliency = np.array([[0, 1], [0, 0]], kind)
    np.testing.assert_array_equal(deleted_cells(saliency, 25), [[False, True], [False, False]])


@pytest.mark.parametrize("change", [delete, insert])
@pytest.mark.parametrize("occluded_value", [0.0, -2, OCCLUDED])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_tensors_are_treated_like_arrays_and_stay_tensors(change, occluded_value, dtype):
    x = features()
    inputs = torch.from_numpy(x).to(dtype)
    before = inputs.clone()
    saliency = torch.from_numpy(ranking()).requires_grad_()
    of_bins = (
        torch.from_numpy(occluded_value)
        if isinstance(occluded_value, np.ndarray)
        else occluded_value
    )
    found = change(inputs, saliency, 40, of_bins)
    assert found.dtype == dtype
    assert torch.equal(inputs, before)
    expected = change(inputs.double().numpy(), ranking(), 40, occluded_value)
    np.testing.assert_array_equal(found.double().numpy(), expected)
    found[:] = 9
    assert torch.equal(inputs, before)


def test_gradients_pass_through_the_cells_that_stay():
    inputs = torch.from_numpy(features()).requires_grad_()
    delete(inputs, ranking(), 40).sum().backward()
    np.testing.assert_array_equal(inputs.grad.numpy() == 0, deleted_cells(ranking(), 40))


@pytest.mark.parametrize("change", [delete, insert])
@pytest.mark.parametrize("percent", [-1, 100.1, float("nan")])
def test_there_are_no_more_cells_than_all(change, percent):
    with pytest.raises(UserError, match="choose 0 to 100"):
        change(features(), ranking(), percent)


def test_the_published_sentence_map_deletes_its_largest_cells():
    with np.load(GOLDEN) as golden:
        x, saliency = golden["fbank"], golden["sentence_map"]  # (T, F), (1, T, F)
    found = delete(x, saliency, 35) == 0
    assert found.sum() == x.size * 7 * 5 // 100
    assert saliency[0][found].min() >= saliency[0][~found].max()
    np.testing.assert_array_equal(insert(x, saliency, 35), np.where(found, x, 0))


@pytest.mark.parametrize("change", [delete, insert])
def test_a_map_of_other_cells_is_refused(change):
    with pytest.raises(UserError, match=r"shape \(5, 7\), the features \(7, 5\)"):
        change(features(), ranking().T, 10)


@settings(deadline=None)
@given(percents=st.lists(st.integers(0, 100), min_size=2, max_size=5), ties=st.booleans())
def test_deleted_sets_are_nested(percents, ties):
    saliency = np.zeros((T, F)) if ties else ranking()
    sets = [deleted_cells(saliency, percent) for percent in sorted(percents)]
    for smaller, larger in pairwise(sets):
        assert (larger | ~smaller).all()


def test_occluded_value_by_bin_and_untouched_source():
    x = features()
    kept = x.copy()
    hidden = deleted_cells(ranking(), 40)
    found = delete(x, ranking(), 40, OCCLUDED)
    np.testing.assert_array_equal(found, np.where(hidden, OCCLUDED, x))
    assert found.dtype == x.dtype
    found[:] = 0
    insert(x, ranking(), 40, OCCLUDED)[:] = 0
    np.testing.assert_array_equal(x, kept)


def test_a_deletion_without_cells_is_a_copy():
    x = features()
    found = delete(x, ranking(), 0)
    np.testing.assert_array_equal(found, x)
    assert not np.shares_memory(found, x)


def test_ends():
    x, everything = features(), np.broadcast_to(OCCLUDED, (T, F))
    np.testing.assert_array_equal(delete(x, ranking(), 100, OCCLUDED), everything)
    np.testing.assert_array_equal(insert(x, ranking(), 0, OCCLUDED), everything)
    np.testing.assert_array_equal(insert(x, ranking(), 100, OCCLUDED), x)


@pytest.mark.parametrize("percent", [0, 5, 50, 95, 100])
def test_deletion_and_insertion_part_the_cells(percent):
    x, saliency = features(), np.round(ranking() / 8)
    without = delete(x, saliency, percent, OCCLUDED, seed=4)
    only = insert(x, saliency, percent, OCCLUDED, seed=4)
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


def test_size_by_hand():
    # Reaching 0: 4 of 4; 0.05, 0.1, 0.15: 3; the 16 from 0.2 to 0.95 and 1: 1.
    expected = 0.05 * (100 / 2 + 3 * 75 + 16 * 25 + 25 / 2)
    assert salient_share(np.array([[0, 0.15, 0.15, 1]])) == pytest.approx(expected)


def test_size_of_the_sharpest_and_the_flattest_map():
    one = np.zeros((100, 100))
    one[3, 4] = 1
    assert salient_share(one) == pytest.approx(2.5, abs=0.011)
    assert salient_share(np.ones((4, 5))) == 100
    assert salient_share(np.zeros((4, 5))) == pytest.approx(2.5)
    ramp = np.arange(1001).reshape(7, 143) / 1000
    assert salient_share(ramp) == pytest.approx(100 * ramp.mean(), abs=0.1)


@settings(deadline=None)
@given(rows=st.integers(1, 4), seed=st.integers(0, 20))
def test_size_of_rows_is_their_mean(rows, seed):
    maps = np.random.default_rng(seed).random((1, T, F)) ** np.arange(1, rows + 1)[:, None, None]
    assert salient_share(maps) == pytest.approx(np.mean([salient_share(one) for one in maps]))


@settings(deadline=None)
@given(seed=st.integers(0, 50), low=st.floats(-2, 0), high=st.floats(0, 3))
def test_size_is_the_published_formula(seed, low, high):
    """Thresholds are held against the values as they are, also where they leave [0, 1]."""
    values = np.random.default_rng(seed).uniform(low, high, (T, F)).round(2)
    thresholds = [k / 20 for k in range(21)]
    reached = [100 * np.mean([value >= one for value in values.ravel()]) for one in thresholds]
    expected = sum(0.05 * (a + b) / 2 for a, b in pairwise(reached))
    assert salient_share(values) == pytest.approx(expected)


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
    (found,) = perturb(
        model, Heard(spoken(words), 0.0, PROMPT, [0, 1, 2, 0, 4]),
        [Perturbation(saliency, [0, 25, 50, 100])],
        search=BeamSearch(1, 20), batch_size=batch_size, seed=0,
    )  # fmt: skip
    # A deleted stretch sounds like the mean of the input, in which north prevails.
    assert found.texts == [
        "north east south north",
        "north east south north",
        "north north south north",
        "north north north north",
    ]
    assert model.calls == {"encode": 4, "decode": 4, "generate": 4}


def test_new_tokens_are_capped():
    heard = Heard(spoken(["north", "east", "south"]), 0.0, PROMPT, [0, 1, 2, 4])
    (found,) = perturb(
        WordModel(), heard, [Perturbation(np.zeros((24, 4)), [0])],
        search=BeamSearch(1, 2), batch_size=4, seed=0,
    )  # fmt: skip
    assert found.texts == ["north east"]


@pytest.mark.parametrize(
    ("mode", "logits"),
    [
        # The input is (2, 0), its mean 1, and the first cell is the more salient.
        ("deletion", [2 + 0, 1 + 0, 1 + 1]),
        ("insertion", [1 + 1, 2 + 1, 2 + 0]),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 8])
def test_log_probability_by_hand(mode, logits, batch_size):
    """Row 0 says word 0 with the sum of the input as its logit, word 1 with 0; row 1 is even."""
    weights = np.zeros((2, 1, 2, 2))
    weights[0, 0, :, 0] = 1
    model = LinearModel(weights)
    (found,) = perturb(
        model, Heard(np.array([[2], [0]], np.float32), 0.0, PROMPT, [0, 1]),
        [Perturbation(np.array([[1], [0]]), [0, 50, 100], mode)],
        search=None, batch_size=batch_size, seed=0,
    )  # fmt: skip
    expected = (-np.log1p(np.exp(-np.array(logits, float))) - np.log(2)) / 2
    np.testing.assert_allclose(found.log_probs, expected, rtol=1e-6)
    assert found.texts == []
    assert model.calls == {"encode": 3, "decode": 3}


def of_words():
    """Return an utterance of three words, and maps that agree on the first of them."""
    heard = Heard(spoken(["north", "east", "south"]), 0.0, PROMPT, [0, 1, 2, 4])
    forwards, backwards = (
        np.repeat(values, 8)[:, None] * np.ones(4) for values in ([3.0, 2, 1], [3.0, 1, 2])
    )
    third, most = 100 / 3 + 0.01, 200 / 3 + 0.01
    return heard, [
        Perturbation(forwards, [0, third, most]),
        Perturbation(backwards, [third, most, 100]),
        Perturbation(-forwards, [0, third, most], "insertion"),
    ]


@pytest.mark.parametrize("search", [BeamSearch(1, 20), None])
@pytest.mark.parametrize("batch_size", [1, 2, 16])
def test_equal_inputs_of_all_maps_and_modes_are_processed_once(batch_size, search):
    heard, perturbations = of_words()
    settings = {"search": search, "batch_size": batch_size, "seed": 0}
    model = WordModel()
    together = list(perturb(model, heard, perturbations, **settings))
    # Deleted are nothing, everything, the first word, the first two, the first and the last; what
    # is inserted is what one of these leaves.
    assert model.calls["encode"] == model.calls["decode"] == 5
    assert model.calls["generate"] == (5 if search else 0)
    for perturbation, found in zip(perturbations, together, strict=True):
        (alone,) = perturb(WordModel(), heard, [perturbation], **settings)
        assert found.texts == alone.texts
        np.testing.assert_allclose(found.log_probs, alone.log_probs, rtol=1e-6)


def test_a_map_is_finished_before_the_next_one_begins():
    heard, perturbations = of_words()
    model = WordModel()
    outcomes = perturb(model, heard, perturbations, search=None, batch_size=3, seed=0)
    next(outcomes)
    assert model.calls["encode"] == 3


def test_a_batch_that_does_not_fit_is_parted(caplog):
    class Small(WordModel):
        def decode(self, states, prompt, tokens):
            if len(states) > 2:
                raise torch.OutOfMemoryError
            return super().decode(states, prompt, tokens)

    heard, perturbations = of_words()
    settings = {"search": BeamSearch(1, 20), "seed": 0}
    found = list(perturb(Small(), heard, perturbations, batch_size=5, **settings))
    expected = list(perturb(WordModel(), heard, perturbations, batch_size=2, **settings))
    assert [one.texts for one in found] == [one.texts for one in expected]
    assert "batches of 5: going on with 2" in caplog.text


def test_random_order_of_a_waveform_deletes_whole_frames():
    full = np.zeros((1, 12, 5))
    found = scaled_maps("random", {}, full, 2, seed=1, time_only=True).mean(axis=0)
    np.testing.assert_array_equal(found, np.repeat(random_map(12, 1, 1), 5, axis=1))
    deleted = delete(np.ones((12, 5)), found, 25) == 0
    assert deleted.all(axis=1).sum() == deleted.any(axis=1).sum() == 3
