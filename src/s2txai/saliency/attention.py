"""Step 2: cross-attention of a teacher-forced pass over the hypothesis, every layer and head.

Never the beam's own attention: its rows mix hypotheses that were dropped.
"""

from collections.abc import Iterable

import numpy as np

from s2txai.errors import UserError
from s2txai.log import logger
from s2txai.models.base import Model
from s2txai.saliency.heard import Heard

AXES = {
    "cross_attention": ["layer", "head", "token", "step"],
    "value_norm_attention": ["layer", "head", "token", "step"],
    "rolled_out_attention": ["layer", "head", "token", "step"],
    "padding_mass": ["layer", "head", "token"],
}
UNITS = {
    "cross_attention": "share",
    "padding_mass": "share",
    "rolled_out_attention": "share",
    "value_norm_attention": "norm",
}


def attention(model: Model, heard: Heard) -> dict[str, np.ndarray]:
    """Return the attention of one utterance, restricted to the steps over speech.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and hypothesis.

    Returns
    -------
    dict
        ``cross_attention``, ``value_norm_attention`` and ``rolled_out_attention`` [L, H, I, T'] and
        ``padding_mass`` [L, H, I], the attention that lies outside the speech. A row of
        ``cross_attention`` and its ``padding_mass`` sum to 1. Where the family has no
        self-attention at the rate of its encoder's output, no ``rolled_out_attention``.
    """
    inputs = heard.inputs(model.device)  # (1, T, F)
    states = model.encode(inputs, heard.padding_value)
    whole = model.cross_attention(states, heard.prompt, heard.tokens)
    steps = heard.n_steps(model.facts.subsampling)
    arrays = {
        "cross_attention": np.ascontiguousarray(whole.weights[..., :steps]),
        "value_norm_attention": np.ascontiguousarray(whole.value_norm[..., :steps]),
        "padding_mass": whole.weights[..., steps:].sum(axis=-1),
    }
    try:
        layers = model.encoder_attention(inputs, heard.padding_value)
    except UserError as error:
        logger.info("attention: not rolled out. %s", error)
        return arrays
    # Steps over padding pass on what they took from speech, so they are cut off last.
    rolled_out = whole.weights @ rollout(layers)[:, :steps]
    return arrays | {"rolled_out_attention": np.ascontiguousarray(rolled_out, dtype=np.float32)}


def rollout(layers: Iterable[np.ndarray]) -> np.ndarray:
    """Return what each step of an encoder's output holds of each step of its input.

    Every layer adds its attention to what was there, half and half (Abnar and Zuidema 2020).

    Parameters
    ----------
    layers
        Self-attention [steps, steps] of each layer, mean over heads, from input to output; at
        least one.

    Returns
    -------
    ndarray
        [steps, steps], rows sum to 1.
    """
    product: np.ndarray | None = None
    for weights in layers:
        mixed = 0.5 * (weights + np.eye(len(weights), dtype=weights.dtype))
        # In half precision rows of attention do not quite sum to 1.
        mixed /= mixed.sum(axis=-1, keepdims=True)
        product = mixed if product is None else mixed @ product
    if product is None:
        raise ValueError("an encoder without layers has no rollout")
    return product
