"""The workflow as a user runs it: real model, real speech, real Snakemake."""

import re
import shutil
import subprocess
import sys

import pandas as pd
import pytest

from s2txai.artifacts import load
from tests.weights import ROOT, model_directory

pytestmark = [pytest.mark.workflow, pytest.mark.model]

RUN = "results/librivox/whisper-tiny.en/asr-en"
MODEL_STEPS = {"decode", "attention", "smx", "smh"}


class Project:
    """A copy of the workflow's files, so that tests may edit them."""

    def __init__(self, folder):
        self.folder = folder
        for name in ("workflow", "config", "profiles"):
            shutil.copytree(ROOT / name, folder / name)
        shutil.copy(ROOT / "Snakefile", folder)
        (folder / "resources").mkdir()
        (folder / "resources" / "speech").symlink_to(ROOT / "resources" / "speech")
        # A finished download, as a user's second run finds it.
        models = folder / "resources" / "models"
        models.mkdir()
        shutil.copytree(model_directory("whisper-tiny.en"), models / "whisper-tiny.en")

    def snakemake(self, *arguments, configfile="config/test.yaml"):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return subprocess.run(
            [*command, "--configfile", configfile],
            cwd=self.folder,
            capture_output=True,
            text=True,
            check=False,
        )

    def planned(self, *arguments, **options):
        """Return the rules that would run, with how many jobs each."""
        shown = self.snakemake("--dry-run", *arguments, **options)
        assert shown.returncode == 0, shown.stderr
        if "Nothing to be done" in shown.stdout + shown.stderr:
            return {}
        table = re.search(
            r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", shown.stdout + shown.stderr, re.M
        )
        return {
            rule: int(count)
            for rule, count in re.findall(r"(\w+) +(\d+)", table[1])
            if rule not in ("all", "total")
        }


@pytest.fixture(scope="module")
def project(tmp_path_factory):
    project = Project(tmp_path_factory.mktemp("project"))
    finished = project.snakemake()
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return project


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_every_result_is_there(project):
    run = project.folder / RUN
    for step in ("decode", "attention", "smx", "smh", "aggregate", "deletion"):
        artifact = load(run / step / "0000" / "sns-0880.npz", step)
        assert artifact.meta["utterance"] == "sns-0880"
    for table in (
        "decode/transcripts", "decode/scores", "correlate/utterances", "correlate/reliability",
        "correlate/summary", "correlate/mixing", "deletion/curves", "deletion/auc",
    ):  # fmt: skip
        rows = pd.read_csv(run / f"{table}.csv")
        assert len(rows) > 0
        assert (rows[["dataset", "model", "task"]].nunique() == 1).all()
    page = (project.folder / "results/report/index.html").read_text()
    assert "sns-0880" in page
    figures = {path.suffix for path in (project.folder / "results/report/figures").iterdir()}
    assert {".png", ".pdf"} <= figures


def test_the_transcript_is_right(project):
    scores = pd.read_csv(project.folder / RUN / "decode/scores.csv").set_index("metric")["score"]
    assert scores["wer"] < 15


def test_deletion_starts_at_the_transcript_and_ends_without_it(project):
    curves = pd.read_csv(project.folder / RUN / "deletion/curves.csv")
    wer = curves[curves["metric"] == "wer_max"].pivot(
        index="map", columns="percent", values="score"
    )
    # Greedy search, as the config says, makes two mistakes in eight words that a beam does not.
    assert (wer[0] <= 25).all()
    assert (wer[100] > 80).all()


def test_progress_is_logged_where_there_is_no_terminal(project):
    log = (project.folder / "results/logs/librivox/whisper-tiny.en/asr-en/smx/0000.log").read_text()
    assert re.search(r"smx sns-0880: 32 masks in .* masks/s", log)


def test_a_second_run_has_nothing_to_do(project):
    assert project.planned() == {}


def test_an_edited_comment_reruns_nothing(project):
    edit(project.folder / "workflow/scripts/smx.py", '"""Saliency', '# a remark\n"""Saliency')
    assert project.planned() == {}


def test_another_pooling_reruns_no_model_step(project):
    edit(project.folder / "config/test.yaml", "[avg2d, max2d]", "[avg2d, max_freq_avg_time]")
    try:
        planned = project.planned()
    finally:
        edit(project.folder / "config/test.yaml", "[avg2d, max_freq_avg_time]", "[avg2d, max2d]")
    assert set(planned) == {"aggregate", "correlate", "deletion", "deletion_curves", "report"}


def test_more_masks_rerun_one_saliency_step(project):
    edit(project.folder / "config/test.yaml", "n_masks: 64", "n_masks: 96")
    try:
        planned = set(project.planned())
    finally:
        edit(project.folder / "config/test.yaml", "n_masks: 96", "n_masks: 64")
    assert planned & MODEL_STEPS == {"smh"}


def test_lost_results_come_back_from_the_store(project):
    """Deleting results but not the store costs no forward pass: the model is never loaded."""
    lost = project.folder / RUN / "smh"
    before = load(lost / "0000" / "sns-0880.npz").arrays
    shutil.rmtree(lost)
    finished = project.snakemake("all_saliency")
    assert finished.returncode == 0, finished.stderr
    assert "Loading whisper-tiny.en" not in finished.stderr
    after = load(lost / "0000" / "sns-0880.npz").arrays
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)


def test_a_wrong_config_is_one_sentence_without_a_traceback(project):
    wrong = project.folder / "wrong.yaml"
    wrong.write_text("smx: {n_mask: 100}\n")
    shown = project.snakemake(configfile="wrong.yaml")
    assert shown.returncode != 0
    assert "unknown key 'smx.n_mask'; did you mean 'n_masks'?" in shown.stdout + shown.stderr
    assert "Traceback" not in shown.stdout + shown.stderr
