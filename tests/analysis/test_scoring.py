import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st

from s2txai.analysis.scoring import SCORES, corpus_score, score_names
from s2txai.datasets import parse_task
from s2txai.errors import UserError


def test_an_unknown_score_is_refused():
    with pytest.raises(UserError, match="Unknown score 'ter'"):
        SCORES["ter"]


def test_scores_of_a_task():
    assert score_names(parse_task("asr-it")) == ("wer", "wer_max")
    assert score_names(parse_task("st-it-en")) == ("bleu",)


def score(name, reference, hypothesis, normalisation="none", language="en"):
    options = {"text_normalisation": normalisation, "language": language}
    return corpus_score(name, [reference], [hypothesis], **options)


def test_normalisation_is_applied_to_both():
    reference, hypothesis = "It is Mr Dashwood", "it's mister Dashwood."
    assert score("wer", reference, hypothesis, "whisper") == 0
    assert score("wer", hypothesis, reference, "whisper") == 0
    assert score("wer", reference, hypothesis) == 100


def test_language_chooses_the_normaliser():
    # Only English spells "mr" out.
    assert score("wer", "mr rossi", "mister rossi", "whisper", "en") == 0
    assert score("wer", "mr rossi", "mister rossi", "whisper", "it") == 50


@pytest.mark.parametrize("normalisation", ["none", "whisper"])
def test_diacritics_are_folded_on_demand(normalisation):
    spoken, written = ["la única línea está aquí, señor"], ["la unica linea esta aqui, senor"]
    options = {"text_normalisation": normalisation, "language": "es"}
    assert corpus_score("wer", spoken, written, **options) == pytest.approx(500 / 6)
    for references, hypotheses in ((spoken, written), (written, spoken)):
        folded = corpus_score("wer", references, hypotheses, diacritics="folded", **options)
        assert folded == 0


@pytest.mark.parametrize("space", ["\t", "\n", "  ", "\u00a0", "\u3000"])
def test_words_part_at_any_white_space(space):
    assert score("wer", f"a{space}b{space}c", "a b c") == 0
    assert score("wer", "a b c", f"a{space}b{space}d") == pytest.approx(100 / 3)


WORDS = st.lists(st.sampled_from(["a", "b", "c", "dé"]), max_size=6).map(" ".join)


def edits(reference, hypothesis):
    """Return the edit distance of two lists, by the textbook."""
    row = list(range(len(hypothesis) + 1))
    for i, word in enumerate(reference, 1):
        previous, row = row, [i]
        for j, heard in enumerate(hypothesis, 1):
            row.append(min(previous[j] + 1, row[-1] + 1, previous[j - 1] + (word != heard)))
    return row[-1]


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_wer_is_edits_over_words(pairs):
    references, hypotheses = zip(*pairs, strict=True)
    n_words = sum(len(text.split()) for text in references)
    total = sum(edits(one.split(), other.split()) for one, other in pairs)
    expected = 100 * total / n_words if n_words else 0
    assert SCORES["wer"](references, hypotheses) == pytest.approx(expected)
    assert SCORES["wer_max"](references, hypotheses) == pytest.approx(min(100, expected))


def published(name, pairs):
    """Return the score by the libraries' own functions of a corpus."""
    references, hypotheses = zip(*pairs, strict=True)
    if name == "bleu":
        return sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score
    n_words = sum(len(text.split()) for text in references)
    total = sum(edits(one.split(), other.split()) for one, other in pairs)
    rate = 100 * total / n_words if n_words else 0
    return min(100, rate) if name == "wer_max" else rate


@given(st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=4))
def test_counts_of_utterances_add_up_to_the_corpus(pairs):
    references, hypotheses = zip(*pairs, strict=True)
    for name in ("wer", "wer_max", "bleu"):
        score = SCORES[name]
        counts = score.counts(references, hypotheses)
        assert len(counts) == len(pairs)
        assert score.of_sums(counts.sum(axis=0)) == pytest.approx(published(name, pairs))


def test_counts_by_hand():
    references, hypotheses = ["a b c d e", "a"], ["a x c e f", ""]
    # b becomes x, d is missing, f is added; a is missing.
    counts = SCORES["wer"].counts(references, hypotheses)
    assert counts.tolist() == [[3, 5], [1, 1]]
    # Drawn twice and not at all.
    assert SCORES["wer"].of_sums(np.array([[6, 10], [0, 0]])).tolist() == [60, 0]
    assert SCORES["wer_max"].of_sums(np.array([[3, 2], [1, 2]])).tolist() == [100, 50]
    n_grams = SCORES["bleu"].counts(["a b c d e"], ["a b c x"])
    assert n_grams.tolist() == [[3, 2, 1, 0, 4, 3, 2, 1, 4, 5]]
