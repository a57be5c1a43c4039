"""Takes the planted models through the six steps and compares what comes out with the plan.

``python -m tests.validation`` prints the tables of ``docs/validation.md``.
"""

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from s2txai.analysis.correlations import CorrelationTables
from s2txai.datasets import Utterance, parse_task
from s2txai.saliency.design import MaskDesign
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.decode import decode_shard
from s2txai.steps.deletion import DeletionDesign, deletion_shard
from s2txai.steps.deletion_curves import deletion_tables
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.steps.transcripts import transcript_tables
from s2txai.storage.artifacts import Artifact, load_shard
from s2txai.storage.store import Store
from tests.planted import (
    IDLE,
    LOOKING,
    N_BINS,
    READING,
    TEXTS,
    PlantedModel,
    Saliency,
    Truth,
    energies,
    expected_rho,
    misplaced_attention,
    reading_attention,
    record,
)
from tests.toy import SUBSAMPLING, Handle

TASK = parse_task("asr-en")
POOLINGS = ("avg2d", "max2d")
READER = {"attention": "ca_head", "layer": READING, "head": LOOKING}
STRANGER = {"attention": "ca_head", "layer": IDLE, "head": LOOKING}
# Maps, and which map of the truth they are.
LINEAR = {"smh": "smh", "smx_avg2d": "smx"}

MIXINGS = (0.0, 0.25, 0.5, 0.75)
NOISY_MIXINGS = (0.0, 0.5)
CELLS = (1000,)  # asks for so many segments that every cell becomes one
COARSER = ((500,), (250,))
MANY_MASKS, LONG_SEEDS = 4096, range(4)
# Other seeds: a step never makes less of masks that the store has.
FEW_MASKS, SEEDS = 256, range(100, 116)
ORDERS = range(4)  # seeds of random orders, for each of the long seeds
DELETION_MAPS = ("smx_full", "ca_last", "random")
PERCENTS = [0, 5, 10, 15, *range(20, 101, 10)]

# The noise formulas are of first order and average over rows and recordings that are not quite
# equally noisy: 0.01 is what that may cost beside the noise of the runs themselves.
FIRST_ORDER = 0.01


@dataclass(frozen=True)
class Run:
    """What one seed gave: files of the steps, one a recording, and tables."""

    smx: list[Artifact]
    aggregated: list[Artifact]
    tables: CorrelationTables


class Study:
    """Takes a planted model through the six steps, with files between them."""

    def __init__(self, root: Path, model: PlantedModel):
        self._root, self._handle, self._store = root, Handle(model), Store(root / "store")
        self._runs: dict[tuple, Run] = {}
        self.mixing = model.mixing
        self.utterances = [
            Utterance(name, root / f"{name}.wav", "en", text) for name, text in TEXTS.items()
        ]
        for one in self.utterances:
            record(one.path, one.transcript)
        decode_shard(self._place("decode"), self.utterances, TASK, beam=1)
        attention_shard(self._place("attention"), self.read("decode"))

    def _place(self, step: str) -> Workplace:
        return Workplace(self._handle, self._store, self._root / step)

    def read(self, step: str) -> list[Artifact]:
        return load_shard(self._root / step, list(TEXTS), step)

    def word_error_rate(self) -> float:
        _, scores = transcript_tables(
            self.utterances, self.read("decode"), TASK, text_normalisation="whisper"
        )
        return float(scores.set_index("metric").loc["wer", "score"])

    def run(self, seed: int, n_masks: int, levels: tuple[int, ...] = CELLS) -> Run:
        """Return the saliency maps of a seed and their correlations with attention."""
        key = (seed, n_masks, levels)
        if key not in self._runs:
            decoded = self.read("decode")
            smx = MaskDesign(n_masks, n_segments=levels, seed=seed)
            smh = MaskDesign(n_masks, "zero", seed=seed)
            smx_shard(self._place("smx"), decoded, smx, batch_size=256)
            smh_shard(self._place("smh"), decoded, smh, batch_size=256)
            earlier = [decoded, *(self.read(step) for step in ("attention", "smx", "smh"))]
            aggregate_shard(self._root / "aggregate", *earlier, poolings=POOLINGS)
            aggregated = self.read("aggregate")
            tables = correlation_tables(aggregated, poolings=POOLINGS, rows="all")
            self._runs[key] = Run(self.read("smx"), aggregated, tables)
        return self._runs[key]

    def few(self) -> list[Run]:
        return [self.run(seed, FEW_MASKS) for seed in SEEDS]

    def many(self, levels: tuple[int, ...] = CELLS) -> list[Run]:
        return [self.run(seed, MANY_MASKS, levels) for seed in LONG_SEEDS]

    def areas(self, run: Run, seed: int) -> pd.Series:
        """Return the area under the WER for each map of a run."""
        deletion_shard(
            self._place("deletion"), self.read("decode"), run.smx, run.aggregated,
            DeletionDesign(beam=1, percents=PERCENTS, seed=seed), poolings=(), batch_size=32,
        )  # fmt: skip
        references = [one.transcript for one in self.utterances]
        table = deletion_tables(
            references, self.read("deletion"), TASK, text_normalisation="whisper"
        ).areas
        return table[table["metric"] == "wer"].set_index("map")["auc"]

    def truths(self, run: Run | None = None) -> list[Truth]:
        """Return what must be found, every cell a segment; or with the segments of a run."""
        segments = [one["segments"] for one in run.smx] if run else [None] * len(TEXTS)
        return [
            Truth(one["features"], self.mixing, ids)
            for one, ids in zip(self.read("decode"), segments, strict=True)
        ]


