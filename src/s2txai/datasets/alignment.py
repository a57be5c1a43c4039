"""Alignments: when each word of a recording is said, as others found it."""

import math
from dataclasses import dataclass
from pathlib import Path

from s2txai.datasets.text import read_lines
from s2txai.errors import UserError

# How boundaries came about. Numbers of different evidence are never put together.
EVIDENCE = ("hand", "reference", "machine")

_COLUMNS = ("tier", "start_s", "end_s", "label")
_WORDS = "word"


@dataclass(frozen=True)
class Word:
    """A word and when it is said.

    Attributes
    ----------
    text
        As the alignment writes it.
    start, end
        In seconds from the beginning of the utterance.
    """

    text: str
    start: float
    end: float


def read_alignment(path: Path) -> list[Word]:
    """Read the words of an alignment.

    It is a UTF-8 table of tab-separated values, without quoting, whose first line names the columns
    ``tier``, ``start_s``, ``end_s`` and ``label``. The rows whose tier is ``word`` are read, in
    their order; rows without a label are pauses.

    Raises
    ------
    UserError
        If the file is missing or not UTF-8, lacks a column or any word, a time is no number, a word
        ends before it begins or begins before the one above it ends; names file and line.
    """
    lines = read_lines(path)
    header = lines[0].split("\t")
    for column in _COLUMNS:
        if column not in header:
            raise UserError(
                f"{path}, line 1: no column '{column}'; the first line must name the tab-separated "
                f"columns {', '.join(_COLUMNS)}."
            )
    words: list[Word] = []
    for line, text in enumerate(lines[1:], start=2):
        if not text.strip():
            continue
        word = _word(f"{path}, line {line}", header, text.split("\t"))
        if word is None:
            continue
        if words and word.start < words[-1].end:
            raise UserError(
                f"{path}, line {line}: '{word.text}' begins at {word.start:g} s, before the word "
                f"above it ends ({words[-1].end:g} s); words must follow one another."
            )
        words.append(word)
    if not words:
        raise UserError(f"{path}: no row of tier '{_WORDS}' with a label; add one for each word.")
    return words


def _word(where: str, header: list[str], cells: list[str]) -> Word | None:
    """Return the word of a row; None for rows of other tiers and for pauses."""
    if len(cells) != len(header):
        raise UserError(
            f"{where}: {len(cells)} values for {len(header)} columns; separate them by single tabs."
        )
    row = {name: cell.strip() for name, cell in zip(header, cells, strict=True)}
    if row["tier"] != _WORDS or not row["label"]:
        return None
    try:
        start, end = float(row["start_s"]), float(row["end_s"])
    except ValueError as error:
        raise UserError(f"{where}: times must be numbers in seconds ({error}).") from error
    if not 0 <= start <= end < math.inf:
        raise UserError(
            f"{where}: '{row['label']}' lasts from {start:g} to {end:g} s; a word begins at 0 or "
            "later and does not end before it begins."
        )
    return Word(row["label"], start, end)
