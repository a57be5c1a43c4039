"""Tables of the page: numbers as text, and a reason wherever there is no number."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from s2txai.analysis.headline import headline, variants
from s2txai.analysis.scoring import SCORES
from s2txai.analysis.words import TOLERANCES
from s2txai.errors import UserError
from s2txai.report.names import attention_name, map_name, score_name, variant_name
from s2txai.report.runs import RunResults, saliency_steps
from s2txai.saliency.checks import N_MEASURING
from s2txai.saliency.methods import METHODS
from s2txai.saliency.pooling import is_linear
from s2txai.wording import number_beside

NOT_LINEAR = "no correction for this map: noise does not average out under a maximum"
NO_NOISE = "by definition: the map is made without random masks"
NO_SIGNAL = "the half-maps do not agree at all, so the ceiling is 0"
NO_WORD = "no word of the hypotheses is one of the alignments"
UNDEFINED = "no row varies in both maps, so there is nothing to correlate"
ONE_UTTERANCE = "needs two utterances"

EVIDENCE = {
    "hand": "Boundaries by hand",
    "reference": "Boundaries of a reference, possibly a corrected machine's",
    "machine": "Boundaries by a machine (forced alignment)",
}


@dataclass(frozen=True)
class Cell:
    """One cell.

    Attributes
    ----------
    text
        What it shows.
    note
        Letter of a note below the table.
    rowspan
        Rows it covers.
    number
        Whether it is set as a number.
    marked
        Whether it stands out.
    link
        Id of the place on the page that says more.
    """

    text: str
    note: str = ""
    rowspan: int = 1
    number: bool = True
    marked: bool = False
    link: str = ""


@dataclass
class Table:
    """A table with its notes.

    Attributes
    ----------
    caption
        What it shows and how to read it.
    header
        Names of the columns.
    over
        Names of groups of columns, each with its number of columns; empty where there are none.
    groups
        Rows, in groups that are set apart. The first cell of a row is its header.
    titles
        Of the groups; empty where they have none.
    notes
        Reasons by letter.
    source
        The file with all values.
    signature
        What the numbers depend on.
    """

    caption: str
    header: list[str]
    over: list[tuple[str, int]] = field(default_factory=list)
    groups: list[list[list[Cell]]] = field(default_factory=list)
    titles: list[str] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)
    source: str = ""
    signature: str = ""

    def number(
        self, value: float, form: str = ".3f", reason: str = UNDEFINED, rowspan: int = 1
    ) -> Cell:
        """Return a cell with a number, or a dash with the reason why there is none."""
        if not math.isnan(value):
            return Cell(number_text(value, form), rowspan=rowspan)
        return Cell("–", note=self.letter(reason), rowspan=rowspan)

    def interval(self, row: pd.Series, name: str, reason: str = ONE_UTTERANCE) -> Cell:
        """Return a cell with the confidence interval of a column of a table."""
        low, high = row[f"{name}_low"], row[f"{name}_high"]
        if math.isnan(low):
            return Cell("–", note=self.letter(reason if math.isnan(row[name]) else ONE_UTTERANCE))
        return Cell(f"{number_text(low, '.2f')} to {number_text(high, '.2f')}")

    def letter(self, reason: str) -> str:
        """Return the letter of a note, adding it where it is new."""
        for letter, note in self.notes.items():
            if note == reason:
                return letter
        letter = chr(ord("a") + len(self.notes))
        self.notes[letter] = reason
        return letter


def number_text(value: float, form: str = ".3f") -> str:
    """Write a number with a true minus sign, never before zero, and thin spaces in thousands."""
    return (
        format(value, f"z{form}" if form[0] != "+" else f"+z{form[1:]}")
        .replace("-", "−")
        .replace(",", "\u202f")
    )


def words(text: str, *, marked: bool = False, link: str = "") -> Cell:
    """Return a cell with text."""
    return Cell(text, number=False, marked=marked, link=link)


class PaperFigures:
    """The paper's own numbers, from ``config/paper_reference.csv``.

    Raises
    ------
    UserError
        If the file is missing.
    """

    VERSION = "arXiv v1"

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise UserError(f"The table {path} of the paper's figures does not exist: restore it.")
        self.rows = pd.read_csv(path, keep_default_na=False).to_dict("records")

    def cell(self, quantity: str, pooling: str = "", unit: str = "", rowspan: int = 1) -> Cell:
        """Return the figures of the first version for a quantity; a blank where it states none."""
        texts = [
            _range(row) + unit
            for row in self.rows
            if row["version"] == self.VERSION
            and row["quantity"] == quantity
            and row["pooling"] == pooling
        ]
        return Cell(", ".join(texts), rowspan=rowspan)

    def span(self, quantity: str, pooling: str = "") -> tuple[float, float] | None:
        """Return the lowest and highest value of the first version; None where it states none."""
        for row in self.rows:
            if (row["version"], row["quantity"], row["pooling"]) == (
                self.VERSION, quantity, pooling,
            ):  # fmt: skip
                return float(row["value_low"]), float(row["value_high"])
        return None

    def area(self, name: str) -> Cell:
        """Return the area under the deletion curve of word errors for a map."""
        return self.cell(*area_key(name))

    def correlation(self, saliency: str, rowspan: int = 1) -> Cell:
        """Return what stands beside the correlation with a saliency map."""
        if saliency == "smh":
            return self.cell("ca_smh_share_percent", unit="\u202f%", rowspan=rowspan)
        if saliency in METHODS:
            return Cell("", rowspan=rowspan)
        span = self.cell("ca_smx_rho").text
        best = self.cell("ca_smx_rho_best", saliency.removeprefix("smx_")).text
        return Cell(f"{span}, best {best}" if best else span, rowspan=rowspan)

    def table(self) -> Table:
        """Return everything the file states."""
        table = Table(
            caption="The paper's figures, as far as our source states them. Correlations have no "
            "unit, areas are on a scale of 0 to 100, quantities in percent say so.",
            header=["quantity", "value", "pooling", "model", "task", "version", "note"],
            source="config/paper_reference.csv",
        )
        columns = ("pooling", "model", "task", "version", "note")
        table.groups = [
            [
                [
                    words(row["quantity"]),
                    Cell(_range(row)),
                    *(words(str(row[column])) for column in columns),
                ]
                for row in self.rows
            ]
        ]
        return table


def counts_words(metric: str) -> bool:
    """Return whether a score is of word errors, as the paper's areas under deletion curves are.

    These grow with the faithfulness of the map, and areas of other scores are not their like.
    """
    return SCORES[metric].text_unit == "word"


def area_key(name: str) -> tuple[str, str]:
    """Return quantity and pooling of the paper's area for a map of deletion."""
    if name.startswith("smx_") and name != "smx_full":
        # The paper's plain number stands beside the mean.
        return "deletion_auc_smx", "" if name == "smx_avg2d" else name.removeprefix("smx_")
    return {"ca_mean": "deletion_auc_ca"}.get(name, f"deletion_auc_{name}"), ""


