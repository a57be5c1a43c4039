"""Step 5: how far two maps agree.

All maps are [I, T'] over the same rows (predicted tokens) and encoder steps. The headline is
Pearson with ``normalise="token"``: every row standardised over the steps, then one correlation
over the flattened map of an utterance (paper, section 4; ``docs/definitions.md``).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import rankdata

from s2txai.errors import UserError
from s2txai.registry import Registry

Normaliser = Callable[[np.ndarray], np.ndarray]
Metric = Callable[[np.ndarray], np.ndarray]

NORMALISERS: Registry[Normaliser] = Registry("normalisation")
# A metric is what happens to each map before the Pearson correlation of the two.
METRICS: Registry[Metric] = Registry("metric")

# A row that varies by less than this part of its size is constant: what is left is rounding.
_CONSTANT = 1e-7


@dataclass(frozen=True)
class Correlation:
    """One correlation and how many rows it rests on.

    Attributes
    ----------
    value
        In [-1, 1]; NaN when no row is left or nothing varies.
    n_rows
        Rows that entered.
    n_constant
        Rows left out because one of the two maps is constant there.
    """

    value: float
    n_rows: int
    n_constant: int


@NORMALISERS.register("token")
def standardise_rows(rows: np.ndarray) -> np.ndarray:
    """Standardise each token's row [..., I, T'] over the steps."""
    return _standardise(rows, axis=-1)


@NORMALISERS.register("frame")
def standardise_columns(rows: np.ndarray) -> np.ndarray:
    """Standardise each step's column [..., I, T'] over the tokens."""
    return _standardise(rows, axis=-2)


@NORMALISERS.register("none")
def keep(rows: np.ndarray) -> np.ndarray:
    """Leave the map as it is."""
    return rows


def _standardise(rows: np.ndarray, axis: int) -> np.ndarray:
    centred = rows - rows.mean(axis=axis, keepdims=True)
    deviation = centred.std(axis=axis, keepdims=True)
    return np.asarray(
        np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    )


@METRICS.register("pearson")
def values(rows: np.ndarray) -> np.ndarray:
    """Compare the values themselves."""
    return rows


@METRICS.register("spearman")
def ranks(rows: np.ndarray) -> np.ndarray:
    """Compare the ranks of the steps within each row, ties averaged."""
    return np.asarray(rankdata(rows, axis=-1))


def is_constant(rows: np.ndarray) -> np.ndarray:
    """Return bool [..., I]: rows [..., I, T'] that do not vary over the steps."""
    spread = np.ptp(rows, axis=-1)
    return np.asarray(spread <= _CONSTANT * np.abs(rows).max(axis=-1))


def correlations(
    maps: np.ndarray, other: np.ndarray, *, metric: str = "pearson", normalise: str = "token"
) -> list[Correlation]:
    """Correlate each of several maps with one other.

    Parameters
    ----------
    maps
        [M, I, T'].
    other
        [I, T'].
    metric, normalise
        Names of :data:`METRICS` and :data:`NORMALISERS`.

    Returns
    -------
    list of Correlation
        One for each of the M maps.
    """
    maps = np.asarray(maps, dtype=np.float64)
    other = np.asarray(other, dtype=np.float64)
    constant = is_constant(maps) | is_constant(other)  # (M, I)
    prepare, scale = METRICS[metric], NORMALISERS[normalise]
    ranked, other_ranked = prepare(maps), prepare(other)

    def value(a: np.ndarray, rows: np.ndarray) -> float:
        # Nothing can be standardised where no row is left.
        return _pearson(scale(a[rows]), scale(other_ranked[rows])) if rows.any() else float("nan")

    return [
        Correlation(value(a, ~left_out), int((~left_out).sum()), int(left_out.sum()))
        for a, left_out in zip(ranked, constant, strict=True)
    ]


def correlation(
    a: np.ndarray, b: np.ndarray, *, metric: str = "pearson", normalise: str = "token"
) -> Correlation:
    """Correlate two maps [I, T']; see :func:`correlations`."""
    return correlations(np.asarray(a)[None], b, metric=metric, normalise=normalise)[0]


def _pearson(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


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
