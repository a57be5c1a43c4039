"""The estimate counts what the workflow will do."""

import re
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
import soundfile
import torch

from s2txai.saliency.heard import Heard
from s2txai.saliency.methods import METHODS, Method
from s2txai.study.config import read_config
from s2txai.study.estimate import (
    GPU_FLOPS,
    SECONDS_PER_JOB,
    TOKENS_PER_SECOND,
    Cost,
    _backward,
    assume,
    estimate,
    estimate_table,
)
from s2txai.study.plan import plan
from tests.toy import PROMPT, WordModel
from tests.weights import ROOT, model_directory

COST = Cost(mask=2.0, state_mask=0.5, deleted=3.0, hypothesis=5.0, n_maps=24)


def planned(config):
    """Return a study and its only run."""
    study = plan(config, ROOT)
    (run,) = study.runs.values()
    return study, run


@pytest.fixture
def config():
    return read_config(ROOT, [ROOT / "config" / "test.yaml"])


def test_overlay_is_that_of_snakemake(config):
    from snakemake.utils import update_config

    expected = read_config(ROOT, [])
    update_config(expected, {"smx": {"n_masks": 32, "n_segments": [30, 60]}})
    assert config["smx"] == expected["smx"] | {"n_masks": 32, "n_segments": [30, 60]}
    assert config["smx"]["p"] == 0.5
    assert config["seed"] == 0


def test_jobs_and_masks_are_those_that_snakemake_plans(config):
    study, run = planned(config)
    found = estimate(study, run, config, COST)
    # decode, attention, smx, smh, aggregate, deletion; transcripts, correlate, heads,
    # deletion_curves, failures, timestamps
    assert found.jobs == 12
    assert found.masks == 32 + 64
    # 32 and 64 masks, 7 maps at the one inner percentage and the two ends, one hypothesis
    inside = 32 * 2.0 + 64 * 0.5 + (7 * 1 + 2) * 3.0 + 5.0
    assert found.seconds - inside == pytest.approx(5 * 8)


def test_gradient_methods_are_jobs_masks_and_backward_passes(config):
    methods = ["grad", "integrated_gradients"]
    listed = config | {"gradient": {"methods": methods, "n_masks": 40, "n_points": 10}}
    cost = replace(COST, backward=1.0)
    before, found = (estimate(*planned(one), one, cost) for one in (config, listed))
    _, run = planned(config)
    assert found.jobs == before.jobs + 2
    assert found.masks == before.masks + 40
    rows = TOKENS_PER_SECOND * run.utterances[0].seconds() + 1
    forward, backward, deleted = 40 + 10 * rows, 40 * rows + 10 * rows, 2
    expected = forward * 2.0 + backward * 1.0 + deleted * 3.0 + 2 * SECONDS_PER_JOB
    assert found.seconds - before.seconds == pytest.approx(expected)
    assert found.bytes > before.bytes


def test_layers_to_delete_by_are_maps_more(config):
    study, run = planned(config)
    more = replace(run, layers=(0, 2))
    before, found = (estimate(study, one, config, COST) for one in (run, more))
    assert (found.jobs, found.masks) == (before.jobs, before.masks)
    # One inner percentage, which is decoded.
    assert found.seconds - before.seconds == pytest.approx(2 * 3.0)


@pytest.mark.parametrize(("insertion", "seconds"), [("log_prob", 2.0), ("decode", 3.0)])
def test_insertion_costs_a_pass_or_a_search_more(config, insertion, seconds):
    plain = estimate(*planned(config), config, COST)
    config["deletion"]["insertion"] = insertion
    found = estimate(*planned(config), config, COST)
    n_maps = 2 + 3 + 2  # of attention, of SMX, random and energy; one inner percentage
    assert found.seconds - plain.seconds == pytest.approx(n_maps * seconds)


