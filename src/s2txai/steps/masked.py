"""What SMX and SMH share: masks are added to what the store holds until there are enough."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from s2txai.log import Progress, logger
from s2txai.models.base import Model
from s2txai.models.memory import fitting_batch_size, smaller_batch
from s2txai.saliency.reliability import split_half
from s2txai.saliency.smx import Plan, Score, accumulate
from s2txai.saliency.statistics import UNITS, Statistics
from s2txai.steps.shard import (
    Attempts,
    Workplace,
    check_finite,
    entry_path,
    measured_on_largest,
    publish,
    stated,
    stored_entry,
)
from s2txai.storage.artifacts import Artifact, replacing, save
from s2txai.storage.provenance import describe, source_of

# Sums are written this often or, where writing takes longer than a twentieth of a second, so much
# less often, up to half a minute: writing then takes about 1 % of the time.
SECONDS_BETWEEN_CHECKPOINTS = 5.0
_QUICK = 0.05
_MOST_SECONDS = 30.0

# The pooling whose reliability decides and is stated; SMH has one cell a step, nothing to pool.
POOLING = "avg2d"

Prepare = Callable[[Model], tuple[Statistics, Score]]


@dataclass(frozen=True)
class Job:
    """The masks of one utterance.

    Attributes
    ----------
    decoded
        Its ``decode`` artefact.
    prepare
        Makes the statistics of no masks, and the function that scores a batch of them.
    plan
        Which masks.
    """

    decoded: Artifact
    prepare: Prepare
    plan: Plan


@dataclass(frozen=True)
class Effort:
    """How the masks of a shard are computed.

    Attributes
    ----------
    batch_size
        Masks for one forward pass, or ``auto``.
    target_reliability
        Of the map at encoder steps (mean over the cells of a step): masks are added in chunks as
        large as the plan until it is reached.
    most
        Multiple of the plan at which the search for it ends; 1 for the plan alone.
    logarithms
        Whether logarithms of the scores are summed, for the log-linear estimator.
    """

    batch_size: int | str
    target_reliability: float = 0.0
    most: float = 1.0
    logarithms: bool = False


def grow_shard(
    place: Workplace,
    step: str,
    parameters: Mapping[str, Any],
    decoded: Sequence[Artifact],
    job_of: Callable[[Artifact], Job],
    effort: Effort,
) -> None:
    """Bring the statistics of every utterance to their masks, and publish them.

    Sums are written to the store every 5 to 30 seconds, so that a killed job loses no more than
    that, and a larger number of masks continues where a smaller one stopped. Beside each result,
    ``<utterance>.job.json`` says where and how fast its masks were computed.

    Parameters
    ----------
    place, step
        Where, and which of ``smx`` and ``smh``.
    parameters
        What changes the numbers, without the number of masks.
    decoded
        ``decode`` artefacts, one an utterance.
    job_of
        Returns the masks of one of them.
    effort
        How.
    """
    batch = _Batch(effort.batch_size, decoded, job_of)
    with Attempts(step, place.output, place.on_failure) as attempts:
        for artifact in decoded:
            with attempts.of(artifact.meta["utterance"]):
                _grow(place, step, parameters, job_of(artifact), batch, effort)


class _Batch:
    """The size of batches of a shard, settled when the first one is needed.

    The utterance that needs most memory decides.
    """

    def __init__(
        self, asked: int | str, decoded: Sequence[Artifact], job_of: Callable[[Artifact], Job]
    ) -> None:
        self._decoded, self._job_of = decoded, job_of
        self.size = None if asked == "auto" else int(asked)

    def settle(self, model: Model) -> int:
        if self.size is None:
            self.size = measured_on_largest(partial(self._fitting, model), self._decoded)
        return self.size

    def _fitting(self, model: Model, artifact: Artifact) -> int:
        job = self._job_of(artifact)
        _, score = _prepared(job, model)

        def work(n: int) -> object:
            occluded = torch.ones((n, job.plan.sizes[0]), dtype=torch.bool, device=model.device)
            return score(occluded, 0)

        return fitting_batch_size(model.device, work)


def _prepared(job: Job, model: Model) -> tuple[Statistics, Score]:
    """Prepare an utterance, which takes a forward pass of its unperturbed input.

    Raises
    ------
    UserError
        If not even that fits into memory.
    """
    try:
        return job.prepare(model)
    except (RuntimeError, MemoryError) as error:
        smaller_batch(1, error)  # raises: a single input cannot be halved
        raise


def _grow(
    place: Workplace,
    step: str,
    parameters: Mapping[str, Any],
    job: Job,
    batch: _Batch,
    effort: Effort,
) -> None:
    source = source_of(job.decoded)
    utterance = source["utterance"]
    entry = entry_path(place, step, source, parameters)
    stored = stored_entry(place, step, source, parameters)
    statistics = Statistics.from_mapping(stored.arrays) if stored else None
    if statistics and effort.logarithms and not statistics.has_logarithms:
        logger.info("%s %s: starts again, to sum logarithms of the scores", step, utterance)
        stored = statistics = None
    started, n_before = time.monotonic(), _n_masks(statistics)

    def described(statistics: Statistics) -> dict[str, Any]:
        return describe(step, source, stated(place, parameters), statistics.axes, UNITS)

    def extended(statistics: Statistics | None, plan: Plan) -> Statistics:
        """Return the statistics with at least the masks of the plan."""
        n_missing = _n_missing(statistics, plan)
        if statistics and not n_missing:
            return statistics
        model = place.model.model
        batch_size = batch.settle(model)
        empty, score = _prepared(job, model)
        growing = statistics or empty
        with Progress(f"{step} {utterance}", n_missing, "masks") as progress:
            batch.size = accumulate(
                growing,
                score,
                plan,
                device=model.device,
                batch_size=batch_size,
                checkpoint=_Checkpoints(step, entry, described).save_if_due,
                progress=progress.add,
            )
        return growing

    if n_before and _n_missing(statistics, job.plan):
        logger.info("%s %s: %d masks are in the store already", step, utterance, n_before)
    grown = extended(statistics, job.plan)
    reliability = split_half(grown, POOLING)
    for plan in _chunks(job.plan, effort):
        if reliability >= effort.target_reliability:
            break
        grown = extended(grown, plan)
        reliability = split_half(grown, POOLING)
    masks = _told(grown, job.plan, reliability, effort)
    n_new = _n_masks(grown) - n_before
    if stored is None or n_new or stored.meta.get("masks") != masks:
        check_finite(grown.arrays(), step)
        save(entry, grown.arrays(), described(grown) | {"masks": masks})
    if masks["converged"] is False:
        logger.warning(
            "%s %s: reliability %.2f after %d masks, under the target of %g: raise max_masks.",
            step, utterance, reliability, masks["n_masks"], masks["target_reliability"],
        )  # fmt: skip
    publish(place, entry, utterance)
    _write_job(place.output / f"{utterance}.job.json", place, batch, n_new, started)


def _chunks(plan: Plan, effort: Effort) -> Iterator[Plan]:
    """Yield growing multiples of the plan, where there is a target to be reached.

    The chunks do not depend on how far an earlier run came: resumed equals uninterrupted.
    """
    for times in range(2, math.ceil(effort.most) + 1):
        share = min(times, effort.most)
        yield replace(plan, n_masks=tuple(round(n * share) for n in plan.n_masks))


def _told(statistics: Statistics, plan: Plan, reliability: float, effort: Effort) -> dict[str, Any]:
    """Return what ``meta`` says about the masks."""
    wanted = effort.target_reliability or None
    return {
        "segmentations": list(plan.names),
        "n_masks": _n_masks(statistics),
        # JSON knows no NaN: nothing varies, so nothing is measured.
        "reliability": None if math.isnan(reliability) else reliability,
        "target_reliability": wanted,
        "converged": None if wanted is None else bool(reliability >= wanted),
    }


def _write_job(path: Path, place: Workplace, batch: _Batch, n_new: int, started: float) -> None:
    """Write what may differ between two runs with the same numbers."""
    told = {
        "host": platform.node(),
        "device": place.model.device,
        "batch_size": batch.size,
        "masks_computed": n_new,
        "seconds": round(time.monotonic() - started, 3),
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }
    with replacing(path) as partial:
        partial.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


class CheckpointClock:
    """Says when sums are due to be written to the store: often, but not at the cost of masks."""

    def __init__(self) -> None:
        self._written, self._cost = time.monotonic(), 0.0

    @property
    def due(self) -> bool:
        """Whether enough time has passed."""
        interval = SECONDS_BETWEEN_CHECKPOINTS * max(1.0, self._cost / _QUICK)
        return time.monotonic() - self._written >= min(_MOST_SECONDS, interval)

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Measure what writing takes."""
        started = time.monotonic()
        yield
        self._written = time.monotonic()
        self._cost = self._written - started


class _Checkpoints:
    """Writes statistics to the store when they are due."""

    def __init__(
        self, step: str, entry: Path, described: Callable[[Statistics], Mapping[str, Any]]
    ) -> None:
        self._step, self._entry, self._described = step, entry, described
        self._clock = CheckpointClock()

    def save_if_due(self, current: Callable[[], Statistics]) -> None:
        if self._clock.due:
            statistics = current()
            check_finite(statistics.arrays(), self._step)
            with self._clock.writing():
                save(self._entry, statistics.arrays(), self._described(statistics))


def _n_masks(statistics: Statistics | None) -> int:
    return 0 if statistics is None else int(statistics.n_masks.sum())


def _n_missing(statistics: Statistics | None, plan: Plan) -> int:
    if statistics is None:
        return sum(plan.n_masks)
    done = statistics.n_masks.sum(axis=0)
    return sum(max(0, want - int(have)) for want, have in zip(plan.n_masks, done, strict=True))
