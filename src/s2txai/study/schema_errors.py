"""What is wrong with a table of keys, in plain sentences instead of a validator's own."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator
from jsonschema.exceptions import ValidationError

from s2txai.registry import did_you_mean

_TYPES = {
    "array": "a list",
    "boolean": "true or false",
    "integer": "a whole number",
    "null": "null",
    "number": "a number",
    "object": "a table of keys",
    "string": "a text",
}
_BOUNDS = {
    "minimum": "at least",
    "exclusiveMinimum": "more than",
    "maximum": "at most",
    "exclusiveMaximum": "less than",
}


def config_errors(
    config: Mapping[str, Any], schema: Mapping[str, Any], file: str | Path | None = None
) -> list[str]:
    """Say what is wrong with a configuration, one sentence a mistake.

    Parameters
    ----------
    config
        The configuration as read.
    schema
        JSON schema (draft 2020-12) that it must satisfy.
    file
        Where the configuration was read; begins every sentence.

    Returns
    -------
    list of str
        Each names the dotted key, what is wrong and what would be right. Empty if all is well.
    """
    # A bare `no` or `1` as a key is not a text in YAML, and validators stumble over it.
    sentences = list(_odd_keys(config, ""))
    if not sentences:
        problems = Draft202012Validator(dict(schema)).iter_errors(config)
        ordered = sorted(problems, key=lambda error: [str(part) for part in error.absolute_path])
        sentences = [sentence for error in ordered for sentence in _sentences(error)]
    prefix = f"{file}: " if file is not None else ""
    return [prefix + sentence for sentence in dict.fromkeys(sentences)]


def _odd_keys(value: object, where: str) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if not isinstance(key, str):
                place = f" of '{where}'" if where else ""
                yield f"key {_show(key)}{place} is not a text; write it in quotes."
            yield from _odd_keys(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _odd_keys(inner, f"{where}[{index}]")


def _sentences(error: ValidationError) -> list[str]:
    """Return the sentences for one error of the validator."""
    key = _dotted(error.absolute_path)
    subject = f"'{key}'" if key else "the file"
    rule = str(error.validator)
    rule_value: Any = error.validator_value
    value: Any = error.instance
    schema: Any = error.schema
    if "propertyNames" in error.absolute_schema_path:
        place = f" in '{key}'" if key else ""
        return [f"the name {_show(value)}{place} must {_form(schema)}."]
    if rule == "additionalProperties":
        return _unknown_keys(value, schema, key)
    if rule == "required":
        missing = [name for name in rule_value if name not in value]
        return [
            f"'{_join(key, name)}' is missing; add it{_about(schema, name)}." for name in missing
        ]
    if rule == "dependentRequired":
        return [
            f"'{_join(key, name)}' is missing; '{_join(key, present)}' needs it."
            for present, names in rule_value.items()
            if present in value
            for name in names
            if name not in value
        ]
    if rule in ("anyOf", "oneOf"):
        return _alternatives(error, subject)
    demand = _demand(rule, rule_value, value, schema)
    return [f"{subject} must {demand}{'' if demand.endswith('?') else '.'}"]


def _unknown_keys(value: Mapping[str, Any], schema: Mapping[str, Any], key: str) -> list[str]:
    # The error counts all keys that the schema does not know, without naming them one by one.
    valid = list(schema.get("properties", ()))
    return [
        f"unknown key '{_join(key, name)}'{did_you_mean(name, valid) or '.'} "
        f"Known keys here: {', '.join(valid)}."
        for name in value
        if name not in valid
    ]


def _alternatives(error: ValidationError, subject: str) -> list[str]:
    branches: Any = error.validator_value
    if all(set(branch) == {"required"} for branch in branches):
        names = "; ".join(" and ".join(branch["required"]) for branch in branches)
        count = "exactly" if error.validator == "oneOf" else "at least"
        return [f"{subject} must have {count} one of the keys: {names}."]
    # Where the value is of the kind that only one branch describes, that branch's complaint helps.
    fitting = [
        children
        for children in _by_branch(error).values()
        if not any(
            not child.relative_path and child.validator in ("type", "const", "enum")
            for child in children
        )
    ]
    if len(fitting) == 1:
        return [sentence for child in fitting[0] for sentence in _sentences(child)]
    choices = " or ".join(_describe(branch) for branch in branches)
    return [f"{subject} must be {choices}, not {_show(error.instance)}."]


def _by_branch(error: ValidationError) -> dict[int, list[ValidationError]]:
    branches: dict[int, list[ValidationError]] = {}
    for child in error.context or ():
        branches.setdefault(int(child.relative_schema_path[0]), []).append(child)
    return branches


def _demand(rule: str, rule_value: Any, value: Any, schema: Mapping[str, Any]) -> str:
    """Return what a value must be or have, as the end of a sentence after "must"."""
    if rule == "type":
        return f"be {_describe(schema)}, not {_show(value)}{_hint(rule_value, value)}"
    if rule == "enum":
        near = (
            did_you_mean(value, [str(name) for name in rule_value])
            if isinstance(value, str)
            else ""
        )
        choices = ", ".join(_show(name) for name in rule_value)
        return f"be one of {choices}, not {_show(value)}{near}"
    if rule == "const":
        return f"be {_show(rule_value)}, not {_show(value)}"
    if rule in _BOUNDS:
        return f"be {_range(schema)}, not {_show(value)}"
    if rule == "pattern":
        return f"{_form(schema)}, not {_show(value)}"
    if rule in ("minItems", "minProperties"):
        return f"have at least {_entries(rule_value)}, not {len(value)}"
    if rule in ("maxItems", "maxProperties"):
        return f"have at most {_entries(rule_value)}, not {len(value)}"
    if rule == "minLength":
        return "not be empty" if rule_value == 1 else f"be at least {rule_value} characters long"
    if rule == "uniqueItems":
        repeated = next(item for index, item in enumerate(value) if item in value[:index])
        return f"not name {_show(repeated)} twice"
    return f"satisfy the rule '{rule}: {rule_value}', not be {_show(value)}"


def _hint(rule_value: object, value: object) -> str:
    """Explain the two cases where YAML reads something else than was meant."""
    if rule_value == "string" and isinstance(value, bool | int | float):
        return "; write it in quotes"
    if rule_value in ("number", "integer") and isinstance(value, str):
        try:
            number = float(value)
        except ValueError:
            return ""
        return (
            f"; write it as {number:g} without quotes"
            if "e" not in value.lower()
            else ("; YAML wants a decimal point and the exponent's sign, as in 1.0e-3")
        )
    return ""


def _describe(schema: Mapping[str, Any]) -> str:
    """Return what a schema asks for, as in "a whole number at least 1"."""
    if "const" in schema:
        return _show(schema["const"])
    if "enum" in schema:
        return "one of " + ", ".join(_show(name) for name in schema["enum"])
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    described = " or ".join(_TYPES[kind] for kind in kinds) or "something else"
    bounds = _range(schema)
    return f"{described} ({bounds})" if bounds else described


def _range(schema: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{words} {schema[name]}" for name, words in _BOUNDS.items() if name in schema
    )


def _form(schema: Mapping[str, Any]) -> str:
    about = f" ({schema['description']})" if "description" in schema else ""
    return f"match {schema['pattern']}{about}"


def _entries(count: int) -> str:
    return "1 entry" if count == 1 else f"{count} entries"


def _about(schema: Mapping[str, Any], name: str) -> str:
    """Return the schema's description of a key, in brackets."""
    description = schema.get("properties", {}).get(name, {}).get("description", "")
    return f" ({description.rstrip('.')})" if description else ""


def _dotted(path: Sequence[str | int]) -> str:
    """Write a path into a configuration as ``a.b[0].c``."""
    dotted = ""
    for part in path:
        dotted = f"{dotted}[{part}]" if isinstance(part, int) else _join(dotted, part)
    return dotted


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _show(value: object) -> str:
    """Write a value as YAML would, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, str):
        text = f"'{value}'"
    return text if len(text) <= 80 else f"{text[:77]}..."