def _range(row: dict[str, object]) -> str:
    low, high = (f"{row[key]:g}" for key in ("value_low", "value_high"))
    return low if low == high else f"{low}–{high}"


def _layer(value: object) -> int | None:
    return None if pd.isna(value) else int(value)  # type: ignore[call-overload]


def merged_signatures(column: pd.Series) -> str:
    """Return the signatures of all rows as one, listing the values where they differ."""
    values: dict[str, list[str]] = {}
    for signature in column.unique():
        for fact in str(signature).split("|"):
            name, _, value = fact.partition(":")
            if value not in values.setdefault(name, []):
                values[name].append(value)
    return "|".join(f"{name}:{','.join(texts)}" for name, texts in values.items())


def _why_uncorrected(row: pd.Series, rho: str = "rho", undefined: str = UNDEFINED) -> str:
    if row["ceiling_kind"] not in ("exact", "deterministic"):
        return NOT_LINEAR
    return undefined if math.isnan(row[rho]) else NO_SIGNAL


def correlation_table(run: RunResults, paper: PaperFigures) -> Table:
    """Return the headline: all-head mean and each layer's mean against each saliency map."""
    means = run.headline()
    means = means[means["attention"].isin(["ca_mean", "ca_layer"])]
    table = Table(
        caption="Correlation ρ of cross-attention with saliency, mean over utterances (Pearson, "
        "each token's row standardised; no unit), with 95 % confidence intervals by resampling "
        "utterances. ρ corrected = ρ / ceiling; r² corrected is its square. "
        f"Paper: {paper.VERSION}, which reads ρ with SMH as a share in percent.",
        header=[
            "attention",
            "ρ",
            "95 %",
            "reliability",
            "ceiling",
            "ρ corrected",
            "95 %",
            "r² corrected",
            "rows",
            "constant rows",
            "paper",
        ],
        source="correlate/summary.csv",
        signature=merged_signatures(means["signature"]),
    )
    for saliency in run.saliencies:
        rows = means[means["saliency"] == saliency]
        table.titles.append(map_name(saliency))
        table.groups.append(_correlation_group(table, rows, saliency, run, paper))
    return table


