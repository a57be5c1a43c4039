"""Segments, masks, scores, heatmaps and normalisers against published values."""

from pathlib import Path

import numpy as np
import pytest

from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.normalise import paired_min_max, single_mean_std
from s2txai.saliency.scores import kl_divergence
from s2txai.saliency.segments import requested_segments, segmentations, slic_segments
from s2txai.saliency.statistics import Statistics, heatmap, token_heatmap

DATA = Path(__file__).parent / "data"
LEVELS = (2000, 2500, 3000)


def read(name):
    with np.load(DATA / name, allow_pickle=False) as archive:
        return dict(archive)


@pytest.fixture(scope="module")
def small():
    return read("spes_small.npz")


@pytest.fixture(scope="module")
def tiny():
    return read("spes_e2e_tiny_1.npz")


def statistics_of(segments, level_of_mask, keep, scores):
    """Sum golden masks (1 = kept, given by cell) into statistics, by segment and fold."""
    statistics = Statistics.zeros(segments, scores.shape[1], subsampling=4, n_steps=25)
    for m, (cells, score) in enumerate(zip(keep, scores, strict=True)):
        k, fold = level_of_mask[m], m % N_FOLDS
        occluded = np.unique(segments[k][cells == 0])
        np.testing.assert_array_equal(np.isin(segments[k], occluded), cells == 0)
        statistics.occluded_sum[fold, occluded] += score
        statistics.occluded_count[fold, occluded] += 1
    return statistics


def merged_level(segmented, mask_level):
    """Return the segmentation that serves each mask's level."""
    serving = {level: k for k, group in enumerate(segmented.levels) for level in group}
    return [serving[LEVELS[level]] for level in mask_level]


@pytest.mark.parametrize("level", range(3))
@pytest.mark.parametrize("case", ["small", "tiny"])
def test_segments(case, level, request):
    golden = request.getfixturevalue(case)
    labels = slic_segments(golden["fbank"], LEVELS[level])
    np.testing.assert_array_equal(labels, golden[f"labels_level{level}"])


def test_requested_number_of_segments(small):
    table = small["n_segments_table"]
    assert [requested_segments(int(n), int(T)) for n, T, _ in table] == table[:, 2].tolist()


def test_equal_levels_are_merged_and_reported(small, caplog):
    segmented = segmentations(small["fbank"], LEVELS)
    assert segmented.levels == ((2000, 2500), (3000,))
    assert "2500" in caplog.text
    assert "2000" in caplog.text


def test_masks_and_perturbed_input(small):
    segmented = segmentations(small["fbank"], LEVELS)
    serving = merged_level(segmented, small["mask_level"])
    for m, k in enumerate(serving):
        # Ids of segmentation k, counted from its first, are the published labels less one.
        own = segmented.labels[k] - segmented.labels[k].min()
        keep = small["segment_on"][m][own]
        np.testing.assert_array_equal(keep, small["masks"][m])
        np.testing.assert_array_equal(small["fbank"] * keep, small["perturbed"][m])


def test_kl():
    golden = read("kl_case.npz")
    reference = golden["logits_orig"][golden["orig_row"]]
    divergence = kl_divergence(reference, golden["logits_perturbed"])
    valid = golden["valid"]
    np.testing.assert_allclose(divergence[valid], golden["kl"][valid], rtol=0, atol=1e-9)


def test_kl_of_exact_zeros_is_finite():
    golden = read("kl_case.npz")
    with np.errstate(divide="ignore"):
        divergence = kl_divergence(np.log(golden["deg_p"]), np.log(golden["deg_q"]))
    published = golden["deg_kl"]
    assert np.isnan(published).any()
    assert np.isinf(published).any()
    assert np.isfinite(divergence).all()
    ordinary = np.isfinite(published)
    np.testing.assert_allclose(divergence[ordinary], published[ordinary], atol=1e-9)


@pytest.mark.parametrize("case", ["A", "B"])
def test_kl_of_model(tiny, case):
    divergence = kl_divergence(np.log(tiny["orig_probs"]), np.log(tiny[f"{case}/perturbed_probs"]))
    np.testing.assert_allclose(divergence, tiny[f"{case}/kl"], rtol=0, atol=1e-9)


def test_heatmap_with_merged_levels(small):
    segmented = segmentations(small["fbank"], LEVELS)
    serving = merged_level(segmented, small["mask_level"])
    statistics = statistics_of(segmented.labels, serving, small["masks"], small["kl"])
    np.testing.assert_allclose(heatmap(statistics), small["heatmap"], rtol=0, atol=1e-9)
    never = (small["masks"] == 1).all(axis=0)
    assert never.sum() == 20
    assert (heatmap(statistics)[:, never] == 0).all()


def token_statistics_of(keep, scores):
    """Sum golden token masks (1 = kept) into statistics."""
    n_rows = scores.shape[1]
    statistics = Statistics.zeros(np.zeros((1, 1, 1), np.int32), n_rows, 4, 25, tokens=True)
    occluded = 1 - keep
    statistics.token_sum += scores.T @ occluded
    statistics.token_count += occluded.sum(axis=0).astype(np.int64)
    return statistics


def test_token_heatmap(small, tiny):
    statistics = token_statistics_of(small["token_masks"], small["kl"])
    np.testing.assert_allclose(token_heatmap(statistics), small["token_heatmap"], rtol=0, atol=1e-9)
    statistics = token_statistics_of(tiny["A/token_masks"], tiny["A/kl"])
    np.testing.assert_allclose(
        token_heatmap(statistics), tiny["A/token_heatmap"], rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("case", ["A", "B"])
def test_heatmap_of_model(tiny, case):
    segmented = segmentations(tiny["fbank"], LEVELS)
    serving = merged_level(segmented, tiny["mask_level"])
    statistics = statistics_of(segmented.labels, serving, tiny["masks"], tiny[f"{case}/kl"])
    np.testing.assert_allclose(heatmap(statistics), tiny[f"{case}/heatmap"], rtol=0, atol=1e-9)


def test_normalisers(small):
    raw = small["heatmap"], small["token_heatmap"]
    standardised = single_mean_std(*raw)
    for computed, name in [
        (standardised, "sms"),
        (paired_min_max(*standardised), "sms_pmm"),
        (paired_min_max(*raw), "pmm"),
    ]:
        np.testing.assert_allclose(computed[0], small[f"heatmap_{name}"], rtol=0, atol=1e-9)
        np.testing.assert_allclose(computed[1], small[f"token_heatmap_{name}"], rtol=0, atol=1e-9)


def test_sentence_map(small):
    cells, tokens = paired_min_max(*single_mean_std(small["heatmap"], small["token_heatmap"]))
    for computed, name in [(cells, "sentence_map"), (tokens, "sentence_token_map")]:
        np.testing.assert_allclose(
            computed.mean(axis=0, keepdims=True), small[name], rtol=0, atol=1e-9
        )


def test_constant_maps_become_zeros(small):
    standardised = single_mean_std(small["deg_fbank"], small["deg_token"])
    for computed, name in zip(standardised, ["deg_fbank_sms", "deg_token_sms"], strict=True):
        np.testing.assert_allclose(computed, small[name], rtol=0, atol=1e-9)
    scaled = paired_min_max(*standardised)
    for computed, name in zip(scaled, ["deg_fbank_sms_pmm", "deg_token_sms_pmm"], strict=True):
        published = small[name]
        assert np.isnan(published).any()
        np.testing.assert_allclose(computed, np.nan_to_num(published), rtol=0, atol=1e-9)
