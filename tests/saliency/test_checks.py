"""Cheap scores of all masks, corrected by exact scores of some."""

import json
import logging
import math
from dataclasses import replace
from fractions import Fraction
from itertools import product

import numpy as np
import pytest
import torch

from s2txai.errors import UserError
from s2txai.models.base import CheapPass
from s2txai.saliency import checks
from s2txai.saliency.checked_sums import moments_of as moments_of_tensors
from s2txai.saliency.checks import Fidelity, correction
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import is_checked
from s2txai.saliency.scores import kl_divergence
from s2txai.saliency.smx import INPUT, PerturbedInput, smx
from s2txai.saliency.statistics import HALVES, Statistics, heatmap, token_heatmap
from tests.toy import EOS, PROMPT, WORD_FRAMES, WORDS, HardOfHearing, WordModel

SAID = ["west", "south"]


def heard():
    """Return two words and their end, with noise in every cell."""
    rng = np.random.default_rng(0)
    said = [WORDS.index(word) for word in SAID]
    loud = np.repeat(np.eye(len(WORDS))[said], WORD_FRAMES, axis=0)
    features = 0.1 + 0.5 * loud + rng.uniform(-0.05, 0.05, loud.shape)
    return Heard(features.astype(np.float32), 0.0, PROMPT, [*said, EOS])


DESIGN = MaskDesign(400, n_segments=(300,), seed=1, encoder="auto", check=0.1)


def run(model, design=DESIGN, *, batch_size=64, statistics=None, on_batch=None):
    return smx(
        model, heard(), design, utterance="u1", statistics=statistics, batch_size=batch_size,
        on_batch=on_batch,
    )  # fmt: skip


def moments_of(cheap, exact):
    return moments_of_tensors(torch.from_numpy(cheap), torch.from_numpy(exact)).numpy()


@pytest.fixture
def any_noise(monkeypatch):
    """Switch off the fallback to exact scores."""
    monkeypatch.setattr(checks, "MOST_NOISE", math.inf)


def as_bytes(statistics):
    return {name: array.tobytes() for name, array in statistics.arrays().items()}


