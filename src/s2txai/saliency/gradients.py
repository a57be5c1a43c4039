"""Step 3, the gradient methods: a second family of maps, independent of perturbation.

``grad`` linearises the score of SPES around randomly masked inputs. The KL divergence has its
minimum, and hence no gradient, at the unperturbed input; so the two methods that start from there,
``input_x_gradient`` and ``integrated_gradients``, explain the log-probability of each token
instead. All three speak of the same change: a cell takes its occluded value.
"""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from captum.attr import InputXGradient, IntegratedGradients

from s2txai.models.base import Model
from s2txai.models.memory import smaller_batch, to_device
from s2txai.registry import Registry
from s2txai.saliency.baselines import bin_mean
from s2txai.saliency.gradient_statistics import GradientStatistics
from s2txai.saliency.segments import Segmentations
from s2txai.saliency.smx import Plan, draw, segmentation_names
from s2txai.saliency.statistics import N_FOLDS

# From bool [N, S_k], True = occluded, and k to [N, T, F] for each row, one after the other.
Change = Callable[[torch.Tensor, int], Iterator[torch.Tensor]]

# From distances [N, T, F] to the occluded value to log-probabilities [N, I].
LogProbs = Callable[[torch.Tensor], torch.Tensor]


def gradient_names(segmentations: Segmentations) -> tuple[str, ...]:
    """Name the segmentations so that their masks, and hence the noise, are not those of SMX."""
    return tuple(f"grad-{name}" for name in segmentation_names(segmentations))


def first_order_change(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: Sequence[int],
    tokens: Sequence[int],
    segmentations: Segmentations,
) -> Change:
    """Return the function that linearises the score at masked inputs.

    The gradient of KL(original || perturbed) of a row is taken at the masked input and multiplied
    by (occluded value - x), with x the *original* input whether or not the mask occludes the cell:
    the first-order change of the score were the cell occluded.

    Parameters
    ----------
    model
        Any model.
    features, padding_value
        Unperturbed input [T, F].
    prompt, tokens
        The hypothesis, teacher-forced.
    segmentations
        Labels [K, T, F], with ids unique over K.
    """
    original = torch.from_numpy(features).to(model.device)  # (T, F)
    baseline = torch.from_numpy(bin_mean(features, padding_value)).to(model.device)  # (F,)
    labels = torch.from_numpy(_labels_from_zero(segmentations)).to(model.device)
    with torch.no_grad():
        logits = model.differentiable_logits(original[None], padding_value, prompt, tokens)
    p0 = torch.softmax(logits[0], dim=-1)  # (I, V)

    def change(occluded: torch.Tensor, k: int) -> Iterator[torch.Tensor]:
        cells = occluded[:, labels[k]]  # (N, T, F)
        masked = torch.where(cells, baseline, original).requires_grad_()
        logits = model.differentiable_logits(masked, padding_value, prompt, tokens)
        # The gradient of KL(p0 || p) with respect to the logits of p, in closed form.
        slope = torch.softmax(logits.detach(), dim=-1) - p0  # (N, I, V)
        for i in range(len(tokens)):
            (gradient,) = torch.autograd.grad(
                logits[:, i], masked, slope[:, i], retain_graph=i < len(tokens) - 1
            )
            yield gradient * (baseline - original)  # (N, T, F)

    return change


