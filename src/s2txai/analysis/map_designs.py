"""How saliency maps are made: the step behind each, and what a number computed from it rests on."""

from collections.abc import Sequence
from typing import Any

from s2txai.analysis.signature import spread
from s2txai.analysis.utterance import UtteranceData
from s2txai.saliency.methods import METHODS


def step_of(saliency: str) -> str:
    """Return the step that makes a saliency map."""
    return "smx" if saliency.startswith("smx_") else saliency


def is_sampled(saliency: str) -> bool:
    """Return whether a map is made from random masks."""
    return saliency not in METHODS or METHODS[saliency].sampled


def gradient_methods(utterance: UtteranceData) -> list[str]:
    """Return the gradient methods whose maps an utterance has."""
    return [name for name in METHODS if name in utterance.parameters]


def design_of(utterances: Sequence[UtteranceData], saliency: str) -> dict[str, Any]:
    """Return how a map was made, the same for all utterances but for the number of masks."""
    step = step_of(saliency)
    design = dict(utterances[0].parameters[step])
    if is_sampled(saliency):
        design["n_masks"] = spread([int(data[f"n_masks_{step}"]) for data in utterances])
    return design
