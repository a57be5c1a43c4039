"""Timestamps: when the words of a run begin and end by every map, against alignments."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s2txai.analysis.word_times import TimingTables, timestamps
from s2txai.datasets import Diacritics, Utterance
from s2txai.steps.plain import computed_alike, utterance_data
from s2txai.storage.artifacts import Artifact, check_same_source
from s2txai.study.plan import Run
from s2txai.study.results import write_table

OUTPUTS = ("words", "utterances", "summary")


def timestamps_run(
    run: Run,
    aggregated: Sequence[Artifact],
    decoded: Sequence[Artifact],
    outputs: Mapping[str, Path],
) -> None:
    """Write the tables of a run of aligned utterances under the names of :data:`OUTPUTS`."""
    tables = timing_tables(run.utterances, aggregated, decoded, diacritics=run.diacritics)
    for name in OUTPUTS:
        write_table(getattr(tables, name), run, outputs[name])


def timing_tables(
    utterances: Sequence[Utterance],
    aggregated: Sequence[Artifact],
    decoded: Sequence[Artifact],
    *,
    diacritics: Diacritics = "kept",
) -> TimingTables:
    """Time the words of utterances with alignments.

    Parameters
    ----------
    utterances
        Rows of the manifest.
    aggregated, decoded
        Their ``aggregate`` and ``decode`` artefacts, in the same order.
    diacritics
        Of the words that are compared, see :func:`s2txai.analysis.word_times.timestamps`.

    Raises
    ------
    UserError
        If an alignment is missing or malformed, files of different hypotheses lie together, or maps
        were made with different parameters.
    """
    for maps, hypothesis in zip(aggregated, decoded, strict=True):
        check_same_source(hypothesis, maps)
    return timestamps(
        utterances,
        [utterance_data(artifact) for artifact in computed_alike(aggregated)],
        [utterance_data(artifact) for artifact in decoded],
        diacritics=diacritics,
    )
