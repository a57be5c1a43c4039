"""Scores of real weights on real speech: what precision, batches and compiling change."""

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer

from s2txai.datasets import parse_task
from s2txai.datasets.audio import read_audio
from s2txai.errors import UserError
from s2txai.models.loading import load_model, resolve_precision
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.smx import PerturbedInput, input_masks
from tests.weights import ROOT, model_directory

CLIP = ROOT / "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"
N_MASKS = 4
TEXT = " He was not an ill-disposed young man,"


def scores(batch_size=N_MASKS, **options):
    """Return the scores [masks, rows] of the first masks."""
    model = load_model(model_directory("whisper-tiny.en"), "whisper", device="cpu", **options)
    features = model.features(read_audio(CLIP, 16_000))
    tokenizer = Tokenizer.from_file(str(model_directory("whisper-tiny.en") / "tokenizer.json"))
    tokens = [
        *tokenizer.encode(TEXT, add_special_tokens=False).ids,
        tokenizer.token_to_id("<|endoftext|>"),
    ]
    prompt = model.prompt(parse_task("asr-en"))
    heard = Heard(features.values, features.padding_value, prompt, tokens)
    masks = input_masks(
        heard, MaskDesign(N_MASKS, n_segments=(300,)),
        utterance="u", subsampling=model.facts.subsampling, time_only=False,
    )  # fmt: skip
    score = PerturbedInput(model, heard, masks, "bin mean").score
    batches = [
        score(torch.from_numpy(masks.plan.draw(0, start, start + batch_size)), 0)
        for start in range(0, N_MASKS, batch_size)
    ]
    return torch.cat(batches).double().numpy()


@pytest.fixture(scope="module")
def single():
    return scores(precision="float32")


def difference(found, expected):
    """Return the mean difference as a share of the mean score."""
    return np.abs(found - expected).mean() / expected.mean()


@pytest.mark.model
def test_batches_hardly_matter(single):
    one_by_one = scores(batch_size=1, precision="float32")
    np.testing.assert_allclose(one_by_one, single, rtol=1e-3)
    assert difference(one_by_one, single) < 1e-5


@pytest.mark.model
@pytest.mark.parametrize(("precision", "most"), [("float16", 0.003), ("bfloat16", 0.03)])
def test_half_precision_is_near_single(single, precision, most):
    # Softmax and divergence stay in float32.
    assert 0 < difference(scores(precision=precision), single) < most


@pytest.mark.model
@pytest.mark.slow
def test_compiled_scores_are_the_same(single):
    assert difference(scores(precision="float32", compile=True), single) < 1e-4


def test_tf32_needs_a_gpu():
    with pytest.raises(UserError, match="Precision 'tf32' needs a GPU, which 'cpu' is not"):
        resolve_precision("tf32", "cpu")
    assert resolve_precision("tf32", "cuda") == "tf32"
