"""Step 2, attention: cross-attention of every layer and head on the model's own hypothesis."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from s2txai.log import Progress
from s2txai.saliency import attention
from s2txai.saliency.heard import Heard
from s2txai.steps.shard import Attempts, Workplace, keep, publish
from s2txai.storage.artifacts import Artifact
from s2txai.storage.provenance import source_of


def attention_shard(place: Workplace, decoded: Sequence[Artifact]) -> None:
    """Extract the attention of every utterance; see :func:`s2txai.saliency.attention.attention`."""
    with (
        Attempts("attention", place.output, place.on_failure) as attempts,
        Progress("attention", len(decoded), "utterances") as progress,
    ):
        for artifact in decoded:
            with attempts.of(artifact.meta["utterance"]):
                entry = keep(
                    place, "attention", source_of(artifact), {},
                    axes=attention.AXES, units=attention.UNITS,
                    compute=partial(_extract, place, artifact),
                )  # fmt: skip
                publish(place, entry, artifact.meta["utterance"])
            progress.add(1)


def _extract(place: Workplace, decoded: Artifact) -> dict[str, np.ndarray]:
    return attention.attention(place.model.model, Heard.of(decoded))
