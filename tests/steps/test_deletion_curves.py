"""The step writes curves, areas and sizes, by the references of the task."""

import sys
from pathlib import Path

import pandas as pd

from s2txai.datasets import Utterance, parse_task
from s2txai.steps.deletion_curves import OUTPUTS, deletion_curves_run, deletion_tables
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from tests.analysis.test_comet import SOURCES, checkpoint, package  # noqa: F401
from tests.analysis.test_deletion_curves import REFERENCES, deleted_utterance

UTTERANCES = tuple(
    Utterance(f"u{n}", Path("it.wav"), "it", source, {"en": text})
    for n, (source, text) in enumerate(zip(SOURCES, REFERENCES, strict=True))
)
TASK = parse_task("st-it-en")
RUN = Run("d", "m", TASK, UTTERANCES, {"0000": [one.id for one in UTTERANCES]})
SCORING = {"text_normalisation": "none", "diacritics": "kept", "seed": 5}


def artifacts():
    utterances = [deleted_utterance(n) for n in range(4)]
    return [
        Artifact(dict(data.arrays), {"utterance": data.utterance, "parameters": data.parameters})
        for data in utterances
    ]


def test_every_table_is_written(tmp_path):
    outputs = {name: tmp_path / f"{name}.csv" for name in OUTPUTS}
    deletion_curves_run(RUN, artifacts(), outputs, **SCORING)
    tables = deletion_tables(REFERENCES, artifacts(), TASK, **SCORING)
    expected = {"curves": tables.curves, "auc": tables.areas, "size": tables.sizes}
    for name, table in expected.items():
        written = pd.read_csv(outputs[name])
        assert (written["n_failed_utterances"] == 0).all()
        pd.testing.assert_frame_equal(
            written.drop(columns=["dataset", "model", "task", "n_failed_utterances"]), table
        )


def test_comet_reads_the_transcripts(tmp_path, package, checkpoint):  # noqa: F811
    outputs = {name: tmp_path / f"{name}.csv" for name in OUTPUTS}
    deletion_curves_run(RUN, artifacts(), outputs, comet_checkpoint=checkpoint, **SCORING)
    assert "comet" in set(pd.read_csv(outputs["auc"])["metric"])
    assert {source for source, *_ in sys.modules["comet"].asked} == set(SOURCES)
