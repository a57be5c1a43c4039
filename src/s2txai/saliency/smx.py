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
from s2txai.models.memory import smaller_batch, to_device
from s2txai.saliency.baselines import OCCLUDED_VALUES
from s2txai.saliency.masks import occlusion
from s2txai.saliency.scores import Divergence
from s2txai.saliency.segments import Segmentations
from s2txai.saliency.statistics import N_FOLDS, Statistics, heatmap

__all__ = [
    "GRID", "LEAST_SCORE", "Plan", "Score", "Statistics", "accumulate", "draw", "heatmap",
    "input_score", "masks_per_segmentation", "segmentation_names",
]  # fmt: skip

LEAST_SCORE = 1e-8
"""Stands for a score of 0 where logarithms are summed, in nats: below it float32 sees nothing."""

GRID = 2.0**38
"""Scores and their logarithms are rounded to multiples of 1 / GRID, in nats, before they are added:
then sums over segments are exact, and have the same bits for any batches."""

# From bool [N, S_k], True = occluded, and k to scores [N, I]; where preceding tokens are occluded,
# bool [N, I] follows.
Score = Callable[..., torch.Tensor]


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
    token_p
        Probability that the embedding of a preceding token is occluded by the same mask.
    """

    seed: int
    utterance: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    n_masks: tuple[int, ...]
    p: float
    token_p: float = 0.0


def accumulate(
    statistics: Statistics,
    score: Score,
    plan: Plan,
    *,
    device: torch.device,
    batch_size: int,
    checkpoint: Callable[[Callable[[], Statistics]], None],
    progress: Callable[[int], None],
) -> int:
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
        Masks for one forward pass; halved for good when the device runs out of memory.
    checkpoint
        Called whenever a batch of every segmentation is done, with a function that brings
        ``statistics`` up to date and returns them.
    progress
        Called with the number of masks each time some are done.

    Returns
    -------
    int
        The size of the last batches.

    Raises
    ------
    UserError
        If not even one mask fits into memory.
    """
    offsets = np.concatenate([[0], np.cumsum(plan.sizes)])
    done: list[int] = statistics.n_masks.sum(axis=0).tolist()
    n_rows = statistics.occluded_sum.shape[2]
    sums = _Sums(statistics, device)
    while any(have < want for have, want in zip(done, plan.n_masks, strict=True)):
        for k in range(len(plan.names)):
            # Batches end at multiples of their size: a resumed run computes the same batches as an
            # uninterrupted one.
            start, stop = done[k], min(plan.n_masks[k], (done[k] // batch_size + 1) * batch_size)
            if start >= stop:
                continue
            try:
                occluded = to_device(draw(plan, k, start, stop), device)  # (N, S_k)
                tokens = _draw_tokens(plan, k, start, stop, n_rows, device)
                scores = score(occluded, k, *tokens)  # (N, I)
                sums.add(occluded, scores, slice(offsets[k], offsets[k + 1]), k, start, *tokens)
            except (RuntimeError, MemoryError) as error:
                batch_size = smaller_batch(batch_size, error)
                continue
            progress(stop - start)
            done[k] = stop
        checkpoint(sums.statistics)
    sums.statistics()
    return batch_size


def draw(plan: Plan, k: int, start: int, stop: int) -> torch.Tensor:
    """Return masks ``start`` to ``stop - 1`` of segmentation k, bool [N, S_k] on the CPU."""
    return _draw(plan, plan.names[k], start, stop, plan.sizes[k], plan.p)


def _draw_tokens(
    plan: Plan, k: int, start: int, stop: int, n_rows: int, device: torch.device
) -> tuple[torch.Tensor, ...]:
    """Return the preceding tokens that the same masks occlude, bool [N, I], where any are."""
    if plan.token_p == 0:
        return ()
    name = f"{plan.names[k]} tokens"
    return (to_device(_draw(plan, name, start, stop, n_rows, plan.token_p), device),)


def _draw(plan: Plan, name: str, start: int, stop: int, n: int, p: float) -> torch.Tensor:
    return torch.from_numpy(
        occlusion(
            seed=plan.seed,
            utterance=plan.utterance,
            segmentation=name,
            start=start,
            stop=stop,
            n_segments=n,
            p=p,
        )
    )


class _Sums:
    """The sums of :class:`Statistics` on the device, so that no batch waits for a copy.

    They do not depend on how the masks are cut into batches: terms of matrix products lie on a
    grid, so that these are exact, and the others are added mask by mask. On a CPU the sums share
    their memory with the statistics.
    """

    def __init__(self, statistics: Statistics, device: torch.device) -> None:
        self._statistics = statistics
        self._sums = {
            name: torch.from_numpy(values).to(device)
            for name, values in statistics.arrays().items()
            if name not in ("segments", "subsampling", "n_steps")
        }

    def add(
        self,
        occluded: torch.Tensor,
        scores: torch.Tensor,
        segments: slice,
        k: int,
        start: int,
        *occluded_tokens: torch.Tensor,
    ) -> None:
        """Add masks ``start``, ``start + 1``, ... to all sums or, where it raises, to none.

        Parameters
        ----------
        occluded
            bool [N, S_k].
        scores
            [N, I].
        segments
            Of segmentation k, among all S.
        k
            The segmentation.
        start
            Number of the first mask.
        *occluded_tokens
            bool [N, I], where the masks occlude preceding tokens, too.
        """
        scores = _on_grid(scores.double())
        summed = [
            ("occluded_sum", scores), ("score_sum", scores), ("score_square_sum", scores.square()),
        ]  # fmt: skip
        if "log_sum" in self._sums:
            # A score of 0 is one that rounding made so.
            logs = _on_grid(scores.clamp(min=LEAST_SCORE).log())
            summed += [
                ("occluded_log_sum", logs), ("log_sum", logs), ("log_square_sum", logs.square()),
            ]  # fmt: skip
        new: list[tuple[torch.Tensor, torch.Tensor]] = []  # a sum, and what it becomes
        for fold in range(N_FOLDS):
            # Mask m belongs to fold m mod 4.
            chosen = slice((fold - start) % N_FOLDS, None, N_FOLDS)
            hidden = occluded[chosen].double()  # (n, S_k)
            for name, values in summed:
                sums = self._sums[name][fold]
                if name.startswith("occluded"):
                    part = sums[segments]  # (S_k, I)
                    new.append((part, torch.addmm(part, hidden.T, values[chosen])))
                else:
                    new.append((sums[k], _one_by_one(sums[k], values[chosen])))
            count = self._sums["occluded_count"][fold, segments]
            new.append((count, count + occluded[chosen].sum(dim=0)))
            n_masks = self._sums["n_masks"][fold, k]
            new.append((n_masks, n_masks + len(hidden)))
        for tokens in occluded_tokens:
            total, count = self._sums["token_sum"], self._sums["token_count"]
            new.append((total, torch.addmm(total, scores.T, tokens.double())))
            new.append((count, count + tokens.sum(dim=0)))
        for sums, value in new:
            sums.copy_(value)

    def statistics(self) -> Statistics:
        """Bring the statistics up to date and return them."""
        for name, values in self._sums.items():
            np.copyto(getattr(self._statistics, name), values.cpu().numpy())
        return self._statistics


def _on_grid(values: torch.Tensor) -> torch.Tensor:
    """Round to multiples of 2^-38, of which float64 adds up 32,768 nats without an error."""
    return (values * GRID).round_().div_(GRID)


def _one_by_one(total: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Add the rows of values [n, I] to a total [I], the first one first."""
    return torch.cat([total[None], values]).cumsum(dim=0)[-1]


def masks_per_segmentation(n_masks: int, segmentations: Segmentations) -> tuple[int, ...]:
    """Deal ``n_masks`` evenly over the requested levels, rounded down.

    A segmentation that stands for several levels (SLIC made the same map for them) gets the masks
    of all of them.
    """
    n_levels = sum(len(levels) for levels in segmentations.levels)
    return tuple(n_masks // n_levels * len(levels) for levels in segmentations.levels)


def segmentation_names(segmentations: Segmentations) -> tuple[str, ...]:
    """Name each segmentation after its first level; part of the key of its masks."""
    return tuple(f"{segmentations.kind}-{levels[0]}" for levels in segmentations.levels)


def input_score(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: Sequence[int],
    tokens: Sequence[int],
    segmentations: Segmentations,
    occluded_value: str = "bin mean",
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
    occluded_value
        A name of :data:`s2txai.saliency.baselines.OCCLUDED_VALUES`.
    """
    hidden = OCCLUDED_VALUES[occluded_value](features, padding_value)
    original = torch.from_numpy(features).to(model.device)  # (T, F)
    baseline = torch.from_numpy(hidden).to(model.device)  # (F,)
    first_ids = np.concatenate([[0], np.cumsum(segmentations.n_segments)[:-1]])
    labels = torch.from_numpy(segmentations.labels - first_ids[:, None, None]).to(model.device)

    def logits(inputs: torch.Tensor) -> torch.Tensor:
        return model.decode(model.encode(inputs, padding_value), prompt, tokens)

    divergence = Divergence(logits(original[None])[0])

    def score(
        occluded: torch.Tensor, k: int, occluded_tokens: torch.Tensor | None = None
    ) -> torch.Tensor:
        cells = occluded[:, labels[k]]  # (N, T, F)
        perturbed = torch.where(cells, baseline, original)
        if occluded_tokens is None:
            return divergence(logits(perturbed))
        states = model.encode(perturbed, padding_value)
        return divergence(model.decode_without_tokens(states, occluded_tokens, prompt, tokens))

    return score
