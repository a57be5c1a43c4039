"""Names that a configuration file may use, each bound to a piece of code.

Registries are read while Snakemake plans, so what is registered must not import torch. Code that
does is named as ``module:function`` and imported by :func:`load_object` when it is first called.
"""

import importlib
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from s2txai.errors import UserError

T = TypeVar("T")

SCORE = "score"
"""The kind of the scores of texts, which planning names without importing the analysis."""


@dataclass(frozen=True)
class _Extension:
    """The extension that is being imported: its hash, and the names that it has registered."""

    sha256: str
    names: "list[tuple[Registry[Any], str]]" = field(default_factory=list)


# Names that are registered meanwhile are its own.
_ORIGIN: ContextVar[_Extension | None] = ContextVar("_ORIGIN", default=None)

# The registries in which an extension registered a name, in order.
_EXTENDED: "dict[Registry[Any], None]" = {}


@contextmanager
def registering(origin: str) -> Iterator[None]:
    """Note ``origin`` beside every name that is registered within the block.

    Where the block raises an exception, these names are forgotten.
    """
    extension = _Extension(origin)
    token = _ORIGIN.set(extension)
    try:
        yield
    except BaseException:
        for registry, name in extension.names:
            registry.forget(name)
        raise
    finally:
        _ORIGIN.reset(token)


def did_you_mean(name: str, valid: list[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for a near miss, else an empty string."""
    near = get_close_matches(name, valid, n=1)
    return f"; did you mean '{near[0]}'?" if near else ""


def load_object(reference: str | Callable[..., Any]) -> Any:
    """Return what ``module:name`` refers to; what is no text is returned as it is.

    Raises
    ------
    ImportError, AttributeError
        If there is no such module, or no such name in it.
    """
    if not isinstance(reference, str):
        return reference
    module, _, name = reference.partition(":")
    return getattr(importlib.import_module(module), name)


class NameTakenError(ValueError):
    """A name that is registered already, or that is reserved."""


class Registry(Generic[T]):
    """A table from names to implementations whose error lists the valid names.

    Parameters
    ----------
    kind
        What is registered, in the singular, for the error message ("pooling").
    reserved
        Names that mean something else in results; a name that ends in ``_`` is a prefix.
    in_results
        Whether names are parts of file names or of names in results: they are then of letters,
        digits, underscores and hyphens, and none ends in ``_halves``.
    """

    def __init__(
        self, kind: str, *, reserved: Collection[str] = (), in_results: bool = False
    ) -> None:
        self.kind = kind
        self._reserved, self._in_results = reserved, in_results
        self._entries: dict[str, T] = {}
        self._origins: dict[str, str] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its target under ``name``.

        Raises
        ------
        NameTakenError
            If the name is registered already, is reserved or cannot stand in results.
        """

        def decorate(target: T) -> T:
            self._check(name)
            if name in self._entries:
                raise NameTakenError(
                    f"{self.kind} '{name}' is registered already; choose another name."
                )
            self._entries[name] = target
            if extension := _ORIGIN.get():
                extension.names.append((self, name))
                self._origins[name] = extension.sha256
                _EXTENDED[self] = None
            return target

        return decorate

    def _check(self, name: str) -> None:
        if self._in_results and not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name):
            raise NameTakenError(
                f"{self.kind} '{name}' cannot stand in the names of results; choose a name of "
                "letters, digits, underscores and hyphens that begins with a letter."
            )
        prefixes = tuple(word for word in self._reserved if word.endswith("_"))
        halves = self._in_results and name.endswith("_halves")
        if name in self._reserved or halves or (prefixes and name.startswith(prefixes)):
            raise NameTakenError(
                f"{self.kind} '{name}' has a name that means something else in results; choose "
                "another name."
            )

    def forget(self, name: str) -> None:
        """Take a name back, of an extension that could not be imported to its end."""
        self._entries.pop(name, None)
        self._origins.pop(name, None)

    def origin(self, name: str) -> str | None:
        """Return the sha256 of the extension that registered a name; None for our own names."""
        return self._origins.get(name)

    def of_extensions(self) -> list[str]:
        """Return the names that extensions registered."""
        return list(self._origins)

    def __getitem__(self, name: str) -> T:
        """Return what is filed under ``name``.

        Raises
        ------
        UserError
            If nothing is; the message lists the names that are.
        """
        if name not in self._entries:
            valid = sorted(self._entries)
            raise UserError(
                f"Unknown {self.kind} '{name}'{did_you_mean(name, valid) or '.'} "
                f"Choose one of: {', '.join(valid)}."
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)


def names_of_extensions(kinds: Collection[str]) -> "dict[Registry[Any], list[str]]":
    """Return the names that extensions registered, by their registry, of some kinds."""
    return {registry: registry.of_extensions() for registry in _EXTENDED if registry.kind in kinds}


def extension_hashes(names: Mapping[Registry[Any], Iterable[str]]) -> dict[str, str]:
    """Return the hash of the extension behind each name that one registered.

    Results that an extension has a part in change with its file. Whatever identifies such results,
    the parameters of a rule or a fingerprint, holds these hashes, under ``extensions``, where there
    are any; without extensions it stays as it is.

    Parameters
    ----------
    names
        The names that some work uses, by their registry. Names that are not registered are passed
        over: whether they are valid is asked elsewhere.

    Returns
    -------
    dict
        From ``kind:name``, such as ``pooling:median2d``, to the sha256 of the file.
    """
    return {
        f"{registry.kind}:{name}": origin
        for registry, used in names.items()
        for name in sorted(set(used))
        if (origin := registry.origin(name))
    }
