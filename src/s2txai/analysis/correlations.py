"""Step 5, correlate: how far attention agrees with saliency, and how far it could."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import pandas as pd

from s2txai.analysis.best_heads import best_heads
from s2txai.analysis.ceilings import (
    MEASURE,
    corrected,
    halves_of_utterance,
    reliability_table,
    resampled_ceilings,
    with_ceiling,
    with_reliability,
)
from s2txai.analysis.columns import by_utterance, with_last
from s2txai.analysis.headline import METRIC, NORMALISATION, token_variants, variants
from s2txai.analysis.intervals import interval, resampled_means, resamples
from s2txai.analysis.map_designs import design_of, gradient_methods
from s2txai.analysis.mixing import mixing_table
from s2txai.analysis.signature import signature
from s2txai.analysis.token_classes import class_table, rows_of_utterance
from s2txai.analysis.token_rows import choose_rows
from s2txai.analysis.utterance import UtteranceData
from s2txai.saliency.aggregation import kinds_of
from s2txai.saliency.checks import FACTS
from s2txai.saliency.correlation import correlations, is_constant
from s2txai.saliency.methods import METHODS

ATTENTION = ["attention", "layer", "head"]


@dataclass(frozen=True)
class CorrelationTables:
    """What the step writes, one table per file.

    Attributes
    ----------
    utterances
        One correlation per utterance, attention map, saliency map and variant.
    reliability
        Of each saliency map.
    summary
        Means over utterances with ceiling and corrected value.
    mixing
        CA-SMH minus CA-SMX.
    best_heads
        The head that agrees best with each saliency map, cross-validated.
    masks
        Masks of the maps of each utterance, and the reliability they reached.
    rows
        The headline of every row, for all heads and each layer.
    classes
        Means of these by class of token and by third of the hypothesis.
    """

    utterances: pd.DataFrame
    reliability: pd.DataFrame
    summary: pd.DataFrame
    mixing: pd.DataFrame
    best_heads: pd.DataFrame
    masks: pd.DataFrame
    rows: pd.DataFrame
    classes: pd.DataFrame


def correlate(
    aggregated: Iterable[UtteranceData], *, poolings: Sequence[str], rows: str, seed: int = 0
) -> CorrelationTables:
    """Correlate every attention map with every saliency map.

    Parameters
    ----------
    aggregated
        Aggregated maps of all utterances. They are let go one by one: those of a large dataset
        would not fit into memory.
    poolings
        Names of :data:`s2txai.saliency.pooling.POOLINGS`.
    rows
        ``all`` or ``text``; see :func:`s2txai.analysis.token_rows.choose_rows`.
    seed
        Of the resamples behind the confidence intervals.
    """
    parts: list[_Part] = []
    for data in aggregated:
        methods = gradient_methods(parts[0].data if parts else data)
        saliencies = [*(f"smx_{name}" for name in poolings), "smh", *methods]
        parts.append(_Part.of(data, saliencies, rows))
    utterances = [part.data for part in parts]
    values = pd.concat([part.values for part in parts], ignore_index=True)
    halves = pd.concat([part.halves for part in parts], ignore_index=True)
    row_values = pd.concat([part.row_values for part in parts], ignore_index=True)
    del parts
    row_values = _signed(_with_measure(row_values, rows), utterances)
    by_utterance_table = _signed(_beside_ceilings(values, halves), utterances)
    reliability = _signed(reliability_table(halves), utterances)
    summary = _summary(by_utterance_table, reliability)
    ids = [data.utterance for data in utterances]
    rho, rho_corrected = _resampled(by_utterance_table, halves, summary, ids, seed)
    return CorrelationTables(
        utterances=by_utterance_table,
        reliability=reliability,
        summary=_with_intervals(summary, rho, rho_corrected),
        mixing=mixing_table(summary, poolings, rho, rho_corrected),
        best_heads=best_heads(by_utterance_table, reliability, seed),
        masks=_masks(utterances),
        rows=row_values,
        classes=_signed(_classes(row_values, ids, rows, seed), utterances),
    )


@dataclass(frozen=True)
class _Part:
    """What the tables need of one utterance, which is kept without its maps."""

    values: pd.DataFrame
    halves: pd.DataFrame
    row_values: pd.DataFrame
    data: UtteranceData

    @classmethod
    def of(cls, data: UtteranceData, saliencies: Sequence[str], rows: str) -> "_Part":
        candidates = choose_rows(rows, data["pieces"].tolist(), data["roles"].tolist())
        used = candidates & ~_constant_rows(data, saliencies)
        n_constant = int((candidates & ~used).sum())
        return cls(
            values=_correlate_utterance(data, saliencies, used, n_constant, rows),
            halves=halves_of_utterance(data, saliencies, used, rows),
            row_values=rows_of_utterance(data, saliencies, used),
            data=data.without_maps(),
        )


def _constant_rows(data: UtteranceData, saliencies: Sequence[str]) -> np.ndarray:
    """Return bool [I]: rows that are constant in a perturbation map.

    They are left out of all correlations, so that these can be compared. Gradient maps have no say:
    listing a method changes no other number.
    """
    perturbed = [name for name in saliencies if name not in METHODS]
    return np.asarray(np.any([is_constant(data[name]) for name in perturbed], axis=0))


def _attention_maps(data: UtteranceData, kind: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the names of the M attention maps of a kind and the maps [M, I, T'].

    Aggregations over all heads come first, the mean before others, then layers, then single heads.
    """
    mean, of_layers, of_heads = (f"{kind}_{part}" for part in ("mean", "layer", "head"))
    others = [name for name in data.arrays if name.startswith(f"{kind}_")]
    aggregations = [mean, *(name for name in others if name not in (mean, of_layers, of_heads))]
    layers, heads = data[of_layers], data[of_heads]
    L, H = heads.shape[:2]
    names = [
        *((name, None, None) for name in aggregations),
        *((of_layers, layer, None) for layer in range(L)),
        *((of_heads, layer, head) for layer in range(L) for head in range(H)),
    ]
    maps = np.concatenate(
        [
            *(data[name][None] for name in aggregations),
            layers,
            heads.reshape(L * H, *heads.shape[2:]),
        ]
    )
    # Layer and head are whole numbers that may be absent.
    return pd.DataFrame(names, columns=ATTENTION).astype({"layer": "Int64", "head": "Int64"}), maps


