"""What the perturbation loop costs beside the forward passes that it cannot do without.

``python -m benchmarks.spes`` prints up to four tables:

(a) masks a second of the whole loop (masks, perturbed input, forward, divergence, sums) and of the
    bare forward pass of the same model, batch and precision, taken in turns;
(b) milliseconds of CPU time a mask outside the forward pass, one thread, at the size of the
    published study (T = 700 frames, F = 80 bins, I = 30 rows, 2,000 to 3,000 segments for 500
    frames): the model is replaced by one that returns logits made beforehand;
(c) the height of memory against the number of masks and against T, each in a process of its own,
    above that of the fewest masks of the shortest utterance, with the same replaced model;
(d) on a GPU, or when asked for: (a) for a Conformer as large as FAMA small with random weights, at
    T = 700, I = 30, a vocabulary of 16,000.

``--only a`` and so on prints one of them; ``--model`` names a folder of weights for (a);
``--compile`` compiles the encoder of (a) and (d).
"""

import argparse
import logging
import multiprocessing
import platform
import re
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.clip import ROOT, hear
from benchmarks.random_conformer import SYMBOLS, save_fama_small
from s2txai.models.base import Model
from s2txai.models.loading import load_model, resolve_precision
from s2txai.models.memory import fitting_batch_size
from s2txai.models.process import configure_process
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.engine import BatchSize, Masks, accumulate
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.score_sums import Score, ScoreSums
from s2txai.saliency.smx import PerturbedInput, input_masks
from s2txai.saliency.statistics import Statistics

LEVELS = (2000, 2500, 3000)
FEWEST = N_FOLDS * len(LEVELS)  # masks of a design
T, F, I = 700, 80, 30
VOCABULARIES = (8_000, 16_000, 51_865)
PUBLISHED_MS = {8_000: 14.6, 16_000: 20.5, 51_865: 40.0}
BATCH = 16
REPEATS = 5


class NoForward(Model):
    """Returns logits made beforehand, so that only the loop around the model takes time."""

    def __init__(self, vocabulary: int) -> None:
        self.device = torch.device("cpu")
        generator = torch.Generator().manual_seed(0)
        reference = 3 * torch.randn((1, I, vocabulary), generator=generator)
        moved = 0.3 * torch.randn((BATCH, I, vocabulary), generator=generator)
        self._logits = reference + moved
        self._reference = reference

    def encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        return features

    def decode(self, states: torch.Tensor, prompt: object, tokens: object) -> torch.Tensor:
        return self._reference if len(states) == 1 else self._logits[: len(states)]


def spectrogram(n_frames: int) -> np.ndarray:
    """Return float32 [T, F] of smooth noise, which SLIC cuts as it cuts speech."""
    rough = np.random.default_rng(0).standard_normal((n_frames + 8, F + 8))
    window = np.ones((9, 9)) / 81
    smooth = np.lib.stride_tricks.sliding_window_view(rough, (9, 9))
    return np.einsum("tfij,ij->tf", smooth, window).astype(np.float32)


def masks_of(heard: Heard, n_masks: int) -> Masks:
    design = MaskDesign(n_masks, n_segments=LEVELS)
    return input_masks(heard, design, utterance="benchmark", subsampling=2, time_only=False)


