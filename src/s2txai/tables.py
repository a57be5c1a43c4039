"""Reading all artefacts of a run, and writing its tables."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from s2txai.artifacts import Artifact, iter_shard
from s2txai.plan import Run

ROWS_AT_ONCE = 500_000

# For pandas: an id may look like a number, or like a missing one ("NA"); only an empty cell is.
AS_WRITTEN: Mapping[str, Any] = MappingProxyType(
    {"dtype": {"utterance": str}, "keep_default_na": False, "na_values": [""]}
)


def load_shards(run: Run, directories: Sequence[str | Path], step: str) -> list[Artifact]:
    """Return all of what :func:`iter_shards` yields."""
    return list(iter_shards(run, directories, step))


def iter_shards(run: Run, directories: Sequence[str | Path], step: str) -> Iterator[Artifact]:
    """Yield a step's artefact of every utterance, in the order of ``run.utterances``.

    Parameters
    ----------
    run
        Knows which utterances lie in which shard.
    directories
        One for each shard, in their order.
    step
        That made them.
    """
    for ids, directory in zip(run.shards.values(), directories, strict=True):
        yield from iter_shard(Path(directory), ids, step)


def read_headlines(path: str | Path) -> pd.DataFrame:
    """Return the headline of every utterance from ``correlate/utterances.csv``: no single heads.

    Read in blocks: with all heads and metrics a large data set has millions of rows.
    """
    blocks = pd.read_csv(path, **AS_WRITTEN, chunksize=ROWS_AT_ONCE)
    kept = [
        block[
            (block["metric"] == "pearson")
            & (block["normalise"] == "token")
            & block["attention"].isin(["ca_mean", "ca_layer"])
        ]
        for block in blocks
    ]
    return pd.concat(kept, ignore_index=True)


def write_table(table: pd.DataFrame, run: Run, path: Path) -> None:
    """Write a table as CSV or Parquet, by its name; each row led by dataset, model and task."""
    led = table.copy()
    for position, (name, value) in enumerate(
        zip(("dataset", "model", "task"), run.key, strict=True)
    ):
        led.insert(position, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        led.to_parquet(path, index=False)
    else:
        led.to_csv(path, index=False)
