"""What a GPU does: one table in at most eight minutes, without Snakemake and without a network.

``python -m benchmarks.gpu --weights resources/models --out gpu.md`` prints versions and the card,
then row by row: a forward pass and the loop of Whisper tiny.en, sums of masks beside those of a
CPU, scores in float16 beside float32, fast SMX, SMH, what happens when memory runs out; the same of
Whisper base; the loop of a Conformer as large as FAMA small with random weights; and what compiling
the encoders changes. Each row is printed, and appended to ``--out``, as soon as it is measured, so
a run that is killed leaves its table. A part that does not fit into what is left of
``--seconds-budget`` is named and left out; one that fails is a row, and the others go on.

``--weights`` holds the folders ``whisper-tiny.en`` and ``whisper-base``. ``--dry`` runs every part
on a CPU with tiny random models and no target of a GPU: it shows that the command works.

Rates are masks per second, medians of pairs in turns (:func:`benchmarks.spes.throughput`); memory
is the most that torch allocated above the weights. The exit status is 1 if a part failed, or sums
differed by more than the tolerance.
"""

import argparse
import gc
import logging
import math
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import numpy as np
import psutil
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.clip import CLIP, hear
from benchmarks.fast import LEVELS as FAST_LEVELS
from benchmarks.fast import fast_times
from benchmarks.random_conformer import save_fama_small
from benchmarks.spes import (
    LEVELS,
    REPEATS,
    Case,
    Throughput,
    hardware,
    input_throughput,
    masks_of,
    random_conformer,
    synchronise,
    throughput,
)
from s2txai.models.base import Model
from s2txai.models.loading import load_model, resolve_precision
from s2txai.models.process import configure_process
from s2txai.saliency.checks import is_fast
from s2txai.saliency.design import STATE_VALUE, MaskDesign
from s2txai.saliency.engine import BatchSize, Masks, extend
from s2txai.saliency.heard import Heard
from s2txai.saliency.occluded_values import OCCLUDED_STATES
from s2txai.saliency.smh import state_masks, state_score
from s2txai.saliency.smx import INPUT, PerturbedInput, input_masks, smx
from s2txai.saliency.statistics import Statistics
from tests.tiny_conformer import save_conformer
from tests.tiny_whisper import save_tiny_whisper

TINY, BASE, FAMA = "Whisper tiny.en", "Whisper base", "FAMA small shape"
FOLDERS = {TINY: "whisper-tiny.en", BASE: "whisper-base"}
TORCH_ATTENTION = [
    SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH,
]  # fmt: skip
"""Attention without cuDNN's, which torch 2.11 prefers on an H100."""

TOLERANCE = {"float32": 1e-3, "float16": 1e-2}
"""Of sums on a GPU: the largest difference from a CPU's of a segment's mean score, as its share."""


@dataclass(frozen=True)
class Target:
    """A bound on what is measured: at least, or at most, a figure."""

    name: str
    bound: float
    at_least: bool = True
    is_speed: bool = True

    def verdict(self, figure: float) -> str:
        holds = figure >= self.bound if self.at_least else figure <= self.bound
        return "met" if holds else "missed"  # NaN misses


LOOP = Target("loop at least 0.95 of the bare pass", 0.95)
FAMA_EAGER = Target(f"{FAMA}: at least 1,800 masks/s eager", 1800)
FAMA_COMPILED = Target(f"{FAMA}: at least 2,400 masks/s compiled", 2400)
FAMA_AIM = Target(f"{FAMA}: aim at 2,800 masks/s compiled", 2800)
BASE_FAST = Target(f"{BASE}, 3 s, fast: at least 4,000 masks/s", 4000)
SUMS = {
    precision: Target(
        f"sums of a GPU in {precision} within {100 * tolerance:g} % of a CPU's",
        tolerance,
        at_least=False,
        is_speed=False,
    )
    for precision, tolerance in TOLERANCE.items()
}
HALVING = Target(
    "sums after a halved batch within the same tolerance", 1.0, at_least=False, is_speed=False
)
TARGETS = (LOOP, FAMA_EAGER, FAMA_COMPILED, FAMA_AIM, BASE_FAST, *SUMS.values(), HALVING)


