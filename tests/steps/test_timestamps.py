"""The step times the words of aligned utterances and writes three tables."""

import numpy as np
import pandas as pd
import pytest

from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.steps.timestamps import OUTPUTS, timestamps_run, timing_tables
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from tests.analysis.test_words import align
from tests.studies import Study, write_corpus
from tests.toy import WordModel


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("timestamps")
    toy = Study(root, write_corpus(root), WordModel())
    for step in (toy.decode, toy.attention, toy.smx, toy.smh, toy.aggregate):
        step()
    return toy


@pytest.fixture
def aligned(study, tmp_path):
    return tuple(align(utterance, tmp_path) for utterance in study.utterances)


def written(tmp_path, utterances, aggregated, decoded):
    run = Run("d", "m", parse_task("asr-en"), utterances, {})
    outputs = {name: tmp_path / f"{name}.csv" for name in OUTPUTS}
    timestamps_run(run, aggregated, decoded, outputs)
    return {name: pd.read_csv(path) for name, path in outputs.items()}


def test_every_table_is_written(study, tmp_path, aligned):
    aggregated, decoded = study.read("aggregate"), study.read("decode")
    files = written(tmp_path, aligned, aggregated, decoded)
    tables = timing_tables(aligned, aggregated, decoded)
    for name, file in files.items():
        table = getattr(tables, name)
        assert len(file) == len(table) > 0
        assert [column for column in file if column in table] == list(table)
    np.testing.assert_allclose(files["summary"]["start_mae"], tables.summary["start_mae"])


def test_without_utterances_files_have_only_columns(tmp_path):
    """As where all utterances that have alignments failed."""
    for file in written(tmp_path, (), [], []).values():
        assert file.empty
        assert "signature" in file


def test_maps_of_other_parameters_are_refused(study, aligned):
    first, second = study.read("aggregate")
    parameters = second.meta["parameters"]
    other = Artifact(
        second.arrays, second.meta | {"parameters": {**parameters, "smh": {}}}, second.path
    )
    with pytest.raises(UserError, match="hold smh maps made with different parameters"):
        timing_tables(aligned, [first, other], study.read("decode"))