class Studies:
    """Every planted model, each with a folder of its own."""

    def __init__(self, root: Path):
        self.mixed = {mixing: _study(root / f"mixing-{mixing}", mixing) for mixing in MIXINGS}
        # No mixing, and not a head that attends to what is read.
        self.unrelated = _study(root / "unrelated", 0.0, attentive=False)
        self.plain = self.mixed[0.0]


def _study(folder: Path, mixing: float, attentive: bool = True) -> Study:
    folder.mkdir()
    return Study(folder, PlantedModel(mixing, attentive))


def headline(table: pd.DataFrame, **wanted) -> pd.Series:
    """Return the one row of a table for Pearson, rows standardised, and what is wanted."""
    for name, value in {"metric": "pearson", "normalise": "token", **wanted}.items():
        table = table[table[name] == value]
    assert len(table) == 1, wanted
    return table.iloc[0]


# --- Planted numbers -----------------------------------------------------------------------------


def planted_rho(truths: list[Truth], saliency: str, look=reading_attention, n_masks=np.inf):
    """Return the correlation with attention that the plan implies, mean over recordings."""
    return float(
        np.mean(
            [expected_rho(look(one.n_steps), getattr(one, saliency)(), n_masks) for one in truths]
        )
    )


def planted_reliability(truths: list[Truth], saliency: str, n_masks: int) -> float:
    def mean(rows: list[Saliency]) -> float:
        return float(np.mean([row.reliability(n_masks) for row in rows]))

    return float(np.mean([mean(getattr(truth, saliency)()) for truth in truths]))


@cache
def planted_delta(mixing: float) -> float:
    truths = [Truth(energies(text), mixing) for text in TEXTS.values()]
    return planted_rho(truths, "smh") - planted_rho(truths, "smx")


def recovered_mixing(delta: float) -> float:
    """Return the mixing whose planted delta this is."""
    plans = [step / 20 for step in range(19)]
    return float(np.interp(delta, [planted_delta(plan) for plan in plans], plans))


def planted_max2d(truths: list[Truth]) -> float:
    """Return the correlation of attention with the largest cell of each step, without noise."""
    values = []
    for truth in truths:
        steps = truth.smx_cells().reshape(-1, truth.n_steps, SUBSAMPLING * N_BINS).max(axis=2)
        pairs = zip(steps, reading_attention(truth.n_steps), strict=True)
        values.append(np.mean([np.corrcoef(a, b)[0, 1] for a, b in pairs]))
    return float(np.mean(values))


def mean_attention(n_steps: int) -> np.ndarray:
    """Return the sum of all heads but for those that are even, which no correlation sees."""
    return reading_attention(n_steps) + misplaced_attention(n_steps)


