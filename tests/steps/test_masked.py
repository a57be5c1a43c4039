"""What the steps smx and smh share: masks are counted, kept and extended."""

import numpy as np
import pytest

from s2txai.saliency.heard import Heard
from s2txai.saliency.smh import smh
from s2txai.saliency.smx import smx
from s2txai.saliency.statistics import Statistics
from s2txai.steps.masked import CheckpointClock
from tests.studies import SMH, SMX, Study
from tests.toy import (
    Handle,
    WordModel,
)


def test_masks_are_all_counted(finished):
    for step in ("smx", "smh"):
        for artifact in finished.study.read(step):
            assert artifact["n_masks"].sum() == 600


def test_other_batches_change_no_mask(finished, tmp_path):
    other = Study(tmp_path, finished.study.utterances, WordModel())
    other.decode()
    other.smx(batch_size=7)
    other.smh(batch_size=5)
    for step in ("smx", "smh"):
        for one, same in zip(other.read(step), finished.study.read(step), strict=True):
            for name in Statistics.from_mapping(one.arrays).arrays():
                np.testing.assert_allclose(one[name], same[name], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("fewer", "more"), [(128, 256), (40, 100)])
@pytest.mark.parametrize(("step", "unit"), [("smx", "encode"), ("smh", "decode")])
def test_more_masks_run_only_what_is_missing(study, step, unit, fewer, more):
    """Also where the first ones end within a batch: both have the same bits."""
    study.decode()
    model = study.handle.model
    getattr(study, step)(n_masks=fewer, batch_size=16)
    model.calls.clear()
    getattr(study, step)(n_masks=more, batch_size=16)
    # Each of the two utterances: those masks, and the unperturbed input.
    assert model.calls[unit] == 2 * (more - fewer + 1)
    extended = study.files()
    fresh = Study(study.results.parent / "fresh", study.utterances, WordModel())
    fresh.decode()
    getattr(fresh, step)(n_masks=more, batch_size=16)
    assert fresh.files() == extended


@pytest.mark.parametrize(
    ("step", "change"),
    [
        ("smx", {"seed": 2}),
        ("smx", {"p": 0.4}),
        ("smx", {"n_segments": (400,)}),
        ("smh", {"seed": 2}),
        ("smh", {"p": 0.4}),
    ],
)
def test_other_parameters_are_other_work(finished, tmp_path, step, change):
    other = Study(tmp_path, finished.study.utterances, WordModel())
    other.store = finished.study.store
    other.decode()
    other.handle = Handle(None)
    getattr(other, step)()
    with pytest.raises(AssertionError, match="the model was loaded"):
        getattr(other, step)(**change)


def test_slow_writing_comes_less_often(monkeypatch):
    now = [0.0]
    monkeypatch.setattr("s2txai.steps.masked.time.monotonic", lambda: now[0])
    clock = CheckpointClock()

    def seconds_until_due():
        started = now[0]
        while not clock.due:
            now[0] += 0.5
        return now[0] - started

    assert seconds_until_due() == 5
    for cost, expected in ((0.01, 5), (0.1, 10), (0.2, 20), (60, 30), (0, 5)):
        with clock.writing():
            now[0] += cost
        assert seconds_until_due() == pytest.approx(expected, abs=0.5)


@pytest.mark.parametrize(
    ("step", "function", "design"), [("smx", smx, SMX), ("smh", smh, SMH)], ids=["smx", "smh"]
)
def test_without_the_step_the_bits_are_the_same(finished, step, function, design):
    """What the library makes of an utterance is what the step writes."""
    decoded, written = finished.study.read("decode"), finished.study.read(step)
    for artifact, result in zip(decoded, written, strict=True):
        found = function(
            WordModel(), Heard.of(artifact), design, utterance=artifact.meta["utterance"],
            batch_size={"smx": 32, "smh": 64}[step],
        )  # fmt: skip
        assert set(found.arrays()) <= set(result.arrays)
        for name, array in found.arrays().items():
            assert array.tobytes() == result[name].tobytes()
            assert array.dtype == result[name].dtype
