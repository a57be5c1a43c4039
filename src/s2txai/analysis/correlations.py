"""Step 5, correlate: how far attention agrees with saliency, and how far it could."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.intervals import interval, mean_and_interval, resampled_means, resamples
from s2txai.analysis.signature import signature, spread
from s2txai.analysis.token_classes import class_table, rows_of_utterance
from s2txai.errors import UserError
from s2txai.saliency.correlation import choose_rows, correlations, is_constant
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.saliency.pooling import is_linear, kinds_of
from s2txai.saliency.reliability import ceiling, half_correlation, spearman_brown
from s2txai.storage.artifacts import Artifact

# The first is the headline; the others are shown beside it.
VARIANTS = (
    ("pearson", "token"),
    ("pearson", "none"),
    ("pearson", "frame"),
    ("spearman", "token"),
    ("kendall", "token"),
    ("cosine", "token"),
    ("overlap", "token"),
)
# Of kinds of attention other than the weights themselves: every metric, normalised as the headline.
TOKEN_VARIANTS = tuple(variant for variant in VARIANTS if variant[1] == "token")
ATTENTION = ["attention", "layer", "head"]
MEASURE = ["saliency", "metric", "normalise", "rows"]

Pair = tuple[np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Tables:
    """What the step writes, one table a file.

    Attributes
    ----------
    utterances
        One correlation an utterance, attention map, saliency map and variant.
    reliability
        Of each saliency map.
    summary
        Means over utterances with ceiling and corrected value.
    mixing
        CA-SMH minus CA-SMX.
    best_heads
        The head that agrees best with each saliency map, cross-validated.
    masks
        Masks behind the maps of each utterance, and the reliability they reached.
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


@dataclass(frozen=True)
class _Utterance:
    """What is told of one utterance, and its artefact without maps."""

    values: pd.DataFrame
    halves: pd.DataFrame
    rows: pd.DataFrame
    artifact: Artifact

    @classmethod
    def of(cls, artifact: Artifact, saliencies: Sequence[str], rows: str) -> "_Utterance":
        numbers = {name: values for name, values in artifact.arrays.items() if not values.ndim}
        return cls(
            _correlate_utterance(artifact, saliencies, rows),
            _halves_of_utterance(artifact, saliencies, rows),
            _rows_of_utterance(artifact, saliencies, rows),
            Artifact(numbers, artifact.meta, artifact.path),
        )


def correlate(
    aggregated: Iterable[Artifact], *, poolings: Sequence[str], rows: str, seed: int = 0
) -> Tables:
    """Correlate every attention map with every saliency map.

    Parameters
    ----------
    aggregated
        ``aggregate`` artefacts of all utterances. Their maps are let go one by one: those of a
        large data set would not fit into memory.
    poolings
        Names of :data:`s2txai.saliency.pooling.POOLINGS`.
    rows
        ``all`` or ``text``; see :func:`s2txai.saliency.correlation.choose_rows`.
    seed
        Of the resamples behind the confidence intervals.
    """
    found: list[_Utterance] = []
    for artifact in aggregated:
        methods = gradient_methods(found[0].artifact if found else artifact)
        saliencies = [*(f"smx_{name}" for name in poolings), "smh", *methods]
        found.append(_Utterance.of(artifact, saliencies, rows))
    known = [one.artifact for one in found]
    values = pd.concat([one.values for one in found], ignore_index=True)
    halves = pd.concat([one.halves for one in found], ignore_index=True)
    by_row = _sign(
        _measured(pd.concat([one.rows for one in found], ignore_index=True), rows), known
    )
    del found
    utterances = _sign(_beside_ceilings(values, halves), known)
    reliability = _sign(_reliability(halves), known)
    summary = _summary(utterances, reliability)
    resampled = _resample(utterances, halves, summary, len(known), seed)
    return Tables(
        utterances,
        reliability,
        _with_intervals(summary, resampled),
        _mixing(summary, poolings, resampled),
        best_heads(utterances, reliability, seed),
        _masks(known),
        by_row,
        _sign(_classes(by_row, known, rows, seed), known),
    )


@dataclass(frozen=True)
class _Resampled:
    """Each row of the summary in each resample of the utterances, [rows, R]."""

    rho: np.ndarray
    corrected: np.ndarray


