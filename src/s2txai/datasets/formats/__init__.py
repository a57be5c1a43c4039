"""Speech as it is distributed: one module per format, each with its registration."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s2txai.datasets.formats import covost, europarl_st, kaldi, must_c  # noqa: F401  (register)
from s2txai.datasets.formats.format import FORMATS, Format, Reader
from s2txai.datasets.manifest import Utterance, read_manifest

__all__ = ["FORMATS", "Format", "Reader", "read_dataset"]


def read_dataset(entry: Mapping[str, Any], root: Path) -> list[Utterance]:
    """Read the utterances of a dataset, from its manifest or in its format.

    Parameters
    ----------
    entry
        Of the table of datasets.
    root
        Folder that paths in it are relative to.

    Raises
    ------
    UserError
        If something is missing or malformed; names file and line.
    """
    if "format" in entry:
        return FORMATS[entry["format"]].read(entry, root)
    return read_manifest(root / entry["manifest"])
