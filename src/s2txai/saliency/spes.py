"""Step 3, SMX: SPES on the input spectrogram (Fucci et al. 2024, arXiv 2411.01710).

Random halves of the segments are occluded, the hypothesis is scored again, and the saliency of a
cell is the mean score (KL divergence from the unperturbed distribution) of the masks that occluded
it. Sums are kept by segment, so memory does not grow with the number of masks and more masks extend
a finished file.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from s2txai.models.base import Model
from s2txai.saliency.masks import occlusion
from s2txai.saliency.scores import kl_divergence
from s2txai.saliency.segments import Segmentations
from s2txai.saliency.statistics import N_FOLDS, Statistics

# From bool [N, S_k], True = occluded, and k to scores [N, I].
Score = Callable[[torch.Tensor, int], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """Which masks to draw.

    Attributes
    ----------
    seed, utterance
        With a segmentation's name and a mask's index they determine the mask, whatever the batch,
        shard, device or order of work.
    names
        Of the K segmentations.
    sizes
        Segments of each segmentation, S_k.
    n_masks
        Masks wanted of each segmentation.
    p
        Probability that a segment is occluded.
    """

    seed: int
    utterance: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    n_masks: tuple[int, ...]
    p: float


def accumulate(
    statistics: Statistics,
    score: Score,
    plan: Plan,
    *,
    device: torch.device,
    batch_size: int,
    checkpoint: Callable[[Statistics], None],
    progress: Callable[[int], None],
) -> None:
    """Add masks to ``statistics``, in place, until each segmentation has those of the plan.

    Parameters
    ----------
    statistics
        Zeros, or those of an earlier run with the same plan but for ``n_masks``.
    score
        Runs the model on a batch of masks.
    plan
        Which masks.
    device
        Where the masks are wanted and the sums are made.
    batch_size
        Masks for one forward pass.
    checkpoint
        Called with the statistics whenever a batch of every segmentation is done.
    progress
        Called with the number of masks each time some are done.
    """
    offsets = np.concatenate([[0], np.cumsum(plan.sizes)])
    done: list[int] = statistics.n_masks.sum(axis=0).tolist()
    while any(have < want for have, want in zip(done, plan.n_masks, strict=True)):
        for k, name in enumerate(plan.names):
            # Batches end at multiples of their size: a resumed run computes the same batches as an
            # uninterrupted one, hence the same bits.
            start, stop = done[k], min(plan.n_masks[k], (done[k] // batch_size + 1) * batch_size)
            if start >= stop:
                continue
            occluded = occlusion(
                seed=plan.seed,
                utterance=plan.utterance,
                segmentation=name,
                start=start,
                stop=stop,
                n_segments=plan.sizes[k],
                p=plan.p,
            )  # (N, S_k)
            on_device = torch.from_numpy(occluded).to(device)
            scores = score(on_device, k)  # (N, I)
            folds = torch.arange(start, stop, device=device) % N_FOLDS
            segments = slice(offsets[k], offsets[k + 1])
            _add(statistics, on_device, scores, folds, segments, k)
            progress(stop - start)
            done[k] = stop
        checkpoint(statistics)


def _add(
    statistics: Statistics,
    occluded: torch.Tensor,
    scores: torch.Tensor,
    folds: torch.Tensor,
    segments: slice,
    k: int,
) -> None:
    """Add one batch: occluded [N, S_k], scores [N, I], folds [N]."""
    scores = scores.double()
    in_fold = torch.nn.functional.one_hot(folds, N_FOLDS).double()  # (N, fold)
    occluded_in_fold = torch.einsum("nf,ns->fsn", in_fold, occluded.double())

    def to_numpy(sums: torch.Tensor) -> np.ndarray:
        return np.asarray(sums.cpu().numpy())

    statistics.occluded_sum[:, segments] += to_numpy(occluded_in_fold @ scores)  # (fold, S_k, I)
    counts = to_numpy(occluded_in_fold.sum(dim=2))
    statistics.occluded_count[:, segments] += counts.astype(np.int64)
    statistics.score_sum[:, k] += to_numpy(in_fold.T @ scores)
    statistics.score_square_sum[:, k] += to_numpy(in_fold.T @ scores.square())
    statistics.n_masks[:, k] += to_numpy(in_fold.sum(dim=0)).astype(np.int64)


def masks_per_segmentation(n_masks: int, segmentations: Segmentations) -> tuple[int, ...]:
    """Deal ``n_masks`` evenly over the requested levels, rounded down.

    A segmentation that stands for several levels (SLIC made the same map for them) gets the masks
    of all of them.
    """
    n_levels = sum(len(levels) for levels in segmentations.levels)
    return tuple(n_masks // n_levels * len(levels) for levels in segmentations.levels)


def segmentation_names(segmentations: Segmentations) -> tuple[str, ...]:
    """Name each segmentation after its first level; part of the key of its masks."""
    return tuple(f"slic-{levels[0]}" for levels in segmentations.levels)


def occluded_value(features: np.ndarray) -> np.ndarray:
    """Return float32 [F], the mean of each bin over the speech frames of features [T, F]."""
    return np.asarray(features.mean(axis=0, dtype=np.float64).astype(np.float32))


def input_score(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: Sequence[int],
    tokens: Sequence[int],
    segmentations: Segmentations,
) -> Score:
    """Return the function that scores occlusions of the spectrogram.

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
    baseline = torch.from_numpy(occluded_value(features)).to(model.device)  # (F,)
    first_ids = np.concatenate([[0], np.cumsum(segmentations.n_segments)[:-1]])
    labels = torch.from_numpy(segmentations.labels - first_ids[:, None, None]).to(model.device)

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        return model.decode(model.encode(inputs, padding_value), prompt, tokens)

    reference = logits(original[None])[0]  # (I, V)

    def score(occluded: torch.Tensor, k: int) -> torch.Tensor:
        cells = occluded[:, labels[k]]  # (N, T, F)
        return kl_divergence(reference, logits(torch.where(cells, baseline, original)))

    return score