def _correlate_utterance(
    data: UtteranceData,
    saliencies: Sequence[str],
    used: np.ndarray,
    n_constant: int,
    rows: str,
) -> pd.DataFrame:
    """Return every correlation of an utterance, over the rows ``used``, bool [I]."""
    kinds = {kind: _attention_maps(data, kind) for kind in kinds_of(data.arrays)}
    tables = []
    for saliency, (kind, (names, maps)) in product(saliencies, kinds.items()):
        # Of kinds of attention other than the weights themselves only what compares tokens.
        for variant in variants() if kind == "ca" else token_variants():
            values = correlations(
                maps[:, used],
                data[saliency][used],
                metric=variant.metric,
                normalise=variant.normalise,
            )
            tables.append(
                names.assign(
                    utterance=data.utterance,
                    saliency=saliency,
                    metric=variant.metric,
                    normalise=variant.normalise,
                    rows=rows,
                    value=[correlation.value for correlation in values],
                    n_rows=[correlation.n_rows for correlation in values],
                    n_constant_rows=[correlation.n_constant + n_constant for correlation in values],
                )
            )
    columns = ["utterance", *ATTENTION, *MEASURE, "value", "n_rows", "n_constant_rows"]
    return pd.concat(tables, ignore_index=True)[columns]


def _with_measure(table: pd.DataFrame, rows: str) -> pd.DataFrame:
    """Insert metric, normalisation and rows of the headline after the saliency column."""
    place = table.columns.get_loc("saliency") + 1
    measure = zip(MEASURE[1:], (METRIC, NORMALISATION, rows), strict=True)
    for offset, (name, value) in enumerate(measure):
        table.insert(place + offset, name, value)
    return table


def _classes(
    row_values: pd.DataFrame, utterances: Sequence[str], rows: str, seed: int
) -> pd.DataFrame:
    means = _with_measure(class_table(row_values, utterances, seed), rows)
    table = with_ceiling(with_reliability(means))
    table["mean_corrected"] = corrected(table, "mean")
    beside = ["reliability", "ceiling", "mean_corrected", "ceiling_kind"]
    return with_last(table.drop(columns="half_correlation"), [*beside, "n_rows", "n_utterances"])