def _correlation_group(
    table: Table, rows: pd.DataFrame, saliency: str, run: RunResults, paper: PaperFigures
) -> list[list[Cell]]:
    group: list[list[Cell]] = []
    n = len(rows)
    for _, row in rows.iterrows():
        why = _why_uncorrected(row)
        layer = _layer(row["layer"])
        name = attention_name(row["attention"], layer, run.n_layers)
        first = not group
        shared = [
            _reliability_cell(table, row, rowspan=n),
            table.number(row["ceiling"], rowspan=n),
        ]
        group.append(
            [
                words(name, marked=layer in (None, run.n_layers - 1)),
                table.number(row["rho"]),
                table.interval(row, "rho"),
                *(shared if first else []),
                table.number(row["rho_corrected"], reason=why),
                table.interval(row, "rho_corrected", why),
                table.number(row["r2_corrected"], reason=why),
                table.number(row["n_rows"], ",.0f"),
                table.number(row["n_constant_rows"], ",.0f"),
                *([paper.correlation(saliency, n)] if first else []),
            ]
        )
    return group


def _reliability_cell(table: Table, row: pd.Series, rowspan: int) -> Cell:
    cell = table.number(row["reliability"], rowspan=rowspan)
    if row["ceiling_kind"] == "deterministic":
        return Cell(cell.text, table.letter(NO_NOISE), rowspan=rowspan)
    if row["ceiling_kind"] != "approximate" or cell.note:
        return cell
    note = table.letter("approximate: the formula holds for maps that are means over masks")
    return Cell(f"≈\u202f{cell.text}", note=note, rowspan=rowspan)


def variants_table(run: RunResults) -> Table:
    """Return the other normalisations and metrics, for the all-head mean."""
    summary = run.tables["summary"]
    summary = summary[summary["attention"] == "ca_mean"]
    table = Table(
        caption="The same with other choices, mean of all heads: values standardised along each "
        "token's row, not at all, or along each encoder step's column; and other metrics, row by "
        "row. In brackets the ceiling; for other metrics it is the agreement of two half-maps, "
        "which a map without noise may exceed. No unit.",
        header=["saliency", *(variant_name(variant) for variant in variants())],
        source="correlate/summary.csv",
        signature=merged_signatures(summary["signature"]),
    )
    group = []
    for saliency in run.saliencies:
        cells = [words(map_name(saliency))]
        for variant in variants():
            row = summary[
                (summary["saliency"] == saliency)
                & (summary["metric"] == variant.metric)
                & (summary["normalise"] == variant.normalise)
            ].iloc[0]
            rho, ceiling = table.number(row["rho"]), table.number(row["ceiling"], ".2f")
            cells.append(Cell(f"{rho.text} ({ceiling.text})", rho.note or ceiling.note))
        group.append(cells)
    table.groups = [group]
    return table


def best_heads_table(run: RunResults) -> Table:
    """Return the head that agrees best with each saliency map, cross-validated."""
    heads = run.tables["best_heads"]
    table = Table(
        caption="The head that agrees best with each saliency map, chosen on all utterances, and "
        "what heads reach that are chosen on all others but the one they are judged on: the value "
        "to expect on other speech. ρ (Pearson, each token's row standardised), no unit. Layers "
        "and heads count from 0.",
        header=[
            "saliency",
            "layer",
            "head",
            "ρ",
            "ρ held out",
            "95 %",
            "ceiling",
            "corrected",
            "different heads chosen",
        ],
        source="correlate/best_heads.csv",
        signature=merged_signatures(heads["signature"]),
    )
    table.groups = [
        [
            [
                words(map_name(row["saliency"])),
                Cell("–" if pd.isna(row["layer"]) else str(row["layer"])),
                Cell("–" if pd.isna(row["head"]) else str(row["head"])),
                table.number(row["rho"]),
                table.number(row["rho_held_out"], reason=ONE_UTTERANCE),
                table.interval(row, "rho_held_out"),
                table.number(row["ceiling"], ".2f", reason=NO_SIGNAL),
                table.number(
                    row["rho_held_out_corrected"],
                    reason=_why_uncorrected(row, "rho_held_out", ONE_UTTERANCE),
                ),
                table.number(row["n_heads_chosen"], ".0f"),
            ]
            for _, row in heads.iterrows()
        ]
    ]
    return table


