"""Figures of the report, each as PNG and PDF with bytes that depend on the data alone."""

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import AxesImage

from s2txai.report.fonts import OWN, families, without_glyph_warnings
from s2txai.report.names import map_name
from s2txai.saliency.aggregation import LAYER
from s2txai.saliency.correlation import standardise_rows

WIDTH = 8.4  # inches
RESOLUTION = 160  # dots an inch: sharp on screens of twice the usual density

# Any: the stubs of Matplotlib list every setting as a literal.
STYLE: dict[Any, Any] = {
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 9.5,
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "figure.constrained_layout.use": True,
    "figure.facecolor": "white",
    "font.family": [OWN],
    "font.size": 8.5,
    "legend.frameon": False,
    "pdf.fonttype": 42,
    "svg.hashsalt": "s2txai",
    # Transcripts are untrusted text: a dollar sign must not start a formula.
    "text.parse_math": False,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
}

# Okabe and Ito's colours, told apart with any colour vision; the markers differ too.
CURVES = {
    "ca_mean": ("#0072B2", "o", "-"),
    "ca_last": ("#56B4E9", "s", "-"),
    "smx_avg2d": ("#E69F00", "^", "-"),
    "smx_max_freq_avg_time": ("#D55E00", "v", "-"),
    "smx_max2d": ("#CC79A7", "D", "-"),
    "smx_full": ("#000000", "P", "-"),
    "grad": ("#009E73", "p", "-"),
    "input_x_gradient": ("#009E73", "<", ":"),
    "integrated_gradients": ("#009E73", ">", "--"),
    "random": ("#767676", "x", "--"),
    "energy": ("#767676", "+", ":"),
}
OTHER_CURVE = ("#009E73", "*", "-.")
# Of layers before the last, told apart by their markers.
LAYER_COLOUR, LAYER_MARKERS, LAYER_LINE = "#56B4E9", "o^vDp<>Ph*", ":"

MAP_COLOURS = "viridis"
SPECTROGRAM_COLOURS = "Greys"
CORRELATION_COLOURS = "RdBu_r"
ERROR_COLOURS = "Blues_r"  # dark: small

LARGEST_ERROR = 400.0  # ms in colour; beyond it no head times words

# Standard deviations of a row shown in colour; what lies beyond takes the end's colour.
ROW_RANGE = (-1.0, 4.0)

ROW_HEIGHT = 0.15  # inches
TALLEST_MAP = 4.5  # inches
MANY_HEADS = 12  # more leave no room for numbers in the cells


def save_figure(figure: Figure, stem: Path) -> bytes:
    """Write ``stem.png`` and ``stem.pdf``; return the PNG.

    Neither holds a date or the version of the library, so the same data give the same bytes.
    """
    stem.parent.mkdir(parents=True, exist_ok=True)
    png = render_png(figure)
    stem.with_name(f"{stem.name}.png").write_bytes(png)
    with matplotlib.rc_context(STYLE), without_glyph_warnings():
        figure.savefig(
            stem.with_name(f"{stem.name}.pdf"),
            format="pdf",
            dpi=RESOLUTION,
            metadata={"CreationDate": None, "Creator": None, "Producer": None},
        )
    return png


def render_png(figure: Figure) -> bytes:
    """Return a figure as PNG, without metadata."""
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE), without_glyph_warnings():
        figure.savefig(buffer, format="png", dpi=RESOLUTION, metadata={"Software": None})
    return buffer.getvalue()


def new_figure(height: float) -> Figure:
    """Return an empty figure of the report's width; call within ``rc_context(STYLE)``."""
    figure = Figure(figsize=(WIDTH, height))
    FigureCanvasAgg(figure)
    return figure


def head_correlations(
    heads: Mapping[str, np.ndarray], layers: Mapping[str, np.ndarray], mean: Mapping[str, float]
) -> Figure:
    """Draw the correlation of every head and of every layer's mean, a panel a saliency map.

    Parameters
    ----------
    heads
        rho by saliency map, [L, H]; NaN where undefined.
    layers
        rho of the mean over a layer's heads by saliency map, [L].
    mean
        rho of the mean over all heads by saliency map.
    """
    finite = np.concatenate([np.ravel(values) for values in [*heads.values(), *layers.values()]])
    largest = max(0.1, float(np.nanmax(np.abs(finite), initial=0.0)))
    titles = {
        name: f"{map_name(name)}   (mean over all heads: {_plain(mean[name])})" for name in heads
    }
    return _head_panels(
        {titles[name]: (heads[name], layers[name]) for name in heads},
        "correlation ρ (no unit)",
        _plain,
        cmap=CORRELATION_COLOURS,
        vmin=-largest,
        vmax=largest,
    )