def _resample(
    utterances: pd.DataFrame, halves: pd.DataFrame, summary: pd.DataFrame, n: int, seed: int
) -> _Resampled:
    """Compute correlations and ceilings again from utterances drawn with replacement."""
    counts = resamples(n, seed=seed)
    # Every utterance has the same rows, in the order of the summary's.
    rho = resampled_means(utterances["value"].to_numpy().reshape(n, -1).T, counts)
    half = resampled_means(halves["half_correlation"].to_numpy().reshape(n, -1).T, counts)
    first = halves.iloc[: len(halves) // n]
    place = {measure: i for i, measure in enumerate(first[MEASURE].itertuples(index=False))}
    of_row = [place[measure] for measure in summary[MEASURE].itertuples(index=False)]
    with np.errstate(invalid="ignore", divide="ignore"):
        reliability = np.where(half > 0, 2 * half / (1 + half), np.nan)[of_row]
    deterministic = (summary["ceiling_kind"] == "deterministic").to_numpy()
    exact = (summary["ceiling_kind"] == "exact").to_numpy()
    ceilings = np.where(deterministic[:, None], 1.0, np.sqrt(reliability))
    usable = (deterministic | exact)[:, None]
    return _Resampled(rho, np.where(usable, rho / ceilings, np.nan))


def _with_intervals(summary: pd.DataFrame, resampled: _Resampled) -> pd.DataFrame:
    n = summary["n_utterances"].to_numpy()
    table = summary.copy()
    for after, name, values in (
        ("rho", "rho", resampled.rho),
        ("rho_corrected", "rho_corrected", resampled.corrected),
    ):
        low, high = interval(values, n)
        place = table.columns.get_loc(after) + 1
        table.insert(place, f"{name}_low", low)
        table.insert(place + 1, f"{name}_high", high)
    return table


def best_heads(utterances: pd.DataFrame, reliability: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the head that agrees best with each saliency map, chosen where it is not judged.

    Each utterance is judged by the head that does best on all others; the mean over utterances is
    what a head chosen on other speech can be expected to reach. Headline metric, with the ceiling
    that the noise of the saliency map sets to every head.
    """
    heads = _of_headline(utterances[utterances["attention"] == "ca_head"])
    found = []
    for saliency, rows in heads.groupby("saliency", sort=False):
        # One row a head, one column an utterance in which every head has a value.
        values = rows.pivot_table(
            index=["layer", "head"], columns="utterance", values="value", sort=False
        ).dropna(axis=1)
        means = values.mean(axis=1)
        chosen = _chosen_without(values)
        judged = [values.at[head, utterance] for utterance, head in chosen.items()]
        rho, low, high = mean_and_interval(judged, seed=seed)
        layer, head = means.idxmax() if len(means.dropna()) else (pd.NA, pd.NA)
        found.append(
            {
                "saliency": saliency,
                "layer": layer,
                "head": head,
                "rho": means.max(),
                "rho_held_out": rho,
                "rho_held_out_low": low,
                "rho_held_out_high": high,
                "n_heads_chosen": len(set(chosen.values())),
                "n_utterances": values.shape[1],
                "signature": rows["signature"].iloc[0],
            }
        )
    table = pd.DataFrame(found).astype({"layer": "Int64", "head": "Int64"})
    ceilings = _with_ceiling(_of_headline(reliability))
    told = ["saliency", "reliability", "ceiling", "ceiling_kind"]
    table = table.merge(ceilings[told], on="saliency", how="left")
    table["rho_held_out_corrected"] = _corrected(table, "rho_held_out")
    beside = ["reliability", "ceiling", "rho_held_out_corrected", "ceiling_kind"]
    return _with_last(table, [*beside, "n_heads_chosen", "n_utterances", "signature"])


def _of_headline(table: pd.DataFrame) -> pd.DataFrame:
    return table[(table["metric"] == "pearson") & (table["normalise"] == "token")]


def _with_last(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Move columns to the end."""
    return table[[*(name for name in table if name not in names), *names]]


def _chosen_without(values: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return for each utterance the head [layer, head] that does best on all others."""
    if values.shape[1] < 2:
        return {}
    others = values.sum(axis=1).to_numpy()[:, None] - values.to_numpy()
    best = others.argmax(axis=0)
    return {name: values.index[row] for name, row in zip(values.columns, best, strict=True)}


def gradient_methods(aggregated: Artifact) -> list[str]:
    """Return the gradient methods whose maps an ``aggregate`` artefact holds."""
    return [name for name in GRADIENTS if name in aggregated.meta["parameters"]]


def _masks(aggregated: Sequence[Artifact]) -> pd.DataFrame:
    """Return what the files say about their masks; see :mod:`s2txai.steps.masked`."""
    columns = ["n_masks", "reliability", "target_reliability", "converged"]
    rows = [
        (artifact.meta["utterance"], step, *(masks[name] for name in columns))
        for artifact in aggregated
        for step, masks in artifact.meta["masks"].items()
    ]
    return pd.DataFrame(rows, columns=["utterance", "step", *columns])


def _sign(table: pd.DataFrame, aggregated: Sequence[Artifact]) -> pd.DataFrame:
    """Add the signature of every row: how it was computed and how its saliency map was made."""
    designs = {name: design_of(aggregated, name) for name in table["saliency"].unique()}
    # One text for all rows that share it: tables are long.
    stated = {
        measure: signature(
            **dict(zip(MEASURE[1:], measure[1:], strict=True)), **designs[measure[0]]
        )
        for measure in table[MEASURE].drop_duplicates().itertuples(index=False, name=None)
    }
    measures = table[MEASURE].itertuples(index=False, name=None)
    table["signature"] = [stated[measure] for measure in measures]
    return table


def design_of(aggregated: Sequence[Artifact], saliency: str) -> dict[str, Any]:
    """Return how the maps of all utterances named ``saliency`` were made.

    Raises
    ------
    UserError
        If they were made in different ways.
    """
    step = _step_of(saliency)
    first = aggregated[0]
    design = first.meta["parameters"][step]
    for other in aggregated[1:]:
        if other.meta["parameters"].get(step) != design:
            raise UserError(
                f"{first.path} and {other.path} hold {step} maps made with different parameters: "
                "delete the older one's folder and run the workflow again."
            )
    if not _is_sampled(saliency):
        return dict(design)
    return {**design, "n_masks": spread([int(one[f"n_masks_{step}"]) for one in aggregated])}


def _step_of(saliency: str) -> str:
    """Return the step that makes a saliency map."""
    return "smx" if saliency.startswith("smx_") else saliency


def _is_sampled(saliency: str) -> bool:
    """Return whether a map is made from random masks."""
    return saliency not in GRADIENTS or GRADIENTS[saliency].sampled


def _chosen_rows(artifact: Artifact, saliencies: Sequence[str], wanted: np.ndarray) -> np.ndarray:
    """Return bool [I]: which of the wanted rows every correlation of the utterance uses.

    A row that is constant in one perturbation map is left out of all, so that their correlations
    can be compared. Gradient maps have no say: listing a method changes no other number.
    """
    perturbed = [name for name in saliencies if name not in GRADIENTS]
    constant = np.any([is_constant(artifact[name]) for name in perturbed], axis=0)
    return np.asarray(wanted & ~constant)


def _attention_maps(artifact: Artifact, kind: str) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the names of the M attention maps of a kind and the maps [M, I, T']."""
    mean, layers, heads = (artifact[f"{kind}_{part}"] for part in ("mean", "layer", "head"))
    L, H = heads.shape[:2]
    names = [
        (f"{kind}_mean", None, None),
        *((f"{kind}_layer", layer, None) for layer in range(L)),
        *((f"{kind}_head", layer, head) for layer in range(L) for head in range(H)),
    ]
    maps = np.concatenate([mean[None], layers, heads.reshape(L * H, *mean.shape)])
    # Layer and head are whole numbers that may be absent.
    return pd.DataFrame(names, columns=ATTENTION).astype({"layer": "Int64", "head": "Int64"}), maps


def _correlate_utterance(artifact: Artifact, saliencies: Sequence[str], rows: str) -> pd.DataFrame:
    wanted = choose_rows(rows, artifact["pieces"].tolist(), artifact["roles"].tolist())
    chosen = _chosen_rows(artifact, saliencies, wanted)
    n_left_out = int((wanted & ~chosen).sum())
    kinds = {kind: _attention_maps(artifact, kind) for kind in kinds_of(artifact.arrays)}
    tables = []
    for saliency, (kind, (names, maps)) in product(saliencies, kinds.items()):
        for metric, normalise in VARIANTS if kind == "ca" else TOKEN_VARIANTS:
            found = correlations(
                maps[:, chosen], artifact[saliency][chosen], metric=metric, normalise=normalise
            )
            tables.append(
                names.assign(
                    utterance=artifact.meta["utterance"],
                    saliency=saliency,
                    metric=metric,
                    normalise=normalise,
                    rows=rows,
                    value=[one.value for one in found],
                    n_rows=[one.n_rows for one in found],
                    n_constant_rows=[one.n_constant + n_left_out for one in found],
                )
            )
    columns = ["utterance", *ATTENTION, *MEASURE, "value", "n_rows", "n_constant_rows"]
    return pd.concat(tables, ignore_index=True)[columns]


def _rows_of_utterance(artifact: Artifact, saliencies: Sequence[str], rows: str) -> pd.DataFrame:
    wanted = choose_rows(rows, artifact["pieces"].tolist(), artifact["roles"].tolist())
    return rows_of_utterance(artifact, saliencies, _chosen_rows(artifact, saliencies, wanted))


def _measured(table: pd.DataFrame, rows: str) -> pd.DataFrame:
    """Add by what the headline is measured, behind the name of the saliency map."""
    place = table.columns.get_loc("saliency") + 1
    for name, value in reversed([*zip(MEASURE[1:], (*VARIANTS[0], rows), strict=True)]):
        table.insert(place, name, value)
    return table


def _classes(
    by_row: pd.DataFrame, aggregated: Sequence[Artifact], rows: str, seed: int
) -> pd.DataFrame:
    means = class_table(by_row, [artifact.meta["utterance"] for artifact in aggregated], seed)
    table = _with_ceiling(_with_reliability(_measured(means, rows)))
    table["mean_corrected"] = _corrected(table, "mean")
    beside = ["reliability", "ceiling", "mean_corrected", "ceiling_kind"]
    return _with_last(table.drop(columns="half_correlation"), [*beside, "n_rows", "n_utterances"])


def _halves_of_utterance(artifact: Artifact, saliencies: Sequence[str], rows: str) -> pd.DataFrame:
    wanted = choose_rows(rows, artifact["pieces"].tolist(), artifact["roles"].tolist())
    chosen = _chosen_rows(artifact, saliencies, wanted)
    found = []
    for saliency in saliencies:
        if not _is_sampled(saliency):
            # The same map every time: nothing to split.
            found += [(saliency, *variant, rows, 1.0, 0) for variant in VARIANTS]
            continue
        halves = artifact[f"{saliency}_halves"][:, :, chosen]
        n_masks = int(artifact[f"n_masks_{_step_of(saliency)}"])
        for metric, normalise in VARIANTS:
            half = half_correlation(halves, metric=metric, normalise=normalise)
            found.append((saliency, metric, normalise, rows, half, n_masks))
    table = pd.DataFrame(found, columns=[*MEASURE, "half_correlation", "n_masks"])
    table.insert(0, "utterance", artifact.meta["utterance"])
    return table


def _kind(saliency: str, metric: str) -> str:
    """Return what a reliability is worth: Spearman-Brown holds for linear maps and Pearson."""
    if not _is_sampled(saliency):
        return "deterministic"
    if metric != "pearson":
        return "empirical"
    return "exact" if is_linear(saliency) else "approximate"


def _reliability(halves: pd.DataFrame) -> pd.DataFrame:
    table = (
        halves.groupby(MEASURE, sort=False)
        .agg(
            half_correlation=("half_correlation", "mean"),
            n_masks=("n_masks", "mean"),
            n_utterances=("half_correlation", "count"),
        )
        .reset_index()
    )
    return _with_reliability(table)


def _with_reliability(halves: pd.DataFrame) -> pd.DataFrame:
    """Add what the correlation of half-maps says about the whole ones: kind and reliability."""
    table = halves.copy()
    table["kind"] = [_kind(s, m) for s, m in zip(table["saliency"], table["metric"], strict=True)]
    # For rank correlations the metric between half-maps is itself the ceiling we can state.
    table["reliability"] = [
        float("nan") if kind == "empirical" else spearman_brown(half)
        for kind, half in zip(table["kind"], table["half_correlation"], strict=True)
    ]
    return table


def _with_ceiling(table: pd.DataFrame) -> pd.DataFrame:
    empirical = table["kind"] == "empirical"
    ceilings = table["half_correlation"].where(empirical, table["reliability"].map(ceiling))
    return table.assign(ceiling=ceilings).rename(columns={"kind": "ceiling_kind"})


def _corrected(table: pd.DataFrame, rho: str) -> pd.Series:
    """Return the correlations ``rho`` over their ceilings, where that is valid."""
    usable = table["ceiling_kind"].isin(["exact", "deterministic"]) & (table["ceiling"] > 0)
    return (table[rho] / table["ceiling"]).where(usable)


def _beside_ceilings(utterances: pd.DataFrame, halves: pd.DataFrame) -> pd.DataFrame:
    """Return the values of utterances, each with the ceiling of its own utterance beside it."""
    key, told = ["utterance", *MEASURE], ["reliability", "ceiling", "ceiling_kind"]
    ceilings = _with_ceiling(_with_reliability(halves))
    table = utterances.merge(ceilings[key + told], on=key, how="left")
    table["value_corrected"] = _corrected(table, "value")
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
    table = _with_ceiling(
        means.merge(reliability[[*MEASURE, "half_correlation", "reliability", "kind"]], on=MEASURE)
    )
    table["rho_corrected"] = _corrected(table, "rho")
    table["r2_corrected"] = table["rho_corrected"] ** 2
    return table[
        [
            *ATTENTION,
            *MEASURE,
            "rho",
            "reliability",
            "ceiling",
            "rho_corrected",
            "r2_corrected",
            "ceiling_kind",
            "n_utterances",
            "n_undefined_utterances",
            "n_rows",
            "n_constant_rows",
            "signature",
        ]
    ]


def _mixing(summary: pd.DataFrame, poolings: Sequence[str], resampled: _Resampled) -> pd.DataFrame:
    """Return delta = rho(CA, SMH) - rho(CA, SMX) for every attention map and pooling.

    Both rest on the same rows of the same utterances; see :func:`_chosen_rows`. So do both sides
    of each resample.
    """
    keys = [*ATTENTION, "metric", "normalise", "rows"]
    placed = summary.assign(place=np.arange(len(summary)))
    smh = placed[placed["saliency"] == "smh"]
    tables = []
    for pooling in poolings:
        smx = placed[placed["saliency"] == f"smx_{pooling}"]
        both = smx.merge(smh, on=keys, suffixes=("_smx", "_smh"))
        table = both[keys].assign(
            pooling=pooling,
            rho_smx=both["rho_smx"],
            rho_smh=both["rho_smh"],
            delta=both["rho_smh"] - both["rho_smx"],
        )
        n = both[["n_utterances_smx", "n_utterances_smh"]].min(axis=1).to_numpy()
        pair = both["place_smh"].to_numpy(), both["place_smx"].to_numpy()

        def ends(values: np.ndarray, pair: Pair = pair, n: np.ndarray = n) -> list[np.ndarray]:
            return list(interval(values[pair[0]] - values[pair[1]], n))

        table["delta_low"], table["delta_high"] = ends(resampled.rho)
        table["delta_relative"] = table["delta"] / table["rho_smh"]
        corrected = both["rho_corrected_smh"] - both["rho_corrected_smx"]
        table["delta_corrected"] = corrected
        table["delta_corrected_low"], table["delta_corrected_high"] = ends(resampled.corrected)
        table["delta_relative_corrected"] = corrected / both["rho_corrected_smh"]
        table["signature_smx"] = both["signature_smx"]
        table["signature_smh"] = both["signature_smh"]
        tables.append(table)
    return pd.concat(tables, ignore_index=True)