@dataclass(frozen=True)
class Sizes:
    """How much is run.

    Attributes
    ----------
    rounds
        Batches of each level in one repeat of a loop.
    repeats
        Pairs of loop and forward pass.
    n_scores
        Masks scored in float16 and in float32.
    n_compared
        Masks whose sums are compared with those of a CPU.
    n_fast, fast_batch, check
        Masks of fast SMX and of its batches, and the share that is checked.
    too_large
        Masks of a batch that is to exceed memory.
    seconds
        Of the clip that is transcribed; None: all of it.
    """

    rounds: int = 2
    repeats: int = REPEATS
    n_scores: int = 64
    n_compared: int = 256
    n_fast: int = 4096
    fast_batch: int = 256
    check: float | str = "auto"
    too_large: int = 256
    seconds: float | None = None


DRY = Sizes(
    rounds=1, repeats=1, n_scores=8, n_compared=32, n_fast=64, fast_batch=8, check=0.5,
    too_large=8, seconds=0.2,
)  # fmt: skip


class MissingWeightsError(Exception):
    """A folder of weights that is not there."""


class Table:
    """Rows that are printed, and appended to a file, as soon as they are measured.

    Parameters
    ----------
    out
        Where to append them; None: only printed.
    judges_speed
        Whether targets of speed are compared with what is measured.
    started
        When the budget began, in seconds since the epoch; None: now.
    """

    def __init__(
        self, out: Path | None, *, judges_speed: bool = True, started: float | None = None
    ) -> None:
        self._out, self._judges_speed = out, judges_speed
        self._started = time.time() if started is None else started
        self._figures: dict[Target, list[float]] = {}
        self._write("")  # between the tables of two runs in one file
        self._write("| at (s) | what | measured | targets |")
        self._write("|---|---|---|---|")

    @property
    def seconds(self) -> float:
        """Since the table began."""
        return time.time() - self._started

    def row(self, what: str, measured: str, figures: dict[Target, float] | None = None) -> None:
        """Add a row; ``figures`` are what its targets are compared with."""
        judged = {
            target: figure
            for target, figure in (figures or {}).items()
            if self._judges_speed or not target.is_speed
        }
        for target, figure in judged.items():
            self._figures.setdefault(target, []).append(figure)
        verdicts = "; ".join(
            f"{target.name}: {target.verdict(figure)}" for target, figure in judged.items()
        )
        self._write(f"| {self.seconds:.0f} | {what} | {measured} | {verdicts} |")

    def summary(self) -> bool:
        """Add a row for each target; return whether all that are not of speed were met."""
        all_hold = True
        for target in TARGETS:
            figures = self._figures.get(target, [])
            verdicts = [target.verdict(figure) for figure in figures]
            if not figures:
                text = "not measured"
            elif "missed" in verdicts:
                text = f"missed in {verdicts.count('missed')} of {len(verdicts)}"
                all_hold &= target.is_speed
            else:
                text = f"met in {len(verdicts)} of {len(verdicts)}"
            self._write(f"| {self.seconds:.0f} | target | {target.name} | {text} |")
        return all_hold

    def _write(self, line: str) -> None:
        print(line, flush=True)
        if self._out is not None:
            with self._out.open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")


@dataclass
class Bench:
    """What the parts share.

    Attributes
    ----------
    device
        Of the models.
    weights
        Holds a folder for each Whisper.
    scratch
        Gets the weights of the Conformer.
    table
        Gets the rows.
    sizes
        How much is run.
    is_dry
        Whether models are tiny and memory only seems to run out.
    """

    device: str
    weights: Path
    scratch: Path
    table: Table
    sizes: Sizes
    is_dry: bool
    _heard: dict[str, Heard] = field(default_factory=dict)

    @property
    def precision(self) -> str:
        """Of the loops: float16 on a GPU."""
        return resolve_precision("auto", self.device)

    def case(
        self,
        name: str,
        *,
        device: str | None = None,
        precision: str | None = None,
        compile: bool = False,
    ) -> Case:
        """Return a model, and the same utterance and hypothesis whatever its device and precision.

        Raises
        ------
        MissingWeightsError
            If the model's folder is not there.
        """
        compute = {
            "device": device or self.device,
            "precision": precision or self.precision,
            "compile": compile,
        }
        if name == FAMA:
            folder = self.scratch / "conformer"
            if not folder.is_dir():
                (save_conformer if self.is_dry else save_fama_small)(folder)
            sizes = {"n_frames": 60, "n_rows": 5, "symbols": 40} if self.is_dry else {}
            return replace(random_conformer(folder, **sizes, **compute), name=name)
        folder = self.weights / FOLDERS[name]
        if not folder.is_dir():
            raise MissingWeightsError(f"no weights: {folder} is missing")
        model = load_model(folder, "whisper", **compute)
        if name not in self._heard:
            self._heard[name] = hear(model, seconds=self.sizes.seconds)
        return Case(name, model, self._heard[name])


