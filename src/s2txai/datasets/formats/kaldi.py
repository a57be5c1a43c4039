"""Kaldi's data directories."""

import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

from s2txai.datasets.files import is_file
from s2txai.datasets.formats.common import seconds, span, subfolder, with_file_names
from s2txai.datasets.formats.format import FOLDER, FORMATS, LANGUAGE_OF_SPEECH, Format
from s2txai.datasets.manifest import Utterance
from s2txai.datasets.tasks import LANGUAGE
from s2txai.datasets.text import read_lines
from s2txai.errors import UserError


def read_kaldi(entry: Mapping[str, Any], root: Path) -> list[Utterance]:
    """Read a data directory.

    ``wav.scp`` names the recordings, ``segments`` (optional) the utterances within them, ``text``
    what is said, ``utt2lang`` in which language (else ``language`` of the entry), and
    ``text.<language>`` translations.

    Raises
    ------
    UserError
        If a file, line or recording is missing or malformed; names file and line.
    """
    folder = subfolder(root / entry["folder"])
    recordings = _table(folder / "wav.scp")
    texts = _texts(folder / "text")
    translations = {
        path.suffix[1:]: _texts(path)
        for path in sorted(folder.glob("text.*"))
        if re.fullmatch(LANGUAGE, path.suffix[1:])
    }
    parts = list(_parts(folder, recordings))
    languages = _languages(folder, entry, [name for name, _, _ in parts])
    utterances = []
    paths: dict[str, Path] = {}
    for name, where, (speech, offset, duration) in parts:
        if speech not in paths:
            paths[speech] = _recording(folder, speech, recordings, where)
        language = languages[name]
        translation = {
            target: texts_of_target[name]
            for target, texts_of_target in translations.items()
            if texts_of_target.get(name) and target != language
        }
        utterances.append(
            Utterance(
                name, paths[speech], language, texts.get(name, ""), translation, offset, duration,
                where,
            )
        )  # fmt: skip
    return with_file_names(utterances, folder)


_Row = tuple[str, str]  # what follows the name, and file and line


def _table(path: Path) -> dict[str, _Row]:
    """Return the lines of a file by their first word, which must differ."""
    rows: dict[str, _Row] = {}
    for line, text in enumerate(read_lines(path), start=1):
        where = f"{path}, line {line}"
        if not text.strip():
            continue
        name, *rest = text.split(maxsplit=1)
        if name in rows:
            raise UserError(f"{where}: '{name}' is there twice; remove one.")
        rows[name] = (rest[0].strip() if rest else "", where)
    return rows


def _texts(path: Path) -> dict[str, str]:
    return {name: text for name, (text, _) in _table(path).items()}


def _parts(
    folder: Path, recordings: Mapping[str, _Row]
) -> Iterator[tuple[str, str, tuple[str, float, float | None]]]:
    """Yield name, file and line, and recording with offset and duration of each utterance."""
    table = folder / "segments"
    if not table.exists():
        for name, (_, where) in recordings.items():
            yield name, where, (name, 0.0, None)
        return
    for name, (rest, where) in _table(table).items():
        cells = rest.split()
        if len(cells) != 3:
            raise UserError(
                f"{where}: not of the form 'utterance recording start end'; correct it."
            )
        start, end = (seconds(cell, where) for cell in cells[1:])
        yield name, where, (cells[0], *span(start, end, where))


def _recording(folder: Path, name: str, recordings: Mapping[str, _Row], where: str) -> Path:
    if name not in recordings:
        raise UserError(f"{where}: no recording '{name}' in wav.scp; add it there.")
    source, where = recordings[name]
    if source.endswith("|"):
        raise UserError(
            f"{where}: the recording comes from a command; write its output to a file and name "
            "that file."
        )
    path = folder / source
    if not is_file(path):
        raise UserError(
            f"{where}: no audio file {path}; paths are absolute or relative to {folder}."
        )
    return path


def _languages(folder: Path, entry: Mapping[str, Any], names: Collection[str]) -> dict[str, str]:
    """Return the language of each utterance."""
    table = folder / "utt2lang"
    if not table.exists():
        if "language" not in entry:
            raise UserError(
                f"No file {table}; write it, or give the 'language' of the speech in the list of "
                "datasets."
            )
        return dict.fromkeys(names, entry["language"])
    rows = _table(table)
    for name in names:
        if name not in rows:
            raise UserError(f"{table}: no line for utterance '{name}'; add one.")
        language, where = rows[name]
        if not re.fullmatch(LANGUAGE, language):
            raise UserError(
                f"{where}: language '{language}' must be a code of two or three lower-case "
                "letters, as en."
            )
    return {name: rows[name][0] for name in names}


FORMATS.register("kaldi")(
    Format(
        read_kaldi,
        keys={"folder": FOLDER, "language": LANGUAGE_OF_SPEECH},
        optional=("language",),
    )
)
