"""How many masks each estimator needs, on a real model.

``python -m benchmarks.estimators`` scores two independent sets of masks of one clip. From growing
parts of the first it makes maps with either estimator; the map of the second, a plain mean of many
masks, stands for the truth. Printed is the correlation with it (rows standardised) at encoder steps
and by cell, divided by the square root of the reliability of the second map, whose noise would
otherwise hide how good the others are; and how many masks of the mean are worth as many of the
log-linear fit.

Scores are kept in ``--scores`` when it is given, since they take all of the time.
"""

import argparse
import logging
from pathlib import Path

import numpy as np
import torch

from benchmarks.clip import ROOT, hear
from s2txai.models.base import n_steps
from s2txai.models.loading import load_model
from s2txai.models.memory import to_device
from s2txai.saliency.correlation import correlation
from s2txai.saliency.engine import BatchSize, Masks, accumulate
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.pooling import pool
from s2txai.saliency.reliability import ceiling, half_correlation, spearman_brown
from s2txai.saliency.score_sums import ScoreSums
from s2txai.saliency.segments import Segmentations, segmentation_names, segmentations
from s2txai.saliency.smx import PerturbedInput
from s2txai.saliency.statistics import ALL_FOLDS, HALVES, Statistics, heatmap

CPU = torch.device("cpu")
SUBSAMPLING = 2
BATCH = 16


def plan_of(segments: Segmentations, name: str, n_masks: int) -> MaskPlan:
    names = segmentation_names(segments)
    return MaskPlan(0, name, names, segments.n_segments, (n_masks,) * len(names), 0.5)


def score_masks(
    folder: Path, levels: list[int], n_trial: int, n_reference: int
) -> tuple[Segmentations, np.ndarray, np.ndarray]:
    """Return the segments, and scores [K, masks, I] of the trial and of the reference masks."""
    model = load_model(folder, "whisper")
    heard = hear(model)
    segments = segmentations(heard.features, levels)
    masks = Masks(plan_of(segments, "trial", n_trial), segments.labels)
    score = PerturbedInput(model, heard, masks, "bin mean").score

    def occluded(plan: MaskPlan, k: int, start: int) -> torch.Tensor:
        stop = min(start + BATCH, plan.n_masks[k])
        return to_device(torch.from_numpy(plan.draw(k, start, stop)), model.device)

    def scored(name: str, n_masks: int) -> np.ndarray:
        plan = plan_of(segments, name, n_masks)
        return np.stack(
            [
                np.concatenate(
                    [
                        score(occluded(plan, k, start), k).cpu().numpy()
                        for start in range(0, n_masks, BATCH)
                    ]
                )
                for k in range(len(plan.names))
            ]
        )

    return segments, scored("trial", n_trial), scored("reference", n_reference)


def summed(
    segments: Segmentations, name: str, scores: np.ndarray, n_masks: int
) -> tuple[Statistics, MaskPlan]:
    """Return the statistics of the first masks of each segmentation, and their plan."""
    _, T, _ = segments.labels.shape
    plan = plan_of(segments, name, n_masks)
    statistics = Statistics.zeros(
        segments.labels, scores.shape[2], SUBSAMPLING, n_steps(T, SUBSAMPLING), logarithms=True
    )
    position = [0] * len(plan.names)

    def score(occluded: torch.Tensor, k: int) -> torch.Tensor:
        start = position[k]
        position[k] += len(occluded)
        return torch.from_numpy(scores[k, start : position[k]])

    sums = ScoreSums(statistics, score, plan, CPU)
    accumulate(sums, plan, device=CPU, batch=BatchSize(64))
    return sums.statistics(), plan


def at_steps(cells: np.ndarray) -> np.ndarray:
    return pool(cells, "avg2d", SUBSAMPLING, n_steps(cells.shape[1], SUBSAMPLING))


def flat(cells: np.ndarray) -> np.ndarray:
    return cells.reshape(len(cells), -1)


def main() -> None:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path, default=ROOT / "resources/models/whisper-tiny.en")
    parser.add_argument("--levels", type=int, nargs="+", default=[300])
    parser.add_argument("--masks", type=int, default=1600, help="of the reference; half for trials")
    parser.add_argument("--scores", type=Path, help="an .npz to keep the scores in")
    asked = parser.parse_args()
    logging.disable(logging.WARNING)
    if asked.scores and asked.scores.exists():
        with np.load(asked.scores, allow_pickle=False) as kept:
            trial, reference = kept["trial"], kept["reference"]
            segments = Segmentations(
                kept["labels"],
                tuple((int(level),) for level in kept["levels"]),
                tuple(int(n) for n in kept["n_segments"]),
            )
    else:
        segments, trial, reference = score_masks(
            asked.model, asked.levels, asked.masks // 2, asked.masks
        )
        if asked.scores:
            np.savez(
                asked.scores,
                trial=trial,
                reference=reference,
                labels=segments.labels,
                levels=[levels[0] for levels in segments.levels],
                n_segments=segments.n_segments,
            )

    truth, _ = summed(segments, "reference", reference, reference.shape[1])
    views = {"steps": at_steps, "cells": flat}
    noise = {}
    for name, view in views.items():
        halves = np.array([[view(heatmap(truth, folds)) for folds in pair] for pair in HALVES])
        noise[name] = spearman_brown(half_correlation(halves))
    print(
        f"{asked.model.name}, {reference.shape[2]} rows, segments {segments.n_segments}; reference "
        f"of {reference.shape[1]} masks each, reliability "
        + ", ".join(f"{name} {value:.3f}" for name, value in noise.items())
    )
    print(f"{'masks':>6}  {'mean: steps':>12} {'cells':>6}  {'loglinear: steps':>17} {'cells':>6}")
    found: dict[tuple[str, str], list[float]] = {}
    counts = [n for n in (50, 100, 200, 400, 800, 1600, 3200) if n <= trial.shape[1]]
    for n in counts:
        line = f"{n:6}"
        for estimator, width in (("mean", 12), ("loglinear", 17)):
            cells = ESTIMATORS[estimator].prepare(*summed(segments, "trial", trial, n))(ALL_FOLDS)
            for name, view in views.items():
                raw = correlation(view(cells), view(heatmap(truth))).value
                accuracy = raw / ceiling(noise[name])
                found.setdefault((estimator, name), []).append(accuracy)
                line += f"  {accuracy:{width if name == 'steps' else 5}.3f}"
        print(line)
    for name in views:
        mean, loglinear = (np.array(found[e, name]) for e in ("mean", "loglinear"))
        for n, accuracy in zip(counts, loglinear, strict=True):
            if mean[0] <= accuracy <= mean[-1]:
                worth = np.exp(np.interp(accuracy, mean, np.log(counts)))
                print(
                    f"{name}: {n} masks of the log-linear fit are worth {worth:.0f} of the mean "
                    f"({worth / n:.2f} times)"
                )


if __name__ == "__main__":
    main()
