"""The project's folder, where a notebook runs inside a checkout of it."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from s2txai.errors import UserError
from s2txai.registry import did_you_mean
from s2txai.study.config import load_models
from s2txai.study.fetch_model import fetch_model

_log = logging.getLogger(__name__)


def find_checkout(start: Path | None = None) -> Path | None:
    """Return the folder of the checkout that ``start``, by default the working directory, lies in.

    Else the one that this package was installed from, where it was installed editable; else None.
    """
    for folder in _candidates(Path.cwd() if start is None else start):
        if (folder / "Snakefile").is_file() and (folder / "config" / "models.yaml").is_file():
            return folder
    return None


def _candidates(start: Path) -> Iterator[Path]:
    start = start.resolve()
    yield from (start, *start.parents)
    yield Path(__file__).resolve().parents[3]


def model_of_checkout(name: str) -> tuple[Mapping[str, Any], Path]:
    """Return the entry of a name of ``config/models.yaml``, and its folder, fetched if need be.

    Raises
    ------
    UserError
        If there is no checkout, no such name in its table, or the model cannot be fetched.
    """
    root = find_checkout()
    if root is None:
        raise UserError(
            f"There is no folder '{name}'; give the folder of a model, or work in a checkout of "
            "s2txai to name a model of its config/models.yaml."
        )
    models = load_models(root / "config" / "models.yaml", root / "workflow" / "schemas")
    if name not in models:
        raise UserError(
            f"There is no folder '{name}', and {root / 'config' / 'models.yaml'} has no such model"
            f"{did_you_mean(name, list(models)) or '.'} It has: {', '.join(models)}."
        )
    entry = dict(models[name])
    if "path" in entry["source"]:
        entry["source"] = {**entry["source"], "path": str(root / entry["source"]["path"])}
    folder = root / "resources" / "models" / name
    if not folder.is_dir():
        fetch_model(entry, folder, _log)
    return entry, folder
