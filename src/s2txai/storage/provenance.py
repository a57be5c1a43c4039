"""What the files of a run say about where they come from."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

from s2txai.hashing import fingerprint
from s2txai.storage.artifacts import Artifact


def describe(
    step: str,
    source: Mapping[str, Any],
    parameters: Mapping[str, Any],
    axes: Mapping[str, Sequence[str]],
    units: Mapping[str, str],
) -> dict[str, Any]:
    """Return the ``meta`` of an artefact.

    Parameters
    ----------
    step
        That makes it.
    source
        ``utterance``, ``model_sha256``, ``audio_sha256``, ``task`` and, after decoding,
        ``features_sha256`` and ``hypothesis_sha256``.
    parameters
        Whatever else changes the numbers.
    axes, units
        Of each array.
    """
    return {
        "step": step,
        **source,
        "parameters": dict(parameters),
        "axes": {name: list(names) for name, names in axes.items()},
        "units": dict(units),
    }


def source_of(decoded: Artifact) -> dict[str, Any]:
    """Return the source that steps after decoding share, down to input and hypothesis."""
    keys = ("utterance", "model_sha256", "audio_sha256", "task")
    return {
        **{key: decoded.meta[key] for key in keys},
        # Another version of the features under the same hypothesis is another input.
        "features_sha256": hashlib.sha256(decoded["features"].tobytes()).hexdigest(),
        "hypothesis_sha256": fingerprint(
            prompt=decoded["prompt"].tolist(), tokens=decoded["tokens"].tolist()
        ),
    }
