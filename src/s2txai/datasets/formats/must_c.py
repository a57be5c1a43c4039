"""MuST-C: talks with their translation, one pair of languages a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from s2txai.datasets.files import is_file
from s2txai.datasets.formats.common import (
    parallel_lines,
    seconds,
    segment_name,
    span,
    subfolder,
    with_file_names,
)
from s2txai.datasets.formats.format import (
    ABSENT,
    DIRECTION,
    EXPECTATION_NEEDS,
    FORMATS,
    Format,
)
from s2txai.datasets.manifest import Utterance
from s2txai.datasets.text import read_lines
from s2txai.errors import UserError

# The parser in C reads 10,000 segments in a second, a third of the time; some builds lack it.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_DEEPEST = 20  # levels; the file has two


def read_must_c(entry: Mapping[str, Any], root: Path) -> list[Utterance]:
    """Read one split of one pair of languages.

    In ``<source>-<target>/data/<split>``, ``txt/<split>.yaml`` lists the segments with ``wav``,
    ``offset`` and ``duration``, ``txt/<split>.<language>`` has their texts, and ``wav`` the talks.

    Raises
    ------
    UserError
        If a folder, file or recording is missing or malformed; names file and entry.
    """
    source, target, split = entry["source"], entry["target"], entry["split"]
    folder = subfolder(root / entry["folder"], f"{source}-{target}", "data", split)
    table = folder / "txt" / f"{split}.yaml"
    segments = _segments(table)
    transcripts, translations = (
        parallel_lines(table.with_suffix(f".{language}"), table, len(segments))
        for language in (source, target)
    )
    utterances = []
    present: set[Path] = set()
    for number, segment in enumerate(segments):
        where = f"{table}, segment {number + 1}"
        path, offset, duration = _part(segment, folder / "wav", where)
        if path not in present and not is_file(path):
            raise UserError(f"{where}: no recording {path}; unpack the audio of the corpus there.")
        present.add(path)
        translation = {target: translations[number]} if translations[number] else {}
        utterances.append(
            Utterance(
                segment_name(path.stem, offset, duration), path, source, transcripts[number],
                translation, offset, duration, where,
            )
        )  # fmt: skip
    return with_file_names(utterances, table)


def _segments(table: Path) -> list[Any]:
    text = "\n".join(read_lines(table))
    try:
        _check_depth(text)
        content = yaml.load(text, Loader=_LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{table}{line}: not valid YAML; unpack the corpus again.") from error
    except ValueError as error:  # a date that is none, a number too long for Python
        raise UserError(f"{table}: not valid YAML ({error}); unpack the corpus again.") from error
    if not isinstance(content, list):
        raise UserError(f"{table} must be a list of segments; unpack the corpus again.")
    return content


def _check_depth(text: str) -> None:
    """Refuse nesting at which the parser in C would crash the process."""
    depth = 0
    for event in yaml.parse(text, Loader=_LOADER):
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > _DEEPEST:
            raise yaml.YAMLError("nested too deeply")


def _part(segment: object, wav: Path, where: str) -> tuple[Path, float, float]:
    """Return the recording of a segment, its offset and its duration."""
    if not isinstance(segment, dict) or not {"wav", "offset", "duration"} <= segment.keys():
        raise UserError(f"{where}: no 'wav', 'offset' and 'duration'; unpack the corpus again.")
    start = seconds(segment["offset"], where)
    end = start + seconds(segment["duration"], where)
    return wav / str(segment["wav"]), *span(start, end, where)


FORMATS.register("must-c")(
    Format(
        read_must_c,
        keys={**DIRECTION, **ABSENT},
        optional=tuple(ABSENT),
        needs=EXPECTATION_NEEDS,
    )
)
