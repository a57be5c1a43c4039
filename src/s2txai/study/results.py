"""Reading all artefacts of a run, and writing its tables."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pandas as pd

from s2txai.errors import UserError
from s2txai.storage.artifacts import Artifact, iter_shard, replacing
from s2txai.storage.failures import Failure, failures, first_of_each
from s2txai.study.plan import Key, Run

ROWS_AT_ONCE = 500_000

# For pandas: an id may look like a number, or like a missing one ("NA"); only an empty cell is.
AS_WRITTEN: Mapping[str, Any] = MappingProxyType(
    {"dtype": {"utterance": str}, "keep_default_na": False, "na_values": [""]}
)


def without_failed(run: Run, directories: Iterable[str | Path]) -> Run:
    """Return the run with no other utterances than those that are in all directories.

    Parameters
    ----------
    run
        As it was planned.
    directories
        Of its shards, at one step or several.
    """
    failed = failures_of(run, directories)
    rest = run.only({utterance.id for utterance in run.utterances} - failed.keys())
    return replace(
        rest, failed=tuple(utterance for utterance in run.utterances if utterance.id in failed)
    )


def remaining(run: Run, directories: Sequence[str | Path]) -> Run:
    """Return a run as :func:`without_failed`; refuse one in which every utterance failed.

    Raises
    ------
    UserError
        If all did; with the first failure.
    """
    rest = without_failed(run, directories)
    if not rest.utterances:
        first = next(iter(failures_of(run, directories).values()))
        raise UserError(
            f"{'/'.join(run.key)}: none of {len(run.utterances):,} utterances could be processed, "
            f"so there are no results; '{first.utterance}' failed in {first.step}: {first.message}"
        )
    return rest


def failures_of(run: Run, directories: Iterable[str | Path]) -> dict[str, Failure]:
    """Return the failures in the directories of a run's shards, by the ids of the utterances."""
    return first_of_each(
        failure
        for directory in map(Path, directories)
        for failure in failures(directory, run.shards[directory.name])
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
        One for each shard, of its name.
    step
        That made them.

    Raises
    ------
    ValueError
        If the directories are not those of the run's shards.
    """
    directory_of = {Path(directory).name: Path(directory) for directory in directories}
    if directory_of.keys() != run.shards.keys():
        raise ValueError(
            f"directories of the shards {', '.join(directory_of)}, not {', '.join(run.shards)}"
        )
    for shard, ids in run.shards.items():
        yield from iter_shard(directory_of[shard], ids, step)


def run_of(table: Path) -> Key:
    """Return the run that a table of :func:`write_table` is of: it names it in each row."""
    first = pd.read_csv(table, dtype=str, keep_default_na=False, nrows=1).iloc[0]
    return first["dataset"], first["model"], first["task"]


def read_in_blocks(
    path: str | Path, select: Callable[[pd.DataFrame], pd.DataFrame]
) -> pd.DataFrame:
    """Return the rows of a long table that ``select`` takes from each block of it.

    Read in blocks: with all layers and metrics a large dataset has millions of rows.
    """
    blocks = pd.read_csv(path, **AS_WRITTEN, chunksize=ROWS_AT_ONCE)
    return pd.concat([select(block) for block in blocks], ignore_index=True)


def write_table(table: pd.DataFrame, run: Run, path: Path) -> None:
    """Write a table as CSV, TSV or Parquet, by its name; each row led by dataset, model and task.

    Beside a number of utterances stands how many more failed.
    """
    led = table.copy()
    if "n_utterances" in led:
        place = led.columns.get_loc("n_utterances") + 1
        led.insert(place, "n_failed_utterances", len(run.failed))
    for position, (name, value) in enumerate(
        zip(("dataset", "model", "task"), run.key, strict=True)
    ):
        led.insert(position, name, value)
    with replacing(path) as partial:
        if path.suffix == ".parquet":
            led.to_parquet(partial, index=False)
        else:
            led.to_csv(partial, index=False, sep="\t" if path.suffix == ".tsv" else ",")
