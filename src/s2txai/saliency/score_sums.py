"""Adding the scores of masks to the sums of SPES, for SMX and SMH."""

from typing import Protocol

import numpy as np
import torch

from s2txai.models.memory import to_device
from s2txai.saliency.masks import N_FOLDS, MaskPlan
from s2txai.saliency.statistics import Statistics

LEAST_SCORE = 1e-8
"""Stands for a score of 0 where logarithms are summed, in nats: below it float32 sees nothing."""

GRID = 2.0**38
"""Scores and their logarithms are rounded to multiples of 1 / GRID, in nats, before they are added:
then sums over segments are exact, and have the same bits for any batches."""


UNSUMMED = (
    "segments", "subsampling", "n_steps", "check_share", "cheap_pass", "p", "pilot_moments",
)  # fmt: skip
"""Arrays of :class:`Statistics` to which masks add nothing."""

# Sums on the device, and what they become.
Changes = list[tuple[torch.Tensor, torch.Tensor]]


class Score(Protocol):
    """How a batch of masks is scored."""

    def __call__(
        self, occluded: torch.Tensor, k: int, *occluded_tokens: torch.Tensor
    ) -> torch.Tensor:
        """Return scores [N, I], in nats.

        Parameters
        ----------
        occluded
            bool [N, S_k], True where a mask occludes a segment of segmentation k.
        *occluded_tokens
            bool [N, I], where preceding tokens are occluded as well.
        """


class ScoreSums:
    """The sums of :class:`Statistics` on the device, so that no batch waits for a copy.

    They do not depend on how the masks are cut into batches: terms of matrix products lie on a
    grid, so that these are exact, and the others are added mask by mask. On a CPU the sums share
    their memory with the statistics.

    Parameters
    ----------
    statistics
        Zeros, or those of earlier masks of the same plan; changed in place.
    score
        Runs the model on a batch of masks.
    plan
        Which masks.
    device
        Where the sums are made.
    """

    def __init__(
        self, statistics: Statistics, score: Score, plan: MaskPlan, device: torch.device
    ) -> None:
        self._statistics, self._score, self._plan, self._device = statistics, score, plan, device
        self._offsets = np.concatenate([[0], np.cumsum(plan.sizes)]).tolist()
        self._sums = self._on_device()

    def _on_device(self) -> dict[str, torch.Tensor]:
        """Return the sums of the statistics on the device."""
        return {
            name: torch.from_numpy(values).to(self._device)
            for name, values in self._statistics.arrays().items()
            if name not in UNSUMMED
        }

    def work(self, n: int) -> object:
        """Score ``n`` masks that occlude everything, without adding them."""
        size = self._plan.sizes[0]
        return self._score(torch.ones((n, size), dtype=torch.bool, device=self._device), 0)

    def add(self, occluded: torch.Tensor, k: int, start: int) -> None:
        """Score masks ``start``, ``start + 1``, ... bool [N, S_k], and add them to the sums."""
        tokens = self._tokens(k, start, start + len(occluded))
        scores = self._score(occluded, k, *tokens)
        apply(self._changes(occluded, scores, k, start, *tokens))

    def _tokens(self, k: int, start: int, stop: int) -> tuple[torch.Tensor, ...]:
        """Return the preceding tokens that the masks occlude, bool [N, I], where any are."""
        if self._plan.token_p == 0:
            return ()
        n_rows = self._statistics.occluded_sum.shape[2]
        occluded = torch.from_numpy(self._plan.draw_tokens(k, start, stop, n_rows))
        return (to_device(occluded, self._device),)

    def _changes(
        self,
        occluded: torch.Tensor,
        scores: torch.Tensor,
        k: int,
        start: int,
        *occluded_tokens: torch.Tensor,
    ) -> Changes:
        """Return what the sums become with masks ``start``, ``start + 1``, ..."""
        segments = slice(self._offsets[k], self._offsets[k + 1])
        scores = on_grid(scores.double())
        summed = [
            ("occluded_sum", scores), ("score_sum", scores), ("score_square_sum", scores.square()),
        ]  # fmt: skip
        if "log_sum" in self._sums:
            # A score of 0 is one that rounding made so.
            logs = on_grid(scores.clamp(min=LEAST_SCORE).log())
            summed += [
                ("occluded_log_sum", logs), ("log_sum", logs), ("log_square_sum", logs.square()),
            ]  # fmt: skip
        new: Changes = []
        for fold in range(N_FOLDS):
            # Mask m belongs to fold m mod 4.
            of_fold = slice((fold - start) % N_FOLDS, None, N_FOLDS)
            indicators = occluded[of_fold].double()  # (n, S_k)
            for name, values in summed:
                sums = self._sums[name][fold]
                if name.startswith("occluded"):
                    part = sums[segments]  # (S_k, I)
                    new.append((part, torch.addmm(part, indicators.T, values[of_fold])))
                else:
                    new.append((sums[k], one_by_one(sums[k], values[of_fold])))
            count = self._sums["occluded_count"][fold, segments]
            new.append((count, count + occluded[of_fold].sum(dim=0)))
            n_masks = self._sums["n_masks"][fold, k]
            new.append((n_masks, n_masks + len(indicators)))
        for tokens in occluded_tokens:
            total, count = self._sums["token_sum"], self._sums["token_count"]
            new.append((total, torch.addmm(total, scores.T, tokens.double())))
            new.append((count, count + tokens.sum(dim=0)))
        return new

    def statistics(self) -> Statistics:
        """Bring the statistics up to date and return them."""
        for name, values in self._sums.items():
            np.copyto(getattr(self._statistics, name), values.cpu().numpy())
        return self._statistics


def apply(changes: Changes) -> None:
    """Change the sums, all of them or none: nothing that can fail is left to do."""
    for sums, value in changes:
        sums.copy_(value)


def on_grid(values: torch.Tensor) -> torch.Tensor:
    """Round to multiples of 2^-38, of which float64 adds up 32,768 nats without an error."""
    return (values * GRID).round_().div_(GRID)


def one_by_one(total: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """Add the rows of values [n, I] to a total [I], the first one first."""
    return torch.cat([total[None], values]).cumsum(dim=0)[-1]
