"""What the cheaper encoder of SMX saves, and how close its maps are.

``python -m benchmarks.fast`` prints two tables, for each model:

(a) time of a mask by the *bare exact forward pass* and by the loop with cheap scores, in turns, for
    clips of 3, 7 and 11 s; from these and the pilot's time, how much faster 2,000 masks are, with
    pilot and checks and without;
(b) for the five LibriVox clips, the same masks scored both ways: correlation of the maps at encoder
    steps (rows standardised) and bias of the mean score, before and after the correction.

``--masks`` sets the masks of each clip in (a) and (b); a number of 2,000 or more is run in full.
"""

import argparse
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import torch

from benchmarks.clip import ROOT, hear
from benchmarks.spes import hardware, synchronise
from s2txai.models.base import Model
from s2txai.models.loading import load_model, resolve_precision
from s2txai.models.process import configure_process
from s2txai.saliency.checks import Fidelity, fidelity, is_fast
from s2txai.saliency.correlation import correlation
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.pooling import pool
from s2txai.saliency.smx import smx
from s2txai.saliency.statistics import ALL_FOLDS, Statistics, heatmap

SPEECH = ROOT / "resources/speech"
LIBRIVOX = SPEECH / "librivox"
NAME = "sense_and_sensibility_01_austen_64kb"
TIMED = (
    (LIBRIVOX / f"{NAME}-0880.wav", 3),
    (LIBRIVOX / f"{NAME}-0870.wav", 7.1),
    (SPEECH / "aligned/acoustic_corpus.wav", 11),  # the first 11 s of a reading
)
MASKS = 2000
LEVELS = (50, 100)
BATCH = {"cpu": 16, "cuda": 256}


@dataclass(frozen=True)
class FastTimes:
    """Seconds of fast SMX, and of the exact pass beside it.

    Attributes
    ----------
    exact
        Of a mask by the bare exact forward pass.
    mask
        Of a mask by the loop with cheap scores, the median of all rounds but the first, which has
        the pilot; with checks where most rounds have some, as batches of 256 do.
    pilot
        Of the pilot and of what precedes it: segmentation and the unperturbed pass.
    whole
        Of all masks that were run, pilot included.
    statistics
        Of these masks.
    """

    exact: float
    mask: float
    pilot: float
    whole: float
    statistics: Statistics

    @property
    def share(self) -> float:
        """Of the masks that were checked."""
        return float(self.statistics.check_share or 0)


def fast_times(model: Model, heard: Heard, design: MaskDesign, batch: int) -> FastTimes:
    """Time the loop with cheap scores and the bare exact pass in turns, round by round."""
    rounds: list[tuple[float, float, int]] = []
    inputs = heard.inputs(model.device).expand(batch, -1, -1).contiguous()
    heard.logits(model, inputs)
    started = 0.0

    def on_batch(n_new: int, current: Callable[[], Statistics]) -> None:
        nonlocal started
        synchronise(model.device)
        fast = time.perf_counter() - started
        begun = time.perf_counter()
        for _ in design.n_segments:
            heard.logits(model, inputs)
        synchronise(model.device)
        exact = (time.perf_counter() - begun) / (batch * len(design.n_segments))
        rounds.append((fast, exact, n_new))
        started = time.perf_counter()

    synchronise(model.device)
    started = time.perf_counter()
    statistics = smx(
        model, heard, replace(design, encoder="auto"), batch_size=batch, on_batch=on_batch
    )
    mask = median(fast / n for fast, _, n in rounds[1:])
    return FastTimes(
        exact=median(exact for _, exact, _ in rounds),
        mask=mask,
        pilot=rounds[0][0] - rounds[0][2] * mask,
        whole=sum(fast for fast, _, _ in rounds),
        statistics=statistics,
    )


def times(model: Model, heard: Heard, design: MaskDesign, batch: int) -> None:
    """Print a row of table (a)."""
    measured = fast_times(model, heard, design, batch)
    exact, mask, share = measured.exact, measured.mask, measured.share
    n = measured.statistics.total_masks
    if n >= MASKS:
        # Everything was run.
        whole, how = measured.whole / n, f"{n} masks run"
    else:
        # On a CPU most rounds have no check, so their median has none.
        whole, how = measured.pilot / MASKS + mask + share * exact, f"from {n} masks"
    print(
        f"    {len(heard.features) / 100:6.1f} {len(heard.tokens):7} {1000 * exact:10.1f} "
        f"{1000 * mask:9.1f} {measured.pilot:8.1f} {share:7.2f} {exact / whole:17.2f} "
        f"{exact / mask:13.2f}   {how}{'' if is_fast(measured.statistics) else ', all exact'}",
        flush=True,
    )


def closeness(model: Model, heard: Heard, design: MaskDesign, batch: int) -> tuple[float, ...]:
    """Return correlations of the maps, raw and corrected, and biases of the mean score in %."""
    cheap = smx(model, heard, replace(design, encoder="auto"), batch_size=batch)
    exact = smx(model, heard, replace(design, encoder="exact"), batch_size=batch)
    uncorrected = replace(cheap, check_share=None)

    def at_steps(statistics: Statistics) -> np.ndarray:
        cells = heatmap(statistics, ALL_FOLDS)
        return pool(cells, "avg2d", statistics.subsampling, statistics.n_steps)

    raw, corrected, expected = (at_steps(one) for one in (uncorrected, cheap, exact))
    close = fidelity(cheap)
    assert isinstance(close, Fidelity)
    return (
        float(cheap.check_share or 0),
        close.mean_correlation,
        close.worst_correlation,
        correlation(raw, expected, metric="pearson", normalise="token").value,
        correlation(corrected, expected, metric="pearson", normalise="token").value,
        100 * (cheap.score_sum.sum() / exact.score_sum.sum() - 1),
        100 * (corrected.mean() / expected.mean() - 1),
    )


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, default=ROOT / "resources/models")
    parser.add_argument("--masks", type=int, default=320)
    parser.add_argument("--only", choices=["a", "b"], help="print one table")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--precision", default="auto", help="auto: float16 on a GPU, else float32")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    precision = resolve_precision(options.precision, options.device)
    configure_process(precision=precision, threads=options.threads)
    batch = BATCH[options.device]
    design = MaskDesign(options.masks, n_segments=LEVELS)
    for name in ("whisper-tiny.en", "whisper-base"):
        folder = options.models / name
        model = load_model(folder, "whisper", device=options.device, precision=precision)
        print(f"{name}, {hardware(model.device)}, {precision}, batches of {batch}")
        if options.only in (None, "a"):
            print(
                "(a)    s  tokens  exact (ms)  fast (ms)  pilot (s)  checks  "
                "times faster, all  without both"
            )
            for path, seconds in TIMED:
                times(model, hear(model, path, seconds), design, batch)
        if options.only in (None, "b"):
            print("(b) clip   checks  scores: r  worst row  map: r  corrected  bias (%)  corrected")
            for path in sorted(LIBRIVOX.glob("*.wav")):
                figures = closeness(model, hear(model, path), design, batch)
                print(
                    "    {:6} {:6.2f} {:10.4f} {:10.4f} {:7.4f} {:10.4f} {:+9.2f} {:+10.2f}".format(
                        path.stem[-4:], *figures
                    ),
                    flush=True,
                )


if __name__ == "__main__":
    main()
