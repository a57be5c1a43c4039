"""The gradient methods by name. Nothing here imports torch, since planning reads them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from s2txai.registry import Registry


def _nothing(config: Mapping[str, Any]) -> dict[str, Any]:
    return {}


def _one_pass_per_row(config: Mapping[str, Any], n_rows: float) -> tuple[float, float]:
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
        From the configuration to what the method uses of it.
    passes
        From the configuration and the number of rows to the forward passes and the backward passes
        that an utterance takes: how the study's time is estimated.
    """

    compute: str | Any
    sampled: bool = False
    parameters: Callable[[Mapping[str, Any]], dict[str, Any]] = _nothing
    passes: Callable[[Mapping[str, Any], float], tuple[float, float]] = _one_pass_per_row


METHODS: Registry[Method] = Registry("gradient method")

METHODS.register("grad")(
    Method(
        "s2txai.saliency.gradients:FIRST_ORDER",
        sampled=True,
        parameters=lambda config: {
            "n_segments": config["smx"]["n_segments"],
            "p": config["smx"]["p"],
            "n_masks": config["gradient"]["n_masks"],
            "seed": config["seed"],
        },
        passes=lambda config, n_rows: (
            config["gradient"]["n_masks"],
            config["gradient"]["n_masks"] * n_rows,
        ),
    )
)
# Captum runs every row forward as well.
METHODS.register("input_x_gradient")(Method("s2txai.saliency.gradients:input_x_gradient"))
METHODS.register("integrated_gradients")(
    Method(
        "s2txai.saliency.gradients:integrated_gradients",
        parameters=lambda config: {"n_points": config["gradient"]["n_points"]},
        passes=lambda config, n_rows: (
            config["gradient"]["n_points"] * n_rows,
            config["gradient"]["n_points"] * n_rows,
        ),
    )
)
