"""The page: one HTML file that holds its figures and recordings and needs no network."""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.figure import Figure

from s2txai.analysis.headline import (
    FEW_UTTERANCES,
    FEWEST_UTTERANCES,
    LEAST_RELIABILITY,
    headline,
)
from s2txai.analysis.scoring import SCORES
from s2txai.datasets import parse_task
from s2txai.log import logger
from s2txai.models.families import FAMILIES
from s2txai.report import figures as draw
from s2txai.report import tables
from s2txai.report.comparison import comparison
from s2txai.report.designs import by_design, sensitivity_figure, sensitivity_table
from s2txai.report.explorer import recording, source_of_data, write_explorer
from s2txai.report.layers import by_layer, layers_table
from s2txai.report.names import map_name, row_labels, score_name
from s2txai.report.profiles import profiles
from s2txai.report.runs import RunFiles, RunResults, UtteranceFacts, read_run
from s2txai.report.sweep import (
    saliencies,
    sentences,
    sweep,
    sweep_correlation_table,
    sweep_effects_table,
)
from s2txai.storage.artifacts import replacing
from s2txai.wording import number_beside

N_OPEN = 5  # utterances of a run shown at once; the rest unfolds
# Utterances with figures, of a run and of the page: the page of a large sweep must still open.
N_FIGURED = 20
N_FIGURED_IN_ALL = 60
N_UNFILTERED = 10  # utterances of the explorer's list without a field to filter it


@dataclass(frozen=True)
class ReportContext:
    """What was run, beyond what the result files say.

    Attributes
    ----------
    config
        The main configuration.
    versions
        Version by library.
    git_commit
        Of the project; empty where it is not known.
    models, datasets
        Entries of the two registries by name.
    paper_reference
        ``config/paper_reference.csv``.
    """

    config: Mapping[str, Any]
    versions: Mapping[str, str]
    git_commit: str
    models: Mapping[str, Mapping[str, Any]]
    datasets: Mapping[str, Mapping[str, Any]]
    paper_reference: Path


@dataclass(frozen=True)
class Picture:
    """A figure in the page.

    Attributes
    ----------
    data
        The PNG as data URI.
    alt
        What it shows, for those who do not see it.
    caption
        How to read it.
    files
        Stem of the PNG and PDF in the figures directory.
    """

    data: str
    alt: str
    caption: str
    files: str


@dataclass(frozen=True)
class ReportPaths:
    """Where the report goes, and the results that it is about.

    Attributes
    ----------
    page
        The HTML file.
    sweep
        The CSV of all runs, one row each.
    layers
        The CSV of all runs layer by layer.
    figures
        Directory of the figures.
    explorer
        Directory of the explorer's data, ``explorer`` beside the page.
    results
        Folder of all results, as the page names it.
    """

    page: Path
    sweep: Path
    layers: Path
    figures: Path
    explorer: Path
    results: Path


