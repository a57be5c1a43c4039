"""Word boundaries read off a map by dynamic time warping, and how far they are from references.

The way that Whisper makes its word timestamps (Radford et al.'s code, ``whisper/timing.py``): each
encoder step is standardised over the tokens, rows are median-filtered over the steps, and the
cheapest monotone path through the negated map says when each token begins. Maps are [I, T'];
formulas in ``docs/definitions.md``.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

import jiwer
import numpy as np
from scipy.ndimage import median_filter

from s2txai.datasets import Diacritics
from s2txai.datasets.languages import text_unit
from s2txai.datasets.text_forms import letters_of

MEDIAN_WIDTH = 7  # encoder steps
TOLERANCES = (20, 50, 100, 200)  # ms

# Signs of Khmer and Burmese after which a letter is written below the one before.
_STACKING = ("\u17d2", "\u1039")

_STEP, _BOTH, _TOKEN = range(3)
# Cells of a stack that are warped at once: costs and moves of all heads of a large model would
# fill gigabytes.
_CELLS_AT_ONCE = 8_000_000


def standardise(maps: np.ndarray) -> np.ndarray:
    """Standardise every step's column of maps [..., I, T'] over the tokens.

    With the population's standard deviation. As in Whisper's code, a column that does not vary
    keeps what rounding leaves, where ``saliency.correlation.standardise_columns`` has zeros.
    """
    centred = maps - maps.mean(axis=-2, keepdims=True)
    deviation = centred.std(axis=-2, keepdims=True)
    return np.asarray(centred / np.where(deviation > 0, deviation, 1))


def smooth(maps: np.ndarray) -> np.ndarray:
    """Take the median of :data:`MEDIAN_WIDTH` steps around each step of maps [..., I, T'].

    At both ends the row is mirrored, its last step not repeated.
    """
    return np.asarray(median_filter(maps, size=MEDIAN_WIDTH, axes=(-1,), mode="mirror"))


def warp(costs: np.ndarray) -> np.ndarray:
    """Return the first step of each token on the cheapest monotone path through each map.

    A path runs from the first token at the first step to the last token at the last step and sums
    the costs of its cells. It moves to the next step, the next token, or both. As in Whisper's code
    (``dtw_cpu``), sums are float32, and a cell is entered by the next step unless one of the other
    moves alone is the cheapest. So of equally cheap paths this one lets late tokens begin early;
    and where the two other moves lead to a cell equally cheaply, which median-filtered rows bring
    about, the next step is taken though it costs more.

    Parameters
    ----------
    costs
        [M, I, T'], finite.

    Returns
    -------
    ndarray
        int64 [M, I], never falling along I; the first column is 0.
    """
    return _first_steps(_moves(costs))


def _moves(costs: np.ndarray) -> np.ndarray:
    """Return int8 [I, T', M]: the move by which the cheapest path enters each cell."""
    M, I, n_steps = costs.shape
    # Maps last: what is done to a cell is done to all maps at once.
    costs = np.ascontiguousarray(np.moveaxis(costs, 0, -1), dtype=np.float64)
    moves = np.full((I, n_steps, M), _STEP, dtype=np.int8)
    # The sums on the last two antidiagonals, by token + 1; outside the map they are infinite.
    before, last, current = np.full((3, I + 1, M), np.inf, dtype=np.float32)
    last[1] = costs[0, 0]
    for diagonal in range(1, I + n_steps - 1):
        low, high = max(0, diagonal - n_steps + 1), min(I, diagonal + 1)
        token = np.arange(low, high)
        by_step, by_token = last[low + 1 : high + 1], last[low:high]
        by_both = before[low:high]
        both = (by_both < by_step) & (by_both < by_token)
        alone = (by_token < by_step) & (by_token < by_both)
        moves[token, diagonal - token] = np.where(both, _BOTH, np.where(alone, _TOKEN, _STEP))
        entered = np.where(both, by_both, np.where(alone, by_token, by_step))
        current[low + 1 : high + 1] = costs[token, diagonal - token] + entered
        before, last, current = last, current, before
    return moves


def _first_steps(moves: np.ndarray) -> np.ndarray:
    """Follow moves int8 [I, T', M] back from the last cell; first steps of the tokens [M, I]."""
    I, n_steps, M = moves.shape
    maps = np.arange(M)
    token, step = np.full(M, I - 1), np.full(M, n_steps - 1)
    first = np.zeros((M, I), dtype=np.int64)
    for _ in range(I + n_steps - 1):
        first[maps, token] = step  # steps only fall, so the first one stays
        move = moves[token, step, maps]
        # Those who have arrived at the first cell, which no move enters, wait there.
        step = np.where(move == _TOKEN, step, np.maximum(step - 1, 0))
        token = np.where(move == _STEP, token, token - 1)
    return first


def token_starts(maps: np.ndarray) -> np.ndarray:
    """Return the step at which each token begins in each map: standardise, smooth, negate, warp.

    Parameters
    ----------
    maps
        [M, I, T']; the row of a token is high where the token is spoken.

    Returns
    -------
    ndarray
        int64 [M, I].
    """
    at_once = max(1, _CELLS_AT_ONCE // (maps.shape[1] * maps.shape[2]))
    parts = [
        warp(-smooth(standardise(np.asarray(maps[begin : begin + at_once], dtype=np.float64))))
        for begin in range(0, len(maps), at_once)
    ]
    return np.concatenate(parts)


def token_starts_of_set(heads: np.ndarray) -> np.ndarray:
    """Return the step at which each token begins, int64 [I], by several heads [M, I, T'] together.

    As Whisper uses its ``alignment_heads``: each is standardised and smoothed, then their mean is
    warped.
    """
    smoothed = smooth(standardise(np.asarray(heads, dtype=np.float64)))
    return np.asarray(warp(-smoothed.mean(axis=0)[None])[0])


def word_boundaries(starts: np.ndarray, word_index: Sequence[int], n_steps: int) -> np.ndarray:
    """Return where words begin and end.

    A word begins with its first token and ends where the row after its last token begins, be it a
    word or the end of sentence; without such a row it ends with the speech.

    Parameters
    ----------
    starts
        int [M, I], steps at which tokens begin.
    word_index
        The word of each of the I tokens, counted from 0; -1 for none.
    n_steps
        T'.

    Returns
    -------
    ndarray
        int [M, W, 2], first step and the step after the last, for words 0, 1, ... W - 1.
    """
    index = np.asarray(word_index)
    until = np.concatenate([starts, np.full((len(starts), 1), n_steps)], axis=1)
    rows = [np.flatnonzero(index == word) for word in range(index.max(initial=-1) + 1)]
    bounds = [until[:, [of_word[0], of_word[-1] + 1]] for of_word in rows]
    return np.stack(bounds, axis=1) if bounds else np.zeros((len(starts), 0, 2), dtype=np.int64)


class WordPair(NamedTuple):
    """Equal text in both: words ``first`` to ``last`` of the reference and of the hypothesis.

    One word of each where words are parted by spaces. Elsewhere the fewest that begin and end
    together, since an alignment and the tokens of a model part the same text differently.
    """

    reference_first: int
    reference_last: int
    first: int
    last: int


def match_words(
    reference: Sequence[str],
    hypothesis: Sequence[str],
    *,
    language: str = "",
    diacritics: Diacritics = "kept",
) -> list[tuple[int, int]]:
    """Return positions (reference, hypothesis) of equal words in the best alignment of the two.

    The alignment is the one with the fewest errors. Words are compared by their letters and marks,
    see :func:`s2txai.datasets.text_forms.letters_of`.

    Parameters
    ----------
    reference, hypothesis
        Words.
    language
        Of the words.
    diacritics
        ``folded`` takes them off both, as in the scores.
    """
    spoken, recognised = (
        _compared(words, language, diacritics) for words in (reference, hypothesis)
    )
    pairs = _equal([word for _, word in spoken], [word for _, word in recognised])
    return [(spoken[i][0], recognised[j][0]) for i, j in pairs]


def pair_words(
    reference: Sequence[str],
    hypothesis: Sequence[str],
    *,
    language: str,
    diacritics: Diacritics = "kept",
) -> list[WordPair]:
    """Return what is equal in reference and hypothesis; parameters are of :func:`match_words`.

    In languages without spaces characters are aligned, not words.
    """
    if text_unit(language) == "word":
        pairs = match_words(reference, hypothesis, language=language, diacritics=diacritics)
        return [WordPair(i, i, j, j) for i, j in pairs]
    spoken, recognised = (
        _letters(_compared(words, language, diacritics)) for words in (reference, hypothesis)
    )
    matched: list[WordPair] = []
    for run in _runs(
        _equal([letter for *_, letter in spoken], [letter for *_, letter in recognised])
    ):
        # Places in the run before which a word begins in both texts.
        cuts = [k for k, (i, j) in enumerate(run) if spoken[i][1] and recognised[j][1]]
        i, j = run[-1]
        ends_both = all(
            place + 1 == len(letters) or letters[place + 1][1]
            for place, letters in ((i, spoken), (j, recognised))
        )
        for begin, end in pairwise([*cuts, *([len(run)] if ends_both else [])]):
            (i, j), (last_i, last_j) = run[begin], run[end - 1]
            matched.append(
                WordPair(spoken[i][0], spoken[last_i][0], recognised[j][0], recognised[last_j][0])
            )
    return matched


def _compared(words: Sequence[str], language: str, diacritics: Diacritics) -> list[tuple[int, str]]:
    """Return positions and letters of the words that have any."""
    folded = diacritics == "folded"
    letters = [letters_of(word, language, folded=folded) for word in words]
    return [(position, word) for position, word in enumerate(letters) if word]


def _letters(words: Sequence[tuple[int, str]]) -> list[tuple[int, bool, str]]:
    """Return position, whether a word or unit begins, and letter, of words and their positions.

    Marks are letters of their own here, since a unit may hold one without its letter. No word
    begins with one, or with a letter that is written below the one before it.
    """
    letters: list[tuple[int, bool, str]] = []
    for position, word in words:
        for place, letter in enumerate(unicodedata.normalize("NFD", word)):
            joined = unicodedata.category(letter)[0] == "M" or (
                bool(letters) and letters[-1][2] in _STACKING
            )
            letters.append((position, place == 0 and not joined, letter))
    return letters


def _equal(reference: Sequence[str], hypothesis: Sequence[str]) -> list[tuple[int, int]]:
    """Return positions of equal texts in the alignment of the fewest errors; none holds a space."""
    if not reference or not hypothesis:
        return []
    (chunks,) = jiwer.process_words(" ".join(reference), " ".join(hypothesis)).alignments
    return [
        (chunk.ref_start_idx + k, chunk.hyp_start_idx + k)
        for chunk in chunks
        if chunk.type == "equal"
        for k in range(chunk.ref_end_idx - chunk.ref_start_idx)
    ]


def _runs(pairs: Sequence[tuple[int, int]]) -> list[list[tuple[int, int]]]:
    """Part rising pairs of positions where either text has something between two of them."""
    runs: list[list[tuple[int, int]]] = []
    for i, j in pairs:
        if runs and (i - 1, j - 1) == runs[-1][-1]:
            runs[-1].append((i, j))
        else:
            runs.append([(i, j)])
    return runs


def error_summary(start_errors: np.ndarray, end_errors: np.ndarray) -> Mapping[str, float]:
    """Summarise signed errors in seconds [W] of W words; all NaN without a word.

    Returns
    -------
    dict
        For starts and ends the mean absolute error ``<side>_mae`` and the mean error
        ``<side>_bias`` in seconds (negative: early), and the share of words ``<side>_within_<n>``
        whose boundary is at most n milliseconds off.
    """
    summary = {}
    for side, errors in (("start", start_errors), ("end", end_errors)):
        off = np.abs(errors)
        summary[f"{side}_mae"] = _mean(off)
        summary[f"{side}_bias"] = _mean(errors)
        for tolerance in TOLERANCES:
            # Boundaries are given to a tenth of a millisecond; less is rounding.
            within = off <= tolerance / 1000 + 1e-6
            summary[f"{side}_within_{tolerance}"] = _mean(within)
    return summary


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