def test_cheap_masks_have_a_pilot_and_checks(config):
    study, run = planned(config)
    plain = estimate(study, run, config, COST)
    found = estimate(study, run, config, replace(COST, cheap_mask=0.5))
    # 8 + 24 masks of the pilot both ways but for the first 8; 5 % of 32 are checked.
    pilot = 32 * 2.0 + 24 * 0.5
    assert found.seconds == pytest.approx(
        plain.seconds - 32 * 2.0 + 32 * (0.5 + 0.05 * 2.0) + pilot
    )
    config["smx"]["check"] = 0.02
    fewer = estimate(study, run, config, replace(COST, cheap_mask=0.5))
    assert found.seconds - fewer.seconds == pytest.approx(32 * 0.03 * 2.0)


def test_differences_of_checked_masks_lie_on_disk(config):
    found = estimate(*planned(config), config, COST).bytes
    config["smx"]["encoder"] = "exact"
    study, run = planned(config)
    exact = estimate(study, run, config, COST).bytes
    (utterance,) = run.utterances
    T, rows = 100 * utterance.seconds(), TOKENS_PER_SECOND * utterance.seconds() + 1
    n_segments = sum(config["smx"]["n_segments"]) * T / 500
    assert found - exact == pytest.approx(4 * n_segments * (rows + 1) * 8, rel=1e-3)


def test_the_number_of_jobs_is_printed_as_snakemake_plans_it(config, tmp_path):
    text = estimate_table(plan(config, ROOT), config, tmp_path, n_jobs=4711, threads=1)
    assert re.search(r"in all +\d+ +4711 ", text)


def test_more_shards_are_more_jobs_and_no_more_masks(config):
    config["runs"][0].pop("utterances")
    few, many = (estimate(*planned(config | {"shard_size": size}), config, COST) for size in (8, 2))
    assert (few.jobs, many.jobs) == (12, 3 * 6 + 6)
    assert few.masks == many.masks


def test_size_is_that_of_the_real_arrays(config):
    """A clip of 3 s: 151 steps, 24 heads, 13 tokens assumed, two levels of 18 and 36 segments."""
    study, run = planned(config)
    attention = 3 * 24 * 13 * 150 * 4
    assert attention < estimate(study, run, config, COST).bytes < 3 * attention


def test_other_designs_are_counted(config):
    plain = estimate(*planned(config), config, COST)
    config["sensitivity"] = [{"n_masks": 100}, {"p": 0.1}]
    found = estimate(*planned(config), config, COST)
    # Two saliency jobs and the table of the run.
    assert found.jobs == plain.jobs + 3
    assert found.masks == plain.masks + 100 + 32
    assert found.seconds == pytest.approx(plain.seconds + 132 * 2.0 + 2 * 8)
    assert found.bytes > plain.bytes


def test_a_model_that_is_not_here_has_no_time(config, tmp_path):
    text = estimate_table(plan(config, ROOT), config, tmp_path, n_jobs=73, threads=1)
    assert "unknown" in text
    assert "whisper-tiny.en is not fetched yet" in text


