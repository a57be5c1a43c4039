"""Python files of the user that register further names: ``extensions`` of a configuration.

They are imported before anything else reads the configuration, while Snakemake plans and in every
job. Planning must not import torch, so an extension imports it inside its functions. An extension
is one file: what lies beside it is neither hashed nor found.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from s2txai.errors import UserError
from s2txai.registry import NameTakenError, registering

MODELS = Path("resources", "models")  # folder of the fetched models, in that of the project


class _Loader(SourceFileLoader):
    """Runs the bytes that were hashed: bytecode beside the file may be that of another version."""

    def __init__(self, name: str, path: str, source: bytes) -> None:
        super().__init__(name, path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self._source, self.path)


# From the file of an extension to the hash of what was imported from it.
_loaded: dict[Path, str] = {}


def load_extensions(config: Mapping[str, Any], root: Path) -> None:
    """Import the extensions of a configuration that this process has not imported yet.

    Parameters
    ----------
    config
        Its key ``extensions`` lists the files, absolute or relative to ``root``.
    root
        The project's folder.

    Raises
    ------
    UserError
        If a file is missing, lies in a downloaded model, raises an exception or registers a name
        that is taken.
    """
    files = config.get("extensions", [])
    # Before the schema is checked, since what it may say depends on them.
    if not isinstance(files, list) or not all(isinstance(file, str) for file in files):
        raise UserError("config: 'extensions' must be a list of Python files.")
    for position, file in enumerate(files):
        _load(root / file, root, f"config: 'extensions[{position}]'")


def _load(file: Path, root: Path, where: str) -> None:
    path = Path(os.path.normpath(file.absolute()))
    if path in _loaded:
        return
    _check_place(path, root, where)
    if not path.is_file():
        raise UserError(f"{where}: there is no file {path}; correct its path.")
    source = path.read_bytes()
    sha256 = hashlib.sha256(source).hexdigest()
    name = f"s2txai_extension_{sha256[:12]}"
    loader = _Loader(name, str(path), source)
    module = ModuleType(name)
    module.__file__ = str(path)
    sys.modules[name] = module  # dataclasses look their module up there
    try:
        with registering(sha256):
            loader.exec_module(module)
    except NameTakenError as error:
        del sys.modules[name]
        raise UserError(f"{where}: {path}: {error}") from error
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        if neighbour := _neighbour(error, path.parent):
            raise UserError(
                f"{where}: {path} imports {neighbour} beside it, but an extension is one file that "
                "holds all it needs; put that code into it, or install it as a package."
            ) from error
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise UserError(
            f"{where}: {path} cannot be imported ({reason}); correct it, or leave it out."
        ) from error
    _loaded[path] = sha256


def _neighbour(error: BaseException, folder: Path) -> str:
    """Return the file or folder beside an extension that it could not import; none: empty."""
    if not isinstance(error, ModuleNotFoundError) or not error.name:
        return ""
    top = error.name.split(".")[0]
    return next((name for name in (f"{top}.py", top) if (folder / name).exists()), "")


def _check_place(path: Path, root: Path, where: str) -> None:
    """Refuse a file of a downloaded model, also where a link leads into or out of its folder."""
    folders = {Path(os.path.normpath((root / MODELS).absolute())), (root / MODELS).resolve()}
    for place in (path, path.resolve()):
        if any(place.is_relative_to(folder) for folder in folders):
            raise UserError(
                f"{where}: {path} lies in the folder of a downloaded model, whose code is never "
                "run as an extension; read it, and copy it elsewhere if you trust it."
            )
