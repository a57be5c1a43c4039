"""The result files: plain arrays with a description, written atomically, refused when in doubt.

A file is a compressed ``.npz`` that ``numpy.load`` opens in a notebook. Beside its arrays it holds
``meta``, a JSON string that says which step made it from which model and audio, with which
parameters, and the axes and units of every array.
"""

import errno
import io
import json
import math
import os
import uuid
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s2txai.errors import UserError
from s2txai.storage.upgrades import from_version_1

FORMAT_VERSION = 2
# What makes a file of an earlier version one of this version; others are refused.
_UPGRADES = {1: from_version_1}

# An archive may claim sizes that no result has. Numbers shrink by less than this factor; tables of
# equal numbers shrink by more, but are small.
_LARGEST_FACTOR = 100
_SMALL = 1 << 28  # bytes

# Of the disk, of the user's share of it, of what one file may have.
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

# Not the names of the model and the dataset: a file may serve several names with the same bytes.
REQUIRED_META = (
    "step",
    "utterance",
    "model_sha256",
    "audio_sha256",
    "task",
    "parameters",
    "axes",
    "units",
)
SOURCE_META = (
    "utterance",
    "model_sha256",
    "audio_sha256",
    "task",
    "features_sha256",
    "hypothesis_sha256",
)


@dataclass(frozen=True)
class Artifact:
    """The content of one result file.

    Attributes
    ----------
    arrays
        Arrays by name.
    meta
        Where they come from and what their axes are; see ``REQUIRED_META``.
    path
        The file they were read from, for messages.
    """

    arrays: dict[str, npt.NDArray[Any]]
    meta: dict[str, Any]
    path: Path | None = None

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return the array ``name``.

        Raises
        ------
        UserError
            If the file holds no such array; the message lists those it holds.
        """
        if name not in self.arrays:
            raise UserError(
                f"{_name(self)} holds no array '{name}', only {', '.join(sorted(self.arrays))}: "
                "delete its folder and run the workflow again."
            )
        return self.arrays[name]


def save(path: Path, arrays: Mapping[str, npt.NDArray[Any]], meta: Mapping[str, Any]) -> None:
    """Write arrays and their description to ``path``, all or nothing.

    The same content always gives the same bytes, so that two writers of one file do no harm.

    Parameters
    ----------
    path
        The ``.npz`` to write; its directory is made where it is missing.
    arrays
        Arrays by name; none may hold Python objects, which would need pickles.
    meta
        Every key of ``REQUIRED_META``; ``axes`` names the axes of each array.
        The format version is added here.

    Raises
    ------
    TypeError
        If an array holds Python objects.
    ValueError
        If ``meta`` lacks a key, or its axes do not fit the arrays.
    """
    plain = {name: np.asarray(array, order="C") for name, array in arrays.items()}
    for name, array in plain.items():
        if array.dtype.hasobject:
            raise TypeError(f"array '{name}' holds Python objects; save plain numbers or strings")
    missing = [key for key in REQUIRED_META if key not in meta]
    if missing:
        raise ValueError(f"meta lacks {', '.join(missing)}")
    problem = _axes_problem(plain, meta["axes"])
    if problem:
        raise ValueError(problem)
    described = {**meta, "format_version": FORMAT_VERSION}
    members = {**plain, "meta": np.array(json.dumps(described, sort_keys=True, allow_nan=False))}
    with replacing(Path(path)) as partial, zipfile.ZipFile(partial, "x") as archive:
        for name in sorted(members):
            info = zipfile.ZipInfo(f"{name}.npy")  # dated 1980, whatever the clock says
            info.compress_type = zipfile.ZIP_DEFLATED
            with archive.open(info, "w", force_zip64=True) as member:
                np.lib.format.write_array(member, members[name], allow_pickle=False)


def load(path: Path, step: str | None = None) -> Artifact:
    """Read a result file, refusing whatever ``save`` did not write.

    What the version of the format before this one names otherwise has its present name in the
    result; ``meta`` keeps the version of the file.

    Parameters
    ----------
    path
        The file.
    step
        The step that must have made it; any when None.

    Raises
    ------
    UserError
        If the file is missing, foreign, damaged, of another format version, of another step, or
        its arrays do not have the axes it states.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f"The result file {path} does not exist: run the step that makes it.")
    try:
        arrays = _read_members(path)
    # A damaged archive raises what zipfile, zlib, struct or NumPy happen to stumble over.
    except Exception as error:
        raise _refusal(path, f"cannot be read ({' '.join(str(error).split())})") from error
    meta = _read_meta(arrays.pop("meta", None))
    if meta is None:
        raise _refusal(path, "has no readable 'meta', so it was not written by s2txai")
    version = meta.get("format_version")
    if version != FORMAT_VERSION and version not in tuple(_UPGRADES):
        raise _refusal(path, f"has format version {version}, not {FORMAT_VERSION}")
    missing = [key for key in REQUIRED_META if key not in meta]
    if missing:
        raise _refusal(path, f"lacks {', '.join(missing)} in its meta")
    if step is not None and meta["step"] != step:
        raise UserError(
            f"{path} was made by the step '{meta['step']}', not '{step}': "
            f"give the file of the step '{step}'."
        )
    problem = _axes_problem(arrays, meta["axes"])
    if problem:
        raise _refusal(path, f"contradicts itself ({problem})")
    if version != FORMAT_VERSION:
        arrays, meta = _UPGRADES[version](arrays, meta)
    return Artifact(arrays, meta, path)


