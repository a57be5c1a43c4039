"""Do maps depend on what the model has learned?

The sanity check of Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (arXiv:1810.03292): maps
of a model whose weights were replaced by random ones, from the output down, must lose their
likeness to those of the trained model. A map that keeps it shows the input, not the model.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from s2txai.models.base import Model, n_steps
from s2txai.models.randomise import randomise
from s2txai.saliency.attention import extract
from s2txai.saliency.correlation import correlation
from s2txai.saliency.pooling import attention_maps, pool
from s2txai.saliency.segments import segmentations
from s2txai.saliency.smx import (
    Plan,
    accumulate,
    input_score,
    masks_per_segmentation,
    segmentation_names,
)
from s2txai.saliency.statistics import Statistics, heatmap


@dataclass(frozen=True)
class Speech:
    """An utterance and what the *trained* model says of it.

    Attributes
    ----------
    features, padding_value
        Input [T, F] and what follows it.
    prompt, tokens
        The hypothesis, teacher-forced on every model, so that rows stay the same.
    """

    features: np.ndarray
    padding_value: float
    prompt: list[int]
    tokens: list[int]


@dataclass(frozen=True)
class Design:
    """Masks of SMX: levels of segmentation, masks over all levels, their seed."""

    n_segments: Sequence[int]
    n_masks: int
    seed: int = 0
    batch_size: int = 16


def maps_of_model(model: Model, speech: Speech, design: Design) -> dict[str, np.ndarray]:
    """Return ``ca_mean``, ``ca_last`` and ``smx_avg2d`` [I, T'] of a model."""
    features, tokens = speech.features, speech.tokens
    attention = extract(model, features, speech.padding_value, speech.prompt, tokens)
    found = attention_maps(attention["cross_attention"])
    return {
        "ca_mean": found["ca_mean"],
        "ca_last": found["ca_layer"][-1],
        "smx_avg2d": _smx(model, speech, design),
    }


def _smx(model: Model, speech: Speech, design: Design) -> np.ndarray:
    features, r = speech.features, model.facts.subsampling
    steps = n_steps(len(features), r)
    segments = segmentations(features, design.n_segments, time_only=model.facts.time_only)
    statistics = Statistics.zeros(segments.labels, len(speech.tokens), r, steps)
    plan = Plan(
        seed=design.seed,
        utterance="sanity",
        names=segmentation_names(segments),
        sizes=segments.n_segments,
        n_masks=masks_per_segmentation(design.n_masks, segments),
        p=0.5,
    )
    score = input_score(
        model, features, speech.padding_value, speech.prompt, speech.tokens, segments
    )
    accumulate(
        statistics,
        score,
        plan,
        device=model.device,
        batch_size=design.batch_size,
        checkpoint=lambda _: None,
        progress=lambda _: None,
    )
    return pool(heatmap(statistics), "avg2d", r, steps)


def correlations_by_depth(
    load: Callable[[], Model],
    speech: Speech,
    depths: Sequence[int],
    design: Design,
    *,
    other: Design | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate maps of ever more randomised models with those of the trained one.

    Parameters
    ----------
    load
        Returns the trained model, anew each time: its weights are lost.
    speech
        What it hears and says.
    depths
        How many layers of ``model.layers()``, from the output, are randomised.
    design
        Masks of the trained model.
    other
        Masks of the randomised models; None: the same. With the same masks chance agreement of the
        scores is shared, so a correlation above 0 may be left; with others depth 0 tells how far
        the map repeats.
    seed
        Of the random weights.

    Returns
    -------
    DataFrame
        One row a depth and map: depth, map, rho (headline correlation; NaN where every row of a map
        is constant), n_rows.
    """
    trained = maps_of_model(load(), speech, design)
    rows = []
    for depth in depths:
        model = load()
        randomise(model, depth, seed=seed)
        for name, found in maps_of_model(model, speech, other or design).items():
            agreement = correlation(trained[name], found)
            rows.append((depth, name, agreement.value, agreement.n_rows))
    return pd.DataFrame(rows, columns=["depth", "map", "rho", "n_rows"])
