"""``s2txai show``: what one result file holds, as text and as a figure."""

import math
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure

from s2txai.errors import UserError
from s2txai.report import figures as draw
from s2txai.report.fonts import families
from s2txai.report.names import map_name, printable, row_labels
from s2txai.saliency import checks
from s2txai.saliency.aggregation import ATTENTION_KINDS
from s2txai.saliency.maps import GRADIENT_POOLING
from s2txai.saliency.pooling import POOLINGS, pool
from s2txai.saliency.reliability import half_correlation, half_maps, spearman_brown, split_half
from s2txai.saliency.statistics import GradientStatistics, Statistics, gradient_map, heatmap
from s2txai.storage.artifacts import Artifact, load

POOLING = "avg2d"  # the one whose reliability is exact
MOST_LABELS = 70  # side by side on a figure's width
LONGEST_TEXT = 60  # characters of an array of texts


def describe_file(artifact: Artifact) -> str:
    """Return what a result file holds: where it comes from, its arrays, and its table if any."""
    meta = artifact.meta
    lines = [
        f"step        {meta['step']}",
        f"utterance   {meta['utterance']}",
        f"task        {meta['task']}",
        f"model       sha256 {meta['model_sha256']}",
        f"audio       sha256 {meta['audio_sha256']}",
        "parameters",
        *(f"  {name} = {value}" for name, value in meta["parameters"].items()),
        "",
        *_array_lines(artifact),
        *_lines_of(artifact),
    ]
    return "\n".join(printable(line) for line in lines)


def draw_file(artifact: Artifact) -> Figure | None:
    """Return the figure of a result file; None for a step whose result is a table of texts.

    Raises
    ------
    UserError
        If the file lacks an array that its step writes, or no figure is known for its step.
    """
    step = artifact.meta["step"]
    if step == "deletion":
        return None
    figure = _FIGURES.get(step) or (_gradient_figure if _is_gradient(artifact) else None)
    if figure is None:
        raise UserError(
            f"{artifact.path} is of the step '{step}', for which there is no figure; "
            f"give a file of {', '.join(_FIGURES)} or of a gradient method."
        )
    with matplotlib.rc_context(draw.STYLE):
        return figure(artifact)


def show(path: Path, output: Path | None = None) -> str:
    """Draw a result file and return its description, which names the figure.

    Parameters
    ----------
    path
        The ``.npz``.
    output
        PNG to write; beside the file when None.

    Raises
    ------
    UserError
        If the file is missing, foreign or damaged, or the figure cannot be written.
    """
    # Said here, since `load` advises to delete what the workflow should have written.
    if path.is_file() and not _is_result(path):
        raise UserError(
            f"{path} is no result file of s2txai, or was cut off; give an .npz the workflow wrote."
        )
    artifact = load(path)
    text = describe_file(artifact)
    figure = draw_file(artifact)
    if figure is None:
        return f"{text}\n\nno figure: this step's result is the table above"
    target = output if output is not None else path.with_suffix(".png")
    if target.suffix.lower() != ".png":
        raise UserError(f"The figure is a PNG; let the name {target} end in .png.")
    try:
        target.write_bytes(draw.render_png(figure))
    except OSError as error:
        raise UserError(
            f"The figure {target} cannot be written ({error.strerror}); choose another --output."
        ) from error
    return f"{text}\n\nfigure      {target}"


