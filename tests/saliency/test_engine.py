"""The one loop over masks, through the three functions that perturb an utterance."""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from s2txai.errors import UserError
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.engine import BatchSize, Masks, grow
from s2txai.saliency.gradients import FIRST_ORDER, grad
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.smh import STATES, smh
from s2txai.saliency.smx import INPUT, smx
from s2txai.saliency.statistics import MaskSums
from tests.toy import EOS, PROMPT, SUBSAMPLING, WORD_FRAMES, WORDS, WordModel

WORDS_SAID = ["west", "south", "north", "east"]


def heard():
    """Return four words and their end, with noise in every cell."""
    rng = np.random.default_rng(0)
    said = [WORDS.index(word) for word in WORDS_SAID]
    loud = np.repeat(np.eye(len(WORDS))[said], WORD_FRAMES, axis=0)
    features = 0.1 + 0.8 * loud + rng.uniform(-0.05, 0.05, loud.shape)
    return Heard(features.astype(np.float32), 0.0, PROMPT, [*said, EOS])


DESIGNS = {
    smx: MaskDesign(64, n_segments=(400, 800), seed=1),
    smh: MaskDesign(64, "zero", seed=1),
    grad: MaskDesign(64, n_segments=(400, 800), seed=1),
}
PERTURBATIONS = {smx: INPUT, smh: STATES, grad: FIRST_ORDER}
every_function = pytest.mark.parametrize("function", DESIGNS, ids=lambda one: one.__name__)


def run(function, *, batch_size=16, statistics=None, on_batch=None, model=None, **changes):
    design = replace(DESIGNS[function], **changes)
    return function(
        model or WordModel(), heard(), design, utterance="u1", statistics=statistics,
        batch_size=batch_size, on_batch=on_batch,
    )  # fmt: skip


def as_bytes(statistics):
    return {name: array.tobytes() for name, array in statistics.arrays().items()}


def copy_of(statistics):
    arrays = {name: array.copy() for name, array in statistics.arrays().items()}
    return type(statistics).from_mapping(arrays)


@every_function
def test_statistics_have_the_masks_of_the_design(function):
    found = run(function)
    assert found.total_masks == 64
    assert isinstance(found, PERTURBATIONS[function].kind)
    # Nothing but what the caller names is needed.
    plain = function(WordModel(), heard(), DESIGNS[function])
    assert plain.total_masks == 64


@every_function
def test_the_name_of_the_utterance_and_the_seed_are_part_of_the_key(function):
    model, design = WordModel(), DESIGNS[function]
    first, same, other = (
        as_bytes(function(model, heard(), design, utterance=name, batch_size=16))
        for name in ("u1", "u1", "u2")
    )
    assert first == same
    assert first != other
    assert first != as_bytes(run(function, seed=2))


@every_function
@pytest.mark.parametrize("fewer", [12, 32, 40, 62])
def test_resumed_equals_uninterrupted_bit_for_bit(function, fewer):
    model = WordModel()
    first = run(function, n_masks=fewer)
    resumed = run(function, statistics=copy_of(first), model=model)
    whole = run(function)
    assert first.total_masks == fewer
    if function is grad and fewer % 32:
        # Changes of a batch are added up before they join the sums, so where a batch was cut the
        # last bits may differ.
        assert resumed.n_masks.tobytes() == whole.n_masks.tobytes()
        largest = np.abs(whole.segment_sum).max()
        np.testing.assert_allclose(
            resumed.segment_sum, whole.segment_sum, rtol=1e-12, atol=1e-12 * largest
        )
    else:
        assert as_bytes(resumed) == as_bytes(whole)
    # Only what was missing went through the model, and the unperturbed input.
    assert model.calls["decode"] == 64 - fewer + 1


@every_function
def test_killed_and_resumed_equals_uninterrupted_bit_for_bit(function):
    kept = []

    def on_batch(_, current):
        kept.append(copy_of(current()))
        if len(kept) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(function, batch_size=8, on_batch=on_batch)
    assert 0 < kept[-1].total_masks < 64
    resumed = run(function, batch_size=8, statistics=kept[-1])
    assert as_bytes(resumed) == as_bytes(run(function, batch_size=8))


@every_function
def test_statistics_of_enough_masks_need_no_model(function):
    statistics = run(function)
    before = as_bytes(statistics)
    model = WordModel()
    assert run(function, n_masks=32, statistics=statistics, model=model) is statistics
    assert as_bytes(statistics) == before
    assert model.calls["encode"] == 0


@every_function
def test_an_automatic_batch_gives_the_same_map(function):
    found, expected = run(function, batch_size="auto"), run(function)
    np.testing.assert_array_equal(found.n_masks, expected.n_masks)
    for name, array in expected.arrays().items():
        np.testing.assert_allclose(
            found.arrays()[name], array, rtol=0, atol=1e-5 * max(1, np.abs(array).max())
        )


