"""Whisper with real weights on real speech: rows, attention and batches are what they seem."""

from contextlib import nullcontext

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from s2txai.analysis.scoring import corpus_score
from s2txai.datasets import parse_task, read_manifest, reference
from s2txai.datasets.audio import read_audio
from s2txai.errors import UserError
from s2txai.models import decoding
from s2txai.models.base import n_steps
from s2txai.models.loading import load_model
from s2txai.models.transformers_base import TransformersModel
from s2txai.saliency.attention import attention
from s2txai.saliency.heard import Heard
from s2txai.saliency.occluded_values import OCCLUDED_STATES
from tests.weights import ROOT, model_directory

pytestmark = pytest.mark.model

TASK = parse_task("asr-en")
UTTERANCES = read_manifest(ROOT / "resources/speech/librivox.tsv")
SHORT = next(utterance for utterance in UTTERANCES if utterance.id == "sns-0880")


@pytest.fixture(scope="module")
def model():
    directory = model_directory("whisper-tiny.en")
    return load_model(directory, "whisper", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def audio():
    return read_audio(SHORT.path, 16_000)


@pytest.fixture(scope="module")
def decoded(model, audio):
    return decoding.decode(model, audio, TASK, beam=5)


@pytest.fixture(scope="module")
def states(model, decoded):
    inputs = torch.from_numpy(decoded["features"])[None]
    return model.encode(inputs, float(decoded["padding_value"]))


@pytest.fixture(scope="module")
def hypothesis(decoded):
    return decoded["prompt"].tolist(), decoded["tokens"].tolist()


def test_librivox_is_transcribed_with_few_errors(model):
    hypotheses = [
        str(decoding.decode(model, read_audio(one.path, 16_000), TASK, beam=5)["text"])
        for one in UTTERANCES
    ]
    references = [reference(one, TASK) for one in UTTERANCES]
    score = corpus_score("wer", references, hypotheses, text_normalisation="whisper", language="en")
    assert score < 15


def test_features_are_those_of_the_full_context(model, audio):
    features = model.features(audio)
    full = model._extractor(audio, sampling_rate=16_000, return_tensors="np").input_features[0].T
    n_frames = len(features.values)
    np.testing.assert_array_equal(full[:n_frames], features.values)
    np.testing.assert_array_equal(full[n_frames:], np.float32(features.padding_value))
    # The last window that touches the audio starts at most one hop before its end.
    assert 160 * (n_frames - 1) - 200 < len(audio) <= 160 * n_frames - 200


def test_token_table_is_aligned_with_the_logits(model, states, decoded, hypothesis):
    prompt, tokens = hypothesis
    assert decoded["pieces"][0] == " He"
    assert decoded["roles"].tolist() == ["text"] * (len(tokens) - 1) + ["eos"]
    assert decoded["word_index"][-1] == -1
    words = str(decoded["text"]).split()
    assert decoded["word_index"].max() == len(words) - 1
    logits = model.decode(states, prompt, tokens)[0]
    assert len(logits) == len(tokens)
    # Row i predicts token i: a shift by one row either way would be all but impossible text.
    own = decoded["log_probs"].mean()
    np.testing.assert_allclose(
        own, torch.log_softmax(logits, -1)[range(len(tokens)), tokens].mean(), atol=1e-5
    )
    for shift in (-1, 1):
        shifted = torch.log_softmax(logits, -1)[range(len(tokens)), np.roll(tokens, shift)].mean()
        assert shifted < own - 5


def test_teacher_forcing_is_stepwise_decoding(model, states, hypothesis):
    """Row i does not see token i or later: a shorter hypothesis gives the same first rows."""
    prompt, tokens = hypothesis
    whole = model.decode(states, prompt, tokens)
    part = model.decode(states, prompt, tokens[:3])
    torch.testing.assert_close(whole[:, :3], part, atol=2e-4, rtol=1e-4)


def test_fast_and_eager_attention_give_the_same_logits(model, states, hypothesis):
    fast = model.decode(states, *hypothesis)
    with model._eager():
        eager = model.decode(states, *hypothesis)
    torch.testing.assert_close(fast, eager, atol=2e-3, rtol=1e-4)
    assert model._network.config._attn_implementation == "sdpa"


def test_attention_rows_sum_to_one_over_all_steps(model, decoded, hypothesis):
    padding_value = float(decoded["padding_value"])
    found = attention(model, Heard(decoded["features"], padding_value, *hypothesis))
    L, H, I, steps = found["cross_attention"].shape
    assert (4, 6, len(hypothesis[1])) == (L, H, I)
    assert steps == n_steps(len(decoded["features"]), 2)
    total = found["cross_attention"].sum(-1) + found["padding_mass"]
    np.testing.assert_allclose(total, 1, atol=1e-5)
    assert found["padding_mass"].min() >= 0


def test_attention_follows_the_speech(model, decoded, hypothesis):
    """Later words are attended later; rows shifted against columns would still show this, rows
    in disorder would not."""
    padding_value = float(decoded["padding_value"])
    found = attention(model, Heard(decoded["features"], padding_value, *hypothesis))
    last_layer = found["cross_attention"][-1].mean(0)[decoded["roles"] == "text"]  # (I, T')
    centre = (last_layer * np.arange(last_layer.shape[1])).sum(1) / last_layer.sum(1)
    assert np.corrcoef(centre, np.arange(len(centre)))[0, 1] > 0.9


def test_value_norm_attention_matches_a_forward_hook(model, states, hypothesis):
    """The weighted, transformed values of all heads and steps add up to the layer's output."""
    outputs, values = [], []
    layer = model._network.model.decoder.layers[-1].encoder_attn
    handles = [
        layer.out_proj.register_forward_hook(lambda *parts: outputs.append(parts[2])),
        layer.v_proj.register_forward_hook(lambda *parts: values.append(parts[2])),
    ]
    found = model.cross_attention(states, *hypothesis)
    for handle in handles:
        handle.remove()
    heads, width = found.weights.shape[1], layer.embed_dim
    per_head = values[0][0].reshape(-1, heads, width // heads)  # (steps, H, d)
    projected = torch.stack(
        [
            per_head[:, h]
            @ layer.out_proj.weight[:, h * width // heads : (h + 1) * width // heads].T
            for h in range(heads)
        ]
    )  # (H, steps, D)
    weights = torch.from_numpy(found.weights[-1])  # (H, I, steps)
    summed = torch.einsum("hit,htd->id", weights, projected) + layer.out_proj.bias
    n_rows = len(hypothesis[1])
    torch.testing.assert_close(summed, outputs[0][0][-n_rows:], atol=1e-3, rtol=1e-3)
    norms = projected.norm(dim=-1)  # (H, steps)
    expected = weights * norms[:, None]
    np.testing.assert_allclose(found.value_norm[-1], expected, atol=1e-4, rtol=1e-3)


def test_batch_equals_single(model, decoded, hypothesis):
    inputs = torch.from_numpy(decoded["features"])[None]
    other = inputs + 0.1 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(0))
    padding = float(decoded["padding_value"])
    together = model.decode(model.encode(torch.cat([inputs, other]), padding), *hypothesis)
    for row, single in enumerate((inputs, other)):
        alone = model.decode(model.encode(single, padding), *hypothesis)
        torch.testing.assert_close(together[row], alone[0], atol=2e-3, rtol=1e-3)


def test_generate_of_a_batch_equals_single(model, states):
    prompt = model.prompt(TASK)
    pair = torch.cat([states, torch.zeros_like(states)])
    together = model.generate(pair, prompt, beam=2, max_new_tokens=20)
    alone = [model.generate(one[None], prompt, beam=2, max_new_tokens=20)[0] for one in pair]
    assert together == alone


def test_hypotheses_that_share_keys_are_those_of_the_library(model, states, monkeypatch):
    search = {"beam": 5, "max_new_tokens": 40}
    shared = model.generate(states, model.prompt(TASK), **search)
    monkeypatch.setattr(TransformersModel, "_shared_cross_attention", lambda _, x: nullcontext(x))
    assert model.generate(states, model.prompt(TASK), **search) == shared


def test_token_limit_is_kept_and_ends_without_end_of_sentence(model, states):
    prompt = model.prompt(TASK)
    (tokens,) = model.generate(states, prompt, beam=1, max_new_tokens=3)
    assert len(tokens) == 3
    assert model.token_table(tokens).roles == ["text"] * 3


def test_every_weight_is_read(model):
    assert not any(parameter.is_meta for parameter in model._network.parameters())
    assert model._network.config.vocab_size == 51_864


def test_transformers_directory_gives_the_same_model(model, states, hypothesis, tmp_path):
    model._network.save_pretrained(tmp_path)
    model._tokenizer.save(str(tmp_path / "tokenizer.json"))
    again = load_model(tmp_path, "whisper", device="cpu", precision="float32")
    assert isinstance(again._network, WhisperForConditionalGeneration)
    torch.testing.assert_close(again.decode(states, *hypothesis), model.decode(states, *hypothesis))


def test_bfloat16_stays_close(decoded, hypothesis, states, model):
    rough = load_model(
        model_directory("whisper-tiny.en"), "whisper", device="cpu", precision="bfloat16"
    )
    logits = rough.decode(states, *hypothesis)
    assert logits.dtype == torch.float32
    exact = model.decode(states, *hypothesis)
    assert 0 < (logits - exact).abs().max() < 2
    assert (logits.argmax(-1) == exact.argmax(-1)).float().mean() > 0.9


def test_prompt_refuses_what_the_model_cannot_do(model):
    with pytest.raises(UserError, match="English-only"):
        model.prompt(parse_task("asr-it"))


def test_audio_past_the_context_is_refused(model):
    with pytest.raises(UserError, match=r"lasts 31\.0 s.*at most 30 s"):
        model.features(np.zeros(31 * 16_000, dtype=np.float32))


def test_missing_tokenizer_is_told(tmp_path):
    with pytest.raises(UserError, match=r"has no tokenizer\.json"):
        load_model(tmp_path, "whisper", device="cpu", precision="float32")


@pytest.fixture(scope="module")
def occluded():
    drawn = torch.rand((3, 151), generator=torch.Generator().manual_seed(0)) < 0.5
    drawn[2] = True
    return drawn


@pytest.mark.parametrize("occluded_value", ["zero", "mean"])
def test_occluded_steps_become_the_value(model, states, hypothesis, occluded, occluded_value):
    """The fast way, with keys and values projected once, against vectors put into copies."""
    occluded_state = OCCLUDED_STATES[occluded_value](states[0, :151])
    hidden = torch.nn.functional.pad(occluded, (0, states.shape[1] - 151))[:, :, None]
    expected = model.decode(torch.where(hidden, occluded_state, states), *hypothesis)
    found = model.decode_occluded(states, occluded, *hypothesis, occluded_state)
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-4)
    assert (found[0] - found[1]).abs().max() > 0.1
    # Nothing stays behind in the model.
    assert not any("forward" in vars(module) for module in model._network.modules())


def test_hidden_steps_could_as_well_not_be_there(model, states, hypothesis, occluded):
    found = model.decode_occluded(states, occluded, *hypothesis, None)
    for row, hidden in enumerate(occluded):
        kept = torch.nn.functional.pad(~hidden, (0, states.shape[1] - 151), value=True)
        expected = model.decode(states[:, kept], *hypothesis)
        torch.testing.assert_close(found[row], expected[0], atol=2e-3, rtol=1e-4)


def test_encoder_attention_rows_sum_to_one(model, decoded):
    inputs = torch.from_numpy(decoded["features"])[None]
    found = model.encoder_attention(inputs, float(decoded["padding_value"]))
    assert found.shape == (4, 1500, 1500)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-4)
