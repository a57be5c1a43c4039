"""Step 1, transcripts: how good the hypotheses of a run are."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from s2txai.analysis.scoring import score_names
from s2txai.analysis.transcripts import score_transcripts
from s2txai.datasets import Diacritics, Task, Utterance, reference
from s2txai.log import logger
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from s2txai.study.results import write_table


def transcripts_run(
    run: Run,
    decoded: Sequence[Artifact],
    outputs: Mapping[str, Path],
    *,
    text_normalisation: str,
    diacritics: Diacritics,
) -> None:
    """Write ``transcripts`` and ``scores`` of a run; see :func:`transcript_tables`."""
    transcripts, scores = transcript_tables(
        run.utterances,
        decoded,
        run.task,
        text_normalisation=text_normalisation,
        diacritics=diacritics,
    )
    write_table(transcripts, run, outputs["transcripts"])
    write_table(scores, run, outputs["scores"])


def transcript_tables(
    utterances: Sequence[Utterance],
    decoded: Sequence[Artifact],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Score hypotheses, and warn of those that are as bad as none.

    Parameters
    ----------
    utterances, decoded
        Rows of the manifest and their ``decode`` artefacts, in the same order.
    task, text_normalisation, diacritics
        As for :func:`s2txai.analysis.transcripts.score_transcripts`, which says what is returned.
    """
    transcripts, scores = score_transcripts(
        {artifact.meta["utterance"]: str(artifact["text"]) for artifact in decoded},
        [reference(utterance, task) for utterance in utterances],
        task,
        text_normalisation=text_normalisation,
        diacritics=diacritics,
        decoding=decoded[0].meta["parameters"],
    )
    at_limit = [_is_at_limit(artifact) for artifact in decoded]
    transcripts.insert(transcripts.columns.get_loc("hypothesis") + 1, "at_limit", at_limit)
    _warn_of_no_speech(transcripts, utterances, task)
    _warn_of_limit(transcripts)
    return transcripts, scores


def _is_at_limit(decoded: Artifact) -> bool:
    # Files of before lack the array: there, such a hypothesis has no end.
    if "at_limit" in decoded.arrays:
        return bool(decoded["at_limit"])
    return "eos" not in decoded["roles"]


def _warn_of_limit(transcripts: pd.DataFrame) -> None:
    """Name hypotheses that the length of the decoder may have cut off."""
    cut = transcripts.loc[transcripts["at_limit"], "utterance"].tolist()
    if cut:
        logger.warning(
            "%d of %d hypotheses reach the most tokens that the model can predict, so that their "
            "ends may be missing, or are repetitions: %s. Cut long recordings into shorter "
            "utterances.",
            len(cut), len(transcripts), ", ".join(cut[:5]) + (", ..." if len(cut) > 5 else ""),
        )  # fmt: skip


def _warn_of_no_speech(
    transcripts: pd.DataFrame, utterances: Sequence[Utterance], task: Task
) -> None:
    """Name hypotheses that are as bad as none, whatever the cause."""
    for row, utterance in zip(transcripts.to_dict("records"), utterances, strict=True):
        is_wrong = task.kind == "asr" and row[score_names(task)[0]] >= 100
        if is_wrong or not row["hypothesis"].strip():
            logger.warning(
                "The hypothesis of '%s' is no better than an empty one: %r. The model, the "
                "recording %s or its reference in '%s' may be the cause; compare the three before "
                "you use this utterance's results.",
                utterance.id, row["hypothesis"][:60], str(utterance.path), task.target,
            )  # fmt: skip
