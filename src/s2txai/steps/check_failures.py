"""The end of a study: an error if an utterance failed."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from s2txai.errors import UserError


def check_failures(paths: Sequence[Path]) -> None:
    """Refuse a study in which utterances failed.

    Parameters
    ----------
    paths
        ``failures.tsv`` of every run.

    Raises
    ------
    UserError
        If one of them has a row: how many there are, where they are listed, and the first.
    """
    tables = {path: pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False) for path in paths}
    failed = {path: table for path, table in tables.items() if len(table)}
    if not failed:
        return
    n = sum(map(len, failed.values()))
    first = next(iter(failed.values())).iloc[0]
    raise UserError(
        f"Not every utterance could be processed: {n:,} failed, listed in the report and in "
        f"{', '.join(map(str, failed))}; docs/workflow.md says how to go on. The first is "
        f"'{first['utterance']}' in {first['step']}: {first['message']}"
    )