def head_errors(heads: Mapping[str, np.ndarray], layers: Mapping[str, np.ndarray]) -> Figure:
    """Draw how far the words that every head and every layer's mean times start from the truth.

    Parameters
    ----------
    heads
        Mean absolute error in ms by title of the panel, [L, H]; NaN where undefined.
    layers
        That of the mean over a layer's heads, [L].
    """
    return _head_panels(
        {title: (heads[title], layers[title]) for title in heads},
        "mean absolute error (ms)",
        lambda value: "–" if np.isnan(value) else f"{value:.0f}",
        cmap=ERROR_COLOURS,
        vmin=0,
        vmax=LARGEST_ERROR,
        extend="max",
    )


def _head_panels(
    panels_by_title: Mapping[str, tuple[np.ndarray, np.ndarray]],
    unit: str,
    text: Callable[[float], str],
    *,
    cmap: str,
    vmin: float,
    vmax: float,
    extend: str = "neither",
) -> Figure:
    """Draw a panel a title: heads [L, H] and, apart, the means of the layers [L]."""
    L, H = next(iter(panels_by_title.values()))[0].shape
    n_columns = min(2, len(panels_by_title))
    n_rows = -(-len(panels_by_title) // n_columns)
    with matplotlib.rc_context(STYLE):
        figure = new_figure(n_rows * (0.75 + 0.3 * L) + 0.3)
        panels = figure.subplots(n_rows, n_columns, squeeze=False, sharex=True, sharey=True)
        used = panels.ravel()[: len(panels_by_title)]
        for panel in panels.ravel()[len(panels_by_title) :]:
            panel.remove()
        for panel, (title, (heads, layers)) in zip(used, panels_by_title.items(), strict=True):
            # The layer means stand apart, behind an empty column.
            grid = np.concatenate([heads, np.full((L, 1), np.nan), layers[:, None]], axis=1)
            image = panel.imshow(grid, cmap=cmap, vmin=vmin, vmax=vmax, aspect="auto")
            panel.set_title(title)
            panel.set_yticks(range(L), [str(layer) for layer in range(L)])
            every = -(-H // MANY_HEADS)
            ticks = [*range(0, H, every), H + 1]
            panel.set_xticks(ticks, [*map(str, ticks[:-1]), "mean"])
            panel.tick_params(length=0, labelbottom=True, labelleft=True)
            panel.spines[:].set_visible(False)
            if H <= MANY_HEADS:
                _write_cells(panel, image, grid, text, empty_column=H)
        for panel in panels[:, 0]:
            panel.set_ylabel("decoder layer")
        for panel in panels[-1]:
            panel.set_xlabel("head")
        bar = figure.colorbar(image, ax=list(used), shrink=0.8, aspect=30, extend=extend)
        bar.set_label(unit)
        bar.outline.set_visible(False)
    return figure


def _write_cells(
    panel: Axes, image: AxesImage, grid: np.ndarray, text: Callable[[float], str], empty_column: int
) -> None:
    for (layer, column), value in np.ndenumerate(grid):
        if column == empty_column:
            continue
        red, green, blue, alpha = image.cmap(image.norm(value))
        dark = alpha > 0 and 0.30 * red + 0.59 * green + 0.11 * blue < 0.5
        colour = "white" if dark else "black"
        panel.text(column, layer, text(value), ha="center", va="center", fontsize=7, color=colour)


def curve_style(name: str) -> tuple[str, str, str]:
    """Return colour, marker and line of a map's deletion curve."""
    if name.startswith(LAYER):
        marker = LAYER_MARKERS[int(name.removeprefix(LAYER)) % len(LAYER_MARKERS)]
        return LAYER_COLOUR, marker, LAYER_LINE
    return CURVES.get(name, OTHER_CURVE)


def deletion_curves(curves: pd.DataFrame, score: str, order: Sequence[str]) -> Figure:
    """Draw the score while more and more cells are deleted, a line a map.

    Parameters
    ----------
    curves
        ``map, percent, score`` of one metric.
    score
        What the score is, with its unit, for the axis.
    order
        Maps in the order of the legend.
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(3.6)
        axes = figure.subplots()
        for name in order:
            curve = curves[curves["map"] == name].sort_values("percent")
            colour, marker, line = curve_style(name)
            axes.plot(
                curve["percent"], curve["score"],
                color=colour, marker=marker, linestyle=line, linewidth=1.6, markersize=4.5,
                label=map_name(name), clip_on=False,
            )  # fmt: skip
        axes.set_xlim(0, 100)
        axes.set_ylim(bottom=0)
        axes.grid(color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("deleted cells of the spectrogram, most salient first (%)")
        axes.set_ylabel(score)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), title="order of deletion by")
    return figure


def padding_by_layer(mass: np.ndarray) -> Figure:
    """Draw the share of attention that lies on padding: [L, H], mean over tokens, 0-1."""
    L, H = mass.shape
    with matplotlib.rc_context(STYLE):
        figure = new_figure(2.5)
        axes = figure.subplots()
        # Heads side by side within their layer, so that none hides another.
        offsets = np.linspace(-0.28, 0.28, H) if H > 1 else np.zeros(1)
        layers = np.arange(L)
        for head, offset in enumerate(offsets):
            axes.plot(
                layers + offset, 100 * mass[:, head], "o",
                color="#0072B2", markerfacecolor="white", markersize=4.5, clip_on=False,
                label="one head" if head == 0 else None,
            )  # fmt: skip
        means = 100 * mass.mean(axis=1)
        axes.hlines(
            means, layers - 0.38, layers + 0.38, color="#D55E00", linewidth=2.2,
            label="mean of the layer",
        )  # fmt: skip
        for layer, value in enumerate(means):
            axes.text(layer + 0.41, value, f"{value:.0f}", va="center", fontsize=8, color="#A34700")
        axes.set_xticks(layers, [str(layer) for layer in layers])
        axes.set_xlim(-0.6, L - 0.4)
        axes.set_ylim(0, 100)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        axes.set_xlabel("decoder layer")
        axes.set_ylabel("attention on padding (%)")
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5))
    return figure


def utterance_maps(
    features: np.ndarray,
    maps: Mapping[str, np.ndarray],
    labels: Sequence[str],
    *,
    frame_shift: float,
    subsampling: int,
    time_only: bool = False,
) -> Figure:
    """Draw the input and below it maps with a row a token, on one time axis.

    Every row is standardised over the steps, as in the headline correlation.

    Parameters
    ----------
    features
        [T, F].
    maps
        [I, T'] by title.
    labels
        Of the I rows.
    frame_shift
        Time between two frames, in seconds.
    subsampling
        Frames for one encoder step.
    time_only
        Whether a frame is a block of samples of a waveform.
    """
    T = len(features)
    height = map_height(len(labels))
    with matplotlib.rc_context(STYLE):
        figure = new_figure(1.5 + len(maps) * (height + 0.3) + 0.4)
        panels = figure.subplots(
            1 + len(maps), 1, sharex=True, height_ratios=[1.2, *[height] * len(maps)]
        )
        image = draw_input(panels[0], features, frame_shift, time_only=time_only)
        figure.colorbar(image, ax=panels[0], aspect=10).set_label("feature value\n(model's unit)")
        for panel, (title, values) in zip(panels[1:], maps.items(), strict=True):
            image = draw_rows(panel, values, labels, step=frame_shift * subsampling)
            panel.set_title(title)
        panels[0].set_xlim(0, T * frame_shift)
        for panel in panels[:-1]:
            panel.tick_params(labelbottom=True)
        panels[-1].set_xlabel("time (s)")
        bar = figure.colorbar(image, ax=panels[1:], aspect=40, extend="both")
        bar.set_label("standard deviations above the row's mean")
    return figure


def map_height(n_rows: int) -> float:
    """Return the height in inches of a map with a row a token."""
    return float(np.clip(ROW_HEIGHT * n_rows, 0.8, TALLEST_MAP))


def draw_input(
    axes: Axes, features: np.ndarray, frame_shift: float, *, time_only: bool
) -> AxesImage:
    """Draw features [T, F] over seconds, the first bin or sample of a frame at the bottom."""
    T, F = features.shape
    kind, places = (
        ("Waveform", "sample of the frame") if time_only else ("Spectrogram", "frequency bin")
    )
    axes.set_title(f"{kind}: the model's input")
    axes.set_ylabel(places)
    return axes.imshow(
        features.T,
        origin="lower",
        aspect="auto",
        cmap=SPECTROGRAM_COLOURS,
        extent=(0, T * frame_shift, -0.5, F - 0.5),
        interpolation="nearest",
    )


def draw_rows(axes: Axes, rows: np.ndarray, labels: Sequence[str], step: float) -> AxesImage:
    """Draw rows [I, T'] in standard deviations, first token on top.

    ``step`` is the width of an encoder step on the horizontal axis.
    """
    n_rows, steps = rows.shape
    every = max(1, int(np.ceil(n_rows * ROW_HEIGHT / TALLEST_MAP)))
    axes.set_yticks(
        range(0, n_rows, every), labels[::every], fontsize=7, fontfamily=families(labels)
    )
    axes.tick_params(axis="y", length=0)
    return axes.imshow(
        standardise_rows(np.asarray(rows, dtype=np.float64)),
        aspect="auto",
        cmap=MAP_COLOURS,
        vmin=ROW_RANGE[0],
        vmax=ROW_RANGE[1],
        extent=(0, steps * step, n_rows - 0.5, -0.5),
        interpolation="nearest",
    )


def _plain(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:z.2f}".replace("-", "−")
