"""The step decode: the words of the toy model are known."""

from dataclasses import replace

import pytest

from s2txai.steps.transcripts import transcript_tables
from tests.studies import TASK, TEXTS, again, pick
from tests.toy import (
    EOS,
    PROMPT,
    SUBSAMPLING,
    WORD_STEPS,
    write_speech,
)


def test_decoding(finished):
    for artifact, (name, text) in zip(finished.study.read("decode"), TEXTS.items(), strict=True):
        words, n_words = text.split(), len(text.split())
        assert str(artifact["text"]) == text
        assert artifact["pieces"].tolist() == [*(f" {word}" for word in words), "<eos>"]
        assert artifact["roles"].tolist() == ["text"] * n_words + ["eos"]
        assert artifact["word_index"].tolist() == [*range(n_words), -1]
        assert artifact["tokens"][-1] == EOS
        assert artifact["prompt"].tolist() == PROMPT
        assert artifact["features"].shape == (n_words * WORD_STEPS * SUBSAMPLING, 4)
        assert (artifact["log_probs"] < 0).all()
        assert (artifact["log_probs"] > -0.2).all()
        assert artifact.meta["utterance"] == name
        assert artifact.meta["parameters"] == {"beam": 5, "precision": "float32"}


def test_transcripts(finished):
    study = finished.study
    utterances = [replace(one, transcript=f"{one.transcript} end") for one in study.utterances]
    transcripts, scores = transcript_tables(
        utterances, study.read("decode"), TASK, text_normalisation="whisper"
    )
    assert transcripts["utterance"].tolist() == list(TEXTS)
    assert transcripts["hypothesis"].tolist() == list(TEXTS.values())
    assert transcripts["wer"].tolist() == pytest.approx([100 / 6, 100 / 5])
    row = pick(scores, metric="wer")
    assert row["score"] == pytest.approx(200 / 11)  # of the corpus, not the mean
    assert row["n_utterances"] == 2
    assert "beam:5" in row["signature"]
    assert "text_normalisation:whisper" in row["signature"]


def test_a_hypothesis_no_better_than_none_is_told_of(finished, caplog):
    study = finished.study
    first, second = study.utterances
    utterances = [replace(first, transcript="something else was said"), second]
    transcript_tables(utterances, study.read("decode"), TASK, text_normalisation="whisper")
    (told,) = [record.getMessage() for record in caplog.records]
    assert f"'{first.id}'" in told
    assert str(first.path) in told


def test_other_weights_audio_or_precision_are_other_work(finished):
    for changed in ("sha256", "precision"):
        other = again(finished, f"other-{changed}")
        setattr(other.handle, changed, "other")
        with pytest.raises(AssertionError, match="the model was loaded"):
            other.decode()


def test_changed_audio_under_the_same_name_is_decoded_again(study):
    study.decode()
    write_speech(study.utterances[0].path, "south south north east", seed=5)
    study.decode()
    assert [str(one["text"]) for one in study.read("decode")] == [
        "south south north east",
        TEXTS["four"],
    ]
