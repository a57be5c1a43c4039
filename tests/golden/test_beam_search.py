"""Beam search of the Conformer against published values, in double precision."""

import json

import numpy as np
import pytest
import torch

from s2txai.models.conformer import SearchSettings, search
from tests.golden.test_conformer import network
from tests.golden.test_spes import read

GOLDEN = read("beam_case.npz")
CASES = {
    case["key"]: case
    for case in json.loads(str(GOLDEN["meta"]))["cases"]
    if case["key"].startswith("model1/")
}


@pytest.fixture(scope="module")
def model():
    return network(read("conformer_tiny_1.npz"))


@pytest.mark.parametrize("padded", [True, False])
@pytest.mark.parametrize("utterance", [0, 1])
@pytest.mark.parametrize("key", CASES)
def test_hypotheses_and_scores(model, key, utterance, padded):
    """Whether or not the states have the padding of a batch behind them."""
    case = CASES[key]
    lengths = torch.from_numpy(GOLDEN["model1/src_lengths"])[utterance : utterance + 1]
    features = torch.from_numpy(GOLDEN["model1/src_tokens"])[utterance : utterance + 1].double()
    states, valid = model.encode(features if padded else features[:, : int(lengths)], lengths)
    settings = SearchSettings(
        beam=case["beam_size"],
        last_step=case["max_len"],
        forced=[int(token) for token in GOLDEN[f"{key}/prefix"][utterance]],
        no_repeat_ngram=case["no_repeat_ngram_size"],
        unknown_penalty=case.get("unk_penalty", 0.0),
        length_penalty=case.get("len_penalty", 1.0),
    )
    (found,) = search(model, states, valid, settings)
    rows = np.flatnonzero(GOLDEN[f"{key}/utt"] == utterance)
    assert len(found) == len(rows) == case["beam_size"]
    for hypothesis, row in zip(found, rows, strict=True):
        tokens = GOLDEN[f"{key}/tokens"][row]
        assert hypothesis.tokens == tokens[tokens != 1].tolist()
        assert hypothesis.score == pytest.approx(GOLDEN[f"{key}/scores"][row], abs=1e-8)
        expected = GOLDEN[f"{key}/positional_scores"][row]
        np.testing.assert_allclose(
            hypothesis.token_scores, expected[~np.isnan(expected)], rtol=0, atol=1e-8
        )
