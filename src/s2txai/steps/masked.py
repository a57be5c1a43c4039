"""What the perturbing steps share: masks are added to the stored ones until there are enough."""

import json
import math
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Generic, TypeVar

from s2txai.log import Progress, logger
from s2txai.models.memory import fitting_batch_size
from s2txai.saliency import checks
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.engine import BatchSize, Masks, Perturbation, begin, grow
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.statistics import MaskSums, Statistics
from s2txai.steps.shard import (
    Attempts,
    Workplace,
    check_finite,
    entry_path,
    measured_on_largest,
    publish,
    stored_entry,
    with_precision,
)
from s2txai.storage.artifacts import Artifact, replacing, save
from s2txai.storage.provenance import describe, source_of
from s2txai.wording import number_beside

# Sums are written this often or, where writing takes longer than a twentieth of a second, so much
# less often, up to half a minute: writing then takes about 1 % of the time.
SECONDS_BETWEEN_CHECKPOINTS = 5.0
_QUICK = 0.05
_MOST_SECONDS = 30.0

S = TypeVar("S", bound=MaskSums)


def grow_shard(
    place: Workplace,
    step: str,
    perturbation: Perturbation[S],
    decoded: Sequence[Artifact],
    design: MaskDesign,
    batch_size: int | str,
) -> None:
    """Bring the statistics of every utterance to the masks of a design, and publish them.

    Sums are written to the store every 5 to 30 seconds, so that a killed job loses no more than
    that, and a larger number of masks continues where a smaller one stopped. Beside each result,
    ``<utterance>.job.json`` says where and how fast its masks were computed.

    Parameters
    ----------
    place, step
        Where, and the step's name.
    perturbation
        What the step perturbs.
    decoded
        ``decode`` artefacts, one per utterance.
    design
        Which masks.
    batch_size
        Masks for one forward pass; ``auto``: what fits into memory for the utterance that needs
        most.
    """
    shard = _Shard(place, step, perturbation, decoded, design, batch_size)
    with Attempts(step, place.output, place.on_failure) as attempts:
        for artifact in decoded:
            with attempts.of(artifact.meta["utterance"]):
                shard.grow(artifact)