@pytest.mark.model
def test_the_command_times_a_real_model():
    model_directory("whisper-tiny.en")
    shown = subprocess.run(
        [sys.executable, "-m", "s2txai", "estimate", "config/test.yaml"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "librivox/whisper-tiny.en/asr-en" in shown
    assert "unknown" not in shown
    assert "CPU threads" in shown or "GPU" in shown


def test_a_model_is_timed_once_for_the_same_speech(config, tmp_path, monkeypatch):
    prompts = {"dataset": "prompts", "models": ["whisper-base"], "tasks": ["asr-it", "st-it-en"],
               "utterances": ["tt-weasels.it"]}  # fmt: skip
    config["runs"] = [prompts, {**config["runs"][0], "models": ["whisper-base"]}]
    (tmp_path / "whisper-base").mkdir()
    timed = []
    monkeypatch.setattr("s2txai.models.handle.ModelHandle.model", None)
    monkeypatch.setattr(
        "s2txai.study.estimate.measure", lambda model, run, config: timed.append(run.key) or COST
    )
    text = estimate_table(plan(config, ROOT), config, tmp_path, n_jobs=73, threads=1)
    assert [task for _, _, task in timed] == ["asr-it", "asr-en"]
    assert text.count("whisper-base/") == 3


def test_a_model_that_is_not_here_costs_what_its_size_says(config, tmp_path):
    (run,) = plan(config, ROOT).runs.values()
    shape = {"encoder_parameters": 300_000_000, "decoder_parameters": 0, "layers": 6, "heads": 16}
    cost = assume(shape, run, config)
    speech = sum(utterance.seconds() for utterance in run.utterances) / len(run.utterances)
    # Each weight: one product and one sum for each of 25 steps a second.
    assert cost.mask * GPU_FLOPS == pytest.approx(300e6 * 2 * 25 * speech)
    assert cost.n_maps == 96
    assert assume(shape | {"encoder_parameters": 600_000_000}, run, config).mask == 2 * cost.mask


def test_the_study_is_estimated_without_its_weights_and_speech(tmp_path):
    config = read_config(ROOT, [ROOT / "config" / "paper.yaml"])
    text = estimate_table(plan(config, ROOT), config, tmp_path, n_jobs=73, threads=1)
    assert "GPU-hours" in text
    assert "unknown" not in text
    assert "download EuroParl-ST" in text
    # 12 runs of 1,200 utterances, 20,000 masks of each kind
    assert f"{12 * 1200 * 40_000:,}" in text


def test_recordings_that_cannot_be_used_cost_nothing(config, tmp_path):
    soundfile.write(tmp_path / "a.wav", np.full(16_000, 0.1), 16_000)
    (tmp_path / "b.wav").write_bytes(b"not audio")
    lines = ["id\tpath\tlanguage\ttranscript", "a\ta.wav\ten\tyes", "b\tb.wav\ten\tno"]
    (tmp_path / "m.tsv").write_text("\n".join(lines))
    entry = {"manifest": str(tmp_path / "m.tsv"), "description": "Two.", "licence": "CC0"}
    config["datasets"] = {"mine": entry}
    config["runs"] = [{"dataset": "mine", "models": ["fama-small"], "tasks": ["asr-en"]}]
    text = estimate_table(plan(config, ROOT), config, tmp_path, n_jobs=73, threads=1)
    assert f" {1 * (32 + 64):,} " in text
    assert "1 of 2 recordings cannot be used" in text


def test_a_method_of_an_extension_is_estimated(config):
    """As one without masks; it used to end in a KeyError."""
    name = "of_an_extension"
    METHODS.register(name)(Method("nowhere:nothing"))
    try:
        listed = config | {"gradient": {**config["gradient"], "methods": [name]}}
        found = estimate(*planned(listed), listed, replace(COST, backward=1.0))
    finally:
        METHODS._entries.pop(name)
    plain = estimate(*planned(config), config, COST)
    assert found.jobs == plain.jobs + 1
    assert found.seconds > plain.seconds + SECONDS_PER_JOB


def test_the_backward_pass_is_timed_as_the_model_computes(monkeypatch):
    """With the model's own switches of TF32, which the backward pass obeys as well."""
    model, entered, during = WordModel(), [], []

    @contextmanager
    def arithmetic():
        entered.append(True)
        yield
        entered.pop()

    differentiate = torch.autograd.grad

    def noted(*arguments, **options):
        during.append(bool(entered))
        return differentiate(*arguments, **options)

    monkeypatch.setattr(model, "arithmetic", arithmetic)
    monkeypatch.setattr(torch.autograd, "grad", noted)
    features = np.random.default_rng(0).random((40, 4), dtype=np.float32)
    tokens = [3]
    seconds = _backward(model, Heard(features, -1.0, list(PROMPT), tokens))
    assert seconds > 0
    assert during
    assert all(during)
