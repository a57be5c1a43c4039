"""Step 1, decode: hypotheses, their token table, and how good they are."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.scoring import corpus_score, score_names, score_signature
from s2txai.datasets import Diacritics, Task, Utterance, reference
from s2txai.log import Progress, logger
from s2txai.models import decoding
from s2txai.steps.shard import Attempts, Workplace, keep, publish
from s2txai.storage.artifacts import Artifact


def decode_shard(
    place: Workplace,
    utterances: Sequence[Utterance],
    task: Task,
    *,
    beam: int,
    max_seconds: float | None = None,
) -> None:
    """Decode every utterance of a shard; see :func:`s2txai.models.decoding.decode`.

    Parameters
    ----------
    place, utterances, task, beam
        Where, what, and how.
    max_seconds
        Longest utterance that the model hears; None for any.
    """
    with (
        Attempts("decode", place.output, place.on_failure) as attempts,
        Progress(f"decode {task.name}", len(utterances), "utterances") as progress,
    ):
        for utterance in utterances:
            with attempts.of(utterance.id):
                utterance.check(max_seconds)
                _decode_utterance(place, utterance, task, beam)
            progress.add(1)


def _decode_utterance(place: Workplace, utterance: Utterance, task: Task, beam: int) -> None:
    source = {
        "utterance": utterance.id,
        "model_sha256": place.model.sha256,
        "audio_sha256": utterance.audio_sha256(),
        "task": task.name,
    }
    entry = keep(
        place, "decode", source, {"beam": beam},
        axes=decoding.AXES, units=decoding.UNITS,
        compute=partial(_decode, place, utterance, task, beam),
    )  # fmt: skip
    publish(place, entry, utterance.id)


def _decode(place: Workplace, utterance: Utterance, task: Task, beam: int) -> dict[str, np.ndarray]:
    model = place.model.model
    audio = utterance.read(model.facts.sampling_rate)
    return decoding.decode(model, audio, task, beam=beam)


def score_transcripts(
    utterances: Sequence[Utterance],
    decoded: Sequence[Artifact],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the hypotheses of a whole dataset with the human references.

    Parameters
    ----------
    utterances, decoded
        Rows of the manifest and their ``decode`` artefacts, in the same order.
    task
        What was decoded.
    text_normalisation
        A name of :data:`s2txai.analysis.scoring.TEXT_NORMALISERS`.
    diacritics
        ``kept`` or ``folded`` in both texts.

    Returns
    -------
    transcripts, scores
        One row an utterance, and one row a corpus score with its signature.
    """
    options: dict[str, Any] = {
        "text_normalisation": text_normalisation,
        "language": task.target,
        "diacritics": diacritics,
    }
    references = [reference(utterance, task) for utterance in utterances]
    hypotheses = [str(artifact["text"]) for artifact in decoded]
    first = score_names(task)[0]
    transcripts = pd.DataFrame(
        {
            "utterance": [utterance.id for utterance in utterances],
            "reference": references,
            "hypothesis": hypotheses,
            first: [
                corpus_score(first, [human], [machine], **options)
                for human, machine in zip(references, hypotheses, strict=True)
            ],
        }
    )
    _warn_of_no_speech(transcripts, utterances, task)
    scores = pd.DataFrame(
        [
            {
                "metric": name,
                "score": corpus_score(name, references, hypotheses, **options),
                "n_utterances": len(references),
                "signature": score_signature(
                    name, reference="human", **options, **decoded[0].meta["parameters"]
                ),
            }
            for name in score_names(task)
        ]
    )
    return transcripts, scores


def _warn_of_no_speech(
    transcripts: pd.DataFrame, utterances: Sequence[Utterance], task: Task
) -> None:
    """Tell of hypotheses that are as bad as none: the recording may not be what it should."""
    for row, utterance in zip(transcripts.to_dict("records"), utterances, strict=True):
        wrong = task.kind == "asr" and row["wer"] >= 100
        if wrong or not row["hypothesis"].strip():
            logger.warning(
                "The hypothesis of '%s' is as wrong as an empty one: %r; listen whether %s holds "
                "speech in '%s' that fits the reference, and leave the utterance out if not.",
                utterance.id, row["hypothesis"][:60], str(utterance.path), task.source,
            )  # fmt: skip
