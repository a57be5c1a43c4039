"""Step 3, smh: saliency on encoder outputs, decoder passes only."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from s2txai.artifacts import Artifact
from s2txai.models.base import Model, n_steps
from s2txai.saliency.encoder_states import SEGMENTATION, state_score, step_segments
from s2txai.saliency.spes import Plan, Score
from s2txai.saliency.statistics import Statistics
from s2txai.steps.masked import grow
from s2txai.steps.shard import Workplace, features_of, hypothesis_of


def smh_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    *,
    n_masks: int,
    p: float,
    seed: int,
    batch_size: int,
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
        Masks for one decoder pass.
    """
    parameters = {"p": p, "seed": seed, "occluded_value": "zero", "score": "KL"}
    for artifact in decoded:
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
        prepare = partial(_prepare, features, padding_value, *hypothesis_of(artifact), steps)
        grow(
            place, "smh", artifact, parameters,
            prepare=prepare, plan=plan, batch_size=batch_size,
        )  # fmt: skip


def _prepare(
    features: np.ndarray,
    padding_value: float,
    prompt: list[int],
    tokens: list[int],
    steps: int,
    model: Model,
) -> tuple[Statistics, Score]:
    return (
        # An encoder step is its own segment and its own "frame".
        Statistics.zeros(step_segments(steps), len(tokens), subsampling=1, n_steps=steps),
        state_score(model, features, padding_value, prompt, tokens),
    )
