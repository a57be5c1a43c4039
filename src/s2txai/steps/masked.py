"""What SMX and SMH share: masks are added to what the store holds until there are enough."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from s2txai.artifacts import Artifact, load, save
from s2txai.log import Progress, logger
from s2txai.models.base import Model
from s2txai.provenance import describe, source_of
from s2txai.saliency.spes import Plan, Score, accumulate
from s2txai.saliency.statistics import AXES, UNITS, Statistics
from s2txai.steps.shard import Workplace, entry_path, publish

SECONDS_BETWEEN_CHECKPOINTS = 30.0


def grow(
    place: Workplace,
    step: str,
    decoded: Artifact,
    parameters: Mapping[str, Any],
    *,
    prepare: Callable[[Model], tuple[Statistics, Score]],
    plan: Plan,
    batch_size: int,
) -> None:
    """Bring one utterance's statistics to the number of masks of the plan, and publish them.

    Sums are written to the store every half minute, so that a killed job loses no more than that,
    and a larger number of masks continues where a smaller one stopped.

    Parameters
    ----------
    place, step, decoded
        Where, which of ``smx`` and ``smh``, and on which utterance.
    parameters
        What changes the numbers, without the number of masks.
    prepare
        Makes the statistics of no masks, and the function that scores a batch of them.
    plan, batch_size
        As for :func:`s2txai.saliency.spes.accumulate`.
    """
    source = source_of(decoded)
    utterance = source["utterance"]
    entry = entry_path(place, step, source, parameters)
    stated = {**parameters, "precision": place.model.precision}
    meta = describe(step, source, stated, AXES, UNITS)
    statistics = Statistics.from_mapping(load(entry, step).arrays) if entry.exists() else None
    n_done = 0 if statistics is None else int(statistics.n_masks.sum())
    n_missing = _n_missing(statistics, plan)
    if n_done and n_missing:
        logger.info("%s %s: %d masks are in the store already", step, utterance, n_done)
    if n_missing:
        model = place.model.model
        empty, score = prepare(model)
        statistics = statistics or empty
        with Progress(f"{step} {utterance}", n_missing, "masks") as progress:
            accumulate(
                statistics,
                score,
                plan,
                device=model.device,
                batch_size=batch_size,
                checkpoint=_Checkpoints(entry, meta).save_if_due,
                progress=progress.add,
            )
        save(entry, statistics.arrays(), meta)
    publish(place, entry, utterance)


class _Checkpoints:
    """Writes statistics to the store, but not so often that writing takes time from the masks."""

    def __init__(self, entry: Path, meta: Mapping[str, Any]) -> None:
        self._entry, self._meta = entry, meta
        self._saved = time.monotonic()

    def save_if_due(self, statistics: Statistics) -> None:
        if time.monotonic() - self._saved >= SECONDS_BETWEEN_CHECKPOINTS:
            save(self._entry, statistics.arrays(), self._meta)
            self._saved = time.monotonic()


def _n_missing(statistics: Statistics | None, plan: Plan) -> int:
    if statistics is None:
        return sum(plan.n_masks)
    done = statistics.n_masks.sum(axis=0)
    return sum(max(0, want - int(have)) for want, have in zip(plan.n_masks, done, strict=True))
