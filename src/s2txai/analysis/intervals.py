"""Confidence intervals by the bootstrap, and tests of paired differences.

The unit is the utterance: rows of one utterance share its noise and are no independent evidence.
Where rows are averaged, utterances are drawn with all their rows.
Every quantity of a table is computed from the same resamples, so that differences are paired.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import norm, permutation_test, t

LEVEL = 0.95
N_RESAMPLES = 2000


def resamples(n: int, *, seed: int, n_resamples: int = N_RESAMPLES) -> np.ndarray:
    """Return float64 [R, n], how often each of ``n`` utterances is drawn; rows sum to ``n``."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n, np.full(n, 1 / n), size=n_resamples).astype(np.float64)


def resampled_means(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the mean of every resample, [..., R], without utterances that have no value.

    Parameters
    ----------
    values
        [..., n]; NaN where an utterance has none.
    counts
        [R, n] of :func:`resamples`.

    Returns
    -------
    ndarray
        NaN where a resample holds no utterance with a value.
    """
    defined = np.isfinite(values)
    sums = np.where(defined, values, 0.0) @ counts.T
    n_drawn = defined.astype(np.float64) @ counts.T
    with np.errstate(invalid="ignore"):
        return np.asarray(sums / np.where(n_drawn > 0, n_drawn, np.nan))


def resampled_row_means(rows: Sequence[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """Return the mean over rows of every resample: utterances are drawn, each with all its rows.

    Rows drawn again within each utterance would count their scatter twice: the means of
    utterances, which are drawn already, hold it (Davison and Hinkley 1997, section 3.8).

    Parameters
    ----------
    rows
        For each utterance the values of its rows [rows, ...], several quantities of the same rows
        side by side; may be without rows. NaN do not count.
    counts
        [R, n] of :func:`resamples`.

    Returns
    -------
    ndarray
        [R, ...]; NaN where a resample holds no row with a value.
    """
    sums = np.stack([np.nansum(values, axis=0) for values in rows])  # (n, ...)
    defined = np.stack([np.isfinite(values).sum(axis=0) for values in rows])
    n_rows = np.tensordot(counts, defined.astype(np.float64), axes=1)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.tensordot(counts, sums, axes=1) / np.where(n_rows > 0, n_rows, np.nan))


def interval(
    resampled: np.ndarray, n: npt.ArrayLike, *, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends [...] of the confidence interval from a statistic's resamples [..., R].

    Percentiles, set wider for few utterances as a t interval is (Hesterberg 2015, section 4.5,
    "expanded percentile").

    Parameters
    ----------
    resampled
        [..., R]; NaN are left out.
    n
        Utterances behind the statistic, [...].
    level
        Of confidence.

    Returns
    -------
    tuple
        NaN where fewer than two utterances or half of the resamples give no value.
    """
    n = np.broadcast_to(np.asarray(n, dtype=np.float64), resampled.shape[:-1])
    usable = (n > 1) & (np.isfinite(resampled).mean(axis=-1) > 0.5)
    freedom = np.maximum(n - 1, 1)
    tail = norm.cdf(-np.sqrt(np.maximum(n, 2) / freedom) * t.ppf((1 + level) / 2, freedom))
    low, high = np.full(n.shape, np.nan), np.full(n.shape, np.nan)
    for place in np.ndindex(n.shape):
        if usable[place]:
            values = resampled[place][np.isfinite(resampled[place])]
            low[place], high[place] = np.quantile(values, [tail[place], 1 - tail[place]])
    return low, high


def mean_and_interval(values: npt.ArrayLike, *, seed: int) -> tuple[float, float, float]:
    """Return mean and ends of its interval of one value per utterance [n]; NaN where none."""
    values = np.asarray(values, dtype=np.float64)
    if not np.isfinite(values).any():
        return (float("nan"),) * 3
    low, high = interval(
        resampled_means(values, resamples(len(values), seed=seed)), np.isfinite(values).sum()
    )
    return float(np.nanmean(values)), float(low), float(high)


def paired_p_value(differences: npt.ArrayLike, *, seed: int) -> float:
    """Return the probability of a mean this far from 0 if the signs of differences were chance.

    Exact for few utterances, by random signs for many; two-sided.

    Parameters
    ----------
    differences
        [n], one per utterance; NaN are left out.
    seed
        Of the random signs.

    Returns
    -------
    float
        NaN with fewer than two differences.
    """
    values = np.asarray(differences, dtype=np.float64)
    values = values[np.isfinite(values)]
    if len(values) < 2:
        return float("nan")
    test = permutation_test(
        (values,),
        lambda sample, axis: sample.mean(axis=axis),
        permutation_type="samples",
        vectorized=True,
        n_resamples=9999,
        rng=np.random.default_rng(seed),
    )
    return float(test.pvalue)


def holm(p_values: npt.ArrayLike) -> np.ndarray:
    """Return p-values [n] adjusted for their number (Holm 1979); NaN stay and do not count."""
    p = np.asarray(p_values, dtype=np.float64)
    adjusted = np.full(p.shape, np.nan)
    defined = np.flatnonzero(np.isfinite(p))
    order = defined[np.argsort(p[defined], kind="stable")]
    times = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(times * p[order]), 1.0)
    return adjusted
