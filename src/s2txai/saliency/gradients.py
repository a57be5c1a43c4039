"""Step 3, the gradient methods: a second family of maps, independent of perturbation.

``grad`` linearises the score of SPES around randomly masked inputs. The KL divergence has its
minimum, and hence no gradient, at the unperturbed input; so the two methods that start from there,
``input_x_gradient`` and ``integrated_gradients``, explain the log-probability of each token
instead. All three speak of the same change: a cell takes its occluded value.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients

from s2txai.errors import UserError
from s2txai.models.base import Model
from s2txai.models.memory import smaller_batch
from s2txai.registry import load_object
from s2txai.saliency.design import INPUT_VALUE, MaskDesign
from s2txai.saliency.engine import Masks, OnBatch, Perturbation, perturbed_statistics
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.methods import METHODS
from s2txai.saliency.occluded_values import bin_mean
from s2txai.saliency.smx import input_masks
from s2txai.saliency.statistics import GradientStatistics, gradient_map

# From bool [N, S_k], True = occluded, and k to [N, T, F] for each row, one after the other.
Change = Callable[[torch.Tensor, int], Iterator[torch.Tensor]]

# From distances [N, T, F] to the occluded value to log-probabilities [N, I].
LogProbs = Callable[[torch.Tensor], torch.Tensor]


def grad(
    model: Model,
    heard: Heard,
    design: MaskDesign,
    *,
    utterance: str = "",
    statistics: GradientStatistics | None = None,
    batch_size: int | str = "auto",
    on_batch: OnBatch[GradientStatistics] | None = None,
) -> GradientStatistics:
    """Linearise the score of SPES at masked inputs.

    Parameters and errors are those of :func:`s2txai.saliency.smx.smx`, the occluded value is
    always the mean of the bin; :func:`s2txai.saliency.statistics.gradient_map` makes the map.
    """
    return perturbed_statistics(
        FIRST_ORDER, model, heard, design, utterance=utterance, statistics=statistics,
        batch_size=batch_size, on_batch=on_batch,
    )  # fmt: skip


def gradient_masks(
    heard: Heard, design: MaskDesign, *, utterance: str, subsampling: int, time_only: bool
) -> Masks:
    """Lay out masks as for SMX, by other names: so the masks, and hence the noise, are others."""
    masks = input_masks(
        heard, design, utterance=utterance, subsampling=subsampling, time_only=time_only
    )
    names = tuple(f"grad-{name}" for name in masks.plan.names)
    return replace(masks, plan=replace(masks.plan, names=names))


def gradient_sums(
    model: Model,
    heard: Heard,
    design: MaskDesign,
    masks: Masks,
    statistics: GradientStatistics | None,
) -> "ChangeSums":
    """Begin or continue sums of first-order changes; parameters as for ``engine.SumsOf``."""
    if design.occluded_value != INPUT_VALUE:
        raise UserError(
            f"Gradients are taken towards the occluded value '{INPUT_VALUE}', not "
            f"'{design.occluded_value}'; leave 'occluded_value' out."
        )
    if statistics is None:
        r = model.facts.subsampling
        statistics = GradientStatistics.zeros(
            masks.segments, len(heard.tokens), r, heard.n_steps(r)
        )
    return ChangeSums(statistics, first_order_change(model, heard, masks), model, heard)


class ChangeSums:
    """The sums of :class:`GradientStatistics`, made on the CPU.

    Parameters
    ----------
    statistics
        Zeros, or those of earlier masks of the same plan; changed in place.
    change
        Of :func:`first_order_change`.
    model, heard
        What the change is of.
    """

    def __init__(
        self, statistics: GradientStatistics, change: Change, model: Model, heard: Heard
    ) -> None:
        self._statistics, self._change = statistics, change
        self._model, self._heard = model, heard

    def work(self, n: int) -> object:
        """Run the model forward and backward on ``n`` inputs."""
        return backward_pass(self._model, self._heard, n)

    def add(self, occluded: torch.Tensor, k: int, start: int) -> None:
        """Add masks ``start``, ``start + 1``, ... bool [N, S_k], of segmentation k."""
        sums = np.zeros_like(self._statistics.segment_sum)  # (4, S, I)
        segments, S = self._statistics.segments[k].ravel(), sums.shape[1]
        for i, cells in enumerate(self._change(occluded, k)):
            for fold in range(N_FOLDS):
                of_fold = cells[(fold - start) % N_FOLDS :: N_FOLDS].double().sum(dim=0)  # (T, F)
                # Added up on the CPU, in the order of the cells: the same bits every time.
                sums[fold, :, i] = np.bincount(segments, of_fold.cpu().numpy().ravel(), S)
        self._statistics.segment_sum += sums
        self._statistics.count(k, start, start + len(occluded))

    def statistics(self) -> GradientStatistics:
        """Return the statistics, which are always up to date."""
        return self._statistics


def first_order_change(model: Model, heard: Heard, masks: Masks) -> Change:
    """Return the function that linearises the score at masked inputs.

    The gradient of KL(original || perturbed) of a row is taken at the masked input and multiplied
    by (occluded value - x), with x the *original* input whether or not the mask occludes the cell:
    the first-order change of the score were the cell occluded.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and hypothesis.
    masks
        Their segments are what is occluded.
    """
    original, occluded_value = _original_and_occluded(model, heard)  # (T, F), (F,)
    labels = torch.from_numpy(masks.labels).to(model.device)
    with torch.no_grad():
        logits = _differentiable_logits(model, heard, original[None])
    p0 = torch.softmax(logits[0], dim=-1)  # (I, V)
    n_rows = len(heard.tokens)

    def change(occluded: torch.Tensor, k: int) -> Iterator[torch.Tensor]:
        cells = occluded[:, labels[k]]  # (N, T, F)
        masked = torch.where(cells, occluded_value, original).requires_grad_()
        logits = _differentiable_logits(model, heard, masked)
        # The gradient of KL(p0 || p) with respect to the logits of p, in closed form.
        slope = torch.softmax(logits.detach(), dim=-1) - p0  # (N, I, V)
        for i in range(n_rows):
            with model.arithmetic():
                (gradient,) = torch.autograd.grad(
                    logits[:, i], masked, slope[:, i], retain_graph=i < n_rows - 1
                )
            yield gradient * (occluded_value - original)  # (N, T, F)

    return change


def backward_pass(model: Model, heard: Heard, n: int) -> object:
    """Run the model forward and backward on ``n`` copies of the input, to measure its memory."""
    inputs = torch.from_numpy(np.stack([heard.features] * n)).to(model.device).requires_grad_()
    logits = _differentiable_logits(model, heard, inputs)
    with model.arithmetic():
        return torch.autograd.grad(logits[:, 0].sum(), inputs)


def _differentiable_logits(model: Model, heard: Heard, inputs: torch.Tensor) -> torch.Tensor:
    return model.differentiable_logits(inputs, heard.padding_value, heard.prompt, heard.tokens)


def _original_and_occluded(model: Model, heard: Heard) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the input [T, F] and the occluded value of its bins [F]."""
    occluded_value = torch.from_numpy(bin_mean(heard.features, heard.padding_value))
    return heard.inputs(model.device)[0], occluded_value.to(model.device)


