"""Step 6, deletion_curves: how fast the model of a run fails along each map."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s2txai.analysis.comet import comet
from s2txai.analysis.deletion_curves import NO_SCORES, DeletionTables, score_deletion
from s2txai.analysis.scoring import Score
from s2txai.datasets import Diacritics, Task, reference
from s2txai.steps.plain import utterance_data
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from s2txai.study.results import write_table

OUTPUTS = ("curves", "auc", "size")


def deletion_curves_run(
    run: Run,
    deleted: Sequence[Artifact],
    outputs: Mapping[str, Path],
    *,
    text_normalisation: str,
    diacritics: Diacritics,
    comet_checkpoint: Path | None = None,
    seed: int,
) -> None:
    """Write the tables of a run under the names of :data:`OUTPUTS`.

    Parameters
    ----------
    run
        Whose utterances are scored.
    deleted
        Their ``deletion`` artefacts, in the same order.
    outputs
        Paths of the tables.
    text_normalisation, diacritics, seed
        As for :func:`s2txai.analysis.deletion_curves.score_deletion`.
    comet_checkpoint
        Model by which translations are scored as well.
    """
    further_scores = {}
    if comet_checkpoint is not None:
        sources = [utterance.transcript for utterance in run.utterances]
        further_scores["comet"] = comet(comet_checkpoint, sources)
    tables = deletion_tables(
        [reference(utterance, run.task) for utterance in run.utterances],
        deleted,
        run.task,
        text_normalisation=text_normalisation,
        diacritics=diacritics,
        further_scores=further_scores,
        seed=seed,
    )
    write_table(tables.curves, run, outputs["curves"])
    write_table(tables.areas, run, outputs["auc"])
    write_table(tables.sizes, run, outputs["size"])


def deletion_tables(
    references: Sequence[str],
    deleted: Sequence[Artifact],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
    further_scores: Mapping[str, Score] = NO_SCORES,
    seed: int = 0,
) -> DeletionTables:
    """Score ``deletion`` artefacts; see :func:`s2txai.analysis.deletion_curves.score_deletion`."""
    return score_deletion(
        references,
        [utterance_data(artifact) for artifact in deleted],
        task,
        text_normalisation=text_normalisation,
        diacritics=diacritics,
        further_scores=further_scores,
        seed=seed,
    )
