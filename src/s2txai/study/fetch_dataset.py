"""Bringing a dataset of the Hugging Face hub to this machine: its recordings and a manifest.

Planning never asks the hub: what is fetched once, at a given revision, is a dataset like others.
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

# Recordings are kept as they come, in the formats that the datasets of the hub have.
SUFFIXES = {"WAV": ".wav", "WAVEX": ".wav", "FLAC": ".flac", "OGG": ".ogg", "MP3": ".mp3"}
_REVISION = "[0-9a-f]{40}"
_ROWS = 64  # in memory at a time


@dataclass(frozen=True)
class HubDataset:
    """What to take from the hub.

    Attributes
    ----------
    repo
        ``owner/name`` of the dataset.
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
                "digits); copy it from the dataset's history on the hub."
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
    dataset: HubDataset,
    output: Path,
    *,
    listing: Callable[[str, str], Sequence[str]] = list_files,
    download: Callable[[str, str, str], Path] = download_file,
) -> int:
    """Write the recordings of a split and their manifest into a new folder.

    Parameters
    ----------
    dataset
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
    names = split_files(dataset, listing(dataset.repo, dataset.revision))
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".fetching-") as temporary:
        folder = Path(temporary) / "dataset"
        (folder / "audio").mkdir(parents=True)
        utterances = [
            _utterance(row, where, dataset, folder)
            for name in names
            for where, row in _rows(download(dataset.repo, dataset.revision, name), name, dataset)
        ]
        utterances = with_file_names(utterances, Path(names[0]))
        _write_manifest(utterances, dataset, folder)
        folder.rename(output)
    return len(utterances)


def split_files(dataset: HubDataset, names: Sequence[str]) -> list[str]:
    """Return the Parquet files of a split, in order.

    They are called ``<split>.parquet`` or ``<split>-00000-of-00001.parquet``, or lie in a folder
    with the split's name.

    Raises
    ------
    UserError
        If there are none, or in several folders.
    """
    split = re.escape(dataset.split)
    form = re.compile(
        rf"(?P<folder>.+/|)(?:{split}(?:-\d+-of-\d+(?:-\w+)?)?|{split}/[^/]+)\.parquet"
    )
    folders: dict[str, list[str]] = {}
    for name in sorted(names):
        if match := form.fullmatch(name):
            folders.setdefault(match["folder"].rstrip("/"), []).append(name)
    if dataset.folder is not None:
        folders = {
            name: files for name, files in folders.items() if name == dataset.folder.strip("/")
        }
    if not folders:
        raise UserError(
            f"{dataset.repo} has no Parquet files of split '{dataset.split}'"
            f"{f' in {dataset.folder}' if dataset.folder is not None else ''}; choose a split, and "
            "a folder, that its list of files on the hub shows."
        )
    if len(folders) > 1:
        raise UserError(
            f"{dataset.repo} has split '{dataset.split}' in several folders; choose one with "
            f"--folder: {', '.join(sorted(folders))}."
        )
    (files,) = folders.values()
    return files


def _rows(path: Path, name: str, dataset: HubDataset) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Yield where a row stands, for messages, and its values by column."""
    # Imported here, since planning and the other commands do without.
    import pyarrow
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(path) as file:
            columns = list(file.schema_arrow.names)
            for column in dataset.columns:
                if column not in columns:
                    raise UserError(
                        f"{name} has no column '{column}'{did_you_mean(column, columns) or '.'} "
                        f"Choose one of: {', '.join(columns)}."
                    )
            number = 0
            for batch in file.iter_batches(batch_size=_ROWS, columns=dataset.columns):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{name}, row {number}", row
    except pyarrow.ArrowException as error:
        raise UserError(f"{name} is no readable Parquet file ({error}); fetch it again.") from error


def _utterance(row: Mapping[str, Any], where: str, dataset: HubDataset, folder: Path) -> Utterance:
    """Write the recording of a row; return the utterance under a name that may not be unique."""
    recording = row[dataset.audio]
    if not isinstance(recording, Mapping) or not recording.get("bytes"):
        raise UserError(
            f"{where}: column '{dataset.audio}' holds no recording; choose a column of audio whose "
            "bytes are in the Parquet files."
        )
    data: bytes = recording["bytes"]
    digest = hashlib.sha256(data).hexdigest()[:16]
    path = folder / "audio" / f"{digest}{_suffix(data, where)}"
    path.write_bytes(data)
    name = PurePosixPath(recording.get("path") or digest).stem
    translations = {
        language: _text(row[column], column, where)
        for language, column in dataset.translations.items()
    }
    transcript = _text(row[dataset.text], dataset.text, where)
    return Utterance(name, path, dataset.language, transcript, translations)


def _suffix(data: bytes, where: str) -> str:
    try:
        kind = soundfile.info(io.BytesIO(data)).format
    except soundfile.SoundFileError as error:
        raise UserError(
            f"{where}: the recording cannot be read ({error}); choose another column of audio."
        ) from error
    if kind not in SUFFIXES:
        raise UserError(
            f"{where}: the recording is of the format {kind}; choose a data set of one of: "
            f"{', '.join(SUFFIXES)}."
        )
    return SUFFIXES[kind]


def _text(value: object, column: str, where: str) -> str:
    """Return a text that fits into a cell of the manifest."""
    if value is not None and not isinstance(value, str):
        raise UserError(f"{where}: column '{column}' holds no text; choose one that does.")
    return " ".join((value or "").split())


def _write_manifest(utterances: Sequence[Utterance], dataset: HubDataset, folder: Path) -> None:
    languages = list(dataset.translations)
    lines = [
        [
            "id",
            "path",
            "language",
            "transcript",
            *(f"translation_{language}" for language in languages),
        ]
    ]
    for utterance in utterances:
        path = utterance.path.relative_to(folder).as_posix()
        texts = [
            utterance.transcript,
            *(utterance.translations[language] for language in languages),
        ]
        lines.append([utterance.id, path, utterance.language, *texts])
    text = "".join("\t".join(cells) + "\n" for cells in lines)
    (folder / "manifest.tsv").write_text(text, encoding="utf-8")
