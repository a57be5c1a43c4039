import numpy as np
import pytest
import torch
from scipy.stats import pearsonr

from s2txai.saliency.correlation import correlation
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.pooling import pool
from s2txai.saliency.reliability import ceiling, half_correlation, spearman_brown, split_half
from s2txai.saliency.statistics import Statistics, heatmap
from tests.engine import add_masks

T, F, R, STEPS, ROWS, P = 40, 3, 2, 20, 10, 0.5


def simulated(seed, n_masks, replicate=0):
    """Return statistics of scores that are linear in the masks plus noise, and the true map.

    Replicates have one truth, but masks and noise of their own.
    """
    rng = np.random.default_rng(seed)
    # Two segmentations: every frame a segment; every two frames, shifted by one, with the lowest
    # bin apart.
    frames = np.broadcast_to(np.arange(T)[:, None], (T, F))
    pairs = (frames + 1) // 2 * 2 + (np.arange(F) > 0) + T
    segments = np.stack([frames, pairs]).astype(np.int32)
    sizes = (T, T + 2)
    weights = [torch.from_numpy(rng.gamma(0.3, size=(ROWS, size))) for size in sizes]
    noise = torch.Generator().manual_seed(1000 * replicate + seed)

    def score(occluded, k):
        clean = occluded.double() @ weights[k].T  # (N, I)
        return clean + 2 * torch.randn(clean.shape, generator=noise, dtype=torch.float64)

    statistics = Statistics.zeros(segments, ROWS, R, STEPS)
    plan = MaskPlan(seed, f"u{replicate}", ("a", "b"), sizes, (n_masks, n_masks), P)
    add_masks(statistics, score, plan, batch_size=64)
    # E[score | s hidden] = w_s + p times the sum of the others.
    expected = [(w + P * (w.sum(1, keepdim=True) - w)).numpy() for w in weights]
    truth = (expected[0][:, segments[0]] + expected[1][:, segments[1] - T]) / 2
    return statistics, pool(truth, "avg2d", R, STEPS)


@pytest.mark.parametrize("n_masks", [128, 512])
def test_reliability_is_the_squared_correlation_with_the_truth(n_masks):
    predicted, real = [], []
    for seed in range(8):
        statistics, truth = simulated(seed, n_masks)
        predicted.append(split_half(statistics, "avg2d"))
        measured = pool(heatmap(statistics), "avg2d", R, STEPS)
        real.append(correlation(measured, truth).value ** 2)
    assert 0.2 < np.mean(real) < 0.95
    assert np.mean(predicted) == pytest.approx(np.mean(real), abs=0.05)


@pytest.mark.parametrize("n_masks", [128, 512])
@pytest.mark.parametrize("pooling", ["avg2d", "max_freq_avg_time", "max2d"])
def test_reliability_is_the_correlation_of_two_maps_from_as_many_masks(pooling, n_masks):
    predicted, real = [], []
    for seed in range(12):
        pair = [simulated(seed, n_masks, replicate)[0] for replicate in (0, 1)]
        predicted += [split_half(statistics, pooling) for statistics in pair]
        maps = [pool(heatmap(statistics), pooling, R, STEPS) for statistics in pair]
        real.append(correlation(*maps).value)
    assert 0.2 < np.mean(real) < 0.95
    assert np.mean(predicted) == pytest.approx(np.mean(real), abs=0.05)


def test_more_masks_are_more_reliable():
    few, many = (split_half(simulated(0, n)[0], "avg2d") for n in (64, 1024))
    assert few + 0.2 < many < 1


def test_half_correlation_is_the_mean_over_the_splits():
    halves = np.random.default_rng(0).random((3, 2, 4, 9))
    rows = [pearsonr(x, y)[0] for a, b in halves for x, y in zip(a, b, strict=True)]
    assert half_correlation(halves) == pytest.approx(np.mean(rows))
    flat = pearsonr(halves[0, 0].ravel(), halves[0, 1].ravel())[0]
    assert half_correlation(halves[:1], normalise="none") == pytest.approx(flat)


@pytest.mark.parametrize(("half", "whole"), [(1, 1), (0.5, 2 / 3), (0, 0), (-0.2, 0), (-1, 0)])
def test_spearman_brown(half, whole):
    assert spearman_brown(half) == pytest.approx(whole)


def test_what_could_not_be_measured_has_no_reliability():
    assert np.isnan(spearman_brown(float("nan")))
    assert np.isnan(ceiling(float("nan")))
    assert np.isnan(half_correlation(np.ones((3, 2, 4, 9))))


def test_ceiling():
    assert ceiling(0.81) == pytest.approx(0.9)
    assert ceiling(0.81, 0.49) == pytest.approx(0.63)