class _Shard(Generic[S]):
    """The utterances of a shard, and how their masks are computed."""

    def __init__(
        self,
        place: Workplace,
        step: str,
        perturbation: Perturbation[S],
        decoded: Sequence[Artifact],
        design: MaskDesign,
        batch_size: int | str,
    ) -> None:
        self._place, self._step, self._perturbation = place, step, perturbation
        self._design = design
        # The utterance that needs most memory decides for all.
        self._batch = BatchSize(batch_size, partial(measured_on_largest, self._fitting, decoded))

    def grow(self, decoded: Artifact) -> None:
        """Bring one utterance to its masks, and publish it."""
        place, step, design = self._place, self._step, self._design
        source = source_of(decoded)
        utterance = source["utterance"]
        entry = entry_path(place, step, source, design.parameters)
        stored = stored_entry(place, step, source, design.parameters)
        statistics = self._usable(stored, utterance)
        masks = self._masks(decoded)
        n_before = statistics.total_masks if statistics else 0
        if n_before and statistics and statistics.n_missing(masks.plan.n_masks):
            logger.info("%s %s: %d masks are in the store already", step, utterance, n_before)
        started = time.monotonic()
        checkpoints = _Checkpoints(entry, step, partial(self._meta, source))
        most = list(design.plans(masks.plan))[-1].n_masks
        n_missing = statistics.n_missing(most) if statistics else sum(most)
        with Progress(f"{step} {utterance}", n_missing, "masks") as progress:

            def on_batch(n_new: int, current: Callable[[], S]) -> None:
                progress.add(n_new)
                checkpoints.save_if_due(current)

            statistics, reliability = grow(
                self._perturbation, lambda: place.model.model, Heard.of(decoded), design, masks,
                statistics, batch=self._batch, on_batch=on_batch,
            )  # fmt: skip
        facts = _facts(statistics, masks.plan, reliability, design)
        n_new = statistics.total_masks - n_before
        if stored is None or n_new or stored.meta.get("masks") != facts:
            checkpoints.save(statistics, {"masks": facts})
        if facts["converged"] is False:
            logger.warning(
                "%s %s: reliability %s after %d masks, under the target of %g: raise "
                "'%s.max_masks'.",
                step, utterance,
                number_beside(reliability, facts["target_reliability"], 2),
                facts["n_masks"], facts["target_reliability"], step,
            )  # fmt: skip
        publish(place, entry, utterance)
        self._write_job(place.output / f"{utterance}.job.json", n_new, started)

    def _usable(self, stored: Artifact | None, utterance: str) -> S | None:
        """Return what is stored of an utterance, where the estimator can use it."""
        if stored is None:
            return None
        statistics = self._perturbation.kind.from_mapping(stored.arrays)
        logarithms = ESTIMATORS[self._design.estimator].logarithms
        if isinstance(statistics, Statistics) and logarithms and not statistics.has_logarithms:
            logger.info(
                "%s %s: starts again, to sum logarithms of the scores", self._step, utterance
            )
            return None
        return statistics

    def _masks(self, decoded: Artifact) -> Masks:
        return self._perturbation.masks(
            Heard.of(decoded),
            self._design,
            utterance=decoded.meta["utterance"],
            subsampling=int(decoded["subsampling"]),
            time_only=bool(decoded["time_only"]),
        )

    def _meta(self, source: Mapping[str, Any], statistics: MaskSums) -> dict[str, Any]:
        parameters = with_precision(self._place, self._design.parameters)
        return describe(self._step, source, parameters, statistics.axes, statistics.UNITS)

    def _fitting(self, decoded: Artifact) -> int:
        """Return how many masks of an utterance fit into memory."""
        model = self._place.model.model
        sums = begin(
            self._perturbation, model, Heard.of(decoded), self._design, self._masks(decoded)
        )
        return fitting_batch_size(model.device, sums.work)

    def _write_job(self, path: Path, n_new: int, started: float) -> None:
        """Write what may differ between two runs with the same numbers."""
        facts = {
            "host": platform.node(),
            "device": self._place.model.device,
            "batch_size": self._batch.size,
            "masks_computed": n_new,
            "seconds": round(time.monotonic() - started, 3),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        }
        with replacing(path) as partial_path:
            partial_path.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _facts(
    statistics: MaskSums, plan: MaskPlan, reliability: float, design: MaskDesign
) -> dict[str, Any]:
    """Return what ``meta`` says about the masks."""
    target = design.target_reliability or None
    scoring = checks.facts(statistics) if isinstance(statistics, Statistics) else {}
    return {
        "segmentations": list(plan.names),
        "n_masks": statistics.total_masks,
        # JSON knows no NaN: nothing varies, so nothing is measured.
        "reliability": None if math.isnan(reliability) else reliability,
        "target_reliability": target,
        "converged": None if target is None else bool(reliability >= target),
        **scoring,
    }


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
    """Writes statistics to their entry in the store."""

    def __init__(self, entry: Path, step: str, meta: Callable[[MaskSums], dict[str, Any]]) -> None:
        self._entry, self._step, self._meta = entry, step, meta
        self._clock = CheckpointClock()

    def save_if_due(self, current: Callable[[], MaskSums]) -> None:
        """Save what ``current`` returns when enough time has passed."""
        if self._clock.due:
            self.save(current(), {})

    def save(self, statistics: MaskSums, meta: Mapping[str, Any]) -> None:
        """Save statistics, with more ``meta``.

        Raises
        ------
        UtteranceError
            If numbers are NaN or infinite.
        """
        arrays = statistics.arrays()
        check_finite(arrays, self._step)
        with self._clock.writing():
            save(self._entry, arrays, {**self._meta(statistics), **meta})