def write_report(runs: Sequence[RunFiles], paths: ReportPaths, context: ReportContext) -> None:
    """Write the page, the tables of all runs, the figures as PNG and PDF, the explorer's data.

    Parameters
    ----------
    runs
        What to report, in this order.
    paths
        Where to write.
    context
        What was run.

    Raises
    ------
    UserError
        If a table, result file or recording is missing or refused.
    """
    paper = tables.PaperFigures(context.paper_reference)
    results = [read_run(files) for files in runs]
    n_figured = max(1, min(N_FIGURED, N_FIGURED_IN_ALL // len(results)))
    sections = [_section(run, paths, paper, n_figured) for run in results]
    rows = sweep(results)
    for line in sentences(rows, _main_pooling(saliencies(rows))):
        logger.info("%s", line)
    layer_rows = by_layer(results)
    for run in results:
        write_explorer(run, paths.explorer)
    for path, frame in ((paths.sweep, rows), (paths.layers, layer_rows)):
        with replacing(path) as partial:
            frame.to_csv(partial, index=False)
    keys = [files.key for files in runs]
    environment = Environment(
        loader=PackageLoader("s2txai.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    program = _template_text("explorer.js")
    page = environment.get_template("index.html.j2").render(
        comparison=_comparison(rows, keys, paths, paper),
        sensitivity=_sensitivity(results, keys, paths.figures),
        layers=_layers(layer_rows, keys, _main_pooling(saliencies(rows)), paths, paper),
        sections=sections,
        program=Markup(program),
        program_hash=_content_hash(program),
        facts=context,
        config=yaml.safe_dump(dict(context.config), sort_keys=False, allow_unicode=True),
        paper=paper.table(),
        models=_used(context.models, [files.model for files in runs]),
        experimental=[
            name
            for name, entry in context.models.items()
            if entry["family"] in FAMILIES and FAMILIES[entry["family"]].experimental
        ],
        sources={name: _sources(entry["source"]) for name, entry in context.models.items()},
        datasets=_used(context.datasets, [files.dataset for files in runs]),
    )
    with replacing(paths.page) as partial:
        partial.write_text(page, encoding="utf-8")


def _template_text(name: str) -> str:
    """Return a file that lies beside the templates, as it is."""
    return resources.files("s2txai.report").joinpath("templates", name).read_text("utf-8")


def _content_hash(text: str) -> str:
    """Return what the page's policy says of the one script that may run."""
    digest = hashlib.sha256(text.encode("utf-8")).digest()
    return f"sha256-{base64.b64encode(digest).decode('ascii')}"


def _used(entries: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: entries[name] for name in dict.fromkeys(names)}


def _sources(source: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return what a model's ``source`` says, as rows of label and value."""
    rows = []
    if "path" in source:
        rows.append(("path", str(source["path"])))
    if "hub" in source:
        rows.append(("Hugging Face hub", f"{source['hub']['repo']} @ {source['hub']['revision']}"))
    for package in source.get("python_packages", ()):
        pinned = f"{package['name']}=={package['version']}"
        rows.append(("Python package", f"{pinned} (sha256 {package['sha256']})"))
    for name, file in source.get("files", {}).items():
        rows.append((name, f"sha256 {file['sha256']}"))
    return rows


def _comparison(
    rows: pd.DataFrame, keys: Sequence[str], paths: ReportPaths, paper: tables.PaperFigures
) -> dict[str, Any]:
    """Return what the template shows of all runs together."""
    smx = _main_pooling(saliencies(rows))
    return {
        "figure": _picture(
            comparison(rows, smx, paper),
            paths.figures,
            "comparison",
            f"Correlation, context mixing and areas of deletion of {len(rows)} runs beside the "
            f"paper's, {paper.VERSION}; all values are in the tables below.",
            "Mean of all heads. Hollow marks are raw values; filled ones are corrected for the "
            "noise of the maps and may be compared between runs. The upright stroke is the "
            "ceiling: a raw correlation beyond it is chance. The first row and the bands are the "
            f"paper's ranges over its models and tasks ({paper.VERSION}); its share of "
            f"{paper.correlation('smh').text} for SMH is drawn as ρ, as it reads it. Every area of "
            "deletion must be compared with the random order of its own run.",
        ),
        "correlation": sweep_correlation_table(rows, keys, smx, paper, paths.sweep.as_posix()),
        "effects": sweep_effects_table(rows, keys, smx, paper, paths.sweep.as_posix()),
        "warnings": _sweep_warnings(rows),
    }


def _layers(
    rows: pd.DataFrame,
    keys: Sequence[str],
    smx: str,
    paths: ReportPaths,
    paper: tables.PaperFigures,
) -> dict[str, Any]:
    """Return what the template shows of all runs layer by layer."""
    return {
        "figure": _picture(
            profiles(rows, smx, paper),
            paths.figures,
            "layers",
            f"Correlation with {map_name(smx)} and with SMH, context mixing and area under the "
            f"deletion curve over the decoder layers of {len(keys)} runs, raw and corrected; the "
            "table below has the corrected values.",
            "Mean over the heads of each decoder layer, a marker a layer, from the first on the "
            "left to the last; models of different depth begin and end together. Set apart: the "
            "mean of all heads. Above raw values, below those corrected for the noise of the "
            "maps, which may be compared between runs. Right: deletion, which knows no correction, "
            "above for error rates, below for BLEU; by the mean of all heads, the last layer and "
            "those that the configuration lists under 'layers'. Bands: the paper's ranges "
            f"({paper.VERSION}) of raw values over its models and tasks; its share of "
            f"{paper.correlation('smh').text} for SMH is drawn as ρ, as it reads it.",
        ),
        "table": layers_table(rows, keys, smx, paper, paths.layers.as_posix()),
    }


def _sensitivity(
    runs: Sequence[RunResults], keys: Sequence[str], figures: Path
) -> dict[str, Any] | None:
    """Return what the template shows of the designs of the perturbation; None without any."""
    if not runs[0].files.has_designs:
        return None
    table = by_design(runs)
    return {
        "figure": _picture(
            sensitivity_figure(table),
            figures,
            "sensitivity",
            f"Correlation of attention with SMX in {table['design'].nunique()} designs of the "
            "perturbation, and of each design's map with the main one; all values are in the table "
            "below.",
            "A row a design of the perturbation: what differs from the main design is in its name. "
            "Left: the headline. Right: how much the design's map agrees with the main one; a map "
            "that measures the same has 1 after correction. Where the corrected headline moves "
            "from row to row, it depends on the design and not on the model alone.",
        ),
        "table": sensitivity_table(table, keys),
    }


def _main_pooling(names: Sequence[str]) -> str:
    """Return the input map that stands for all."""
    # Of the input maps, only the linear one has a correction; a run may leave it out.
    return "smx_avg2d" if "smx_avg2d" in names else names[0]


def _sweep_warnings(rows: pd.DataFrame) -> list[str]:
    n = len(rows)
    warnings = []
    failed = rows.loc[rows["n_failed_utterances"] > 0, "n_failed_utterances"]
    if len(failed):
        warnings.append(
            f"Incomplete: in {len(failed)} of {n} runs utterances failed, {failed.sum():,} in all. "
            "From the step that failed on they are in no number; each run lists its own."
        )
    few = int((rows["n_utterances"] < FEW_UTTERANCES).sum())
    if few:
        warnings.append(
            f"Illustrative only: {few} of {n} runs have fewer than {FEW_UTTERANCES} utterances. "
            "Differences between them describe these recordings, not the models."
        )
    reliability = rows[[f"reliability_{name}" for name in saliencies(rows)]]
    unreliable = int((~(reliability >= LEAST_RELIABILITY)).any(axis=1).sum())
    if unreliable:
        warnings.append(
            f"In {unreliable} of {n} runs the reliability of a saliency map is under "
            f"{LEAST_RELIABILITY} or not defined, so that their numbers, corrected ones included, "
            "are illustrative; more masks raise it."
        )
    return warnings


def _section(
    run: RunResults, paths: ReportPaths, paper: tables.PaperFigures, n_figured: int
) -> dict[str, Any]:
    """Return what the template shows of one run."""
    files, figures = run.files, paths.figures
    return {
        "key": files.key,
        "root": f"{(paths.results / files.key).as_posix()}/",
        "dataset": files.dataset,
        "model": files.model,
        "task": files.task,
        "language": parse_task(files.task).target,
        "model_sha256": run.model_sha256,
        "summary": _summary(run, paper),
        "verdict": list(run.verdict),
        "scores": tables.score_table(run),
        "transcripts": _transcripts(run),
        "correlation": tables.correlation_table(run, paper),
        "variants": tables.variants_table(run),
        "mixing": tables.mixing_table(run, paper),
        "best_heads": tables.best_heads_table(run),
        "classes": tables.classes_table(run),
        "deletion": tables.deletion_table(run, paper),
        "timestamps": tables.timestamps_table(run),
        "timestamps_figure": _timestamps_figure(run, figures),
        "sizes": tables.sizes_table(run),
        "failures": tables.failed_utterances_table(run),
        "parameters": tables.parameters_table(run),
        "heads_figure": _heads_figure(run, figures),
        "deletion_figure": _deletion_figure(run, figures),
        "padding_figure": _padding_figure(run, figures),
        "utterances": [_utterance(run, facts, figures) for facts in run.utterances[:n_figured]],
        "explorer": _explorer(run),
        "n_open": N_OPEN,
        "n_without_figure": max(0, len(run.utterances) - n_figured),
    }


def _summary(run: RunResults, paper: tables.PaperFigures) -> dict[str, Any]:
    """Return the question's answer in numbers, in words, and what limits it."""
    headline = run.headline()
    rows = headline[headline["attention"] == "ca_mean"].set_index("saliency")
    last = headline[(headline["attention"] == "ca_layer") & (headline["layer"] == run.n_layers - 1)]
    last_rho = last.set_index("saliency")["rho"]
    smx = _main_pooling(run.saliencies)
    score = run.tables["scores"].iloc[0]
    return {
        "n_utterances": len(run.utterances),
        "n_failed": run.n_failed,
        "n_tokens": sum(facts.n_rows for facts in run.utterances),
        "score_name": score_name(score["metric"]),
        "score": tables.number_text(score["score"], ".1f"),
        "answers": [
            {
                **_answer(name, rows.loc[name]),
                "last": _rounded(last_rho[name]),
                "paper": paper.correlation(name).text,
            }
            for name in (smx, "smh")
        ],
        "warnings": _warnings(run, rows),
    }


def _answer(saliency: str, row: pd.Series) -> dict[str, str]:
    """Return one correlation as the summary prints it; ``""`` stands for what is not defined."""
    shown = {
        name: _rounded(row[name]) for name in ("rho", "reliability", "ceiling", "rho_corrected")
    }
    for name, share in (("share", row["rho_corrected"]), ("variance", row["r2_corrected"])):
        shown[name] = _rounded(100 * share, ".0f")
    # More than a perfect map could reach: chance, in few utterances or masks.
    shown["beyond"] = "yes" if round(row["rho_corrected"], 2) > 1 else ""
    shown["opposed"] = "yes" if round(row["rho_corrected"], 2) < 0 else ""
    # As the verdict has it.
    shown["undecided"] = ""
    if not row["reliability"] >= LEAST_RELIABILITY:
        shown["undecided"] = f"a reliability under {LEAST_RELIABILITY}"
    elif row["n_utterances"] < FEWEST_UTTERANCES:
        shown["undecided"] = f"fewer than {FEWEST_UTTERANCES} utterances"
    return {"saliency": saliency, "name": map_name(saliency), **shown}


def _rounded(value: float, form: str = ".2f") -> str:
    return "" if math.isnan(value) else tables.number_text(value, form)


def _warnings(run: RunResults, rows: pd.DataFrame) -> list[str]:
    warnings = []
    n = len(run.utterances)
    if run.n_failed:
        n_all = len(
            {facts.id for facts in run.utterances}.union(run.tables["failures"]["utterance"])
        )
        warnings.append(
            f"Incomplete: {run.n_failed:,} of {n_all:,} utterances failed. From the step that "
            "failed on they are in no number, and the others may not be like them; they are listed "
            "below."
        )
    if n < FEW_UTTERANCES:
        utterances = "1 utterance" if n == 1 else f"{n} utterances"
        warnings.append(
            f"Illustrative only: {utterances}, fewer than {FEW_UTTERANCES}. The numbers describe "
            "these recordings; they do not characterise the model."
        )
    unmeasured = [map_name(str(name)) for name in rows.index[rows["reliability"].isna()]]
    if unmeasured:
        warnings.append(
            f"Reliability not defined: {', '.join(unmeasured)}. Half-maps do not vary, so nothing "
            "shows how much of these maps is sampling noise; their numbers are illustrative."
        )
    unreliable = rows[rows["reliability"] < LEAST_RELIABILITY]
    if len(unreliable):
        named = ", ".join(
            f"{map_name(str(name))} ({number_beside(value, LEAST_RELIABILITY, 2)})"
            for name, value in unreliable["reliability"].items()
        )
        warnings.append(
            f"Low reliability, under {LEAST_RELIABILITY}: {named}. More than half of what varies "
            "in these maps is sampling noise, so their numbers, corrected ones included, are "
            "illustrative; more masks raise it."
        )
    texts = run.tables["transcripts"]
    # Results of before do not say.
    cut = int(texts["at_limit"].sum()) if "at_limit" in texts else 0
    if cut:
        warnings.append(
            f"Cut off: {cut:,} of {len(texts):,} hypotheses reach the most tokens that the model "
            "can predict; their ends may be missing, or are repetitions."
        )
    undefined = int(rows["n_undefined_utterances"].max())
    if undefined:
        warnings.append(
            f"{undefined} of {n} utterances have no defined correlation with at least one map and "
            "are left out of its mean."
        )
    return warnings


def _transcripts(run: RunResults) -> list[dict[str, str]]:
    table = run.tables["transcripts"]
    metric = table.columns[-1]
    return [
        {
            "id": row["utterance"],
            "reference": row["reference"],
            "hypothesis": row["hypothesis"],
            "note": "cut off" if row.get("at_limit", False) else "",
            "score": tables.number_text(float(row[metric]), ".1f"),
            "score_name": score_name(metric, short=True),
        }
        for row in table.to_dict("records")
    ]


def _explorer(run: RunResults) -> dict[str, Any]:
    """Return the explorer's list: an utterance, the beginning of its text, where its data lie."""
    texts = run.tables["transcripts"].set_index("utterance")["hypothesis"]
    return {
        "entries": [
            {
                "id": facts.id,
                "text": str(texts.get(facts.id, "")),
                "source": source_of_data(run.files, facts.id),
            }
            for facts in run.utterances
        ],
        "has_filter": len(run.utterances) > N_UNFILTERED,
    }


def _picture(figure: Figure, figures: Path, files: str, alt: str, caption: str) -> Picture:
    png = draw.save_figure(figure, figures / files)
    return Picture(_data_uri("image/png", png), alt, caption, files)


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _heads_figure(run: RunResults, figures: Path) -> Picture:
    rows = run.headline()
    heads, layers, mean = {}, {}, {}
    L, H = run.padding.shape
    for saliency in run.saliencies:
        of_map = rows[rows["saliency"] == saliency].sort_values(["layer", "head"])
        kind = {name: part["rho"].to_numpy(float) for name, part in of_map.groupby("attention")}
        heads[saliency] = kind["ca_head"].reshape(L, H)
        layers[saliency] = kind["ca_layer"]
        mean[saliency] = float(kind["ca_mean"][0])
    best = "; ".join(_best_head(name, values) for name, values in heads.items())
    return _picture(
        draw.head_correlations(heads, layers, mean),
        figures,
        f"{run.files.key}/heads",
        f"Correlation of {L} layers by {H} heads with each saliency map. {best}.",
        "Correlation ρ of every single head with each saliency map; rows are decoder layers, the "
        "column set apart is the mean over the layer's heads. Red: the head looks where the model "
        "is sensitive; white: no relation; blue: it looks elsewhere. –: not defined.",
    )


def _timestamps_figure(run: RunResults, figures: Path) -> Picture | None:
    """Return the error of every head by evidence; None where no words were timed."""
    if "timestamps" not in run.tables:
        return None
    L, H = run.padding.shape
    heads, layers, best = {}, {}, []
    for evidence, rows in run.tables["timestamps"].groupby("evidence", sort=False):
        rows = rows.sort_values(["layer", "head"])
        errors = {name: 1000 * part["start_mae"].to_numpy() for name, part in rows.groupby("map")}
        title = tables.EVIDENCE[str(evidence)]
        heads[title], layers[title] = errors["ca_head"].reshape(L, H), errors["ca_layer"]
        if not np.isnan(heads[title]).all():
            layer, head = np.unravel_index(int(np.nanargmin(heads[title])), (L, H))
            least = tables.number_text(float(heads[title][layer, head]), ".0f")
            best.append(f"{title}: least {least} ms at layer {layer}, head {head}")
    return _picture(
        draw.head_errors(heads, layers),
        figures,
        f"{run.files.key}/timestamps",
        f"Error of word starts by {L} layers and {H} heads. {'; '.join(best)}.",
        "Mean absolute error of word starts by every single head; rows are decoder layers, the "
        "column set apart is the mean over the layer's heads. Dark: the head tells when words "
        "begin. The smallest of so many errors is partly luck: what a head chosen on other "
        "utterances reaches is the last row of each part of the table below.",
    )


def _best_head(saliency: str, values: np.ndarray) -> str:
    if np.isnan(values).all():
        return f"{map_name(saliency)}: not defined"
    layer, head = np.unravel_index(int(np.nanargmax(values)), values.shape)
    highest = tables.number_text(float(values[layer, head]), ".2f")
    return f"{map_name(saliency)}: highest {highest} at layer {layer}, head {head}"


def _deletion_figure(run: RunResults, figures: Path) -> Picture:
    metric = run.deletion_metric
    curves = run.tables["curves"]
    curves = curves[curves["metric"] == metric]
    areas = run.tables["auc"].set_index(["metric", "map"])["auc"][metric]
    falls = SCORES[metric].higher_is_better
    order = [str(name) for name in areas.sort_values(ascending=falls).index]
    listed = ", ".join(f"{map_name(name)} {areas[name]:.1f}" for name in order)
    faster = "falls" if falls else "rises"
    return _picture(
        draw.deletion_curves(curves, score_name(metric), order),
        figures,
        f"{run.files.key}/deletion",
        f"Curves of {score_name(metric)} against deleted cells; area under each: {listed}.",
        f"Cells of the spectrogram are deleted in the order of a map and the speech is decoded "
        f"again. The sooner a curve {faster}, the better its map knows what the model needs. The "
        f"dashed line deletes at random; a map near it knows nothing. The legend runs from the "
        f"most to the least faithful map.",
    )


def _padding_figure(run: RunResults, figures: Path) -> Picture:
    means = ", ".join(
        f"layer {layer} {100 * value:.0f} %" for layer, value in enumerate(run.padding.mean(axis=1))
    )
    return _picture(
        draw.padding_by_layer(run.padding),
        figures,
        f"{run.files.key}/padding",
        f"Mean share of cross-attention on padding: {means}.",
        "Share of cross-attention that falls on encoder steps behind the speech, mean over all "
        "tokens. A circle is a head, a bar the mean of its layer. This mass enters no "
        "correlation: maps are restricted to the steps that cover speech. A model without padding "
        "shows 0 %.",
    )


def _utterance(run: RunResults, facts: UtteranceFacts, figures: Path) -> dict[str, Any]:
    decoded = run.files.artifact("decode", facts.id)
    aggregated = run.files.artifact("aggregate", facts.id)
    smx = _main_pooling(run.saliencies)
    correlations = _utterance_correlations(run, facts.id, (smx, "smh"))
    titles = {"ca_mean": map_name("ca_mean")} | {
        name: f"{map_name(name)}   (ρ with CA: {value})" for name, value in correlations.items()
    }
    figure = draw.utterance_maps(
        decoded["features"],
        {title: aggregated[name] for name, title in titles.items()},
        row_labels(
            decoded["pieces"].tolist(), decoded["roles"].tolist(), decoded["word_index"].tolist()
        ),
        frame_shift=float(decoded["frame_shift"]),
        subsampling=int(decoded["subsampling"]),
        time_only=bool(decoded["time_only"]),
    )
    listed = ", ".join(f"ρ(CA, {map_name(name)}) = {value}" for name, value in correlations.items())
    picture = _picture(
        figure,
        figures,
        f"{run.files.key}/utterance_{facts.id}",
        f"Input of {facts.duration:.2f} s and maps of {facts.n_rows} tokens: "
        f"{', '.join(map_name(name) for name in titles)}. {listed}.",
        "One row a predicted token, from top to bottom; a leading + continues the word above. "
        "Bright: far above the row's own mean, which is what the headline compares. Where the "
        "bright spots of two maps agree, attention looks where the model is sensitive.",
    )
    return {
        "id": facts.id,
        "picture": picture,
        "correlations": listed,
        "audio": recording(run.files.audio[facts.id]),
        "duration": tables.number_text(facts.duration, ".1f"),
        "hypothesis": str(decoded["text"]),
    }


def _utterance_correlations(
    run: RunResults, utterance: str, saliencies: Sequence[str]
) -> dict[str, str]:
    rows = headline(run.tables["utterances"])
    rows = rows[(rows["utterance"] == utterance) & (rows["attention"] == "ca_mean")]
    rows = rows.set_index("saliency")["value"]
    return {name: _rounded(rows[name]) or "not defined" for name in saliencies}