@every_function
def test_each_round_reports_its_masks(function):
    reports = []

    def on_batch(n_new, current):
        reports.append((n_new, current().total_masks))

    run(function, on_batch=on_batch)
    counts = [n for n, _ in reports]
    assert sum(counts) == 64
    assert [total for _, total in reports] == np.cumsum(counts).tolist()
    # A batch of every segmentation.
    assert counts == [16] * 4 if function is smh else counts == [32, 32]


@every_function
def test_masks_are_added_up_to_the_target(function):
    reliability = PERTURBATIONS[function].reliability
    chunks = [run(function, n_masks=n) for n in range(16, 81, 16)]
    values = [reliability(one) for one in chunks]
    best = int(np.argmax(values))
    assert best > 0
    growing = {"n_masks": 16, "target_reliability": values[best], "max_masks": 160}
    found = run(function, **growing)
    # A chunk less is not reliable enough, a chunk more is not needed.
    assert found.total_masks == 16 * (best + 1)
    assert as_bytes(found) == as_bytes(chunks[best])
    # What is there already counts.
    resumed = run(function, **growing, statistics=copy_of(chunks[0]))
    assert as_bytes(resumed) == as_bytes(chunks[best])


@every_function
def test_the_search_for_the_target_ends(function):
    found = run(function, n_masks=16, target_reliability=1.01, max_masks=40)
    assert found.total_masks == 40


@dataclass
class Counted:
    """Sums of nothing, whose reliability is a table of the number of masks."""

    statistics_: MaskSums

    def add(self, occluded, k, start):
        self.statistics_.count(k, start, start + len(occluded))

    def work(self, n):
        return torch.ones(n)

    def statistics(self):
        return self.statistics_


def counted():
    return MaskSums(
        segments=np.arange(4, dtype=np.int32)[None, :, None],
        n_masks=np.zeros((4, 1), np.int64),
        subsampling=SUBSAMPLING,
        n_steps=2,
    )


@dataclass
class Reliable:
    """Stands for a perturbation whose reliability is a table of the number of masks."""

    of: Any

    def sums(self, model, heard, design, masks, statistics):
        return Counted(counted() if statistics is None else statistics)

    def reliability(self, statistics):
        return self.of(statistics.total_masks)


@pytest.mark.parametrize(
    ("of", "target", "most", "expected"),
    [
        (lambda n: n / 100, 0.25, 100, 30),
        (lambda n: n / 100, 0.30, 100, 30),
        (lambda n: 0.9, 0.25, 100, 10),
        (lambda n: 0.0, 0.25, 45, 45),
        (lambda n: float("nan"), 0.25, 45, 45),
        (lambda n: float("nan"), None, None, 10),
        (lambda n: 0.0, None, None, 10),
    ],
)
def test_growing_stops_at_the_first_multiple_that_is_reliable_enough(of, target, most, expected):
    design = MaskDesign(10, target_reliability=target, max_masks=most)
    masks = Masks(MaskPlan(0, "u", ("a",), (4,), (10,), 0.5), counted().segments)
    statistics, reliability = grow(
        Reliable(of), lambda: SimpleNamespace(device=torch.device("cpu")), None, design, masks,
        None, batch=BatchSize(3),
    )  # fmt: skip
    assert statistics.total_masks == expected
    np.testing.assert_equal(reliability, of(expected))


def test_growing_measures_what_is_there_without_adding():
    statistics = counted()
    statistics.count(0, 0, 10)
    masks = Masks(MaskPlan(0, "u", ("a",), (4,), (10,), 0.5), statistics.segments)

    def load():
        raise AssertionError("no mask is missing")

    found, reliability = grow(
        Reliable(lambda n: 0.4), load, None, MaskDesign(10), masks, statistics, batch=BatchSize(3)
    )
    assert found is statistics
    assert reliability == 0.4


def test_a_batch_size_is_settled_once_and_halved_for_good():
    batch = BatchSize("auto")
    assert batch.settle(lambda: 12) == 12
    assert batch.settle(lambda: 99) == 12
    assert batch.halve(MemoryError()) == 6
    assert batch.size == 6
    with pytest.raises(ValueError, match="another reason"):
        batch.halve(ValueError("another reason"))
    assert BatchSize(7).settle(lambda: 99) == 7
    with pytest.raises(UserError, match="not even hold a forward pass of one input"):
        BatchSize(1).halve(MemoryError())


@every_function
def test_an_input_that_does_not_fit_by_itself_is_a_sentence(function):
    model = WordModel()

    def no_memory(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    model.decode = no_memory
    with pytest.raises(UserError, match="not even hold a forward pass of one input"):
        run(function, model=model)