def check_same_source(*artifacts: Artifact) -> None:
    """Refuse to mix results of different utterances, models, audio, tasks or hypotheses.

    Raises
    ------
    UserError
        If two artefacts that both state a source state different ones; names both files.
    """
    for key in SOURCE_META:
        sourced = [artifact for artifact in artifacts if key in artifact.meta]
        for other in sourced[1:]:
            if other.meta[key] != sourced[0].meta[key]:
                raise UserError(
                    f"{_name(sourced[0])} and {_name(other)} cannot be used together, since their "
                    f"{key} differs ({sourced[0].meta[key]}, {other.meta[key]}): "
                    "delete the older one's folder and run the workflow again."
                )


def load_shard(directory: Path, ids: Iterable[str], step: str) -> list[Artifact]:
    """Read the result file of every utterance of a shard; see :func:`iter_shard`."""
    return list(iter_shard(directory, ids, step))


def iter_shard(directory: Path, ids: Iterable[str], step: str) -> Iterator[Artifact]:
    """Yield the result file of every utterance of a shard, in the order of ``ids``.

    Other files in the directory are ignored: Snakemake keeps a time stamp there, and a killed job
    may have left half a file under a temporary name.

    Raises
    ------
    UserError
        If files are missing (names the utterances), a file is of another utterance, or ``load``
        refuses one.
    """
    paths = {utterance: Path(directory) / f"{utterance}.npz" for utterance in ids}
    missing = [utterance for utterance, path in paths.items() if not path.is_file()]
    if missing:
        raise UserError(
            f"{directory} lacks the results of {', '.join(missing)}: "
            "delete the directory and run the workflow again."
        )
    for utterance, path in paths.items():
        artifact = load(path, step)
        if artifact.meta["utterance"] != utterance:
            raise _refusal(path, f"holds the utterance '{artifact.meta['utterance']}'")
        yield artifact


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a fresh name beside ``path``; what is there at the end takes the place of ``path``.

    Readers see the old file or the new one, never half of one.

    Raises
    ------
    UserError
        If there is no room for it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}.partial")
    try:
        yield partial
        partial.replace(path)
    except OSError as error:
        if error.errno not in _NO_ROOM:
            raise
        raise UserError(
            f"There is no room for {path} ({os.strerror(error.errno)}): free some, or take another "
            "--directory, and run the workflow again; what is finished is kept."
        ) from error
    finally:
        # Also left over when both names are links to one file: POSIX renaming then does nothing.
        partial.unlink(missing_ok=True)


def _read_members(path: Path) -> dict[str, npt.NDArray[Any]]:
    with zipfile.ZipFile(path) as archive:
        members = archive.infolist()
        _check_members(members, path.stat().st_size)
        # Reading a member whole checks its checksum before NumPy believes its header.
        return {info.filename.removesuffix(".npy"): _array(archive.read(info)) for info in members}


def _check_members(members: list[zipfile.ZipInfo], n_bytes: int) -> None:
    """Refuse archives that ``save`` does not write; no more is unpacked than they state."""
    if len({info.filename for info in members}) < len(members):
        raise ValueError("a name occurs twice")
    # Other methods may ask for gigabytes before they give a byte.
    if any(
        info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED) for info in members
    ):
        raise ValueError("it is compressed by another method than deflate")
    unpacked = sum(info.file_size for info in members)
    if unpacked > max(_SMALL, _LARGEST_FACTOR * n_bytes):
        raise ValueError(f"{n_bytes} bytes cannot hold the {unpacked} they claim to unpack to")


def _array(data: bytes) -> npt.NDArray[Any]:
    stream = io.BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("an array is in another version of NumPy's format")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    # NumPy allocates what the header says before it looks for the numbers.
    if not dtype.itemsize or math.prod(shape) * dtype.itemsize != len(data) - stream.tell():
        raise ValueError(f"an array of shape {shape} has {len(data) - stream.tell()} bytes")
    stream.seek(0)
    array: npt.NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
    return array


def _read_meta(array: npt.NDArray[Any] | None) -> dict[str, Any] | None:
    if array is None or array.ndim != 0 or array.dtype.kind != "U":
        return None
    try:
        meta = json.loads(str(array))
    # Too deep, or a number too long for Python; not JSON at all is a ValueError as well.
    except (ValueError, RecursionError):
        return None
    return meta if isinstance(meta, dict) else None


def _axes_problem(
    arrays: Mapping[str, npt.NDArray[Any]], axes: Mapping[str, list[str]]
) -> str | None:
    if not isinstance(axes, Mapping) or not all(isinstance(names, list) for names in axes.values()):
        return "axes are not lists of names"
    if set(axes) != set(arrays):
        return f"axes are given for {sorted(axes)}, but the arrays are {sorted(arrays)}"
    for name, array in arrays.items():
        if array.ndim != len(axes[name]):
            return f"array '{name}' has shape {array.shape}, but the axes {list(axes[name])}"
    return None


def _refusal(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} {what}: if it is a result of the workflow, delete the folder it lies in, which is "
        "made again from the store, and run the workflow again."
    )


def _name(artifact: Artifact) -> str:
    return str(artifact.path) if artifact.path else f"the {artifact.meta.get('step')} result"
