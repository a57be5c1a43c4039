"""How far noise lets a correlation reach: reliabilities of maps, ceilings and corrected values."""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from s2txai.analysis.headline import METRIC, variants
from s2txai.analysis.map_designs import is_sampled, step_of
from s2txai.analysis.utterance import UtteranceData
from s2txai.saliency.pooling import is_linear
from s2txai.saliency.reliability import ceiling, half_correlation, spearman_brown

MEASURE = ["saliency", "metric", "normalise", "rows"]
# Kinds of ceilings that a correlation may be divided by.
CORRECTABLE = ("exact", "deterministic")


def halves_of_utterance(
    data: UtteranceData, saliencies: Sequence[str], used: np.ndarray, rows: str
) -> pd.DataFrame:
    """Return how far the half-maps of each saliency map agree, by every variant.

    Parameters
    ----------
    data
        Aggregated maps of the utterance.
    saliencies
        Names of its maps.
    used
        bool [I], the rows that correlations use.
    rows
        Name of the choice of rows.

    Returns
    -------
    DataFrame
        Columns ``utterance``, those of :data:`MEASURE`, ``half_correlation``, ``n_masks``.
    """
    agreements: list[tuple[str, str, str, str, float, int]] = []
    for saliency in saliencies:
        # A map without noise is the same every time: nothing to split.
        halves = data[f"{saliency}_halves"][:, :, used] if is_sampled(saliency) else None
        n_masks = 0 if halves is None else int(data[f"n_masks_{step_of(saliency)}"])
        for variant in variants():
            metric, normalise = variant.metric, variant.normalise
            agreement = (
                1.0
                if halves is None
                else half_correlation(halves, metric=metric, normalise=normalise)
            )
            agreements.append((saliency, metric, normalise, rows, agreement, n_masks))
    table = pd.DataFrame(agreements, columns=[*MEASURE, "half_correlation", "n_masks"])
    table.insert(0, "utterance", data.utterance)
    return table


def reliability_table(halves: pd.DataFrame) -> pd.DataFrame:
    """Return the reliability of each saliency map from :func:`halves_of_utterance` of all."""
    table = (
        halves.groupby(MEASURE, sort=False)
        .agg(
            half_correlation=("half_correlation", "mean"),
            n_masks=("n_masks", "mean"),
            n_utterances=("half_correlation", "count"),
        )
        .reset_index()
    )
    return with_reliability(table)


def ceiling_kind(saliency: str, metric: str) -> str:
    """Return what a reliability is worth: Spearman-Brown holds for linear maps and Pearson."""
    if not is_sampled(saliency):
        return "deterministic"
    if metric != METRIC:
        return "empirical"
    return "exact" if is_linear(saliency) else "approximate"


def with_reliability(halves: pd.DataFrame) -> pd.DataFrame:
    """Add what the correlation of half-maps says about the whole ones: kind and reliability."""
    table = halves.copy()
    table["kind"] = [
        ceiling_kind(saliency, metric)
        for saliency, metric in zip(table["saliency"], table["metric"], strict=True)
    ]
    # For rank correlations the metric between half-maps is itself the ceiling we can state.
    table["reliability"] = [
        float("nan") if kind == "empirical" else spearman_brown(half)
        for kind, half in zip(table["kind"], table["half_correlation"], strict=True)
    ]
    return table


def with_ceiling(table: pd.DataFrame) -> pd.DataFrame:
    """Add the ceiling that a reliability leaves, and name its kind ``ceiling_kind``."""
    empirical = table["kind"] == "empirical"
    ceilings = table["half_correlation"].where(empirical, table["reliability"].map(ceiling))
    return table.assign(ceiling=ceilings).rename(columns={"kind": "ceiling_kind"})


def corrected(table: pd.DataFrame, rho: str) -> pd.Series:
    """Return the correlations ``rho`` over their ceilings, where that is valid."""
    usable = table["ceiling_kind"].isin(CORRECTABLE) & (table["ceiling"] > 0)
    return (table[rho] / table["ceiling"]).where(usable)


def resampled_ceilings(half_correlations: np.ndarray, kinds: pd.Series) -> np.ndarray:
    """Return the ceilings of rows in each resample; NaN where no correction is valid.

    Parameters
    ----------
    half_correlations
        [rows, R].
    kinds
        ``ceiling_kind`` of the rows.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        reliability = np.where(
            half_correlations > 0, 2 * half_correlations / (1 + half_correlations), np.nan
        )
    deterministic = (kinds == "deterministic").to_numpy()
    ceilings = np.where(deterministic[:, None], 1.0, np.sqrt(reliability))
    return np.where(kinds.isin(CORRECTABLE).to_numpy()[:, None], ceilings, np.nan)
