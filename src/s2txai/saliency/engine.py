"""The engine of masks: one loop for SMX, SMH and gradients, whatever is summed over the masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from s2txai.errors import UserError
from s2txai.models.base import Model
from s2txai.models.memory import fitting_batch_size, smaller_batch, to_device
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.reliability import half_correlation, half_maps, spearman_brown
from s2txai.saliency.statistics import MaskSums

RELIABILITY_POOLING = "avg2d"
"""The pooling whose reliability decides how many masks are enough: the linear one."""

S = TypeVar("S", bound=MaskSums)
S_co = TypeVar("S_co", bound=MaskSums, covariant=True)

# Called after each round of batches, with the masks added since the last call and a function that
# brings the statistics up to date and returns them.
OnBatch = Callable[[int, Callable[[], S]], None]


class Sums(Protocol[S_co]):
    """Statistics to which masks are being added."""

    def add(self, occluded: torch.Tensor, k: int, start: int) -> None:
        """Run the model on masks and add them to all sums or, where it raises, to none.

        Parameters
        ----------
        occluded
            bool [N, S_k]: masks ``start``, ``start + 1``, ... of segmentation k.
        """

    def work(self, n: int) -> object:
        """Do the work of ``n`` masks without adding them, so that its memory can be measured."""

    def statistics(self) -> S_co:
        """Bring the statistics up to date and return them."""


@dataclass(frozen=True)
class Masks:
    """The masks of one utterance.

    Attributes
    ----------
    plan
        Which masks.
    segments
        int32 [K, T, F], what each occludes; ids from 0, unique over K.
    """

    plan: MaskPlan
    segments: npt.NDArray[np.int32]

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """Segments [K, T, F] with ids that start at 0 in every segmentation."""
        first_ids = np.concatenate([[0], np.cumsum(self.plan.sizes)[:-1]])
        return np.asarray(self.segments - first_ids[:, None, None])


class MasksOf(Protocol):
    """How the masks of a perturbation are laid out over an utterance."""

    def __call__(
        self, heard: Heard, design: MaskDesign, *, utterance: str, subsampling: int, time_only: bool
    ) -> Masks:
        """Return the masks of an utterance, whose name is part of their key."""


class SumsOf(Protocol[S]):
    """How sums over the masks of a perturbation begin."""

    def __call__(
        self, model: Model, heard: Heard, design: MaskDesign, masks: Masks, statistics: S | None
    ) -> Sums[S]:
        """Return sums that go on from ``statistics``, or begin at zero; runs the model once."""


@dataclass(frozen=True)
class Perturbation(Generic[S]):
    """What distinguishes SMX, SMH and gradients.

    Attributes
    ----------
    masks
        Lays out the masks; needs no model.
    sums
        Begins or continues the sums.
    kind
        The type of the statistics.
    map_of
        Makes the map [I, T, F] of some folds of the masks.
    """

    masks: MasksOf
    sums: SumsOf[S]
    kind: type[S]
    map_of: Callable[[S, Sequence[int]], npt.NDArray[np.float64]]

    def reliability(self, statistics: S) -> float:
        """Return the reliability of the map at encoder steps, the mean over the cells of a step."""
        halves = half_maps(statistics, RELIABILITY_POOLING, self.map_of)
        return spearman_brown(half_correlation(halves))


class BatchSize:
    """Masks for one forward pass: settled when first needed, halved when memory runs out.

    Parameters
    ----------
    requested
        A number, or ``auto``: what fits into memory.
    measure
        How ``auto`` is settled; None: by the first utterance.

    Raises
    ------
    UserError
        If ``requested`` is something else.
    """

    def __init__(
        self, requested: int | str = "auto", measure: Callable[[], int] | None = None
    ) -> None:
        if requested != "auto" and not (isinstance(requested, int) and requested > 0):
            raise UserError(f"'batch_size' must be a whole number at least 1 or auto: {requested}.")
        self.size = None if requested == "auto" else int(requested)
        self._measure = measure

    def settle(self, measure: Callable[[], int]) -> int:
        """Return the size; ``measure`` is called where nothing else settles it."""
        if self.size is None:
            self.size = (self._measure or measure)()
        return self.size

    def halve(self, error: BaseException) -> int:
        """Return half of the size after memory ran out; raise any other error again."""
        self.size = smaller_batch(self.size or 1, error)
        return self.size


def begin(
    perturbation: Perturbation[S],
    model: Model,
    heard: Heard,
    design: MaskDesign,
    masks: Masks,
    statistics: S | None = None,
) -> Sums[S]:
    """Return the sums of an utterance, which takes a forward pass of its unperturbed input.

    Raises
    ------
    UserError
        If not even that fits into memory.
    """
    try:
        return perturbation.sums(model, heard, design, masks, statistics)
    except (RuntimeError, MemoryError) as error:
        smaller_batch(1, error)  # raises: a single input cannot be halved
        raise


def extend(
    perturbation: Perturbation[S],
    model: Model,
    heard: Heard,
    design: MaskDesign,
    masks: Masks,
    statistics: S | None,
    *,
    batch: BatchSize,
    on_batch: OnBatch[S] | None = None,
) -> S:
    """Return statistics that have the masks of the plan; ``statistics`` are changed in place."""
    sums = begin(perturbation, model, heard, design, masks, statistics)
    batch.settle(lambda: fitting_batch_size(model.device, sums.work))
    accumulate(sums, masks.plan, device=model.device, batch=batch, on_batch=on_batch)
    return sums.statistics()


def accumulate(
    sums: Sums[S],
    plan: MaskPlan,
    *,
    device: torch.device,
    batch: BatchSize,
    on_batch: OnBatch[S] | None = None,
) -> None:
    """Add masks until each segmentation has those of the plan.

    Parameters
    ----------
    sums
        Of no masks, or of an earlier run with the same plan but for ``n_masks``.
    plan
        Which masks.
    device
        Where the masks are needed.
    batch
        Masks for one forward pass; must be settled.
    on_batch
        Called whenever a batch of every segmentation is finished.

    Raises
    ------
    UserError
        If not even one mask fits into memory.
    """
    counts: list[int] = sums.statistics().n_masks.sum(axis=0).tolist()
    size = batch.size or 1
    while any(count < n for count, n in zip(counts, plan.n_masks, strict=True)):
        n_new = 0
        for k, n in enumerate(plan.n_masks):
            # Batches end at multiples of their size: a resumed run computes the same batches as an
            # uninterrupted one.
            start, stop = counts[k], min(n, (counts[k] // size + 1) * size)
            if start >= stop:
                continue
            try:
                occluded = torch.from_numpy(plan.draw(k, start, stop))  # (N, S_k)
                sums.add(to_device(occluded, device), k, start)
            except (RuntimeError, MemoryError) as error:
                size = batch.halve(error)
                continue
            n_new += stop - start
            counts[k] = stop
        if on_batch is not None and n_new:
            on_batch(n_new, sums.statistics)


def grow(
    perturbation: Perturbation[S],
    load: Callable[[], Model],
    heard: Heard,
    design: MaskDesign,
    masks: Masks,
    statistics: S | None,
    *,
    batch: BatchSize,
    on_batch: OnBatch[S] | None = None,
) -> tuple[S, float]:
    """Bring statistics to the masks of a design or, where it sets one, to its reliability.

    Parameters
    ----------
    perturbation, heard, design, masks
        Which masks of what.
    load
        Returns the model; called only if masks are missing.
    statistics
        Of earlier masks; None without any. Changed in place.
    batch, on_batch
        As for :func:`accumulate`; the batch need not be settled.

    Returns
    -------
    statistics
        With at least the masks of the design.
    reliability
        Of their map at encoder steps, the mean over the cells of a step.
    """
    reliability = float("nan")
    for plan in design.plans(masks.plan):
        if statistics is None or statistics.n_missing(plan.n_masks):
            statistics = extend(
                perturbation, load(), heard, design, replace(masks, plan=plan), statistics,
                batch=batch, on_batch=on_batch,
            )  # fmt: skip
        reliability = perturbation.reliability(statistics)
        if reliability >= (design.target_reliability or 0.0):
            break
    assert statistics is not None  # a design has at least one plan
    return statistics, reliability


def perturbed_statistics(
    perturbation: Perturbation[S],
    model: Model,
    heard: Heard,
    design: MaskDesign,
    *,
    utterance: str,
    statistics: S | None,
    batch_size: int | str,
    on_batch: OnBatch[S] | None,
) -> S:
    """Return the statistics of an utterance under a design; see the functions that call this."""
    facts = model.facts
    masks = perturbation.masks(
        heard, design, utterance=utterance,
        subsampling=facts.subsampling, time_only=facts.time_only,
    )  # fmt: skip
    return grow(
        perturbation, lambda: model, heard, design, masks, statistics,
        batch=BatchSize(batch_size), on_batch=on_batch,
    )[0]  # fmt: skip
