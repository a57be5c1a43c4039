import numpy as np
import pytest

from s2txai.saliency.attention import attention, rollout
from s2txai.saliency.heard import Heard
from tests.planted import (
    LOOKING,
    N_PADDING,
    READING,
    PlantedModel,
    energies,
    mixing_matrix,
    reading_attention,
)


def stochastic(rng, n):
    weights = rng.random((n, n))
    return weights / weights.sum(axis=1, keepdims=True)


def test_rollout_of_one_layer_keeps_half():
    weights = stochastic(np.random.default_rng(0), 5)
    np.testing.assert_allclose(rollout([weights]), 0.5 * weights + 0.5 * np.eye(5))


def test_rollout_multiplies_from_input_to_output():
    # The first layer moves step 1 to step 0, the second step 0 to step 2: half of half of step 1
    # arrives at step 2. In the other order nothing would.
    first, second = np.eye(3), np.eye(3)
    first[0] = [0, 1, 0]
    second[2] = [1, 0, 0]
    expected = [[0.5, 0.5, 0], [0, 1, 0], [0.25, 0.25, 0.5]]
    np.testing.assert_allclose(rollout([first, second]), expected)


def test_rows_of_a_rollout_sum_to_one():
    rng = np.random.default_rng(0)
    layers = [1.01 * stochastic(rng, 7) for _ in range(6)]  # as rounding leaves them
    np.testing.assert_allclose(rollout(layers).sum(axis=1), 1)


def test_even_attention_forgets_where_a_step_was():
    n, depth = 8, 30
    found = rollout([np.full((n, n), 1 / n)] * depth)
    kept = 0.5**depth
    np.testing.assert_allclose(found, kept * np.eye(n) + (1 - kept) / n)


@pytest.mark.parametrize("mixing", [0.0, 0.3, 0.5])
def test_planted_mixing_is_rolled_out(mixing):
    features = energies("yes no no yes").astype(np.float32)
    found = attention(PlantedModel(mixing), Heard(features, 0.0, [9], [0, 1, 1, 0, 3]))
    planted = reading_attention(16)
    np.testing.assert_allclose(
        found["rolled_out_attention"][READING, LOOKING, :4],
        planted @ mixing_matrix(16, mixing),
        rtol=1e-5, atol=1e-7,
    )  # fmt: skip
    # What is mixed is lost to no one: steps over padding keep theirs.
    np.testing.assert_allclose(
        found["rolled_out_attention"].sum(-1), found["cross_attention"].sum(-1), rtol=1e-5
    )


def test_what_padding_took_from_speech_counts():
    class Leaking(PlantedModel):
        def encoder_attention(self, features, padding_value):
            weights = super().encoder_attention(features, padding_value)
            weights[0, -N_PADDING:] = np.eye(weights.shape[1])[0]  # padding looks at step 0
            return weights

    features = energies("yes no").astype(np.float32)
    heard = Heard(features, 0.0, [9], [0, 1, 3])
    plain, leaking = (attention(model(), heard) for model in (PlantedModel, Leaking))
    gained = leaking["rolled_out_attention"] - plain["rolled_out_attention"]
    np.testing.assert_allclose(gained[..., 0], 0.5 * plain["padding_mass"], rtol=1e-5)
    np.testing.assert_allclose(gained[..., 1:], 0, atol=1e-7)


def test_without_self_attention_at_the_steps_nothing_is_rolled_out():
    features = energies("yes no").astype(np.float32)
    found = attention(PlantedModel(0.8), Heard(features, 0.0, [9], [0, 1, 3]))
    assert set(found) == {"cross_attention", "value_norm_attention", "padding_mass"}
