import numpy as np
import pytest

from s2txai.saliency.normalise import paired_min_max, single_mean_std


@pytest.fixture
def maps():
    rng = np.random.default_rng(0)
    return rng.random((3, 5, 4)), rng.random((3, 3, 1))


def test_standardised_rows_have_mean_0_and_deviation_1(maps):
    cells, tokens = single_mean_std(*maps)
    np.testing.assert_allclose(cells.mean(axis=(1, 2)), 0, atol=1e-12)
    np.testing.assert_allclose(cells.std(axis=(1, 2), ddof=1), 1)
    np.testing.assert_allclose(tokens[2, :, 0].std(ddof=1), 1)
    assert tokens[0, 0, 0] == 0  # a single value has no deviation


def test_scaled_rows_span_0_to_1_over_both_maps():
    cells = np.array([[[2.0, 4.0]], [[2.0, 4.0]]])
    tokens = np.array([[[6.0], [-50.0]], [[0.0], [1.0]]])  # -50 is above the diagonal
    scaled_cells, scaled_tokens = paired_min_max(cells, tokens)
    np.testing.assert_allclose(scaled_cells, [[[0, 0.5]], [[0.5, 1]]])
    np.testing.assert_allclose(scaled_tokens[..., 0], [[1, 0], [0, 0.25]])


@pytest.mark.parametrize("normaliser", [single_mean_std, paired_min_max])
def test_later_tokens_are_ignored(normaliser, maps):
    cells, tokens = maps
    marred = tokens + 100 * np.triu(np.ones((3, 3)), 1)[..., None]
    for plain, other in zip(normaliser(cells, tokens), normaliser(cells, marred), strict=True):
        np.testing.assert_array_equal(plain, other)
    assert (normaliser(cells, marred)[1][np.triu_indices(3, 1)] == 0).all()


def test_token_map_is_optional(maps):
    np.testing.assert_array_equal(single_mean_std(maps[0]), single_mean_std(*maps)[0])
    alone = paired_min_max(maps[0])
    np.testing.assert_allclose(alone.min(axis=(1, 2)), 0)
    np.testing.assert_allclose(alone.max(axis=(1, 2)), 1)


@pytest.mark.parametrize("normaliser", [single_mean_std, paired_min_max])
@pytest.mark.parametrize("value", [0.0, 0.1, 1e30, 1 / 3])
def test_constant_rows_become_zeros_and_leave_the_others(normaliser, value, maps):
    cells, tokens = maps
    cells[1], tokens[1] = value, value
    alone = normaliser(cells)
    both = normaliser(cells, tokens)
    assert (alone[1] == 0).all()
    assert (both[0][1] == 0).all()
    assert (both[1][1] == 0).all()
    assert np.isfinite(alone).all()
    assert alone[0].any()
    assert alone[2].any()


@pytest.mark.parametrize("spread", [1e-4, 1e-6])
def test_small_spread_on_a_large_mean_is_kept(spread):
    """In single precision, E[x^2] - E[x]^2 loses such maps."""
    noise = np.random.default_rng(0).standard_normal((1, 700, 80))
    standardised = single_mean_std((0.3 + spread * noise).astype(np.float32))
    assert standardised.dtype == np.float64
    assert standardised.std(ddof=1) == pytest.approx(1)
    assert np.corrcoef(standardised.ravel(), noise.ravel())[0, 1] > 0.999


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("size", [5e-324, 1e-300, 1e-170, 1e170, 1.7e308])
def test_very_small_and_very_large_values_give_numbers(size, maps):
    """Their squares leave the range of float64."""
    signs = np.sign(maps[0] - 0.5)
    for normaliser in (single_mean_std, paired_min_max):
        np.testing.assert_allclose(normaliser(signs * size), normaliser(signs), atol=1e-12)
        few = np.zeros((1, 5, 4))
        few[0, 2, 2] = size
        np.testing.assert_allclose(normaliser(few), normaliser((few > 0) * 1.0), atol=1e-12)
