"""Step 4, aggregate: all maps of an utterance at encoder steps, in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s2txai.aggregate import attention_maps, saliency_maps
from s2txai.artifacts import Artifact, check_same_source, save
from s2txai.log import Progress
from s2txai.provenance import describe, source_of
from s2txai.saliency.estimators import maps_of

_HEADS = {
    "ca_head": ["layer", "head", "token", "step"],
    "ca_layer": ["layer", "token", "step"],
    "ca_mean": ["token", "step"],
    "padding_mass": ["layer", "head", "token"],
}
# The estimator of SPES.
MEAN = {"smx": "mean", "smh": "mean"}

_TOKENS = ("tokens", "pieces", "roles", "word_index")


def aggregate_shard(
    output: Path,
    decoded: Sequence[Artifact],
    attention: Sequence[Artifact],
    smx: Sequence[Artifact],
    smh: Sequence[Artifact],
    *,
    poolings: Sequence[str],
    estimators: Mapping[str, str] = MEAN,
) -> None:
    """Write one file of maps for each utterance.

    Parameters
    ----------
    output
        Directory of the shard.
    decoded, attention, smx, smh
        Artefacts of the earlier steps, utterance by utterance in the same order.
    poolings
        Names of :data:`s2txai.aggregate.POOLINGS`.
    estimators
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS` for ``smx`` and one for ``smh``.

    Raises
    ------
    UserError
        If files of different hypotheses, models or audio lie together.
    """
    with Progress("aggregate", len(decoded), "utterances") as progress:
        for artifacts in zip(decoded, attention, smx, smh, strict=True):
            _aggregate(output, *artifacts, poolings, estimators)
            progress.add(1)


def _aggregate(
    output: Path,
    decoded: Artifact,
    attention: Artifact,
    smx: Artifact,
    smh: Artifact,
    poolings: Sequence[str],
    estimators: Mapping[str, str],
) -> None:
    check_same_source(decoded, attention, smx, smh)
    saliency = saliency_maps(
        maps_of(smx, estimators["smx"]),
        maps_of(smh, estimators["smh"]),
        poolings,
        int(smx["subsampling"]),
        int(smx["n_steps"]),
    )
    arrays = {
        **attention_maps(attention["cross_attention"]),
        "padding_mass": attention["padding_mass"],
        **saliency,
        "n_masks_smx": smx["n_masks"].sum(),
        "n_masks_smh": smh["n_masks"].sum(),
        **{name: decoded[name] for name in _TOKENS},
    }
    half = ["split", "half", "token", "step"]
    axes = {
        **_HEADS,
        **{name: half if name.endswith("_halves") else ["token", "step"] for name in saliency},
        "n_masks_smx": [],
        "n_masks_smh": [],
        **{name: ["token"] for name in _TOKENS},
    }
    units = dict.fromkeys(saliency, "nat") | dict.fromkeys(_HEADS, "share")
    parameters = {
        "poolings": list(poolings),
        "smx": {**smx.meta["parameters"], "estimator": estimators["smx"]},
        "smh": {**smh.meta["parameters"], "estimator": estimators["smh"]},
    }
    utterance = decoded.meta["utterance"]
    meta = describe("aggregate", source_of(decoded), parameters, axes, units)
    meta["masks"] = {"smx": smx.meta["masks"], "smh": smh.meta["masks"]}
    save(output / f"{utterance}.npz", arrays, meta)
