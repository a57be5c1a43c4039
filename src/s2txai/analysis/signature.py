"""Signatures: what a number depends on, beside the number, as sacreBLEU does."""

from collections.abc import Sequence

from s2txai import __version__


def signature(**facts: object) -> str:
    """Return facts as ``name:value|name:value|...|s2txai:version``; lists are joined by commas.

    Two numbers may be compared only if their signatures agree.
    """
    entries = {**facts, "s2txai": __version__}
    return "|".join(f"{name}:{_text(value)}" for name, value in entries.items())


def _text(value: object) -> str:
    return ",".join(str(item) for item in value) if isinstance(value, list) else str(value)


def spread(counts: Sequence[int]) -> str:
    """Return ``360`` where all counts agree, else ``360-480``."""
    return str(min(counts)) if min(counts) == max(counts) else f"{min(counts)}-{max(counts)}"
