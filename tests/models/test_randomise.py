import numpy as np
import pytest
import torch

from s2txai.models.randomise import randomise
from tests.tiny_whisper import tiny_whisper

PROMPT, TOKENS = [21, 22], [3, 4, 5]


def logits(model):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 40, 8))).float()
    return model.decode(model.encode(features, 0.0), PROMPT, TOKENS)


def states(model):
    features = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 40, 8))).float()
    return model.encode(features, 0.0)


def test_layers_hold_every_weight_once():
    model = tiny_whisper()
    parts = [id(weights) for layer in model.layers() for weights in layer.parameters()]
    assert len(parts) == len(set(parts))
    assert set(parts) == {id(weights) for weights in model._network.parameters()}


def test_the_decoder_comes_before_the_encoder():
    n_decoder = 1 + 2 + 1  # norm, layers, embeddings
    model, trained = tiny_whisper(), tiny_whisper()
    randomise(model, n_decoder, seed=0)
    torch.testing.assert_close(states(model), states(trained), rtol=0, atol=0)
    assert (logits(model) - logits(trained)).abs().max() > 0.1
    randomise(model, n_decoder + 1 + 2, seed=0)
    assert (states(model) - states(trained)).abs().max() > 0.1


def test_numbers_keep_their_scale_and_lose_their_order():
    model, trained = tiny_whisper(), tiny_whisper()
    randomise(model, len(model.layers()), seed=0)
    for changed, weights in zip(
        model._network.parameters(), trained._network.parameters(), strict=True
    ):
        if weights.numel() < 256:
            continue
        assert changed.std() == pytest.approx(float(weights.std()), rel=0.25)
        assert abs(np.corrcoef(changed.flatten(), weights.flatten())[0, 1]) < 0.25


def test_seeded_and_nested():
    one, deeper, other = tiny_whisper(), tiny_whisper(), tiny_whisper()
    randomise(one, 2, seed=0)
    randomise(deeper, 3, seed=0)
    randomise(other, 2, seed=1)
    first, second, third = (
        [weights.clone() for layer in model.layers()[:2] for weights in layer.parameters()]
        for model in (one, deeper, other)
    )
    assert all(map(torch.equal, first, second))
    assert not all(map(torch.equal, first, third))


def test_nothing_is_changed_at_depth_zero():
    model = tiny_whisper()
    randomise(model, 0, seed=0)
    assert torch.equal(logits(model), logits(tiny_whisper()))
