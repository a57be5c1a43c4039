"""The maps in whose order cells are deleted."""

from pathlib import Path

import numpy as np
import pytest

from s2txai.saliency.deletion_maps import (
    cell_order,
    energy_map,
    further_layers,
    map_names,
    random_map,
    scaled_maps,
    scaled_rows,
    spread_over_cells,
)

GOLDEN = Path(__file__).parents[1] / "golden" / "data" / "spes_small.npz"
T, F = 7, 5


def sentence_map(saliency):
    """Return [T, F], in whose order cells are deleted."""
    return scaled_rows(saliency).mean(axis=0)


def deletion_map(*arguments, **options):
    return scaled_maps(*arguments, **options).mean(axis=0)


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
    smx = ("smx_avg2d", "smx_max2d", "smx_full")
    assert names == ("ca_mean", "ca_last", *smx, "random", "energy")
    rng = np.random.default_rng(0)
    steps = {name: rng.random((3, 4)) for name in ("ca_mean", "smx_avg2d", "smx_max2d")}
    steps["ca_layer"] = rng.random((2, 3, 4))
    full = rng.random((3, T, F))
    features = rng.random((T, F)).astype(np.float32) + 1
    found = {name: deletion_map(name, steps, full, 2, seed=1, features=features) for name in names}
    for name in ("ca_mean", "smx_avg2d", "smx_max2d"):
        np.testing.assert_array_equal(
            found[name], sentence_map(spread_over_cells(steps[name], T, F, 2))
        )
    last = sentence_map(spread_over_cells(steps["ca_layer"][1], T, F, 2))
    np.testing.assert_array_equal(found["ca_last"], last)
    np.testing.assert_array_equal(found["smx_full"], sentence_map(full))
    np.testing.assert_array_equal(found["random"], random_map(T, F, 1))
    np.testing.assert_array_equal(cell_order(found["energy"], 0), cell_order(features, 0))


def test_layers_beside_the_last_are_maps_of_their_own(caplog):
    assert further_layers([-1, 2, 0, -3], n_layers=4) == [0, 1, 2]
    assert further_layers([0, -1], n_layers=1) == []
    assert not caplog.records
    assert further_layers([1, 4], n_layers=4) == [1]
    assert "Layer 4 of the configuration is left out" in caplog.text
    names = map_names(["avg2d"], layers=[0, 2])
    assert names[:5] == ("ca_mean", "ca_last", "ca_layer_0", "ca_layer_2", "smx_avg2d")
    layers = np.random.default_rng(0).random((4, 3, 4))
    found = deletion_map("ca_layer_2", {"ca_layer": layers}, np.zeros((3, T, F)), 2, seed=1)
    np.testing.assert_array_equal(found, sentence_map(spread_over_cells(layers[2], T, F, 2)))


def test_maps_of_rows_lie_within_0_and_1_and_average_to_the_sentence_map():
    steps = {"ca_mean": np.random.default_rng(3).random((3, 4)) * 7 - 2}
    full = np.zeros((3, T, F))
    rows = scaled_maps("ca_mean", steps, full, 2, seed=1)
    assert rows.shape == full.shape
    assert (rows.min(axis=(1, 2)) == 0).all()
    assert (rows.max(axis=(1, 2)) == 1).all()
    found = deletion_map("ca_mean", steps, full, 2, seed=1)
    np.testing.assert_array_equal(found, rows.mean(axis=0))
    assert scaled_maps("random", {}, full, 2, seed=1).shape == (1, T, F)


def test_energy_of_a_spectrogram_is_its_own_value_and_of_a_waveform_the_square():
    features = np.array([[1.0, -3], [2, 1], [0, 0]])
    np.testing.assert_array_equal(energy_map(features), features)
    np.testing.assert_array_equal(energy_map(features, time_only=True), [[10, 10], [5, 5], [0, 0]])
    full = np.zeros((1, 3, 2))
    found = deletion_map("energy", {}, full, 2, 0, features=features)
    assert cell_order(found, 0)[:3].tolist() in ([2, 0, 3], [2, 3, 0])
    whole = deletion_map("energy", {}, full, 2, 0, features=features, time_only=True)
    np.testing.assert_allclose(whole, [[1, 1], [0.5, 0.5], [0, 0]])
