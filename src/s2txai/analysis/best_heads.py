"""The head that agrees best with each saliency map, chosen where it is not judged."""

import pandas as pd

from s2txai.analysis.ceilings import corrected, with_ceiling
from s2txai.analysis.columns import with_last
from s2txai.analysis.headline import headline
from s2txai.analysis.intervals import mean_and_interval


def best_heads(utterances: pd.DataFrame, reliability: pd.DataFrame, seed: int) -> pd.DataFrame:
    """Return the head that agrees best with each saliency map, with a held-out value.

    Each utterance is judged by the head that does best on all others; the mean over utterances is
    what a head chosen on other speech can be expected to reach. Headline metric, with the ceiling
    that the noise of the saliency map sets to every head.

    Parameters
    ----------
    utterances, reliability
        Of :class:`s2txai.analysis.correlations.CorrelationTables`.
    seed
        Of the resamples behind the intervals.
    """
    heads = headline(utterances[utterances["attention"] == "ca_head"])
    best = [
        {"saliency": saliency, **_best_head(rows, seed)}
        for saliency, rows in heads.groupby("saliency", sort=False)
    ]
    table = pd.DataFrame(best).astype({"layer": "Int64", "head": "Int64"})
    ceilings = with_ceiling(headline(reliability))
    columns = ["saliency", "reliability", "ceiling", "ceiling_kind"]
    table = table.merge(ceilings[columns], on="saliency", how="left")
    table["rho_held_out_corrected"] = corrected(table, "rho_held_out")
    beside = ["reliability", "ceiling", "rho_held_out_corrected", "ceiling_kind"]
    return with_last(table, [*beside, "n_heads_chosen", "n_utterances", "signature"])


def _best_head(rows: pd.DataFrame, seed: int) -> dict[str, object]:
    """Return the best head of one saliency map, whose rows are per head and utterance."""
    # One row per head, one column per utterance in which every head has a value.
    values = rows.pivot_table(
        index=["layer", "head"], columns="utterance", values="value", sort=False
    ).dropna(axis=1)
    means = values.mean(axis=1)
    held_out = _best_of_others(values)
    rho, low, high = mean_and_interval(
        [values.at[head, utterance] for utterance, head in held_out.items()], seed=seed
    )
    layer, head = means.idxmax() if len(means.dropna()) else (pd.NA, pd.NA)
    return {
        "layer": layer,
        "head": head,
        "rho": means.max(),
        "rho_held_out": rho,
        "rho_held_out_low": low,
        "rho_held_out_high": high,
        "n_heads_chosen": len(set(held_out.values())),
        "n_utterances": values.shape[1],
        "signature": rows["signature"].iloc[0],
    }


def _best_of_others(values: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return for each utterance the head [layer, head] that does best on all others."""
    if values.shape[1] < 2:
        return {}
    others = values.sum(axis=1).to_numpy()[:, None] - values.to_numpy()
    best = others.argmax(axis=0)
    return {name: values.index[row] for name, row in zip(values.columns, best, strict=True)}
