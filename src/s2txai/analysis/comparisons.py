"""Paired comparisons over a study: do models, tasks or layers differ by more than chance?"""

from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise
from typing import Any

import pandas as pd

from s2txai.analysis.headline import headline_of_means
from s2txai.analysis.intervals import holm, mean_and_interval, paired_p_value

COLUMNS = [
    "comparison", "dataset", "model_a", "task_a", "attention_a", "layer_a", "model_b", "task_b",
    "attention_b", "layer_b", "saliency", "rho_a", "rho_b", "difference", "difference_low",
    "difference_high", "p_value", "p_holm", "n_utterances", "signature_a", "signature_b",
]  # fmt: skip

Key = tuple[str, str, str]  # dataset, model, task
Side = tuple[Key, str, int | None]  # run, attention, layer


def comparisons(utterances: Mapping[Key, pd.DataFrame], *, pooling: str, seed: int) -> pd.DataFrame:
    """Compare the headline of runs and layers over the utterances that they share.

    Parameters
    ----------
    utterances
        Correlations of every run, one row per utterance, attention map, saliency map and variant.
    pooling
        Of the SMX that stands for the input.
    seed
        Of resamples and random signs.

    Returns
    -------
    DataFrame
        Models of a dataset and task; tasks of a dataset and model; layers of a run, neighbours
        and first against last. ``difference`` is b minus a; p-values are adjusted within each kind
        of comparison (Holm).
    """
    headlines = {key: headline_of_means(table) for key, table in utterances.items()}
    saliencies = (f"smx_{pooling}", "smh")
    rows = [
        row
        for kind, a, b in _pairs(headlines)
        for saliency in saliencies
        if (row := _compare(headlines, kind, a, b, saliency, seed)) is not None
    ]
    table = pd.DataFrame(rows, columns=COLUMNS)
    for places in table.groupby("comparison").groups.values():
        table.loc[places, "p_holm"] = holm(table.loc[places, "p_value"].to_numpy(dtype=float))
    return table.astype({"layer_a": "Int64", "layer_b": "Int64"})


def _pairs(headlines: Mapping[Key, pd.DataFrame]) -> Iterator[tuple[str, Side, Side]]:
    for a, b in combinations(headlines, 2):
        (dataset_a, model_a, task_a), (dataset_b, model_b, task_b) = a, b
        if dataset_a != dataset_b:
            continue
        if task_a == task_b:
            yield "models", (a, "ca_mean", None), (b, "ca_mean", None)
        elif model_a == model_b:
            yield "tasks", (a, "ca_mean", None), (b, "ca_mean", None)
    for key, table in headlines.items():
        layers = sorted(int(layer) for layer in table["layer"].dropna().unique())
        ends = [(layers[0], layers[-1])] if len(layers) > 2 else []
        for first, second in [*pairwise(layers), *ends]:
            yield "layers", (key, "ca_layer", first), (key, "ca_layer", second)


def _compare(
    headlines: Mapping[Key, pd.DataFrame], kind: str, a: Side, b: Side, saliency: str, seed: int
) -> dict[str, Any] | None:
    """Return a row; None where the two share no utterance."""
    rows_a, rows_b = (_rows(headlines[side[0]], side, saliency) for side in (a, b))
    both = rows_a.join(rows_b, suffixes=("_a", "_b"), how="inner")
    both = both.dropna(subset=["value_a", "value_b"])
    if both.empty:
        return None
    differences = (both["value_b"] - both["value_a"]).to_numpy()
    mean, low, high = mean_and_interval(differences, seed=seed)
    return {
        "comparison": kind,
        "dataset": a[0][0],
        **_named("a", a),
        **_named("b", b),
        "saliency": saliency,
        "rho_a": both["value_a"].mean(),
        "rho_b": both["value_b"].mean(),
        "difference": mean,
        "difference_low": low,
        "difference_high": high,
        "p_value": paired_p_value(differences, seed=seed),
        "n_utterances": len(both),
        "signature_a": both["signature_a"].iloc[0],
        "signature_b": both["signature_b"].iloc[0],
    }


def _rows(table: pd.DataFrame, side: Side, saliency: str) -> pd.DataFrame:
    _, attention, layer = side
    of_side = (table["attention"] == attention) & (table["saliency"] == saliency)
    if layer is not None:
        of_side &= table["layer"] == layer
    return table[of_side].set_index("utterance")[["value", "signature"]]


def _named(side: str, of: Side) -> dict[str, Any]:
    (_, model, task), attention, layer = of
    return {
        f"model_{side}": model,
        f"task_{side}": task,
        f"attention_{side}": attention,
        f"layer_{side}": layer,
    }
