"""What COMET needs, checked while planning; the score itself is in the analysis."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

from s2txai.datasets import Task, Utterance
from s2txai.errors import UserError

PACKAGE = "unbabel-comet"


def check_comet(checkpoint: Path, task: Task, utterances: Sequence[Utterance]) -> None:
    """Refuse what COMET could not score, before the first job starts.

    Parameters
    ----------
    checkpoint
        Its model.
    task, utterances
        What is translated.

    Raises
    ------
    UserError
        If the package or the file is missing, or an utterance has no transcript, which COMET reads
        beside both translations.
    """
    if find_spec("comet") is None:
        raise UserError(
            f"COMET needs the package '{PACKAGE}', which is not installed: `pip install "
            f"{PACKAGE}`, or leave 'comet' out of the configuration."
        )
    if not checkpoint.is_file():
        raise UserError(
            f"config: 'comet': there is no file {checkpoint}; name the checkpoint (.ckpt) of a "
            "COMET model that you have downloaded."
        )
    for utterance in utterances:
        if not utterance.transcript:
            raise UserError(
                f"Utterance '{utterance.id}' has no transcript, which COMET compares its "
                f"translation with in task {task.name}; fill in column 'transcript' of its "
                "manifest or leave 'comet' out."
            )
