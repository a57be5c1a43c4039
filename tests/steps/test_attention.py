"""The step attention: that of the toy model is planted."""

import numpy as np

from tests.studies import TEXTS
from tests.toy import (
    PLANTED,
    WORD_STEPS,
    step_of,
)


def test_attention(finished):
    for artifact, text in zip(finished.study.read("attention"), TEXTS.values(), strict=True):
        n_words = len(text.split())
        weights = artifact["cross_attention"]
        assert weights.shape == (1, 2, n_words + 1, n_words * WORD_STEPS)
        np.testing.assert_allclose(weights.sum(-1) + artifact["padding_mass"], 1, rtol=1e-6)
        np.testing.assert_allclose(artifact["padding_mass"], 0.1, rtol=1e-6)
        best = weights[0, PLANTED, :n_words].argmax(axis=-1)
        assert best.tolist() == [step_of(row) for row in range(n_words)]
        np.testing.assert_allclose(artifact["value_norm_attention"], 2 * weights)
