"""Step 4: maps of single heads of attention, of layers, and over all of them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from s2txai.registry import Registry


@dataclass(frozen=True)
class Aggregation:
    """How the maps of all heads become one.

    Attributes
    ----------
    of_heads
        From the weights of all heads [L, H, I, T'] to one map [I, T'].
    name
        For people; where it is empty, the name of the map.
    """

    of_heads: Callable[[np.ndarray], np.ndarray]
    name: str = ""


# Their maps stand beside those of heads and layers, which are reserved.
AGGREGATIONS: Registry[Aggregation] = Registry(
    "aggregation of attention",
    reserved=("head", "layer", "layer_", "last", "best_head"),
    in_results=True,
)

# What the name of a single layer's map begins with where layers are not an axis.
LAYER = "ca_layer_"


def mean_of_heads(heads: np.ndarray) -> np.ndarray:
    """Return the mean over the layers of the mean over their heads."""
    return np.asarray(heads.mean(axis=1).mean(axis=0))


AGGREGATIONS.register("mean")(Aggregation(mean_of_heads, name="mean of all heads"))


# Kinds of attention by the prefix of their maps, with their array among the step attention's.
ATTENTION_KINDS = {
    "ca": "cross_attention",
    "vn": "value_norm_attention",
    "ro": "rolled_out_attention",
}


def attention_maps(heads: np.ndarray, kind: str = "ca") -> dict[str, np.ndarray]:
    """Return every head, every layer's mean and each aggregation of heads [L, H, I, T'].

    ``kind`` is a key of :data:`ATTENTION_KINDS`; names of the maps begin with it, and end with
    ``head``, ``layer`` or a name of :data:`AGGREGATIONS`.
    """
    aggregated = {f"{kind}_{name}": AGGREGATIONS[name].of_heads(heads) for name in AGGREGATIONS}
    return {f"{kind}_head": heads, f"{kind}_layer": heads.mean(axis=1), **aggregated}


def all_attention_maps(attention: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return :func:`attention_maps` of each kind that the step ``attention`` found."""
    maps: dict[str, np.ndarray] = {}
    for kind, name in ATTENTION_KINDS.items():
        if name in attention:
            maps |= attention_maps(attention[name], kind)
    return maps


def kinds_of(maps: Mapping[str, np.ndarray]) -> list[str]:
    """Return the kinds of attention among maps, see :data:`ATTENTION_KINDS`."""
    return [kind for kind in ATTENTION_KINDS if f"{kind}_mean" in maps]