def _is_result(path: Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return "meta.npy" in archive.namelist()
    except Exception:  # a damaged archive raises many kinds
        return False


def _lines_of(artifact: Artifact) -> list[str]:
    """Return the lines after the arrays, by the step; none for most."""
    lines = _TABLES.get(artifact.meta["step"])
    if lines is None:
        return _gradient_lines(artifact) if _is_sampled_gradient(artifact) else []
    return lines(artifact)


# By what the files hold, not by the registry: the extension of a method is not loaded here.


def _is_gradient(artifact: Artifact) -> bool:
    """Return whether a file is of a gradient method, perhaps one of an extension."""
    return "map" in artifact.arrays or _is_sampled_gradient(artifact)


def _is_sampled_gradient(artifact: Artifact) -> bool:
    """Return whether a file holds the sums of a gradient method that draws masks."""
    return artifact.arrays.keys() >= GradientStatistics.AXES.keys()


def _gradient_cells(artifact: Artifact) -> np.ndarray:
    """Return the map [I, T, F] that a file of a gradient method holds."""
    if _is_sampled_gradient(artifact):
        return gradient_map(GradientStatistics.from_mapping(artifact.arrays))
    return artifact["map"].astype(np.float64)


def _array_lines(artifact: Artifact) -> list[str]:
    rows = [("array", "shape", "axes", "unit", "min", "mean", "max or text")]
    for name, array in sorted(artifact.arrays.items()):
        axes = ", ".join(artifact.meta["axes"][name]) or "one value"
        unit = artifact.meta["units"].get(name, "-")
        shape = " x ".join(map(str, array.shape)) or "1"
        rows.append((name, shape, axes, unit, *_range(array)))
    return _columns(rows)


def _range(array: np.ndarray) -> tuple[str, str, str]:
    if array.dtype.kind == "U":
        text = str(array) if array.ndim == 0 else f"{array.size} texts"
        return "", "", text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}..."
    if array.size == 0:
        return "", "", "empty"
    values = (array.min(), array.mean(dtype=np.float64), array.max())
    low, mean, high = ("undefined" if math.isnan(value) else f"{value:.4g}" for value in values)
    return low, mean, high