def accumulate_changes(
    statistics: GradientStatistics,
    change: Change,
    plan: Plan,
    *,
    device: torch.device,
    batch_size: int,
    checkpoint: Callable[[GradientStatistics], None],
    progress: Callable[[int], None],
) -> None:
    """Add masks to ``statistics``, in place, until each segmentation has those of the plan.

    Parameters
    ----------
    statistics
        Zeros, or those of an earlier run with the same plan but for ``n_masks``.
    change
        Of :func:`first_order_change`.
    plan
        Which masks.
    device
        Where the masks are wanted.
    batch_size
        Masks for one forward pass; halved for good when the device runs out of memory.
    checkpoint
        Called with the statistics whenever a batch of every segmentation is done.
    progress
        Called with the number of masks each time some are done.

    Raises
    ------
    UserError
        If not even one mask fits into memory.
    """
    done: list[int] = statistics.n_masks.sum(axis=0).tolist()
    while any(have < want for have, want in zip(done, plan.n_masks, strict=True)):
        for k in range(len(plan.names)):
            # Batches end at multiples of their size, so that resumed equals uninterrupted.
            start, stop = done[k], min(plan.n_masks[k], (done[k] // batch_size + 1) * batch_size)
            if start >= stop:
                continue
            try:
                occluded = to_device(draw(plan, k, start, stop), device)  # (N, S_k)
                sums = _sums(statistics, change, occluded, k, start)
            except (RuntimeError, MemoryError) as error:
                batch_size = smaller_batch(batch_size, error)
                continue
            statistics.segment_sum += sums
            statistics.n_masks[:, k] += np.bincount(
                np.arange(start, stop) % N_FOLDS, minlength=N_FOLDS
            )
            progress(stop - start)
            done[k] = stop
        checkpoint(statistics)


def _sums(
    statistics: GradientStatistics, change: Change, occluded: torch.Tensor, k: int, start: int
) -> np.ndarray:
    """Return float64 [4, S, I] of masks ``start``, ``start + 1``, ... of segmentation k."""
    sums = np.zeros_like(statistics.segment_sum)
    segments, S = statistics.segments[k].ravel(), sums.shape[1]
    for i, cells in enumerate(change(occluded, k)):
        for fold in range(N_FOLDS):
            of_fold = cells[(fold - start) % N_FOLDS :: N_FOLDS].double().sum(dim=0)  # (T, F)
            # Added up on the CPU, in the order of the cells: the same bits every time.
            sums[fold, :, i] = np.bincount(segments, of_fold.cpu().numpy().ravel(), S)
    return sums


def _labels_from_zero(segmentations: Segmentations) -> np.ndarray:
    """Return [K, T, F] with ids that start at 0 in every segmentation."""
    first_ids = np.concatenate([[0], np.cumsum(segmentations.n_segments)[:-1]])
    return np.asarray(segmentations.labels - first_ids[:, None, None])


# From the log-probabilities, the distance [T, F] of the input to its occluded value, the row and
# the number of inputs for one forward pass to the map [T, F] of the row.
RowMap = Callable[..., torch.Tensor]

MAPS: Registry[RowMap] = Registry("gradient method")


@MAPS.register("input_x_gradient")
def input_x_gradient(
    log_probs: LogProbs, distance: torch.Tensor, row: int, batch_size: int
) -> torch.Tensor:
    """Gradient of log p(token) at the input, times (x - occluded value).

    Positive where the cell speaks for the token.
    """
    found: torch.Tensor = InputXGradient(log_probs).attribute(_differentiable(distance), target=row)
    return found[0]


@MAPS.register("integrated_gradients")
def integrated_gradients(
    log_probs: LogProbs, distance: torch.Tensor, row: int, batch_size: int, *, n_points: int
) -> torch.Tensor:
    """Gradient of log p(token), mean over the way from the occluded value to x, times the way.

    Sundararajan et al. 2017 (arXiv 1703.01365), eq. 1, by Gauss-Legendre quadrature with
    ``n_points`` points. Over all cells it sums to log p(token) at x minus that at the occluded value
    everywhere, up to the error of the quadrature.
    """
    found: torch.Tensor = IntegratedGradients(log_probs).attribute(
        _differentiable(distance), target=row, n_steps=n_points, internal_batch_size=batch_size
    )
    return found[0]


def _differentiable(distance: torch.Tensor) -> torch.Tensor:
    return distance[None].detach().requires_grad_()


def token_log_probs(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: Sequence[int],
    tokens: Sequence[int],
) -> tuple[LogProbs, torch.Tensor]:
    """Return log p of the tokens as a function of the distance to the occluded value.

    Captum's methods measure from 0, so they get this distance in place of the input.

    Parameters
    ----------
    model
        Any model.
    features, padding_value
        Unperturbed input [T, F].
    prompt, tokens
        The hypothesis, teacher-forced.

    Returns
    -------
    log_probs
        From [N, T, F] to [N, I], with a graph.
    distance
        [T, F], of the unperturbed input.
    """
    original = torch.from_numpy(features).to(model.device)  # (T, F)
    baseline = torch.from_numpy(bin_mean(features, padding_value)).to(model.device)  # (F,)
    chosen = torch.tensor(tokens, device=model.device)[None, :, None]  # (1, I, 1)

    def log_probs(distance: torch.Tensor) -> torch.Tensor:
        logits = model.differentiable_logits(baseline + distance, padding_value, prompt, tokens)
        rows = torch.log_softmax(logits, dim=-1)  # (N, I, V)
        return rows.gather(2, chosen.expand(len(rows), -1, -1))[:, :, 0]  # (N, I)

    return log_probs, original - baseline


def row_maps(
    method: str,
    log_probs: LogProbs,
    distance: torch.Tensor,
    n_rows: int,
    *,
    batch_size: int,
    **options: int,
) -> np.ndarray:
    """Return the map of every row by one of :data:`MAPS`.

    Captum attributes one output at a time, so each row costs forward passes of its own.

    Parameters
    ----------
    method
        A name of :data:`MAPS`.
    log_probs, distance
        Of :func:`token_log_probs`.
    n_rows
        I.
    batch_size
        Inputs for one forward pass; halved for good when the device runs out of memory.
    **options
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
    maps: list[np.ndarray] = []
    while len(maps) < n_rows:
        try:
            found = MAPS[method](log_probs, distance, len(maps), batch_size, **options)
        except (RuntimeError, MemoryError) as error:
            batch_size = smaller_batch(batch_size, error)
            continue
        maps.append(found.detach().cpu().numpy().astype(np.float32))
    return np.stack(maps)
