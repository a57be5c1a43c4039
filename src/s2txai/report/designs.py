"""All runs by the design of the perturbation: one table, one figure."""

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from s2txai.analysis.headline import LEAST_RELIABILITY
from s2txai.report.figures import STYLE, new_figure
from s2txai.report.names import shortened
from s2txai.report.profiles import COLOURS, DARK, MARKS
from s2txai.report.runs import RunResults
from s2txai.report.sweep import UNRELIABLE
from s2txai.report.tables import NO_SIGNAL, UNDEFINED, Cell, Table, merged_signatures, words
from s2txai.wording import number_beside

DESIGN_HEIGHT = 0.6  # inches
LEAST_DESIGN_HEIGHT = 0.12  # inches a run


def by_design(runs: Sequence[RunResults]) -> pd.DataFrame:
    """Return the rows of all runs about the mean of all heads, one a run and design."""
    tables = [run.tables["sensitivity"] for run in runs]
    table = pd.concat(tables, ignore_index=True)
    return table[table["attention"] == "ca_mean"].reset_index(drop=True)


def sensitivity_table(table: pd.DataFrame, keys: Sequence[str]) -> Table:
    """Return the headline in every design, a group a run.

    Parameters
    ----------
    table
        Of :func:`by_design`.
    keys
        Where the page says more about each run.
    """
    shown = Table(
        caption="Correlation ρ of the all-head mean with SMX avg2d (no unit) by the design of the "
        "perturbation, and of each design's map with that of the main design. Segments are for "
        "500 frames.",
        header=[
            "design", "segments", "p", "occluded value", "masks",
            "ρ", "reliability", "ρ corrected", "ρ", "ρ corrected",
        ],
        over=[("", 5), ("with attention", 3), ("with the main map", 2)],
        source="sensitivity/sensitivity.csv of each run",
        signature=merged_signatures(table["signature"]),
    )  # fmt: skip
    for key in keys:
        dataset, model, task = key.split("/")
        own = (table[["dataset", "model", "task"]] == [dataset, model, task]).all(axis=1)
        shown.titles.append(f"{model} on {dataset}, {task}")
        shown.groups.append([_row(shown, row) for row in table[own].to_dict("records")])
    return shown


def _row(shown: Table, row: dict[str, Any]) -> list[Cell]:
    why = UNDEFINED if pd.isna(row["rho"]) else NO_SIGNAL
    reliability = shown.number(row["reliability"], ".2f")
    if row["reliability"] < LEAST_RELIABILITY:
        text = number_beside(row["reliability"], LEAST_RELIABILITY, 2)
        reliability = Cell(text, shown.letter(UNRELIABLE))
    return [
        words(row["design"], marked=row["design"] == "main"),
        words(str(row["n_segments"])),
        Cell(f"{row['p']:g}"),
        words(row["occluded_value"]),
        Cell(str(row["n_masks"])),
        shown.number(row["rho"]),
        reliability,
        shown.number(row["rho_corrected"], reason=why),
        shown.number(row["rho_with_main"]),
        shown.number(row["rho_with_main_corrected"], reason=why),
    ]


def sensitivity_figure(table: pd.DataFrame) -> Figure:
    """Draw correlation with attention and with the main map, a row a design and a mark a run.

    Parameters
    ----------
    table
        Of :func:`by_design`.
    """
    designs = list(table["design"].unique())
    runs = [run for _, run in table.groupby(["model", "dataset", "task"], sort=False)]
    row_height = max(DESIGN_HEIGHT, LEAST_DESIGN_HEIGHT * (len(runs) + 1))
    with matplotlib.rc_context(STYLE):
        legend = 0.5 + 0.18 * max(2, -(-len(runs) // 2))  # inches
        height = row_height * len(designs) + 0.7
        figure = new_figure(height + legend)
        halves = figure.subfigures(2, 1, squeeze=False, height_ratios=[height, legend])
        drawn, below = halves.ravel()
        attention, main = drawn.subplots(1, 2, sharey=True, width_ratios=[1.4, 1])
        for panel, quantity, title in (
            (attention, "rho", "Attention and SMX avg2d"),
            (main, "rho_with_main", "SMX avg2d and the main SMX"),
        ):
            panel.set_title(title)
            panel.set_xlabel("ρ (no unit)")
            _draw(panel, runs, designs, quantity)
        attention.set_yticks(range(len(designs)), [shortened(name) for name in designs])
        attention.set_ylim(len(designs) - 0.5, -0.5)
        _legend(below, runs)
    return figure


def _draw(panel: Axes, runs: Sequence[pd.DataFrame], designs: Sequence[str], quantity: str) -> None:
    panel.grid(axis="x", color="#e3e3e3", linewidth=0.6)
    panel.set_axisbelow(True)
    panel.tick_params(axis="y", length=0)
    panel.axvline(0, color="#767676", linewidth=0.9)
    for row in range(len(designs) - 1):
        panel.axhline(row + 0.5, color="#e3e3e3", linewidth=0.6)
    offsets = np.linspace(-0.3, 0.3, len(runs)) if len(runs) > 1 else [0.0]
    for (number, run), offset in zip(enumerate(runs), offsets, strict=True):
        style = _style(number)
        for row in run.to_dict("records"):
            y = designs.index(row["design"]) + offset
            raw, corrected = row[quantity], row[f"{quantity}_corrected"]
            panel.plot([raw, corrected], [y, y], color=style["color"], linewidth=1)
            panel.plot(raw, y, **style, markerfacecolor="white")
            panel.plot(corrected, y, **style)


def _style(number: int) -> dict[str, Any]:
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKS[number % len(MARKS)][0],
        "markersize": 5,
        "linestyle": "",
    }


def _legend(below: Any, runs: Sequence[pd.DataFrame]) -> None:
    handles = []
    for number, run in enumerate(runs):
        first = run.iloc[0]
        name = f"{shortened(str(first['model']))}, {first['dataset']}, {first['task']}"
        handles.append(Line2D([], [], label=name, **_style(number)))
    for face, label in (("white", "hollow: raw"), (DARK, "filled: corrected for noise")):
        handles.append(
            Line2D([], [], marker="s", markersize=5, color=DARK, markerfacecolor=face,
                   linestyle="", label=label)
        )  # fmt: skip
    below.legend(handles=handles, loc="upper left", ncols=2, handletextpad=0.4)
