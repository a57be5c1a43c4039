"""Step 1, decode: hypotheses and their token table."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from s2txai.datasets import Task, Utterance
from s2txai.log import Progress
from s2txai.models import decoding
from s2txai.steps.shard import Attempts, Workplace, keep, publish


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
        Longest utterance that the model accepts; None for any.
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
