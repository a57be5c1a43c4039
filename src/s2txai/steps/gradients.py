"""Step 3, gradients: saliency on the input by gradients, one artefact for each method."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from s2txai.log import Progress
from s2txai.models.memory import fitting_batch_size
from s2txai.registry import load_object
from s2txai.saliency.design import INPUT_VALUE, MaskDesign
from s2txai.saliency.engine import BatchSize
from s2txai.saliency.gradients import backward_pass, row_maps
from s2txai.saliency.heard import Heard
from s2txai.saliency.methods import METHODS
from s2txai.steps.masked import grow_shard
from s2txai.steps.shard import (
    Attempts,
    Workplace,
    keep,
    measured_on_largest,
    publish,
)
from s2txai.storage.artifacts import Artifact
from s2txai.storage.provenance import source_of

# In half precision gradients underflow unless the score is scaled.
PRECISION = "float32"

MAP_AXES = {"map": ["token", "frame", "frequency"], "subsampling": [], "n_steps": []}
MAP_UNITS = {"map": "nat", "subsampling": "frames per encoder step"}


def gradients_shard(
    place: Workplace,
    method: str,
    decoded: Sequence[Artifact],
    *,
    parameters: Mapping[str, Any],
    batch_size: int | str = "auto",
) -> None:
    """Attribute every utterance by one method.

    Parameters
    ----------
    place, method, decoded
        Where, a name of :data:`s2txai.saliency.methods.METHODS`, and the ``decode`` artefacts.
    parameters
        Of the method: of a sampled one the keys of a :class:`MaskDesign`.
    batch_size
        Masks, or points of the integral, for one forward pass; ``auto``: what fits into memory.
    """
    if METHODS[method].sampled:
        design = MaskDesign.of(parameters, seed=parameters["seed"])
        perturbation = load_object(METHODS[method].compute)
        grow_shard(place, method, perturbation, decoded, design, batch_size)
        return
    batch = BatchSize(batch_size)
    described = {**parameters, "occluded_value": INPUT_VALUE, "score": "log p"}
    with (
        Attempts(method, place.output, place.on_failure) as attempts,
        Progress(method, len(decoded), "utterances") as progress,
    ):
        for artifact in decoded:
            with attempts.of(artifact.meta["utterance"]):
                entry = keep(
                    place, method, source_of(artifact), described,
                    axes=MAP_AXES, units=MAP_UNITS,
                    compute=partial(_map, place, method, artifact, decoded, batch, parameters),
                )  # fmt: skip
                publish(place, entry, artifact.meta["utterance"])
            progress.add(1)


def _map(
    place: Workplace,
    method: str,
    artifact: Artifact,
    decoded: Sequence[Artifact],
    batch: BatchSize,
    parameters: Mapping[str, Any],
) -> dict[str, np.ndarray]:
    model, heard = place.model.model, Heard.of(artifact)
    size = batch.settle(partial(measured_on_largest, partial(_fitting, place), decoded))
    r = model.facts.subsampling
    return {
        "map": row_maps(model, heard, method, batch_size=size, **parameters),
        "subsampling": np.array(r),
        "n_steps": np.array(heard.n_steps(r)),
    }


def _fitting(place: Workplace, artifact: Artifact) -> int:
    """Return how many inputs of an utterance fit into memory, forward and backward."""
    model = place.model.model
    work = partial(backward_pass, model, Heard.of(artifact))
    return fitting_batch_size(model.device, work)
