"""What scripts are given: the run of their job and nothing of others, and inputs by name."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import soundfile
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from s2txai.errors import UserError
from s2txai.steps.job import opened
from s2txai.study.config import read_config
from tests.weights import ROOT

KEY = ("prompts", "whisper-base", "asr-it")


@pytest.fixture
def config():
    """Return the default study, of six runs on two datasets."""
    return read_config(ROOT, [])


@pytest.fixture
def script(config, tmp_path):
    """Return what Snakemake gives to a script of a run with two shards."""
    dataset, model, task = KEY
    inputs = InputFiles(["models/a", "aggregate/0000", "aggregate/0001"])
    inputs._set_name("model", 0)
    inputs._set_name("aggregate", 1, end=3)
    return SimpleNamespace(
        input=inputs,
        output=OutputFiles(fromdict={"summary": str(tmp_path / "summary.csv")}),
        params=Params(fromdict={"seed": 3}),
        wildcards=Wildcards(fromdict={"dataset": dataset, "model": model, "task": task}),
        log=Log([str(tmp_path / "job.log")]),
        threads=1,
        config=config,
        scriptdir=str(ROOT / "workflow" / "scripts"),
    )


@pytest.fixture
def recordings(monkeypatch):
    """Return the names of the recordings that are opened."""
    names = []
    original = soundfile.SoundFile.__init__

    def note(self, file, *arguments, **options):
        names.append(Path(file).name)
        original(self, file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", note)
    return names


def test_a_job_opens_no_recording(script, recordings):
    with opened(script) as job:
        assert job.run.key == KEY
        assert len(job.study.runs) == 6
    assert recordings == []


def test_inputs_and_outputs_have_names(script, tmp_path):
    with opened(script) as job:
        assert job.inputs("model") == [Path("models/a")]
        assert job.inputs("aggregate") == [Path("aggregate/0000"), Path("aggregate/0001")]
        assert job.inputs("comet") == []
        assert job.inputs() == [*job.inputs("model"), *job.inputs("aggregate")]
        assert job.output("summary") == job.output() == tmp_path / "summary.csv"
        assert job.params.seed == 3
        assert job.root == ROOT


def test_extensions_are_imported_before_anything_else(script, tmp_path):
    script.config["extensions"] = [str(tmp_path / "none.py")]
    with pytest.raises(SystemExit), opened(script):
        pytest.fail("the job began")
    assert "there is no file" in (tmp_path / "job.log").read_text()


def test_the_error_of_an_extension_is_a_sentence(script, tmp_path):
    from s2txai.steps.job import Job

    script.config["extensions"] = [str(tmp_path / "none.py")]
    with pytest.raises(UserError, match="'extensions\\[0\\]'"):
        Job(script)
