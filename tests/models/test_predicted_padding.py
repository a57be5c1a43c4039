"""Whisper's cheaper pass: most steps of the padding are predicted from a few."""

import weakref

import numpy as np
import pytest
import torch

from s2txai.models import predicted_padding, whisper
from s2txai.models.loading import load_model
from s2txai.models.network_model import NetworkModel
from s2txai.models.predicted_padding import Prediction, active_counts, reached_steps
from tests.tiny_whisper import EOS, NO_TIMESTAMPS, START, save_tiny_whisper, tiny_whisper

HYPOTHESIS = [START, NO_TIMESTAMPS], [1, 5, 3, EOS]
CONTEXT = 50  # encoder steps
CLOSE = {"atol": 5e-5, "rtol": 1e-4}


def perturbed(n_frames, n=6, spread=0.5):
    generator = torch.Generator().manual_seed(0)
    original = torch.randn(n_frames, 8, generator=generator)
    return original + spread * torch.randn(n, n_frames, 8, generator=generator)


def exact_logits(model, inputs):
    return model.decode(model.encode(inputs, -1.0), *HYPOTHESIS)


@pytest.fixture
def all_active(monkeypatch):
    """Compute every step of the padding."""

    def activate(n_frames):
        monkeypatch.setattr(predicted_padding, "MOST_COMPUTED", 1.0)
        shares = (1 - reached_steps(n_frames) / CONTEXT,)
        monkeypatch.setattr(predicted_padding, "ACTIVE_SHARES", shares)

    return activate


@pytest.fixture
def none_active(monkeypatch):
    monkeypatch.setattr(predicted_padding, "ACTIVE_SHARES", (0.0,))


@pytest.mark.parametrize("n_frames", [1, 2, 29, 30, 60])
def test_with_every_step_active_it_is_the_exact_pass(n_frames, all_active):
    all_active(n_frames)
    model, inputs = tiny_whisper(), perturbed(n_frames)
    (cheap,) = model.cheap_passes(inputs[:3], -1.0)
    assert cheap.description == "50 of 50 encoder steps"
    torch.testing.assert_close(
        cheap.logits(inputs, *HYPOTHESIS), exact_logits(model, inputs), **CLOSE
    )


@pytest.mark.parametrize("n_frames", [1, 2, 29, 30, 60])
def test_with_its_own_states_an_input_has_its_own_logits(n_frames, none_active):
    model, inputs = tiny_whisper(), perturbed(n_frames, n=1)
    (cheap,) = model.cheap_passes(inputs, -1.0)
    assert cheap.description == f"{reached_steps(n_frames)} of 50 encoder steps"
    torch.testing.assert_close(
        cheap.logits(inputs, *HYPOTHESIS), exact_logits(model, inputs), **CLOSE
    )


@pytest.mark.parametrize("n_frames", [1, 2, 3, 29, 30])
def test_convolutions_reach_no_further_than_is_computed(n_frames):
    model = tiny_whisper()
    inputs = []
    hook = model._encoder.layers[0].register_forward_pre_hook(
        lambda _module, given: inputs.append(given[0])
    )
    first, second = perturbed(n_frames, n=2)
    model.encode(first[None], -1.0)
    model.encode(second[None], -1.0)
    hook.remove()
    changed = (inputs[0] != inputs[1]).any(dim=2)[0].nonzero()[:, 0]
    assert int(changed.max()) == reached_steps(n_frames) - 1


def test_more_active_steps_are_closer():
    model = tiny_whisper()
    inputs = perturbed(30, spread=0.1)
    exact = exact_logits(model, inputs)
    errors = [
        float((cheap.logits(inputs, *HYPOTHESIS) - exact).square().mean())
        for cheap in model.cheap_passes(perturbed(30, n=8, spread=0.1), -1.0)
    ]
    assert len(errors) == 2
    assert errors[0] > errors[1] > 0


def test_what_moves_linearly_with_the_active_steps_is_predicted(monkeypatch):
    monkeypatch.setattr(predicted_padding, "RIDGE", 1e-6)
    generator = torch.Generator().manual_seed(0)
    causes = torch.randn(12, 3, generator=generator)
    mixed, of_keys, of_values = (
        torch.randn(3, *shape, generator=generator) for shape in ((4, 5), (6, 7), (6, 7))
    )
    predicting, keys, values = (
        1 + torch.einsum("pc,c...->p...", causes, effect) for effect in (mixed, of_keys, of_values)
    )
    learnt = Prediction.learn(predicting[:8], keys[:8], values[:8])
    for predicted, expected in zip(learnt.of(predicting[8:]), (keys, values), strict=True):
        torch.testing.assert_close(predicted, expected[8:].flatten(1), atol=1e-3, rtol=1e-3)


def test_passes_that_do_not_differ_predict_their_mean():
    same = torch.ones(8, 4, 5)
    learnt = Prediction.learn(same, 2 * same, 3 * same)
    keys, values = learnt.of(same[:2] + 1)
    assert (keys == 2).all()
    assert (values == 3).all()


