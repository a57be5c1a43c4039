"""Scores of step 6: how fast a model fails along each map, and how sharp the maps are."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from types import MappingProxyType
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.deletion import HYPOTHESES, area_under_curve
from s2txai.analysis.intervals import interval, mean_and_interval, resampled_means, resamples
from s2txai.analysis.scoring import SCORES, Score, comparable, score_names, score_signature
from s2txai.analysis.signature import signature, spread
from s2txai.analysis.utterance import UtteranceData
from s2txai.datasets import Diacritics, Task
from s2txai.saliency.methods import METHODS

CHANCE = "random"  # the map that every other is compared with

# Of the unperturbed hypothesis, from the mean log-probability of its tokens to what is averaged.
PROBABILITIES: Mapping[str, Callable[[np.ndarray], np.ndarray]] = MappingProxyType(
    {"log_prob": np.asarray, "probability": lambda log_probs: 100 * np.exp(log_probs)}
)

# Of the masks of a map, what its signature says beside their seed and number.
_DESIGN = ("n_segments", "p", "estimator", "n_points", "encoder", "check")

NO_SCORES: Mapping[str, Score] = MappingProxyType({})


@dataclass(frozen=True)
class DeletionTables:
    """Results of the deletion of a run, one table per file.

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
class _Curve:
    """A score along a map, over all utterances and in each resample of them."""

    key: tuple[str, str, str]  # map, mode, metric
    signature: str
    scores: np.ndarray  # [P], at each percentage
    area: float
    resampled_areas: np.ndarray  # [R]


def score_deletion(
    references: Sequence[str],
    deleted: Sequence[UtteranceData],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
    further_scores: Mapping[str, Score] = NO_SCORES,
    seed: int = 0,
) -> DeletionTables:
    """Return corpus scores of every map at every percentage, areas under them, sizes of maps.

    Parameters
    ----------
    references
        Human texts.
    deleted
        Results of the deletion in the same order.
    task
        Determines the scores.
    text_normalisation
        A name of :data:`s2txai.analysis.scoring.TEXT_NORMALISERS`.
    diacritics
        ``kept`` or ``folded`` in both texts.
    further_scores
        By name, beside those of the task, as COMET.
    seed
        Of the resamples behind the confidence intervals.
    """
    texts: dict[str, Any] = {
        "text_normalisation": text_normalisation,
        "language": task.target,
        "diacritics": diacritics,
    }
    scores = {name: SCORES[name].of(task.target) for name in score_names(task)}
    scores |= further_scores
    counts = resamples(len(deleted), seed=seed)
    curves = [
        *_text_curves(references, deleted, scores, texts, counts),
        *_probability_curves(deleted, counts),
    ]
    return DeletionTables(
        _curves_table(curves, deleted), _areas_table(curves, len(deleted)), _sizes(deleted, seed)
    )


def _text_curves(
    references: Sequence[str],
    deleted: Sequence[UtteranceData],
    scores: Mapping[str, Score],
    normalisation: Mapping[str, Any],
    counts: np.ndarray,
) -> Iterator[_Curve]:
    """Score what was decoded; resamples add up ``counts`` [R, n] times each utterance's counts."""
    percents = deleted[0]["percents"]
    modes = [mode for mode, name in HYPOTHESES.items() if name in deleted[0].arrays]
    raw = {"text_normalisation": "none", "diacritics": "kept"}
    for (metric, score), mode in product(scores.items(), modes):
        texts = {**normalisation, **(raw if score.takes_raw_texts else {})}

        def prepared(
            of_utterances: Sequence[str],
            score: Score = score,
            texts: Mapping[str, Any] = texts,
        ) -> list[str]:
            if score.takes_raw_texts:
                return [text.strip() for text in of_utterances]
            return comparable(of_utterances, **texts)

        spoken = prepared(references)
        for m, name in enumerate(deleted[0]["maps"].tolist()):
            hypotheses = np.array([data[HYPOTHESES[mode]][m] for data in deleted])  # (n, P)
            of_percents = [
                score.counts(spoken, prepared(recognised)) for recognised in hypotheses.T.tolist()
            ]
            summands = np.stack(of_percents, axis=1)  # (n, P, K)
            facts = {"reference": "human", **texts, **_design(deleted, name)}
            yield _curve(
                (name, mode, metric),
                score_signature(metric, score, **facts),
                score.of_sums(summands.sum(axis=0)),
                score.of_sums(np.tensordot(counts, summands, axes=1)),  # (R, P)
                percents,
            )


