"""The pass with gradients: the same logits, and slopes that differences confirm."""

import pytest
import torch

from tests.tiny_whisper import NO_TIMESTAMPS, START, tiny_whisper
from tests.toy import PROMPT, WordModel

T = 60
TOKENS = [3, 1, 0]


def whisper_case():
    features = torch.randn(2, T, 8, generator=torch.Generator().manual_seed(1))
    return tiny_whisper(), features, -0.7, [START, NO_TIMESTAMPS], TOKENS


def toy_case():
    features = torch.rand(2, 24, 4, generator=torch.Generator().manual_seed(1)).double()
    return WordModel(), features, 0.0, PROMPT, TOKENS


CASES = pytest.mark.parametrize("case", [whisper_case, toy_case])


@CASES
def test_logits_are_those_of_encoding_and_decoding(case):
    model, features, *rest = case()
    padding_value, prompt, tokens = rest
    plain = model.decode(model.encode(features, padding_value), prompt, tokens)
    found = model.differentiable_logits(features.requires_grad_(), *rest)
    torch.testing.assert_close(found.detach(), plain, rtol=0, atol=0)
    assert plain.std() > 0.1
    assert found.requires_grad


@CASES
def test_differences_agree_with_the_gradient(case):
    """Along random directions, for every row at once and for one row alone."""
    model, features, *rest = case()
    generator = torch.Generator().manual_seed(2)
    features.requires_grad_()
    logits = model.differentiable_logits(features, *rest)
    everywhere = torch.randn(logits.shape, generator=generator).to(logits.dtype)
    one_row = torch.zeros_like(everywhere)
    one_row[1, 1] = everywhere[1, 1]
    for weights in (everywhere, one_row):
        slope = torch.autograd.grad(logits, features, weights, retain_graph=True)[0]
        along = torch.randn(features.shape, generator=generator).to(features.dtype)
        step = 3e-3
        with torch.no_grad():
            ahead, behind = (
                (model.differentiable_logits(features + sign * step * along, *rest) * weights).sum()
                for sign in (1, -1)
            )
        expected = float(ahead - behind) / (2 * step)
        assert float((slope * along).sum()) == pytest.approx(expected, rel=0.02)
        assert abs(expected) > 0.05


def test_a_row_does_not_depend_on_other_inputs_of_the_batch():
    model, features, *rest = whisper_case()
    features.requires_grad_()
    logits = model.differentiable_logits(features, *rest)
    slope = torch.autograd.grad(logits[0].sum(), features)[0]
    assert slope[0].abs().min() > 0
    assert not slope[1].any()


def test_weights_stay_frozen_and_later_passes_need_no_graph():
    model, features, padding_value, prompt, tokens = whisper_case()
    model.differentiable_logits(features.requires_grad_(), padding_value, prompt, tokens).sum()
    assert all(not weights.requires_grad for weights in model._network.parameters())
    assert not model.encode(features, padding_value).requires_grad
