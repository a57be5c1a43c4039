"""Step 3, grad: saliency on the input by gradients, one artefact for each method."""

from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
import torch

from s2txai.log import Progress, logger
from s2txai.models.base import Model, n_steps
from s2txai.models.memory import fitting_batch_size
from s2txai.saliency.gradient_statistics import AXES, MAP_AXES, MAP_UNITS, UNITS, GradientStatistics
from s2txai.saliency.gradients import (
    accumulate_changes,
    first_order_change,
    gradient_names,
    row_maps,
    token_log_probs,
)
from s2txai.saliency.pooling import gradient_halves
from s2txai.saliency.reliability import half_correlation, spearman_brown
from s2txai.saliency.segments import Segmentations, segmentations
from s2txai.saliency.smx import Plan, masks_per_segmentation
from s2txai.steps.masked import CheckpointClock
from s2txai.steps.shard import (
    Attempts,
    Workplace,
    check_finite,
    entry_path,
    features_of,
    hypothesis_of,
    keep,
    measured_on_largest,
    publish,
    stated,
    stored_entry,
)
from s2txai.storage.artifacts import Artifact, save
from s2txai.storage.provenance import describe, source_of

# In half precision gradients underflow unless the score is scaled.
COMPUTE = {"precision": "float32"}


def gradient_shard(
    place: Workplace,
    method: str,
    decoded: Sequence[Artifact],
    *,
    batch_size: int | str = "auto",
    **parameters: Any,
) -> None:
    """Attribute every utterance by one method.

    Parameters
    ----------
    place, method, decoded
        Where, a name of :data:`s2txai.saliency.gradient_statistics.GRADIENTS`, and the ``decode``
        artefacts.
    batch_size
        Masks, or points of the integral, for one forward pass; ``auto``: what fits into memory.
    **parameters
        Of the method: those of :func:`grad_shard`, ``n_points`` for ``integrated_gradients``, none
        for ``input_x_gradient``.
    """
    size = _batch_size(place, decoded, batch_size)
    if method == "grad":
        grad_shard(place, decoded, size, **parameters)
    else:
        map_shard(place, method, decoded, size, **parameters)


def grad_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    batch_size: Callable[[], int],
    *,
    n_segments: Sequence[int],
    n_masks: int,
    p: float,
    seed: int,
) -> None:
    """Linearise the score of SPES at masked inputs.

    Parameters
    ----------
    place, decoded
        Where, and the ``decode`` artefacts.
    batch_size
        Returns the masks for one forward pass; called only if some are missing.
    n_segments
        Levels of segmentation, in segments for 500 frames.
    n_masks
        Masks for one utterance, dealt evenly over the levels. A larger number continues where a
        smaller one stopped.
    p
        Probability that a segment is occluded.
    seed
        Of the masks, which are not those of SMX.
    """
    parameters = {
        "n_segments": list(n_segments),
        "p": p,
        "seed": seed,
        "occluded_value": "bin mean",
        "score": "KL",
    }

    def attribute(artifact: Artifact) -> None:
        segments = segmentations(
            artifact["features"], n_segments, time_only=bool(artifact["time_only"])
        )
        plan = Plan(
            seed=seed,
            utterance=artifact.meta["utterance"],
            names=gradient_names(segments),
            sizes=segments.n_segments,
            n_masks=masks_per_segmentation(n_masks, segments),
            p=p,
        )
        _grow(place, artifact, parameters, segments, plan, batch_size)

    with Attempts("grad", place.output, place.on_failure) as attempts:
        for artifact in decoded:
            with attempts.of(artifact.meta["utterance"]):
                attribute(artifact)


