"""The headline row by row: which tokens attention explains, and where in the hypothesis."""

from collections.abc import Sequence
from itertools import product

import numpy as np
import pandas as pd

from s2txai.analysis.intervals import interval, resampled_row_means, resamples
from s2txai.analysis.token_rows import token_classes
from s2txai.analysis.utterance import UtteranceData
from s2txai.saliency.correlation import row_correlations

THIRDS = ("start", "middle", "end")
_MAP = ["attention", "layer", "saliency"]


def rows_of_utterance(
    data: UtteranceData, saliencies: Sequence[str], used: np.ndarray
) -> pd.DataFrame:
    """Return a line for each used row, attention map (all heads, each layer) and saliency map.

    Beside the correlation of the row, ``value``, stands how far half-maps of its saliency agree,
    ``half_correlation``: 1 where a map has no noise, NaN where a half-map is constant.

    Parameters
    ----------
    data
        Aggregated maps of the utterance.
    saliencies
        Names of its maps.
    used
        bool [I], the rows that the headline rests on.
    """
    n_rows = len(used)
    layers = data["ca_layer"]
    maps: list[tuple[str, int | None, np.ndarray]] = [("ca_mean", None, data["ca_mean"])]
    maps += [("ca_layer", layer, values) for layer, values in enumerate(layers)]
    classes = token_classes(*(data[name].tolist() for name in ("pieces", "roles", "word_index")))
    tokens = pd.DataFrame(
        {
            "utterance": data.utterance,
            "row": np.arange(n_rows),
            "piece": data["pieces"],
            "class": classes,
            "position": np.arange(n_rows) / max(n_rows - 1, 1),
        }
    )[used]
    halves = {name: _half_correlations(data, name, used) for name in saliencies}
    tables = [
        tokens.assign(
            attention=name,
            layer=pd.array([layer] * len(tokens), dtype="Int64"),
            saliency=saliency,
            value=row_correlations(values[used], data[saliency][used]),
            half_correlation=halves[saliency],
        )
        for saliency, (name, layer, values) in product(saliencies, maps)
    ]
    return pd.concat(tables, ignore_index=True)


def _half_correlations(data: UtteranceData, saliency: str, used: np.ndarray) -> np.ndarray:
    """Return the correlation [I'] of each used row's half-maps, mean over the splits."""
    if f"{saliency}_halves" not in data.arrays:
        return np.ones(used.sum())
    halves = data[f"{saliency}_halves"][:, :, used]  # (splits, 2, I', T')
    agreements = [row_correlations(first, second) for first, second in halves]
    return np.asarray(np.mean(agreements, axis=0))


def class_table(rows: pd.DataFrame, ids: Sequence[str], seed: int) -> pd.DataFrame:
    """Return the mean over rows by class of token and by third of the hypothesis.

    The mean of ``half_correlation`` says how far noise limits that of ``value``.

    Parameters
    ----------
    rows
        Of :func:`rows_of_utterance`, all utterances.
    ids
        The utterances; each resample draws from all of them.
    seed
        Of the resamples.
    """
    third = np.minimum((3 * rows["position"]).astype(int), 2)
    groups = {"class": rows["class"], "position": third.map(dict(enumerate(THIRDS)))}
    counts = resamples(len(ids), seed=seed)
    tables = [
        _group_means(part, ids, counts).assign(by=by, group=name)
        for by, names in groups.items()
        for name, part in rows.groupby(names, sort=False)
    ]
    columns = [*_MAP, "by", "group", "mean", "low", "high", "half_correlation", "n_rows",
               "n_utterances"]  # fmt: skip
    if not tables:
        return pd.DataFrame(columns=columns)
    return pd.concat(tables, ignore_index=True)[columns]


def _group_means(rows: pd.DataFrame, ids: Sequence[str], counts: np.ndarray) -> pd.DataFrame:
    """Return mean and interval of each map over the rows of one group."""
    maps = rows.groupby(_MAP, sort=False, dropna=False)
    # One line per row, one column per map: the same rows are drawn for all maps.
    wide = rows.assign(map=maps.ngroup()).pivot(
        index=["utterance", "row"], columns="map", values="value"
    )
    of_utterance = {str(name): part.to_numpy() for name, part in wide.groupby(level="utterance")}
    none = np.empty((0, wide.shape[1]))
    values = [of_utterance.get(name, none) for name in ids]
    n_utterances = sum(np.isfinite(of_rows).any(axis=0).astype(int) for of_rows in values)
    low, high = interval(resampled_row_means(values, counts).T, n_utterances)
    return (
        rows[_MAP]
        .drop_duplicates()
        .assign(
            mean=wide.mean().to_numpy(),
            low=low,
            high=high,
            half_correlation=maps["half_correlation"].mean().to_numpy(),
            n_rows=wide.count().to_numpy(),
            n_utterances=n_utterances,
        )
    )
