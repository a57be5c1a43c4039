"""Artefacts as the plain data that the analysis takes."""

from collections.abc import Iterable, Iterator, Mapping

from s2txai.analysis.utterance import UtteranceData
from s2txai.errors import UserError
from s2txai.storage.artifacts import Artifact


def utterance_data(artifact: Artifact) -> UtteranceData:
    """Return what the analysis needs of an artefact."""
    meta = artifact.meta
    return UtteranceData(
        utterance=meta["utterance"],
        arrays=artifact.arrays,
        parameters=meta["parameters"],
        masks=meta.get("masks", {}),
    )


def computed_alike(aggregated: Iterable[Artifact]) -> Iterator[Artifact]:
    """Yield ``aggregate`` artefacts whose maps were all made with the same parameters.

    Raises
    ------
    UserError
        If those of one differ from those of the first; names both files.
    """
    first: Artifact | None = None
    for artifact in aggregated:
        if first is None:
            # Without arrays: the maps of a large dataset would not fit into memory.
            first = Artifact({}, artifact.meta, artifact.path)
        _check_alike(first, artifact)
        yield artifact


def _check_alike(first: Artifact, other: Artifact) -> None:
    for step, design in first.meta["parameters"].items():
        if isinstance(design, Mapping) and other.meta["parameters"].get(step) != design:
            raise UserError(
                f"{first.path} and {other.path} hold {step} maps made with different parameters: "
                "delete the older one's folder and run the workflow again."
            )
