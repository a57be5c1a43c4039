"""Files that people write or name: tables of keys in YAML, and names that may be any text."""

from pathlib import Path
from typing import Any

import yaml

from s2txai.errors import UserError


def is_file(path: Path) -> bool:
    """Return whether there is a file of a name that a table gives, which may be any text."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or not allowed in names
        return False


class _Loader(yaml.SafeLoader):
    """A safe loader that refuses a key given twice, where YAML would silently keep the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in lines:
                raise yaml.MarkedYAMLError(
                    problem=f"key '{key.value}' is already given in line {lines[key.value]}",
                    problem_mark=key.start_mark,
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML file that holds a table of keys.

    Raises
    ------
    UserError
        If the file is missing, is no valid YAML (names the line), gives a key twice or holds
        something else than a table.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}); correct its path or permissions."
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text; save it in that encoding.") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line}: {error.problem}; correct the YAML there.") from error
    # Also a date that is none, a number too long for Python, too deep nesting.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path} is not valid YAML ({reason}); correct it.") from error
    if not isinstance(content, dict):
        raise UserError(f"{path} must hold lines of the form 'key: value'; correct it.")
    return content
