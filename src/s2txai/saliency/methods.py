"""The gradient methods by name. Nothing here imports torch, since planning reads them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from s2txai.registry import Registry
from s2txai.saliency.aggregation import ATTENTION_KINDS

NO_GRADIENTS: Mapping[str, Any] = MappingProxyType({})
"""Whatever there is of each gradient method, by its name, where none is computed."""


@dataclass(frozen=True)
class GradientSettings:
    """What a study says that gradient methods may use.

    Attributes
    ----------
    n_segments
        Levels of segmentation of the masks, those of SMX.
    p
        Probability that a segment is occluded, that of SMX.
    n_masks
        Masks per utterance.
    n_points
        Points of the integral.
    seed
        Of the masks.
    """

    n_segments: tuple[int, ...]
    p: float
    n_masks: int
    n_points: int
    seed: int


def _nothing(settings: GradientSettings) -> dict[str, Any]:
    return {}


def mask_parameters(settings: GradientSettings) -> dict[str, Any]:
    """Return what a sampled method must use: its design of masks."""
    return {
        "n_segments": list(settings.n_segments),
        "p": settings.p,
        "n_masks": settings.n_masks,
        "seed": settings.seed,
    }


def _one_pass_per_row(settings: GradientSettings, n_rows: float) -> tuple[float, float]:
    return n_rows, n_rows


@dataclass(frozen=True)
class Method:
    """One gradient method, and what the rest of the package must know of it.

    Attributes
    ----------
    compute
        ``module:name``, or the object itself: of a sampled method a
        :class:`s2txai.saliency.engine.Perturbation`, else a function that makes the map of a row,
        see :data:`s2txai.saliency.gradients.RowMap`.
    sampled
        Whether its map is a mean over random masks, and hence has sampling noise.
    parameters
        From the settings of the study to what the method uses of them; of a sampled method
        :func:`mask_parameters`.
    passes
        From the settings and the number of rows to the forward passes and the backward passes that
        an utterance takes: how the study's time is estimated.
    name
        For people; where it is empty, the name under which the method is registered.
    """

    compute: str | Any
    sampled: bool = False
    parameters: Callable[[GradientSettings], dict[str, Any]] = _nothing
    passes: Callable[[GradientSettings, float], tuple[float, float]] = _one_pass_per_row
    name: str = ""


# A method has the name of a folder of results and of an array in the files of maps.
METHODS: Registry[Method] = Registry(
    "gradient method",
    reserved=(
        # Folders
        *("decode", "attention", "smx", "smh", "gradients", "aggregate", "correlate", "deletion"),
        *("deletion_curves", "heads", "sensitivity", "timestamps", "transcripts", "failures"),
        *("comparisons", "check_failures", "fetch_model", "report", "logs", "benchmarks", "score"),
        # Arrays, parameters and maps
        *("tokens", "pieces", "roles", "word_index", "padding_mass", "n_masks_", "poolings"),
        *("random", "energy", "smx_", *(f"{kind}_" for kind in ATTENTION_KINDS)),
    ),
    in_results=True,
)

METHODS.register("grad")(
    Method(
        "s2txai.saliency.gradients:FIRST_ORDER",
        sampled=True,
        parameters=mask_parameters,
        passes=lambda settings, n_rows: (settings.n_masks, settings.n_masks * n_rows),
        name="GRAD",
    )
)
# Captum runs every row forward as well.
METHODS.register("input_x_gradient")(
    Method("s2txai.saliency.gradients:input_x_gradient", name="input × gradient")
)
METHODS.register("integrated_gradients")(
    Method(
        "s2txai.saliency.gradients:integrated_gradients",
        parameters=lambda settings: {"n_points": settings.n_points},
        passes=lambda settings, n_rows: (settings.n_points * n_rows, settings.n_points * n_rows),
        name="integrated gradients",
    )
)
