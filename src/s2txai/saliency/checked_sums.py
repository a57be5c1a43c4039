"""Adding cheap scores of masks to the sums of SPES, and exact scores of some to check them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from s2txai.log import logger
from s2txai.models.memory import is_out_of_memory, to_device
from s2txai.saliency import checks
from s2txai.saliency.checks import Fidelity
from s2txai.saliency.masks import N_FOLDS, MaskPlan, is_checked
from s2txai.saliency.score_sums import Changes, Score, ScoreSums, apply, on_grid, one_by_one
from s2txai.saliency.statistics import Statistics


@dataclass(frozen=True)
class CheapScore:
    """A cheaper way to score masks.

    Attributes
    ----------
    score
        Close to the exact scores.
    description
        For people: what it computes.
    """

    score: Score
    description: str


class Perturbed(Protocol):
    """An utterance whose input is perturbed."""

    device: torch.device

    def inputs(self, occluded: torch.Tensor, k: int) -> torch.Tensor:
        """Return inputs [N, T, F] with segments of segmentation k occluded by bool [N, S_k]."""

    def score(self, occluded: torch.Tensor, k: int, *occluded_tokens: torch.Tensor) -> torch.Tensor:
        """Score masks exactly, as a :class:`Score`."""

    def cheap_scores(self, perturbed: torch.Tensor) -> Sequence[CheapScore]:
        """Return cheaper scores, the cheapest first, that learn from perturbed inputs [P, T, F]."""


class CheckedSums(ScoreSums):
    """Sums of cheap scores where a pilot finds them close enough, of exact ones elsewhere.

    The pilot runs before the first mask is added; what it decides is stored with the statistics,
    and later masks are scored in the same way.

    Parameters
    ----------
    statistics, plan
        As for :class:`ScoreSums`.
    perturbed
        Scores masks, cheaply and exactly.
    share
        Of the masks that are also scored exactly, or ``auto``.
    """

    def __init__(
        self,
        statistics: Statistics,
        perturbed: Perturbed,
        plan: MaskPlan,
        share: float | str,
    ) -> None:
        # Memory is measured by exact scores, which take more of it.
        super().__init__(statistics, perturbed.score, plan, perturbed.device)
        self._perturbed, self._wanted_share = perturbed, share
        self._pilot = _Pilot(perturbed, plan, len(statistics.score_sum[0, 0]))

    def add(self, occluded: torch.Tensor, k: int, start: int) -> None:
        """Score masks ``start``, ``start + 1``, ... bool [N, S_k], and add them to the sums."""
        if self._cheap is None:
            super().add(occluded, k, start)
            return
        stop = start + len(occluded)
        tokens = self._tokens(k, start, stop)
        cheap = self._cheap.score(occluded, k, *tokens)
        changes = self._changes(occluded, cheap, k, start, *tokens)
        assert self._statistics.check_share is not None
        (checked,) = np.nonzero(is_checked(start, stop, float(self._statistics.check_share)))
        if len(checked):
            of_checked = to_device(torch.from_numpy(checked), self._device)
            exact = self._score(
                occluded[of_checked], k, *(of_mask[of_checked] for of_mask in tokens)
            )
            folds = (start + checked) % N_FOLDS
            changes += self._check_changes(occluded[of_checked], cheap[of_checked], exact, k, folds)
        apply(changes)

    def _check_changes(
        self,
        occluded: torch.Tensor,
        cheap: torch.Tensor,
        exact: torch.Tensor,
        k: int,
        folds: np.ndarray,
    ) -> Changes:
        """Return what the sums over checked masks become; ``folds`` [N] are those of the masks."""
        segments = slice(self._offsets[k], self._offsets[k + 1])
        cheap, exact = on_grid(cheap.double()), on_grid(exact.double())
        moments = moments_of(cheap, exact)  # (N, 6, I)
        changes: Changes = []
        for fold in sorted(set(folds.tolist())):
            of_fold = to_device(torch.from_numpy(np.nonzero(folds == fold)[0]), self._device)
            indicators = occluded[of_fold].double()  # (n, S_k)
            total = self._sums["difference_sum"][fold, segments]
            difference = (exact - cheap)[of_fold]
            changes.append((total, torch.addmm(total, indicators.T, difference)))
            count = self._sums["difference_count"][fold, segments]
            changes.append((count, count + occluded[of_fold].sum(dim=0)))
            sums = self._sums["check_moments"][fold, :, k]  # (6, I)
            changes.append((sums, one_by_one(sums, moments[of_fold])))
        return changes

    @cached_property
    def _cheap(self) -> CheapScore | None:
        """How masks are scored cheaply, as the pilot decides or the statistics were begun.

        None where they are scored exactly.
        """
        statistics = self._statistics
        if statistics.total_masks == 0:
            decision = self._pilot.decide(self._wanted_share)
            statistics.begin_checks(
                share=decision.share, cheap_pass=decision.cheap_pass, p=self._plan.p,
                pilot_moments=decision.moments,
            )  # fmt: skip
            self._sums |= self._on_device()
            return decision.score
        if checks.is_fast(statistics):
            assert statistics.cheap_pass is not None
            return self._pilot.scores()[int(statistics.cheap_pass)]
        return None


def moments_of(cheap: torch.Tensor, exact: torch.Tensor) -> torch.Tensor:
    """Return :data:`s2txai.saliency.checks.MOMENTS` of each mask [N, 6, I] of scores [N, I]."""
    return torch.stack(
        [torch.ones_like(cheap), cheap, exact, cheap**2, exact**2, cheap * exact], dim=1
    )


@dataclass(frozen=True)
class _Decision:
    """How an utterance is scored: by ``score``, or exactly where there is none."""

    moments: np.ndarray
    score: CheapScore | None = None
    share: float = 0.0
    cheap_pass: int = -1


class _Pilot:
    """Masks of their own, which enter no sum: cheap passes learn from some, others measure them.

    Parameters
    ----------
    perturbed, plan
        As for :class:`CheckedSums`.
    n_rows
        Predicted tokens (I).
    """

    def __init__(self, perturbed: Perturbed, plan: MaskPlan, n_rows: int) -> None:
        self._perturbed, self._n_rows = perturbed, n_rows
        # Another name, another key.
        self._plan = replace(plan, names=tuple(f"{name} pilot" for name in plan.names))

    def _mask(self, number: int) -> tuple[torch.Tensor, int, tuple[torch.Tensor, ...]]:
        """Return a mask bool [1, S_k], its segmentation k, and the tokens that it occludes."""
        # Dealt over the segmentations, which all share the pilot.
        m, k = divmod(number, len(self._plan.names))
        arrays = [self._plan.draw(k, m, m + 1)]
        if self._plan.token_p:
            arrays.append(self._plan.draw_tokens(k, m, m + 1, self._n_rows))
        occluded, *tokens = (
            to_device(torch.from_numpy(array), self._perturbed.device) for array in arrays
        )
        return occluded, k, tuple(tokens)

    def scores(self) -> Sequence[CheapScore]:
        """Return cheap scores that have learnt from the first masks."""
        masks = (self._mask(number) for number in range(checks.N_LEARNING))
        inputs = [self._perturbed.inputs(occluded, k) for occluded, k, _ in masks]
        return self._perturbed.cheap_scores(torch.cat(inputs))

    def decide(self, wanted_share: float | str) -> _Decision:
        """Return how to score the masks of the utterance."""
        try:
            return self._measured(wanted_share)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        # Where the traceback no longer holds the tensors.
        logger.warning(
            "SMX %s: scored by the exact encoder; memory does not hold what the cheaper one learns "
            "from.",
            self._plan.utterance,
        )
        return self._exactly()

    def _measured(self, wanted_share: float | str) -> _Decision:
        """Return the decision that the pilot masks lead to."""
        utterance = self._plan.utterance
        scores = self.scores()
        if not scores:
            logger.info(
                "SMX %s: scored by the exact encoder; the model has no cheaper one for this input.",
                utterance,
            )
            return self._exactly()
        masks = [self._mask(checks.N_LEARNING + number) for number in range(checks.N_MEASURING)]
        exact = self._scores_of(self._perturbed.score, masks)
        moments: dict[int, np.ndarray] = {}

        def noise(share: float, number: int) -> float:
            if number not in moments:
                cheap = self._scores_of(scores[number].score, masks)
                moments[number] = moments_of(cheap, exact).numpy().sum(axis=0)
            return Fidelity.of_moments(moments[number]).noise(share)

        shares = checks.SHARES if wanted_share == "auto" else (float(wanted_share),)
        choices = [(share, number) for share in shares for number in range(len(scores))]
        # Every further pass has to learn and to score the pilot: none without need.
        quiet = next((choice for choice in choices if noise(*choice) <= checks.LOW_NOISE), None)
        share, number = quiet or min(choices[-len(scores) :], key=lambda choice: noise(*choice))
        added = noise(share, number)
        fidelity = Fidelity.of_moments(moments[number])
        facts = (
            fidelity.mean_correlation, fidelity.worst_correlation, 100 * fidelity.mean_bias,
            100 * added,
        )  # fmt: skip
        if added > checks.MOST_NOISE:
            logger.warning(
                "SMX %s: scored by the exact encoder; cheap scores are not close enough: in %d "
                "pilot masks they correlate %.4f with the exact ones (worst row %.4f, bias %+.2f "
                "%%), and correcting them would add %.0f %% of noise.",
                utterance, checks.N_MEASURING, *facts,
            )  # fmt: skip
            # Of cheap scores that are not finite there is nothing to store.
            finite = bool(np.isfinite(moments[number]).all())
            return _Decision(moments[number]) if finite else self._exactly()
        logger.info(
            "SMX %s: scored by a cheaper encoder (%s), %g %% of the masks also by the exact one; "
            "in %d pilot masks scores correlate %.4f (worst row %.4f, bias %+.2f %%), and checks "
            "add %.1f %% of noise.",
            utterance, scores[number].description, 100 * share, checks.N_MEASURING, *facts,
        )  # fmt: skip
        return _Decision(moments[number], scores[number], share, number)

    def _exactly(self) -> _Decision:
        """Return the decision for exact scores where nothing was measured."""
        return _Decision(np.zeros((len(checks.MOMENTS), self._n_rows)))

    def _scores_of(
        self,
        score: Score,
        masks: Sequence[tuple[torch.Tensor, int, tuple[torch.Tensor, ...]]],
    ) -> torch.Tensor:
        """Return float64 [N, I] on the CPU, one mask at a time: none depends on how many fit."""
        scores = [score(occluded, k, *tokens) for occluded, k, tokens in masks]
        # Together: with a copy of each, a GPU would wait for every mask to be launched.
        return torch.cat(scores).double().cpu()
