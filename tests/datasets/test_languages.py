"""docs/languages.md, row by row, against the code."""

from pathlib import Path

import pytest

from s2txai.analysis.scoring import SCORES, score_names, score_signature
from s2txai.datasets import languages, parse_task
from s2txai.datasets.languages import bleu_fallback, bleu_tokeniser, text_unit
from s2txai.datasets.text_forms import same_forms
from s2txai.datasets.text_normalisers import TEXT_NORMALISERS
from s2txai.models.pieces import token_table
from tests.scripts import SENTENCES, changed, written

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "languages.md"
ROWS = [
    tuple(cell.strip() for cell in line.strip("|").split("|"))
    for line in DOCUMENT.read_text("utf-8").splitlines()
    if line.startswith("| ") and not line.startswith("| language")
]


def test_every_language_has_a_row_and_a_sentence():
    assert [row[1] for row in ROWS] == list(SENTENCES)


@pytest.mark.parametrize(
    ("name", "code", "score", "unit", "normaliser", "tokeniser", "timing"),
    ROWS,
    ids=[row[1] for row in ROWS],
)
def test_a_row(name, code, score, unit, normaliser, tokeniser, timing, monkeypatch):
    main, clipped = score_names(parse_task(f"asr-{code}"))
    assert (SCORES[main].short_name, clipped) == (score, f"{main}_max")
    assert text_unit(code) == unit
    signature = score_signature(main, language=code, text_normalisation="whisper")
    assert f"metric:{main}|" in signature
    assert f"|unit:{unit}|" in signature
    words = changed(code)[0]
    text = same_forms(written(code, words))
    normalise = TEXT_NORMALISERS["whisper"](code)
    # A word with a sign in it, which only some languages keep.
    kept = " " not in normalise("Ім'я" if code != "he" else "צ'ק")
    assert kept == ("kept within words" in normaliser)
    assert (normalise("I") == "ı") == ("dotless" in normaliser)
    assert (normalise("mr") == "mister") == (normaliser == "English")
    assert "".join(same_forms(normalise(text)).split()) == "".join(
        text.lower().split()
    ) or code in ("en", "tr")
    first, _, other = tokeniser.partition(", else ")
    monkeypatch.setattr(languages, "find_spec", lambda package: object())
    assert (bleu_tokeniser(code), bleu_fallback(code)) == (first, None)
    monkeypatch.setattr(languages, "find_spec", lambda package: None)
    assert bleu_tokeniser(code) == (other or first)
    assert (bleu_fallback(code) is not None) == bool(other)
    n_words = 1 + max(token_table(list(text), ["text"] * len(text)).word_index)
    assert n_words == (len(words) if timing == "between spaces" else len(text))


def test_the_fallback_says_what_to_install(monkeypatch):
    monkeypatch.setattr(languages, "find_spec", lambda package: None)
    sentence = bleu_fallback("ja")
    assert "tok:char" in sentence
    assert "pip install 'sacrebleu[ja]'" in sentence
