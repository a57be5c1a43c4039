"""SPES on models whose saliency is known in closed form, and the running sums over masks."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, rel_entr, softmax

from s2txai.saliency import masks as masks_module
from s2txai.saliency.engine import Masks
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import MaskPlan, occlusion
from s2txai.saliency.occluded_values import bin_mean
from s2txai.saliency.score_sums import GRID
from s2txai.saliency.segments import Segmentations, masks_per_segmentation, segmentation_names
from s2txai.saliency.smx import PerturbedInput
from s2txai.saliency.statistics import Statistics, heatmap, token_heatmap
from s2txai.storage.artifacts import load, save
from s2txai.storage.provenance import describe
from tests.engine import add_masks
from tests.toy import SUBSAMPLING, LinearModel

T, F, V = 6, 4, 3
STEPS = T // SUBSAMPLING
# Six segments of two frames and two bins.
BLOCKS = (np.arange(T)[:, None] // 2 * 2 + np.arange(F) // 2).astype(np.int32)
S = 6
ONE = Segmentations(BLOCKS[None], levels=((100,),), n_segments=(S,))
# A second segmentation: one segment a frame, ids from S on.
FRAMES = np.broadcast_to(np.arange(T, dtype=np.int32)[:, None] + S, (T, F))
TWO = Segmentations(np.stack([BLOCKS, FRAMES]), levels=((100,), (200, 300)), n_segments=(S, T))


def spectrogram(seed=0):
    return np.random.default_rng(seed).standard_normal((T, F)).astype(np.float32)


def linear_model(cell_weights):
    """Return the model whose logits are the weights [I, T, F, V] times the cells, summed."""
    n_rows = len(cell_weights)
    return LinearModel(cell_weights.reshape(n_rows, STEPS, SUBSAMPLING * F, V))


def plan_of(segmented, n_masks, p=0.5, utterance="u1"):
    return MaskPlan(
        seed=3,
        utterance=utterance,
        names=segmentation_names(segmented),
        sizes=segmented.n_segments,
        n_masks=n_masks,
        p=p,
    )


def run(score, segmented, n_masks, n_rows, *, p=0.5, statistics=None, **options):
    if statistics is None:
        statistics = Statistics.zeros(segmented.labels, n_rows, SUBSAMPLING, STEPS)
    add_masks(statistics, score, plan_of(segmented, n_masks, p), **options)
    return statistics


def score_of(model, features, segmented, n_rows, padding_value=0.0):
    heard = Heard(features, padding_value, [], [0] * n_rows)
    masks = Masks(plan_of(segmented, n_masks=()), segmented.labels)
    return PerturbedInput(model, heard, masks, "bin mean").score


def saliency(model, features, segmented, n_masks, n_rows, **options):
    score = score_of(model, features, segmented, n_rows)
    return heatmap(run(score, segmented, n_masks, n_rows, **options))


def all_masks(n_segments):
    return np.array(list(product([False, True], repeat=n_segments)))  # (2^S, S)


def every_mask_once(**asked):
    return all_masks(asked["n_segments"])[asked["start"] : asked["stop"]]


def divergence(weights, features, perturbed):
    """Return KL of each row between two inputs [T, F], from its definition."""
    reference, moved = (np.einsum("tf,itfv->iv", cells, weights) for cells in (features, perturbed))
    p0 = softmax(reference, axis=-1)
    return (p0 * (log_softmax(reference, axis=-1) - log_softmax(moved, axis=-1))).sum(axis=-1)


def occlude(features, hidden):
    """Return the input with the cells of ``hidden`` at the mean of their bin."""
    return np.where(hidden, features.mean(axis=0, dtype=np.float64).astype(np.float32), features)


def one_segment_a_row():
    """Row i depends on segment i alone, linearly."""
    weights = np.random.default_rng(1).standard_normal((S, T, F, V))
    return weights * (np.arange(S)[:, None, None] == BLOCKS)[..., None]


def expected_for_one_segment_a_row(weights, features, p):
    """KL where a row's own segment is hidden for sure; elsewhere it is hidden with probability p.

    Returns [I, T, F].
    """
    score = np.stack(
        [divergence(weights, features, occlude(features, s == BLOCKS))[s] for s in range(S)]
    )
    own = np.arange(S)[:, None, None] == BLOCKS
    return score[:, None, None] * np.where(own, 1, p), own


@pytest.mark.parametrize("p", [0.3, 0.5])
def test_one_segment_a_row(p):
    weights, features = one_segment_a_row(), spectrogram()
    expected, own = expected_for_one_segment_a_row(weights, features, p)
    found = saliency(linear_model(weights), features, ONE, (2048,), S, p=p)
    assert expected.max() > 0.1
    # Every mask that hides the row's own segment scores the same: no sampling error there.
    np.testing.assert_allclose(found[own], expected[own], rtol=1e-10)
    # Elsewhere the score is counted as often as the own segment is hidden, too: a share p of the
    # about 2048 p masks, with four standard errors of tolerance.
    tolerance = 4 * np.sqrt((1 - p) / 2048)
    np.testing.assert_allclose(found / expected, 1, atol=tolerance / p)


def test_one_segment_a_row_is_exact_over_all_masks(monkeypatch):
    monkeypatch.setattr(masks_module, "occlusion", every_mask_once)
    weights, features = one_segment_a_row(), spectrogram()
    expected, _ = expected_for_one_segment_a_row(weights, features, 0.5)
    found = saliency(linear_model(weights), features, ONE, (2**S,), S)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


@pytest.fixture(scope="module")
def linear():
    """A model linear in all features, and its expected saliency [I, T, F] by enumeration."""
    weights, features = np.random.default_rng(2).standard_normal((4, T, F, V)) / 2, spectrogram(5)
    masks = all_masks(S)
    scores = np.stack([divergence(weights, features, occlude(features, m[BLOCKS])) for m in masks])
    by_segment = np.stack([scores[masks[:, s]].mean(axis=0) for s in range(S)], axis=1)  # (I, S)
    return weights, features, by_segment[:, BLOCKS]


def test_model_linear_in_the_features_has_known_saliency(linear):
    weights, features, expected = linear
    found = saliency(linear_model(weights), features, ONE, (4096,), 4)
    assert expected.std() > 0.05 * expected.mean()
    np.testing.assert_allclose(found, expected, rtol=0.06)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_model_linear_in_the_features_is_exact_over_all_masks(linear, monkeypatch):
    monkeypatch.setattr(masks_module, "occlusion", every_mask_once)
    weights, features, expected = linear
    found = saliency(linear_model(weights), features, ONE, (2**S,), 4)
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_score_linear_in_the_masks(monkeypatch):
    """E[sum of w over hidden segments | s hidden] = w_s + p times the sum of the others."""
    monkeypatch.setattr(masks_module, "occlusion", every_mask_once)
    w = torch.arange(1, S + 1, dtype=torch.float64)
    found = heatmap(run(lambda occluded, k: (occluded * w).sum(1)[:, None], ONE, (2**S,), 1))
    expected = (w + 0.5 * (w.sum() - w)).numpy()
    np.testing.assert_allclose(found[0], expected[BLOCKS], rtol=1e-12)


def test_cells_that_do_not_matter_or_do_not_change_have_no_saliency():
    features = spectrogram()
    features[:, 3] = 2.0  # hidden or not, the bin holds its mean
    weights = np.zeros((2, T, F, V))
    weights[0, :, 3, 0] = 1
    weights[1, 0, 0, 0] = 1
    found = saliency(linear_model(weights), features, ONE, (128,), 2)
    np.testing.assert_allclose(found[0], 0, atol=1e-12)
    assert found[1].min() > 0


def test_occluded_value_is_the_mean_of_the_bin():
    features = np.array([[1, 1e8], [2, 1], [6, 1]], np.float32)
    value = bin_mean(features, 0.0)
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, [3, (1e8 + 2) / 3], rtol=1e-7)


def test_padding_is_never_perturbed():
    """A row that reads only padding has no saliency, also when the padding is not 0."""
    weights = np.zeros((1, STEPS + 2, SUBSAMPLING * F, V))
    weights[:, STEPS:] = np.arange(V)
    model = LinearModel(weights, n_padding=2)
    score = score_of(model, spectrogram(), ONE, 1, padding_value=1.5)
    hidden = torch.ones((1, S), dtype=torch.bool)
    assert score(hidden, 0).item() == pytest.approx(0, abs=1e-12)


# The running sums


def weird_score(n_rows=3):
    """A score of no special form: differs by mask, segmentation and row."""
    weights = torch.from_numpy(np.random.default_rng(0).standard_normal((n_rows, S)))

    def score(occluded, k):
        # Not a matrix product, whose rounding may depend on the number of masks.
        return torch.sin((occluded[:, None] * weights).sum(dim=-1) * (k + 1)) + 2

    return score


def as_bytes(statistics):
    return {name: array.tobytes() for name, array in statistics.arrays().items()}


def assert_close(statistics, other, **tolerance):
    for name, array in statistics.arrays().items():
        np.testing.assert_allclose(array, other.arrays()[name], err_msg=name, **tolerance)


def directly(score, segmented, n_masks, n_rows, p=0.5):
    """Sum masks one by one."""
    statistics = Statistics.zeros(segmented.labels, n_rows, SUBSAMPLING, STEPS)
    first = 0
    for k, (size, name) in enumerate(
        zip(segmented.n_segments, segmentation_names(segmented), strict=True)
    ):
        asked = {"seed": 3, "utterance": "u1", "segmentation": name, "n_segments": size, "p": p}
        masks = occlusion(start=0, stop=n_masks[k], **asked)
        for m, mask in enumerate(masks):
            fold, value = m % 4, score(torch.from_numpy(mask[None]), k)[0].numpy()
            value = np.round(value * GRID) / GRID
            for s in np.flatnonzero(mask):
                statistics.occluded_sum[fold, first + s] += value
                statistics.occluded_count[fold, first + s] += 1
            statistics.score_sum[fold, k] += value
            statistics.score_square_sum[fold, k] += value**2
            statistics.n_masks[fold, k] += 1
        first += size
    return statistics


@pytest.mark.parametrize("p", [0.2, 0.5])
def test_sums_by_fold_and_segmentation(p):
    found = run(weird_score(), TWO, (70, 142), 3, p=p)
    # Bit for bit those of one mask after the other.
    assert as_bytes(found) == as_bytes(directly(weird_score(), TWO, (70, 142), 3, p))
    np.testing.assert_array_equal(found.n_masks.T, [[18, 18, 17, 17], [36, 36, 35, 35]])


@pytest.mark.parametrize("batch_size", [1, 5, 64, 1000])
def test_batches_do_not_matter(batch_size):
    weights, features = np.random.default_rng(2).standard_normal((4, T, F, V)), spectrogram()
    score = score_of(linear_model(weights), features, TWO, 4)
    found = run(score, TWO, (100, 150), 4, batch_size=batch_size)
    assert_close(found, run(score, TWO, (100, 150), 4, batch_size=16), rtol=0, atol=1e-9)


@pytest.mark.parametrize("batch_size", [1, 5, 64, 1000])
def test_sums_of_the_same_scores_are_the_same_bits_for_any_batches(batch_size):
    found = all_sums((100, 150), batch_size=batch_size)
    assert as_bytes(found) == as_bytes(all_sums((100, 150), batch_size=16))


def all_sums(n_masks, statistics=None, **options):
    """Return statistics with logarithms and preceding tokens."""
    plain = weird_score(3)

    def score(occluded, k, tokens):
        return plain(occluded, k) + tokens.sum(dim=1, keepdim=True)

    if statistics is None:
        statistics = Statistics.zeros(
            TWO.labels, 3, SUBSAMPLING, STEPS, logarithms=True, tokens=True
        )
    add_masks(statistics, score, replace(plan_of(TWO, n_masks), token_p=0.3), **options)
    return statistics


def stored(statistics, path):
    source = dict.fromkeys(["utterance", "model_sha256", "audio_sha256", "task"], "x")
    save(path, statistics.arrays(), describe("smx", source, {}, Statistics.AXES, Statistics.UNITS))
    return Statistics.from_mapping(load(path, "smx").arrays)


@pytest.mark.parametrize("survived", [1, 2, 3])
def test_resumed_run_equals_an_uninterrupted_one_bit_for_bit(survived, tmp_path):
    score, n_masks = weird_score(), (150, 300)
    whole = run(score, TWO, n_masks, 3)
    checkpoints = 0

    def on_batch(_, current):
        nonlocal checkpoints
        stored(current(), tmp_path / "entry.npz")
        checkpoints += 1

    def killed_score(occluded, k):
        if checkpoints == survived:
            raise KeyboardInterrupt
        return score(occluded, k)

    with pytest.raises(KeyboardInterrupt):
        run(killed_score, TWO, n_masks, 3, on_batch=on_batch)
    kept = Statistics.from_mapping(load(tmp_path / "entry.npz").arrays)
    assert kept.n_masks.sum() == 2 * survived * 32  # a batch of each segmentation
    resumed = run(score, TWO, n_masks, 3, statistics=kept)
    assert as_bytes(resumed) == as_bytes(whole)


def test_more_masks_extend_a_result(tmp_path):
    score = weird_score()
    first = stored(run(score, ONE, (480,), 3, batch_size=16), tmp_path / "entry.npz")
    scored = []

    def counting(occluded, k):
        scored.append(len(occluded))
        return score(occluded, k)

    extended = run(counting, ONE, (960,), 3, batch_size=16, statistics=first)
    assert as_bytes(extended) == as_bytes(run(score, ONE, (960,), 3, batch_size=16))
    assert sum(scored) == 480


def test_masks_that_end_within_a_batch_are_extended_bit_for_bit():
    first = all_sums((26, 13), batch_size=16)
    extended = all_sums((66, 33), batch_size=16, statistics=first)
    assert as_bytes(extended) == as_bytes(all_sums((66, 33), batch_size=16))


@settings(max_examples=20, deadline=None)
@given(
    fewer=st.integers(1, 150),
    more=st.integers(0, 150),
    batch_sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
)
def test_any_two_stages_give_the_same_sums(fewer, more, batch_sizes):
    score, total = weird_score(1), fewer + more
    first = run(score, TWO, (fewer, fewer), 1, batch_size=batch_sizes[0])
    found = run(score, TWO, (total, total), 1, batch_size=batch_sizes[1], statistics=first)
    assert as_bytes(found) == as_bytes(run(score, TWO, (total, total), 1))


OUT_OF_MEMORY = {
    "cuda": lambda: torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "older cuda": lambda: RuntimeError("CUDA error: out of memory"),
    "cublas": lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublas`"),
    "cpu": lambda: RuntimeError("[enforce] DefaultCPUAllocator: can't allocate memory: you tried"),
    "python": lambda: MemoryError(),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_batches_are_halved_when_memory_runs_out(kind, caplog):
    sizes = []

    def score(occluded, k):
        sizes.append(len(occluded))
        if len(occluded) > 5:
            raise OUT_OF_MEMORY[kind]()
        return weird_score()(occluded, k)

    found = Statistics.zeros(TWO.labels, 3, SUBSAMPLING, STEPS)
    last = add_masks(found, score, plan_of(TWO, (40, 60)), batch_size=20)
    assert last == 5
    assert sizes == [20, 10] + 20 * [5]
    assert "Out of memory with batches of 20: going on with 10." in caplog.text
    assert as_bytes(found) == as_bytes(run(weird_score(), TWO, (40, 60), 3))


def test_memory_that_runs_out_while_summing_leaves_the_sums_whole(monkeypatch):
    """The terms are computed before any of them is added."""
    real, calls = torch.addmm, []

    def addmm(*arguments):
        calls.append(arguments)
        if len(calls) == 3:  # between the first folds and the last
            raise OUT_OF_MEMORY["cuda"]()
        return real(*arguments)

    monkeypatch.setattr(torch, "addmm", addmm)
    found = run(weird_score(), TWO, (40, 60), 3)
    assert len(calls) > 3
    assert as_bytes(found) == as_bytes(run(weird_score(), TWO, (40, 60), 3))


def test_other_errors_of_the_model_are_not_swallowed():
    def score(occluded, k):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="cannot be multiplied"):
        run(score, ONE, (40,), 3)


def test_fewer_masks_than_there_are_change_nothing():
    statistics = run(weird_score(), ONE, (128,), 3)
    before = as_bytes(statistics)

    def never(occluded, k):
        raise AssertionError("no mask is missing")

    assert as_bytes(run(never, ONE, (64,), 3, statistics=statistics)) == before


def test_only_the_segmentation_that_lacks_masks_gets_some():
    statistics = run(weird_score(), TWO, (128, 10), 3)
    run(weird_score(), TWO, (64, 64), 3, statistics=statistics)
    assert statistics.n_masks.sum(axis=0).tolist() == [128, 64]
    assert_close(statistics, run(weird_score(), TWO, (128, 64), 3), rtol=1e-12)


def test_progress_counts_every_mask_and_checkpoints_follow_batches():
    counted, saved = [], []

    def on_batch(n_new, current):
        counted.append(n_new)
        saved.append(current().n_masks.sum(axis=0).tolist())

    run(weird_score(), TWO, (70, 142), 3, batch_size=64, on_batch=on_batch)
    assert sum(counted) == 70 + 142
    assert saved == [[64, 64], [70, 128], [70, 142]]


def test_batches_end_at_multiples_of_their_size():
    """So that a run that is continued computes the same batches as one that was not stopped."""
    sizes = []

    def score(occluded, k):
        sizes.append(len(occluded))
        return torch.ones(len(occluded), 1)

    stopped = run(score, ONE, (100,), 1, batch_size=48)
    assert sizes == [48, 48, 4]
    sizes.clear()
    run(score, ONE, (200,), 1, batch_size=64, statistics=stopped)
    assert sizes == [28, 64, 8]


def test_single_precision_scores_are_summed_in_double():
    found = run(lambda occluded, k: torch.full((len(occluded), 1), 0.1), ONE, (4096,), 1)
    assert found.score_sum.sum() == pytest.approx(4096 * float(np.float32(0.1)), rel=1e-13)


def test_merged_levels_share_their_masks():
    assert masks_per_segmentation(480, TWO) == (160, 320)
    assert masks_per_segmentation(100, TWO) == (33, 66)
    assert masks_per_segmentation(480, ONE) == (480,)
    assert segmentation_names(TWO) == ("slic-100", "slic-200")


def test_pooled_segmentations_are_exact_over_all_masks(monkeypatch):
    """Total score over total count, whatever the numbers of masks."""
    monkeypatch.setattr(masks_module, "occlusion", every_mask_once)
    small = Segmentations(
        np.stack([BLOCKS // 2, BLOCKS % 2 + 3]).astype(np.int32), ((1,), (2,)), (3, 2)
    )
    w = [torch.tensor(values, dtype=torch.float64) for values in ([1, 2, 4], [8, 16])]
    found = run(lambda occluded, k: (occluded * w[k]).sum(1)[:, None], small, (8, 4), 1)
    by_segment = [(w[k] + (w[k].sum() - w[k]) / 2).numpy() for k in range(2)]
    expected = (4 * by_segment[0][BLOCKS // 2] + 2 * by_segment[1][BLOCKS % 2]) / 6
    np.testing.assert_allclose(heatmap(found)[0], expected, rtol=1e-12)


def test_definition_used_here_is_scipy_s():
    weights, features = one_segment_a_row(), spectrogram()
    perturbed = occlude(features, BLOCKS == 0)
    one, other = (softmax(np.einsum("tf,itfv->iv", x, weights), -1) for x in (features, perturbed))
    np.testing.assert_allclose(
        divergence(weights, features, perturbed), rel_entr(one, other).sum(-1), atol=1e-12
    )


class ChainModel(LinearModel):
    """Row i reads the tokens before it: its logits move by ``strength[i, j]`` if j is hidden."""

    def __init__(self, strength):
        super().__init__(np.zeros((len(strength), STEPS, SUBSAMPLING * F, V)))
        self._strength = torch.as_tensor(strength)

    def decode_without_tokens(self, states, occluded, prompt, tokens):
        logits = self.decode(states, prompt, tokens).clone()
        logits[:, :, 0] += occluded.double() @ self._strength.T
        return logits


def test_preceding_tokens():
    strength = np.tril([[1.0, 0, 0], [0, 2, 0], [3, 0, 0]])
    score = score_of(ChainModel(strength), spectrogram(), ONE, 3)
    statistics = Statistics.zeros(ONE.labels, 3, SUBSAMPLING, STEPS, tokens=True)
    add_masks(statistics, score, replace(plan_of(ONE, (2048,)), token_p=0.25))
    # Without weights for the input the divergence of a row is known from the tokens alone.
    kl = {x: float(np.log(3) * -1 - log_softmax([x, 0, 0]).mean()) for x in (1.0, 2.0, 3.0)}
    own = np.zeros((3, 3))
    own[0, 0], own[1, 1], own[2, 0] = kl[1.0], kl[2.0], kl[3.0]
    found = token_heatmap(statistics)[:, :, 0]
    np.testing.assert_allclose(found[own > 0], own[own > 0], rtol=1e-9)
    # A token that does not matter is hidden together with the one that does in a share p of masks.
    bystanders = np.tril(np.ones((3, 3))) - (own > 0)
    rows, columns = np.nonzero(bystanders)
    expected = 0.25 * own.sum(axis=1)[rows]
    np.testing.assert_allclose(found[rows, columns], expected, rtol=0.25)
    assert np.all(np.triu(found, 1) == 0)
    share = statistics.token_count / statistics.n_masks.sum()
    np.testing.assert_allclose(share, 0.25, atol=0.04)
    # Sums over cells are there as well, and the masks of cells are those of a run without tokens.
    plain = run(score, ONE, (2048,), 3)
    np.testing.assert_array_equal(statistics.occluded_count, plain.occluded_count)


def test_without_occluded_tokens_there_is_no_map_of_them():
    with pytest.raises(ValueError, match="token_p"):
        token_heatmap(run(weird_score(), ONE, (32,), 3))
