"""All runs layer by layer, in the order of the configuration."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pandas as pd

from s2txai.analysis.headline import LEAST_RELIABILITY, headline
from s2txai.report.names import map_name
from s2txai.report.runs import RunResults
from s2txai.report.sweep import (
    UNRELIABLE,
    area_title,
    correlation_signatures,
    correlations,
)
from s2txai.report.tables import (
    NO_SIGNAL,
    UNDEFINED,
    Cell,
    PaperFigures,
    Table,
    counts_words,
    merged_signatures,
    words,
)
from s2txai.saliency.aggregation import LAYER
from s2txai.saliency.pooling import is_linear

KEY = ["dataset", "model", "task"]
NO_LAYER = "the model has fewer decoder layers"
NOT_DELETED = "cells are deleted in the order of all heads, the last layer and those under 'layers'"


def by_layer(runs: Sequence[RunResults]) -> pd.DataFrame:
    """Return the mean over all heads and over those of each layer, one row each and a run.

    Columns named by a saliency map or pooling are those of :func:`s2txai.report.sweep.sweep`; see
    ``docs/results.md``. The area is empty where cells were not deleted in that order.
    """
    table = pd.DataFrame([row for run in runs for row in _rows(run)])
    return table.astype({"layer": "Int64"})


def _rows(run: RunResults) -> list[dict[str, Any]]:
    choices = [("ca_mean", None), *(("ca_layer", layer) for layer in range(run.n_layers))]
    last = run.n_layers - 1
    deleted_by = {None: "ca_mean", last: "ca_last"}
    deleted_by |= {layer: f"{LAYER}{layer}" for layer in range(last)}
    auc = run.tables["auc"]
    auc = auc[auc["metric"] == run.deletion_metric].set_index("map")
    rows = []
    for attention, layer in choices:
        summary, mixing = (
            _rows_of(headline(run.tables[name]), attention, layer) for name in ("summary", "mixing")
        )
        summary = summary.set_index("saliency")
        areas = auc[auc.index == deleted_by.get(layer)]
        rows.append(
            {
                "dataset": run.files.dataset,
                "model": run.files.model,
                "task": run.files.task,
                "attention": attention,
                "layer": layer,
                **correlations(summary, mixing.set_index("pooling")),
                "deletion_metric": run.deletion_metric,
                "auc": areas["auc"].squeeze() if len(areas) else float("nan"),
                **correlation_signatures(summary),
                "signature_deletion": merged_signatures(areas["signature"]),
            }
        )
    return rows


def _rows_of(table: pd.DataFrame, attention: str, layer: int | None) -> pd.DataFrame:
    same = table["layer"].isna() if layer is None else table["layer"] == layer
    return table[(table["attention"] == attention) & same]


def runs_of(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each run, runs and rows in their order."""
    return [rows for _, rows in table.groupby(KEY, sort=False)]


@dataclass(frozen=True)
class _Quantity:
    """What a group of rows shows.

    ``raw`` is the column before correction, if any; ``why`` there may be no number although it has
    one.
    """

    title: str
    column: str
    raw: str
    why: str
    reliabilities: Sequence[str]
    form: str
    paper: Cell


def layers_table(
    table: pd.DataFrame, keys: Sequence[str], smx: str, paper: PaperFigures, source: str
) -> Table:
    """Return a group of rows per quantity, a row per run, and a column per layer.

    Parameters
    ----------
    table
        Of :func:`by_layer`.
    keys
        Where the page says more about each run.
    smx
        The input map that is shown.
    paper
        The paper's figures.
    source
        File of the table.
    """
    n_layers = int(table["layer"].max()) + 1
    shown = Table(
        caption="Every run, layer by layer: correlation ρ of the mean over a layer's heads with "
        "saliency, context mixing Δ (no unit) and area under the deletion curve (0-100). Layers "
        "count from 0; bold: the model's last one. The paper's figures are of raw values.",
        header=["run", "all heads", *(str(layer) for layer in range(n_layers))],
        over=[("", 2), ("decoder layer", n_layers)],
        source=source,
        signature=merged_signatures(
            pd.concat(
                [
                    table["signature_smx"],
                    table["signature_smh"],
                    table.loc[table["auc"].notna(), "signature_deletion"],
                ]
            )
        ),
    )
    named_runs = list(zip(keys, runs_of(table), strict=True))
    for quantity in _correlations_and_mixing(smx, paper):
        shown.titles.append(quantity.title)
        shown.groups.append(_group(shown, quantity, named_runs, n_layers, paper))
    for metric in table["deletion_metric"].unique():
        quantity = _areas(metric, paper)
        of_metric = [run for run in named_runs if (run[1]["deletion_metric"] == metric).all()]
        shown.titles.append(quantity.title)
        shown.groups.append(_group(shown, quantity, of_metric, n_layers, paper))
    return shown


def _correlations_and_mixing(smx: str, paper: PaperFigures) -> list[_Quantity]:
    pooling = smx.removeprefix("smx_")
    # Without a correction for the input map, its raw values say more than a row of dashes.
    kind, prefix = (" corrected", "_corrected") if is_linear(smx) else ("", "")
    of_smx, of_smh = f"reliability_{smx}", "reliability_smh"
    return [
        _Quantity(
            f"ρ{kind} with {map_name(smx)}", f"rho{prefix}_{smx}", f"rho_{smx}",
            NO_SIGNAL, [of_smx], ".3f", paper.cell("ca_smx_rho"),
        ),
        _Quantity(
            "ρ corrected with SMH", "rho_corrected_smh", "rho_smh",
            NO_SIGNAL, [of_smh], ".3f", paper.correlation("smh"),
        ),
        _Quantity(
            f"Δ{kind}, SMH minus {map_name(smx)}", f"delta{prefix}_{pooling}", f"delta_{pooling}",
            NO_SIGNAL, [of_smx, of_smh], "+.3f", paper.cell("ca_smh_minus_smx_rho"),
        ),
    ]  # fmt: skip


def _areas(metric: str, paper: PaperFigures) -> _Quantity:
    beside = paper.area("ca_mean") if counts_words(metric) else Cell("")
    title = f"area under the deletion curve, {area_title(metric)}"
    return _Quantity(title, "auc", "", NOT_DELETED, [], ".1f", beside)


def _group(
    shown: Table,
    quantity: _Quantity,
    runs: Sequence[tuple[str, pd.DataFrame]],
    n_layers: int,
    paper: PaperFigures,
) -> list[list[Cell]]:
    rows = [_run_row(shown, quantity, key, run, n_layers) for key, run in runs]
    if quantity.paper.text:
        blank = [Cell("")] * n_layers
        rows.append([words(f"paper, {paper.VERSION}"), quantity.paper, *blank])
    return rows


def _run_row(
    shown: Table, quantity: _Quantity, key: str, run: pd.DataFrame, n_layers: int
) -> list[Cell]:
    first = run.iloc[0]
    name = words(f"{first['model']} on {first['dataset']}, {first['task']}", link=key)
    if any(first[column] < LEAST_RELIABILITY for column in quantity.reliabilities):
        name = replace(name, note=shown.letter(UNRELIABLE))
    cells = []
    for row in run.to_dict("records"):
        why = UNDEFINED if quantity.raw and pd.isna(row[quantity.raw]) else quantity.why
        cells.append(shown.number(row[quantity.column], quantity.form, why))
    cells[-1] = replace(cells[-1], marked=True)
    absent = [Cell("–", shown.letter(NO_LAYER)) for _ in range(n_layers + 1 - len(cells))]
    return [name, *cells, *absent]
