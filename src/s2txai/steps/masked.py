"""What SMX and SMH share: masks are added to what the store holds until there are enough."""

from collections.abc import Callable, Mapping
from typing import Any

from s2txai.artifacts import Artifact, load, save
from s2txai.log import Progress, logger
from s2txai.models.base import Model
from s2txai.provenance import describe, source_of
from s2txai.saliency.spes import Plan, Score, accumulate
from s2txai.saliency.statistics import AXES, UNITS, Statistics
from s2txai.steps.shard import Workplace, entry_path, publish


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

    Every block of masks is written to the store when it is done, so that a killed job loses at most
    one block, and a larger number of masks continues where a smaller one stopped.

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
        with Progress(f"{step} {utterance}", n_missing, "masks") as progress:
            accumulate(
                empty if statistics is None else statistics,
                score,
                plan,
                device=model.device,
                batch_size=batch_size,
                checkpoint=lambda current: save(entry, current.arrays(), meta),
                progress=progress.add,
            )
    publish(place, entry, utterance)


def _n_missing(statistics: Statistics | None, plan: Plan) -> int:
    if statistics is None:
        return sum(plan.n_masks)
    done = statistics.n_masks.sum(axis=0)
    return sum(max(0, want - int(have)) for want, have in zip(plan.n_masks, done, strict=True))
