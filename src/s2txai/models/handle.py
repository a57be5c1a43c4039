"""A model that is loaded when it is first needed, and its identity, which takes no loading."""

import hashlib
from functools import cached_property
from pathlib import Path

from s2txai.errors import UserError
from s2txai.hashing import file_sha256
from s2txai.log import logger
from s2txai.models.base import Model
from s2txai.models.loading import load_model, resolve_device, resolve_precision
from s2txai.models.options import read_options


class LoadingError(Exception):
    """A model that cannot be loaded, whatever its input: no fault of an utterance."""


def folder_sha256(directory: Path) -> str:
    """Return a hash of every file of a model's folder, in the order of their names."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.is_file() and not path.name.startswith("."):
            digest.update(f"{path.name}\0{file_sha256(path)}\n".encode())
    return digest.hexdigest()


class ModelHandle:
    """What a step needs to know of a model before it decides whether to run it.

    Loading takes about ten seconds; a step that finds all its work in the store never loads.

    Parameters
    ----------
    family
        A name of :data:`s2txai.models.families.FAMILIES`.
    directory
        Holds the model's files, its options among them.
    device, precision
        As for :func:`s2txai.models.loading.load_model`.
    compile
        As for :func:`s2txai.models.loading.load_model`.
    """

    def __init__(
        self,
        family: str,
        directory: Path,
        *,
        device: str,
        precision: str,
        compile: bool = False,
    ) -> None:
        self.family = family
        self._directory = Path(directory)
        self.device = resolve_device(device)
        self._compile = compile
        self.precision = resolve_precision(precision, self.device)

    @cached_property
    def sha256(self) -> str:
        """Hash of every file of the model, in the order of their names."""
        return folder_sha256(self._directory)

    @cached_property
    def model(self) -> Model:
        """The model, loaded once.

        Raises
        ------
        UserError, LoadingError
            If it cannot be loaded.
        """
        logger.info("Loading %s on %s in %s", self._directory.name, self.device, self.precision)
        try:
            return load_model(
                self._directory,
                self.family,
                device=self.device,
                precision=self.precision,
                options=read_options(self._directory),
                compile=self._compile,
            )
        except UserError:
            raise
        except Exception as error:
            raise LoadingError(f"{self._directory} cannot be loaded: {error}") from error
