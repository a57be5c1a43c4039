"""All runs side by side, in the order of the configuration: one row a run."""

from collections.abc import Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

import pandas as pd

from s2txai.analysis.headline import LEAST_RELIABILITY, headline
from s2txai.analysis.scoring import SCORES
from s2txai.report.names import map_name, score_name, short_score_name
from s2txai.report.runs import RunResults
from s2txai.report.tables import (
    NO_SIGNAL,
    NOT_LINEAR,
    UNDEFINED,
    Cell,
    PaperFigures,
    Table,
    merged_signatures,
    words,
)
from s2txai.saliency.aggregation import LAYER
from s2txai.saliency.methods import METHODS
from s2txai.saliency.pooling import is_linear
from s2txai.wording import number_beside

UNRELIABLE = f"reliability under {LEAST_RELIABILITY}: more noise than signal"


def sweep(runs: Sequence[RunResults]) -> pd.DataFrame:
    """Return one row a run: score, correlations of the all-head mean, mixing, deletion.

    Areas of single layers are in :func:`s2txai.report.layers.by_layer`.

    Columns named by a saliency map, pooling or map of deletion follow the runs' own names; see
    ``docs/results.md``.
    """
    return pd.DataFrame([_row(run) for run in runs])


def _row(run: RunResults) -> dict[str, Any]:
    score = run.tables["scores"].iloc[0]
    summary = _all_heads(run.tables["summary"]).set_index("saliency")
    mixing = _all_heads(run.tables["mixing"]).set_index("pooling")
    auc = run.tables["auc"]
    auc = auc[(auc["metric"] == run.deletion_metric) & ~auc["map"].str.startswith(LAYER)]
    auc = auc.set_index("map")
    row = {
        "dataset": run.files.dataset,
        "model": run.files.model,
        "task": run.files.task,
        "n_utterances": len(run.utterances),
        "n_failed_utterances": run.n_failed,
        "metric": score["metric"],
        "score": score["score"],
    }
    row |= correlations(summary, mixing) | {"deletion_metric": run.deletion_metric}
    row |= {f"auc_{name}": area for name, area in auc["auc"].items()}
    return row | {
        "signature_score": score["signature"],
        **correlation_signatures(summary),
        "signature_deletion": merged_signatures(auc["signature"]),
    }


def correlations(summary: pd.DataFrame, mixing: pd.DataFrame) -> dict[str, float]:
    """Return correlations and mixing of one choice of heads, by their columns in the sweep.

    Parameters
    ----------
    summary
        Its rows of the summary, a saliency map each and named by it.
    mixing
        Its rows of mixing, a pooling each and named by it.
    """
    row = {}
    for saliency, values in summary.iterrows():
        for name in ("rho", "reliability", "ceiling", "rho_corrected"):
            row[f"{name}_{saliency}"] = values[name]
    for pooling, values in mixing.iterrows():
        for name in ("delta", "delta_corrected"):
            row[f"{name}_{pooling}"] = values[name]
    return row


def correlation_signatures(summary: pd.DataFrame) -> dict[str, str]:
    """Return what :func:`correlations` depend on, ``summary`` as there."""
    steps = {
        "smx": summary.index.str.startswith("smx_"),
        "smh": summary.index == "smh",
        **{method: summary.index == method for method in METHODS if method in summary.index},
    }
    return {
        f"signature_{step}": merged_signatures(summary.loc[rows, "signature"])
        for step, rows in steps.items()
    }


def _all_heads(table: pd.DataFrame) -> pd.DataFrame:
    rows = headline(table)
    return rows[rows["attention"] == "ca_mean"]


def sentences(table: pd.DataFrame, smx: str) -> list[str]:
    """Return a line a run for the log: score, correlations, and how reliable the maps are.

    Parameters are those of :func:`sweep_correlation_table`.
    """
    return [
        f"{row['dataset']}/{row['model']}/{row['task']}: "
        f"{short_score_name(row['metric'])} {row['score']:.1f}; "
        f"rho {'; '.join(_in_words(row, name) for name in (smx, 'smh'))}"
        for row in table.to_dict("records")
    ]


def _in_words(row: dict[str, Any], saliency: str) -> str:
    reliability = row[f"reliability_{saliency}"]
    corrected = row[f"rho_corrected_{saliency}"]
    shown = number_beside(reliability, LEAST_RELIABILITY, 2)
    low = ", low: add masks" if reliability < LEAST_RELIABILITY else ""
    return (
        f"with {map_name(saliency)} {_or_undefined(row[f'rho_{saliency}'])}, corrected "
        f"{_or_undefined(corrected)} (reliability "
        f"{'not defined' if pd.isna(reliability) else shown}{low})"
    )


def _or_undefined(value: float) -> str:
    return "not defined" if pd.isna(value) else f"{value:.2f}"


def names_after(prefix: str, table: pd.DataFrame) -> list[str]:
    """Return what follows ``prefix`` in the names of columns, in their order."""
    return [name.removeprefix(prefix) for name in table.columns if name.startswith(prefix)]


def saliencies(table: pd.DataFrame) -> list[str]:
    """Return the saliency maps of the sweep, in the order of its columns."""
    return names_after("reliability_", table)


def deletion_maps(table: pd.DataFrame) -> list[str]:
    """Return the maps of deletion of the sweep, in the order of its columns."""
    return names_after("auc_", table)


