"""Step 3, smh: saliency on encoder outputs, decoder passes only."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from s2txai.models.base import Model, n_steps
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.smh import SEGMENTATION, state_score, step_segments
from s2txai.saliency.smx import Plan, Score
from s2txai.saliency.statistics import Statistics
from s2txai.steps.masked import Effort, Job, grow_shard
from s2txai.steps.shard import Workplace, features_of, hypothesis_of
from s2txai.storage.artifacts import Artifact


def smh_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    *,
    n_masks: int,
    p: float,
    seed: int,
    batch_size: int | str = "auto",
    target_reliability: float | None = None,
    max_masks: int | None = None,
    estimator: str = "mean",
    occluded_value: str = "zero",
) -> None:
    """Perturb the encoder output of every utterance.

    Parameters
    ----------
    place, decoded
        Where, and the ``decode`` artefacts.
    n_masks
        Masks for one utterance.
    p
        Probability that an encoder step is occluded.
    seed
        Of the masks.
    batch_size
        Masks for one decoder pass; ``auto``: what fits into memory.
    target_reliability
        Of the map at encoder steps; masks are added, ``n_masks`` at a time, until it is reached or
        there are ``max_masks``. None: ``n_masks`` are enough.
    max_masks
        At least ``n_masks``; needed with a target.
    estimator
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS`, for which sums are kept.
    occluded_value
        A name of :data:`s2txai.saliency.smh.FILLINGS`.
    """
    effort = Effort(
        batch_size,
        target_reliability or 0.0,
        most=(max_masks or n_masks) / n_masks,
        logarithms=ESTIMATORS[estimator].logarithms,
    )
    parameters = {"p": p, "seed": seed, "occluded_value": occluded_value, "score": "KL"}

    def job_of(artifact: Artifact) -> Job:
        features, padding_value = features_of(artifact)
        steps = n_steps(len(features), int(artifact["subsampling"]))
        plan = Plan(
            seed=seed,
            utterance=artifact.meta["utterance"],
            names=(SEGMENTATION,),
            sizes=(steps,),
            n_masks=(n_masks,),
            p=p,
        )
        prepare = partial(
            _prepare,
            features,
            padding_value,
            *hypothesis_of(artifact),
            steps,
            occluded_value,
            effort.logarithms,
        )
        return Job(artifact, prepare, plan)

    grow_shard(place, "smh", parameters, decoded, job_of, effort)


def _prepare(
    features: np.ndarray,
    padding_value: float,
    prompt: list[int],
    tokens: list[int],
    steps: int,
    occluded_value: str,
    logarithms: bool,
    model: Model,
) -> tuple[Statistics, Score]:
    return (
        # An encoder step is its own segment and its own "frame".
        Statistics.zeros(
            step_segments(steps), len(tokens), subsampling=1, n_steps=steps, logarithms=logarithms
        ),
        state_score(model, features, padding_value, prompt, tokens, occluded_value),
    )
