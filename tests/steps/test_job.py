"""What scripts are given: the run of their job and nothing of others, and inputs by name."""

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import soundfile
from snakemake.iocontainers import InputFiles, Log, OutputFiles, Params, Wildcards

from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.saliency.methods import METHODS
from s2txai.steps.job import Job, opened
from s2txai.storage.artifacts import save
from s2txai.storage.failures import Failure, failures, record
from s2txai.storage.provenance import describe
from s2txai.study.config import read_config
from s2txai.study.plan import Run
from s2txai.study.results import load_shards
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
    script.config["extensions"] = [str(tmp_path / "none.py")]
    with pytest.raises(UserError, match="'extensions\\[0\\]'"):
        Job(script)


# What a job reads of a shard, and what it passes on


IDS = ["c", "a", "b"]
STEPS = ("decode", "smx")


@pytest.fixture
def shard(script, tmp_path):
    """Return the script of a job on a shard in which ``smx`` failed on one utterance of three."""
    script.input = InputFiles(fromdict={step: str(tmp_path / step / "0000") for step in STEPS})
    script.output = OutputFiles([str(tmp_path / "aggregate" / "0000")])
    script.params = Params(fromdict={"ids": IDS})
    source = {"model_sha256": "m", "audio_sha256": "a", "task": "asr-en"}
    for step in STEPS:
        for name in IDS:
            if (step, name) != ("smx", "a"):
                meta = describe(step, {"utterance": name} | source, {}, {}, {})
                save(tmp_path / step / "0000" / f"{name}.npz", {}, meta)
    record(Failure("a", "smx", "too long"), tmp_path / "smx" / "0000")
    return script


def test_artifacts_have_one_order_and_pass_failures_on(shard, tmp_path):
    artifacts = Job(shard).artifacts(*STEPS)
    assert {step: [one.meta["utterance"] for one in ones] for step, ones in artifacts.items()} == {
        "decode": ["c", "b"], "smx": ["c", "b"],
    }  # fmt: skip
    assert {one.meta["step"] for one in artifacts["smx"]} == {"smx"}
    passed_on = failures(tmp_path / "aggregate" / "0000", IDS)
    assert passed_on == [Failure("a", "smx", "too long")]


def test_methods_are_those_with_an_input_in_the_order_of_their_registry(shard):
    assert Job(shard).methods == []
    names = list(METHODS)
    shard.input = InputFiles(fromdict={name: name for name in (names[2], names[0])})
    assert Job(shard).methods == [names[0], names[2]]


def test_what_remains_of_a_run_lacks_what_failed_in_some_inputs(script, tmp_path):
    names = {"dataset": "librivox", "model": "whisper-tiny.en", "task": "asr-en"}
    script.wildcards = Wildcards(fromdict=names)
    job = Job(script)
    ids = [utterance.id for utterance in job.run.utterances]
    folders = {step: tmp_path / step / next(iter(job.run.shards)) for step in ("decode", "smx")}
    script.input = InputFiles(fromdict={step: str(path) for step, path in folders.items()})
    record(Failure(ids[1], "decode", "empty"), folders["decode"])
    record(Failure(ids[0], "smx", "too long"), folders["smx"])
    rest = job.remaining("decode")
    assert [utterance.id for utterance in rest.utterances] == [ids[0], *ids[2:]]
    assert [utterance.id for utterance in rest.failed] == [ids[1]]
    with pytest.raises(UserError, match="none of 2 utterances could be processed"):
        job.remaining("decode", "smx")


def test_shards_are_read_by_their_names(tmp_path):
    utterances = tuple(SimpleNamespace(id=name) for name in "abc")
    run = Run("d", "m", parse_task("asr-en"), utterances, {"0000": ["a", "b"], "0001": ["c"]})
    source = {"model_sha256": "m", "audio_sha256": "a", "task": "asr-en"}
    for shard, ids in run.shards.items():
        for name in ids:
            meta = describe("decode", {"utterance": name} | source, {}, {}, {})
            save(tmp_path / shard / f"{name}.npz", {}, meta)
    folders = [tmp_path / "0001", tmp_path / "0000"]
    artifacts = load_shards(run, folders, "decode")
    assert [artifact.meta["utterance"] for artifact in artifacts] == ["a", "b", "c"]
    with pytest.raises(ValueError, match="directories of the shards 0001, not 0000, 0001"):
        load_shards(run, folders[:1], "decode")


def test_a_place_has_the_threads_and_the_store_of_its_job(script, tmp_path, monkeypatch):
    from s2txai.steps.shard import Workplace

    script.params = Params(fromdict={"family": "whisper"})
    opening = Mock()
    monkeypatch.setattr(Workplace, "open", opening)
    Job(script).place(precision="float32", compile=True)
    (family, model, output), options = opening.call_args
    assert (family, model, output) == ("whisper", Path("models/a"), tmp_path / "summary.csv")
    assert options["compute"] == {**script.config["compute"], "precision": "float32"}
    assert (options["threads"], options["compile"]) == (1, True)
    assert options["store"] == Path("results/.cache")
    Job(script).place()
    assert opening.call_args.kwargs["compute"] == script.config["compute"]


# What an import costs


@pytest.mark.parametrize(
    "module",
    ["job", "failures", "check_failures", "comparisons", "transcripts", "correlate", "heads",
     "timestamps"],
)  # fmt: skip
def test_light_jobs_import_no_torch(module):
    code = (
        f"import sys, s2txai.steps.job, s2txai.steps.{module}, s2txai.study.fetch_model\n"
        "print(*({'torch', 'transformers'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
