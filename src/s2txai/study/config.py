"""Configuration files: reading and checking them, and the tables of models and datasets."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from s2txai.datasets.files import read_yaml
from s2txai.datasets.formats import FORMATS
from s2txai.datasets.tasks import Task
from s2txai.errors import UserError
from s2txai.models.abilities import check_abilities
from s2txai.models.families import FAMILIES
from s2txai.study.schema_errors import config_errors

SCHEMAS = Path(__file__).resolve().parents[3] / "workflow" / "schemas"


def read_config(root: Path, files: Sequence[Path]) -> dict[str, Any]:
    """Read ``config/config.yaml`` and lay ``files`` over it, as ``snakemake --configfile`` does.

    Raises
    ------
    UserError
        If a file cannot be read.
    """
    config = read_yaml(root / "config" / "config.yaml")
    for file in files:
        _overlay(config, read_yaml(file))
    return config


def _overlay(config: dict[str, Any], changes: Mapping[str, Any]) -> None:
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(config.get(key), dict):
            _overlay(config[key], value)
        else:
            config[key] = value


def check_config(config: Mapping[str, Any], schemas: Path = SCHEMAS) -> None:
    """Refuse a configuration that disagrees with its schema.

    Raises
    ------
    UserError
        One line per mistake.
    """
    _check(config, read_yaml(schemas / "config.schema.yaml"), "config")


def load_models(path: Path, schemas: Path = SCHEMAS) -> dict[str, Any]:
    """Read and check the table of models.

    Parameters
    ----------
    path
        The table, by default ``config/models.yaml`` of the project.
    schemas
        Folder of the JSON schemas.

    Returns
    -------
    dict
        From name to entry.

    Raises
    ------
    UserError
        If the file disagrees with its schema; one line per mistake.
    """
    content = read_yaml(path)
    check_models(content, path, schemas)
    return content


def load_datasets(path: Path, schemas: Path = SCHEMAS) -> dict[str, Any]:
    """Read and check the table of datasets; like :func:`load_models`."""
    content = read_yaml(path)
    check_datasets(content, path, schemas)
    return content


def check_models(content: Mapping[str, Any], file: str | Path, schemas: Path = SCHEMAS) -> None:
    """Refuse a table of models that disagrees with its schema; one line per mistake."""
    _check(content, read_yaml(schemas / "models.schema.yaml"), file)


def check_datasets(content: Mapping[str, Any], file: str | Path, schemas: Path = SCHEMAS) -> None:
    """Refuse a table of datasets that disagrees with its schema; one line per mistake."""
    _check(content, datasets_schema(schemas), file)


def datasets_schema(schemas: Path = SCHEMAS) -> dict[str, Any]:
    """Return the schema of the table of datasets, with the keys of every registered format."""
    schema = read_yaml(schemas / "datasets.schema.yaml")
    corpus = schema["$defs"]["corpus"]
    formats = {name: FORMATS[name] for name in FORMATS}
    shared = dict(corpus["properties"])
    named = {"format": shared.pop("format")}
    for name, form in formats.items():
        schema["$defs"][name] = {
            "additionalProperties": False,
            "required": ["format", *form.required, *corpus["required"][1:]],
            "dependentRequired": dict(form.needs),
            "properties": {**named, **form.keys, **shared},
        }
    entry = schema["additionalProperties"]
    entry["properties"] = {"format": {"enum": list(formats)}}
    entry["then"] = {
        "allOf": [
            {
                "if": {"properties": {"format": {"const": name}}},
                "then": {"$ref": f"#/$defs/{name}"},
            }
            for name in formats
        ]
    }
    return schema


def _check(content: Mapping[str, Any], schema: Mapping[str, Any], file: str | Path) -> None:
    problems = config_errors(content, schema, file)
    if problems:
        raise UserError("\n".join(problems))


def check_task(model: str, entry: Mapping[str, Any], task: Task) -> None:
    """Check that a model can perform a task, from what the table of models says about it.

    Parameters
    ----------
    model
        Name of the model.
    entry
        Its entry in the table of models.
    task
        What it shall do.

    Raises
    ------
    UserError
        If the model does not know the language of the speech or does not translate into the
        task's target, or none of its family can do the task.
    """
    if task.source not in entry["languages"]:
        reason = f"it does not know the language '{task.source}'"
    elif task.kind == "st" and task.target not in entry["translation_targets"]:
        reason = f"it translates into {', '.join(entry['translation_targets']) or 'no language'}"
    else:
        if entry.get("family", "") in FAMILIES:  # others are refused with the valid names
            # What no model of the family can do, whichever files it has.
            check_abilities(entry["family"], None, task, entry.get("options", {}))
        return
    raise UserError(
        f"Model '{model}' cannot perform task {task.name}, since {reason}; choose another model, "
        f"or of what it can do: {_possible_tasks(entry)}."
    )


def _possible_tasks(entry: Mapping[str, Any]) -> str:
    languages, targets = entry["languages"], entry["translation_targets"]
    if len(languages) == 1 and not set(targets) - set(languages):
        return f"asr-{languages[0]}"
    # No language is translated into itself.
    translations = [
        f"st-<language>-{target}" + (" (from another language)" if target in languages else "")
        for target in targets
        if set(languages) - {target}
    ]
    return (
        f"{', '.join(['asr-<language>', *translations])}, where <language> is one of "
        f"{', '.join(languages)}"
    )