def test_preceding_tokens_are_occluded_as_in_the_exact_pass(all_active):
    all_active(30)
    model, inputs = tiny_whisper(), perturbed(30)
    occluded = torch.rand(len(inputs), 4, generator=torch.Generator().manual_seed(1)) < 0.5
    (cheap,) = model.cheap_passes(inputs[:2], -1.0)
    states = model.encode(inputs, -1.0)
    torch.testing.assert_close(
        cheap.logits(inputs, *HYPOTHESIS, occluded),
        model.decode_without_tokens(states, occluded, *HYPOTHESIS),
        **CLOSE,
    )


def test_the_model_is_as_before_afterwards():
    model, inputs = tiny_whisper(), perturbed(30)
    before = exact_logits(model, inputs)
    cheap = model.cheap_passes(inputs, -1.0)[0]
    cheap.logits(inputs, *HYPOTHESIS)
    with pytest.raises(IndexError):
        cheap.logits(inputs, HYPOTHESIS[0], [1, 1000, 2])  # no such token
    assert torch.equal(exact_logits(model, inputs), before)
    assert not any(
        module._forward_hooks or module._forward_pre_hooks or "forward" in vars(module)
        for module in model._network.modules()
    )


def test_batches_do_not_change_the_logits():
    model, inputs = tiny_whisper(), perturbed(30)
    cheap = model.cheap_passes(inputs, -1.0)[1]
    one_by_one = torch.cat([cheap.logits(one[None], *HYPOTHESIS) for one in inputs])
    torch.testing.assert_close(cheap.logits(inputs, *HYPOTHESIS), one_by_one, **CLOSE)


def test_the_same_perturbations_give_the_same_bits():
    model, inputs = tiny_whisper(), perturbed(30)
    first, second = (model.cheap_passes(inputs, -1.0)[0] for _ in range(2))
    assert torch.equal(first.logits(inputs, *HYPOTHESIS), second.logits(inputs, *HYPOTHESIS))


def test_a_pass_keeps_only_what_it_has_learnt(monkeypatch):
    observers = []

    class Observer(predicted_padding.PaddingObserver):
        def __init__(self, *args):
            super().__init__(*args)
            observers.append(weakref.ref(self))

    monkeypatch.setattr(whisper, "PaddingObserver", Observer)
    inputs = perturbed(30)
    passes = tiny_whisper().cheap_passes(inputs, -1.0)
    first = passes[0].logits(inputs, *HYPOTHESIS)
    assert observers[0]() is not None  # the other pass may still be run
    del passes[1:]
    assert observers[0]() is None
    assert torch.equal(passes[0].logits(inputs, *HYPOTHESIS), first)


def test_speech_that_fills_the_context_has_no_cheap_pass():
    model = tiny_whisper()
    assert not model.cheap_passes(perturbed(100), -1.0)
    assert not model.cheap_passes(perturbed(75), -1.0)
    # Of 30 s: 64 and 128 of 1,500 steps of padding, and three quarters at most in all.
    assert active_counts(302, 1500) == [64, 128]
    assert active_counts(2100, 1500) == [64]
    assert active_counts(2200, 1500) == []


def test_other_families_have_no_cheap_pass():
    assert not NetworkModel.cheap_passes(object(), perturbed(30), 0.0)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_half_precision_is_close(precision, tmp_path, all_active):
    all_active(30)
    save_tiny_whisper(tmp_path)
    exact = load_model(tmp_path, "whisper", device="cpu", precision="float32")
    half = load_model(tmp_path, "whisper", device="cpu", precision=precision)
    inputs = perturbed(30)
    (cheap,) = half.cheap_passes(inputs[:2], -1.0)
    found = cheap.logits(inputs, *HYPOTHESIS)
    assert found.dtype == torch.float32
    expected = exact_logits(exact, inputs)
    own = (exact_logits(half, inputs) - expected).abs().mean()
    assert (found - expected).abs().mean() <= 1.5 * own + 1e-3
    assert np.isfinite(found.numpy()).all()


def test_a_compiled_encoder_learns_the_same_padding():
    inputs, plain, compiled = perturbed(12), tiny_whisper(), tiny_whisper()
    # The backend that compiles nothing, but traces as all do.
    compiled._encoder.compile(backend="eager")
    compiled._encode_reached = torch.compile(
        predicted_padding.encode_reached, dynamic=True, backend="eager"
    )
    exact_logits(compiled, inputs[:1])  # traced without the hooks of an observer
    passes = [model.cheap_passes(inputs[:3], -1.0) for model in (plain, compiled)]
    for of_plain, of_compiled in zip(*passes, strict=True):
        assert of_compiled.description == of_plain.description
        for n in (1, len(inputs)):
            torch.testing.assert_close(
                of_compiled.logits(inputs[:n], *HYPOTHESIS),
                of_plain.logits(inputs[:n], *HYPOTHESIS),
                **CLOSE,
            )
