"""Step 2: cross-attention of a teacher-forced pass over the hypothesis, every layer and head.

Never the beam's own attention: its rows mix hypotheses that were dropped.
"""

import numpy as np
import torch

from s2txai.models.base import Model, n_steps

AXES = {
    "cross_attention": ["layer", "head", "token", "step"],
    "value_norm_attention": ["layer", "head", "token", "step"],
    "padding_mass": ["layer", "head", "token"],
}
UNITS = {"cross_attention": "share", "padding_mass": "share", "value_norm_attention": "norm"}


def extract(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: list[int],
    tokens: list[int],
) -> dict[str, np.ndarray]:
    """Return the attention of one utterance, restricted to the steps over speech.

    Parameters
    ----------
    model
        Any model.
    features, padding_value
        Input [T, F] and what follows it.
    prompt, tokens
        The hypothesis.

    Returns
    -------
    dict
        ``cross_attention`` and ``value_norm_attention`` [L, H, I, T'] and ``padding_mass``
        [L, H, I], the attention that lies outside the speech. A row of ``cross_attention`` and its
        ``padding_mass`` sum to 1.
    """
    inputs = torch.from_numpy(features).to(model.device)[None]  # (1, T, F)
    attention = model.cross_attention(model.encode(inputs, padding_value), prompt, tokens)
    steps = n_steps(len(features), model.facts.subsampling)
    return {
        "cross_attention": np.ascontiguousarray(attention.weights[..., :steps]),
        "value_norm_attention": np.ascontiguousarray(attention.value_norm[..., :steps]),
        "padding_mass": attention.weights[..., steps:].sum(axis=-1),
    }
