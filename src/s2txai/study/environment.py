"""What the software was that made a result."""

import subprocess
from importlib.metadata import version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "numpy", "scipy", "scikit-image", "snakemake", "sacrebleu")


def library_versions() -> dict[str, str]:
    """Return the versions of the libraries that numbers depend on."""
    return {name: version(name) for name in LIBRARIES}


def git_commit(root: Path) -> str:
    """Return the commit that is checked out at ``root``, empty where there is none.

    Uncommitted changes are marked, since the commit then does not say what ran.
    """
    try:
        output = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return output.stdout.strip()
