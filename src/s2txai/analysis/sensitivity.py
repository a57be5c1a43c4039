"""How the headline depends on the design of the perturbation: segments, probability, value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.signature import signature, spread
from s2txai.saliency.correlation import choose_rows, correlation, correlations, is_constant
from s2txai.steps.shard import maps_of
from s2txai.saliency.pooling import HALVES, pool
from s2txai.saliency.reliability import ceiling, half_correlation, spearman_brown
from s2txai.saliency.statistics import N_FOLDS
from s2txai.storage.artifacts import Artifact, check_same_source

MAIN = "main"
# The linear pooling: its correlations can be corrected for noise.
POOLING = "avg2d"


@dataclass(frozen=True)
class _Map:
    """SMX of one utterance in one design: the map [I, T'] and its halves [3, 2, I, T']."""

    full: np.ndarray
    halves: np.ndarray


def sensitivity(
    aggregated: Sequence[Artifact],
    designs: Mapping[str, Sequence[Artifact]],
    *,
    rows: str,
    estimator: str,
) -> pd.DataFrame:
    """Correlate attention with the input map of every design, and every design with the main one.

    Parameters
    ----------
    aggregated
        ``aggregate`` artefacts of all utterances.
    designs
        ``smx`` artefacts of the same utterances by the name of their design, :data:`MAIN` first.
    rows
        As for :func:`s2txai.saliency.correlation.choose_rows`.
    estimator
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS`.

    Returns
    -------
    DataFrame
        One row a design and attention map (mean over all heads, mean over each layer's heads); see
        ``docs/results.md``.

    Raises
    ------
    UserError
        If files of different hypotheses, models or audio lie together.
    """
    found = [
        _of_utterance(artifact, {name: made[u] for name, made in designs.items()}, rows, estimator)
        for u, artifact in enumerate(aggregated)
    ]
    table = pd.concat(found, ignore_index=True)
    keys = ["design", "attention", "layer"]
    means = (
        table.groupby(keys, sort=False, dropna=False)
        .agg(
            rho=("rho", "mean"),
            half_correlation=("half_correlation", "mean"),
            rho_with_main=("rho_with_main", "mean"),
            across_halves=("across_halves", "mean"),
            n_utterances=("rho", "count"),
        )
        .reset_index()
    )
    means["reliability"] = means["half_correlation"].map(spearman_brown)
    means["ceiling"] = means["reliability"].map(ceiling)
    means["rho_corrected"] = (means["rho"] / means["ceiling"]).where(means["ceiling"] > 0)
    # Designs with the same segments have the same masks, hence noise in common, and correlations of
    # their whole maps are too high. Halves of different folds share no mask.
    main = means.loc[means["design"] == MAIN, "half_correlation"].iloc[0]
    both = np.sqrt((main * means["half_correlation"]).clip(lower=0))
    means["rho_with_main_corrected"] = (means["across_halves"] / both).where(both > 0)
    stated = {name: _stated(made) for name, made in designs.items()}
    for column in ("n_segments", "p", "occluded_value", "n_masks"):
        means[column] = [stated[name][column] for name in means["design"]]
    means["signature"] = [
        signature(
            metric="pearson",
            normalise="token",
            rows=rows,
            pooling=POOLING,
            estimator=estimator,
            **stated[name],
        )
        for name in means["design"]
    ]
    return means[
        [
            "design",
            "n_segments",
            "p",
            "occluded_value",
            "n_masks",
            "attention",
            "layer",
            "rho",
            "reliability",
            "ceiling",
            "rho_corrected",
            "rho_with_main",
            "rho_with_main_corrected",
            "n_utterances",
            "signature",
        ]
    ]


def _of_utterance(
    aggregated: Artifact, designs: Mapping[str, Artifact], rows: str, estimator: str
) -> pd.DataFrame:
    check_same_source(aggregated, *designs.values())
    maps = {name: _pooled(artifact, estimator) for name, artifact in designs.items()}
    wanted = choose_rows(rows, aggregated["pieces"].tolist(), aggregated["roles"].tolist())
    # The same rows for every design, so that they can be compared.
    constant = np.any([is_constant(made.full) for made in maps.values()], axis=0)
    chosen = wanted & ~constant
    layers = aggregated["ca_layer"][:, chosen]
    attention = np.concatenate([aggregated["ca_mean"][None, chosen], layers])
    names = [("ca_mean", None), *(("ca_layer", layer) for layer in range(len(layers)))]
    tables = []
    for design, made in maps.items():
        full = made.full[chosen]
        found = correlations(attention, full)
        tables.append(
            pd.DataFrame(names, columns=["attention", "layer"])
            .astype({"layer": "Int64"})
            .assign(
                design=design,
                rho=[one.value for one in found],
                half_correlation=half_correlation(made.halves[:, :, chosen]),
                rho_with_main=correlation(full, maps[MAIN].full[chosen]).value,
                across_halves=_across_halves(
                    made.halves[:, :, chosen], maps[MAIN].halves[:, :, chosen]
                ),
            )
        )
    return pd.concat(tables, ignore_index=True)


def _across_halves(halves: np.ndarray, other: np.ndarray) -> float:
    """Return the mean correlation of each half [3, 2, I, T'] with the other half of another map."""
    crossed = [
        correlation(a, b).value
        for (first, second), (other_first, other_second) in zip(halves, other, strict=True)
        for a, b in ((first, other_second), (second, other_first))
    ]
    return float(np.mean(crossed))


def _pooled(artifact: Artifact, estimator: str) -> _Map:
    cells = maps_of(artifact, estimator)
    subsampling, n_steps = int(artifact["subsampling"]), int(artifact["n_steps"])

    def at_steps(folds: Sequence[int]) -> np.ndarray:
        return pool(cells(folds), POOLING, subsampling, n_steps)

    halves = np.array([[at_steps(folds) for folds in pair] for pair in HALVES])
    return _Map(at_steps(range(N_FOLDS)), halves)


def _stated(made: Sequence[Artifact]) -> dict[str, Any]:
    """Return what a design's maps depend on."""
    parameters = dict(made[0].meta["parameters"])
    levels = parameters.pop("n_segments")
    n_masks = spread([artifact.meta["masks"]["n_masks"] for artifact in made])
    return {"n_segments": " ".join(str(n) for n in levels), **parameters, "n_masks": n_masks}