def versions(bench: Bench) -> None:
    """Name the software and the card."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "numpy"))
    bench.table.row("software", f"Python {platform.python_version()}, {packages}")
    device = torch.device(bench.device)
    memory = ""
    if device.type == "cuda":
        facts = torch.cuda.get_device_properties(device)
        memory = (
            f", {facts.total_memory / 2**30:.0f} GiB, compute capability {facts.major}."
            f"{facts.minor}, CUDA {torch.version.cuda}, cuDNN {torch.backends.cudnn.version()}"
        )
    bench.table.row("card", f"{hardware(device)}{memory}")
    if bench.is_dry:
        bench.table.row("dry run", "tiny models with random weights: the rates say nothing")


def first_pass(bench: Bench, name: str) -> None:
    """Time the first forward passes of one input."""
    case = bench.case(name)
    model, heard = case.model, case.heard
    inputs = heard.inputs(model.device)
    watches = [_Stopwatch(model.device) for _ in range(4)]
    for watch in watches:
        with watch:
            heard.logits(model, inputs)
    least = min(watch.seconds for watch in watches[1:])
    bench.table.row(
        f"{case.name}: one forward pass, {bench.precision}",
        f"{1000 * least:.1f} ms; the first {watches[0]}; {len(heard.features)} frames, "
        f"{len(heard.tokens)} rows: {model.text(heard.tokens)}",
    )


def loop(bench: Bench, name: str, *, compile: bool = False, targets: Sequence[Target] = ()) -> None:
    """Time masks of the input, all of them exact."""
    _loop(bench, name, compile=compile, targets=targets)


def loop_without_cudnn(bench: Bench, name: str) -> None:
    """Time the same with attention by torch's own kernels, not by cuDNN's."""
    with sdpa_kernel(TORCH_ATTENTION):
        _loop(bench, name, how=", attention without cuDNN")


def _loop(
    bench: Bench,
    name: str,
    *,
    compile: bool = False,
    targets: Sequence[Target] = (),
    how: str = "",
) -> None:
    case = bench.case(name, compile=compile)
    inputs = case.heard.inputs(case.model.device)
    with _Stopwatch(case.model.device) as first:
        for n in (1, 2):  # torch compiles for these, and for all that are larger than 1
            case.heard.logits(case.model, inputs.expand(n, -1, -1).contiguous())
    with _Peak(case.model.device) as peak:
        measured = input_throughput(case, rounds=bench.sizes.rounds, repeats=bench.sizes.repeats)
    bench.table.row(
        f"{case.name}: SMX, exact, {_how(bench, compile)}{how}",
        f"{_text(measured)}; {peak}; first two passes {first}",
        {LOOP: measured.ratio} | dict.fromkeys(targets, measured.loop),
    )


def fast(bench: Bench, name: str, *, compile: bool = False, targets: Sequence[Target] = ()) -> None:
    """Time fast SMX."""
    case, sizes = bench.case(name, compile=compile), bench.sizes
    model, heard = case.model, case.heard
    design = MaskDesign(sizes.n_fast, n_segments=FAST_LEVELS, check=sizes.check)
    # One round first, which pays for what later ones reuse.
    few = replace(design, n_masks=len(FAST_LEVELS) * sizes.fast_batch, encoder="auto")
    with _Stopwatch(model.device) as first:
        smx(model, heard, few, batch_size=sizes.fast_batch)
    with _Peak(model.device) as peak:
        measured = fast_times(model, heard, design, sizes.fast_batch)
    rate, of_20_000 = 1 / measured.mask, 20_000 / (measured.pilot + 20_000 * measured.mask)
    checked = f"{100 * measured.share:g} % checked" if is_fast(measured.statistics) else "all exact"
    bench.table.row(
        f"{case.name}: SMX, fast, {_how(bench, compile)}",
        f"loop {rate:,.0f} masks/s, {checked}, batches of {sizes.fast_batch}; pilot "
        f"{measured.pilot:.2f} s, hence {of_20_000:,.0f} masks/s for 20,000 masks; exact pass "
        f"{1 / measured.exact:,.0f} masks/s; {peak}; first round {first}",
        dict.fromkeys(targets, rate if is_fast(measured.statistics) else math.nan),
    )


def state_loop(bench: Bench, name: str) -> None:
    """Time masks of encoder states (SMH)."""
    case = bench.case(name)
    model, heard = case.model, case.heard
    r = model.facts.subsampling
    states = heard.encode(model)
    value = OCCLUDED_STATES[STATE_VALUE](states[0, : heard.n_steps(r)])

    def layout(n: int) -> Masks:
        design = MaskDesign(n, STATE_VALUE)
        return state_masks(heard, design, utterance="benchmark", subsampling=r, time_only=False)

    def forward(n: int) -> torch.Tensor:
        occluded = torch.ones((n, heard.n_steps(r)), dtype=torch.bool, device=model.device)
        return model.decode_occluded(states, occluded, heard.prompt, heard.tokens, value)

    with _Peak(model.device) as peak:
        measured = throughput(
            state_score(model, heard, STATE_VALUE), layout, forward,
            n_rows=len(heard.tokens), device=model.device, batches=3 * bench.sizes.rounds,
            repeats=bench.sizes.repeats,
        )  # fmt: skip
    bench.table.row(f"{case.name}: SMH, {bench.precision}", f"{_text(measured)}; {peak}")


def precisions(bench: Bench, name: str) -> None:
    """Compare scores in float16 with those in float32."""
    single, half = (
        _scores(bench.case(name, precision=precision), bench.sizes.n_scores)
        for precision in ("float32", "float16")
    )
    of_rows = np.abs(half - single).mean(axis=0) / single.mean(axis=0)  # (I,)
    overall = np.abs(half - single).mean() / single.mean()
    bench.table.row(
        f"{name}: KL in float16 against float32, {len(single)} masks",
        f"mean difference {100 * overall:.2f} % of the mean score; of a row's, "
        f"{100 * of_rows.mean():.2f} % on average and {100 * of_rows.max():.2f} % at worst",
    )


def _scores(case: Case, n: int) -> np.ndarray:
    """Return scores [N, I] of the first masks of a level."""
    masks = masks_of(case.heard, n * len(LEVELS))
    score = PerturbedInput(case.model, case.heard, masks, "bin mean").score
    occluded = torch.from_numpy(masks.plan.draw(0, 0, n))
    batches = occluded.to(case.model.device).split(16)
    return torch.cat([score(batch, 0) for batch in batches]).double().cpu().numpy()


def against_a_cpu(bench: Bench, name: str) -> None:
    """Compare the sums of the same masks with those of a CPU."""
    on_cpu = bench.case(name, device="cpu", precision="float32")
    design = MaskDesign(bench.sizes.n_compared, n_segments=FAST_LEVELS)
    started = time.perf_counter()
    expected = smx(on_cpu.model, on_cpu.heard, design)
    seconds = time.perf_counter() - started
    for precision in ("float32", bench.precision) if bench.device != "cpu" else ("float32",):
        case = bench.case(name, precision=precision)
        by_segment, by_cell = deviations(smx(case.model, case.heard, design), expected)
        bench.table.row(
            f"{case.name}: sums of {design.n_masks} masks in {precision} against a CPU's "
            f"({seconds:.0f} s)",
            f"the same masks; mean score of a segment differs by at most {100 * by_segment:.4f} %, "
            f"of a segment and row by at most {100 * by_cell:.4f} % of the row's mean",
            {} if bench.is_dry else {SUMS[precision]: by_segment},
        )


def deviations(statistics: Statistics, expected: Statistics) -> tuple[float, float]:
    """Return the largest differences of mean scores; infinite where the masks are not the same.

    Returns
    -------
    by_segment
        Of a segment's mean over masks and rows, as a share of the expected one.
    by_cell
        Of a segment and a row, as a share of the row's mean over segments.
    """
    same_masks = np.array_equal(statistics.occluded_count, expected.occluded_count)
    if not same_masks or not np.array_equal(statistics.n_masks, expected.n_masks):
        return math.inf, math.inf
    means, expected_means = (
        (one.occluded_sum.sum(axis=0) / np.maximum(one.occluded_count.sum(axis=0), 1)[:, None])
        for one in (statistics, expected)
    )  # (S, I)
    segments = np.abs(means.mean(axis=1) / expected_means.mean(axis=1) - 1)
    cells = np.abs(means - expected_means) / expected_means.mean(axis=0)
    return float(segments.max()), float(cells.max())


def out_of_memory(bench: Bench, name: str) -> None:
    """Let memory run out under a batch, and compare the sums with those of a batch that fits."""
    case, batch = bench.case(name), bench.sizes.too_large
    model, heard = case.model, case.heard
    design = MaskDesign(batch * len(FAST_LEVELS), n_segments=FAST_LEVELS)
    masks = input_masks(
        heard, design, utterance="benchmark", subsampling=model.facts.subsampling, time_only=False
    )
    run = partial(extend, INPUT, model, heard, design, masks, None)
    with _Peak(model.device) as peak:
        expected = run(batch=BatchSize(batch))
    scarce = _few_inputs(model, batch // 2) if bench.is_dry else _ballast(model, peak.n_bytes)
    size = BatchSize(batch)
    with scarce as how:
        statistics = run(batch=size)
    by_segment, by_cell = deviations(statistics, expected)
    halved = size.size is not None and size.size < batch
    bench.table.row(
        f"{case.name}: {how}",
        f"batches of {batch} became batches of {size.size}; {statistics.total_masks} of "
        f"{design.n_masks} masks; mean score of a segment differs by at most "
        f"{100 * by_segment:.4f} %, of a segment and row by at most {100 * by_cell:.4f} %",
        {HALVING: by_segment / TOLERANCE[bench.precision] if halved else math.inf},
    )


@contextmanager
def _ballast(model: Model, n_bytes: int) -> Iterator[str]:
    """Fill the memory of a GPU but for 60 % of what a batch needs."""
    gc.collect()
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(model.device)
    left = round(0.6 * n_bytes)
    ballast = torch.empty(max(0, free - left), dtype=torch.uint8, device=model.device)
    try:
        yield f"out of memory, {left / 2**30:.1f} GiB free beside a ballast"
    finally:
        del ballast
        torch.cuda.empty_cache()


@contextmanager
def _few_inputs(model: Model, most: int) -> Iterator[str]:
    """Let a model raise what torch raises when memory runs out, for more than ``most`` inputs."""
    encode = model.encode

    def limited(features: torch.Tensor, padding_value: float) -> torch.Tensor:
        if len(features) > most:
            raise torch.OutOfMemoryError(f"simulated: {len(features)} inputs")
        return encode(features, padding_value)

    model.encode = limited  # type: ignore[method-assign]
    try:
        yield f"simulated out of memory above {most} inputs"
    finally:
        del model.encode  # uncovers the class's own


class _Peak:
    """The most memory that torch allocates on a GPU above what it had; on a CPU the process's."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.n_bytes = 0
        self._before = 0

    def __enter__(self) -> "_Peak":
        if self._device.type == "cuda":
            self._before = torch.cuda.memory_allocated(self._device)
            torch.cuda.reset_peak_memory_stats(self._device)
        return self

    def __exit__(self, *_: object) -> None:
        if self._device.type == "cuda":
            self.n_bytes = torch.cuda.max_memory_allocated(self._device) - self._before
        else:
            self.n_bytes = psutil.Process().memory_info().rss

    def __str__(self) -> str:
        return f"{self.n_bytes / 2**30:.2f} GiB"


