"""Confidence intervals hold what they promise; tests of differences know chance."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from s2txai.analysis.intervals import (
    holm,
    interval,
    paired_p_value,
    resampled_means,
    resampled_row_means,
    resamples,
)


def test_resamples_are_draws_with_replacement():
    counts = resamples(7, seed=0)
    assert counts.shape == (2000, 7)
    assert (counts.sum(axis=1) == 7).all()
    # Poisson-like: an utterance is left out of a share (1 - 1/7)^7 of the resamples.
    assert (counts == 0).mean() == pytest.approx((6 / 7) ** 7, abs=0.02)
    np.testing.assert_array_equal(counts, resamples(7, seed=0))
    assert (counts != resamples(7, seed=1)).any()


def test_means_of_resamples_leave_out_what_is_not_there():
    values = np.array([[1.0, np.nan, 4.0], [2.0, 2.0, 2.0]])
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
    expected = [[2.5, np.nan, 2.0], [2.0, 2.0, 2.0]]
    np.testing.assert_allclose(resampled_means(values, counts), expected)


def test_interval_agrees_with_scipy_for_many_utterances():
    values = np.random.default_rng(0).gamma(2.0, size=400)
    low, high = interval(resampled_means(values, resamples(400, seed=0)), 400)
    found = bootstrap((values,), np.mean, rng=np.random.default_rng(1)).confidence_interval
    assert low == pytest.approx(found.low, abs=0.02)
    assert high == pytest.approx(found.high, abs=0.02)


def coverage(n, n_studies=1500, n_resamples=500):
    """Return how often intervals hold the truth, for values like correlations of utterances."""
    rng = np.random.default_rng(n)
    # Around 0.5 with a spread of 0.1 between utterances, skewed to the left as correlations are.
    values = np.tanh(rng.normal(0.55, 0.13, size=(n_studies, n)))
    truth = np.tanh(np.random.default_rng(0).normal(0.55, 0.13, size=2_000_000)).mean()
    hits = 0
    for number, one in enumerate(values):
        counts = resamples(n, seed=number, n_resamples=n_resamples)
        low, high = interval(resampled_means(one, counts), n)
        hits += low <= truth <= high
    return hits / n_studies


def test_coverage_at_fifty_utterances():
    assert coverage(50) == pytest.approx(0.95, abs=0.02)


def row_coverage(n, between, n_studies=1000, n_resamples=500):
    """Return how often intervals of means over rows hold the truth.

    Utterances of 3 to 40 rows; ``between`` is the spread of their levels, 0.3 that of the rows of
    one (before tanh).
    """
    rng = np.random.default_rng(n)
    spread = np.hypot(between, 0.3)
    truth = np.tanh(np.random.default_rng(0).normal(0.55, spread, size=2_000_000)).mean()
    hits = 0
    for number in range(n_studies):
        rows = [
            np.tanh(rng.normal(0.55, between) + rng.normal(0, 0.3, size=n_rows))
            for n_rows in rng.integers(3, 41, size=n)
        ]
        counts = resamples(n, seed=number, n_resamples=n_resamples)
        low, high = interval(resampled_row_means(rows, counts), n)
        hits += low <= truth <= high
    return hits / n_studies


@pytest.mark.parametrize("between", [0, 0.13])
def test_coverage_over_rows_at_fifty_utterances(between):
    assert row_coverage(50, between) == pytest.approx(0.95, abs=0.02)


def test_rows_of_one_utterance_are_no_independent_evidence():
    """Utterances that differ: an interval over rows alone would be far too narrow."""
    rng = np.random.default_rng(0)
    level = rng.normal(0.5, 0.2, size=30)
    rows = [rng.normal(mean, 0.05, size=20) for mean in level]
    counts = resamples(30, seed=0)
    low, high = interval(resampled_row_means(rows, counts), 30)
    assert (high - low) / 2 == pytest.approx(2.05 * 0.2 / np.sqrt(30), rel=0.25)


def test_scatter_of_rows_counts_once():
    """Utterances that are alike: the interval is that of all rows together, and no wider."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(0.5, 0.2, size=20) for _ in range(30)]
    found = resampled_row_means(rows, resamples(30, seed=0))
    assert found.std() == pytest.approx(0.2 / np.sqrt(600), rel=0.2)
    assert found.mean() == pytest.approx(np.concatenate(rows).mean(), abs=0.002)


def test_means_of_rows_are_those_of_the_drawn_rows():
    """Two quantities of the same rows side by side, one without a value in one row."""
    rows = [np.array([[1.0, 8.0], [3.0, np.nan]]), np.zeros((0, 2)), np.array([[5.0, 2.0]])]
    counts = np.array([[1.0, 1.0, 1.0], [0.0, 3.0, 0.0], [2.0, 0.0, 1.0]])
    expected = [[3, 5], [np.nan, np.nan], [13 / 5, 6]]
    np.testing.assert_allclose(resampled_row_means(rows, counts), expected)


def test_an_utterance_without_rows_is_no_row_of_zero():
    found = resampled_row_means([np.array([1.0, 1.0]), np.array([])], resamples(2, seed=0))
    assert set(np.unique(found[np.isfinite(found)])) == {1.0}
    assert np.isnan(found).mean() == pytest.approx(0.25, abs=0.05)


def test_one_utterance_has_no_interval():
    low, high = interval(resampled_means(np.array([0.5]), resamples(1, seed=0)), 1)
    assert np.isnan([low, high]).all()


def test_interval_is_wider_for_fewer():
    values = np.random.default_rng(0).normal(size=(40, 5))
    counts = resamples(5, seed=0)
    means = resampled_means(values, counts)
    low, high = interval(means, 5)
    plain_low, plain_high = np.quantile(means, [0.025, 0.975], axis=1)
    assert (high - low > plain_high - plain_low).all()


def test_p_value_is_that_of_all_signs():
    # All of 2^4 signs: only all alike are as far from 0.
    assert paired_p_value([1.0, 2.0, 1.5, 3.0], seed=0) == pytest.approx(2 / 16)
    assert paired_p_value([1.0, -1.0, np.nan], seed=0) == 1.0
    assert np.isnan(paired_p_value([1.0], seed=0))


def test_p_values_are_uniform_by_chance():
    rng = np.random.default_rng(0)
    found = [paired_p_value(rng.normal(size=8), seed=0) for _ in range(400)]
    assert np.mean(np.array(found) <= 0.1) == pytest.approx(0.1, abs=0.04)


def test_holm():
    adjusted = holm([0.01, 0.04, np.nan, 0.03, 0.005])
    np.testing.assert_allclose(adjusted, [0.03, 0.06, np.nan, 0.06, 0.02])
    np.testing.assert_allclose(holm([0.6, 0.9]), [1.0, 1.0])
