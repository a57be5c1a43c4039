"""Snakemake with gradient methods, on a Whisper of random weights that hears one second."""

import numpy as np
import pandas as pd
import pytest
import soundfile
import yaml

from s2txai.saliency.deletion_maps import map_names
from s2txai.saliency.methods import METHODS
from s2txai.storage.artifacts import load_shard
from tests.tiny_whisper import save_tiny_whisper
from tests.workflow.project import Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]

RUN = "results/noise/tiny/asr-en"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    project = Project.new(tmp_path_factory.mktemp("project"), "my.yaml")
    save_tiny_whisper(project.folder / "weights")
    speech = project.folder / "speech"
    speech.mkdir()
    samples = 0.1 * np.random.default_rng(0).standard_normal(8000)
    soundfile.write(speech / "one.wav", samples, 16000)
    (speech / "manifest.tsv").write_text(
        "id\tpath\tlanguage\ttranscript\none\tone.wav\ten\tword1 word2\n"
    )
    settings = {
        "datasets": {
            "noise": {
                "manifest": "speech/manifest.tsv", "description": "Noise.", "licence": "none",
            }
        },
        "models": {
            "tiny": {
                "family": "whisper", "description": "Random.", "licence": "none",
                "languages": ["en"], "translation_targets": [], "max_seconds": 1,
                "source": {"path": str(project.folder / "weights")},
            }
        },
        "runs": [{"dataset": "noise", "models": ["tiny"], "tasks": ["asr-en"]}],
        "smx": {"n_segments": [100], "n_masks": 16},
        "smh": {"n_masks": 16},
        "gradient": {
            "methods": ["integrated_gradients", "grad", "input_x_gradient"], "n_points": 4,
        },
        "deletion": {"step": 50},
    }  # fmt: skip
    (project.folder / project.configfile).write_text(yaml.safe_dump(settings))
    done = project.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return project


def test_every_method_is_computed_correlated_and_deleted_by(finished):
    run = finished.folder / RUN
    for method in METHODS:
        (artifact,) = load_shard(run / method / "0000", ["one"], method)
        assert artifact.meta["parameters"]["precision"] == "float32"
    assert set(METHODS) < set(pd.read_csv(run / "correlate" / "summary.csv")["saliency"])
    names = pd.read_csv(run / "deletion" / "auc.csv")["map"].unique().tolist()
    assert names == list(map_names(["avg2d", "max2d"], list(METHODS)))
    page = (finished.folder / "results" / "report" / "index.html").read_text("utf-8")
    assert "integrated gradients" in page


def test_a_method_less_runs_no_other_step_that_perturbs(finished, tmp_path):
    copy = finished.copy(tmp_path)
    copy.configure(gradient={"methods": ["grad", "integrated_gradients"]})
    assert {job.rule for job in copy.planned()} == {
        "aggregate", "correlate", "heads", "comparisons", "deletion", "deletion_curves", "report",
        "failures", "check_failures",
    }  # fmt: skip


def test_each_parameter_concerns_its_method_alone(finished, tmp_path):
    copy = finished.copy(tmp_path)
    copy.configure(gradient={"n_points": 5})
    shown = copy.snakemake("--dry-run").stdout
    assert "Gradients by integrated_gradients" in shown
    assert "Gradients by grad" not in shown
    assert "Gradients by input_x_gradient" not in shown
