"""Stand-ins for the utterances of a corpus that is not here, so that its study can be planned."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s2txai.datasets.manifest import Utterance
from s2txai.datasets.tasks import Task
from s2txai.errors import UserError


class AbsentUtterance(Utterance):
    """An utterance that can be counted and timed, but not read."""

    def read(self, sampling_rate: int) -> npt.NDArray[np.float32]:
        """Refuse.

        Raises
        ------
        UserError
            Always.
        """
        raise UserError(
            f"There is no {self.path}, so its utterances can be planned but not processed; put the "
            "corpus there."
        )

    def seconds(self) -> float:
        """Return how long such utterances are said to last."""
        return self.duration or 0.0

    def check(self, max_seconds: float | None) -> None:
        """Accept what cannot be looked at."""

    def audio_sha256(self) -> str:
        """Return what no audio has."""
        return "absent"


def is_absent(entry: Mapping[str, Any], root: Path) -> bool:
    """Return whether a corpus is missing that says what to expect of it."""
    return "expect" in entry and not (root / entry["folder"]).is_dir()


def absent_utterances(entry: Mapping[str, Any], root: Path, task: Task) -> list[Utterance]:
    """Return as many utterances as the corpus is expected to have for a task."""
    translations = {task.target: "absent"} if task.kind == "st" else {}
    return [
        AbsentUtterance(
            f"absent-{number:05d}",
            root / entry["folder"],
            entry["source"],
            "absent",
            translations,
            duration=float(entry["expect"]["seconds"]),
        )
        for number in range(entry["expect"]["utterances"])
    ]
