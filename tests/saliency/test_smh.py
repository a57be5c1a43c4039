import numpy as np
import pytest
import torch

from s2txai.errors import UserError
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.score_sums import GRID
from s2txai.saliency.scores import kl_divergence
from s2txai.saliency.smh import smh, state_score, step_segments
from s2txai.saliency.statistics import heatmap
from tests.toy import SUBSAMPLING, LinearModel

T, F, V, STEPS, D = 11, 3, 4, 6, 3 * SUBSAMPLING


def features(seed=0):
    return np.random.default_rng(seed).standard_normal((T, F)).astype(np.float32)


def heard(n_rows, padding_value=0.0):
    return Heard(features(), padding_value, [], [0] * n_rows)


def run(model, n_rows, n_masks, p=0.5, occluded_value="zero"):
    design = MaskDesign(n_masks, occluded_value, p=p, seed=1)
    return heatmap(smh(model, heard(n_rows), design, utterance="u1", batch_size=64))


def test_every_step_is_a_segment():
    segments = step_segments(STEPS)
    assert segments.dtype == np.int32
    np.testing.assert_array_equal(segments[0, :, 0], np.arange(STEPS))


@pytest.mark.parametrize(
    ("p", "occluded_value"), [(0.3, "zero"), (0.5, "zero"), (0.5, "mean")]
)  # fmt: skip
def test_one_step_a_row(p, occluded_value):
    """Row i reads step i: KL there, p times KL elsewhere, with the value of an occluded step."""
    own = np.eye(STEPS, dtype=bool)
    weights = own[:, :, None, None] * np.random.default_rng(1).standard_normal((1, 1, D, V))
    cells = np.zeros((STEPS * SUBSAMPLING, F))
    cells[:T] = features()
    states = cells.reshape(STEPS, D)
    value = np.zeros(D) if occluded_value == "zero" else states.mean(axis=0)
    changed = np.tile(value, (1, STEPS, 1)) @ weights[0, 0]
    score = kl_divergence(states @ weights[0, 0], changed)[0]

    found = run(LinearModel(weights), STEPS, 2048, p, occluded_value=occluded_value)
    assert found.shape == (STEPS, STEPS, 1)
    # Every mask that hides the step scores the same, rounded to the grid of the sums.
    np.testing.assert_allclose(found[own][:, 0], score, rtol=1e-12, atol=0.51 / GRID)
    share = found[:, :, 0][~own] / np.repeat(score, STEPS - 1)
    np.testing.assert_allclose(share, p, atol=4 * np.sqrt((1 - p) / 2048))
    assert share.std() > 0


def test_padding_is_never_hidden():
    weights = np.zeros((1, STEPS + 3, D, V))
    weights[0, STEPS:] = np.arange(V)
    model = LinearModel(weights, n_padding=3)
    score = state_score(model, heard(1, padding_value=0.7), "zero")
    assert score(torch.ones((1, STEPS), dtype=torch.bool), 0).item() == pytest.approx(0, abs=1e-12)


def test_the_encoder_runs_once():
    model = LinearModel(np.ones((2, STEPS, D, V)))
    run(model, 2, 256)
    assert model.calls == {"encode": 1, "decode": 257}


def test_a_model_that_cannot_hide_steps_says_so():
    with pytest.raises(UserError, match=r"cannot hide encoder steps: set 'smh\.occluded_value'"):
        run(LinearModel(np.ones((2, STEPS, D, V))), 2, 256, occluded_value="attention-mask")
