"""Hashes of files and of facts, by which work that is done is found again."""

import hashlib
import json
from pathlib import Path
from typing import Any


def fingerprint(**facts: Any) -> str:
    """Return the sha256 (hexadecimal) of facts that JSON can hold, whatever their order.

    Raises
    ------
    TypeError, ValueError
        If a fact has no JSON form, such as an array or NaN.
    """
    canonical = json.dumps(facts, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal, reading it in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
