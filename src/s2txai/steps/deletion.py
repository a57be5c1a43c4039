"""Step 6, deletion: decode again while a map's most salient cells are deleted."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from s2txai import deletion
from s2txai.artifacts import Artifact, check_same_source, load, save
from s2txai.datasets import Diacritics, Task
from s2txai.log import Progress
from s2txai.provenance import describe, source_of
from s2txai.saliency.estimators import maps_of
from s2txai.saliency.gradient_statistics import GRADIENTS, cells_of
from s2txai.saliency.statistics import N_FOLDS
from s2txai.scoring import corpus_score, score_names, score_signature
from s2txai.signature import spread
from s2txai.steps.aggregate import NO_GRADIENTS
from s2txai.steps.shard import Workplace, features_of, forced_of, hypothesis_of, keep
from s2txai.store import fingerprint

AXES = {"maps": ["map"], "percents": ["percent"], "hypotheses": ["map", "percent"]}


# Of ``auto``: a beam search takes most of its time for the first input of a batch.
BATCH_SIZE = 16


@dataclass(frozen=True)
class Search:
    """How deleted inputs are decoded.

    Attributes
    ----------
    beam
        Width of the beam search.
    batch_size
        Inputs decoded at once, or ``auto``: 16.
    seed
        Of random orders and ties; every utterance has its own, made from this one.
    """

    beam: int
    batch_size: int | str
    seed: int

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
        Names of :func:`s2txai.deletion.map_names`.
    percents
        Shares of the cells to delete, 0 and 100 among them.
    search
        How to decode.
    gradients
        Artefacts of gradient methods by their name, in the same order.
    """
    total = len(decoded) * len(maps)
    with Progress("deletion", total, "maps") as progress:
        for n, artifacts in enumerate(zip(decoded, smx, aggregated, strict=True)):
            of_utterance = {method: found[n] for method, found in gradients.items()}
            check_same_source(*artifacts, *of_utterance.values())
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
    seed = search.seed_of(decoded.meta["utterance"])
    design = aggregated.meta["parameters"]["smx"]
    full = maps_of(smx, design["estimator"])(range(N_FOLDS))  # (I, T, F)
    cells = {method: cells_of(method, found.arrays) for method, found in gradients.items()}
    ends = _hypotheses(place, decoded, np.zeros(features.shape), deletion.ENDS, search)
    inner = [percent for percent in percents if percent not in deletion.ENDS]
    rows = []
    for name in maps:
        saliency = deletion.deletion_map(
            name, aggregated.arrays, full, int(decoded["subsampling"]), seed, cells,
            time_only=bool(decoded["time_only"]),
        )  # fmt: skip
        found = ends | _hypotheses(place, decoded, saliency, inner, search)
        rows.append([found[percent] for percent in percents])
        progress.add(1)
    utterance = decoded.meta["utterance"]
    arrays = {
        "maps": np.array(maps),
        "percents": np.array(percents, dtype=np.int64),
        "hypotheses": np.array(rows, dtype=np.str_),  # (map, percent)
    }
    parameters = {
        "beam": search.beam,
        "seed": search.seed,
        "occluded_value": "bin mean",
        "precision": place.model.precision,
        "smx": {**design, "n_masks": int(smx["n_masks"].sum())},
        **{method: _gradient_design(found) for method, found in gradients.items()},
    }
    meta = describe("deletion", source_of(decoded), parameters, AXES, deletion.UNITS)
    save(place.output / f"{utterance}.npz", arrays, meta)


def _gradient_design(found: Artifact) -> dict[str, Any]:
    n_masks = {"n_masks": int(found["n_masks"].sum())} if "n_masks" in found.arrays else {}
    return {**found.meta["parameters"], **n_masks}


def _hypotheses(
    place: Workplace,
    decoded: Artifact,
    saliency: np.ndarray,
    percents: Sequence[int],
    search: Search,
) -> dict[int, str]:
    """Return the hypothesis at each percentage, from the store where it has them."""
    seed = search.seed_of(decoded.meta["utterance"])
    # A looping hypothesis is as wrong at twice the length as at the model's limit.
    max_new_tokens = 2 * len(decoded["tokens"]) + 10
    parameters = {
        "map": fingerprint(order=deletion.cell_order(saliency, seed).tolist()),
        "percents": list(percents),
        "beam": search.beam,
        "max_new_tokens": max_new_tokens,
    }
    prompt, _ = hypothesis_of(decoded)

    def compute() -> Mapping[str, np.ndarray]:
        texts = deletion.decode_deleted(
            place.model.model, *features_of(decoded), prompt, saliency, percents,
            beam=search.beam, max_new_tokens=max_new_tokens,
            batch_size=search.inputs_at_once, seed=seed, forced=forced_of(decoded),
        )  # fmt: skip
        return {"percents": np.array(percents), "hypotheses": np.array(texts, dtype=np.str_)}

    entry = keep(
        place, "deletion", source_of(decoded), parameters,
        axes=deletion.AXES, units=deletion.UNITS, compute=compute,
    )  # fmt: skip
    return dict(zip(percents, load(entry)["hypotheses"].tolist(), strict=True))


def curves(
    references: Sequence[str],
    deleted: Sequence[Artifact],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
) -> pd.DataFrame:
    """Return the corpus score of every map at every percentage.

    Parameters
    ----------
    references
        Human texts.
    deleted
        ``deletion`` artefacts in the same order.
    task
        Chooses the scores.
    text_normalisation
        A name of :data:`s2txai.scoring.TEXT_NORMALISERS`.
    diacritics
        ``kept`` or ``folded`` in both texts.
    """
    options: dict[str, Any] = {
        "text_normalisation": text_normalisation,
        "language": task.target,
        "diacritics": diacritics,
    }
    maps, percents = deleted[0]["maps"].tolist(), deleted[0]["percents"].tolist()
    rows = []
    for metric in score_names(task):
        for m, name in enumerate(maps):
            stated = score_signature(metric, reference="human", **options, **_design(deleted, name))
            for column, percent in enumerate(percents):
                hypotheses = [str(artifact["hypotheses"][m, column]) for artifact in deleted]
                score = corpus_score(metric, references, hypotheses, **options)
                rows.append((name, percent, metric, score, len(references), stated))
    columns = ["map", "percent", "metric", "score", "n_utterances", "signature"]
    return pd.DataFrame(rows, columns=columns)


def _design(deleted: Sequence[Artifact], name: str) -> dict[str, Any]:
    """Return what a map's curve depends on, for its signature."""
    stated = dict(deleted[0].meta["parameters"])
    designs = {step: stated.pop(step) for step in ("smx", *GRADIENTS) if step in stated}
    step = "smx" if name.startswith("smx") else name
    if step not in designs:
        return stated
    design = designs[step]
    stated |= {
        key: design[key] for key in ("n_segments", "p", "estimator", "n_steps") if key in design
    }
    if "n_masks" in design:
        n_masks = [artifact.meta["parameters"][step]["n_masks"] for artifact in deleted]
        stated |= {"mask_seed": design["seed"], "n_masks": spread(n_masks)}
    return stated


def areas(table: pd.DataFrame) -> pd.DataFrame:
    """Return the area under each curve of :func:`curves`, 0-100."""
    keys = ["map", "metric", "n_utterances", "signature"]
    found = [
        (*key, deletion.area_under_curve(curve["percent"], curve["score"]) / 100)
        for key, curve in table.groupby(keys, sort=False)
    ]
    columns = ["map", "metric", "n_utterances", "signature", "auc"]
    return pd.DataFrame(found, columns=columns)[
        ["map", "metric", "auc", "n_utterances", "signature"]
    ]
