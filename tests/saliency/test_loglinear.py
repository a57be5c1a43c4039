"""The log-linear estimator on scores whose mean under occlusion is known."""

import numpy as np
import pytest
import torch

from s2txai.errors import UserError
from s2txai.saliency import loglinear
from s2txai.saliency.loglinear import prepare
from s2txai.saliency.masks import N_FOLDS, MaskPlan
from s2txai.saliency.statistics import Statistics, heatmap
from s2txai.steps.shard import maps_of
from tests.engine import add_masks
from tests.studies import Study, write_corpus
from tests.toy import WordModel

ROWS = 5


def planted(n_masks, *, sizes=(30,), noise=0.0, seed=0, p=0.5):
    """Return statistics of multiplicative scores, their plan, and the true maps [K, S_k, I].

    The truth is the mean score of the masks that occlude a segment, over all masks there are.
    """
    rng = np.random.default_rng(seed)
    slopes = [rng.gamma(0.5, 0.6, size=(size, ROWS)) for size in sizes]
    random = torch.Generator().manual_seed(seed)
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    frames = max(sizes)
    segments = np.stack(
        [
            np.minimum(np.arange(frames), size - 1) + at
            for size, at in zip(sizes, starts, strict=True)
        ]
    ).astype(np.int32)[:, :, None]
    statistics = Statistics.zeros(segments, ROWS, 1, frames, logarithms=True)
    plan = MaskPlan(seed, "u", tuple("abc"[: len(sizes)]), tuple(sizes), (n_masks,) * len(sizes), p)

    def score(occluded, k):
        log = -4 + occluded.double() @ torch.from_numpy(slopes[k])
        return (log + noise * torch.randn(log.shape, generator=random, dtype=torch.float64)).exp()

    add_masks(statistics, score, plan, batch_size=64)
    truth = []
    for b in slopes:
        factors = p * np.exp(b) + 1 - p  # of a segment that may be occluded or not
        mean = np.exp(-4 + noise**2 / 2) * factors.prod(axis=0)
        truth.append(mean * np.exp(b) / factors)
    return statistics, plan, truth


def agreement(found, expected):
    """Return the mean over rows of the correlation of maps [I, S]."""
    return np.mean([np.corrcoef(a, b)[0, 1] for a, b in zip(found, expected, strict=True)])


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_multiplicative_scores_are_recovered(p):
    statistics, plan, (truth,) = planted(2000, p=p)
    found = prepare(statistics, plan)()[:, :, 0]
    # Of the mean of all scores only the sampling error of 2,000 masks is left.
    ratio = found / truth.T
    np.testing.assert_allclose(ratio, ratio.mean(axis=1, keepdims=True).repeat(30, 1), rtol=1e-3)
    np.testing.assert_allclose(ratio.mean(axis=1), 1, atol=0.15)


def test_it_estimates_what_the_mean_estimates():
    statistics, plan, (truth,) = planted(60_000, noise=0.2)
    np.testing.assert_allclose(prepare(statistics, plan)()[:, :, 0], truth.T, rtol=0.05)
    np.testing.assert_allclose(heatmap(statistics)[:, :, 0], truth.T, rtol=0.05)


@pytest.mark.parametrize("n_masks", [40, 120, 400])
def test_it_needs_fewer_masks(n_masks):
    gain = []
    for seed in range(4):
        statistics, plan, (truth,) = planted(n_masks, sizes=(80,), noise=0.4, seed=seed)
        loglin = agreement(prepare(statistics, plan)()[:, :, 0], truth.T)
        gain.append(loglin - agreement(heatmap(statistics)[:, :, 0], truth.T))
    assert np.mean(gain) > 0.05


def test_segmentations_are_pooled_by_their_masks():
    statistics, plan, truth = planted(20_000, sizes=(20, 9))
    found = prepare(statistics, plan)()[:, :, 0]
    ids = [np.minimum(np.arange(20), size - 1) for size in (20, 9)]
    expected = (truth[0][ids[0]] + truth[1][ids[1]]).T / 2
    np.testing.assert_allclose(found, expected, rtol=0.1)
    assert agreement(found, expected) > 0.99