def _columns(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows of texts as lines with aligned columns."""
    plain = [[printable(text) for text in row] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(*plain, strict=True)]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in plain
    ]


def _token_lines(artifact: Artifact) -> list[str]:
    rows = [("row", "piece", "role", "word", "log-probability (nat)")]
    columns = (artifact[name].tolist() for name in ("pieces", "roles", "word_index", "log_probs"))
    for i, (piece, role, word, log_prob) in enumerate(zip(*columns, strict=True)):
        rows.append((str(i), repr(piece), role, str(word) if word >= 0 else "-", f"{log_prob:.3f}"))
    return ["", *_columns(rows)]


def _hypothesis_lines(artifact: Artifact) -> list[str]:
    rows = [("map", "deleted (%)", "hypothesis")]
    for m, name in enumerate(artifact["maps"].tolist()):
        for column, percent in enumerate(artifact["percents"].tolist()):
            rows.append((name, str(percent), str(artifact["hypotheses"][m, column])))
    return ["", *_columns(rows)]


def _reliability_lines(artifact: Artifact) -> list[str]:
    statistics = Statistics.from_mapping(artifact.arrays)
    n_masks = int(statistics.n_masks.sum())
    lines = ["", f"masks       {n_masks}", *_scoring_lines(statistics)]
    if artifact.meta["step"] == "smh":
        # An encoder step has one cell, so every pooling leaves it alone.
        return [*lines, f"reliability {split_half(statistics, POOLING):.3f}"]
    return lines + [
        f"reliability {split_half(statistics, name):.3f} ({name}"
        f"{'' if name == POOLING else ', approximate'})"
        for name in sorted(POOLINGS)
    ]


def _scoring_lines(statistics: Statistics) -> list[str]:
    """Return how masks were scored where a pilot decided that."""
    scoring = checks.facts(statistics)
    if not scoring:
        return []
    if scoring["encoder"] == "exact":
        return ["scored      exactly, there being no cheaper encoder that is close enough"]
    correlation, worst = (
        "not defined" if scoring[name] is None else f"{scoring[name]:.4f}"
        for name in ("score_correlation", "score_correlation_worst")
    )
    bias = scoring["score_bias_percent"]
    return [
        f"scored      by a cheaper encoder, {100 * scoring['check_share']:g} % also exactly",
        f"fidelity    {correlation} (worst row {worst}), bias "
        f"{'not defined' if bias is None else f'{bias:+.2f} %'}, "
        f"{'unbiased' if scoring['unbiased'] else 'not unbiased'} after correction",
    ]


def _gradient_lines(artifact: Artifact) -> list[str]:
    statistics = GradientStatistics.from_mapping(artifact.arrays)
    reliability = spearman_brown(
        half_correlation(half_maps(statistics, GRADIENT_POOLING, gradient_map))
    )
    return [
        "",
        f"masks       {int(statistics.n_masks.sum())}",
        f"reliability {reliability:.3f} ({GRADIENT_POOLING})",
    ]


def _decode_figure(artifact: Artifact) -> Figure:
    labels = _labels(artifact)
    figure = draw.new_figure(4.2)
    top, bottom = figure.subplots(2, 1, height_ratios=[1, 1.1])
    shift = float(artifact["frame_shift"])
    image = draw.draw_input(top, artifact["features"], shift, time_only=bool(artifact["time_only"]))
    top.set_xlabel("time (s)")
    figure.colorbar(image, ax=top, aspect=10).set_label("feature value\n(model's unit)")
    rows = np.arange(len(labels))
    bottom.bar(rows, np.exp(artifact["log_probs"]), color="#0072B2")
    every = -(-len(labels) // MOST_LABELS)
    bottom.set_xticks(
        rows[::every], labels[::every], rotation=60, ha="right", rotation_mode="anchor", fontsize=7,
        fontfamily=families(labels),
    )  # fmt: skip
    bottom.set_xlim(-0.7, len(labels) - 0.3)
    bottom.set_ylim(0, 1)
    bottom.set_ylabel("probability")
    bottom.set_title("Predicted tokens and their probability, given those before (no unit)")
    return figure


def _attention_figure(artifact: Artifact) -> Figure:
    attention = artifact["cross_attention"]
    L, H, n_rows, steps = attention.shape
    figure = draw.new_figure(0.9 * L + 0.8)
    panels = figure.subplots(L, H, squeeze=False, sharex=True, sharey=True)
    for (layer, head), panel in np.ndenumerate(panels):
        image = draw.draw_rows(panel, attention[layer, head], [""] * n_rows, step=1)
        panel.set_xlim(0, steps)
        panel.tick_params(labelsize=6, length=2)
        panel.set_yticks([])
        if layer == 0:
            panel.set_title(f"head {head}", fontsize=8)
        if head == 0:
            panel.set_ylabel(f"layer {layer}")
    figure.supxlabel("encoder step; in each panel a row a token, first on top", fontsize=8.5)
    figure.colorbar(image, ax=panels, aspect=40, extend="both").set_label(_ROW_UNIT)
    return figure


def _saliency_figure(artifact: Artifact) -> Figure:
    statistics = Statistics.from_mapping(artifact.arrays)
    full = heatmap(statistics)  # (I, T, F)
    pooled = pool(full, POOLING, statistics.subsampling, statistics.n_steps)
    labels = [str(i) for i in range(len(pooled))]
    height = draw.map_height(len(labels))
    figure = draw.new_figure(2.2 + height + 0.6)
    top, bottom = figure.subplots(2, 1, height_ratios=[1.6, height])
    mean = full.mean(axis=0)  # (T, F)
    if artifact.meta["step"] == "smx":
        image = top.imshow(mean.T, origin="lower", aspect="auto", cmap=draw.MAP_COLOURS)
        top.set_ylabel("frequency bin")
        top.set_xlabel("frame")
        top.set_title("SMX at full resolution, mean over tokens")
        figure.colorbar(image, ax=top, aspect=12).set_label("KL divergence (nat)")
    else:
        top.plot(np.arange(len(mean)) + 0.5, mean[:, 0], color="#0072B2", linewidth=1.2)
        top.set_xlim(0, len(mean))
        top.set_ylabel("KL divergence (nat)")
        top.set_xlabel("encoder step")
        top.set_title("SMH, mean over tokens")
    image = draw.draw_rows(bottom, pooled, labels, step=1)
    pooling = f", pooled by {POOLING}" if artifact.meta["step"] == "smx" else ""
    reliability = split_half(statistics, POOLING)
    bottom.set_title(
        f"{artifact.meta['step'].upper()} by token{pooling}   (reliability {reliability:.2f})"
    )
    bottom.set_xlabel("encoder step")
    bottom.set_ylabel("token")
    figure.colorbar(image, ax=bottom, aspect=20, extend="both").set_label(_ROW_UNIT_SHORT)
    return figure


def _gradient_figure(artifact: Artifact) -> Figure:
    method = artifact.meta["step"]
    full = _gradient_cells(artifact)  # (I, T, F)
    pooled = pool(
        full, GRADIENT_POOLING, int(artifact["subsampling"]), int(artifact["n_steps"])
    )  # (I, T')
    height = draw.map_height(len(pooled))
    figure = draw.new_figure(2.2 + height + 0.6)
    top, bottom = figure.subplots(2, 1, height_ratios=[1.6, height])
    mean = full.mean(axis=0)  # (T, F)
    largest = float(np.abs(mean).max())
    image = top.imshow(
        mean.T, origin="lower", aspect="auto",
        cmap=draw.CORRELATION_COLOURS, vmin=-largest, vmax=largest,
    )  # fmt: skip
    top.set_ylabel("frequency bin")
    top.set_xlabel("frame")
    top.set_title(f"{map_name(method)} at full resolution, mean over tokens")
    figure.colorbar(image, ax=top, aspect=12).set_label("change (nat a cell)")
    image = draw.draw_rows(bottom, pooled, [str(i) for i in range(len(pooled))], step=1)
    bottom.set_title(f"{map_name(method)} by token, pooled by {GRADIENT_POOLING}")
    bottom.set_xlabel("encoder step")
    bottom.set_ylabel("token")
    figure.colorbar(image, ax=bottom, aspect=20, extend="both").set_label(_ROW_UNIT_SHORT)
    return figure


def _aggregate_figure(artifact: Artifact) -> Figure:
    maps = {map_name("ca_mean"): artifact["ca_mean"], map_name("ca_last"): artifact["ca_layer"][-1]}
    for name in sorted(artifact.arrays):
        is_map = artifact.meta["axes"][name] == ["token", "step"]
        if is_map and name.split("_")[0] not in ATTENTION_KINDS:
            maps[map_name(name)] = artifact[name]
    labels = _labels(artifact)
    height = draw.map_height(len(labels))
    figure = draw.new_figure(len(maps) * (height + 0.3) + 0.4)
    panels = figure.subplots(len(maps), 1, sharex=True)
    for panel, (title, values) in zip(panels, maps.items(), strict=True):
        image = draw.draw_rows(panel, values, labels, step=1)
        panel.set_title(title)
    panels[-1].set_xlabel("encoder step")
    figure.colorbar(image, ax=list(panels), aspect=40, extend="both").set_label(_ROW_UNIT)
    return figure


def _labels(artifact: Artifact) -> list[str]:
    return row_labels(*(artifact[name].tolist() for name in ("pieces", "roles", "word_index")))


_ROW_UNIT = "standard deviations above the row's mean"
_ROW_UNIT_SHORT = "deviations above\nthe row's mean"

_TABLES: dict[str, Callable[[Artifact], list[str]]] = {
    "decode": _token_lines,
    "smx": _reliability_lines,
    "smh": _reliability_lines,
    "deletion": _hypothesis_lines,
}
_FIGURES: dict[str, Callable[[Artifact], Figure]] = {
    "decode": _decode_figure,
    "attention": _attention_figure,
    "smx": _saliency_figure,
    "smh": _saliency_figure,
    "aggregate": _aggregate_figure,
}
