import numpy as np
import pytest
import torch
from scipy.special import log_softmax, rel_entr, softmax

from s2txai.saliency import scores
from s2txai.saliency.scores import kl_divergence


def logits(*shape, seed=0, scale=4.0):
    return np.random.default_rng(seed).standard_normal(shape) * scale


@pytest.mark.parametrize("batched", [False, True])
def test_equals_its_definition(batched):
    reference, perturbed = logits(3, 50), logits(7, 3, 50, seed=1)
    if batched:
        reference = reference + logits(7, 1, 50, seed=2)
    expected = rel_entr(softmax(reference, -1), softmax(perturbed, -1)).sum(-1)
    divergence = kl_divergence(reference, perturbed)
    assert divergence.shape == (7, 3)
    np.testing.assert_allclose(divergence, expected, atol=1e-12)


def test_one_reference_with_an_axis_for_masks_serves_all():
    reference, perturbed = logits(3, 50), logits(7, 3, 50, seed=1)
    expected = kl_divergence(reference, perturbed)
    np.testing.assert_array_equal(kl_divergence(reference[None], perturbed), expected)
    # Views that torch cannot share memory with are copied.
    turned = perturbed[:, :, ::-1], reference[:, ::-1]
    np.testing.assert_allclose(kl_divergence(turned[1], turned[0]), expected, rtol=1e-12)


@pytest.mark.parametrize("batched", [False, True])
def test_blocks_do_not_matter(batched, monkeypatch):
    reference, perturbed = logits(3, 50), logits(7, 3, 50, seed=1)
    if batched:
        reference = logits(7, 3, 50, seed=2)
    whole = kl_divergence(reference, perturbed)
    for logits_at_a_time in (1, 2 * 50, 2 * 3 * 50):  # a row, two rows, two masks
        monkeypatch.setitem(scores._BLOCK, "cpu", logits_at_a_time)
        np.testing.assert_allclose(kl_divergence(reference, perturbed), whole, rtol=1e-13)


def test_equal_distributions_score_zero_and_never_less():
    # Logits that differ by a constant, in single precision: rounding goes both ways.
    reference = torch.from_numpy(logits(200, 1000)).float()
    divergence = kl_divergence(reference, reference[None] + 3)
    assert (divergence >= 0).all()
    assert divergence.max() < 1e-5


def test_half_precision_is_summed_in_single():
    reference, perturbed = logits(5, 20_000), logits(5, 20_000, seed=1)
    perturbed = reference + 0.1 * perturbed
    half = [torch.from_numpy(array).half() for array in (reference, perturbed[None])]
    divergence = kl_divergence(*half)
    assert divergence.dtype == torch.float32
    # What the rounded logits say, computed in double precision.
    exact = kl_divergence(*(array.double() for array in half))
    torch.testing.assert_close(divergence.double(), exact, rtol=1e-4, atol=0)


def test_autocast_does_not_round_it():
    reference, perturbed = (torch.from_numpy(logits(2, 500, seed=s)).float() for s in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        inside = kl_divergence(reference, perturbed[None])
    torch.testing.assert_close(inside, kl_divergence(reference, perturbed[None]))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_impossible_tokens_give_finite_scores(dtype):
    impossible, possible = [0, -np.inf, 1, 2], [0, 1.5, 1, 2]
    reference = np.array([impossible, impossible, possible, possible], dtype)
    perturbed = np.array([[impossible, possible, impossible, possible]], dtype)
    divergence = kl_divergence(reference, perturbed)[0]
    assert np.isfinite(divergence).all()
    assert divergence[0] == pytest.approx(0, abs=1e-6)
    # p0 = 0 contributes nothing: what is left is the mass that the perturbed input gives the token.
    assert divergence[1] == pytest.approx(-np.log1p(-softmax(possible)[1]), rel=1e-6)
    # p = 0 where p0 > 0 is very surprising, not infinitely so.
    assert 10 < divergence[2] < 88
    assert divergence[3] == pytest.approx(0, abs=1e-6)


def test_underflow_keeps_the_exact_score():
    reference = np.array([[500.0, 0.0, -500.0]])
    perturbed = np.array([[[0.0, 500.0, -500.0]]])
    exact = (softmax(reference) * (log_softmax(reference) - log_softmax(perturbed[0]))).sum()
    assert exact == pytest.approx(500)
    assert kl_divergence(reference, perturbed)[0, 0] == pytest.approx(exact)
    single = kl_divergence(reference.astype(np.float32), perturbed.astype(np.float32))
    assert single[0, 0] == pytest.approx(500, rel=1e-6)


def test_gradients_flow():
    reference = torch.from_numpy(logits(2, 9))
    perturbed = torch.from_numpy(logits(1, 2, 9, seed=1)).requires_grad_()
    kl_divergence(reference, perturbed).sum().backward()
    expected = torch.softmax(perturbed.detach(), -1) - torch.softmax(reference, -1)
    torch.testing.assert_close(perturbed.grad, expected)
