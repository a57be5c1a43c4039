"""The step writes transcripts and scores, and warns of hypotheses that are as bad as none."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from s2txai.datasets import Utterance, parse_task
from s2txai.steps.transcripts import transcripts_run
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run

TEXTS = {"007": ("my house", "my house"), "NA": ("tree", ""), "u3": ("river", "red garden")}


def decoded(name, text, **arrays):
    meta = {"utterance": name, "parameters": {"beam": 5, "precision": "float32"}}
    arrays = {"roles": np.array(["text", "eos"])} | arrays
    return Artifact({"text": np.array(text), **arrays}, meta)


def run_of(task):
    utterances = tuple(
        Utterance(name, Path(f"{name}.wav"), "en", reference, {"it": reference})
        for name, (reference, _) in TEXTS.items()
    )
    return Run("d", "m", parse_task(task), utterances, {"0000": list(TEXTS)}, failed=utterances[:1])


def written(tmp_path, task, **arrays):
    outputs = {name: tmp_path / f"{name}.csv" for name in ("transcripts", "scores")}
    artifacts = [decoded(name, text, **arrays) for name, (_, text) in TEXTS.items()]
    transcripts_run(
        run_of(task), artifacts, outputs, text_normalisation="whisper", diacritics="folded"
    )
    return [pd.read_csv(path, dtype=str, keep_default_na=False) for path in outputs.values()]


def test_tables_of_recognition(tmp_path, caplog):
    transcripts, scores = written(tmp_path, "asr-en")
    assert list(transcripts) == [
        "dataset", "model", "task", "utterance", "reference", "hypothesis", "at_limit",
        "wer",
    ]  # fmt: skip
    assert transcripts["utterance"].tolist() == list(TEXTS)
    assert transcripts["hypothesis"].tolist() == [text for _, text in TEXTS.values()]
    assert transcripts["wer"].tolist() == ["0.0", "100.0", "200.0"]
    # One word is missing, one replaced and one added, of four.
    columns = ["metric", "score", "n_utterances", "n_failed_utterances"]
    assert scores[columns].to_numpy().tolist() == [
        ["wer", "75.0", "3", "1"],
        ["wer_max", "75.0", "3", "1"],
    ]  # fmt: skip
    assert "diacritics:folded" in scores["signature"][0]
    messages = [record.getMessage() for record in caplog.records]
    assert [name in message for message in messages for name in ("'NA'", "'u3'")] == [
        True, False, False, True,
    ]  # fmt: skip
    assert messages[0] == (
        "The hypothesis of 'NA' is no better than an empty one: ''. The model, the recording "
        "NA.wav or its reference in 'en' may be the cause; compare the three before you use this "
        "utterance's results."
    )


def test_translations_are_named_only_when_empty(tmp_path, caplog):
    _, scores = written(tmp_path, "st-en-it")
    assert scores["metric"].tolist() == ["bleu"]
    (record,) = caplog.records
    assert "'NA'" in record.getMessage()


@pytest.mark.parametrize(
    ("arrays", "cut"),
    [
        ({"at_limit": np.array(True)}, True),
        ({"at_limit": np.array(False)}, False),
        ({"roles": np.array(["text"])}, True),  # a file of before
        ({"roles": np.array(["text"]), "at_limit": np.array(True)}, True),
    ],
)
def test_hypotheses_at_the_token_limit_are_marked_and_counted(tmp_path, caplog, arrays, cut):
    transcripts, _ = written(tmp_path, "asr-en", **arrays)
    assert transcripts["at_limit"].tolist() == [str(cut)] * 3
    assert ("3 of 3 hypotheses reach the most tokens" in caplog.text) is cut
