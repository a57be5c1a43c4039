"""COMET, a learned score of translations (Rei et al. 2022), where its package is installed.

``pip install unbabel-comet`` brings them and a large model besides; nothing here imports them
unless a configuration names a checkpoint, and planning imports no scores at all.
"""

from collections.abc import Sequence
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from s2txai.datasets import Task, Utterance
from s2txai.errors import UserError
from s2txai.hashing import file_sha256

if TYPE_CHECKING:
    from s2txai.analysis.scoring import Additive

PACKAGE = "unbabel-comet"
BATCH_SIZE = 16


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
    _check_installed()
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


def _check_installed() -> None:
    if find_spec("comet") is None:
        raise UserError(
            f"COMET needs the package '{PACKAGE}', which is not installed: `pip install "
            f"{PACKAGE}`, or leave 'comet' out of the configuration."
        )


def comet(checkpoint: Path, sources: Sequence[str]) -> "Additive":
    """Return COMET as a score of counts that add up: its corpus score is the mean over sentences.

    Parameters
    ----------
    checkpoint
        Its model.
    sources
        What was said, one text an utterance; references and hypotheses are to come in the same
        order.

    Returns
    -------
    Additive
        100 times the mean of the sentences' scores. Each translation is scored once.

    Raises
    ------
    UserError
        If the package is missing.
    """
    _check_installed()
    import torch
    from comet import load_from_checkpoint

    from s2txai.analysis.scoring import Additive

    model = load_from_checkpoint(str(checkpoint))
    devices = int(torch.cuda.is_available())
    known: dict[tuple[str, str, str], float] = {}

    def counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
        asked = list(zip(sources, hypotheses, references, strict=True))
        new = [one for one in dict.fromkeys(asked) if one not in known]
        if new:
            samples = [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in new]
            found = model.predict(
                samples, batch_size=BATCH_SIZE, gpus=devices, progress_bar=False
            ).scores
            known.update(zip(new, map(float, found), strict=True))
        return np.array([[known[one], 1.0] for one in asked])

    return Additive(counts, lambda sums: np.asarray(100 * sums[..., 0] / sums[..., 1]))


def comet_facts(checkpoint: Path) -> dict[str, str]:
    """Return what a score depends on beside the texts, for its signature."""
    return {"comet": f"{version(PACKAGE)},sha256:{file_sha256(checkpoint)[:12]}"}