def sweep_correlation_table(
    table: pd.DataFrame, keys: Sequence[str], smx: str, paper: PaperFigures, source: str
) -> Table:
    """Return scores and correlations of all runs, the paper's figures last.

    Parameters
    ----------
    table
        Of :func:`sweep`.
    keys
        Where the page says more about each run.
    smx
        The input map that is shown in full.
    paper
        The paper's figures.
    source
        File of the table.
    """
    others = [name for name in saliencies(table) if name not in (smx, "smh")]
    in_full = ["ρ", "reliability", "ρ corrected"]
    shown = Table(
        caption="Every run: score of its hypotheses, and correlation ρ of the all-head mean with "
        f"saliency (no unit). Last row: the paper, {paper.VERSION}, which reads ρ with SMH as a "
        "share in percent.",
        header=["run", "utterances", "score", *in_full, *["ρ"] * len(others), *in_full],
        over=[
            ("", 3),
            (map_name(smx), 3),
            *((_breakable(map_name(name)), 1) for name in others),
            (map_name("smh"), 3),
        ],
        source=source,
        signature=merged_signatures(
            pd.concat([table[f"signature_{step}"] for step in _steps(table)])
        ),
    )
    rows = list(zip(keys, table.to_dict("records"), strict=True))
    for dataset, group in groupby(rows, key=lambda pair: str(pair[1]["dataset"])):
        shown.titles.append(dataset)
        shown.groups.append([_correlation_row(shown, row, key, smx, others) for key, row in group])
    shown.titles.append(f"paper, {paper.VERSION}")
    best = [paper.cell("ca_smx_rho_best", name.removeprefix("smx_")).text for name in others]
    blank = Cell("")
    shown.groups.append(
        [
            [
                words("over models and tasks"),
                *([blank] * 2),
                paper.cell("ca_smx_rho"),
                *([blank] * 2),
                *(Cell(f"best {text}" if text else "") for text in best),
                paper.correlation("smh"),
                *([blank] * 2),
            ]
        ]
    )
    return shown


def _steps(table: pd.DataFrame) -> list[str]:
    """Return the steps whose maps are correlated."""
    return ["smx", "smh", *(name for name in METHODS if f"signature_{name}" in table)]


def _breakable(name: str) -> str:
    """Return a name that may go on in the next line after each underscore."""
    return name.replace("_", "_\u200b")


def _correlation_row(
    shown: Table, row: dict[str, Any], key: str, smx: str, others: Sequence[str]
) -> list[Cell]:
    score = shown.number(row["score"], ".1f")
    return [
        words(f"{row['model']}, {row['task']}", link=key),
        _utterances(shown, row),
        Cell(f"{short_score_name(row['metric'])} {score.text}"),
        *_in_full(shown, row, smx),
        *(shown.number(row[f"rho_{name}"]) for name in others),
        *_in_full(shown, row, "smh"),
    ]


def _utterances(shown: Table, row: dict[str, Any]) -> Cell:
    n_failed = row["n_failed_utterances"]
    note = (
        shown.letter(f"{n_failed:,} failed and are left out from that step on") if n_failed else ""
    )
    return replace(shown.number(row["n_utterances"], ",.0f"), note=note)


def _in_full(shown: Table, row: dict[str, Any], saliency: str) -> list[Cell]:
    rho, reliability = row[f"rho_{saliency}"], row[f"reliability_{saliency}"]
    why = UNDEFINED if pd.isna(rho) else NO_SIGNAL if is_linear(saliency) else NOT_LINEAR
    cell = shown.number(reliability)
    if reliability < LEAST_RELIABILITY:
        text = number_beside(reliability, LEAST_RELIABILITY, 3)
        cell = Cell(text, shown.letter(UNRELIABLE))
    return [shown.number(rho), cell, shown.number(row[f"rho_corrected_{saliency}"], reason=why)]


def sweep_effects_table(
    table: pd.DataFrame, keys: Sequence[str], smx: str, paper: PaperFigures, source: str
) -> Table:
    """Return context mixing and the areas under the deletion curves, a group a score.

    Parameters are those of :func:`sweep_correlation_table`.
    """
    maps = deletion_maps(table)
    shown = Table(
        caption=f"Context mixing, Δ = ρ(CA, SMH) − ρ(CA, {map_name(smx)}) (no unit), and area "
        "under the deletion curve, 0-100, by the map that orders the cells. The paper's areas are "
        "of word errors.",
        header=["run", "Δ", "Δ corrected", *(_breakable(map_name(name)) for name in maps)],
        over=[("", 1), ("context mixing", 2), ("area under the deletion curve", len(maps))],
        source=source,
        signature=merged_signatures(table["signature_deletion"]),
    )
    rows = list(zip(keys, table.to_dict("records"), strict=True))
    for metric in table["deletion_metric"].unique():
        shown.titles.append(area_title(metric))
        shown.groups.append(
            [
                _effects_row(shown, row, key, smx, maps)
                for key, row in rows
                if row["deletion_metric"] == metric
            ]
        )
    shown.titles.append(f"paper, {paper.VERSION}")
    areas = [paper.area(name) for name in maps]
    mixing = [paper.cell("ca_smh_minus_smx_rho"), Cell("")]
    shown.groups.append([[words("over models and tasks"), *mixing, *areas]])
    return shown


def area_title(metric: str) -> str:
    """Return how the areas of a score are to be read."""
    better = "lower" if SCORES[metric].higher_is_better else "higher"
    return f"{score_name(metric, short=True)}: a {better} area means a more faithful map"


def _effects_row(
    shown: Table, row: dict[str, Any], key: str, smx: str, maps: Sequence[str]
) -> list[Cell]:
    pooling = smx.removeprefix("smx_")
    why = NO_SIGNAL if is_linear(smx) else NOT_LINEAR
    return [
        words(f"{row['model']} on {row['dataset']}, {row['task']}", link=key),
        shown.number(row[f"delta_{pooling}"], "+.3f"),
        shown.number(row[f"delta_corrected_{pooling}"], "+.3f", why),
        *(shown.number(row[f"auc_{name}"], ".1f") for name in maps),
    ]
