"""The step smh, and how masks are added to a target."""

import numpy as np
import pytest
import torch

from s2txai.storage.failures import failures
from tests.studies import Study
from tests.toy import (
    WordModel,
)


def test_outputs_that_are_no_numbers_never_reach_the_store(study, monkeypatch):
    """As of a network that overflows in float16 under some mask."""
    monkeypatch.setattr("s2txai.steps.masked.SECONDS_BETWEEN_CHECKPOINTS", 0)
    study.decode()
    model, decode = study.handle.model, WordModel.decode
    passes = 0

    def overflowing(states, prompt, tokens):
        nonlocal passes
        passes += 1
        logits = decode(model, states, prompt, tokens)
        return logits * torch.nan if passes == 4 else logits

    model.decode = overflowing
    study.smh()
    failed = failures(study.place("smh").output, [one.id for one in study.utterances])
    assert ["not finite on this input" in one.message for one in failed] == [True]
    del model.decode
    study.smh()
    assert all(np.isfinite(one["occluded_sum"]).all() for one in study.read("smh"))
    assert [one["n_masks"].sum() for one in study.read("smh")] == [600, 600]


def test_a_killed_step_continues_at_its_last_checkpoint(study, monkeypatch):
    monkeypatch.setattr("s2txai.steps.masked.SECONDS_BETWEEN_CHECKPOINTS", 0)
    study.decode()
    model, decode = study.handle.model, WordModel.decode
    passes = 0

    def killed(states, prompt, tokens):
        nonlocal passes
        passes += 1
        if passes == 9:
            raise KeyboardInterrupt
        return decode(model, states, prompt, tokens)

    model.decode = killed
    with pytest.raises(KeyboardInterrupt):
        study.smh()
    del model.decode
    model.calls.clear()
    study.smh()
    # 9 passes of 64 masks: one for the unperturbed input, 7 done, one killed.
    assert model.calls["decode"] == (600 - 7 * 64 + 1) + (600 + 1)
    whole = Study(study.results.parent / "whole", study.utterances, WordModel())
    whole.decode()
    whole.smh()
    assert whole.files() == study.files()


def masks_told(study, step):
    return {artifact.meta["utterance"]: artifact.meta["masks"] for artifact in study.read(step)}


def test_masks_are_added_until_the_target_is_reached(study):
    study.decode()
    design = {"n_masks": 64, "batch_size": 64, "max_masks": 4000}
    study.smh(**design, target_reliability=0.9)
    told = masks_told(study, "smh")
    for utterance, masks in told.items():
        assert masks["converged"] is True
        assert masks["reliability"] >= 0.9
        assert masks["n_masks"] % 64 == 0
        assert 64 < masks["n_masks"] < 4000, utterance
    # With one chunk less the target was not reached.
    fewer = Study(study.results.parent / "fewer", study.utterances, WordModel())
    fewer.decode()
    n_masks = told["five"]["n_masks"] - 64
    fewer.smh(n_masks=n_masks, batch_size=64)
    plain = masks_told(fewer, "smh")["five"]
    assert plain["reliability"] < 0.9
    assert plain["target_reliability"] is plain["converged"] is None


def test_the_search_for_the_target_ends(study, caplog):
    study.decode()
    study.smh(n_masks=64, max_masks=160, target_reliability=0.99)
    for masks in masks_told(study, "smh").values():
        assert masks["n_masks"] == 160
        assert masks["converged"] is False
    assert "reliability" in caplog.text
    assert "under the target of 0.99: raise 'smh.max_masks'." in caplog.text


def test_a_target_counts_the_masks_of_the_store(study):
    study.decode()
    study.smh(n_masks=64, max_masks=4000, target_reliability=0.9, batch_size=64)
    in_one_go = study.files()
    steps = Study(study.results.parent / "steps", study.utterances, WordModel())
    steps.decode()
    steps.smh(n_masks=64, batch_size=64)
    model = steps.handle.model
    model.calls.clear()
    steps.smh(n_masks=64, max_masks=4000, target_reliability=0.9, batch_size=64)
    assert steps.files() == in_one_go
    added = sum(masks["n_masks"] - 64 for masks in masks_told(steps, "smh").values())
    # The unperturbed input is decoded once for every chunk.
    assert model.calls["decode"] == added + added // 64


def test_running_out_of_memory_halves_the_batch(study, caplog):
    study.decode()
    study.smh()
    expected = [artifact["occluded_sum"] for artifact in study.read("smh")]
    cramped = Study(study.results.parent / "cramped", study.utterances, WordModel())
    cramped.decode()
    model, decode = cramped.handle.model, WordModel.decode
    largest = []

    def decode_few(states, prompt, tokens):
        if len(states) > 20:
            torch.empty(2**50, dtype=torch.float64)  # what running out looks like
        largest.append(len(states))
        return decode(model, states, prompt, tokens)

    model.decode = decode_few
    cramped.smh()
    assert max(largest) == 16  # 64, 32, 16
    assert caplog.text.count("Out of memory") == 2  # the next utterance begins with what fitted
    for found, wanted in zip(cramped.read("smh"), expected, strict=True):
        np.testing.assert_array_equal(found["occluded_sum"], wanted)