GROUPS: Mapping[str, Mapping[str, str]] = {
    "class": {
        "word": "first piece of a word",
        "continuation": "later piece of a word",
        "punctuation": "punctuation",
        "tag": "language tag or other special token",
        "end": "end of sentence",
    },
    "position": {"start": "first third", "middle": "second third", "end": "last third"},
}


def classes_table(run: RunResults) -> Table:
    """Return how well the mean of all heads explains tokens of each kind and place."""
    classes = run.tables["classes"]
    classes = classes[classes["attention"] == "ca_mean"]
    # The others have no corrected value, which is what tells kinds of tokens from their noise.
    shown = classes["saliency"].unique()
    saliencies = [name for name in shown if is_linear(name) and name not in METHODS]
    table = Table(
        caption="The mean of all heads against saliency, by kind of token and by its place in the "
        "hypothesis: mean Pearson correlation of the tokens' rows, its 95 % interval, and the mean "
        "over the ceiling that noise leaves on just these rows.",
        header=["tokens", "rows", *["ρ", "95 %", "corrected"] * len(saliencies)],
        over=[("", 2), *((map_name(name), 3) for name in saliencies)],
        titles=["Kind of token", "Place in the hypothesis"],
        source="correlate/classes.csv",
        signature=merged_signatures(classes["signature"]),
    )
    for by, names in GROUPS.items():
        group = []
        for name, description in names.items():
            of_group = classes[(classes["by"] == by) & (classes["group"] == name)]
            of_map = of_group.set_index("saliency")
            if of_map.empty:
                continue
            cells = [words(description), Cell(f"{of_map['n_rows'].max():,}")]
            for row in (of_map.loc[saliency] for saliency in saliencies):
                bounds = row.rename({"low": "mean_low", "high": "mean_high"})
                cells += [
                    table.number(row["mean"]),
                    table.interval(bounds, "mean"),
                    table.number(row["mean_corrected"], reason=_why_uncorrected(row, "mean")),
                ]
            group.append(cells)
        table.groups.append(group)
    return table


def mixing_table(run: RunResults, paper: PaperFigures) -> Table:
    """Return CA-SMH minus CA-SMX for the all-head mean and the last layer."""
    mixing = headline(run.tables["mixing"])
    last = (mixing["attention"] == "ca_layer") & (mixing["layer"] == run.n_layers - 1)
    mixing = mixing[(mixing["attention"] == "ca_mean") | last]
    table = Table(
        caption="Context mixing: how much better attention agrees with the saliency of encoder "
        "outputs (SMH) than of the input (SMX). Δ = ρ(CA, SMH) − ρ(CA, SMX), no unit; in percent "
        "of ρ(CA, SMH). 95 % confidence intervals by resampling utterances. SMH has fewer segments "
        "and hence less noise; the corrected columns take that out. Segments of SMX larger than an "
        "encoder step also look like mixing, "
        f"and nothing takes that out. Paper: {paper.VERSION}.",
        header=[
            "attention",
            "ρ(CA, SMX)",
            "ρ(CA, SMH)",
            "Δ",
            "95 %",
            "Δ (%)",
            "Δ corrected",
            "95 %",
            "Δ corrected (%)",
            "paper: Δ",
            "paper: Δ (%)",
        ],
        source="correlate/mixing.csv",
        signature=merged_signatures(pd.concat([mixing["signature_smx"], mixing["signature_smh"]])),
    )
    for pooling, rows in mixing.groupby("pooling", sort=False):
        group: list[list[Cell]] = []
        for _, row in rows.iterrows():
            name = attention_name(row["attention"], _layer(row["layer"]), run.n_layers)
            why = NO_SIGNAL if is_linear(f"smx_{pooling}") else NOT_LINEAR
            relative, corrected = (
                100 * row[key] for key in ("delta_relative", "delta_relative_corrected")
            )
            paper_cells = [
                paper.cell("ca_smh_minus_smx_rho", rowspan=len(rows)),
                paper.cell("ca_smh_minus_smx_percent", rowspan=len(rows)),
            ]
            group.append(
                [
                    words(name),
                    table.number(row["rho_smx"]),
                    table.number(row["rho_smh"]),
                    table.number(row["delta"], "+.3f"),
                    table.interval(row, "delta"),
                    table.number(relative, "+.1f"),
                    table.number(row["delta_corrected"], "+.3f", why),
                    table.interval(row, "delta_corrected", why),
                    table.number(corrected, "+.1f", why),
                    *(paper_cells if not group else []),
                ]
            )
        table.titles.append(f"SMH against {map_name(f'smx_{pooling}')}")
        table.groups.append(group)
    return table


