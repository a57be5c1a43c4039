"""What the steps that run a model have in common."""

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np

from s2txai.artifacts import Artifact, load, save
from s2txai.errors import UserError
from s2txai.log import logger
from s2txai.models.handle import ModelHandle
from s2txai.provenance import describe
from s2txai.store import Store, fingerprint, link
from s2txai.versions import ALGORITHM_VERSIONS


@dataclass(frozen=True)
class Workplace:
    """Where a step of a shard does its work.

    Attributes
    ----------
    model
        Loaded only if something is missing from the store.
    store
        Finished work of earlier runs.
    output
        Directory that gets one ``<utterance>.npz`` for each utterance.
    """

    model: ModelHandle
    store: Store
    output: Path

    @classmethod
    def open(
        cls,
        family: str,
        directory: Path,
        output: Path,
        *,
        compute: Mapping[str, Any],
        threads: int,
        compile: bool = False,
        store: Path = Path("results/.cache"),
    ) -> Self:
        """Return the workplace of a job.

        Parameters
        ----------
        family, directory
            The model's code and files.
        output
            Directory of the shard's results.
        compute
            ``device`` and ``precision`` of the configuration.
        threads
            CPU threads.
        compile
            Whether to compile the encoder, which pays only where it runs thousands of times.
        store
            Folder of the utterance store.
        """
        model = ModelHandle(
            family,
            directory,
            device=compute["device"],
            precision=compute["precision"],
            threads=threads,
            compile=compile,
        )
        return cls(model, Store(store), Path(output))


def entry_path(
    place: Workplace, step: str, source: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Path:
    """Return the store's place for a step's work on one utterance.

    Its fingerprint holds what changes the numbers: source, parameters, precision and the version of
    the algorithm; neither shard nor batch nor the number of masks.
    """
    key = fingerprint(
        version=ALGORITHM_VERSIONS[step],
        precision=place.model.precision,
        source=dict(source),
        parameters=dict(parameters),
    )
    return place.store.path(step, source["utterance"], key)


def stored_entry(
    place: Workplace, step: str, source: Mapping[str, Any], parameters: Mapping[str, Any]
) -> Artifact | None:
    """Return what the store has of a step's work on one utterance; None if it has nothing.

    An entry that cannot be read, or is of other work, is moved aside with a warning: nothing in it
    is believed, and the work is done again. Arguments as for :func:`entry_path`.
    """
    entry = entry_path(place, step, source, parameters)
    if not entry.exists():
        return None
    try:
        found = load(entry, step)
        _check_work(found, source, stated(place, parameters))
    except UserError as error:
        aside = entry.with_name(f"{entry.name}.damaged")
        with suppress(FileNotFoundError):  # another job may have been faster
            entry.replace(aside)
        logger.warning(
            "%s is damaged or of other work, so the work is done again; the file is kept as %s.",
            entry, aside.name,
        )  # fmt: skip
        logger.debug("%s", error)
        return None
    return found


def _check_work(found: Artifact, source: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
    """Refuse an entry that lies under a name that is not its own."""
    expected = {**source, "parameters": json.loads(json.dumps(parameters))}
    for key, value in expected.items():
        if found.meta.get(key) != value:
            raise UserError(f"{found.path} is of other work: its {key} differs.")


def stated(place: Workplace, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters that a result states."""
    return {**parameters, "precision": place.model.precision}


def keep(
    place: Workplace,
    step: str,
    source: Mapping[str, Any],
    parameters: Mapping[str, Any],
    *,
    axes: Mapping[str, list[str]],
    units: Mapping[str, str],
    compute: Callable[[], Mapping[str, np.ndarray]],
) -> Path:
    """Compute a step's arrays for one utterance unless the store has them; return the entry.

    ``axes`` and ``units`` may describe more arrays than are computed: not every model has all.
    """
    entry = entry_path(place, step, source, parameters)
    if stored_entry(place, step, source, parameters) is None:
        arrays = compute()
        axes = {name: names for name, names in axes.items() if name in arrays}
        units = {name: unit for name, unit in units.items() if name in arrays}
        save(entry, arrays, describe(step, source, stated(place, parameters), axes, units))
    return entry


def publish(place: Workplace, entry: Path, utterance: str) -> None:
    """Give an entry of the store its name among the step's results."""
    link(entry, place.output / f"{utterance}.npz")


def features_of(decoded: Artifact) -> tuple[np.ndarray, float]:
    """Return the input [T, F] of a ``decode`` artefact and what follows it."""
    return decoded["features"], float(decoded["padding_value"])


def hypothesis_of(decoded: Artifact) -> tuple[list[int], list[int]]:
    """Return prompt and tokens of a ``decode`` artefact."""
    return decoded["prompt"].tolist(), decoded["tokens"].tolist()


def forced_of(decoded: Artifact) -> list[int]:
    """Return the tokens of a ``decode`` artefact that the model was made to say."""
    is_forced = decoded["roles"] == "prompt"
    return list(decoded["tokens"][is_forced].tolist())
