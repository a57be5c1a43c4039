"""Step 5, comparisons: models, tasks and layers over all runs of a study."""

from collections.abc import Mapping
from pathlib import Path

from s2txai.analysis.comparisons import Key, comparisons
from s2txai.analysis.headline import headline_of_means
from s2txai.storage.artifacts import replacing
from s2txai.study.results import read_in_blocks


def comparisons_of_study(
    correlations: Mapping[Key, Path], output: Path, *, pooling: str, seed: int
) -> None:
    """Write the paired comparisons of a study.

    Parameters
    ----------
    correlations
        ``correlate/utterances.csv`` of every run.
    output
        The table.
    pooling, seed
        As for :func:`s2txai.analysis.comparisons.comparisons`.
    """
    tables = {key: read_in_blocks(path, headline_of_means) for key, path in correlations.items()}
    table = comparisons(tables, pooling=pooling, seed=seed)
    with replacing(output) as partial:
        table.to_csv(partial, index=False)
