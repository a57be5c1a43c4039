"""Rows of a map by their tokens."""

import numpy as np
import pytest

from s2txai.analysis.token_rows import choose_rows, token_classes
from s2txai.errors import UserError


def test_choose_rows():
    pieces = ["<|en|>", " It", "'s", ",", " 5", " être", "–", "<eos>"]
    roles = ["special", *["text"] * 6, "eos"]
    assert choose_rows("all", pieces, roles).all()
    chosen = choose_rows("text", pieces, roles)
    assert np.array(pieces)[chosen].tolist() == [" It", "'s", " 5", " être"]


def test_another_choice_of_rows_is_refused():
    with pytest.raises(UserError, match="Unknown choice of rows 'words'"):
        choose_rows("words", [" a"], ["text"])


def test_token_classes():
    pieces = ["<|en|>", " un", "believ", "able", ",", ' "', "It", "'s", "\ufffd", "<eos>"]
    roles = ["special", *["text"] * 8, "eos"]
    words = [-1, 0, 0, 0, 0, 1, 1, 1, 1, -1]
    assert token_classes(pieces, roles, words) == [
        "tag", "word", "continuation", "continuation", "punctuation", "punctuation", "word",
        "continuation", "continuation", "end",
    ]  # fmt: skip
    assert token_classes([" fr"], ["forced"], [-1]) == ["tag"]


def test_marks_of_letters_and_parts_of_characters_are_of_words():
    # क ि त, then the two tokens of ब; the two of 。, and of む.
    pieces = [" क", "ि", "त", "", "ब", "", "。", "", "む"]
    roles, words = ["text"] * 9, [0, 0, 0, 0, 0, 1, 1, 2, 2]
    used = choose_rows("text", pieces, roles)
    assert used.tolist() == [True] * 5 + [False] * 2 + [True] * 2
    assert token_classes(pieces, roles, words) == [
        "word", *["continuation"] * 4, "punctuation", "punctuation", "word", "continuation",
    ]  # fmt: skip
