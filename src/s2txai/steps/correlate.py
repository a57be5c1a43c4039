"""Step 5, correlate: how far attention agrees with saliency, over the utterances of a run."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from s2txai.analysis.correlations import CorrelationTables, correlate
from s2txai.steps.plain import computed_alike, utterance_data
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from s2txai.study.results import write_table

TABLES = ("reliability", "summary", "mixing", "best_heads", "masks", "rows", "classes")
OUTPUTS = ("utterances", "heads", *TABLES)


def correlate_run(
    run: Run,
    aggregated: Iterable[Artifact],
    outputs: Mapping[str, Path],
    *,
    poolings: Sequence[str],
    rows: str,
    seed: int,
) -> None:
    """Write the tables of a run under the names of :data:`OUTPUTS`.

    Parameters are those of :func:`correlation_tables`.
    """
    tables = correlation_tables(aggregated, poolings=poolings, rows=rows, seed=seed)
    # Single heads have a file of their own: of a large model they are most of the rows.
    is_head = tables.utterances["head"].notna()
    write_table(tables.utterances[~is_head], run, outputs["utterances"])
    write_table(tables.utterances[is_head], run, outputs["heads"])
    for name in TABLES:
        write_table(getattr(tables, name), run, outputs[name])


def correlation_tables(
    aggregated: Iterable[Artifact], *, poolings: Sequence[str], rows: str, seed: int = 0
) -> CorrelationTables:
    """Correlate the maps of ``aggregate`` artefacts, which are let go one by one.

    Parameters
    ----------
    aggregated
        Of all utterances.
    poolings, rows, seed
        As for :func:`s2txai.analysis.correlations.correlate`.

    Raises
    ------
    UserError
        If maps were made with different parameters.
    """
    utterances = map(utterance_data, computed_alike(aggregated))
    return correlate(utterances, poolings=poolings, rows=rows, seed=seed)
