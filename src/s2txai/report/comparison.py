"""The figure of all runs side by side, below the paper's own values."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from s2txai.analysis.scoring import SCORES
from s2txai.report.figures import CURVES, OTHER_CURVE, STYLE, new_figure
from s2txai.report.names import map_name, short_score_name, shortened
from s2txai.report.sweep import deletion_maps
from s2txai.report.tables import PaperFigures, area_key, counts_words

RUN_HEIGHT = 0.52  # inches

# Fill and edge. The fills are Okabe and Ito's; the darker edges stand out against white.
SMX_COLOURS = ("#E69F00", "#8F6200")
SMH_COLOURS = ("#009E73", "#00573F")
MIXING_COLOURS = ("#CC79A7", "#7E3F62")
MARKERS = {"smx": "^", "smh": "o", "mixing": "D"}
BAND = 0.16  # opacity


def comparison(table: pd.DataFrame, smx: str, paper: PaperFigures) -> Figure:
    """Draw correlations, context mixing and deletion, a row a run and the paper on top.

    Parameters
    ----------
    table
        Of :func:`s2txai.report.sweep.sweep`.
    smx
        The input map that is drawn.
    paper
        The paper's figures.
    """
    rows = table.to_dict("records")
    metrics = [str(name) for name in table["deletion_metric"].unique()]
    with matplotlib.rc_context(STYLE):
        legend = 0.5 + 0.18 * max(3, -(-len(deletion_maps(table)) // 2))  # inches
        figure = new_figure(RUN_HEIGHT * (len(rows) + 1) + 0.9 + legend)
        halves = figure.subfigures(
            2, 1, squeeze=False, height_ratios=[figure.get_figheight() - legend, legend]
        )
        drawn, below = halves.ravel()
        panels = drawn.subplots(
            1, 2 + len(metrics), sharey=True, squeeze=False,
            width_ratios=[1.9, 1.1, *[1.5] * len(metrics)],
        )[0]  # fmt: skip
        _draw_correlations(panels[0], rows, smx, paper)
        _draw_mixing(panels[1], rows, smx.removeprefix("smx_"), paper)
        for panel, metric in zip(panels[2:], metrics, strict=True):
            _draw_areas(panel, rows, metric, deletion_maps(table), paper)
        for panel in panels:
            _prepare_rows(panel, len(rows))
        labels = [f"{shortened(row['model'])}\n{shortened(_where(row))}" for row in rows]
        panels[0].set_yticks(range(-1, len(rows)), [f"paper\n{paper.VERSION}", *labels])
        _legends(below, smx, deletion_maps(table))
    return figure


def _where(row: Mapping[str, Any]) -> str:
    return f"{row['dataset']}, {row['task']}"


def _prepare_rows(panel: Axes, n_runs: int) -> None:
    panel.set_ylim(n_runs - 0.5, -1.5)
    panel.tick_params(axis="y", length=0)
    panel.spines["left"].set_visible(False)
    panel.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.axhline(-0.5, color="#333333", linewidth=0.9)
    for row in range(n_runs - 1):
        panel.axhline(row + 0.5, color="#e3e3e3", linewidth=0.6)


def _draw_correlations(
    panel: Axes, rows: Sequence[Mapping[str, Any]], smx: str, paper: PaperFigures
) -> None:
    panel.set_title("Correlation")
    panel.set_xlabel("ρ (no unit)")
    share = paper.span("ca_smh_share_percent")
    spans = {
        "smx": paper.span("ca_smx_rho"),
        # The paper reads ρ as the share.
        "smh": share and (share[0] / 100, share[1] / 100),
    }
    shown = [0.0, 1.0]
    for saliency, kind, colours, offset in (
        (smx, "smx", SMX_COLOURS, -0.2), ("smh", "smh", SMH_COLOURS, 0.2)
    ):  # fmt: skip
        _draw_span(panel, spans[kind], colours, offset)
        for y, row in enumerate(rows):
            raw, corrected = row[f"rho_{saliency}"], row[f"rho_corrected_{saliency}"]
            _draw_pair(panel, y + offset, raw, corrected, colours, MARKERS[kind])
            panel.plot(
                row[f"ceiling_{saliency}"], y + offset,
                marker="|", markersize=9, markeredgewidth=2, color=colours[1], linestyle="",
            )  # fmt: skip
            shown += [raw, corrected]
    _fit(panel, shown)


def _draw_mixing(
    panel: Axes, rows: Sequence[Mapping[str, Any]], pooling: str, paper: PaperFigures
) -> None:
    panel.set_title("Context mixing")
    panel.set_xlabel("Δ (no unit)")
    panel.axvline(0, color="#767676", linewidth=0.9)
    span = paper.span("ca_smh_minus_smx_rho")
    _draw_span(panel, span, MIXING_COLOURS, 0.0)
    shown = [-0.1, *(span or (0.1, 0.1))]
    for y, row in enumerate(rows):
        raw, corrected = row[f"delta_{pooling}"], row[f"delta_corrected_{pooling}"]
        _draw_pair(panel, y, raw, corrected, MIXING_COLOURS, MARKERS["mixing"])
        shown += [raw, corrected]
    _fit(panel, shown)


def _draw_areas(
    panel: Axes,
    rows: Sequence[Mapping[str, Any]],
    metric: str,
    maps: Sequence[str],
    paper: PaperFigures,
) -> None:
    falls = SCORES[metric].higher_is_better
    panel.set_title(f"Deletion, {short_score_name(metric)}")
    panel.set_xlabel(f"area, 0–100\n({'lower' if falls else 'higher'}: more faithful)")
    # One below the other, so that none hides another.
    offsets = np.linspace(-0.38, 0.38, len(maps)) if len(maps) > 1 else [0.0]
    for name, offset in zip(maps, offsets, strict=True):
        colour, marker, _ = CURVES.get(name, OTHER_CURVE)
        points = [(row[f"auc_{name}"], y + offset) for y, row in enumerate(rows)
                  if row["deletion_metric"] == metric]  # fmt: skip
        span = paper.span(*area_key(name)) if counts_words(metric) else None
        if span:
            points.append((span[0], -1 + offset))
        panel.plot(
            *zip(*points, strict=True),
            color=colour, marker=marker, markersize=4, linestyle="", clip_on=False,
        )  # fmt: skip
    panel.set_xlim(0, 100)


def _draw_span(
    panel: Axes, span: tuple[float, float] | None, colours: tuple[str, str], offset: float
) -> None:
    """Draw a range of the paper in its row, and a light band over the runs below it."""
    if span is None:
        return
    fill, edge = colours
    panel.axvspan(*span, color=fill, alpha=BAND, linewidth=0, zorder=0)
    panel.plot(
        span, [-1 + offset] * 2, color=edge, linewidth=2.4, marker="|", markersize=8,
        markeredgewidth=2.4,
    )  # fmt: skip


def _draw_pair(
    panel: Axes, y: float, raw: float, corrected: float, colours: tuple[str, str], marker: str
) -> None:
    """Draw a raw value, hollow, and its corrected one, filled; an undefined one is left out."""
    fill, edge = colours
    panel.plot([raw, corrected], [y, y], color=edge, linewidth=1)
    for value, face in ((raw, "white"), (corrected, fill)):
        panel.plot(
            value, y,
            marker=marker, markersize=6, markerfacecolor=face, markeredgecolor=edge, linestyle="",
        )  # fmt: skip


def _fit(panel: Axes, values: Sequence[float]) -> None:
    finite = [value for value in values if not math.isnan(value)]
    low, high = min(finite), max(finite)
    panel.set_xlim(low - 0.06 * (high - low), high + 0.06 * (high - low))


def _legends(below: Any, smx: str, maps: Sequence[str]) -> None:
    """Explain the marks of the first two panels on the left, those of deletion on the right."""
    dark = "#333333"

    def mark(marker: str, label: str, colours: tuple[str, str]) -> Line2D:
        fill, edge = colours
        return Line2D(
            [], [], marker=marker, markersize=6, markerfacecolor=fill, markeredgecolor=edge,
            linestyle="", label=label,
        )  # fmt: skip

    correlations = [
        mark(MARKERS["smx"], f"ρ with {map_name(smx)}", SMX_COLOURS),
        mark(MARKERS["smh"], "ρ with SMH", SMH_COLOURS),
        mark(MARKERS["mixing"], "Δ, SMH minus SMX", MIXING_COLOURS),
        mark("s", "hollow: raw", ("white", dark)),
        mark("s", "filled: corrected for noise", ("#aaaaaa", dark)),
        Line2D([], [], marker="|", markersize=9, markeredgewidth=2, color=dark, linestyle="",
               label="ceiling that noise leaves"),
    ]  # fmt: skip
    areas = [
        Line2D([], [], color=colour, marker=marker, markersize=4.5, linestyle="", label=map_name(
            name
        ))
        for name in maps
        for colour, marker, _ in [CURVES.get(name, OTHER_CURVE)]
    ]  # fmt: skip
    settings = {"alignment": "left", "handletextpad": 0.4, "columnspacing": 1.2}
    below.legend(
        handles=correlations,
        loc="upper left",
        ncols=2,
        title="correlation and context mixing",
        **settings,
    )
    below.legend(
        handles=areas, loc="upper right", ncols=2, title="deletion in the order of", **settings
    )