def test_a_half_map_uses_its_own_masks_only(monkeypatch):
    # But for the penalty, one number that all masks choose together.
    monkeypatch.setattr(loglinear, "_penalty", lambda *_: 3.0)
    statistics, plan, _ = planted(400, noise=0.5)
    make = prepare(statistics, plan)
    before, others = make((0, 1)), make((2, 3))
    for name in ("occluded_sum", "score_sum", "occluded_log_sum", "log_sum", "log_square_sum"):
        sums = getattr(statistics, name)
        sums[2:] = sums[2:, :, ::-1].copy()
    make = prepare(statistics, plan)
    np.testing.assert_array_equal(make((0, 1)), before)
    np.testing.assert_allclose(make((2, 3)), others[::-1], rtol=1e-9)
    assert not np.allclose(before, others)


def test_the_gram_matrix_is_that_of_the_masks(monkeypatch):
    statistics, plan, _ = planted(101)
    monkeypatch.setattr(loglinear, "_BLOCK", 7)
    moments = loglinear._moments(statistics, plan, 0, slice(0, 30))
    occluded = plan.draw(0, 0, 101).astype(float)
    for fold in range(N_FOLDS):
        own = occluded[fold::N_FOLDS]
        np.testing.assert_array_equal(moments[fold].xx, own.T @ own)
        np.testing.assert_array_equal(np.diag(moments[fold].xx), moments[fold].x)
        assert moments[fold].n == len(own)


@pytest.mark.parametrize("n_masks", [4, 8, 20])
def test_few_masks_give_finite_maps(n_masks):
    statistics, plan, _ = planted(n_masks, sizes=(200, 1), noise=1.0)
    make = prepare(statistics, plan)
    for folds in (range(4), (0, 1), (1, 3)):
        found = make(folds)
        assert np.isfinite(found).all()
        assert (found >= 0).all()
        mean = statistics.score_sum[list(folds)].sum() / statistics.n_masks[list(folds)].sum()
        assert found.max() < 100 * mean


def test_rows_that_nothing_moves_stay_even():
    statistics, plan, _ = planted(200)
    statistics.occluded_sum[:, :, 2] = statistics.score_sum[:, :, 2] = 0
    statistics.occluded_log_sum[:, :, 2] = statistics.occluded_count * np.log(1e-8)
    statistics.log_sum[:, :, 2] = statistics.n_masks * np.log(1e-8)
    statistics.log_square_sum[:, :, 2] = statistics.n_masks * np.log(1e-8) ** 2
    found = prepare(statistics, plan)()
    np.testing.assert_allclose(found[2], 0, atol=1e-12)
    assert np.ptp(found[1]) > 0


def test_sums_of_logarithms_are_needed():
    statistics, plan, _ = planted(40)
    statistics.occluded_log_sum = None
    with pytest.raises(UserError, match="run the saliency step again with 'estimator: loglinear'"):
        prepare(statistics, plan)


def test_through_the_steps(tmp_path):
    study = Study(tmp_path, write_corpus(tmp_path), WordModel())
    study.decode()
    study.attention()
    # Levels that collapse into one segmentation: its masks are those of both.
    study.smx(estimator="loglinear", n_segments=(400, 401))
    study.smh(estimator="loglinear")
    for step, n_names in (("smx", 1), ("smh", 1)):
        for artifact in study.read(step):
            assert len(artifact.meta["masks"]["segmentations"]) == n_names
            make, mean = maps_of(artifact, "loglinear"), maps_of(artifact, "mean")
            size = int(artifact["segments"].max()) + 1
            occluded = make_plan(artifact).draw(0, 0, 600)
            counts = np.array([occluded[f::4].sum(axis=0) for f in range(4)])
            np.testing.assert_array_equal(counts, artifact["occluded_count"][:, :size])
            found, expected = make(range(4)), mean(range(4))
            assert found.shape == expected.shape
            words = slice(0, -1)  # nothing moves the end of the sentence
            rows = [cells.reshape(len(cells), -1)[words] for cells in (found, expected)]
            assert agreement(*rows) > 0.8


def make_plan(artifact):
    """Return the masks that an artefact says it is made of."""
    parameters, masks = artifact.meta["parameters"], artifact.meta["masks"]
    sizes = tuple(len(np.unique(segments)) for segments in artifact["segments"])
    n_masks = tuple(artifact["n_masks"].sum(axis=0).tolist())
    return MaskPlan(
        parameters["seed"], artifact.meta["utterance"], tuple(masks["segmentations"]), sizes,
        n_masks, parameters["p"],
    )  # fmt: skip
