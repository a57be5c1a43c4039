"""A recording that cannot be used, in the workflow: the rest is done, and the status says so."""

import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile

from tests.weights import ROOT
from tests.workflow.project import Job

pytestmark = [pytest.mark.workflow, pytest.mark.model]

SPEECH = ROOT / "resources" / "speech" / "librivox"
GOOD, BAD = "sns-0880", "bad"
RUN = "mine/whisper-tiny.en/asr-en"


@pytest.fixture(scope="module")
def spoilt(finished, tmp_path_factory):
    """The finished project with another dataset: its recording, and one of silence.

    All work on the good one is in the store.
    """
    project = finished.copy(tmp_path_factory.mktemp("spoilt"))
    folder = project.folder / "mine"
    folder.mkdir()
    shutil.copy(SPEECH / "sense_and_sensibility_01_austen_64kb-0880.wav", folder / f"{GOOD}.wav")
    soundfile.write(folder / f"{BAD}.wav", np.zeros(16_000), 16_000)
    write_manifest(project, BAD, GOOD)
    entry = {"manifest": "mine/manifest.tsv", "description": "Two.", "licence": "CC0"}
    runs = [{"dataset": "mine", "models": ["whisper-tiny.en"], "tasks": ["asr-en"]}]
    project.configure(datasets={"mine": entry}, runs=runs)
    project.run = project.snakemake()
    return project


def write_manifest(project, *names):
    lines = ["id\tpath\tlanguage\ttranscript"]
    lines += [f"{name}\t{name}.wav\ten\the was not an ill disposed young man" for name in names]
    (project.folder / "mine" / "manifest.tsv").write_text("\n".join(lines) + "\n")


@pytest.fixture
def project(spoilt, tmp_path):
    copy = spoilt.copy(tmp_path)
    copy.run = spoilt.run
    return copy


def test_the_rest_is_done_and_the_status_says_that_it_is_not_all(spoilt):
    told = spoilt.run.stdout + spoilt.run.stderr
    assert spoilt.run.returncode != 0
    assert "Not every utterance could be processed: 1 failed" in told
    assert "'bad' in decode: " in told
    assert f"results/{RUN}/failures.tsv" in told
    assert "Traceback" not in told
    results = spoilt.folder / "results"
    failures = pd.read_csv(results / RUN / "failures.tsv", sep="\t")
    (row,) = failures.to_dict("records")
    assert (row["utterance"], row["step"]) == (BAD, "decode")
    assert "nothing but silence" in row["message"]
    for table in ("decode/scores.csv", "correlate/summary.csv", "deletion/auc.csv"):
        found = pd.read_csv(results / RUN / table)
        assert set(found["n_failed_utterances"]) == {1}, table
    scores = pd.read_csv(results / RUN / "decode/scores.csv").set_index("metric")
    before = pd.read_csv(results / "librivox/whisper-tiny.en/asr-en/decode/scores.csv")
    assert scores["score"].tolist() == before["score"].tolist()
    page = (results / "report" / "index.html").read_text()
    assert "Incomplete: 1 of 2 utterances failed." in page
    assert "nothing but silence" in page
    assert not (results / ".complete").exists()


def test_it_is_not_forgotten_and_costs_nothing_again(project):
    assert project.planned() == {Job("check_failures")}
    again = project.snakemake()
    assert again.returncode != 0
    assert "'bad' in decode: " in again.stdout + again.stderr
    assert (project.folder / "results/report/index.html").exists()


def test_targets_on_the_way_say_so_too(project):
    done = project.snakemake("all_decode", "--forcerun", "transcripts")
    assert done.returncode != 0
    assert "1 failed so far" in done.stdout + done.stderr
    assert "'bad' in decode: " in done.stdout + done.stderr
    assert (project.folder / "results" / RUN / "decode" / "scores.csv").exists()


def test_a_mended_recording_runs_its_shard_again(project):
    shutil.copy(
        SPEECH / "sense_and_sensibility_01_austen_64kb-0870.wav", project.folder / "mine/bad.wav"
    )
    planned = {job.rule for job in project.planned()}
    assert {"decode", "attention", "smx", "smh", "deletion", "failures", "report"} <= planned


def test_without_the_utterance_the_study_is_whole(project):
    write_manifest(project, GOOD)
    done = project.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    assert pd.read_csv(project.folder / "results" / RUN / "failures.tsv", sep="\t").empty
    assert (project.folder / "results" / ".complete").exists()
    assert "Incomplete" not in (project.folder / "results/report/index.html").read_text()
    assert project.planned() == set()


def test_the_first_failure_stops_where_that_is_asked_for(project):
    (project.folder / "mine" / "bad.wav").write_bytes(b"not audio")
    told = project.snakemake("--dry-run")
    assert told.returncode == 0
    assert (
        "mine/whisper-tiny.en/asr-en: 1 of 2 recordings cannot be used" in told.stdout + told.stderr
    )
    project.configure(on_failure="stop")
    refused = project.snakemake("--dry-run")
    assert refused.returncode != 0
    assert "manifest.tsv, line 2: " in refused.stdout + refused.stderr
    assert "Traceback" not in refused.stdout + refused.stderr
    # A rate from which 16 kHz is not made is found out by the job.
    noise = 0.1 * np.random.default_rng(0).standard_normal(16_000)
    soundfile.write(project.folder / "mine" / "bad.wav", noise, 15_991)
    stopped = project.snakemake("--forcerun", "decode")
    assert stopped.returncode != 0
    assert "has a sampling rate of 15991 Hz" in stopped.stdout + stopped.stderr
    assert not (project.folder / "results" / RUN / "decode" / "0000").exists()
