"""Scores of a run, and a score of one's own."""

import numpy as np
import pytest
import sacrebleu

from s2txai.analysis.deletion_curves import score_deletion
from s2txai.analysis.scoring import SCORES, Score, score_names
from s2txai.analysis.transcripts import score_transcripts
from s2txai.analysis.word_errors import error_rate
from s2txai.datasets import parse_task
from s2txai.report.names import score_name
from s2txai.report.sweep import area_title
from tests.analysis.test_deletion_curves import REFERENCES, deleted_utterance

HYPOTHESES = {"u1": "a b c x e", "u2": "a", "u3": "c d e f", "u4": ""}
OPTIONS = {"text_normalisation": "none", "decoding": {"beam": 5, "precision": "float32"}}


def lengths(references, hypotheses):
    """Return how far each hypothesis is from the length of its reference, and that length."""
    pairs = zip(references, hypotheses, strict=True)
    return np.array([[abs(len(a) - len(b)), len(a)] for a, b in pairs], dtype=float)


@pytest.fixture
def new_score(monkeypatch):
    monkeypatch.setattr(SCORES, "_entries", dict(SCORES._entries))
    SCORES.register("length")(
        Score(
            lengths, error_rate, tasks=frozenset({"asr"}), higher_is_better=False,
            short_name="LE", name="length error, LE", unit="%",
        )
    )  # fmt: skip


def test_recognition():
    transcripts, scores = score_transcripts(HYPOTHESES, REFERENCES, parse_task("asr-en"), **OPTIONS)
    assert list(transcripts) == ["utterance", "reference", "hypothesis", "wer"]
    assert transcripts["wer"].tolist() == [20, 50, 0, 100]
    assert scores["metric"].tolist() == ["wer", "wer_max"]
    # 1 + 1 + 0 + 4 errors in 5 + 2 + 4 + 4 words
    assert scores["score"].tolist() == pytest.approx([40, 40])
    assert scores["signature"][0].startswith("metric:wer|reference:human|text_normalisation:none|")
    facts = "|beam:5|precision:float32|unit:word|tokeniser:white space|s2txai:"
    assert facts in scores["signature"][0]


def test_translation_states_the_settings_of_bleu_last():
    _, scores = score_transcripts(HYPOTHESES, REFERENCES, parse_task("st-it-en"), **OPTIONS)
    (row,) = scores.to_dict("records")
    published = sacrebleu.corpus_bleu(list(HYPOTHESES.values()), [REFERENCES]).score
    assert row["metric"] == "bleu"
    assert row["score"] == published
    version = sacrebleu.__version__
    assert f"|precision:float32|sacrebleu:{version},tok:13a,smooth:exp|s2txai:" in row["signature"]


@pytest.mark.usefixtures("new_score")
def test_a_registered_score_is_in_the_tables_and_has_a_name():
    task = parse_task("asr-en")
    assert score_names(task) == ("wer", "wer_max", "length")
    assert "length" not in score_names(parse_task("st-it-en"))
    _, scores = score_transcripts(HYPOTHESES, REFERENCES, task, **OPTIONS)
    assert scores["metric"].tolist() == ["wer", "wer_max", "length"]
    # 0 + 2 + 0 + 7 of 9 + 3 + 7 + 7 characters
    assert scores["score"].iloc[-1] == pytest.approx(100 * 9 / 26)
    deleted = [deleted_utterance(n) for n in range(4)]
    tables = score_deletion(REFERENCES, deleted, task, text_normalisation="none")
    assert "length" in set(tables.areas["metric"])
    assert score_name("length") == "length error, LE (%)"
    assert area_title("length") == "LE (%): a higher area means a more faithful map"


def test_every_score_says_which_way_is_better():
    assert [SCORES[name].higher_is_better for name in ("wer", "wer_max", "bleu", "comet")] == [
        False, False, True, True,
    ]  # fmt: skip
