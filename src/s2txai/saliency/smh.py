"""Step 3, SMH: the same perturbation on encoder outputs, decoder passes only.

Each encoder step over speech is a segment of its own. The paper does not publish its code for this
map; that an occluded step becomes the zero vector is our reading of it, and there are two others.
"""

import numpy as np
import torch

from s2txai.models.base import Model
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.engine import Masks, OnBatch, Perturbation, perturbed_statistics
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.occluded_values import OCCLUDED_STATES
from s2txai.saliency.score_sums import Score, ScoreSums
from s2txai.saliency.scores import Divergence
from s2txai.saliency.statistics import Statistics, heatmap

SEGMENTATION = "encoder-steps"


def smh(
    model: Model,
    heard: Heard,
    design: MaskDesign,
    *,
    utterance: str = "",
    statistics: Statistics | None = None,
    batch_size: int | str = "auto",
    on_batch: OnBatch[Statistics] | None = None,
) -> Statistics:
    """Perturb the encoder output of an utterance.

    Parameters, value and errors are those of :func:`s2txai.saliency.smx.smx`;
    ``heatmap(statistics)[:, :, 0]`` is the map [I, T'], in nats.
    """
    return perturbed_statistics(
        STATES, model, heard, design, utterance=utterance, statistics=statistics,
        batch_size=batch_size, on_batch=on_batch,
    )  # fmt: skip


def state_masks(
    heard: Heard, design: MaskDesign, *, utterance: str, subsampling: int, time_only: bool
) -> Masks:
    """Lay out masks over encoder steps; parameters as for ``engine.MasksOf``."""
    n_steps = heard.n_steps(subsampling)
    plan = MaskPlan(
        seed=design.seed,
        utterance=utterance,
        names=(SEGMENTATION,),
        sizes=(n_steps,),
        n_masks=(design.n_masks,),
        p=design.p,
    )
    return Masks(plan, step_segments(n_steps))


def step_segments(n_steps: int) -> np.ndarray:
    """Return int32 [1, T', 1], every step its own segment."""
    return np.arange(n_steps, dtype=np.int32)[None, :, None]


def state_sums(
    model: Model, heard: Heard, design: MaskDesign, masks: Masks, statistics: Statistics | None
) -> ScoreSums:
    """Begin or continue sums over masks of encoder steps; parameters as for ``engine.SumsOf``."""
    if statistics is None:
        # An encoder step is its own segment and its own "frame".
        statistics = Statistics.zeros(
            masks.segments, len(heard.tokens), subsampling=1, n_steps=masks.segments.shape[1],
            logarithms=ESTIMATORS[design.estimator].logarithms,
        )  # fmt: skip
    score = state_score(model, heard, design.occluded_value)
    return ScoreSums(statistics, score, masks.plan, model.device)


def state_score(model: Model, heard: Heard, occluded_value: str) -> Score:
    """Return the function that scores occlusions of encoder steps.

    Parameters
    ----------
    model
        Any model.
    heard
        Input, which is encoded once, and hypothesis.
    occluded_value
        A name of :data:`s2txai.saliency.occluded_values.OCCLUDED_STATES`.
    """
    states = heard.encode(model)  # (1, steps, D)
    divergence = Divergence(model.decode(states, heard.prompt, heard.tokens)[0])
    speech = states[0, : heard.n_steps(model.facts.subsampling)]
    occluded_state = OCCLUDED_STATES[occluded_value](speech)

    def score(occluded: torch.Tensor, k: int, *occluded_tokens: torch.Tensor) -> torch.Tensor:
        return divergence(
            model.decode_occluded(states, occluded, heard.prompt, heard.tokens, occluded_state)
        )

    return score


STATES = Perturbation(state_masks, state_sums, Statistics, heatmap)
