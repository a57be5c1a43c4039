"""The table of utterances that a step failed on."""

from pathlib import Path

import pandas as pd
import pytest

from s2txai.datasets import Utterance, parse_task
from s2txai.steps.failures import list_failures
from s2txai.storage.failures import Failure, record
from s2txai.study.plan import Run

IDS = ["a", "b", "c"]


@pytest.fixture
def run():
    utterances = tuple(Utterance(name, Path(f"{name}.wav"), "en", "words") for name in IDS)
    shards = {"0000": IDS[:2], "0001": IDS[2:]}
    return Run("talks", "whisper", parse_task("asr-en"), utterances, shards)


def test_failures_are_rows_in_the_order_of_the_run(run, tmp_path):
    shards = [tmp_path / "deletion" / name for name in run.shards]
    for folder in shards:
        folder.mkdir(parents=True)
    record(Failure("c", "smx", "no mask"), shards[1])
    record(Failure("b", "decode", "is silent"), shards[0])
    list_failures(run, shards, tmp_path / "failures.tsv")
    table = pd.read_csv(tmp_path / "failures.tsv", sep="\t")
    assert table.to_dict("records") == [
        {
            "dataset": "talks", "model": "whisper", "task": "asr-en", "utterance": name,
            "step": step, "audio": f"{name}.wav", "message": message,
        }
        for name, step, message in [("b", "decode", "is silent"), ("c", "smx", "no mask")]
    ]  # fmt: skip


def test_a_run_without_failures_has_an_empty_table(run, tmp_path):
    list_failures(run, [tmp_path / "deletion" / name for name in run.shards], tmp_path / "f.tsv")
    assert len(pd.read_csv(tmp_path / "f.tsv", sep="\t")) == 0
