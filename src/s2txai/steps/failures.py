"""The table of utterances that a step failed on."""

from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from s2txai.study.plan import Run
from s2txai.study.results import failures_of, write_table


def list_failures(run: Run, directories: Iterable[str | Path], output: Path) -> None:
    """Write one row per utterance that failed, in the order of the run; see `docs/results.md`.

    Parameters
    ----------
    run
        As it was planned.
    directories
        Of its shards, at the steps that no later step reads.
    output
        The table, TSV.
    """
    write_table(failures_table(run, directories), run, output)


def failures_table(run: Run, directories: Iterable[str | Path]) -> pd.DataFrame:
    """Return utterance, step, audio and message of every utterance that failed."""
    failures = failures_of(run, directories)
    rows = [
        (
            utterance.id,
            failures[utterance.id].step,
            str(utterance.path),
            failures[utterance.id].message,
        )
        for utterance in run.utterances
        if utterance.id in failures
    ]
    return pd.DataFrame(rows, columns=["utterance", "step", "audio", "message"])
