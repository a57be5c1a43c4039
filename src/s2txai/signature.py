"""Signatures: what a number depends on, beside the number, as sacreBLEU does."""

from s2txai import __version__


def signature(**facts: object) -> str:
    """Return facts as ``name:value|name:value|...|s2txai:version``.

    Two numbers may be compared only if their signatures agree.
    """
    stated = {**facts, "s2txai": __version__}
    return "|".join(f"{name}:{value}" for name, value in stated.items())