def _beside_ceilings(values: pd.DataFrame, halves: pd.DataFrame) -> pd.DataFrame:
    """Return the values of utterances, each with the ceiling of its own utterance beside it."""
    key, added = ["utterance", *MEASURE], ["reliability", "ceiling", "ceiling_kind"]
    ceilings = with_ceiling(with_reliability(halves))
    table = values.merge(ceilings[key + added], on=key, how="left")
    table["value_corrected"] = corrected(table, "value")
    beside = ["value", "reliability", "ceiling", "value_corrected", "ceiling_kind"]
    return table[["utterance", *ATTENTION, *MEASURE, *beside, "n_rows", "n_constant_rows"]]


def _summary(utterances: pd.DataFrame, reliability: pd.DataFrame) -> pd.DataFrame:
    """Return means over utterances; utterances without a value are left out and counted."""
    means = (
        utterances.groupby([*ATTENTION, *MEASURE, "signature"], sort=False, dropna=False)
        .agg(
            rho=("value", "mean"),
            n_utterances=("value", "count"),
            n_undefined_utterances=("value", lambda values: int(values.isna().sum())),
            n_rows=("n_rows", "sum"),
            n_constant_rows=("n_constant_rows", "sum"),
        )
        .reset_index()
    )
    table = with_ceiling(
        means.merge(reliability[[*MEASURE, "half_correlation", "reliability", "kind"]], on=MEASURE)
    )
    table["rho_corrected"] = corrected(table, "rho")
    table["r2_corrected"] = table["rho_corrected"] ** 2
    values = ["rho", "reliability", "ceiling", "rho_corrected", "r2_corrected", "ceiling_kind"]
    counts = ["n_utterances", "n_undefined_utterances", "n_rows", "n_constant_rows"]
    return table[[*ATTENTION, *MEASURE, *values, *counts, "signature"]]


def _resampled(
    utterances: pd.DataFrame,
    halves: pd.DataFrame,
    summary: pd.DataFrame,
    ids: Sequence[str],
    seed: int,
) -> tuple[np.ndarray, np.ndarray]:
    """Return correlations and corrected values of the summary in each resample, [rows, R].

    Both come from the same utterances, drawn with replacement.
    """
    counts = resamples(len(ids), seed=seed)
    keys = summary[[*ATTENTION, *MEASURE]]
    rho = resampled_means(by_utterance(utterances, "value", keys, ids), counts)
    measures = halves[MEASURE].drop_duplicates(ignore_index=True)
    half = resampled_means(by_utterance(halves, "half_correlation", measures, ids), counts)
    of_row = pd.MultiIndex.from_frame(measures).get_indexer(pd.MultiIndex.from_frame(keys[MEASURE]))
    return rho, rho / resampled_ceilings(half[of_row], summary["ceiling_kind"])


def _with_intervals(
    summary: pd.DataFrame, rho: np.ndarray, rho_corrected: np.ndarray
) -> pd.DataFrame:
    n_utterances = summary["n_utterances"].to_numpy()
    table = summary.copy()
    for name, values in (("rho", rho), ("rho_corrected", rho_corrected)):
        low, high = interval(values, n_utterances)
        place = table.columns.get_loc(name) + 1
        table.insert(place, f"{name}_low", low)
        table.insert(place + 1, f"{name}_high", high)
    return table


def _masks(utterances: Sequence[UtteranceData]) -> pd.DataFrame:
    """Return the masks of each sampled map: how many, how reliable, and how they were scored."""
    columns = ["n_masks", "reliability", "target_reliability", "converged"]
    masks = [
        (
            data.utterance,
            step,
            *(of_step[name] for name in columns),
            *(of_step.get(name) for name in FACTS),
        )
        for data in utterances
        for step, of_step in data.masks.items()
    ]
    return pd.DataFrame(masks, columns=["utterance", "step", *columns, *FACTS])


def _signed(table: pd.DataFrame, utterances: Sequence[UtteranceData]) -> pd.DataFrame:
    """Add the signature of every row: how it was computed and how its saliency map was made."""
    designs = {name: design_of(utterances, name) for name in table["saliency"].unique()}
    # One text for all rows that share it: tables are long.
    signatures = {
        measure: signature(
            **dict(zip(MEASURE[1:], measure[1:], strict=True)), **designs[measure[0]]
        )
        for measure in table[MEASURE].drop_duplicates().itertuples(index=False, name=None)
    }
    measures = table[MEASURE].itertuples(index=False, name=None)
    table["signature"] = [signatures[measure] for measure in measures]
    return table
