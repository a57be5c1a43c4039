"""The order of a table's columns, and its rows as an array."""

from collections.abc import Sequence

import numpy as np
import pandas as pd


def with_last(table: pd.DataFrame, names: Sequence[str]) -> pd.DataFrame:
    """Move columns to the end."""
    return table[[*(name for name in table if name not in names), *names]]


def by_utterance(
    table: pd.DataFrame, column: str, keys: pd.DataFrame, utterances: Sequence[str]
) -> np.ndarray:
    """Return a column as an array [K, n], by the key of a row and its utterance.

    Parameters
    ----------
    table
        One row per key and utterance, in any order.
    column
        Whose values are returned.
    keys
        The K keys, in the order of the array; their columns are among those of the table.
    utterances
        The n ids, in the order of the array.

    Raises
    ------
    ValueError
        If a key or an utterance is unknown, missing or repeated.
    """
    names = list(keys.columns)
    # Numbered together, so that both have the same numbers; absent layers and heads are equal.
    together = pd.concat([keys, table[names]], ignore_index=True)
    numbers = together.groupby(names, sort=False, dropna=False).ngroup().to_numpy()
    of_key, of_row = numbers[: len(keys)], numbers[len(keys) :]
    of_utterance = pd.Index(utterances).get_indexer(table["utterance"])
    places = of_utterance * len(keys) + of_row
    if (
        (of_key != np.arange(len(keys))).any()
        or (of_row >= len(keys)).any()
        or (of_utterance < 0).any()
        or not np.array_equal(np.sort(places), np.arange(len(keys) * len(utterances)))
    ):
        raise ValueError(f"the rows of '{column}' are not one per key and utterance")
    values = np.empty((len(utterances), len(keys)))
    values[of_utterance, of_row] = table[column].to_numpy()
    # Utterances stay together in memory: sums over them depend on it in their last bits.
    return values.T
