"""Manifests: the table of utterances that a dataset is."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from s2txai.datasets.alignment import EVIDENCE
from s2txai.datasets.audio import audio_duration, audio_sha256, check_sound, read_audio
from s2txai.datasets.files import is_file
from s2txai.datasets.tasks import LANGUAGE, Task
from s2txai.datasets.text import read_lines
from s2txai.errors import UserError, UtteranceError
from s2txai.registry import did_you_mean
from s2txai.wording import number_beside

# How texts are compared: accents and other marks on letters count, or are taken off.
Diacritics = Literal["kept", "folded"]

_COLUMNS = ("id", "path", "language", "transcript")
_OPTIONAL = ("alignment", "alignment_evidence")
_TRANSLATION = "translation_"
ID = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,99}")  # an id becomes a file name
_MAX_SHARDS = 10_000  # a shard's name has four digits


@dataclass(frozen=True)
class Utterance:
    """One row of a manifest, or one segment of a recording.

    Attributes
    ----------
    id
        Name of the utterance, unique in its dataset; its files are called after it.
    path
        Audio file.
    language
        Language of the speech.
    transcript
        What is said, in the language of the speech; may be empty where it is not needed.
    translations
        From language to translation, without the empty ones.
    offset, duration
        The part of the file that the utterance is, in seconds; to its end if the duration is None.
    where
        File and line that the utterance was read from, for messages.
    alignment
        File that says when each word is said; None where nobody knows.
    alignment_evidence
        How it came about, one of :data:`s2txai.datasets.alignment.EVIDENCE`; empty without one.
    """

    id: str
    path: Path
    language: str
    transcript: str
    translations: Mapping[str, str] = field(default_factory=dict)
    offset: float = 0.0
    duration: float | None = None
    where: str = field(default="", compare=False)
    alignment: Path | None = None
    alignment_evidence: str = ""

    def read(self, sampling_rate: int) -> npt.NDArray[np.float32]:
        """Return the samples of the utterance, as :func:`s2txai.datasets.audio.read_audio`."""
        return read_audio(self.path, sampling_rate, offset=self.offset, duration=self.duration)

    def seconds(self) -> float:
        """Return how long the utterance lasts, as :func:`s2txai.datasets.audio.audio_duration`."""
        return audio_duration(self.path, offset=self.offset, duration=self.duration)

    def check(self, max_seconds: float | None) -> None:
        """Refuse an utterance that no model, or not this one, could process.

        Its file's header is read, and its samples up to the first sound.

        Parameters
        ----------
        max_seconds
            Longest utterance that the model accepts; None for any.

        Raises
        ------
        UtteranceError
            If the recording cannot be read, the utterance is too short or too long, or it holds
            nothing but silence, NaN or infinity.
        """
        duration = self.seconds()
        if max_seconds is not None and duration > max_seconds:
            raise UtteranceError(
                f"Utterance '{self.id}' lasts {number_beside(duration, max_seconds, 1)} s, but the "
                f"model accepts at most {max_seconds:g} s; cut {self.path} or leave it out of the "
                "run."
            )
        check_sound(self.path, offset=self.offset, duration=self.duration)

    def audio_sha256(self) -> str:
        """Return a hash of the utterance's audio, as :func:`s2txai.datasets.audio.audio_sha256`."""
        return audio_sha256(self.path, offset=self.offset, duration=self.duration)


