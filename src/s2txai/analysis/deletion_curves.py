"""Scores of step 6: how fast a model fails along each map, and how sharp the maps are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.comet import comet, comet_facts
from s2txai.analysis.deletion import area_under_curve
from s2txai.analysis.intervals import interval, mean_and_interval, resampled_means, resamples
from s2txai.analysis.scoring import ADDITIVE, Additive, comparable, score_names, score_signature
from s2txai.analysis.signature import signature, spread
from s2txai.datasets import Diacritics, Task
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.steps.deletion import HYPOTHESES
from s2txai.storage.artifacts import Artifact

CHANCE = "random"  # the map that every other is held against

# Of the unperturbed hypothesis, from the mean log-probability of its tokens to what is averaged.
PROBABILITIES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"log_prob": np.asarray, "probability": lambda log_probs: 100 * np.exp(log_probs)}
)


@dataclass(frozen=True)
class Tables:
    """What is told of the deletion of a run, one table a file.

    Attributes
    ----------
    curves
        Each score of every map at every percentage.
    areas
        Under each curve, with intervals and beside the random order.
    sizes
        Of each map.
    """

    curves: pd.DataFrame
    areas: pd.DataFrame
    sizes: pd.DataFrame


@dataclass(frozen=True)
class LearnedScore:
    """How translations are scored by COMET.

    Attributes
    ----------
    checkpoint
        Its model.
    sources
        What was said, one text an utterance.
    """

    checkpoint: Path
    sources: Sequence[str]


@dataclass(frozen=True)
class _Score:
    """A score of texts: its name, what it counts, and how texts are made comparable first."""

    metric: str
    additive: Additive
    texts: Mapping[str, Any]
    facts: Mapping[str, str]  # of its signature, beside those of the texts


@dataclass(frozen=True)
class _Curve:
    """One score along one map, over all utterances and in each resample of them."""

    key: tuple[str, str, str]  # map, mode, metric
    signature: str
    scores: np.ndarray  # [P], at each percentage
    area: float
    resampled_areas: np.ndarray  # [R]


def score_deletion(
    references: Sequence[str],
    deleted: Sequence[Artifact],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
    learned: LearnedScore | None = None,
    seed: int = 0,
) -> Tables:
    """Return corpus scores of every map at every percentage, areas under them, sizes of maps.

    Parameters
    ----------
    references
        Human texts.
    deleted
        ``deletion`` artefacts in the same order.
    task
        Chooses the scores.
    text_normalisation
        A name of :data:`s2txai.analysis.scoring.TEXT_NORMALISERS`.
    diacritics
        ``kept`` or ``folded`` in both texts.
    learned
        Scores translations by COMET, too, on the texts as they are.
    seed
        Of the resamples behind the confidence intervals.
    """
    texts: dict[str, Any] = {
        "text_normalisation": text_normalisation,
        "language": task.target,
        "diacritics": diacritics,
    }
    scores = [_Score(name, ADDITIVE[name], texts, {}) for name in score_names(task)]
    if learned is not None:
        untouched = {**texts, "text_normalisation": "none", "diacritics": "kept"}
        additive = comet(learned.checkpoint, learned.sources)
        scores.append(_Score("comet", additive, untouched, comet_facts(learned.checkpoint)))
    counts = resamples(len(deleted), seed=seed)
    found = [
        *_text_curves(references, deleted, scores, counts),
        *_probability_curves(deleted, counts),
    ]
    return Tables(
        _curves_table(found, deleted), _areas_table(found, len(deleted)), _sizes(deleted, seed)
    )


def _text_curves(
    references: Sequence[str],
    deleted: Sequence[Artifact],
    scores: Sequence[_Score],
    counts: np.ndarray,
) -> Iterator[_Curve]:
    """Score what was decoded; resamples add up ``counts`` [R, n] times each utterance's counts."""
    percents = deleted[0]["percents"]
    modes = [mode for mode, name in HYPOTHESES.items() if name in deleted[0].arrays]
    for score, mode in product(scores, modes):
        spoken = comparable(references, **score.texts)
        for m, name in enumerate(deleted[0]["maps"].tolist()):
            of_percents = [
                score.additive.counts(spoken, comparable(heard, **score.texts))
                for heard in np.array([one[HYPOTHESES[mode]][m] for one in deleted]).T.tolist()
            ]
            summands = np.stack(of_percents, axis=1)  # (n, P, K)
            resampled = score.additive.score(np.tensordot(counts, summands, axes=1))  # (R, P)
            facts = {**score.texts, **score.facts, **_design(deleted, name)}
            stated = score_signature(score.metric, reference="human", **facts)
            values = score.additive.score(summands.sum(axis=0))
            yield _curve((name, mode, score.metric), stated, values, resampled, percents)


