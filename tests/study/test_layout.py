"""Where results lie, and which jobs a study has."""

import pytest

from s2txai.study import layout
from s2txai.study.config import read_config
from s2txai.study.plan import plan
from tests.weights import ROOT

RUN = "results/librivox/whisper-tiny.en/asr-en"


@pytest.fixture
def study():
    config = read_config(ROOT, [ROOT / "config" / "test.yaml"])
    config["runs"][0].pop("utterances")
    config["shard_size"] = 2
    config["sensitivity"] = [{"p": 0.1}]
    config["gradient"]["methods"] = ["input_x_gradient", "grad"]
    return plan(config, ROOT)


def test_steps_are_rule_files_and_scripts():
    names = {step.name for step in layout.STEPS}
    workflow = ROOT / "workflow"
    assert {path.stem for path in (workflow / "rules").glob("*.smk")} == names | {"common"}
    assert {path.stem for path in (workflow / "scripts").glob("*.py")} == names


def test_paths(study):
    (run,) = study.runs.values()
    assert layout.run_folder(run.key) == RUN
    assert layout.shard_paths(run, "smx") == [f"{RUN}/smx/000{number}" for number in range(3)]
    assert layout.step_folders("smx", study) == ["smx", "sensitivity/p-0.1"]
    assert layout.step_folders("gradients", study) == ["grad", "input_x_gradient"]
    assert layout.tables(study, "decode/scores.csv") == [f"{RUN}/decode/scores.csv"]
    assert layout.timed_tables(study, "summary.csv") == [f"{RUN}/timestamps/summary.csv"]


def test_failures_are_looked_for_where_their_step_writes(study):
    assert layout.folders_with_failures(study) == {
        "decode": "decode", "attention": "attention", "smx": "smx", "sensitivity/p-0.1": "smx",
        "smh": "smh", "grad": "grad", "input_x_gradient": "input_x_gradient",
        "aggregate": "aggregate", "deletion": "deletion",
    }  # fmt: skip


def test_the_last_shards_are_of_steps_that_no_other_reads(study):
    (run,) = study.runs.values()
    assert layout.last_shards(study, run) == [
        f"{RUN}/{folder}/000{number}"
        for folder in ("deletion", "sensitivity/p-0.1")
        for number in range(3)
    ]


def test_jobs(study):
    (run,) = study.runs.values()
    of_shards = ("decode", "attention", "smh", "aggregate", "deletion")
    of_run = (
        "transcripts", "correlate", "deletion_curves", "sensitivity", "timestamps", "heads",
        "failures",
    )  # fmt: skip
    expected = dict.fromkeys(of_shards, 3) | {"smx": 6, "gradients": 6} | dict.fromkeys(of_run, 1)
    assert layout.jobs_of_run(study, run) == expected
    assert layout.model_jobs(study, run) == 4 * 3 + 6 + 6
