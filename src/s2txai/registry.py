"""Names that a configuration file may use, each bound to a piece of code.

Registries are read while Snakemake plans, so what is registered must not import torch. Code that
does is named as ``module:function`` and imported by :func:`load_object` when it is first called.
"""

import importlib
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any, Generic, TypeVar

from s2txai.errors import UserError

T = TypeVar("T")


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


class Registry(Generic[T]):
    """A table from names to implementations whose error lists the valid names.

    Parameters
    ----------
    kind
        What is registered, in the singular, for the error message ("pooling").
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._entries: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Return a decorator that files its target under ``name``.

        Raises
        ------
        ValueError
            If the name is taken.
        """

        def decorate(target: T) -> T:
            if name in self._entries:
                raise ValueError(
                    f"{self._kind} '{name}' is registered already; choose another name."
                )
            self._entries[name] = target
            return target

        return decorate

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
                f"Unknown {self._kind} '{name}'{did_you_mean(name, valid) or '.'} "
                f"Choose one of: {', '.join(valid)}."
            )
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)
