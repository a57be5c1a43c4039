from functools import partial

import numpy as np
import pytest

from s2txai.errors import UserError
from s2txai.saliency.aggregation import (
    ATTENTION_KINDS,
    all_attention_maps,
    attention_maps,
    kinds_of,
)
from s2txai.saliency.maps import saliency_maps
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.pooling import POOLINGS, pool
from s2txai.saliency.statistics import HALVES, Statistics, heatmap

I, T, F, R = 3, 7, 4, 2
STEPS = 4  # ceil(7 / 2): the last step has one frame


def cells(seed=0):
    return np.random.default_rng(seed).gamma(1.0, size=(I, T, F))


def test_mean_over_bins_and_frames():
    x = cells()
    expected = [
        x[:, 0:2].mean((1, 2)),
        x[:, 2:4].mean((1, 2)),
        x[:, 4:6].mean((1, 2)),
        x[:, 6].mean(1),
    ]
    np.testing.assert_allclose(pool(x, "avg2d", R, STEPS), np.transpose(expected))


def test_maximum_over_bins_mean_over_frames():
    x = cells()
    loudest = x.max(axis=2)  # (I, T)
    expected = [loudest[:, t : t + 2].mean(1) for t in (0, 2, 4)] + [loudest[:, 6]]
    found = pool(x, "max_freq_avg_time", R, STEPS)
    np.testing.assert_allclose(found, np.transpose(expected))


def test_maximum_over_both():
    x = cells()
    expected = [x[:, t : t + 2].max(axis=(1, 2)) for t in (0, 2, 4, 6)]
    np.testing.assert_array_equal(pool(x, "max2d", R, STEPS), np.transpose(expected))


@pytest.mark.parametrize("pooling", list(POOLINGS))
def test_a_map_that_is_even_within_steps_is_kept(pooling):
    steps = np.random.default_rng(0).random((I, STEPS))
    even = np.broadcast_to(np.repeat(steps, R, axis=1)[:, :T, None], (I, T, F))
    np.testing.assert_allclose(pool(even, pooling, R, STEPS), steps)


def test_unknown_pooling():
    with pytest.raises(UserError, match=r"Unknown pooling 'avg'.*avg2d.*max2d.*max_freq_avg_time"):
        pool(cells(), "avg", R, STEPS)


def test_attention_of_heads_layers_and_all():
    heads = np.random.default_rng(0).random((2, 3, I, STEPS))
    found = attention_maps(heads)
    assert set(found) == {"ca_head", "ca_layer", "ca_mean"}
    np.testing.assert_array_equal(found["ca_head"], heads)
    np.testing.assert_allclose(found["ca_layer"][1], (heads[1, 0] + heads[1, 1] + heads[1, 2]) / 3)
    np.testing.assert_allclose(found["ca_mean"], heads.reshape(6, I, STEPS).mean(axis=0))


def test_other_kinds_of_attention_have_names_of_their_own():
    rng = np.random.default_rng(0)
    heads = {name: rng.random((2, 3, I, STEPS)) for name in ATTENTION_KINDS.values()}
    found = all_attention_maps(heads)
    assert kinds_of(found) == ["ca", "vn", "ro"]
    assert len(found) == 9
    for kind, name in ATTENTION_KINDS.items():
        np.testing.assert_allclose(found[f"{kind}_mean"], heads[name].mean(axis=(0, 1)))
        np.testing.assert_allclose(found[f"{kind}_layer"], heads[name].mean(axis=1))
    del heads["rolled_out_attention"]
    assert kinds_of(all_attention_maps(heads)) == ["ca", "vn"]


def statistics(seed, segments, subsampling, equal_counts=False):
    rng = np.random.default_rng(seed)
    found = Statistics.zeros(segments, I, subsampling, STEPS)
    found.occluded_sum[:] = rng.gamma(2.0, size=found.occluded_sum.shape)
    found.occluded_count[:] = 5 if equal_counts else rng.integers(1, 9, found.occluded_count.shape)
    return found


def smx(equal_counts=False):
    by_frame = np.broadcast_to(np.arange(T)[:, None], (T, F))
    by_bin = np.broadcast_to(np.arange(F) + T, (T, F))
    return statistics(1, np.stack([by_frame, by_bin]).astype(np.int32), R, equal_counts)


def smh(equal_counts=False):
    return statistics(2, np.arange(STEPS, dtype=np.int32)[None, :, None], 1, equal_counts)


def test_saliency_maps_and_their_halves():
    x, h = smx(), smh()
    found = saliency_maps(partial(heatmap, x), partial(heatmap, h), ["avg2d", "max2d"], R, STEPS)
    assert set(found) == {
        f"{name}{part}" for name in ("smx_avg2d", "smx_max2d", "smh") for part in ("", "_halves")
    }
    assert {array.dtype for array in found.values()} == {np.dtype(np.float32)}
    for pooling in ("avg2d", "max2d"):
        expected = pool(heatmap(x), pooling, R, STEPS)
        np.testing.assert_allclose(found[f"smx_{pooling}"], expected, rtol=1e-6)
        halves = found[f"smx_{pooling}_halves"]
        assert halves.shape == (3, 2, I, STEPS)
        expected = pool(heatmap(x, [0, 2]), pooling, R, STEPS)
        np.testing.assert_allclose(halves[1, 0], expected, rtol=1e-6)
    total, count = h.occluded_sum.sum(axis=0), h.occluded_count.sum(axis=0)
    np.testing.assert_allclose(found["smh"], (total / count[:, None]).T, rtol=1e-6)
    second = h.occluded_sum[[1, 2]].sum(0) / h.occluded_count[[1, 2]].sum(0)[:, None]
    np.testing.assert_allclose(found["smh_halves"][2, 1], second.T, rtol=1e-6)


def test_halves_are_every_way_to_part_the_folds():
    assert len({frozenset(map(frozenset, pair)) for pair in HALVES}) == 3
    for one, other in HALVES:
        assert sorted([*one, *other]) == list(range(N_FOLDS))
        assert len(one) == len(other)


def test_halves_average_to_the_whole_where_counts_are_equal():
    found = saliency_maps(
        partial(heatmap, smx(True)), partial(heatmap, smh(True)), ["avg2d"], R, STEPS
    )
    for name in ("smx_avg2d", "smh"):
        both = found[f"{name}_halves"].mean(axis=1)  # (split, I, T')
        np.testing.assert_allclose(both, np.broadcast_to(found[name], both.shape), rtol=1e-6)
        assert not np.allclose(found[f"{name}_halves"][:, 0], found[name])
