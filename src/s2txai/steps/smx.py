"""Step 3, smx: saliency on the input spectrogram by SPES."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from s2txai.artifacts import Artifact
from s2txai.models.base import Model, n_steps
from s2txai.saliency.segments import Segmentations, segmentations
from s2txai.saliency.spes import (
    Plan,
    Score,
    input_score,
    masks_per_segmentation,
    segmentation_names,
)
from s2txai.saliency.statistics import Statistics
from s2txai.steps.masked import grow
from s2txai.steps.shard import Workplace, features_of, hypothesis_of


def smx_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    *,
    n_segments: Sequence[int],
    n_masks: int,
    p: float,
    seed: int,
    batch_size: int,
) -> None:
    """Run SPES on every utterance.

    Parameters
    ----------
    place, decoded
        Where, and the ``decode`` artefacts.
    n_segments
        Levels of segmentation, in segments for 500 frames.
    n_masks
        Masks for one utterance, dealt evenly over the levels.
    p
        Probability that a segment is occluded.
    seed
        Of the masks.
    batch_size
        Masks for one forward pass.
    """
    parameters = {
        "n_segments": list(n_segments),
        "p": p,
        "seed": seed,
        "occluded_value": "bin mean",
        "score": "KL",
    }
    for artifact in decoded:
        features, padding_value = features_of(artifact)
        segments = segmentations(features, n_segments)
        plan = Plan(
            seed=seed,
            utterance=artifact.meta["utterance"],
            names=segmentation_names(segments),
            sizes=segments.n_segments,
            n_masks=masks_per_segmentation(n_masks, segments),
            p=p,
        )
        prepare = partial(_prepare, features, padding_value, *hypothesis_of(artifact), segments)
        grow(
            place, "smx", artifact, parameters,
            prepare=prepare, plan=plan, batch_size=batch_size,
        )  # fmt: skip


def _prepare(
    features: np.ndarray,
    padding_value: float,
    prompt: list[int],
    tokens: list[int],
    segments: Segmentations,
    model: Model,
) -> tuple[Statistics, Score]:
    subsampling = model.facts.subsampling
    steps = n_steps(len(features), subsampling)
    return (
        Statistics.zeros(segments.labels, len(tokens), subsampling, steps),
        input_score(model, features, padding_value, prompt, tokens, segments),
    )
