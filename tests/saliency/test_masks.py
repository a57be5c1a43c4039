from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from s2txai.saliency.masks import occlusion


def draw(start=0, stop=64, n_segments=37, p=0.5, **key):
    key = {"seed": 1, "utterance": "u1", "segmentation": "300", **key}
    return occlusion(start=start, stop=stop, n_segments=n_segments, p=p, **key)


@settings(max_examples=60, deadline=None)
@given(
    n_segments=st.integers(1, 40),
    cuts=st.lists(st.integers(0, 200), min_size=2, max_size=8, unique=True).map(sorted),
    p=st.floats(0, 1),
)
def test_blocks_do_not_matter(n_segments, cuts, p):
    whole = draw(cuts[0], cuts[-1], n_segments, p)
    blocks = [draw(a, b, n_segments, p) for a, b in pairwise(cuts)]
    np.testing.assert_array_equal(np.concatenate(blocks), whole)


def test_masks_are_fixed_for_ever():
    """Results of earlier versions can only be extended while these stay as they are."""
    bits = draw(start=1000, stop=1003, n_segments=8).astype(int)
    assert ["".join(map(str, row)) for row in bits] == ["10101100", "00110101", "11001011"]


@pytest.mark.parametrize("change", [{"seed": 2}, {"utterance": "u2"}, {"segmentation": "301"}])
def test_every_part_of_the_key_matters(change):
    agreement = (draw(stop=1000) == draw(stop=1000, **change)).mean()
    assert agreement == pytest.approx(0.5, abs=0.02)


def test_parts_of_the_key_do_not_run_together():
    one = draw(utterance="u1", segmentation="2300")
    other = draw(utterance="u12", segmentation="300")
    assert (one != other).any()


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_segments_are_occluded_independently_with_probability_p(p):
    masks = draw(stop=20_000, n_segments=6, p=p).astype(float)
    # Five standard errors of a mean and of a correlation over 20,000 masks.
    np.testing.assert_allclose(masks.mean(axis=0), p, atol=5 * np.sqrt(p * (1 - p) / 20_000))
    correlations = np.corrcoef(masks.T) - np.eye(6)
    assert abs(correlations).max() < 5 / np.sqrt(20_000)
    successive = np.corrcoef(masks[:-1].ravel(), masks[1:].ravel())[0, 1]
    assert abs(successive) < 5 / np.sqrt(120_000)


def test_extreme_probabilities():
    assert not draw(p=0.0).any()
    assert draw(p=1.0).all()


def test_shape_of_no_masks():
    assert draw(start=5, stop=5).shape == (0, 37)
    assert draw().dtype == bool