def loop(
    score: Score,
    masks: Masks,
    n_rows: int,
    batch: int,
    device: str,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the seconds that all masks take."""
    statistics = Statistics.zeros(masks.segments, n_rows, 2, -(-masks.segments.shape[1] // 2))
    synchronise(torch.device(device))
    started = clock()
    sums = ScoreSums(statistics, score, masks.plan, torch.device(device))
    accumulate(sums, masks.plan, device=torch.device(device), batch=BatchSize(batch))
    sums.statistics()
    return clock() - started


@dataclass(frozen=True)
class Case:
    """A model, and an utterance as it was received and transcribed."""

    name: str
    model: Model
    heard: Heard


def whisper(folder: Path, **compute: object) -> Case:
    """Return a Whisper and what it makes of the clip."""
    model = load_model(folder, "whisper", **compute)
    return Case(folder.name, model, hear(model))


def random_conformer(
    folder: Path,
    *,
    n_frames: int = T,
    n_rows: int = I,
    symbols: int = SYMBOLS,
    **compute: object,
) -> Case:
    """Return a Conformer with random weights, noise as its input, and a random hypothesis."""
    model = load_model(folder, "conformer", **compute)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(4, symbols, (n_rows,), generator=generator).tolist()
    return Case("Conformer as FAMA small", model, Heard(spectrogram(n_frames), 0.0, [2], tokens))


@dataclass(frozen=True)
class Throughput:
    """Masks per second of the loop and of the bare forward pass, and their ratio.

    All are medians over pairs that were measured in turns; ``batch`` is what ``auto`` selected.
    """

    loop: float
    forward: float
    ratio: float
    batch: int


def throughput(
    score: Score,
    layout: Callable[[int], Masks],
    forward: Callable[[int], object],
    *,
    n_rows: int,
    device: torch.device,
    batches: int,
    repeats: int = REPEATS,
) -> Throughput:
    """Time the loop against the bare forward pass.

    Parameters
    ----------
    score
        Of a batch of masks.
    layout
        Returns the masks of a number.
    forward
        Runs the bare pass on a number of inputs.
    n_rows
        Of the hypothesis (I).
    device
        Of the model.
    batches
        Of each repeat; a multiple of the number of levels makes all of them full.
    repeats
        Pairs of loop and forward pass.
    """
    fewest = layout(FEWEST)

    def work(n: int) -> object:
        return score(torch.ones((n, fewest.plan.sizes[0]), dtype=torch.bool, device=device), 0)

    batch = fitting_batch_size(device, work)
    masks = layout(batches * batch)

    def bare() -> float:
        synchronise(device)
        started = time.perf_counter()
        for _ in range(batches):
            forward(batch)
        synchronise(device)
        return time.perf_counter() - started

    def whole() -> float:
        return loop(score, masks, n_rows, batch, str(device))

    whole(), bare()  # the first calls pay for what later ones reuse
    pairs = [(whole(), bare()) for _ in range(repeats)]
    n_scored, n_forward = sum(masks.plan.n_masks), batches * batch
    return Throughput(
        loop=median(n_scored / seconds for seconds, _ in pairs),
        forward=median(n_forward / seconds for _, seconds in pairs),
        ratio=median((n_scored / a) / (n_forward / b) for a, b in pairs),
        batch=batch,
    )


def input_throughput(case: Case, *, rounds: int, repeats: int = REPEATS) -> Throughput:
    """Time masks of the input; ``rounds`` are batches of each level and repeat."""
    model, heard = case.model, case.heard
    inputs = heard.inputs(model.device)

    def forward(n: int) -> torch.Tensor:
        return heard.logits(model, inputs.expand(n, -1, -1).contiguous())

    return throughput(
        PerturbedInput(model, heard, masks_of(heard, FEWEST), "bin mean").score,
        partial(masks_of, heard),
        forward,
        n_rows=len(heard.tokens),
        device=model.device,
        # Full batches of every level, as nearly all are in a long run.
        batches=len(LEVELS) * rounds,
        repeats=repeats,
    )


def synchronise(device: torch.device) -> None:
    """Wait until a GPU has finished."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def against_the_forward(table: str, case: Case, precision: str, compile: bool) -> None:
    """Print table (a) or (d)."""
    device = case.model.device
    measured = input_throughput(case, rounds=1 if device.type == "cpu" else 16)
    print(
        f"({table}) {case.name}, {hardware(device)}, {precision}{', compiled' * compile}, "
        f"batches of {measured.batch}\n"
        f"    loop {measured.loop:.2f} masks/s, bare forward {measured.forward:.2f} masks/s, "
        f"loop/forward {measured.ratio:.3f} (medians of {REPEATS} pairs)"
    )


def outside_the_forward() -> None:
    """Print table (b)."""
    torch.set_num_threads(1)
    heard = Heard(spectrogram(T), 0.0, [], [0] * I)
    n_masks = 6 * BATCH * len(LEVELS)
    masks = masks_of(heard, n_masks)
    print(f"(b) one thread, T={T}, F={F}, I={I}, segments {masks.plan.sizes}")
    print("    vocabulary  ms/mask  published  share")
    for vocabulary in VOCABULARIES:
        score = PerturbedInput(NoForward(vocabulary), heard, masks, "bin mean").score
        loop(score, masks, I, BATCH, "cpu")
        # Time of the processor, which other work on the machine does not lengthen by waiting.
        found = [
            1000 * loop(score, masks, I, BATCH, "cpu", time.process_time) / n_masks
            for _ in range(REPEATS)
        ]
        published = PUBLISHED_MS[vocabulary]
        cost = median(found)
        print(f"    {vocabulary:10,}  {cost:7.2f}  {published:9.1f}  {cost / published:.3f}")


def memory() -> None:
    """Print table (c)."""
    print(f"(c) height of memory in MiB above {FEWEST} masks of T=350")
    least = _in_process(_peak_memory, 350, FEWEST)
    for n_frames, n_masks in [(700, 48), (700, 480), (700, 4800), (350, 480), (1400, 480)]:
        height = (_in_process(_peak_memory, n_frames, n_masks) - least) / 2**20
        print(f"    T={n_frames:5}  masks={n_masks:6,}  {height:8.1f}")


def _peak_memory(n_frames: int, n_masks: int) -> int:
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    heard = Heard(spectrogram(n_frames), 0.0, [], [0] * I)
    masks = masks_of(heard, n_masks)
    score = PerturbedInput(NoForward(1000), heard, masks, "bin mean").score
    loop(score, masks, I, BATCH, "cpu")
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024


def _in_process(function: Callable[..., int], *arguments: int) -> int:
    """Return what a function returns in a fresh process, whose memory holds nothing else."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def hardware(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name()
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    return f"{model[1] if model else platform.processor()}, {torch.get_num_threads()} threads"


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=["a", "b", "c", "d"], help="print one table")
    parser.add_argument("--model", type=Path, default=ROOT / "resources/models/whisper-tiny.en")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto", help="auto: float16 on a GPU, else float32")
    parser.add_argument("--compile", action="store_true")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)  # that SLIC merges two levels is known here
    precision = resolve_precision(asked.precision, asked.device)
    configure_process(precision=precision, threads=torch.get_num_threads())
    compute = {"device": asked.device, "precision": precision, "compile": asked.compile}
    if asked.only in (None, "a"):
        case = whisper(asked.model, **compute)
        against_the_forward("a", case, precision, asked.compile)
    if asked.only in (None, "b"):
        outside_the_forward()
    if asked.only in (None, "c"):
        memory()
    if asked.only == "d" or (asked.only is None and asked.device == "cuda"):
        with tempfile.TemporaryDirectory() as folder:
            save_fama_small(Path(folder))
            case = random_conformer(Path(folder), **compute)
        against_the_forward("d", case, precision, asked.compile)


if __name__ == "__main__":
    main()