def read_manifest(path: Path) -> list[Utterance]:
    """Read a manifest.

    A manifest is a UTF-8 table of tab-separated values, without quoting, whose first line names
    the columns: ``id``, ``path`` (absolute, or relative to the manifest), ``language``,
    ``transcript``, any number of ``translation_<language>``, and ``alignment`` (a path like that of
    the audio) with ``alignment_evidence``. Other columns are ignored.

    Returns
    -------
    list of Utterance
        In the manifest's order.

    Raises
    ------
    UserError
        If the file, a column, a value or an audio file is missing or malformed, or an id occurs
        twice; names file and line.
    """
    rows = _rows(path)
    header_line, header = next(rows, (1, []))
    _check_header(path, header_line, header)
    utterances: list[Utterance] = []
    line_of: dict[str, int] = {}
    for line, cells in rows:
        utterance = _utterance(path, line, header, cells)
        if utterance.id in line_of:
            raise UserError(
                f"{path}, line {line}: id '{utterance.id}' is already used in line "
                f"{line_of[utterance.id]}; give every utterance its own."
            )
        line_of[utterance.id] = line
        utterances.append(utterance)
    if not utterances:
        raise UserError(f"{path}, line {header_line + 1}: no utterance; add one row for each.")
    return utterances


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield line number and cells of every line that is not blank."""
    for line, text in enumerate(read_lines(path), start=1):
        if text.strip():
            yield line, [cell.strip() for cell in text.split("\t")]


def _check_header(path: Path, line: int, header: Sequence[str]) -> None:
    for column in _COLUMNS:
        if column not in header:
            raise UserError(
                f"{path}, line {line}: no column '{column}'; the first line must name the "
                f"tab-separated columns {', '.join(_COLUMNS)} and any {_TRANSLATION}<language>."
            )
    for column in header:
        if header.count(column) > 1:
            raise UserError(f"{path}, line {line}: column '{column}' occurs twice; remove one.")
        language = column.removeprefix(_TRANSLATION)
        if language != column and not re.fullmatch(LANGUAGE, language):
            raise UserError(
                f"{path}, line {line}: column '{column}' must end in a language code of two or "
                f"three lower-case letters, as in {_TRANSLATION}en."
            )


def _utterance(path: Path, line: int, header: Sequence[str], cells: Sequence[str]) -> Utterance:
    where = f"{path}, line {line}"
    if len(cells) != len(header):
        raise UserError(
            f"{where}: {len(cells)} values for {len(header)} columns; separate them by single tabs."
        )
    row = dict(zip(header, cells, strict=True))
    for column in ("id", "path", "language"):
        if not row[column]:
            raise UserError(f"{where}: '{column}' is empty; fill it in.")
    if not ID.fullmatch(row["id"]):
        raise UserError(
            f"{where}: id '{row['id']}' cannot name a file; use up to 100 letters, digits, "
            "dots, hyphens and underscores, starting with a letter or digit."
        )
    if not re.fullmatch(LANGUAGE, row["language"]):
        raise UserError(
            f"{where}: language '{row['language']}' must be a code of two or three lower-case "
            "letters, as en."
        )
    audio = path.parent / row["path"]
    if not is_file(audio):
        raise UserError(
            f"{where}: no audio file {audio}; paths are absolute or relative to the manifest."
        )
    translations = {
        column.removeprefix(_TRANSLATION): text
        for column, text in row.items()
        if column.startswith(_TRANSLATION) and text
    }
    alignment, evidence = _alignment(where, path.parent, row)
    return Utterance(
        row["id"], audio, row["language"], row["transcript"], translations,
        alignment=alignment, alignment_evidence=evidence, where=where,
    )  # fmt: skip


def _alignment(where: str, folder: Path, row: Mapping[str, str]) -> tuple[Path | None, str]:
    """Return the alignment of a row and its evidence, None and empty where there is none."""
    name, evidence = (row.get(column, "") for column in _OPTIONAL)
    if not name and not evidence:
        return None, ""
    if evidence not in EVIDENCE:
        raise UserError(
            f"{where}: alignment_evidence '{evidence}' must be one of {', '.join(EVIDENCE)}."
        )
    alignment = folder / name
    if not name:
        raise UserError(
            f"{where}: alignment_evidence is '{evidence}', but no alignment file is given; fill in "
            "both columns or neither."
        )
    if not is_file(alignment):
        raise UserError(
            f"{where}: no alignment file {alignment}; paths are absolute or relative to the "
            "manifest."
        )
    return alignment, evidence


def reference(utterance: Utterance, task: Task) -> str:
    """Return the human text that the task's hypotheses are scored against.

    Raises
    ------
    UserError
        If the manifest has none for this utterance.
    """
    if task.kind == "asr":
        column, text = "transcript", utterance.transcript
    else:
        column = f"{_TRANSLATION}{task.target}"
        text = utterance.translations.get(task.target, "")
    if not text:
        raise UserError(
            f"Utterance '{utterance.id}' has no reference for task {task.name}; "
            f"fill in column '{column}' of its manifest (in another format, its text in "
            f"'{task.target}') or leave the utterance out."
        )
    return text


def select(
    utterances: Sequence[Utterance], task: Task, ids: Sequence[str] | None = None
) -> list[Utterance]:
    """Return the utterances that a task is run on, in the manifest's order.

    Parameters
    ----------
    utterances
        All utterances of a dataset.
    task
        Keeps those in the task's source language; each must have a reference.
    ids
        Keeps only these; all if None.

    Raises
    ------
    UserError
        If an id is unknown or in another language, a reference is missing, or nothing is left.
    """
    by_id = {utterance.id: utterance for utterance in utterances}
    for name in ids or ():
        if name not in by_id:
            raise UserError(
                f"Unknown utterance '{name}'{did_you_mean(name, list(by_id)) or '.'} "
                "Choose ids of the dataset."
            )
        if by_id[name].language != task.source:
            raise UserError(
                f"Utterance '{name}' is in '{by_id[name].language}', but task {task.name} needs "
                f"'{task.source}'; remove it from the selection."
            )
    selected = [
        utterance
        for utterance in utterances
        if utterance.language == task.source and (ids is None or utterance.id in ids)
    ]
    if not selected:
        spoken = ", ".join(sorted({utterance.language for utterance in utterances}))
        raise UserError(
            f"No utterance is selected for task {task.name}, since the dataset holds speech in: "
            f"{spoken}; choose a task whose source is one of these."
        )
    for utterance in selected:
        reference(utterance, task)
    return selected


def shards(ids: Sequence[str], size: int) -> dict[str, list[str]]:
    """Cut a list of ids into blocks of ``size``, named ``0000``, ``0001``, ...

    Raises
    ------
    UserError
        If ``size`` is not positive or gives more than 10,000 shards.
    """
    if size < 1:
        raise UserError(f"'shard_size' must be at least 1, not {size}.")
    starts = range(0, len(ids), size)
    if len(starts) > _MAX_SHARDS:
        raise UserError(
            f"{len(ids)} utterances in shards of {size} are more than {_MAX_SHARDS:,} shards; "
            f"set shard_size to at least {-(-len(ids) // _MAX_SHARDS)}."
        )
    return {f"{number:04d}": list(ids[start : start + size]) for number, start in enumerate(starts)}
