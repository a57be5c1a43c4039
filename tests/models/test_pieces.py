"""Tokens of texts in every script: pieces, words and units, decoded together."""

from itertools import pairwise
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

from s2txai.models.pieces import sentencepiece_text, token_table
from s2txai.models.transformers_base import TransformersModel
from s2txai.models.whisper import WhisperVocabulary
from tests.scripts import SENTENCES, WITHOUT_SPACES, changed, written
from tests.weights import ROOT, model_directory

ALPHABET = sorted(pre_tokenizers.ByteLevel.alphabet())


def byte_level(merges=()):
    """Return a byte-level tokenizer, as Whisper's is, of bytes and a few merges of them."""
    vocabulary = {character: n for n, character in enumerate(ALPHABET)}
    for pair in merges:
        vocabulary["".join(pair)] = len(vocabulary)
    tokenizer = Tokenizer(BPE(vocabulary, list(merges)))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def table_of(vocabulary, tokens):
    return TransformersModel.token_table(SimpleNamespace(_vocabulary=vocabulary), tokens)


def words_of(table):
    n_words = max(table.word_index, default=-1) + 1
    pieces = list(zip(table.pieces, table.word_index, strict=True))
    return ["".join(piece for piece, word in pieces if word == n) for n in range(n_words)]


@pytest.mark.parametrize("language", SENTENCES)
def test_bytes_make_up_the_words_of_the_text(language):
    tokenizer = byte_level()
    words = changed(language)[0]
    text = written(language, words)
    table = table_of(WhisperVocabulary(tokenizer, 10_000), tokenizer.encode(text).ids)
    assert "".join(table.pieces) == text
    if language in WITHOUT_SPACES:
        # Every code point is a unit of its own.
        assert words_of(table) == list(text)
    else:
        assert [word.strip() for word in words_of(table)] == words


@given(st.data())
def test_any_merges_of_bytes_give_the_text_and_units_at_whole_characters(data):
    language = data.draw(st.sampled_from(sorted(SENTENCES)))
    sentence = data.draw(st.lists(st.sampled_from(changed(language)[0]), min_size=1, max_size=6))
    text = written(language, sentence)
    raw = text.encode()
    cuts = data.draw(st.sets(st.integers(1, max(1, len(raw) - 1))))
    bounds = [0, *sorted(cuts - {len(raw)}), len(raw)]
    pieces = [raw[a:b] for a, b in pairwise(bounds)]
    table = token_table(pieces, ["text"] * len(pieces))
    assert "".join(table.pieces) == text
    assert "".join(words_of(table)) == text
    assert all(word for word in words_of(table))
    steps = [b - a for a, b in pairwise(table.word_index)]
    assert set(steps) <= {0, 1}
    for word, before, bound in zip(
        table.word_index[1:], table.word_index, bounds[1:], strict=False
    ):
        whole = len(raw[:bound].decode("utf-8", "ignore").encode()) == bound
        # A word never begins within a character; without spaces one begins wherever it can.
        if word != before:
            assert whole
        elif whole and language in WITHOUT_SPACES:
            assert words_of(table)[word].startswith(" ")


def test_parts_of_a_character_belong_to_the_unit_that_it_completes():
    # 図 is split over two tokens, the second of which begins 書 as well.
    raw = "図書は".encode()
    table = token_table([raw[:2], raw[2:4], raw[4:6], raw[6:]], ["text"] * 4)
    assert table.pieces == ["", "図", "書", "は"]
    assert table.word_index == [0, 0, 0, 1]


def test_bytes_that_become_no_character_are_replaced():
    half = "é".encode()[:1]
    table = token_table(["a", half, "<|tag|>", half], ["text", "text", "special", "text"])
    assert table.pieces == ["a", "\ufffd", "<|tag|>", "\ufffd"]
    assert table.word_index == [0, 0, -1, 0]
    assert token_table([half, "b"], ["text", "text"]).pieces == ["", "\ufffdb"]


def test_words_of_scripts_with_spaces_begin_at_spaces_alone():
    for pieces, words in (
        ([" co", "l", "·", "legi"], [0, 0, 0, 0]),
        ([" don", "’", "t", ",", " no"], [0, 0, 0, 0, 1]),
        ([" 한", "국", " 어"], [0, 0, 1]),
        ([" मे", "री", " कि"], [0, 0, 1]),
        ([" deux", "\u00a0", "mots", "\u202f!"], [0, 1, 1, 2]),
        ([" one", "\n", "line"], [0, 1, 1]),
    ):
        assert token_table(pieces, ["text"] * len(pieces)).word_index == words


def test_latin_words_within_japanese_stay_whole():
    pieces = ["今日", "は", "Wh", "is", "per", "を", "使", "う", "。"]
    words = token_table(pieces, ["text"] * len(pieces)).word_index
    assert words == [0, 1, 2, 2, 2, 3, 4, 5, 6]


def test_a_space_by_itself_belongs_to_what_follows():
    # As SentencePiece writes the beginning of a text.
    pieces = [sentencepiece_text(symbol) for symbol in ("▁", "明日", "<0xE3>", "<0x81>", "<0xAF>")]
    table = token_table(pieces, ["text"] * 5)
    assert table.pieces == [" ", "明日", "", "", "は"]
    assert table.word_index == [0, 0, 1, 1, 1]


def test_an_added_word_is_text_itself():
    tokenizer = byte_level()
    tokenizer.add_tokens(["strange \ufffd word"])
    vocabulary = WhisperVocabulary(tokenizer, 10_000)
    assert vocabulary.piece(256) == "strange \ufffd word"


@pytest.mark.model
@pytest.mark.parametrize("name", ["whisper-tiny.en", "whisper-base"])
@pytest.mark.parametrize("language", SENTENCES)
def test_the_tokenizer_of_whisper(language, name):
    if name == "whisper-base" and not (ROOT / "resources" / "models" / name).exists():
        pytest.skip("no test needs these weights so much that they are fetched for it")
    tokenizer = Tokenizer.from_file(str(model_directory(name) / "tokenizer.json"))
    words = changed(language)[0]
    text = f" {written(language, words)}"
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    table = table_of(WhisperVocabulary(tokenizer, 50_257), ids)
    assert "".join(table.pieces) == tokenizer.decode(ids) == text
    if language not in WITHOUT_SPACES:
        assert [word.strip() for word in words_of(table)] == words
    else:
        assert len(words_of(table)) >= len(words)
        assert all(word.strip() for word in words_of(table))
