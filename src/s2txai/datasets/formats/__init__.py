"""Speech as it is distributed: one reader a format, by the name that a configuration uses."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from s2txai.datasets.formats.covost import read_covost
from s2txai.datasets.formats.europarl_st import read_europarl_st
from s2txai.datasets.formats.kaldi import read_kaldi
from s2txai.datasets.formats.must_c import read_must_c
from s2txai.datasets.manifest import Utterance, read_manifest
from s2txai.registry import Registry

# From an entry of the table of data sets, and the folder that its paths are relative to.
Reader: TypeAlias = Callable[[Mapping[str, Any], Path], list[Utterance]]

FORMATS: Registry[Reader] = Registry("format of data sets")
FORMATS.register("europarl-st")(read_europarl_st)
FORMATS.register("must-c")(read_must_c)
FORMATS.register("covost")(read_covost)
FORMATS.register("kaldi")(read_kaldi)


def read_dataset(entry: Mapping[str, Any], root: Path) -> list[Utterance]:
    """Read the utterances of a data set, from its manifest or in its format.

    Parameters
    ----------
    entry
        Of the table of data sets.
    root
        Folder that paths in it are relative to.

    Raises
    ------
    UserError
        If something is missing or malformed; names file and line.
    """
    if "format" in entry:
        return FORMATS[entry["format"]](entry, root)
    return read_manifest(root / entry["manifest"])
