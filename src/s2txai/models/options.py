"""Options of a model: what its entry in the table of models sets beyond its files.

A fetched model's folder holds them in a file, so that they are part of its identity.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

OPTIONS_FILE = "s2txai-options.json"
NO_OPTIONS: Mapping[str, Any] = MappingProxyType({})


def read_options(directory: Path) -> dict[str, Any]:
    """Return the options in a model's folder; none where there is no such file."""
    file = directory / OPTIONS_FILE
    return dict(json.loads(file.read_text())) if file.exists() else {}


def write_options(directory: Path, options: Mapping[str, Any]) -> None:
    """Write options into a model's folder; no file for none."""
    if options:
        (directory / OPTIONS_FILE).write_text(json.dumps(dict(options), sort_keys=True) + "\n")
