"""Step 4, aggregate: all maps of an utterance at encoder steps, in one file."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from s2txai.log import Progress
from s2txai.saliency.aggregation import AGGREGATIONS, all_attention_maps, kinds_of
from s2txai.saliency.maps import gradient_maps, saliency_maps
from s2txai.saliency.methods import NO_GRADIENTS
from s2txai.steps.shard import Attempts, OnFailure, check_finite, maps_of
from s2txai.storage.artifacts import Artifact, check_same_source, save
from s2txai.storage.provenance import describe, source_of

_PARTS = {"head": ["layer", "head", "token", "step"], "layer": ["layer", "token", "step"]}
_PADDING_MASS = {"padding_mass": ["layer", "head", "token"]}
_KIND_UNITS = {"ca": "share", "vn": "norm", "ro": "share"}
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
    gradients: Mapping[str, Sequence[Artifact]] = NO_GRADIENTS,
    on_failure: OnFailure = "continue",
) -> None:
    """Write one file of maps for each utterance.

    Parameters
    ----------
    output
        Directory of the shard.
    decoded, attention, smx, smh
        Artefacts of the earlier steps, utterance by utterance in the same order.
    poolings
        Names of :data:`s2txai.saliency.pooling.POOLINGS`.
    estimators
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS` for ``smx`` and one for ``smh``.
    gradients
        Artefacts of gradient methods by their name, in the same order.
    on_failure
        What follows when an utterance cannot be done; see :class:`s2txai.steps.shard.Attempts`.

    Raises
    ------
    UserError
        If files of different hypotheses, models or audio lie together.
    """
    with (
        Attempts("aggregate", output, on_failure) as attempts,
        Progress("aggregate", len(decoded), "utterances") as progress,
    ):
        for n, (of_decode, of_attention, of_smx, of_smh) in enumerate(
            zip(decoded, attention, smx, smh, strict=True)
        ):
            with attempts.of(of_decode.meta["utterance"]):
                _aggregate(
                    output,
                    decoded=of_decode,
                    attention=of_attention,
                    smx=of_smx,
                    smh=of_smh,
                    gradients={method: artifacts[n] for method, artifacts in gradients.items()},
                    poolings=poolings,
                    estimators=estimators,
                )
            progress.add(1)


def _aggregate(
    output: Path,
    *,
    decoded: Artifact,
    attention: Artifact,
    smx: Artifact,
    smh: Artifact,
    gradients: Mapping[str, Artifact],
    poolings: Sequence[str],
    estimators: Mapping[str, str],
) -> None:
    check_same_source(decoded, attention, smx, smh, *gradients.values())
    saliency = saliency_maps(
        maps_of(smx, estimators["smx"]),
        maps_of(smh, estimators["smh"]),
        poolings,
        int(smx["subsampling"]),
        int(smx["n_steps"]),
    ) | gradient_maps({method: artifact.arrays for method, artifact in gradients.items()})
    masked = {"smx": smx, "smh": smh} | {
        method: artifact for method, artifact in gradients.items() if "n_masks" in artifact.arrays
    }
    maps = all_attention_maps(attention.arrays)
    arrays = {
        **maps,
        "padding_mass": attention["padding_mass"],
        **saliency,
        **{f"n_masks_{step}": artifact["n_masks"].sum() for step, artifact in masked.items()},
        **{name: decoded[name] for name in _TOKENS},
    }
    half = ["split", "half", "token", "step"]
    parts_of_kind = _PARTS | {name: ["token", "step"] for name in AGGREGATIONS}
    parts = {
        f"{kind}_{part}": (kind, names)
        for kind in kinds_of(maps)
        for part, names in parts_of_kind.items()
    }
    axes = {
        **{name: names for name, (_, names) in parts.items()},
        **_PADDING_MASS,
        **{name: half if name.endswith("_halves") else ["token", "step"] for name in saliency},
        **{f"n_masks_{step}": [] for step in masked},
        **{name: ["token"] for name in _TOKENS},
    }
    units = {
        **dict.fromkeys(saliency, "nat"),
        **{name: _KIND_UNITS[kind] for name, (kind, _) in parts.items()},
        **dict.fromkeys(_PADDING_MASS, "share"),
    }
    parameters = {
        "poolings": list(poolings),
        "smx": {**smx.meta["parameters"], "estimator": estimators["smx"]},
        "smh": {**smh.meta["parameters"], "estimator": estimators["smh"]},
        **{method: artifact.meta["parameters"] for method, artifact in gradients.items()},
    }
    utterance = decoded.meta["utterance"]
    meta = describe("aggregate", source_of(decoded), parameters, axes, units)
    check_finite(saliency, "aggregate")
    meta["masks"] = {step: artifact.meta["masks"] for step, artifact in masked.items()}
    save(output / f"{utterance}.npz", arrays, meta)
