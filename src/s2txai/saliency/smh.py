"""Step 3, SMH: the same perturbation on encoder outputs, decoder passes only.

Each encoder step over speech is a segment of its own. The paper does not publish its code for this
map; that an occluded step becomes the zero vector is our reading of it, and there are two others.
"""

from collections.abc import Sequence

import numpy as np
import torch

from s2txai.models.base import Model, n_steps
from s2txai.saliency.occluded_values import OCCLUDED_STATES as FILLINGS
from s2txai.saliency.scores import Divergence
from s2txai.saliency.smx import Score

SEGMENTATION = "encoder-steps"


def step_segments(n_steps: int) -> np.ndarray:
    """Return int32 [1, T', 1], every step its own segment."""
    return np.arange(n_steps, dtype=np.int32)[None, :, None]


def state_score(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: Sequence[int],
    tokens: Sequence[int],
    occluded_value: str,
) -> Score:
    """Return the function that scores occlusions of encoder steps.

    Parameters
    ----------
    model
        Any model.
    features, padding_value
        Unperturbed input [T, F]; encoded once.
    prompt, tokens
        The hypothesis, teacher-forced.
    occluded_value
        A name of :data:`FILLINGS`.
    """
    inputs = torch.from_numpy(features).to(model.device)[None]
    states = model.encode(inputs, padding_value)  # (1, steps, D)
    divergence = Divergence(model.decode(states, prompt, tokens)[0])
    filling = FILLINGS[occluded_value](states[0, : n_steps(len(features), model.facts.subsampling)])

    def score(occluded: torch.Tensor, k: int) -> torch.Tensor:
        return divergence(model.decode_occluded(states, occluded, prompt, tokens, filling))

    return score