# ------------------------------------------------------------------ which masks are checked


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1, 0.25, 0.3, 1])
def test_checked_masks_follow_the_formula_in_all_four_folds(share):
    exact = Fraction(str(share))
    expected = [math.floor((m // 4 + 1) * exact) > math.floor(m // 4 * exact) for m in range(2000)]
    assert is_checked(0, 2000, share).tolist() == expected
    assert sum(expected) == pytest.approx(2000 * share, abs=4)
    for fold in range(4):
        assert expected[fold::4] == expected[::4]


@pytest.mark.parametrize("size", [1, 3, 4, 7, 64])
def test_checked_masks_do_not_depend_on_batches(size):
    blocks = [is_checked(start, min(start + size, 500), 0.05) for start in range(0, 500, size)]
    assert np.concatenate(blocks).tolist() == is_checked(0, 500, 0.05).tolist()


# ------------------------------------------------------------------ fidelity


def test_fidelity_is_that_of_the_scores_themselves():
    rng = np.random.default_rng(0)
    exact = rng.exponential(size=(500, 3))
    cheap = 0.9 * exact + rng.normal(scale=[0.01, 0.1, 0.5], size=exact.shape)
    close = Fidelity.of_moments(moments_of(cheap, exact).sum(axis=0))
    assert close.n_masks == 500
    expected = [np.corrcoef(a, b)[0, 1] for a, b in zip(cheap.T, exact.T, strict=True)]
    np.testing.assert_allclose(close.correlation, expected)
    np.testing.assert_allclose(close.bias, cheap.mean(axis=0) / exact.mean(axis=0) - 1)
    assert close.mean_bias == pytest.approx(cheap.mean() / exact.mean() - 1)
    unexplained = (exact - cheap).var(axis=0) / exact.var(axis=0)
    np.testing.assert_allclose(close.unexplained, unexplained)
    assert close.noise(0.05) == pytest.approx(unexplained.mean() / 0.05)
    assert close.worst_correlation == pytest.approx(min(expected))


def test_a_wrong_scale_is_seen_although_it_correlates():
    exact = np.random.default_rng(0).exponential(size=(100, 1))
    close = Fidelity.of_moments(moments_of(0.5 * exact, exact).sum(axis=0))
    assert close.mean_correlation == pytest.approx(1)
    assert close.mean_bias == pytest.approx(-0.5)
    assert close.unexplained[0] == pytest.approx(0.25)


def test_rows_that_do_not_vary_are_no_reason_for_exact_scores():
    constant = np.full((50, 1), 0.3)
    close = Fidelity.of_moments(moments_of(constant, constant).sum(axis=0))
    assert math.isnan(close.mean_correlation)
    assert close.noise(0.1) == 0
    varying = constant + np.random.default_rng(0).normal(scale=0.01, size=constant.shape)
    close = Fidelity.of_moments(moments_of(varying, constant).sum(axis=0))
    assert close.noise(0.1) == math.inf


def test_cheap_scores_that_do_not_vary_explain_nothing():
    exact = np.random.default_rng(0).exponential(size=(50, 1))
    close = Fidelity.of_moments(moments_of(np.full_like(exact, 0.3), exact).sum(axis=0))
    assert close.worst_correlation == 0
    assert close.unexplained[0] == pytest.approx(1)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_not_close(value):
    exact = np.random.default_rng(0).exponential(size=(50, 2))
    cheap = exact.copy()
    cheap[0, 0] = value
    assert Fidelity.of_moments(moments_of(cheap, exact).sum(axis=0)).noise(0.1) == math.inf


def test_an_input_that_no_mask_changes_has_a_fidelity_that_can_be_stored():
    nothing = np.zeros((50, 2))
    close = Fidelity.of_moments(moments_of(nothing + 1e-7, nothing).sum(axis=0))
    assert math.isnan(close.mean_bias)
    assert math.isnan(close.worst_bias)
    statistics = Statistics.zeros(np.zeros((1, 2, 1), np.int32), 2, 1, 2)
    moments = moments_of(nothing + 1e-7, nothing).sum(axis=0)
    statistics.begin_checks(share=0.1, cheap_pass=0, p=0.5, pilot_moments=moments)
    facts = checks.facts(statistics)
    assert facts["encoder"] == "cheap"
    assert facts["score_bias_percent"] is None
    json.dumps(facts, allow_nan=False)


# ------------------------------------------------------------------ the decision


def test_without_a_cheap_pass_all_masks_are_exact_and_the_log_says_so(caplog):
    caplog.set_level(logging.INFO)
    found = run(WordModel())
    exact = run(WordModel(), replace(DESIGN, encoder="exact"))
    assert "SMX u1: scored by the exact encoder; the model has no cheaper one" in caplog.text
    np.testing.assert_array_equal(heatmap(found), heatmap(exact))
    assert checks.facts(found)["encoder"] == "exact"
    assert not checks.facts(exact)


def test_a_cheap_pass_that_is_far_off_is_not_used(caplog):
    found = run(HardOfHearing())
    np.testing.assert_array_equal(
        heatmap(found), heatmap(run(WordModel(), replace(DESIGN, encoder="exact")))
    )
    assert "cheap scores are not close enough" in caplog.text
    assert "24 pilot masks" in caplog.text


def test_a_cheap_pass_that_is_close_scores_all_but_the_pilot_and_the_checks():
    model = HardOfHearing(error=0.005)
    found = run(model)
    assert checks.facts(found)["encoder"] == "cheap"
    assert model.n_learnt_from == [8]
    assert model.calls["cheap"] == 24 + 400
    # The unperturbed input, 24 of the pilot, and a tenth.
    assert model.calls["encode"] - model.calls["cheap"] == 1 + 24 + 40
    assert found.check_moments[:, 0].sum(axis=0)[0, 0] == 40


def test_a_pass_that_is_not_needed_is_not_run():
    class TwoPasses(HardOfHearing):
        def cheap_passes(self, perturbed, padding_value):
            def costly(*_):
                raise AssertionError("the first pass is close enough")

            (first,) = super().cheap_passes(perturbed, padding_value)
            return [first, CheapPass(costly, "more of it, for longer")]

    model = TwoPasses(error=0.002)
    assert run(model).cheap_pass == 0
    assert model.calls["cheap"] == 24 + 400


def test_auto_takes_the_smallest_share_that_adds_little_noise():
    def share(error):
        return float(run(HardOfHearing(error), replace(DESIGN, check="auto")).check_share)

    # Noise of 0.1 %, under 0.1 with a share of 0.05, with 0.1, under 0.25 with it, and more.
    assert [share(error) for error in (0.002, 0.02, 0.04, 0.05, 0.1)] == [0.02, 0.05, 0.1, 0.1, 0]


def test_the_pilot_is_no_part_of_the_masks(any_noise):
    found = run(HardOfHearing())
    assert found.total_masks == 400
    assert found.pilot_moments[0].tolist() == [24] * 3
    # Scores of checked masks are those of the exact pass.
    moments = found.check_moments.sum(axis=(0, 2))
    exact = run(WordModel(), replace(DESIGN, encoder="exact"))
    assert moments[2].sum() != pytest.approx(moments[1].sum(), rel=0.01)
    np.testing.assert_allclose(moments[2] / 40, exact.score_sum.sum(axis=(0, 1)) / 400, rtol=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder": "fast"}, "'encoder' must be auto or exact, not fast."),
        ({"check": 0}, "'check' must be auto or more than 0 and at most 1: 0."),
        ({"check": 1.5}, "'check' must be auto or more than 0 and at most 1: 1.5."),
    ],
)
def test_designs_that_cannot_be(changes, message):
    with pytest.raises(UserError, match=message.replace(".", r"\.")):
        replace(DESIGN, **changes)


# ------------------------------------------------------------------ bits


@pytest.mark.parametrize("batch_size", [1, 7, 16, 400])
def test_batches_do_not_change_the_map(any_noise, batch_size):
    found, expected = run(HardOfHearing(), batch_size=batch_size), run(HardOfHearing())
    np.testing.assert_allclose(heatmap(found), heatmap(expected), atol=1e-9)
    assert found.difference_count.tolist() == expected.difference_count.tolist()


def test_more_masks_extend_a_result_bit_for_bit(any_noise):
    grown = run(HardOfHearing(), replace(DESIGN, n_masks=128))
    grown = run(HardOfHearing(), statistics=grown)
    assert as_bytes(grown) == as_bytes(run(HardOfHearing()))


def test_a_run_that_was_stopped_anywhere_ends_with_the_same_bits(any_noise):
    expected = as_bytes(run(HardOfHearing()))
    stored = []

    def keep(n_new, current):
        arrays = current().arrays()
        stored.append(Statistics.from_mapping({name: a.copy() for name, a in arrays.items()}))

    run(HardOfHearing(), on_batch=keep)
    assert len(stored) == 7
    for statistics in stored:
        model, n_missing = HardOfHearing(), 400 - statistics.total_masks
        assert as_bytes(run(model, statistics=statistics)) == expected
        # The pilot's decision is not made again.
        assert model.calls["cheap"] == n_missing


def test_the_decision_is_never_revised(any_noise, monkeypatch):
    begun = run(HardOfHearing(), replace(DESIGN, n_masks=64))
    monkeypatch.setattr(checks, "MOST_NOISE", 0.0)
    grown = run(HardOfHearing(), statistics=begun)
    assert checks.facts(grown)["encoder"] == "cheap"
    begun = run(HardOfHearing(), replace(DESIGN, n_masks=64))
    monkeypatch.setattr(checks, "MOST_NOISE", math.inf)
    grown = run(HardOfHearing(), statistics=begun)
    assert checks.facts(grown)["encoder"] == "exact"


@pytest.mark.parametrize("begun", ["auto", "exact"])
def test_later_masks_are_scored_as_the_first_ones(any_noise, begun):
    other = {"auto": "exact", "exact": "auto"}[begun]
    whole = run(HardOfHearing(), replace(DESIGN, encoder=begun))
    first = run(HardOfHearing(), replace(DESIGN, encoder=begun, n_masks=128))
    grown = run(HardOfHearing(), replace(DESIGN, encoder=other), statistics=first)
    assert as_bytes(grown) == as_bytes(whole)


def test_memory_that_runs_out_adds_nothing_twice(any_noise):
    class Small(HardOfHearing):
        def encode(self, features, padding_value):
            if len(features) > 9:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().encode(features, padding_value)

    np.testing.assert_allclose(
        heatmap(run(Small(), batch_size=64)), heatmap(run(HardOfHearing())), atol=1e-9
    )


class Raising(HardOfHearing):
    """Runs out of memory where its cheap pass is first run, as where that learns only then."""

    def cheap_passes(self, perturbed, padding_value):
        def logits(features, prompt, tokens, occluded_tokens=None):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return [replace(one, logits=logits) for one in super().cheap_passes(perturbed, 0)]


class Overflowing(HardOfHearing):
    """Its cheap pass is not finite, as in half precision."""

    def cheap_passes(self, perturbed, padding_value):
        def logits(features, prompt, tokens, occluded_tokens=None):
            return torch.full((len(features), len(tokens), len(WORDS) + 1), math.nan)

        return [replace(one, logits=logits) for one in super().cheap_passes(perturbed, 0)]


@pytest.mark.parametrize("model", [Raising(), Overflowing()])
def test_a_cheap_pass_that_fails_leaves_all_masks_exact(model):
    found = run(model)
    exact = run(WordModel(), replace(DESIGN, encoder="exact"))
    np.testing.assert_array_equal(heatmap(found), heatmap(exact))
    assert checks.facts(found)["encoder"] == "exact"
    assert all(np.isfinite(array).all() for array in found.arrays().values())


def test_without_memory_for_a_cheap_pass_all_masks_are_exact(caplog):
    class Full(HardOfHearing):
        def cheap_passes(self, perturbed, padding_value):
            raise torch.OutOfMemoryError("CUDA out of memory")

    class Broken(HardOfHearing):
        def cheap_passes(self, perturbed, padding_value):
            raise RuntimeError("sizes do not match")

    assert checks.facts(run(Full()))["encoder"] == "exact"
    assert "memory does not hold what the cheaper one learns from" in caplog.text
    with pytest.raises(RuntimeError, match="sizes do not match"):
        run(Broken())


# ------------------------------------------------------------------ what the correction does


def truth(masks):
    """Return the expected score of the masks that occlude each segment, by enumeration [S, I]."""
    model, said = WordModel(), heard()
    reference = said.logits(model, said.inputs(model.device))[0]
    values = torch.from_numpy(said.features.mean(axis=0, dtype=np.float64).astype(np.float32))
    labels = torch.from_numpy(masks.labels[0]).long()
    occluded = torch.tensor(list(product([False, True], repeat=masks.plan.sizes[0])))
    inputs = torch.where(occluded[:, labels], values, torch.from_numpy(said.features))
    scores = kl_divergence(reference, said.logits(model, inputs)).numpy()
    indicators = occluded.numpy().astype(float)
    return indicators.T @ scores / indicators.sum(axis=0)[:, None]


def masks_of(design):
    return INPUT.masks(heard(), design, utterance="u1", subsampling=2, time_only=False)


def test_the_corrected_map_is_unbiased_whatever_the_cheap_pass_does(any_noise):
    expected = truth(masks_of(DESIGN))
    corrected, cheap = [], []
    for seed in range(200):
        found = run(HardOfHearing(), replace(DESIGN, seed=seed), batch_size=400)
        count = found.occluded_count.sum(axis=0)[:, None]
        cheap.append(found.occluded_sum.sum(axis=0) / count - expected)
        corrected.append(cheap[-1] + correction(found, range(4)).T)
        assert checks.is_unbiased(found)

    def off(errors):
        """Return how many standard errors the mean is off, for rows that depend on the input."""
        errors = np.array(errors)[:, :, : len(SAID)]
        return errors.mean(axis=0) / (errors.std(axis=0) / math.sqrt(len(errors)))

    assert np.abs(off(cheap)).max() > 10
    assert np.sqrt(np.square(off(cheap)).mean()) > 10
    assert np.sqrt(np.square(off(corrected)).mean()) < 1.3  # 1 is expected
    assert np.abs(off(corrected)).max() < 3.7  # of 2 S values


def test_half_maps_are_corrected_by_their_own_checks(any_noise):
    found = run(HardOfHearing())
    first, second = HALVES[0]
    of_halves = [correction(found, half) for half in (first, second)]
    assert not np.allclose(*of_halves)
    counts = [found.difference_count[list(half)].sum(axis=0) for half in (first, second)]
    sums = [correction(found, half) * n for half, n in zip((first, second), counts, strict=True)]
    total = correction(found, range(4)) * sum(counts)
    np.testing.assert_allclose(sum(sums), total, atol=1e-9)


@pytest.mark.parametrize(("n_masks", "own"), [(800, True), (600, False)])
@pytest.mark.parametrize("folds", [(0, 1, 2, 3), (0, 3)])
def test_segmentations_are_pooled_after_their_own_correction(any_noise, n_masks, own, folds):
    """The formula of docs/definitions.md, from the scores of every mask."""
    design = replace(DESIGN, n_segments=(300, 150), n_masks=n_masks)
    model, masks = HardOfHearing(), masks_of(design)
    found = run(model, design)
    assert checks.is_unbiased(found) == own
    perturbed = PerturbedInput(model, heard(), masks, design.occluded_value)
    (cheap_score,) = perturbed.cheap_scores(torch.zeros(8, *heard().features.shape))
    total, count = 0.0, 0.0
    for k, n in enumerate(masks.plan.n_masks):
        indicators = torch.from_numpy(masks.plan.draw(k, 0, n))
        cheap, exact = (
            score(indicators, k).double().numpy() for score in (cheap_score.score, perturbed.score)
        )  # (n, I)
        used = np.isin(np.arange(n) % 4, folds)
        occluded = indicators.numpy()
        checked = used & is_checked(0, n, 0.1)
        for s in range(masks.plan.sizes[k]):
            of_mean = used & occluded[:, s]
            of_check = checked & occluded[:, s] if own else checked
            saliency = of_mean.sum() * (exact - cheap)[of_check].mean(axis=0)
            saliency += cheap[of_mean].sum(axis=0)  # (I)
            cells = masks.labels[k] == s  # (T, F)
            total = total + saliency[:, None, None] * cells
            count = count + of_mean.sum() * cells
    np.testing.assert_allclose(heatmap(found, folds), total / count, atol=1e-6)


def test_pilot_masks_have_a_key_of_their_own(any_noise):
    class Listening(HardOfHearing):
        def cheap_passes(self, perturbed, padding_value):
            seen.append(perturbed)
            return super().cheap_passes(perturbed, padding_value)

    seen = []
    for n_masks in (64, 400):
        run(Listening(), replace(DESIGN, n_masks=n_masks))
    assert torch.equal(*seen)  # they do not depend on how many masks follow
    masks = masks_of(DESIGN)
    occluded = torch.from_numpy(masks.plan.draw(0, 0, 8))
    inputs = PerturbedInput(WordModel(), heard(), masks, DESIGN.occluded_value).inputs(occluded, 0)
    assert not torch.equal(seen[0], inputs)


def test_few_checks_correct_the_segmentation_as_a_whole_and_the_map_is_marked(any_noise):
    found = run(HardOfHearing(), replace(DESIGN, n_masks=300))  # 28 checks: 7 of a half
    assert not checks.is_unbiased(found)
    assert not checks.facts(found)["unbiased"]
    by_segment = correction(found, range(4))
    np.testing.assert_allclose(by_segment, np.broadcast_to(by_segment[:, :1], by_segment.shape))
    moments = found.check_moments.sum(axis=(0, 2))
    np.testing.assert_allclose(by_segment[:, 0], (moments[2] - moments[1]) / moments[0])


def test_the_loglinear_map_is_corrected_as_well(any_noise):
    from s2txai.saliency.loglinear import prepare

    design = replace(DESIGN, n_masks=4000, estimator="loglinear")
    plan = masks_of(design).plan
    cheap, exact = run(HardOfHearing(), design), run(WordModel(), replace(design, encoder="exact"))
    maps = [prepare(found, plan)(range(4))[: len(SAID)] for found in (cheap, exact)]
    uncorrected = replace(cheap, check_share=None)
    without = prepare(uncorrected, plan)(range(4))[: len(SAID)]
    assert np.abs(maps[0] - maps[1]).mean() < 0.3 * np.abs(without - maps[1]).mean()


def test_maps_of_preceding_tokens_are_corrected_by_row():
    statistics = Statistics.zeros(np.zeros((1, 2, 1), np.int32), 2, 1, 2, tokens=True)
    statistics.token_sum[:] = [[6.0, 0], [3, 0]]
    statistics.token_count[:] = [3, 0]
    statistics.begin_checks(share=0.1, cheap_pass=0, p=0.5, pilot_moments=np.zeros((6, 2)))
    statistics.check_moments[0, :3, 0] = [[2, 2], [1, 1], [2, 0]]  # masks, cheap, exact
    # exact - cheap is 0.5 in the first row, -0.5 in the second; no mask occludes the second token.
    assert token_heatmap(statistics)[:, :, 0].tolist() == [[2.5, 0], [0.5, 0]]
    statistics.check_share[...] = 0
    assert token_heatmap(statistics)[:, :, 0].tolist() == [[2, 0], [1, 0]]


def test_old_results_without_checks_are_as_they_were():
    exact = run(WordModel(), replace(DESIGN, encoder="exact"))
    assert not {"check_share", "difference_sum"} & exact.arrays().keys()
    assert correction(exact, range(4)) == 0
    assert checks.is_unbiased(exact)
