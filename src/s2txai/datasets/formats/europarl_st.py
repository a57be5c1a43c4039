"""EuroParl-ST: debates of the European Parliament, one direction of translation a folder."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2txai.datasets.formats.common import (
    parallel_lines,
    recording,
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


def read_europarl_st(entry: Mapping[str, Any], root: Path) -> list[Utterance]:
    """Read one split of one direction.

    ``<source>/<target>/<split>/segments.lst`` gives speech, start and end of every segment,
    ``segments.<language>`` its texts, and ``<source>/audios`` has one recording a speech.

    Raises
    ------
    UserError
        If a folder, file or recording is missing or malformed; names file and line.
    """
    source, target = entry["source"], entry["target"]
    corpus = root / entry["folder"]
    folder = subfolder(corpus, source, target, entry["split"])
    audios = subfolder(corpus, source, "audios")
    table = folder / "segments.lst"
    lines = read_lines(table)
    transcripts, translations = (
        parallel_lines(folder / f"segments.{language}", table, len(lines))
        for language in (source, target)
    )
    recordings: dict[str, Path] = {}
    utterances = []
    for number, line in enumerate(lines):
        where = f"{table}, line {number + 1}"
        cells = line.split()
        if len(cells) != 3:
            raise UserError(f"{where}: not of the form 'speech start end'; correct it.")
        speech = cells[0]
        offset, duration = span(seconds(cells[1], where), seconds(cells[2], where), where)
        if speech not in recordings:
            recordings[speech] = recording(audios, speech, where)
        translation = {target: translations[number]} if translations[number] else {}
        utterances.append(
            Utterance(
                segment_name(speech, offset, duration), recordings[speech], source,
                transcripts[number], translation, offset, duration, where,
            )
        )  # fmt: skip
    return with_file_names(utterances, table)


FORMATS.register("europarl-st")(
    Format(
        read_europarl_st,
        keys={**DIRECTION, **ABSENT},
        optional=tuple(ABSENT),
        needs=EXPECTATION_NEEDS,
    )
)
