"""Step 5, comparisons: models, tasks and layers over all runs of a study."""

from collections.abc import Iterable
from pathlib import Path

from s2txai.analysis.comparisons import comparisons
from s2txai.analysis.headline import headline_of_means
from s2txai.storage.artifacts import replacing
from s2txai.study.results import read_in_blocks, run_of


def comparisons_of_study(
    correlations: Iterable[Path], output: Path, *, pooling: str, seed: int
) -> None:
    """Write the paired comparisons of a study.

    Parameters
    ----------
    correlations
        ``correlate/utterances.csv`` of every run, in the order of the runs.
    output
        The table.
    pooling, seed
        As for :func:`s2txai.analysis.comparisons.comparisons`.
    """
    tables = {run_of(path): read_in_blocks(path, headline_of_means) for path in correlations}
    table = comparisons(tables, pooling=pooling, seed=seed)
    with replacing(output) as partial:
        table.to_csv(partial, index=False)
