"""What the rules declare about their jobs."""

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from s2txai.saliency.pooling import POOLINGS
from s2txai.storage.failures import Failure, record
from s2txai.storage.versions import ALGORITHM_VERSIONS
from s2txai.study.config import read_config
from s2txai.study.jobs import Jobs, failures_sentence, figure_heading, in_order
from s2txai.study.plan import plan
from tests.weights import ROOT

RUN = "results/librivox/whisper-tiny.en/asr-en"


@pytest.fixture
def config():
    config = read_config(ROOT, [ROOT / "config" / "test.yaml"])
    config["sensitivity"] = [{"p": 0.1}, {"n_masks": 64}]
    config["gradient"]["methods"] = ["integrated_gradients", "grad"]
    return config


def jobs_of(config):
    return Jobs(plan(config, ROOT), config, ROOT)


def wildcards(**more):
    names = {"dataset": "librivox", "model": "whisper-tiny.en", "task": "asr-en", "shard": "0000"}
    return SimpleNamespace(**names, **more)


def test_inputs(config):
    jobs = jobs_of(config)
    assert jobs.shards_of("smx")(wildcards()) == [f"{RUN}/smx/0000"]
    assert jobs.design_shards(wildcards()) == {
        "design p-0.1": [f"{RUN}/sensitivity/p-0.1/0000"],
        "design n_masks-64": [f"{RUN}/sensitivity/n_masks-64/0000"],
    }
    assert jobs.gradient_shards(wildcards()) == {
        "grad": f"{RUN}/grad/0000",
        "integrated_gradients": f"{RUN}/integrated_gradients/0000",
    }
    assert jobs.shard_ids(wildcards()) == jobs.ids(wildcards()) == ["sns-0880"]
    assert jobs.all_shards("smh", "grad") == [f"{RUN}/smh/0000", f"{RUN}/grad/0000"]


def test_comet_is_an_input_where_something_is_translated(config):
    config["runs"] = [{"dataset": "prompts", "models": ["whisper-base"], "tasks": ["asr-it"]}]
    study = plan(config, ROOT)
    (run,) = study.runs.values()
    translated = replace(run, task=replace(run.task, kind="st", target="en"))
    jobs = Jobs(
        replace(study, runs={("d", "m", "asr"): run, ("d", "m", "st"): translated}),
        config | {"comet": "a.ckpt"},
        ROOT,
    )
    names = {"dataset": "d", "model": "m"}
    assert jobs.comet_checkpoint(SimpleNamespace(**names, task="asr")) == {}
    assert jobs.comet_checkpoint(SimpleNamespace(**names, task="st")) == {
        "comet": os.path.relpath(ROOT / "a.ckpt")
    }


def test_parameters_of_gradient_methods_are_what_they_use(config):
    jobs = jobs_of(config)
    assert jobs.gradient_parameters(wildcards(method="grad")) == {
        "n_masks": 128, "n_segments": [30, 60], "p": 0.5, "seed": 0,
    }  # fmt: skip
    assert jobs.gradient_parameters(wildcards(method="integrated_gradients")) == {"n_points": 32}
    assert jobs.gradient_parameters(wildcards(method="input_x_gradient")) == {}


def test_masks_have_their_keys_in_order(config):
    jobs = jobs_of(config)
    assert list(jobs.masks("smx")) == sorted(config["smx"])
    assert jobs.masks_of_design(wildcards(design="p-0.1")) == config["smx"] | {
        "p": 0.1, "occluded_value": "bin mean",
    }  # fmt: skip
    assert list(in_order({"b": {"d": 1, "c": 2}, "a": 3})["b"]) == ["c", "d"]


def test_versions_are_bare_numbers_without_extensions(config):
    jobs = jobs_of(config)
    for step in ("decode", "smx", "smh", "aggregate", "correlate", "deletion"):
        assert jobs.version(step)(wildcards()) == ALGORITHM_VERSIONS[step]
    assert jobs.version("transcripts")(wildcards()) == ALGORITHM_VERSIONS["score"]
    assert jobs.version("gradients")(wildcards(method="grad")) == ALGORITHM_VERSIONS["grad"]
    assert jobs.version("smx")(wildcards(design="p-0.1")) == ALGORITHM_VERSIONS["smx"]
    # Of a rule without wildcards.
    assert jobs.version("report")(SimpleNamespace()) == ALGORITHM_VERSIONS["report"]


def test_the_extension_behind_a_name_is_part_of_the_version_of_its_steps(config, monkeypatch):
    monkeypatch.setitem(POOLINGS._origins, "max2d", "f" * 64)
    jobs = jobs_of(config)
    for step in ("aggregate", "correlate", "deletion"):
        assert jobs.version(step)(wildcards()) == {
            "version": ALGORITHM_VERSIONS[step],
            "extensions": {"pooling:max2d": "f" * 64},
        }
    for step in ("decode", "attention", "smx", "smh", "transcripts"):
        assert isinstance(jobs.version(step)(wildcards()), int)


def test_a_killed_job_asks_for_more_when_it_is_repeated(config):
    config["runs"][0].pop("utterances")
    jobs = jobs_of(config)
    n = len(jobs.ids(wildcards()))
    assert n > 1
    assert [jobs.by_attempt(4000)(wildcards(), attempt) for attempt in (1, 2)] == [4000, 8000]
    assert jobs.by_attempt(30, per_utterance=0.3)(wildcards(), 2) == 2 * round(30 + 0.3 * n)


def test_a_model_is_fetched_again_when_its_files_may_have_changed(config, tmp_path):
    entry = {
        "family": "whisper", "description": "Mine.", "licence": "MIT", "languages": ["en"],
        "translation_targets": [], "source": {"path": str(tmp_path)},
    }  # fmt: skip
    (tmp_path / "model.bin").write_bytes(b"weights")
    (tmp_path / "notes.md").write_text("not of the model")
    packaged = jobs_of(config)
    assert packaged.model_files(wildcards()) == packaged.model_states(wildcards()) == []
    config["models"] = {"mine": entry}
    config["runs"][0]["models"] = ["mine"]
    jobs, mine = jobs_of(config), SimpleNamespace(model="mine")
    assert jobs.model_files(mine) == [str(tmp_path / "model.bin")]
    before = jobs.model_states(mine)
    os.utime(tmp_path / "model.bin", (0, 0))
    assert jobs.model_states(mine) != before
    assert jobs.model_entry(mine) == {"family": "whisper", "source": entry["source"]}


def test_failures_before_the_last_step_are_counted_once(config, tmp_path, monkeypatch):
    jobs = jobs_of(config)
    monkeypatch.chdir(tmp_path)
    assert jobs.failures_so_far() == []
    failure = Failure("sns-0880", "grad", "no gradient")
    for folder in ("grad", "deletion"):  # passed on, it does not count again
        (Path(RUN) / folder / "0000").mkdir(parents=True)
        record(failure, Path(RUN) / folder / "0000")
    assert jobs.failures_so_far() == [failure]
    assert failures_sentence([failure]) == (
        "Not every utterance could be processed: 1 failed so far; "
        "docs/workflow.md says how to go on. The first is 'sns-0880' in grad: no gradient"
    )


def test_headings_of_figures():
    assert figure_heading({}) == "All runs"
    names = {"model": "m", "dataset": "d", "task": "t", "figure": "f"}
    assert figure_heading(names) == "m on d, t"