def deletion_table(run: RunResults, paper: PaperFigures) -> Table:
    """Return the area under each deletion curve beside the paper's."""
    auc = run.tables["auc"]
    metrics = list(auc["metric"].unique())
    beside = any(map(counts_words, metrics))
    table = Table(
        caption="Area under the deletion curve, 0-100. For error rates a higher area means a more "
        "faithful map, for BLEU and COMET a lower one; compare with the random order.",
        header=[
            "order of deletion by",
            *(f"area of {score_name(metric, short=True)}" for metric in metrics),
            *([f"paper ({paper.VERSION})"] if beside else []),
        ],
        source="deletion/auc.csv",
        signature=merged_signatures(auc["signature"]),
    )
    group = []
    for name in auc["map"].unique():
        values = [auc[(auc["map"] == name) & (auc["metric"] == metric)] for metric in metrics]
        group.append(
            [
                words(map_name(name)),
                *(table.number(rows["auc"].iloc[0], ".1f") for rows in values),
                *([paper.area(name)] if beside else []),
            ]
        )
    table.groups = [group]
    return table


def timestamps_table(run: RunResults) -> Table | None:
    """Return the errors of word boundaries by evidence and map; None where no words were timed."""
    if "timestamps" not in run.tables:
        return None
    summary = run.tables["timestamps"]
    summary = summary[summary["map"] != "ca_head"]
    within = [f"{n} ms" for n in TOLERANCES]
    columns = ["error", "bias", *within]
    table = Table(
        caption="Boundaries of words read off each map by dynamic time warping, against those of "
        "the manifest's alignments, over the words that the model got right: mean absolute error "
        "and mean error (bias; negative: early) in ms, and share of words that are off by no more "
        "than so many ms.",
        header=["map", *columns, *columns, "words", "utterances"],
        over=[
            ("", 1),
            ("starts (ms)", 2),
            ("starts within (% of words)", len(within)),
            ("ends (ms)", 2),
            ("ends within (% of words)", len(within)),
            ("", 2),
        ],
        source="timestamps/summary.csv",
        signature=merged_signatures(summary["signature"]),
    )
    for evidence, rows in summary.groupby("evidence", sort=False):
        table.titles.append(EVIDENCE[str(evidence)])
        group = [_timestamps_row(table, row, run) for row in rows.to_dict("records")]
        if "ca_best_head" not in set(rows["map"]):
            why = table.letter("too few utterances: the head is chosen on the others")
            dashes = [Cell("–", note=why) for _ in table.header[1:]]
            group.append([words(map_name("ca_best_head")), *dashes])
        table.groups.append(group)
    return table


def _timestamps_row(table: Table, row: dict[str, Any], run: RunResults) -> list[Cell]:
    name = map_name(row["map"])
    if row["map"] == "ca_layer":
        name = f"CA, {attention_name('ca_layer', _layer(row['layer']), run.n_layers)}"
    errors = []
    for side in ("start", "end"):
        errors += [
            table.number(1000 * row[f"{side}_mae"], ".0f", NO_WORD),
            table.number(1000 * row[f"{side}_bias"], "+.0f", NO_WORD),
            *(table.number(100 * row[f"{side}_within_{n}"], ".0f", NO_WORD) for n in TOLERANCES),
        ]
    counts = [Cell(f"{row['n_matched']} of {row['n_words']}"), Cell(str(row["n_utterances"]))]
    return [words(name), *errors, *counts]