def _probability_curves(deleted: Sequence[Artifact], counts: np.ndarray) -> Iterator[_Curve]:
    """Average over utterances how probable the unperturbed hypothesis is."""
    log_probs = np.stack([one["log_probs"] for one in deleted])  # (n, mode, map, P)
    modes, maps = deleted[0]["modes"].tolist(), deleted[0]["maps"].tolist()
    for metric, prepare in PROBABILITIES.items():
        values = prepare(log_probs)
        for (k, mode), (m, name) in product(enumerate(modes), enumerate(maps)):
            resampled = resampled_means(values[:, k, m].T, counts).T  # (R, P)
            design = _design(deleted, name)
            design.pop("beam")
            stated = signature(metric=metric, **design)
            scores = values[:, k, m].mean(axis=0)
            yield _curve((name, mode, metric), stated, scores, resampled, deleted[0]["percents"])


def _curve(
    key: tuple[str, str, str],
    stated: str,
    scores: np.ndarray,
    resampled: np.ndarray,
    percents: np.ndarray,
) -> _Curve:
    """Return the curve of scores [P], of which ``resampled`` [R, P] are those of resamples."""
    areas = np.trapezoid(resampled, percents, axis=1) / 100
    return _Curve(key, stated, scores, area_under_curve(percents, scores) / 100, areas)


def _curves_table(found: Sequence[_Curve], deleted: Sequence[Artifact]) -> pd.DataFrame:
    percents = deleted[0]["percents"].tolist()
    rows = [
        (*curve.key[:2], percent, curve.key[2], score, len(deleted), curve.signature)
        for curve in found
        for percent, score in zip(percents, curve.scores.tolist(), strict=True)
    ]
    columns = ["map", "mode", "percent", "metric", "score", "n_utterances", "signature"]
    return pd.DataFrame(rows, columns=columns)


def _areas_table(found: Sequence[_Curve], n: int) -> pd.DataFrame:
    """Return areas with intervals, and what they have above the random order of the same kind."""
    chance = {curve.key[1:]: curve for curve in found if curve.key[0] == CHANCE}
    rows = []
    for curve in found:
        # Both from the same utterances in each resample.
        above = [np.nan] * 3
        if curve.key[0] != CHANCE and curve.key[1:] in chance:
            other = chance[curve.key[1:]]
            low, high = interval(curve.resampled_areas - other.resampled_areas, n)
            above = [curve.area - other.area, float(low), float(high)]
        low, high = interval(curve.resampled_areas, n)
        rows.append((*curve.key, curve.area, float(low), float(high), *above, n, curve.signature))
    numbers = ["auc", "auc_low", "auc_high", "above_random", "above_random_low",
               "above_random_high"]  # fmt: skip
    columns = ["map", "mode", "metric", *numbers, "n_utterances", "signature"]
    return pd.DataFrame(rows, columns=columns)


def _sizes(deleted: Sequence[Artifact], seed: int) -> pd.DataFrame:
    """Return the mean size of each map over utterances."""
    rows = []
    for m, name in enumerate(deleted[0]["maps"].tolist()):
        design = _design(deleted, name)
        # A size is of the map; nothing is deleted.
        stated = {key: design[key] for key in design if key not in ("beam", "occluded_value")}
        size, low, high = mean_and_interval([one["sizes"][m] for one in deleted], seed=seed)
        rows.append((name, size, low, high, len(deleted), signature(metric="size", **stated)))
    columns = ["map", "size", "size_low", "size_high", "n_utterances", "signature"]
    return pd.DataFrame(rows, columns=columns)


def _design(deleted: Sequence[Artifact], name: str) -> dict[str, Any]:
    """Return what a map's curve depends on, for its signature."""
    stated = dict(deleted[0].meta["parameters"])
    designs = {step: stated.pop(step) for step in ("smx", *GRADIENTS) if step in stated}
    step = "smx" if name.startswith("smx") else name
    if step not in designs:
        return stated
    design = designs[step]
    stated |= {
        key: design[key] for key in ("n_segments", "p", "estimator", "n_points") if key in design
    }
    if "n_masks" in design:
        n_masks = [artifact.meta["parameters"][step]["n_masks"] for artifact in deleted]
        stated |= {"mask_seed": design["seed"], "n_masks": spread(n_masks)}
    return stated