def _grow(
    place: Workplace,
    decoded: Artifact,
    parameters: Mapping[str, Any],
    segments: Segmentations,
    plan: Plan,
    batch_size: Callable[[], int],
) -> None:
    """Bring the statistics of an utterance to the masks of the plan, and publish them."""
    source = source_of(decoded)
    entry = entry_path(place, "grad", source, parameters)
    clock = CheckpointClock()

    def store(statistics: GradientStatistics) -> None:
        meta = describe("grad", source, stated(place, parameters), AXES, UNITS)
        check_finite(statistics.arrays(), "grad")
        with clock.writing():
            save(entry, statistics.arrays(), meta | {"masks": _told(statistics, plan)})

    def store_if_due(statistics: GradientStatistics) -> None:
        if clock.due:
            store(statistics)

    stored = stored_entry(place, "grad", source, parameters)
    statistics = GradientStatistics.from_mapping(stored.arrays) if stored else None
    done = [0] * len(plan.names) if statistics is None else statistics.n_masks.sum(axis=0).tolist()
    n_missing = sum(max(0, want - n) for want, n in zip(plan.n_masks, done, strict=True))
    if n_missing:
        if sum(done):
            logger.info("grad %s: %d masks are in the store already", plan.utterance, sum(done))
        model = place.model.model
        statistics = statistics or _no_masks(model, decoded, segments)
        with Progress(f"grad {plan.utterance}", n_missing, "masks") as progress:
            accumulate_changes(
                statistics,
                first_order_change(model, *features_of(decoded), *hypothesis_of(decoded), segments),
                plan,
                device=model.device,
                batch_size=batch_size(),
                checkpoint=store_if_due,
                progress=progress.add,
            )
        store(statistics)
    publish(place, entry, plan.utterance)


def _no_masks(model: Model, decoded: Artifact, segments: Segmentations) -> GradientStatistics:
    r = model.facts.subsampling
    return GradientStatistics.zeros(
        segments.labels, len(decoded["tokens"]), r, n_steps(len(decoded["features"]), r)
    )


def _told(statistics: GradientStatistics, plan: Plan) -> dict[str, Any]:
    """Return what ``meta`` says about the masks, as for SMX."""
    reliability = spearman_brown(half_correlation(gradient_halves(statistics)))
    return {
        "segmentations": list(plan.names),
        "n_masks": int(statistics.n_masks.sum()),
        # JSON knows no NaN: nothing varies, so nothing is measured.
        "reliability": None if np.isnan(reliability) else reliability,
        "target_reliability": None,
        "converged": None,
    }


def map_shard(
    place: Workplace,
    method: str,
    decoded: Sequence[Artifact],
    batch_size: Callable[[], int],
    **options: int,
) -> None:
    """Attribute the log-probability of every token by a method without masks.

    Parameters
    ----------
    place, method, decoded
        Where, a name of :data:`s2txai.saliency.gradients.MAPS`, and the ``decode`` artefacts.
    batch_size
        Returns the inputs for one forward pass; called only if a map is missing.
    **options
        Of the method; they change the numbers.
    """
    parameters = {**options, "occluded_value": "bin mean", "score": "log p"}
    with (
        Attempts(method, place.output, place.on_failure) as attempts,
        Progress(method, len(decoded), "utterances") as progress,
    ):
        for artifact in decoded:
            with attempts.of(artifact.meta["utterance"]):
                entry = keep(
                    place, method, source_of(artifact), parameters,
                    axes=MAP_AXES, units=MAP_UNITS,
                    compute=partial(_map, place, method, artifact, batch_size, options),
                )  # fmt: skip
                publish(place, entry, artifact.meta["utterance"])
            progress.add(1)


def _map(
    place: Workplace,
    method: str,
    decoded: Artifact,
    batch_size: Callable[[], int],
    options: Mapping[str, int],
) -> dict[str, np.ndarray]:
    model = place.model.model
    log_probs, distance = token_log_probs(model, *features_of(decoded), *hypothesis_of(decoded))
    found = row_maps(
        method, log_probs, distance, len(decoded["tokens"]), batch_size=batch_size(), **options
    )
    r = model.facts.subsampling
    return {
        "map": found,
        "subsampling": np.array(r),
        "n_steps": np.array(n_steps(len(distance), r)),
    }


def _batch_size(
    place: Workplace, decoded: Sequence[Artifact], asked: int | str
) -> Callable[[], int]:
    """Return a function that settles the inputs for one forward pass when they are first needed.

    The utterance that needs most memory decides.
    """

    @cache
    def settled() -> int:
        if asked != "auto":
            return int(asked)
        return measured_on_largest(partial(_fitting, place.model.model), decoded)

    return settled


def _fitting(model: Model, decoded: Artifact) -> int:
    features, padding_value = features_of(decoded)

    def work(n: int) -> object:
        inputs = torch.from_numpy(np.stack([features] * n)).to(model.device).requires_grad_()
        logits = model.differentiable_logits(inputs, padding_value, *hypothesis_of(decoded))
        return torch.autograd.grad(logits[:, 0].sum(), inputs)

    return fitting_batch_size(model.device, work)
