"""Step 6, deletion: decode again while a map's most salient cells are deleted.

The other way round, insertion, is decoded only when asked for; how probable the hypothesis still is
costs one pass and is asked in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from s2txai.analysis import deletion
from s2txai.analysis.deletion import HYPOTHESES
from s2txai.hashing import fingerprint
from s2txai.log import Progress
from s2txai.saliency.deletion_maps import ENDS, cell_order, scaled_maps
from s2txai.saliency.estimators import maps_of
from s2txai.saliency.gradient_statistics import cells_of
from s2txai.saliency.statistics import N_FOLDS
from s2txai.steps.aggregate import NO_GRADIENTS
from s2txai.steps.shard import Attempts, Workplace, features_of, forced_of, hypothesis_of, keep
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

# Of ``auto``: a beam search takes most of its time for the first input of a batch.
BATCH_SIZE = 16


@dataclass(frozen=True)
class Search:
    """How perturbed inputs are decoded.

    Attributes
    ----------
    beam
        Width of the beam search.
    batch_size
        Inputs decoded at once, or ``auto``: 16.
    seed
        Of random orders and ties; every utterance has its own, made from this one.
    insertion
        Whether inputs with nothing but the most salient cells are decoded, too.
    """

    beam: int
    batch_size: int | str
    seed: int
    insertion: bool = False

    @property
    def inputs_at_once(self) -> int:
        """Inputs decoded at once."""
        return BATCH_SIZE if self.batch_size == "auto" else int(self.batch_size)

    def seed_of(self, utterance: str) -> int:
        """Return the seed of one utterance."""
        return int(fingerprint(seed=self.seed, utterance=utterance)[:8], 16)


def deletion_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    smx: Sequence[Artifact],
    aggregated: Sequence[Artifact],
    *,
    maps: Sequence[str],
    percents: Sequence[int],
    search: Search,
    gradients: Mapping[str, Sequence[Artifact]] = NO_GRADIENTS,
) -> None:
    """Decode every utterance at every percentage for every map.

    Parameters
    ----------
    place
        Where to work.
    decoded, smx, aggregated
        Artefacts of the earlier steps, in the same order.
    maps
        Names of :func:`s2txai.saliency.deletion_maps.map_names`.
    percents
        Shares of the cells to delete, 0 and 100 among them.
    search
        How to decode.
    gradients
        Artefacts of gradient methods by their name, in the same order.
    """
    total = len(decoded) * len(maps)
    with (
        Attempts("deletion", place.output, place.on_failure) as attempts,
        Progress("deletion", total, "maps") as progress,
    ):
        for n, artifacts in enumerate(zip(decoded, smx, aggregated, strict=True)):
            of_utterance = {method: found[n] for method, found in gradients.items()}
            check_same_source(*artifacts, *of_utterance.values())
            with attempts.of(decoded[n].meta["utterance"]):
                _delete_utterance(place, *artifacts, of_utterance, maps, percents, search, progress)


def _delete_utterance(
    place: Workplace,
    decoded: Artifact,
    smx: Artifact,
    aggregated: Artifact,
    gradients: Mapping[str, Artifact],
    maps: Sequence[str],
    percents: Sequence[int],
    search: Search,
    progress: Progress,
) -> None:
    features, _ = features_of(decoded)
    utterance, time_only = decoded.meta["utterance"], bool(decoded["time_only"])
    design = aggregated.meta["parameters"]["smx"]
    full = maps_of(smx, design["estimator"])(range(N_FOLDS))  # (I, T, F)
    cells = {method: cells_of(method, found.arrays) for method, found in gradients.items()}
    ends = _perturb(place, decoded, np.zeros(features.shape), ENDS, search, "deletion")
    # What is not inserted is deleted.
    known = {"deletion": ends, "insertion": {100 - percent: one for percent, one in ends.items()}}
    inner = [percent for percent in percents if percent not in ENDS]
    sizes: list[float] = []
    found: dict[str, list[list[_Point]]] = {mode: [] for mode in deletion.MODES}
    for name in maps:
        scaled = scaled_maps(
            name, aggregated.arrays, full, int(decoded["subsampling"]), search.seed_of(utterance),
            cells, features=features, time_only=time_only,
        )  # fmt: skip
        sizes.append(deletion.salient_share(scaled))
        saliency = scaled.mean(axis=0)
        for mode, rows in found.items():
            points = known[mode] | _perturb(place, decoded, saliency, inner, search, mode)
            rows.append([points[percent] for percent in percents])
        progress.add(1)
    arrays = {
        "maps": np.array(maps),
        "percents": np.array(percents, dtype=np.int64),
        "modes": np.array(list(found)),
        "sizes": np.array(sizes),
        "log_probs": np.array([[[log_prob for _, log_prob in row] for row in rows]
                               for rows in found.values()]),
        **{
            HYPOTHESES[mode]: np.array([[text for text, _ in row] for row in rows], dtype=np.str_)
            for mode, rows in found.items()
            if _is_decoded(mode, search)
        },
    }  # fmt: skip
    parameters = {
        "beam": search.beam,
        "seed": search.seed,
        "occluded_value": "bin mean",
        "precision": place.model.precision,
        "smx": {**design, "n_masks": int(smx["n_masks"].sum())},
        **{method: _gradient_design(found) for method, found in gradients.items()},
    }
    axes = {name: AXES[name] for name in arrays}
    meta = describe("deletion", source_of(decoded), parameters, axes, UNITS)
    save(place.output / f"{utterance}.npz", arrays, meta)


# The new hypothesis, empty where none was decoded, and the mean log-probability of the old one.
_Point = tuple[str, float]


def _is_decoded(mode: str, search: Search) -> bool:
    return mode == "deletion" or search.insertion


def _gradient_design(found: Artifact) -> dict[str, Any]:
    n_masks = {"n_masks": int(found["n_masks"].sum())} if "n_masks" in found.arrays else {}
    return {**found.meta["parameters"], **n_masks}


def _perturb(
    place: Workplace,
    decoded: Artifact,
    saliency: np.ndarray,
    percents: Sequence[int],
    search: Search,
    mode: str,
) -> dict[int, _Point]:
    """Return what becomes of the input at each percentage, from the store where it is there."""
    seed = search.seed_of(decoded.meta["utterance"])
    prompt, tokens = hypothesis_of(decoded)
    how = None
    if _is_decoded(mode, search):
        # A looping hypothesis is as wrong at twice the length as at the model's limit.
        how = deletion.BeamSearch(search.beam, 2 * len(tokens) + 10, forced_of(decoded))
    parameters = {
        "map": fingerprint(order=cell_order(saliency, seed).tolist()),
        "mode": mode,
        "percents": list(percents),
        **({} if how is None else {"beam": how.beam, "max_new_tokens": how.max_new_tokens}),
    }

    def compute() -> Mapping[str, np.ndarray]:
        outcome = deletion.perturb(
            place.model.model, *features_of(decoded), prompt, tokens, saliency, percents,
            mode=mode, search=how, batch_size=search.inputs_at_once, seed=seed,
        )  # fmt: skip
        texts = outcome.texts if how else [""] * len(percents)
        return {
            "percents": np.array(percents),
            "hypotheses": np.array(texts, dtype=np.str_),
            "log_probs": np.array(outcome.log_probs),
        }

    entry = keep(
        place, "deletion", source_of(decoded), parameters,
        axes=deletion.AXES, units=deletion.UNITS, compute=compute,
    )  # fmt: skip
    kept = load(entry)
    points = zip(kept["hypotheses"].tolist(), kept["log_probs"].tolist(), strict=True)
    return dict(zip(percents, points, strict=True))