class _Stopwatch:
    """The seconds that work takes until a GPU has finished it."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds = 0.0

    def __enter__(self) -> "_Stopwatch":
        synchronise(self._device)
        self._started = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronise(self._device)
        self.seconds = time.perf_counter() - self._started

    def __str__(self) -> str:
        return f"{self.seconds:.2f} s"


def _text(measured: Throughput) -> str:
    return (
        f"loop {measured.loop:,.0f} masks/s, bare pass {measured.forward:,.0f}, loop/bare "
        f"{measured.ratio:.3f}, auto batches of {measured.batch}"
    )


def _how(bench: Bench, compile: bool) -> str:
    return f"{bench.precision}, {'compiled' if compile else 'eager'}"


@dataclass(frozen=True)
class Part:
    """Some rows of the table.

    Attributes
    ----------
    name
        For a row in their place.
    seconds
        That it may take on an H100; it is not begun with less.
    run
        Adds the rows.
    has_target
        Whether it goes before parts without one when time is short.
    """

    name: str
    seconds: float
    run: Callable[[Bench], None]
    has_target: bool = False


PARTS = (
    Part("versions", 1, versions),
    Part(f"{TINY}: one forward pass", 10, partial(first_pass, name=TINY)),
    Part(f"{TINY}: SMX, exact", 15, partial(loop, name=TINY), has_target=True),
    Part(f"{TINY}: against a CPU", 40, partial(against_a_cpu, name=TINY), has_target=True),
    Part(f"{TINY}: float16", 8, partial(precisions, name=TINY)),
    Part(f"{TINY}: SMX, fast", 12, partial(fast, name=TINY)),
    Part(f"{TINY}: SMH", 8, partial(state_loop, name=TINY)),
    Part(f"{TINY}: out of memory", 10, partial(out_of_memory, name=TINY), has_target=True),
    Part(f"{BASE}: SMX, exact", 25, partial(loop, name=BASE), has_target=True),
    Part(f"{BASE}: SMX, fast", 15, partial(fast, name=BASE, targets=[BASE_FAST]), has_target=True),
    Part(f"{BASE}: float16", 10, partial(precisions, name=BASE)),
    Part(f"{BASE}: SMH", 10, partial(state_loop, name=BASE)),
    Part(
        f"{FAMA}: SMX, exact", 40, partial(loop, name=FAMA, targets=[FAMA_EAGER]), has_target=True
    ),
    Part(f"{FAMA}: float16", 30, partial(precisions, name=FAMA)),
    Part(f"{FAMA}: SMX, exact, without cuDNN", 30, partial(loop_without_cudnn, name=FAMA)),
    Part(f"{BASE}: SMX, exact, compiled", 60, partial(loop, name=BASE, compile=True)),
    Part(
        f"{BASE}: SMX, fast, compiled", 60,
        partial(fast, name=BASE, compile=True, targets=[BASE_FAST]), has_target=True,
    ),
    Part(f"{TINY}: SMX, exact, compiled", 40, partial(loop, name=TINY, compile=True)),
    Part(f"{TINY}: SMX, fast, compiled", 40, partial(fast, name=TINY, compile=True)),
    Part(
        f"{FAMA}: SMX, exact, compiled", 120,
        partial(loop, name=FAMA, compile=True, targets=[FAMA_COMPILED, FAMA_AIM]), has_target=True,
    ),
)  # fmt: skip


def run_parts(bench: Bench, parts: Sequence[Part], budget: float) -> bool:
    """Run what fits into a budget of seconds; return whether nothing failed."""
    all_ran = True
    for number, part in enumerate(parts):
        left = budget - bench.table.seconds
        later = 0.0
        if not part.has_target:
            later = sum(other.seconds for other in parts[number + 1 :] if other.has_target)
        if left - later < part.seconds:
            bench.table.row(
                part.name,
                f"skipped: it may take {part.seconds:.0f} s, {left:.0f} s are left"
                + (f", {later:.0f} s of them for parts with a target" if later else ""),
            )
            continue
        try:
            part.run(bench)
        except MissingWeightsError as error:
            bench.table.row(part.name, str(error))
        except Exception as error:
            all_ran = False
            bench.table.row(part.name, _one_line(error))
            traceback.print_exc()
            traceback.clear_frames(error.__traceback__)
        _release()
    return all_ran


def _one_line(error: BaseException) -> str:
    text = " ".join(f"{type(error).__name__}: {error}".split()).replace("|", "/")
    return f"failed: {text[:300]}"


def _release() -> None:
    """Return the memory of a part's models to the device."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: Sequence[str] | None = None, started: float | None = None) -> int:
    """Run what the command line says; return the exit status.

    ``started`` is when the budget began, in seconds since the epoch; None: now.
    """
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, default=CLIP.parents[2] / "models")
    parser.add_argument("--out", type=Path, help="file that the table is appended to")
    parser.add_argument("--seconds-budget", type=float, default=480.0)
    parser.add_argument("--dry", action="store_true", help="tiny models on a CPU")
    options = parser.parse_args(arguments)
    if not options.dry and not torch.cuda.is_available():
        raise SystemExit("torch finds no GPU here; --dry shows on a CPU that the command works.")
    threads = torch.get_num_threads() if options.dry else len(os.sched_getaffinity(0))
    configure_process(precision="float32", threads=threads)
    table = Table(options.out, judges_speed=not options.dry, started=started)
    with ExitStack() as stack:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        weights = options.weights
        if options.dry:
            weights = scratch
            for name in FOLDERS.values():
                save_tiny_whisper(weights / name)
            # The compiled parts run as well, but wait for no compiler.
            stack.enter_context(torch.compiler.set_stance("force_eager"))
        bench = Bench(
            device="cpu" if options.dry else "cuda",
            weights=weights,
            scratch=scratch,
            table=table,
            sizes=DRY if options.dry else Sizes(),
            is_dry=options.dry,
        )
        all_ran = run_parts(bench, PARTS, options.seconds_budget)
    all_hold = table.summary()
    return 0 if all_ran and all_hold else 1


if __name__ == "__main__":
    sys.exit(main(started=psutil.Process().create_time()))  # imports count
