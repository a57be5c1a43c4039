"""Step 6, deletion: decode again while a map's most salient cells are deleted.

The other way round, insertion, is decoded only on request; how probable the hypothesis still is
costs one pass and is measured in both.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2txai.analysis import deletion
from s2txai.analysis.deletion import BeamSearch
from s2txai.hashing import fingerprint
from s2txai.log import Progress
from s2txai.models.memory import BEAM_SEARCH_BATCH
from s2txai.saliency import deletion_maps
from s2txai.saliency.design import INPUT_VALUE
from s2txai.saliency.heard import Heard
from s2txai.saliency.maps import cells_of
from s2txai.saliency.methods import NO_GRADIENTS
from s2txai.saliency.statistics import ALL_FOLDS
from s2txai.steps.shard import Attempts, Workplace, forced_of, keep, maps_of
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
        Whether inputs with nothing but the most salient cells are decoded as well.
    """

    beam: int
    percents: Sequence[int]
    seed: int
    insertion: bool = False

    @classmethod
    def of(cls, section: Mapping[str, Any], *, seed: int) -> "DeletionDesign":
        """Return the design that the section ``deletion`` of the configuration describes."""
        percents = range(0, 101, section["step"])
        return cls(section["beam"], percents, seed, insertion=section["insertion"])

    def seed_of(self, utterance: str) -> int:
        """Return the seed of one utterance."""
        return int(fingerprint(seed=self.seed, utterance=utterance)[:8], 16)

    def is_decoded(self, mode: str) -> bool:
        """Return whether inputs of a mode are decoded, or only scored."""
        return mode == "deletion" or self.insertion


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
    batch = BEAM_SEARCH_BATCH if batch_size == "auto" else int(batch_size)
    with (
        Attempts("deletion", place.output, place.on_failure) as attempts,
        Progress("deletion", len(decoded) * len(maps), "maps") as progress,
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

    def delete(self, maps: Sequence[str], progress: Progress) -> None:
        """Delete and insert cells by every map, and write the result."""
        ends = self._perturb(np.zeros(self._heard.features.shape), deletion_maps.ENDS, "deletion")
        # What is not inserted is deleted.
        points_at_ends = {
            "deletion": ends,
            "insertion": {100 - percent: point for percent, point in ends.items()},
        }
        percents = self._design.percents
        inner = [percent for percent in percents if percent not in deletion_maps.ENDS]
        sizes: list[float] = []
        # [map][percent] for each mode
        curves: dict[str, list[list[_Point]]] = {mode: [] for mode in deletion.MODES}
        for scaled in self._scaled_maps(maps):
            sizes.append(deletion.salient_share(scaled))
            saliency = scaled.mean(axis=0)
            for mode, rows in curves.items():
                points = points_at_ends[mode] | self._perturb(saliency, inner, mode)
                rows.append([points[percent] for percent in percents])
            progress.add(1)
        self._save(maps, sizes, curves)

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

    def _perturb(
        self, saliency: np.ndarray, percents: Sequence[int], mode: str
    ) -> dict[int, _Point]:
        """Return what becomes of the input at each percentage, from the store where it is there."""
        search = None
        if self._design.is_decoded(mode):
            # A looping hypothesis is as wrong at twice the length as at the model's limit.
            limit = 2 * len(self._heard.tokens) + 10
            search = BeamSearch(self._design.beam, limit, forced_of(self._decoded))
        order = deletion_maps.cell_order(saliency, self._seed)
        parameters: dict[str, Any] = {
            "map": fingerprint(order=order.tolist()),
            "mode": mode,
            "percents": list(percents),
        }
        if search is not None:
            parameters |= {"beam": search.beam, "max_new_tokens": search.max_new_tokens}

        def compute() -> Mapping[str, np.ndarray]:
            outcome = deletion.perturb(
                self._place.model.model, self._heard, saliency, percents,
                mode=mode, search=search, batch_size=self._batch_size, seed=self._seed,
            )  # fmt: skip
            texts = outcome.texts if search else [""] * len(percents)
            return {
                "percents": np.array(percents),
                "hypotheses": np.array(texts, dtype=np.str_),
                "log_probs": np.array(outcome.log_probs),
            }

        entry = keep(
            self._place, "deletion", source_of(self._decoded), parameters,
            axes=deletion.AXES, units=deletion.UNITS, compute=compute,
        )  # fmt: skip
        stored = load(entry)
        points = zip(stored["hypotheses"].tolist(), stored["log_probs"].tolist(), strict=True)
        return dict(zip(percents, points, strict=True))


def _gradient_design(artifact: Artifact) -> dict[str, Any]:
    sampled = "n_masks" in artifact.arrays
    n_masks = {"n_masks": int(artifact["n_masks"].sum())} if sampled else {}
    return {**artifact.meta["parameters"], **n_masks}
