"""Step 6, deletion: decode again while a map's most salient cells are deleted.

The other way round, insertion, is computed only on request.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from s2txai.analysis import deletion
from s2txai.analysis.deletion import BeamSearch, Outcome, Perturbation
from s2txai.hashing import fingerprint
from s2txai.log import Progress
from s2txai.models.memory import BEAM_SEARCH_BATCH
from s2txai.saliency import deletion_maps
from s2txai.saliency.design import INPUT_VALUE
from s2txai.saliency.heard import Heard
from s2txai.saliency.maps import cells_of
from s2txai.saliency.methods import NO_GRADIENTS
from s2txai.saliency.statistics import ALL_FOLDS
from s2txai.steps.shard import (
    Attempts,
    Workplace,
    entry_path,
    forced_of,
    keep,
    maps_of,
    stored_entry,
)
from s2txai.storage.artifacts import Artifact, check_same_source, load, save
from s2txai.storage.provenance import describe, source_of

AXES = {
    "maps": ["map"],
    "percents": ["percent"],
    "modes": ["mode"],
    "sizes": ["map"],
    "log_probs": ["mode", "map", "percent"],
    "hypotheses": ["map", "percent"],
    "insertion_hypotheses": ["map", "percent"],
}
UNITS = deletion.UNITS | {"sizes": "% of cells"}

# What is computed of inputs with nothing but the most salient cells: nothing, how probable the
# unperturbed hypothesis still is, or also the new hypothesis.
Insertion = Literal["none", "log_prob", "decode"]

# The new hypothesis, empty where none was decoded, and the mean log-probability of the old one.
_Point = tuple[str, float]


@dataclass(frozen=True)
class DeletionDesign:
    """How cells are deleted and inputs decoded again.

    Attributes
    ----------
    beam
        Width of the beam search.
    percents
        Shares of the cells to delete, 0 and 100 among them.
    seed
        Of random orders and ties; every utterance has its own, made from this one.
    insertion
        What is computed of inputs with nothing but the most salient cells: ``none`` for nothing,
        ``log_prob`` for the log-probability of the hypothesis, ``decode`` also for a new one.
    """

    beam: int
    percents: Sequence[int]
    seed: int
    insertion: Insertion = "none"

    @classmethod
    def of(cls, section: Mapping[str, Any], *, seed: int) -> "DeletionDesign":
        """Return the design that the section ``deletion`` of the configuration describes."""
        percents = range(0, 101, section["step"])
        return cls(section["beam"], percents, seed, insertion=section["insertion"])

    def seed_of(self, utterance: str) -> int:
        """Return the seed of one utterance."""
        return int(fingerprint(seed=self.seed, utterance=utterance)[:8], 16)

    @property
    def modes(self) -> tuple[str, ...]:
        """``deletion``, and ``insertion`` where anything is computed of it."""
        return ("deletion",) if self.insertion == "none" else ("deletion", "insertion")

    def is_decoded(self, mode: str) -> bool:
        """Return whether inputs of a mode are decoded, or only scored."""
        return mode == "deletion" or self.insertion == "decode"


def deletion_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    smx: Sequence[Artifact],
    aggregated: Sequence[Artifact],
    design: DeletionDesign,
    *,
    poolings: Sequence[str],
    layers: Sequence[int] = (),
    gradients: Mapping[str, Sequence[Artifact]] = NO_GRADIENTS,
    batch_size: int | str = "auto",
) -> None:
    """Decode every utterance at every percentage for every map.

    Parameters
    ----------
    place
        Where to work.
    decoded, smx, aggregated
        Artefacts of the earlier steps, in the same order.
    design
        Which cells are deleted.
    poolings
        Of the SMX maps that are compared.
    layers
        Decoder layers by whose attention cells are also deleted, from 0, or from -1 for the last.
    gradients
        Artefacts of gradient methods by their name, in the same order.
    batch_size
        Inputs decoded at once, or ``auto``: 16.
    """
    # None where every utterance of the shard failed.
    n_layers = max((len(artifact["ca_layer"]) for artifact in aggregated), default=0)
    further = deletion_maps.further_layers(layers, n_layers)
    maps = deletion_maps.map_names(poolings, list(gradients), further)
    # The points that all maps share are a curve of their own.
    n_curves = len(decoded) * (1 + len(maps) * len(design.modes))
    batch = BEAM_SEARCH_BATCH if batch_size == "auto" else int(batch_size)
    with (
        Attempts("deletion", place.output, place.on_failure) as attempts,
        Progress("deletion", n_curves, "curves") as progress,
    ):
        for n, (of_decode, of_smx, of_aggregate) in enumerate(
            zip(decoded, smx, aggregated, strict=True)
        ):
            of_methods = {method: artifacts[n] for method, artifacts in gradients.items()}
            check_same_source(of_decode, of_smx, of_aggregate, *of_methods.values())
            with attempts.of(of_decode.meta["utterance"]):
                utterance = _Utterance(
                    place,
                    decoded=of_decode,
                    smx=of_smx,
                    aggregated=of_aggregate,
                    gradients=of_methods,
                    design=design,
                    batch_size=batch,
                )
                utterance.delete(maps, progress)


@dataclass(frozen=True)
class _Curve:
    """What one entry of the store holds: points of one map in one mode.

    Attributes
    ----------
    perturbation
        The inputs.
    parameters
        By which the store finds the entry.
    """

    perturbation: Perturbation
    parameters: Mapping[str, Any]


class _Utterance:
    """One utterance whose cells are deleted.

    Parameters
    ----------
    place
        Where to work.
    decoded, smx, aggregated, gradients
        Its artefacts; the last by method.
    design, batch_size
        As for :func:`deletion_shard`.
    """

    def __init__(
        self,
        place: Workplace,
        *,
        decoded: Artifact,
        smx: Artifact,
        aggregated: Artifact,
        gradients: Mapping[str, Artifact],
        design: DeletionDesign,
        batch_size: int,
    ) -> None:
        self._place, self._design, self._batch_size = place, design, batch_size
        self._decoded, self._smx, self._aggregated = decoded, smx, aggregated
        self._gradients = gradients
        self._heard: Heard = Heard.of(decoded)
        self._seed = design.seed_of(decoded.meta["utterance"])
        # A looping hypothesis is as wrong at twice the length as at the model's limit.
        limit = 2 * len(self._heard.tokens) + 10
        self._search = BeamSearch(design.beam, limit, forced_of(decoded))

    def delete(self, maps: Sequence[str], progress: Progress) -> None:
        """Delete and insert cells by every map, and write the result."""
        percents = self._design.percents
        inner = [percent for percent in percents if percent not in deletion_maps.ENDS]
        of_ends = self._curve(np.zeros(self._heard.features.shape), deletion_maps.ENDS, "deletion")
        sizes: list[float] = []
        of_maps: dict[str, list[_Curve]] = {mode: [] for mode in self._design.modes}
        for scaled in self._scaled_maps(maps):
            sizes.append(deletion.salient_share(scaled))
            saliency = scaled.mean(axis=0)
            for mode, curves in of_maps.items():
                curves.append(self._curve(saliency, inner, mode))
        of_all = (curve for curves in of_maps.values() for curve in curves)
        self._compute([of_ends, *of_all], progress)
        ends = self._points(of_ends)
        # What is not inserted is deleted.
        points_at_ends = {
            "deletion": ends,
            "insertion": {100 - percent: point for percent, point in ends.items()},
        }
        points = {
            mode: [points_at_ends[mode] | self._points(curve) for curve in curves]
            for mode, curves in of_maps.items()
        }
        self._save(
            maps,
            sizes,
            {
                mode: [[row[percent] for percent in percents] for row in rows]
                for mode, rows in points.items()
            },
        )

    def _scaled_maps(self, maps: Sequence[str]) -> Iterator[np.ndarray]:
        """Yield the rows of each map within [0, 1]."""
        estimator = self._aggregated.meta["parameters"]["smx"]["estimator"]
        full = maps_of(self._smx, estimator)(ALL_FOLDS)  # (I, T, F)
        cells = {
            method: cells_of(method, artifact.arrays)
            for method, artifact in self._gradients.items()
        }
        for name in maps:
            yield deletion_maps.scaled_maps(
                name, self._aggregated.arrays, full, int(self._decoded["subsampling"]), self._seed,
                cells, features=self._heard.features, time_only=bool(self._decoded["time_only"]),
            )  # fmt: skip

    def _save(
        self,
        maps: Sequence[str],
        sizes: Sequence[float],
        curves: Mapping[str, Sequence[Sequence[_Point]]],
    ) -> None:
        hypotheses = {
            deletion.HYPOTHESES[mode]: np.array(
                [[text for text, _ in row] for row in rows], dtype=np.str_
            )
            for mode, rows in curves.items()
            if self._design.is_decoded(mode)
        }
        log_probs = [
            [[log_prob for _, log_prob in row] for row in rows] for rows in curves.values()
        ]
        arrays = {
            "maps": np.array(maps),
            "percents": np.array(self._design.percents, dtype=np.int64),
            "modes": np.array(list(curves)),
            "sizes": np.array(sizes),
            "log_probs": np.array(log_probs),
            **hypotheses,
        }
        smx_design = self._aggregated.meta["parameters"]["smx"]
        parameters = {
            "beam": self._design.beam,
            "seed": self._design.seed,
            "occluded_value": INPUT_VALUE,
            "precision": self._place.model.precision,
            "smx": {**smx_design, "n_masks": int(self._smx["n_masks"].sum())},
            **{method: _gradient_design(artifact) for method, artifact in self._gradients.items()},
        }
        axes = {name: AXES[name] for name in arrays}
        meta = describe("deletion", source_of(self._decoded), parameters, axes, UNITS)
        save(self._place.output / f"{self._decoded.meta['utterance']}.npz", arrays, meta)

    def _curve(self, saliency: np.ndarray, percents: Sequence[int], mode: str) -> _Curve:
        order = deletion_maps.cell_order(saliency, self._seed)
        parameters: dict[str, Any] = {
            "map": fingerprint(order=order.tolist()),
            "mode": mode,
            "percents": list(percents),
        }
        if self._design.is_decoded(mode):
            parameters |= {
                "beam": self._search.beam,
                "max_new_tokens": self._search.max_new_tokens,
            }
        return _Curve(Perturbation(saliency, percents, mode), parameters)

    def _compute(self, curves: Sequence[_Curve], progress: Progress) -> None:
        """Compute the curves that the store lacks together; each is kept once it is complete."""
        source = source_of(self._decoded)
        missing = [
            curve
            for curve in curves
            if stored_entry(self._place, "deletion", source, curve.parameters) is None
        ]
        progress.add(len(curves) - len(missing))
        # Inputs that are only scored need no search.
        for search in (self._search, None):
            group = [
                curve
                for curve in missing
                if self._design.is_decoded(curve.perturbation.mode) == (search is not None)
            ]
            if not group:
                continue
            outcomes = deletion.perturb(
                self._place.model.model, self._heard, [curve.perturbation for curve in group],
                search=search, batch_size=self._batch_size, seed=self._seed,
            )  # fmt: skip
            for curve, outcome in zip(group, outcomes, strict=True):
                self._keep(curve, outcome)
                progress.add(1)

    def _keep(self, curve: _Curve, outcome: Outcome) -> None:
        percents = curve.perturbation.percents
        texts = outcome.texts or [""] * len(percents)
        arrays = {
            "percents": np.array(percents),
            "hypotheses": np.array(texts, dtype=np.str_),
            "log_probs": np.array(outcome.log_probs),
        }
        keep(
            self._place, "deletion", source_of(self._decoded), curve.parameters,
            axes=deletion.AXES, units=deletion.UNITS, compute=lambda: arrays,
        )  # fmt: skip

    def _points(self, curve: _Curve) -> dict[int, _Point]:
        """Return what the store has of a curve, by percentage."""
        source = source_of(self._decoded)
        stored = load(entry_path(self._place, "deletion", source, curve.parameters))
        points = zip(stored["hypotheses"].tolist(), stored["log_probs"].tolist(), strict=True)
        return dict(zip(curve.perturbation.percents, points, strict=True))


def _gradient_design(artifact: Artifact) -> dict[str, Any]:
    sampled = "n_masks" in artifact.arrays
    n_masks = {"n_masks": int(artifact["n_masks"].sum())} if sampled else {}
    return {**artifact.meta["parameters"], **n_masks}
