"""CoVoST 2: translations of the sentences of Common Voice, one recording a sentence."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s2txai.datasets.files import is_file
from s2txai.datasets.formats.common import recording, subfolder, with_file_names
from s2txai.datasets.formats.format import FOLDER, FORMATS, SPLIT, Format
from s2txai.datasets.manifest import Utterance
from s2txai.datasets.text import read_lines
from s2txai.errors import UserError


def read_covost(entry: Mapping[str, Any], root: Path) -> list[Utterance]:
    """Read one split of one pair of languages.

    The folder has the recordings in ``clips`` and either a table
    ``covost_v2.<source>_<target>.<split>.tsv`` with path, sentence and translation, or
    ``covost_v2.<source>_<target>.tsv`` with path, translation and split, whose sentences are found
    in ``validated.tsv`` of Common Voice unless it has them.

    Raises
    ------
    UserError
        If a folder, table, column or recording is missing or malformed; names file and line.
    """
    folder = root / entry["folder"]
    clips = subfolder(folder, "clips")
    # Common Voice names variants (zh-CN), tasks name languages.
    source, target = (entry[key].partition("-")[0] for key in ("source", "target"))
    table, rows = _split_rows(folder, f"covost_v2.{entry['source']}_{entry['target']}", entry)
    utterances = []
    for line, row in rows:
        where = f"{table}, line {line}"
        path = clips / row["path"]
        if not is_file(path):
            # The table names MP3, or no suffix; the clips may have been converted.
            path = recording(clips, path.stem, where)
        translation = {target: row["translation"]} if row["translation"] else {}
        utterances.append(
            Utterance(path.stem, path, source, row["sentence"], translation, where=where)
        )
    return with_file_names(utterances, table)


def _split_rows(
    folder: Path, name: str, entry: Mapping[str, Any]
) -> tuple[Path, list[tuple[int, dict[str, str]]]]:
    """Return the table of a pair of languages, and its lines and rows that are of the split."""
    split = entry["split"]
    own, whole = folder / f"{name}.{split}.tsv", folder / f"{name}.tsv"
    if own.is_file():
        return own, list(_rows(own, "path", "sentence", "translation"))
    if not whole.is_file():
        raise UserError(
            f"Neither {own} nor {whole.name} is there; unpack CoVoST 2 there or correct 'source', "
            "'target' and 'split' in the list of datasets."
        )
    # CoVoST marks as <split>_covost what it adds to a split of Common Voice.
    rows = [
        (line, row)
        for line, row in _rows(whole, "path", "translation", "split")
        if row["split"] in (split, f"{split}_covost")
    ]
    return whole, list(_with_sentences(rows, folder, whole))


def _with_sentences(
    rows: list[tuple[int, dict[str, str]]], folder: Path, table: Path
) -> Iterator[tuple[int, dict[str, str]]]:
    if all("sentence" in row for _, row in rows):
        yield from rows
        return
    validated = folder / "validated.tsv"
    sentences = {row["path"]: row["sentence"] for _, row in _rows(validated, "path", "sentence")}
    for line, row in rows:
        if row["path"] not in sentences:
            raise UserError(
                f"{table}, line {line}: {row['path']} is not in {validated}; use the version of "
                "Common Voice that CoVoST 2 was made from (4)."
            )
        yield line, row | {"sentence": sentences[row["path"]]}


def _rows(table: Path, *columns: str) -> Iterator[tuple[int, dict[str, str]]]:
    """Yield line number and cells by column of every row of a table of tab-separated values."""
    header, *lines = read_lines(table)
    names = header.split("\t")
    for column in columns:
        if column not in names:
            raise UserError(
                f"{table}, line 1: no column '{column}'; the first line must name the "
                f"tab-separated columns {', '.join(columns)}."
            )
    for line, text in enumerate(lines, start=2):
        cells = text.split("\t")
        if len(cells) != len(names):
            raise UserError(
                f"{table}, line {line}: {len(cells)} values for {len(names)} columns; separate "
                "them by single tabs."
            )
        yield line, {name: cell.strip() for name, cell in zip(names, cells, strict=True)}


_VARIANT = {"type": "string", "pattern": "^[a-z]{2,3}(-[A-Z]{2})?$"}

FORMATS.register("covost")(
    Format(
        read_covost,
        keys={
            "folder": FOLDER,
            "source": {
                "description": "language of the speech as in the names of the files, it or zh-CN",
                **_VARIANT,
            },
            "target": {
                "description": "language of the translation as in the names of the files, "
                "en or zh-CN",
                **_VARIANT,
            },
            "split": SPLIT,
        },
    )
)
