"""The workflow as a user runs it: real model, real speech, real Snakemake."""

import re
import subprocess
import sys

import pandas as pd
import pytest

from s2txai.storage.artifacts import load
from tests.weights import ROOT

pytestmark = [pytest.mark.workflow, pytest.mark.model]

MODEL_MESSAGES = ("Decoding librivox", "Saliency on the input", "Saliency on encoder outputs")
RUN = "results/librivox/whisper-tiny.en/asr-en"
KINDS = ("ca", "vn", "ro")


def test_every_result_is_there(finished):
    run = finished.folder / RUN
    for step in ("decode", "attention", "smx", "smh", "aggregate", "deletion"):
        artifact = load(run / step / "0000" / "sns-0880.npz", step)
        assert artifact.meta["utterance"] == "sns-0880"
    for table in (
        "decode/transcripts", "decode/scores", "correlate/utterances", "correlate/reliability",
        "correlate/summary", "correlate/mixing", "correlate/masks", "deletion/curves",
        "deletion/auc", "deletion/size", "timestamps/words", "timestamps/utterances",
        "timestamps/summary",
    ):  # fmt: skip
        rows = pd.read_csv(run / f"{table}.csv")
        assert len(rows) > 0
        assert (rows[["dataset", "model", "task"]].nunique() == 1).all()
    means = pd.read_csv(run / "correlate/utterances.csv")
    heads = pd.read_parquet(run / "correlate/heads.parquet")
    assert set(means["attention"]) == {f"{k}_{part}" for k in KINDS for part in ("mean", "layer")}
    assert set(heads["attention"]) == {f"{kind}_head" for kind in KINDS}
    assert list(means) == list(heads)
    page = (finished.folder / "results/report/index.html").read_text()
    assert "sns-0880" in page
    figures = {path.suffix for path in (finished.folder / "results/report/figures").iterdir()}
    assert {".png", ".pdf"} <= figures


def test_the_transcript_is_right(finished):
    scores = pd.read_csv(finished.folder / RUN / "decode/scores.csv").set_index("metric")["score"]
    assert scores["wer"] < 15


def test_deletion_starts_at_the_transcript_and_ends_without_it(finished):
    curves = pd.read_csv(finished.folder / RUN / "deletion/curves.csv")
    wer = curves[curves["metric"] == "wer_max"].pivot(
        index="map", columns="percent", values="score"
    )
    # Greedy search, as the config says, makes two mistakes in eight words that a beam does not.
    assert (wer[0] <= 25).all()
    assert (wer[100] > 80).all()


def test_progress_is_logged_where_there_is_no_terminal(finished):
    logs = finished.folder / "results/logs/librivox/whisper-tiny.en/asr-en"
    log = (logs / "smx" / "0000.log").read_text()
    assert re.search(r"smx sns-0880: 32 masks in .* masks/s", log)


def test_a_wrong_config_is_one_sentence_without_a_traceback(project):
    wrong = project.folder / "wrong.yaml"
    wrong.write_text("smx: {n_mask: 100}\n")
    shown = project.snakemake(configfile="wrong.yaml")
    assert shown.returncode != 0
    assert "unknown key 'smx.n_mask'; did you mean 'n_masks'?" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr


def test_a_key_given_twice_is_refused(project):
    (project.folder / "wrong.yaml").write_text("seed: 1\nseed: 2\n")
    shown = project.snakemake("--dry-run", configfile="wrong.yaml")
    assert shown.returncode != 0
    assert "wrong.yaml, line 2: key 'seed' is already given in line 1" in shown.stderr
    assert "Traceback" not in shown.stderr


def test_it_can_be_started_elsewhere(project, tmp_path):
    """Configuration and models are the project's; results lie where it was started."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    arguments = ("--snakefile", str(project.folder / "Snakefile"))
    config = str(project.folder / "config" / "test.yaml")
    there = project.planned(*arguments, configfile=config, cwd=elsewhere)
    assert {"decode", "smx", "report"} <= {job.rule for job in there}
    assert "fetch_model" not in {job.rule for job in there}
    here = project.planned("--directory", str(elsewhere))
    assert here == there


def test_two_jobs_never_run_models_at_once(project):
    """The default profile has one GPU to give, however many cores there are."""
    shown = project.snakemake("all_saliency", "--cores", "64", "--touch", "--forcerun", "decode")
    assert shown.returncode == 0, shown.stderr
    batches = (shown.stdout + shown.stderr).split("\nExecute ")[1:]
    assert len(batches) >= len(MODEL_MESSAGES)
    for batch in batches:
        assert sum(message in batch for message in MODEL_MESSAGES) <= 1


def test_the_study_is_planned_but_not_started_without_its_weights(project):
    planned = project.snakemake("--dry-run", configfile="config/paper.yaml")
    told = planned.stdout + planned.stderr
    assert planned.returncode == 0, told
    assert re.search(r"^smx +288$", told, re.M)
    assert "FBK-MT/fama-small links to" in told
    assert "download EuroParl-ST" in told
    started = project.snakemake(configfile="config/paper.yaml")
    told = started.stdout + started.stderr
    assert started.returncode != 0
    assert "FBK-MT/fama-small links to" in told
    assert "Traceback" not in told
    assert "Decoding" not in told.split("Select jobs")[-1]
    assert not list(project.folder.glob("results/europarl-st*"))


def test_the_example_runs_on_the_results(finished):
    shown = subprocess.run(
        [sys.executable, str(ROOT / "examples" / "one_token.py")],
        cwd=finished.folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    found, stated = (
        re.search(pattern, shown.stdout)[1]
        for pattern in (r"rho\(CA, SMH\) = (\S+)", r"says (\S+)")
    )
    assert found == stated
    assert (finished.folder / "sns-0880-young.png").stat().st_size > 10_000
