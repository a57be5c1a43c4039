"""What the readers of distributed corpora share: folders, recordings, times and ids."""

import hashlib
import re
import shlex
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from s2txai.datasets.files import is_file
from s2txai.datasets.manifest import ID, Utterance
from s2txai.datasets.text import read_lines
from s2txai.errors import UserError

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")  # what libsndfile reads, lossless first
_DIGEST = 8  # hexadecimal digits of a hash that tells shortened names apart


def subfolder(folder: Path, *names: str) -> Path:
    """Return a folder within the corpus.

    Raises
    ------
    UserError
        At the first name that is missing; lists what is there instead.
    """
    if not folder.is_dir():
        raise UserError(f"No folder {folder}; correct 'folder' in the list of datasets.")
    for name in names:
        if not (folder / name).is_dir():
            there = sorted(path.name for path in folder.iterdir() if path.is_dir())
            raise UserError(
                f"No folder '{name}' in {folder}, which holds {', '.join(there) or 'no folder'}; "
                "correct the entry in the list of datasets."
            )
        folder /= name
    return folder


def recording(folder: Path, stem: str, where: str) -> Path:
    """Return the recording of a name, whatever its suffix.

    Raises
    ------
    UserError
        If there is none, or only one that must be converted first.
    """
    for suffix in SUFFIXES:
        path = folder / f"{stem}{suffix}"
        if is_file(path):
            return path
    if is_file(folder / f"{stem}.m4a"):
        raise UserError(
            f"{where}: {folder / stem}.m4a is AAC, which libsndfile does not read; convert the "
            f"recordings with: for f in {shlex.quote(str(folder))}/*.m4a; "
            'do ffmpeg -i "$f" "${f%.m4a}.flac"; done'
        )
    raise UserError(
        f"{where}: no recording {folder / stem} with one of the suffixes {', '.join(SUFFIXES)}; "
        "unpack the audio of the corpus there."
    )


def parallel_lines(path: Path, other: Path, n_lines: int) -> list[str]:
    """Return the texts of a file that has a line for every one of another file.

    Raises
    ------
    UserError
        If the file cannot be read or has another number of lines.
    """
    lines = [line.strip() for line in read_lines(path)]
    if len(lines) != n_lines:
        raise UserError(
            f"{path} has {len(lines)} lines for the {n_lines} segments of {other}; unpack the "
            "corpus again."
        )
    return lines


def seconds(text: object, where: str) -> float:
    """Return a time.

    Raises
    ------
    UserError
        If it is no number of seconds from 0 on.
    """
    try:
        value = float(str(text))
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise UserError(f"{where}: '{text}' is no time in seconds; correct it.")
    return value


def span(start: float, end: float, where: str) -> tuple[float, float]:
    """Return offset and duration of a segment.

    Raises
    ------
    UserError
        If it ends before it starts.
    """
    if end <= start:
        raise UserError(
            f"{where}: the segment ends at {end:g} s, not after {start:g} s; correct it."
        )
    return start, round(end - start, 6)  # without the noise of the subtraction


def segment_name(speech: str, offset: float, duration: float) -> str:
    """Return a name of a segment that stays when segments are added: speech and milliseconds."""
    return f"{speech}_{round(1000 * offset)}_{round(1000 * (offset + duration))}"


def with_file_names(utterances: Sequence[Utterance], source: Path) -> list[Utterance]:
    """Return the utterances with ids that can name files and are unique.

    A name that cannot is changed and gets a hash of what it was; one that occurs again, its number
    of occurrence. Utterances that are appended change no id.

    Raises
    ------
    UserError
        If there is no utterance in ``source``.
    """
    if not utterances:
        raise UserError(f"{source} names no utterance; correct the entry in the list of datasets.")
    used: set[str] = set()
    named = []
    for utterance in utterances:
        name, occurrence = utterance.id, 1
        while _file_name(name) in used:
            occurrence += 1
            name = f"{utterance.id}_{occurrence}"
        used.add(_file_name(name))
        named.append(replace(utterance, id=_file_name(name)))
    return named


def _file_name(name: str) -> str:
    if ID.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:_DIGEST]
    safe = re.sub("[^A-Za-z0-9._-]+", "-", name).lstrip("._-")
    return "-".join(part for part in (safe[:90], digest) if part)