def _probability_curves(deleted: Sequence[UtteranceData], counts: np.ndarray) -> Iterator[_Curve]:
    """Average over utterances how probable the unperturbed hypothesis is."""
    log_probs = np.stack([data["log_probs"] for data in deleted])  # (n, mode, map, P)
    modes, maps = deleted[0]["modes"].tolist(), deleted[0]["maps"].tolist()
    for metric, prepare in PROBABILITIES.items():
        values = prepare(log_probs)
        for (k, mode), (m, name) in product(enumerate(modes), enumerate(maps)):
            design = _design(deleted, name)
            design.pop("beam")
            yield _curve(
                (name, mode, metric),
                signature(metric=metric, **design),
                values[:, k, m].mean(axis=0),
                resampled_means(values[:, k, m].T, counts).T,  # (R, P)
                deleted[0]["percents"],
            )


def _curve(
    key: tuple[str, str, str],
    text: str,
    scores: np.ndarray,
    resampled: np.ndarray,
    percents: np.ndarray,
) -> _Curve:
    """Return the curve of scores [P], of which ``resampled`` [R, P] are those of resamples."""
    areas = np.trapezoid(resampled, percents, axis=1) / 100
    return _Curve(key, text, scores, area_under_curve(percents, scores) / 100, areas)


def _curves_table(curves: Sequence[_Curve], deleted: Sequence[UtteranceData]) -> pd.DataFrame:
    percents = deleted[0]["percents"].tolist()
    rows = [
        (*curve.key[:2], percent, curve.key[2], score, len(deleted), curve.signature)
        for curve in curves
        for percent, score in zip(percents, curve.scores.tolist(), strict=True)
    ]
    columns = ["map", "mode", "percent", "metric", "score", "n_utterances", "signature"]
    return pd.DataFrame(rows, columns=columns)


def _areas_table(curves: Sequence[_Curve], n: int) -> pd.DataFrame:
    """Return areas with intervals, and what they have above the random order of the same kind."""
    chance = {curve.key[1:]: curve for curve in curves if curve.key[0] == CHANCE}
    rows = []
    for curve in curves:
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


def _sizes(deleted: Sequence[UtteranceData], seed: int) -> pd.DataFrame:
    """Return the mean size of each map over utterances."""
    rows = []
    for m, name in enumerate(deleted[0]["maps"].tolist()):
        design = _design(deleted, name)
        # A size is of the map; nothing is deleted.
        facts = {key: design[key] for key in design if key not in ("beam", "occluded_value")}
        size, low, high = mean_and_interval([data["sizes"][m] for data in deleted], seed=seed)
        rows.append((name, size, low, high, len(deleted), signature(metric="size", **facts)))
    columns = ["map", "size", "size_low", "size_high", "n_utterances", "signature"]
    return pd.DataFrame(rows, columns=columns)


def _design(deleted: Sequence[UtteranceData], name: str) -> dict[str, Any]:
    """Return what a map's curve depends on, for its signature."""
    facts = dict(deleted[0].parameters)
    designs = {step: facts.pop(step) for step in ("smx", *METHODS) if step in facts}
    step = "smx" if name.startswith("smx") else name
    if step not in designs:
        return facts
    design = designs[step]
    facts |= {key: design[key] for key in _DESIGN if key in design}
    if "n_masks" in design:
        n_masks = [data.parameters[step]["n_masks"] for data in deleted]
        facts |= {"mask_seed": design["seed"], "n_masks": spread(n_masks)}
    return facts
