"""How the headline depends on the design of the perturbation: segments, probability, value."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from s2txai.analysis.headline import METRIC, NORMALISATION
from s2txai.analysis.signature import signature, spread
from s2txai.analysis.token_rows import choose_rows
from s2txai.analysis.utterance import UtteranceData
from s2txai.saliency.correlation import correlation, correlations, is_constant
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.pooling import pool
from s2txai.saliency.reliability import ceiling, half_correlation, spearman_brown
from s2txai.saliency.statistics import HALVES, MapOfFolds

MAIN = "main"
# The linear pooling: its correlations can be corrected for noise.
POOLING = "avg2d"
_DESIGN = ["n_segments", "p", "occluded_value", "n_masks"]


@dataclass(frozen=True)
class DesignMap:
    """SMX of one utterance in one design.

    Attributes
    ----------
    full
        The map at encoder steps [I, T'].
    halves
        Its half-maps [3, 2, I, T'].
    parameters
        How it was made.
    n_masks
        Number of its masks.
    """

    full: np.ndarray
    halves: np.ndarray
    parameters: Mapping[str, Any]
    n_masks: int

    @classmethod
    def of(
        cls,
        cells: MapOfFolds,
        *,
        subsampling: int,
        n_steps: int,
        parameters: Mapping[str, Any],
        n_masks: int,
    ) -> Self:
        """Pool the maps of cells that ``cells`` makes of some folds."""

        def at_steps(folds: Sequence[int]) -> np.ndarray:
            return pool(cells(folds), POOLING, subsampling, n_steps)

        halves = np.array([[at_steps(folds) for folds in pair] for pair in HALVES])
        return cls(at_steps(range(N_FOLDS)), halves, parameters, n_masks)


def sensitivity(
    aggregated: Sequence[UtteranceData],
    designs: Mapping[str, Sequence[DesignMap]],
    *,
    rows: str,
    estimator: str,
) -> pd.DataFrame:
    """Correlate attention with the input map of every design, and every design with the main one.

    Parameters
    ----------
    aggregated
        Aggregated maps of all utterances.
    designs
        Maps of the same utterances by the name of their design, :data:`MAIN` first.
    rows
        As for :func:`s2txai.analysis.token_rows.choose_rows`.
    estimator
        That made the maps, for the signature.

    Returns
    -------
    DataFrame
        One row per design and attention map (mean over all heads, mean over each layer's heads);
        see ``docs/results.md``.
    """
    correlated = [
        _of_utterance(data, {name: maps[n] for name, maps in designs.items()}, rows)
        for n, data in enumerate(aggregated)
    ]
    means = _corrected(_means(pd.concat(correlated, ignore_index=True)))
    facts = {name: _facts(maps) for name, maps in designs.items()}
    for column in _DESIGN:
        means[column] = [facts[name][column] for name in means["design"]]
    means["signature"] = [
        signature(
            metric=METRIC,
            normalise=NORMALISATION,
            rows=rows,
            pooling=POOLING,
            estimator=estimator,
            **facts[name],
        )
        for name in means["design"]
    ]
    with_attention = ["attention", "layer", "rho", "reliability", "ceiling", "rho_corrected"]
    with_main = ["rho_with_main", "rho_with_main_corrected"]
    return means[["design", *_DESIGN, *with_attention, *with_main, "n_utterances", "signature"]]


def _means(correlated: pd.DataFrame) -> pd.DataFrame:
    """Return means over utterances by design and attention map."""
    return (
        correlated.groupby(["design", "attention", "layer"], sort=False, dropna=False)
        .agg(
            rho=("rho", "mean"),
            half_correlation=("half_correlation", "mean"),
            rho_with_main=("rho_with_main", "mean"),
            across_halves=("across_halves", "mean"),
            n_utterances=("rho", "count"),
        )
        .reset_index()
    )


def _corrected(means: pd.DataFrame) -> pd.DataFrame:
    """Add reliability, ceiling and both corrected correlations."""
    table = means.copy()
    table["reliability"] = table["half_correlation"].map(spearman_brown)
    table["ceiling"] = table["reliability"].map(ceiling)
    table["rho_corrected"] = (table["rho"] / table["ceiling"]).where(table["ceiling"] > 0)
    # Designs with the same segments have the same masks, hence noise in common, and correlations of
    # their whole maps are too high. Halves of different folds share no mask.
    main = table.loc[table["design"] == MAIN, "half_correlation"].iloc[0]
    both = np.sqrt((main * table["half_correlation"]).clip(lower=0))
    table["rho_with_main_corrected"] = (table["across_halves"] / both).where(both > 0)
    return table


def _of_utterance(
    aggregated: UtteranceData, designs: Mapping[str, DesignMap], rows: str
) -> pd.DataFrame:
    candidates = choose_rows(rows, aggregated["pieces"].tolist(), aggregated["roles"].tolist())
    # The same rows for every design, so that they can be compared.
    constant = np.any([is_constant(design.full) for design in designs.values()], axis=0)
    used = candidates & ~constant
    layers = aggregated["ca_layer"][:, used]
    attention = np.concatenate([aggregated["ca_mean"][None, used], layers])
    names = [("ca_mean", None), *(("ca_layer", layer) for layer in range(len(layers)))]
    main = designs[MAIN]
    tables = []
    for name, design in designs.items():
        full, halves = design.full[used], design.halves[:, :, used]
        tables.append(
            pd.DataFrame(names, columns=["attention", "layer"])
            .astype({"layer": "Int64"})
            .assign(
                design=name,
                rho=[result.value for result in correlations(attention, full)],
                half_correlation=half_correlation(halves),
                rho_with_main=correlation(full, main.full[used]).value,
                across_halves=across_halves(halves, main.halves[:, :, used]),
            )
        )
    return pd.concat(tables, ignore_index=True)


def across_halves(halves: np.ndarray, other: np.ndarray) -> float:
    """Return the mean correlation of each half [3, 2, I, T'] with the other half of another map."""
    crossed = [
        correlation(a, b).value
        for (first, second), (other_first, other_second) in zip(halves, other, strict=True)
        for a, b in ((first, other_second), (second, other_first))
    ]
    return float(np.mean(crossed))


def _facts(maps: Sequence[DesignMap]) -> dict[str, Any]:
    """Return what a design's maps depend on."""
    parameters = dict(maps[0].parameters)
    levels = parameters.pop("n_segments")
    n_masks = spread([design.n_masks for design in maps])
    return {"n_segments": " ".join(str(n) for n in levels), **parameters, "n_masks": n_masks}