def planted_order(truth: Truth, name: str) -> np.ndarray:
    """Return the map [T, F] in whose order a deletion map must delete, ties at random."""
    if name == "random":
        return np.zeros(truth.energies.shape)
    if name == "ca_last":
        steps = reading_attention(truth.n_steps).sum(axis=0)
        return np.repeat(np.repeat(steps, SUBSAMPLING)[:, None], N_BINS, axis=1)
    cells = truth.smx_cells()
    low = cells.min(axis=(1, 2), keepdims=True)
    high = cells.max(axis=(1, 2), keepdims=True)
    # Rounded: what is equal by plan must be tied.
    return ((cells - low) / (high - low)).mean(axis=0).round(9)


def planted_area(truths: list[Truth], name: str) -> float:
    wer = [truth.deletion_curve(PERCENTS, planted_order(truth, name)) for truth in truths]
    n_words = [len(truth.evidence) for truth in truths]
    return float(np.trapezoid(np.average(wer, axis=0, weights=n_words), PERCENTS) / 100)


# --- Planted beside measured ---------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """One line of the tables in ``docs/validation.md``.

    Attributes
    ----------
    section, quantity, mixing
        Which number, of which model.
    planted, measured
        What follows from the plan, and the mean over runs of what the steps printed.
    error
        Three standard errors of that mean.
    """

    section: str
    quantity: str
    mixing: float
    planted: float
    measured: float
    error: float

    @property
    def tolerance(self) -> float:
        return self.error + FIRST_ORDER * self.scale

    @property
    def scale(self) -> int:
        return 100 if self.section == "deletion" else 1


def finding(section: str, quantity: str, mixing: float, planted: float, runs) -> Finding:
    """Average one number over runs."""
    values = np.asarray(runs, dtype=float)
    error = 3 * values.std(ddof=1) / len(values) ** 0.5
    return Finding(section, quantity, mixing, planted, float(values.mean()), float(error))


def between_runs(runs: list[Run], saliency: str) -> list[float]:
    """Return, for each run, the mean correlation of its maps with those of the other runs."""

    def agreement(run: Run, other: Run) -> float:
        return float(
            np.mean(
                [
                    # The last row is the end of the sentence, which depends on nothing.
                    np.mean([np.corrcoef(x, y)[0, 1] for x, y in zip(a[:-1], b[:-1], strict=True)])
                    for a, b in (
                        (one[saliency], two[saliency])
                        for one, two in zip(run.aggregated, other.aggregated, strict=True)
                    )
                ]
            )
        )

    return [float(np.mean([agreement(a, b) for b in runs if b is not a])) for a in runs]


def find_mixing(study: Study) -> Iterator[Finding]:
    """Many masks: corrected correlations, their difference, and the mixing that explains it."""
    truths, runs, section = study.truths(), study.many(), "mixing"
    planted = {name: planted_rho(truths, step) for name, step in LINEAR.items()}
    for name in LINEAR:
        rho = [headline(one.tables.summary, saliency=name, **READER) for one in runs]
        values = [one["rho_corrected"] for one in rho]
        yield finding(section, f"rho_corrected {name}", study.mixing, planted[name], values)
    values = [
        headline(one.tables.mixing, pooling="avg2d", **READER)["delta_corrected"] for one in runs
    ]
    difference = planted["smh"] - planted["smx_avg2d"]
    delta = finding(section, "delta_corrected", study.mixing, difference, values)
    yield delta
    low, mean, high = (recovered_mixing(delta.measured + sign * delta.error) for sign in (-1, 0, 1))
    yield Finding(section, "mixing", study.mixing, study.mixing, mean, (high - low) / 2)


def find_noise(study: Study) -> Iterator[Finding]:
    """Few masks: what noise does to the raw numbers, and what the steps say about it."""
    truths, runs, section = study.truths(), study.few(), "noise"
    for name, step in LINEAR.items():
        planted = planted_reliability(truths, step, FEW_MASKS)
        printed = [headline(one.tables.reliability, saliency=name)["reliability"] for one in runs]
        seen = between_runs(runs, name)
        yield finding(section, f"reliability {name}, printed", study.mixing, planted, printed)
        yield finding(section, f"reliability {name}, between runs", study.mixing, planted, seen)
        rho = [headline(one.tables.summary, saliency=name, **READER) for one in runs]
        for column, n_masks in (("rho", FEW_MASKS), ("rho_corrected", np.inf)):
            planted = planted_rho(truths, step, n_masks=n_masks)
            values = [one[column] for one in rho]
            yield finding(section, f"{column} {name}", study.mixing, planted, values)
    delta = [headline(one.tables.mixing, pooling="avg2d", **READER) for one in runs]
    for column, n_masks in (("delta", FEW_MASKS), ("delta_corrected", np.inf)):
        smh, smx = (planted_rho(truths, step, n_masks=n_masks) for step in ("smh", "smx"))
        values = [one[column] for one in delta]
        yield finding(section, column, study.mixing, smh - smx, values)


def find_attention(study: Study, unrelated: Study) -> Iterator[Finding]:
    """Heads that are read, heads that are not, their mean; then a model that no head explains."""
    truths, everything = study.truths(), {"attention": "ca_mean"}
    cases = (
        (study, "head that is read", READER, reading_attention),
        (study, "head that looks away", STRANGER, misplaced_attention),
        (study, "mean of all heads", everything, mean_attention),
        (unrelated, "mean, all look away", everything, misplaced_attention),
    )
    for one, label, which, look in cases:
        for name, step in LINEAR.items():
            rho = [headline(run.tables.summary, saliency=name, **which) for run in one.many()]
            values = [row["rho_corrected"] for row in rho]
            planted = planted_rho(truths, step, look)
            yield finding("attention", f"{label}, {name}", one.mixing, planted, values)


def find_deletion(study: Study) -> Iterator[Finding]:
    truths = study.truths()
    # Each order on a new map, so that runs are as independent as they can be.
    measured = [study.areas(run, seed) for run in study.many() for seed in ORDERS]
    for name in DELETION_MAPS:
        planted = planted_area(truths, name)
        yield finding("deletion", name, study.mixing, planted, [one[name] for one in measured])


def find_resolution(study: Study) -> Iterator[Finding]:
    """Segments larger than a step look like mixing."""
    for levels in (CELLS, *COARSER):
        runs = study.many(levels)
        truths = study.truths(runs[0])
        planted = planted_rho(truths, "smh") - planted_rho(truths, "smx")
        size = np.mean([one["segments"].size / (one["segments"].max() + 1) for one in runs[0].smx])
        values = [
            headline(one.tables.mixing, pooling="avg2d", **READER)["delta_corrected"]
            for one in runs
        ]
        label = f"delta_corrected, {size:.1f} cells in a segment"
        yield finding("resolution", label, study.mixing, planted, values)


def find_maximum(study: Study) -> Iterator[Finding]:
    """The largest of noisy cells is not the noisy largest cell."""
    planted = planted_max2d(study.truths())
    for n_masks, runs in ((FEW_MASKS, study.few()), (MANY_MASKS, study.many())):
        rho = [headline(one.tables.summary, saliency="smx_max2d", **READER) for one in runs]
        raw = [one["rho"] for one in rho]
        divided = [one["rho"] / one["ceiling"] for one in rho]
        yield finding("maximum", f"rho, {n_masks} masks", study.mixing, planted, raw)
        yield finding("maximum", f"rho / ceiling, {n_masks} masks", study.mixing, planted, divided)


def find_all(studies: Studies) -> list[Finding]:
    """Return every line of the tables."""
    found: list[Finding] = []
    for study in studies.mixed.values():
        found += find_mixing(study)
    for mixing in NOISY_MIXINGS:
        found += find_noise(studies.mixed[mixing])
    found += find_attention(studies.plain, studies.unrelated)
    for mixing in NOISY_MIXINGS:
        found += find_deletion(studies.mixed[mixing])
    return [*found, *find_resolution(studies.plain), *find_maximum(studies.mixed[0.5])]


def as_table(findings: list[Finding], section: str) -> str:
    """Return a section's table in Markdown."""
    lines = ["| quantity | mixing | planted | measured | ± |", "|---|---|---|---|---|"]
    for one in findings:
        if one.section == section:
            digits = 3 if one.scale == 1 else 1
            values = (one.planted, one.measured, one.error)
            # Adding 0 to the rounded number turns -0 into 0.
            cells = [f"{round(value, digits) + 0.0:.{digits}f}" for value in values]
            lines.append(f"| {one.quantity} | {one.mixing:g} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        findings = find_all(Studies(Path(folder)))
    for section in dict.fromkeys(one.section for one in findings):
        sys.stdout.write(f"\n## {section}\n\n{as_table(findings, section)}\n")


if __name__ == "__main__":
    main()
