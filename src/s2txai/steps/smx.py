"""Step 3, smx: saliency on the input spectrogram by SPES."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np

from s2txai.models.base import Model, n_steps
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.segments import Segmentations, segmentations
from s2txai.saliency.smx import (
    Plan,
    Score,
    input_score,
    masks_per_segmentation,
    segmentation_names,
)
from s2txai.saliency.statistics import Statistics
from s2txai.steps.masked import Effort, Job, grow_shard
from s2txai.steps.shard import Workplace, features_of, hypothesis_of
from s2txai.storage.artifacts import Artifact


def smx_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    *,
    n_segments: Sequence[int],
    n_masks: int,
    p: float,
    seed: int,
    batch_size: int | str = "auto",
    target_reliability: float | None = None,
    max_masks: int | None = None,
    estimator: str = "mean",
    token_p: float = 0.0,
    occluded_value: str = "bin mean",
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
        Masks for one forward pass; ``auto``: what fits into memory.
    target_reliability
        Of the map at encoder steps; masks are added, ``n_masks`` at a time, until it is reached or
        there are ``max_masks``. None: ``n_masks`` are enough.
    max_masks
        At least ``n_masks``; needed with a target.
    estimator
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS`, for which sums are kept.
    token_p
        Probability that a mask occludes the embedding of a preceding token, too.
    occluded_value
        A name of :data:`s2txai.saliency.baselines.OCCLUDED_VALUES`.
    """
    effort = Effort(
        batch_size,
        target_reliability or 0.0,
        most=(max_masks or n_masks) / n_masks,
        logarithms=ESTIMATORS[estimator].logarithms,
    )
    parameters: dict[str, Any] = {
        "n_segments": list(n_segments),
        "p": p,
        "seed": seed,
        "occluded_value": occluded_value,
        "score": "KL",
    }
    if token_p:
        parameters["token_p"] = token_p

    def job_of(artifact: Artifact) -> Job:
        features, padding_value = features_of(artifact)
        segments = segmentations(features, n_segments, time_only=bool(artifact["time_only"]))
        plan = Plan(
            seed=seed,
            utterance=artifact.meta["utterance"],
            names=segmentation_names(segments),
            sizes=segments.n_segments,
            n_masks=masks_per_segmentation(n_masks, segments),
            p=p,
            token_p=token_p,
        )
        prepare = partial(
            _prepare,
            features,
            padding_value,
            *hypothesis_of(artifact),
            segments,
            occluded_value,
            {"logarithms": effort.logarithms, "tokens": token_p > 0},
        )
        return Job(artifact, prepare, plan)

    grow_shard(place, "smx", parameters, decoded, job_of, effort)


def _prepare(
    features: np.ndarray,
    padding_value: float,
    prompt: list[int],
    tokens: list[int],
    segments: Segmentations,
    occluded_value: str,
    kept: dict[str, bool],
    model: Model,
) -> tuple[Statistics, Score]:
    subsampling = model.facts.subsampling
    steps = n_steps(len(features), subsampling)
    return (
        Statistics.zeros(segments.labels, len(tokens), subsampling, steps, **kept),
        input_score(model, features, padding_value, prompt, tokens, segments, occluded_value),
    )
