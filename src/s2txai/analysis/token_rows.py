"""The rows of a map, by their tokens: which of them a correlation uses, and the class of each."""

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
    for piece, role, word in zip(pieces, roles, word_index, strict=True):
        if role != "text":
            classes.append("end" if role == "eos" else "tag")
        elif not _is_wordy(piece):
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
    return np.array(
        [role == "text" and _is_wordy(piece) for piece, role in zip(pieces, roles, strict=True)]
    )


def _is_wordy(piece: str) -> bool:
    # A token that is only some bytes of a character decodes to the replacement character.
    return any(character.isalnum() or character == "\ufffd" for character in piece)
