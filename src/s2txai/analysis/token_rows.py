"""The rows of a map, by their tokens: which of them a correlation uses, and the class of each."""

import unicodedata
from collections.abc import Sequence

import numpy as np

from s2txai.errors import UserError


def token_classes(
    pieces: Sequence[str], roles: Sequence[str], word_index: Sequence[int]
) -> list[str]:
    """Return the class of each token.

    ``end`` (of sentence), ``tag`` (language tags and other special tokens), ``punctuation`` (text
    without letter or digit), ``word`` (the first piece of a word that has one) or ``continuation``
    (a later piece of the same word).
    """
    begun: set[int] = set()
    classes = []
    wordy = _are_wordy(pieces, roles)
    for is_wordy, role, word in zip(wordy, roles, word_index, strict=True):
        if role != "text":
            classes.append("end" if role == "eos" else "tag")
        elif not is_wordy:
            classes.append("punctuation")
        else:
            classes.append("continuation" if word in begun else "word")
            begun.add(word)
    return classes


def choose_rows(rows: str, pieces: Sequence[str], roles: Sequence[str]) -> np.ndarray:
    """Return bool [I]: the rows a correlation uses.

    Parameters
    ----------
    rows
        ``all`` (every predicted token; the headline) or ``text`` (pieces of words only).
    pieces, roles
        The token table.

    Raises
    ------
    UserError
        If ``rows`` is another word.
    """
    if rows not in ("all", "text"):
        raise UserError(f"Unknown choice of rows '{rows}'. Choose one of: all, text.")
    if rows == "all":
        return np.ones(len(roles), dtype=bool)
    return np.array(_are_wordy(pieces, roles))


def _are_wordy(pieces: Sequence[str], roles: Sequence[str]) -> list[bool]:
    """Return which tokens are of words: whether their text has a letter, a mark of one or a digit.

    A token without text is part of a character, and so of what the token is that completes it.
    """
    wordy = [False] * len(roles)
    completed = ""
    for row in reversed(range(len(roles))):
        completed = pieces[row] or completed
        wordy[row] = roles[row] == "text" and any(map(_is_wordy, completed))
    return wordy


def _is_wordy(character: str) -> bool:
    # Bytes that are no character decode to the replacement character.
    return unicodedata.category(character)[0] in "LMN" or character == "\ufffd"
