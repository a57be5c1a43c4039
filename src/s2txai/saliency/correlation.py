"""Step 5: how far two maps agree.

All maps are [I, T'] over the same rows (predicted tokens) and encoder steps. The headline is
Pearson with ``normalise="token"``: every row standardised over the steps, then one correlation
over the flattened map of an utterance (paper, section 4; ``docs/definitions.md``). Other metrics
compare rows one by one and are averaged over them.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import kendalltau, rankdata

from s2txai.errors import UserError
from s2txai.registry import Registry

Normaliser = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Metric:
    """How two maps [I, T'] are compared.

    Attributes
    ----------
    prepare
        What is done to maps [..., I, T'] first, to all at once.
    compare
        From two prepared maps [I, T'] to one value.
    by_row
        Whether rows are compared one by one. Nothing is then left to normalise, and the only
        normalisation is ``token``.
    name
        For people; where it is empty, the name under which the metric is registered.
    """

    prepare: Callable[[np.ndarray], np.ndarray]
    compare: Callable[[np.ndarray, np.ndarray], float]
    by_row: bool
    name: str = ""


NORMALISERS: Registry[Normaliser] = Registry("normalisation")
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
        Rows that are compared.
    n_constant
        Rows left out because one of the two maps is constant there.
    """

    value: float
    n_rows: int
    n_constant: int


@NORMALISERS.register("token")
def standardise_rows(rows: np.ndarray) -> np.ndarray:
    """Standardise each token's row [..., I, T'] over the steps."""
    return _standardised(rows, axis=-1)


@NORMALISERS.register("frame")
def standardise_columns(rows: np.ndarray) -> np.ndarray:
    """Standardise each step's column [..., I, T'] over the tokens."""
    return _standardised(rows, axis=-2)


@NORMALISERS.register("none")
def unchanged(rows: np.ndarray) -> np.ndarray:
    """Leave the map as it is."""
    return rows


def _standardised(rows: np.ndarray, axis: int) -> np.ndarray:
    centred = rows - rows.mean(axis=axis, keepdims=True)
    deviation = centred.std(axis=axis, keepdims=True)
    return np.asarray(
        np.divide(centred, deviation, out=np.zeros_like(centred), where=deviation > 0)
    )


def ranks(rows: np.ndarray) -> np.ndarray:
    """Return the ranks, from 1, of the steps within each row [..., I, T'], ties averaged."""
    return np.asarray(rankdata(rows, axis=-1))


def unit_length(rows: np.ndarray) -> np.ndarray:
    """Divide each row [..., I, T'] by its Euclidean norm; a row of zeros stays."""
    norm = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.asarray(np.divide(rows, norm, out=np.zeros_like(rows), where=norm > 0))


def n_top(n_steps: int) -> int:
    """Return k, a tenth of ``n_steps`` rounded (half up), at least 1."""
    return max(1, (n_steps + 5) // 10)


def top_steps(rows: np.ndarray) -> np.ndarray:
    """Mark the k largest steps of each row [..., I, T']; of equal ones the earlier.

    Marks are 1 / sqrt(k), so that the product of two rows is the share of steps in common.
    """
    k = n_top(rows.shape[-1])
    largest = np.argsort(-rows, axis=-1, kind="stable")[..., :k]
    marks = np.zeros_like(rows)
    np.put_along_axis(marks, largest, 1 / np.sqrt(k), axis=-1)
    return marks


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    """Return Pearson's correlation of two maps [I, T'], flattened; NaN where one does not vary."""
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a * a).sum() * (b * b).sum())
    return float((a * b).sum() / norm) if norm > 0 else float("nan")


def mean_product(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over the rows of two maps [I, T'] of their inner products."""
    return float((a * b).sum(axis=-1).mean())


def mean_kendall(a: np.ndarray, b: np.ndarray) -> float:
    """Return the mean over the rows of two maps [I, T'] of Kendall's tau-b."""
    # The exact p-value, which is not used, would take longer than tau.
    taus = [
        kendalltau(x, y, variant="b", method="asymptotic").statistic
        for x, y in zip(a, b, strict=True)
    ]
    return float(np.mean(taus))


METRICS.register("pearson")(Metric(unchanged, pearson, by_row=False, name="Pearson"))
METRICS.register("spearman")(Metric(ranks, pearson, by_row=False, name="Spearman"))
METRICS.register("kendall")(Metric(unchanged, mean_kendall, by_row=True, name="Kendall"))
METRICS.register("cosine")(Metric(unit_length, mean_product, by_row=True, name="Cosine"))
METRICS.register("overlap")(Metric(top_steps, mean_product, by_row=True, name="Overlap"))


def is_constant(rows: np.ndarray) -> np.ndarray:
    """Return bool [..., I]: rows [..., I, T'] that do not vary over the steps."""
    spread = np.ptp(rows, axis=-1)
    return np.asarray(spread <= _CONSTANT * np.abs(rows).max(axis=-1))


def correlations(
    maps: np.ndarray, other: np.ndarray, *, metric: str = "pearson", normalise: str = "token"
) -> list[Correlation]:
    """Compare each of several maps with one other.

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

    Raises
    ------
    UserError
        If a name is unknown, or the metric compares row by row and ``normalise`` is not ``token``.
    """
    maps = np.asarray(maps, dtype=np.float64)
    other = np.asarray(other, dtype=np.float64)
    constant = is_constant(maps) | is_constant(other)  # (M, I)
    measure, scale = METRICS[metric], _normaliser(metric, normalise)
    prepared, other_prepared = measure.prepare(maps), measure.prepare(other)

    def value(a: np.ndarray, rows: np.ndarray) -> float:
        # Nothing can be standardised where no row is left.
        if not rows.any():
            return float("nan")
        return measure.compare(scale(a[rows]), scale(other_prepared[rows]))

    return [
        Correlation(value(a, ~left_out), int((~left_out).sum()), int(left_out.sum()))
        for a, left_out in zip(prepared, constant, strict=True)
    ]


def _normaliser(metric: str, normalise: str) -> Normaliser:
    scale = NORMALISERS[normalise]
    if not METRICS[metric].by_row:
        return scale
    if normalise != "token":
        raise UserError(
            f"The metric '{metric}' compares row by row, so it cannot be normalised by "
            f"'{normalise}': use 'token'."
        )
    return unchanged


def correlation(
    a: np.ndarray, b: np.ndarray, *, metric: str = "pearson", normalise: str = "token"
) -> Correlation:
    """Compare two maps [I, T']; see :func:`correlations`."""
    return correlations(np.asarray(a)[None], b, metric=metric, normalise=normalise)[0]


def row_correlations(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the Pearson correlation [I] of each row of two maps [I, T']; NaN where constant.

    The headline of an utterance is their mean.
    """
    a, b = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    values = (standardise_rows(a) * standardise_rows(b)).mean(axis=-1)
    return np.asarray(np.where(is_constant(a) | is_constant(b), np.nan, values))
