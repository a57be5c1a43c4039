"""Files that data sets name."""

from pathlib import Path


def is_file(path: Path) -> bool:
    """Return whether there is a file of a name that a table gives, which may be any text."""
    try:
        return path.is_file()
    except (OSError, ValueError):  # too long, or not allowed in names
        return False