FIRST_ORDER = Perturbation(gradient_masks, gradient_sums, GradientStatistics, gradient_map)


class RowMap(Protocol):
    """How the map of one row is made by a method without masks."""

    def __call__(
        self,
        log_probs: LogProbs,
        distance: torch.Tensor,
        row: int,
        batch_size: int,
        **parameters: int,
    ) -> torch.Tensor:
        """Return [T, F], from the log-probabilities and the input's distance to its occluded value.

        ``batch_size`` is the number of inputs for one forward pass.
        """


def input_x_gradient(
    log_probs: LogProbs, distance: torch.Tensor, row: int, batch_size: int
) -> torch.Tensor:
    """Gradient of log p(token) at the input, times (x - occluded value).

    Positive where the cell speaks for the token.
    """
    maps: torch.Tensor = InputXGradient(log_probs).attribute(_differentiable(distance), target=row)
    return maps[0]


def integrated_gradients(
    log_probs: LogProbs, distance: torch.Tensor, row: int, batch_size: int, *, n_points: int
) -> torch.Tensor:
    """Gradient of log p(token), mean over the way from the occluded value to x, times the way.

    Sundararajan et al. 2017 (arXiv 1703.01365), eq. 1, by Gauss-Legendre quadrature with
    ``n_points`` points. Over all cells it sums to log p(token) at x minus that at the occluded
    value everywhere, up to the error of the quadrature.
    """
    maps: torch.Tensor = IntegratedGradients(log_probs).attribute(
        _differentiable(distance), target=row, n_steps=n_points, internal_batch_size=batch_size
    )
    return maps[0]


def _differentiable(distance: torch.Tensor) -> torch.Tensor:
    return distance[None].detach().requires_grad_()


def log_probs_by_distance(model: Model, heard: Heard) -> tuple[LogProbs, torch.Tensor]:
    """Return log p of the tokens as a function of the distance to the occluded value.

    Captum's methods measure from 0, so they get this distance in place of the input.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and hypothesis.

    Returns
    -------
    log_probs
        From [N, T, F] to [N, I], with a graph.
    distance
        [T, F], of the unperturbed input.
    """
    original, occluded_value = _original_and_occluded(model, heard)  # (T, F), (F,)
    tokens = torch.tensor(heard.tokens, device=model.device)[None, :, None]  # (1, I, 1)

    def log_probs(distance: torch.Tensor) -> torch.Tensor:
        logits = _differentiable_logits(model, heard, occluded_value + distance)
        rows = torch.log_softmax(logits, dim=-1)  # (N, I, V)
        return rows.gather(2, tokens.expand(len(rows), -1, -1))[:, :, 0]  # (N, I)

    return log_probs, original - occluded_value


def row_maps(
    model: Model, heard: Heard, method: str, *, batch_size: int, **parameters: int
) -> np.ndarray:
    """Return the map of every row by a method without masks.

    Captum attributes one output at a time, so each row costs forward passes of its own.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and hypothesis.
    method
        A name of :data:`s2txai.saliency.methods.METHODS` that is not sampled.
    batch_size
        Inputs for one forward pass; halved for good when the device runs out of memory.
    **parameters
        Of the method.

    Returns
    -------
    float32 [I, T, F], nats
        Summed over all cells, the change of log p(token) that the method accounts for.

    Raises
    ------
    UserError
        If not even one input fits into memory.
    """
    row_map: RowMap = load_object(METHODS[method].compute)
    log_probs, distance = log_probs_by_distance(model, heard)
    maps: list[np.ndarray] = []
    while len(maps) < len(heard.tokens):
        try:
            with model.arithmetic():
                cells = row_map(log_probs, distance, len(maps), batch_size, **parameters)
        except (RuntimeError, MemoryError) as error:
            batch_size = smaller_batch(batch_size, error)
            continue
        maps.append(cells.detach().cpu().numpy().astype(np.float32))
    return np.stack(maps)
