"""The figure of all runs layer by layer."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from s2txai.analysis.scoring import SCORES
from s2txai.report.figures import STYLE, new_figure
from s2txai.report.layers import runs_of
from s2txai.report.names import map_name, short_score_name, shortened
from s2txai.report.tables import PaperFigures, area_key, counts_words

PANEL_HEIGHT = 2.2  # inches
MANY_LAYERS = 12  # more leave no room for the number of each
ALL_HEADS = 1.17  # where their mean stands: behind the last layer, at 1
MANY_MODELS = 4  # more are listed in two columns

# Okabe and Ito's without the yellow, which is lost on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKS: tuple[tuple[str, Any], ...] = (
    ("o", "-"),
    ("^", (0, (5, 2))),
    ("s", (0, (1, 1.5))),
    ("D", (0, (5, 1.5, 1, 1.5))),
    ("v", (0, (9, 3))),
    ("P", (0, (3, 1, 1, 1, 1, 1))),
)
DARK = "#333333"
BAND = "#767676"
BAND_OPACITY = 0.2


def profiles(table: pd.DataFrame, smx: str, paper: PaperFigures) -> Figure:
    """Draw correlations, context mixing and deletion over the decoder's layers, a line a run.

    Layers lie at equal shares of the way from the first, at 0, to the last, at 1, so that models of
    different depth begin and end together.

    Parameters
    ----------
    table
        Of :func:`s2txai.report.layers.by_layer`.
    smx
        The input map that is drawn.
    paper
        The paper's figures.
    """
    runs = runs_of(table)
    pooling = smx.removeprefix("smx_")
    share = paper.span("ca_smh_share_percent")
    columns = [
        (f"ρ with {map_name(smx)}", "rho", smx, paper.span("ca_smx_rho")),
        # The paper reads ρ as the share.
        ("ρ with SMH", "rho", "smh", share and (share[0] / 100, share[1] / 100)),
        ("Δ, SMH minus SMX", "delta", pooling, paper.span("ca_smh_minus_smx_rho")),
    ]
    models, places = _styles(runs)
    with matplotlib.rc_context(STYLE):
        legend = 0.45 + 0.18 * max(_legend_rows(len(models)), len(places) + 1)
        figure = new_figure(2 * PANEL_HEIGHT + legend)
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[2 * PANEL_HEIGHT, legend])
        drawn, below = halves.ravel()
        errors = _error_rates(runs)
        panels = drawn.subplots(2, len(columns) + len(errors), sharex=True, sharey="col")
        for (title, quantity, name, span), (above, under) in zip(
            columns, panels[:, : len(columns)].T, strict=True
        ):
            above.set_title(title)
            for panel, kind in ((above, quantity), (under, f"{quantity}_corrected")):
                _draw(panel, runs, f"{kind}_{name}", span, models, places)
        areas = panels[:, len(columns) :]
        for panel, metric in (*zip(areas[0], errors, strict=True), (areas[1, 0], "bleu")):
            _draw_areas(panel, metric, runs, paper, models, places)
        for panel in areas[1, 1:]:
            panel.set_visible(False)
        panels[0, 0].set_ylabel("raw (no unit)")
        panels[1, 0].set_ylabel("corrected for noise (no unit)")
        for panel in panels[1]:
            _number_layers(panel, [len(run) - 1 for run in runs])
        _legends(below, models, places, f"paper's range, {paper.VERSION}")
    return figure


def _error_rates(runs: Sequence[pd.DataFrame]) -> list[str]:
    """Return the error rates that runs were scored by: each has a panel of its own."""
    used = {str(metric) for run in runs for metric in run["deletion_metric"]}
    return [metric for metric in ("wer_max", "cer_max") if metric in used] or ["wer_max"]


def _styles(
    runs: Sequence[pd.DataFrame],
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """Return the colours of each model, and marker and dashes of each task on its dataset."""
    models: dict[str, dict[str, Any]] = {}
    places: dict[str, dict[str, Any]] = {}
    for run in runs:
        model, place = _names(run)
        # Colours repeat with hollow markers.
        again, number = divmod(len(models), len(COLOURS))
        colour = COLOURS[number]
        models.setdefault(model, {"color": colour, "markerfacecolor": "white" if again else colour})
        marker, line = MARKS[len(places) % len(MARKS)]
        places.setdefault(place, {"marker": marker, "linestyle": line})
    return models, places


def _names(run: pd.DataFrame) -> tuple[str, str]:
    first = run.iloc[0]
    return str(first["model"]), f"{first['dataset']}, {first['task']}"


def _draw(
    panel: Axes,
    runs: Sequence[pd.DataFrame],
    column: str,
    span: tuple[float, float] | None,
    models: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, Mapping[str, Any]],
) -> None:
    panel.axhline(0, color=BAND, linewidth=0.9)
    panel.axvline((1 + ALL_HEADS) / 2, color="#cccccc", linewidth=0.9)
    panel.grid(axis="y", color="#e3e3e3", linewidth=0.6)
    panel.set_axisbelow(True)
    if span:
        # A single value would be a band without a height.
        line = 0 if span[0] < span[1] else 2
        panel.axhspan(*span, color=BAND, alpha=BAND_OPACITY, linewidth=line, zorder=0)
    for run in runs:
        model, place = _names(run)
        style = {"linewidth": 1.2, "markersize": 4, **models[model], **places[place]}
        mean, *layers = run[column]
        # Over layers without a value the line goes on.
        drawn = ~np.isnan(layers)
        panel.plot(_positions(len(layers))[drawn], np.array(layers)[drawn], **style)
        panel.plot(ALL_HEADS, mean, **style)
    if all(run[column].isna().all() for run in runs):
        why = "not defined" if runs else "no such run"
        panel.text(0.5, 0.5, why, transform=panel.transAxes, ha="center", color=DARK)


def _draw_areas(
    panel: Axes,
    metric: str,
    runs: Sequence[pd.DataFrame],
    paper: PaperFigures,
    models: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, Mapping[str, Any]],
) -> None:
    """Draw the areas of the runs that are scored by a metric."""
    direction = "lower" if SCORES[metric].higher_is_better else "higher"
    scored = [run for run in runs if (run["deletion_metric"] == metric).all()]
    # The paper's area is one number.
    span = paper.span(*area_key("ca_mean")) if counts_words(metric) else None
    _draw(panel, scored, "auc", span, models, places)
    panel.set_title(f"Deletion, {short_score_name(metric)}")
    panel.set_ylabel(f"area (0–100), {direction}: better", labelpad=1)
    panel.set_ylim(0, 100)


def _positions(n_layers: int) -> np.ndarray:
    # A decoder's only layer is its last.
    return np.linspace(0, 1, n_layers) if n_layers > 1 else np.ones(1)


def _number_layers(panel: Axes, n_layers: Sequence[int]) -> None:
    """Write the layers' numbers where all models have as many, and else name their ends."""
    L = n_layers[0]
    if set(n_layers) == {L}:
        every = -(-L // MANY_LAYERS)
        # From the end, so that the last one is numbered.
        numbers = range(L - 1, -1, -every)
        ticks, labels = list(_positions(L)[numbers]), [str(number) for number in numbers]
    else:
        ticks, labels = [0.0, 0.5, 1.0], ["first", "middle", "last"]
    # Two lines each, so that their first lines are level.
    panel.set_xticks([*ticks, ALL_HEADS], [*(f"{label}\n" for label in labels), "all\nheads"])
    panel.set_xlabel("decoder layer")


def _legend_rows(n_models: int) -> int:
    return n_models if n_models <= MANY_MODELS else -(-n_models // 2)


def _legends(
    below: Any,
    models: Mapping[str, dict[str, Any]],
    places: Mapping[str, dict[str, Any]],
    band: str,
) -> None:
    """Explain the colours of models on the left, the marks of datasets and tasks on the right."""
    plain: dict[str, Any] = {"linestyle": "-", "marker": "o", "markersize": 4, "linewidth": 1.2}
    colours = [
        Line2D([], [], label=shortened(name), **(plain | style)) for name, style in models.items()
    ]
    marks: list[Any] = [
        Line2D([], [], color=DARK, label=shortened(name), **(plain | style))
        for name, style in places.items()
    ]
    marks.append(Patch(color=BAND, alpha=BAND_OPACITY, linewidth=0, label=band))
    settings = {"alignment": "left", "handlelength": 3.2, "columnspacing": 1.2}
    n_columns = 1 if len(models) <= MANY_MODELS else 2
    below.legend(handles=colours, loc="upper left", ncols=n_columns, title="model", **settings)
    below.legend(handles=marks, loc="upper right", title="dataset and task", **settings)
