"""Do maps depend on what the model has learned?

The sanity check of Adebayo et al. 2018, "Sanity Checks for Saliency Maps" (arXiv:1810.03292): maps
of a model whose weights were replaced by random ones, from the output down, must lose their
likeness to those of the trained model. A map that keeps it shows the input, not the model.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from s2txai.models.base import Model
from s2txai.models.randomise import randomise
from s2txai.saliency.aggregation import attention_maps
from s2txai.saliency.attention import attention
from s2txai.saliency.correlation import correlation
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.pooling import pool
from s2txai.saliency.smx import smx
from s2txai.saliency.statistics import heatmap

# Part of the key of the masks.
UTTERANCE = "sanity"


def maps_of_model(
    model: Model, heard: Heard, design: MaskDesign, *, batch_size: int | str = 16
) -> dict[str, np.ndarray]:
    """Return ``ca_mean``, ``ca_last`` and ``smx_avg2d`` [I, T'] of a model."""
    heads = attention_maps(attention(model, heard)["cross_attention"])
    statistics = smx(model, heard, design, utterance=UTTERANCE, batch_size=batch_size)
    r = model.facts.subsampling
    return {
        "ca_mean": heads["ca_mean"],
        "ca_last": heads["ca_layer"][-1],
        "smx_avg2d": pool(heatmap(statistics), "avg2d", r, heard.n_steps(r)),
    }


def correlations_by_depth(
    load: Callable[[], Model],
    heard: Heard,
    depths: Sequence[int],
    design: MaskDesign,
    *,
    other: MaskDesign | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Correlate maps of ever more randomised models with those of the trained one.

    Parameters
    ----------
    load
        Returns the trained model, anew each time: its weights are lost.
    heard
        Input, and the hypothesis of the *trained* model, teacher-forced on every model, so that
        rows stay the same.
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
        One row per depth and map: depth, map, rho (headline correlation; NaN where every row of a
        map is constant), n_rows.
    """
    trained = maps_of_model(load(), heard, design)
    rows = []
    for depth in depths:
        model = load()
        randomise(model, depth, seed=seed)
        for name, values in maps_of_model(model, heard, other or design).items():
            agreement = correlation(trained[name], values)
            rows.append((depth, name, agreement.value, agreement.n_rows))
    return pd.DataFrame(rows, columns=["depth", "map", "rho", "n_rows"])
