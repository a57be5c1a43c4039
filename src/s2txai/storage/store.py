"""Where finished work on an utterance is kept, so that no mask is computed twice.

An entry is found by what changes its numbers and by nothing else: a killed job, another shard
size or a row put into the middle of the manifest cost nothing. Losing the store costs time only.
"""

import os
import shutil
from pathlib import Path

from s2txai.storage.artifacts import replacing


class Store:
    """A directory of finished work, one file for each utterance, step and fingerprint.

    Parameters
    ----------
    root
        The directory; made when something is first written into it.
    """

    def __init__(self, root: Path) -> None:
        self._root = Path(root)

    def path(self, step: str, utterance: str, fingerprint: str) -> Path:
        """Return where the entry lies or will lie; write it with ``artifacts.save``."""
        return self._root / step / utterance / f"{fingerprint}.npz"


def link(entry: Path, destination: Path) -> None:
    """Give ``entry`` a second name, or copy it where the file system has no hard links.

    The destination is replaced in one step, and changing it later with ``artifacts.save`` leaves
    the entry as it is.
    """
    with replacing(Path(destination)) as partial:
        try:
            os.link(entry, partial)
        except OSError:
            shutil.copyfile(entry, partial)
