"""Bringing a data set of the Hugging Face hub to this machine: its recordings and a manifest.

Planning never asks the hub: what is fetched once, at a given revision, is a data set like others.
"""

import hashlib
import io
import re
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import soundfile

from s2txai.datasets import Utterance
from s2txai.datasets.formats.common import with_file_names
from s2txai.datasets.tasks import LANGUAGE
from s2txai.errors import UserError
from s2txai.registry import did_you_mean
from s2txai.study.hub import download_file, list_files

# Recordings are kept as they come, in the formats that the data sets of the hub have.
SUFFIXES = {"WAV": ".wav", "WAVEX": ".wav", "FLAC": ".flac", "OGG": ".ogg", "MP3": ".mp3"}
_REVISION = "[0-9a-f]{40}"
_ROWS = 64  # in memory at a time


@dataclass(frozen=True)
class HubDataset:
    """What to take from the hub.

    Attributes
    ----------
    repo
        ``owner/name`` of the data set.
    revision
        Hash of the commit, 40 hexadecimal digits.
    split
        As the names of the Parquet files call it.
    folder
        Of the Parquet files in the repository; needed where several have the split.
    language
        Of the speech.
    audio, text
        Columns of recording and transcript.
    translations
        From language to column.
    """

    repo: str
    revision: str
    split: str
    language: str
    audio: str
    text: str
    translations: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None

    def __post_init__(self) -> None:
        if not re.fullmatch(_REVISION, self.revision):
            raise UserError(
                f"Revision '{self.revision}' is not the full hash of a commit (40 hexadecimal "
                "digits); copy it from the data set's history on the hub."
            )
        for language in (self.language, *self.translations):
            if not re.fullmatch(LANGUAGE, language):
                raise UserError(
                    f"Language '{language}' must be a code of two or three lower-case letters, "
                    "as en."
                )

    @property
    def columns(self) -> list[str]:
        """Columns that are read."""
        return [self.audio, self.text, *self.translations.values()]


def fetch_dataset(
    wanted: HubDataset,
    output: Path,
    *,
    listing: Callable[[str, str], Sequence[str]] = list_files,
    download: Callable[[str, str, str], Path] = download_file,
) -> int:
    """Write the recordings of a split and their manifest into a new folder.

    Parameters
    ----------
    wanted
        What to take.
    output
        Folder to make, with ``manifest.tsv`` and ``audio/``. It is there and whole, or not there.
    listing, download
        How to ask the hub; other functions may stand in for the network.

    Returns
    -------
    int
        Number of utterances.

    Raises
    ------
    UserError
        If the folder exists, something cannot be had from the hub, or a column or recording is not
        what it should be.
    """
    if output.exists():
        raise UserError(f"{output} exists already; remove it or name another folder.")
    names = split_files(wanted, listing(wanted.repo, wanted.revision))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".fetching-") as temporary:
        folder = Path(temporary) / "dataset"
        (folder / "audio").mkdir(parents=True)
        utterances = [
            _utterance(row, where, wanted, folder)
            for name in names
            for where, row in _rows(download(wanted.repo, wanted.revision, name), name, wanted)
        ]
        utterances = with_file_names(utterances, Path(names[0]))
        _write_manifest(utterances, wanted, folder)
        folder.rename(output)
    return len(utterances)


def split_files(wanted: HubDataset, names: Sequence[str]) -> list[str]:
    """Return the Parquet files of a split, in order.

    They are called ``<split>.parquet`` or ``<split>-00000-of-00001.parquet``, or lie in a folder
    with the split's name.

    Raises
    ------
    UserError
        If there are none, or in several folders.
    """
    split = re.escape(wanted.split)
    form = re.compile(
        rf"(?P<folder>.+/|)(?:{split}(?:-\d+-of-\d+(?:-\w+)?)?|{split}/[^/]+)\.parquet"
    )
    found: dict[str, list[str]] = {}
    for name in sorted(names):
        if match := form.fullmatch(name):
            found.setdefault(match["folder"].rstrip("/"), []).append(name)
    if wanted.folder is not None:
        found = {name: files for name, files in found.items() if name == wanted.folder.strip("/")}
    if not found:
        raise UserError(
            f"{wanted.repo} has no Parquet files of split '{wanted.split}'"
            f"{f' in {wanted.folder}' if wanted.folder is not None else ''}; choose a split, and a "
            "folder, that its list of files on the hub shows."
        )
    if len(found) > 1:
        raise UserError(
            f"{wanted.repo} has split '{wanted.split}' in several folders; choose one with "
            f"--folder: {', '.join(sorted(found))}."
        )
    (files,) = found.values()
    return files


def _rows(path: Path, name: str, wanted: HubDataset) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where a row stands, for messages, and its values by column."""
    # Imported here, since planning and the other commands do without.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            known = list(file.schema_arrow.names)
            for column in wanted.columns:
                if column not in known:
                    raise UserError(
                        f"{name} has no column '{column}'{did_you_mean(column, known) or '.'} "
                        f"Choose one of: {', '.join(known)}."
                    )
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=wanted.columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}, row {number}", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{name} is no readable Parquet file ({error}); fetch it again.") from error


def _utterance(row: Mapping[str, Any], where: str, wanted: HubDataset, folder: Path) -> Utterance:
    """Write the recording of a row; return the utterance under a name that may not be unique."""
    recording = row[wanted.audio]
    if not isinstance(recording, Mapping) or not recording.get("bytes"):
        raise UserError(
            f"{where}: column '{wanted.audio}' holds no recording; choose a column of audio whose "
            "bytes are in the Parquet files."
        )
    data: bytes = recording["bytes"]
    digest = hashlib.sha256(data).hexdigest()[:16]
    path = folder / "audio" / f"{digest}{_suffix(data, where)}"
    path.write_bytes(data)
    name = PurePosixPath(recording.get("path") or digest).stem
    translations = {
        language: _text(row[column], column, where)
        for language, column in wanted.translations.items()
    }
    transcript = _text(row[wanted.text], wanted.text, where)
    return Utterance(name, path, wanted.language, transcript, translations)


def _suffix(data: bytes, where: str) -> str:
    try:
        kind = soundfile.info(io.BytesIO(data)).format
    except soundfile.SoundFileError as error:
        raise UserError(f"{where}: the recording cannot be read ({error}).") from error
    if kind not in SUFFIXES:
        raise UserError(f"{where}: recordings of the format {kind} are not known.")
    return SUFFIXES[kind]


def _text(value: object, column: str, where: str) -> str:
    """Return a text that fits into a cell of the manifest."""
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: column '{column}' holds no text; choose one that does.")
    return " ".join((value or "").split())


def _write_manifest(utterances: Sequence[Utterance], wanted: HubDataset, folder: Path) -> None:
    languages = list(wanted.translations)
    lines = [["id", "path", "language", "transcript", *(f"translation_{one}" for one in languages)]]
    for utterance in utterances:
        path = utterance.path.relative_to(folder).as_posix()
        texts = [utterance.transcript, *(utterance.translations[one] for one in languages)]
        lines.append([utterance.id, path, utterance.language, *texts])
    text = "".join("\t".join(cells) + "\n" for cells in lines)
    (folder / "manifest.tsv").write_text(text, encoding="utf-8")
