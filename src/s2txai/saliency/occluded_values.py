"""What an occluded encoder step becomes: three answers to "no information here".

Light enough to import while Snakemake plans: states are tensors, but nothing here imports torch.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from s2txai.registry import Registry
from s2txai.saliency.baselines import OCCLUDED_VALUES

if TYPE_CHECKING:
    import torch

__all__ = ["OCCLUDED_STATES", "OCCLUDED_VALUES", "OccludedState"]

# From states [T', D] to what an occluded step becomes, [D], or None: hidden from cross-attention.
OccludedState = Callable[["torch.Tensor"], "torch.Tensor | None"]

OCCLUDED_STATES: Registry[OccludedState] = Registry("occluded state")


@OCCLUDED_STATES.register("zero")
def zero(states: "torch.Tensor") -> "torch.Tensor":
    """Return the zero vector [D]."""
    return states.new_zeros(states.shape[1:])


@OCCLUDED_STATES.register("mean")
def mean(states: "torch.Tensor") -> "torch.Tensor":
    """Return the mean [D] of the states [T', D] over speech."""
    return states.mean(dim=0)


@OCCLUDED_STATES.register("attention-mask")
def attention_mask(states: "torch.Tensor") -> None:
    """Hide the step from cross-attention."""