def score_table(run: RunResults) -> Table:
    """Return the corpus scores of the hypotheses."""
    scores = run.tables["scores"]
    table = Table(
        caption="Scores of the model's own hypotheses against the human references, over all "
        "utterances together.",
        header=["score", "value", "utterances"],
        source="decode/scores.csv",
        signature=merged_signatures(scores["signature"]),
    )
    table.groups = [
        [
            [
                words(score_name(row["metric"])),
                table.number(row["score"], ".1f"),
                table.number(row["n_utterances"], ",.0f"),
            ]
            for _, row in scores.iterrows()
        ]
    ]
    return table


def failed_utterances_table(run: RunResults) -> Table | None:
    """Return the utterances that a step could not process; None where there are none."""
    failures = run.tables["failures"]
    if failures.empty:
        return None
    return Table(
        caption="Utterances that a step could not do, and why. No later step has them, and they "
        "are in none of its means.",
        header=["utterance", "step", "what was wrong", "recording"],
        groups=[
            [
                [words(row[name]) for name in ("utterance", "step", "message", "audio")]
                for row in failures.to_dict("records")
            ]
        ],
        source="failures.tsv",
    )


def sizes_table(run: RunResults) -> Table:
    """Return the size of each utterance, the masks behind its maps and their reliability."""
    masked = [step for step in saliency_steps() if step in run.utterances[0].masks]
    pooled = ["SMX avg2d" if step == "smx" else map_name(step) for step in masked]
    table = Table(
        caption="Sizes, the number of masks behind the saliency maps of each utterance, and the "
        f"reliability of its maps at encoder steps ({', '.join(pooled)}).",
        header=[
            "utterance",
            "speech (s)",
            "frames",
            "encoder steps",
            "tokens",
            *["masks", "reliability"] * len(masked),
        ],
        over=[("", 5), *((map_name(step), 2) for step in masked)],
        source="correlate/masks.csv",
    )
    table.groups = [
        [
            [
                words(facts.id),
                table.number(facts.duration, ".2f"),
                *(
                    table.number(count, ",.0f")
                    for count in (
                        facts.n_frames,
                        facts.n_steps,
                        facts.n_rows,
                    )
                ),
                *(cell for step in masked for cell in _masks(table, facts.masks[step])),
            ]
            for facts in run.utterances
        ]
    ]
    return table


def _masks(table: Table, masks: Mapping[str, Any]) -> list[Cell]:
    reached = masks["reliability"]
    cell = table.number(math.nan if reached is None else reached, ".2f")
    if masks["converged"] is False:
        target = masks["target_reliability"]
        missed = f"the target of {target:g} was not reached: raise max_masks"
        text = cell.text if reached is None else number_beside(reached, target, 2)
        cell = Cell(text, table.letter(missed))
    return [_count(table, masks), cell]


def _count(table: Table, masks: Mapping[str, Any]) -> Cell:
    """Return the number of masks, with a note where not all were scored exactly."""
    count = table.number(masks["n_masks"], ",.0f")
    if masks.get("encoder") != "cheap":
        return count
    if masks["n_scored_both_ways"] <= N_MEASURING:
        corrected = "too few for any check by the exact one, so the mean is not corrected"
    else:
        corrected = f"{100 * masks['check_share']:g} % also by the exact one to correct the mean"
        if not masks["unbiased"]:
            corrected += ", too few for a correction of each segment"
    return Cell(count.text, table.letter(f"scored by a cheaper encoder, {corrected}"))


def parameters_table(run: RunResults) -> Table:
    """Return the parameters of each step, from its result files."""
    table = Table(
        caption="Parameters that change the numbers, as the result files state them.",
        header=["step", "parameters"],
    )
    table.groups = [
        [
            [words(step), words(_parameters(parameters))]
            for step, parameters in run.parameters.items()
        ]
    ]
    return table


def _parameters(parameters: object) -> str:
    if not isinstance(parameters, dict) or not parameters:
        return "none"
    return "; ".join(f"{name} = {_value(value)}" for name, value in parameters.items())


def _value(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
