"""Which family a folder of files belongs to, without loading them or importing torch."""

import json
from pathlib import Path
from typing import Any

from s2txai.errors import UserError
from s2txai.models.families import FAMILIES

_SETTINGS = "config.json"


def family_of(directory: Path) -> str:
    """Return the family whose kind of files a folder holds.

    ``model_type`` of ``config.json`` decides, as transformers writes it; without one, the names of
    the files do.

    Raises
    ------
    UserError
        If there is no such folder, or it fits none of the families, or several.
    """
    directory = Path(directory)
    if not directory.is_dir():
        raise UserError(f"No folder {directory}; correct the model's folder.")
    model_type = _settings(directory).get("model_type")
    if model_type is None:
        names = [file.name for file in directory.iterdir() if file.is_file()]
        candidates = [name for name in FAMILIES if FAMILIES[name].has_layout(names)]
        reason = f"has neither a 'model_type' in {_SETTINGS} nor the files of one family"
    else:
        candidates = [name for name in FAMILIES if model_type in FAMILIES[name].model_types]
        reason = f"holds a model of the type {str(model_type)[:100]!r}"
    if model_type is not None and not candidates:
        raise UserError(
            f"{directory} {reason}, which no family names; if its network is that of a family, "
            f"name it, one of: {', '.join(sorted(FAMILIES))}; other networks, such as decoder-only "
            "ones, cannot be analysed."
        )
    if len(candidates) != 1:
        raise UserError(
            f"{directory} {reason}, which does not decide its family; name it, one of: "
            f"{', '.join(sorted(FAMILIES))}."
        )
    return candidates[0]


def _settings(directory: Path) -> dict[str, Any]:
    """Return the table in a folder's ``config.json``; an empty one if there is none."""
    try:
        settings = json.loads((directory / _SETTINGS).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return settings if isinstance(settings, dict) else {}
