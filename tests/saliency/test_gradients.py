"""The gradient methods on models whose gradients are known."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from s2txai.errors import UserError
from s2txai.registry import load_object
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.engine import Masks, Perturbation
from s2txai.saliency.gradients import gradient_masks, log_probs_by_distance, row_maps
from s2txai.saliency.heard import Heard
from s2txai.saliency.maps import gradient_maps
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.methods import METHODS, GradientSettings, Method, mask_parameters
from s2txai.saliency.occluded_values import bin_mean
from s2txai.saliency.pooling import pool
from s2txai.saliency.segments import Segmentations
from s2txai.saliency.smx import INPUT, PerturbedInput, input_masks, smx
from s2txai.saliency.statistics import GradientStatistics, Statistics, gradient_map, heatmap
from tests.engine import add_changes, add_masks
from tests.tiny_whisper import NO_TIMESTAMPS, START, tiny_whisper
from tests.toy import PROMPT, SUBSAMPLING, LinearModel, WordModel

T, F, V, N_ROWS = 12, 3, 4, 3
STEPS = T // SUBSAMPLING
TOKENS = [2, 0, 1]
UNSAMPLED = [name for name in METHODS if not METHODS[name].sampled]


def features(seed=0, shape=(T, F)):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def heard(tokens=TOKENS):
    return Heard(features(), 0.0, [], tokens)


def heard_by_whisper(scale=1.0):
    inputs = np.float32(scale) * features(shape=(60, 8))
    return Heard(inputs, -0.7, [START, NO_TIMESTAMPS], [3, 1, 0])


def random_model(scale=1.0):
    weights = scale * np.random.default_rng(1).standard_normal((N_ROWS, STEPS, SUBSAMPLING * F, V))
    return LinearModel(weights), weights.reshape(N_ROWS, T, F, V)


def blocks(shape=(T, F)):
    """Two segmentations: blocks of 3 frames by 1 bin, and of 2 frames by all bins."""
    frame, frequency = np.indices(shape)
    fine, coarse = frame // 3 * shape[1] + frequency, frame // 2
    labels = np.stack([fine, coarse + fine.max() + 1]).astype(np.int32)
    sizes = (int(fine.max()) + 1, int(coarse.max()) + 1)
    return Segmentations(labels, ((1,), (2,)), sizes)


def make_masks(segments, n_masks=(8, 4), p=0.5):
    names = ("grad-slic-1", "grad-slic-2")
    return Masks(MaskPlan(1, "u1", names, segments.n_segments, n_masks, p), segments.labels)


def run(model, heard, masks, *, batch_size=16, statistics=None):
    if statistics is None:
        statistics = GradientStatistics.zeros(
            masks.segments, len(heard.tokens), SUBSAMPLING, heard.n_steps(SUBSAMPLING)
        )
    add_changes(statistics, model, heard, masks, batch_size=batch_size)
    return statistics


def softmax(logits):
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def drawn(plan, k):
    return plan.draw(k, 0, plan.n_masks[k])


# grad


def test_grad_of_a_linear_model_in_closed_form():
    """Logits are linear in the input, so the gradient of KL is W (p - p0) at the masked input."""
    model, weights = random_model(0.3)
    segments = blocks()
    masks = make_masks(segments)
    found, plan = run(model, heard(), masks), masks.plan
    x, value = features().astype(float), bin_mean(features(), 0.0).astype(float)
    p0 = softmax(np.einsum("tf,itfv->iv", x, weights))
    expected_sum = np.zeros_like(found.segment_sum)
    expected_map = np.zeros((N_ROWS, T, F))
    for k, first in enumerate((0, segments.n_segments[0])):
        labels = segments.labels[k] - first
        for m, mask in enumerate(drawn(plan, k)):
            masked = np.where(mask[labels], value, x)
            p = softmax(np.einsum("tf,itfv->iv", masked, weights))
            cells = np.einsum("itfv,iv->itf", weights, p - p0) * (value - x)
            for s in range(segments.n_segments[k]):
                inside = labels == s
                total = cells[:, inside].sum(axis=1)
                expected_sum[m % 4, first + s] += total
                expected_map[:, inside] += total[:, None] / inside.sum() / sum(plan.n_masks)
    np.testing.assert_allclose(found.segment_sum, expected_sum, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(gradient_map(found), expected_map, rtol=1e-4, atol=1e-6)
    assert np.abs(expected_sum).min(axis=(0, 1)).max() > 1e-3


def test_grad_of_whisper_agrees_with_autograd_one_mask_and_row_at_a_time():
    model, heard, segments = tiny_whisper(), heard_by_whisper(), blocks((60, 8))
    masks = make_masks(segments, (4, 4))
    found, plan = run(model, heard, masks), masks.plan
    x, value = torch.from_numpy(heard.features), torch.from_numpy(bin_mean(heard.features, 0.0))
    rest = heard.padding_value, heard.prompt, heard.tokens
    log_p0 = torch.log_softmax(model.differentiable_logits(x[None], *rest)[0], -1)
    expected = np.zeros_like(found.segment_sum)
    for k, first in enumerate((0, segments.n_segments[0])):
        labels = segments.labels[k] - first
        for m, mask in enumerate(drawn(plan, k)):
            for i in range(3):
                masked = torch.where(torch.from_numpy(mask[labels]), value, x).requires_grad_()
                log_p = torch.log_softmax(model.differentiable_logits(masked[None], *rest)[0], -1)
                (log_p0[i].exp() * (log_p0[i] - log_p[i])).sum().backward()
                cells = (masked.grad * (value - x)).numpy()
                for s in range(segments.n_segments[k]):
                    expected[m % 4, first + s, i] += cells[labels == s].sum()
    np.testing.assert_allclose(
        found.segment_sum, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max()
    )


def test_masks_that_change_nothing_have_no_gradient():
    # At the unperturbed input the divergence has its minimum.
    model, _ = random_model()
    found = run(model, heard(), make_masks(blocks(), p=0.0))
    np.testing.assert_allclose(found.segment_sum, 0, atol=1e-6)
    assert found.n_masks.sum() == 12


def test_grad_agrees_with_smx_where_cells_matter_to_different_degrees():
    """Each cell a segment, weights over a range of 20 to 1: the same order, from other masks."""
    rng = np.random.default_rng(5)
    sizes = rng.permutation(np.geomspace(0.05, 1, T * F)).reshape(T, F, 1)
    weights = rng.standard_normal((1, T, F, V)) * sizes
    model = LinearModel(weights.reshape(1, STEPS, SUBSAMPLING * F, V))
    labels = np.arange(T * F, dtype=np.int32).reshape(1, T, F)
    one_row = heard(TOKENS[:1])
    plan = MaskPlan(1, "u1", ("grad-slic-1",), (T * F,), (512,), 0.5)
    found = run(model, one_row, Masks(plan, labels), batch_size=512)
    statistics = Statistics.zeros(labels, 1, SUBSAMPLING, STEPS)
    plan = replace(plan, names=("slic-1",), n_masks=(4096,))
    score = PerturbedInput(model, one_row, Masks(plan, labels), "bin mean").score
    add_masks(statistics, score, plan, batch_size=512)
    grad, smx = gradient_map(found)[0].ravel(), heatmap(statistics)[0].ravel()
    assert spearmanr(grad, smx).statistic > 0.9
    assert np.corrcoef(grad, smx)[0, 1] > 0.98


@pytest.mark.parametrize("batch_size", [1, 5])
def test_numbers_do_not_depend_on_the_batch(batch_size):
    model, heard, masks = tiny_whisper(), heard_by_whisper(), make_masks(blocks((60, 8)))
    whole, other = (run(model, heard, masks, batch_size=size) for size in (16, batch_size))
    largest = np.abs(whole.segment_sum).max()
    np.testing.assert_allclose(whole.segment_sum, other.segment_sum, atol=1e-5 * largest)
    np.testing.assert_array_equal(whole.n_masks, other.n_masks)


def test_extended_is_in_one_go_and_folds_are_balanced():
    model, _ = random_model()
    segments = blocks()
    few = run(model, heard(), make_masks(segments, (6, 3)), batch_size=4)
    np.testing.assert_array_equal(few.n_masks, [[2, 1], [2, 1], [1, 1], [1, 0]])
    more = run(
        model, heard(), make_masks(segments, (8, 8)),
        batch_size=4, statistics=GradientStatistics.from_mapping(few.arrays()),
    )  # fmt: skip
    once = run(model, heard(), make_masks(segments, (8, 8)), batch_size=4)
    np.testing.assert_array_equal(once.n_masks, 2)
    np.testing.assert_allclose(more.segment_sum, once.segment_sum, rtol=1e-12)


def test_folds_add_up_to_the_map():
    model, _ = random_model()
    found = run(model, heard(), make_masks(blocks(), (8, 8)))
    parts = [gradient_map(found, [fold]) for fold in range(4)]
    np.testing.assert_allclose(gradient_map(found), np.mean(parts, axis=0), atol=1e-12)
    assert np.abs(parts[0] - parts[1]).max() > 0.01


def test_running_out_of_memory_halves_the_batch(caplog):
    model, _ = random_model()
    masks = make_masks(blocks())
    expected = run(model, heard(), masks)
    whole, sizes = model.differentiable_logits, []

    def cramped(inputs, *rest):
        if len(inputs) > 2:
            torch.empty(2**50, dtype=torch.float64)  # what running out looks like
        sizes.append(len(inputs))
        return whole(inputs, *rest)

    model.differentiable_logits = cramped
    found = run(model, heard(), masks, batch_size=8)
    assert max(sizes) == 2
    assert caplog.text.count("Out of memory") == 2
    np.testing.assert_allclose(found.segment_sum, expected.segment_sum, rtol=1e-9)


# The maps of log p


def maps(method, model, heard, *, batch_size=16, **parameters):
    log_probs, distance = log_probs_by_distance(model, heard)
    with torch.no_grad():
        ends = log_probs(torch.stack([distance, torch.zeros_like(distance)])).numpy()  # (2, I)
    found = row_maps(model, heard, method, batch_size=batch_size, **parameters)
    return found, ends[0] - ends[1]


def logistic():
    """Two classes, the second always at 0: log p of the first is that of a logistic model."""
    weights = np.zeros((1, STEPS, SUBSAMPLING * F, 2))
    weights[..., 0] = np.random.default_rng(3).standard_normal(weights.shape[:-1])
    return LinearModel(weights), weights[0, ..., 0].reshape(T, F)


def test_input_x_gradient_of_a_logistic_model():
    model, w = logistic()
    found, _ = maps("input_x_gradient", model, heard([0]))
    x, value = features().astype(float), bin_mean(features(), 0.0)
    expected = w * (1 - 1 / (1 + np.exp(-(w * x).sum()))) * (x - value)
    np.testing.assert_allclose(found[0], expected, rtol=1e-4)


def test_integrated_gradients_of_a_logistic_model():
    """The gradient is along w everywhere, so each cell gets its share of the difference."""
    model, w = logistic()
    found, difference = maps("integrated_gradients", model, heard([0]), n_points=50)
    shares = w * (features() - bin_mean(features(), 0.0))
    np.testing.assert_allclose(found[0], shares / shares.sum() * difference, rtol=1e-4)


@pytest.mark.parametrize("kind", ["linear", "whisper"])
def test_integrated_gradients_are_complete(kind):
    if kind == "linear":
        model, utterance = random_model()[0], heard()
    else:
        model, utterance = tiny_whisper(), heard_by_whisper(scale=0.3)
    found, difference = maps("integrated_gradients", model, utterance, n_points=200)
    np.testing.assert_allclose(found.sum(axis=(1, 2)), difference, rtol=0.01, atol=0.01)
    assert np.abs(difference).max() > 1
    few, _ = maps("integrated_gradients", model, utterance, n_points=2)
    assert np.abs(few.sum(axis=(1, 2)) - difference).max() > 0.05


@pytest.mark.parametrize("method", UNSAMPLED)
def test_maps_do_not_depend_on_the_batch(method):
    parameters = {"n_points": 9} if method == "integrated_gradients" else {}
    model, utterance = tiny_whisper(), heard_by_whisper()
    whole, single = (
        maps(method, model, utterance, batch_size=size, **parameters)[0] for size in (16, 2)
    )
    np.testing.assert_allclose(whole, single, atol=1e-5 * np.abs(whole).max())
    assert whole.dtype == np.float32
    assert whole.shape == (3, 60, 8)


def test_each_row_explains_its_own_token():
    """A word of the toy is heard in two frames of one bin, so its map is nothing elsewhere."""
    model = WordModel()
    inputs = np.random.default_rng(0).random((24, 4)).astype(np.float32)
    found, _ = maps("input_x_gradient", model, Heard(inputs, 0.0, PROMPT, [1, 3, 0]))
    for row in range(3):
        read = np.zeros((24, 4), dtype=bool)
        read[8 * row + 2 : 8 * row + 4] = True
        assert np.abs(found[row][read]).min() > 0
        assert not found[row][~read].any()


# Names


def test_every_method_is_computed():
    assert set(METHODS) == {"grad", "input_x_gradient", "integrated_gradients"}
    assert [name for name in METHODS if METHODS[name].sampled] == ["grad"]
    for method in (METHODS[name] for name in METHODS):
        compute = load_object(method.compute)
        assert isinstance(compute, Perturbation) if method.sampled else callable(compute)


def test_masks_have_names_of_their_own():
    """So that they, and hence the noise, are not those of SMX; all else is."""
    design = MaskDesign(8, n_segments=(100, 200), seed=1)
    smx, grad = (
        layout(heard(), design, utterance="u1", subsampling=SUBSAMPLING, time_only=False)
        for layout in (input_masks, gradient_masks)
    )
    assert grad.plan.names == tuple(f"grad-{name}" for name in smx.plan.names)
    assert replace(grad.plan, names=smx.plan.names) == smx.plan
    np.testing.assert_array_equal(grad.segments, smx.segments)


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(UserError, match="did you mean 'integrated_gradients'") as caught:
        METHODS["integrated_gradient"]
    assert "grad, input_x_gradient, integrated_gradients" in str(caught.value)


def test_a_sampled_method_of_ones_own_has_its_own_map(monkeypatch):
    """Any perturbation may be registered; its map is made as it says."""
    method = Method(INPUT, sampled=True, parameters=mask_parameters)
    monkeypatch.setattr(METHODS, "_entries", METHODS._entries | {"scores": method})
    settings = GradientSettings((200,), 0.5, 64, n_points=2, seed=3)
    design = MaskDesign.of(method.parameters(settings), seed=3)
    statistics = smx(random_model()[0], heard(), design, utterance="u1")
    maps = gradient_maps({"scores": statistics.arrays()})
    expected = pool(heatmap(statistics), "avg2d", SUBSAMPLING, statistics.n_steps)
    np.testing.assert_allclose(maps["scores"], expected, rtol=1e-6)
    assert maps["scores_halves"].shape == (3, 2, *expected.shape)
