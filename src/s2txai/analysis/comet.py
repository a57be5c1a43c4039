"""COMET, a learned score of translations (Rei et al. 2022), where its package is installed.

``pip install unbabel-comet`` brings it and a large model besides; nothing here imports it unless a
configuration names a checkpoint.
"""

from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from s2txai.analysis.score_registry import SCORES, Counts, Score
from s2txai.errors import UserError
from s2txai.hashing import file_sha256

PACKAGE = "unbabel-comet"
BATCH_SIZE = 16


def comet(checkpoint: Path, sources: Sequence[str]) -> Score:
    """Return COMET of a model: the score registered as ``comet``, ready to be used.

    Parameters
    ----------
    checkpoint
        Its model.
    sources
        What was said, one text per utterance; references and hypotheses must come in the same
        order.

    Raises
    ------
    UserError
        If the package is missing.
    """
    _check_installed()
    facts = {"comet": f"{version(PACKAGE)},sha256:{file_sha256(checkpoint)[:12]}"}
    return replace(SCORES["comet"], counts=_counts(checkpoint, sources), facts=facts)


def _check_installed() -> None:
    if find_spec("comet") is None:
        raise UserError(
            f"COMET needs the package '{PACKAGE}', which is not installed: `pip install "
            f"{PACKAGE}`, or leave 'comet' out of the configuration."
        )


def _counts(checkpoint: Path, sources: Sequence[str]) -> Counts:
    """Return the function that scores translations; each is scored once.

    Its counts are float64 [n, 2]: the score of a sentence, and 1.
    """
    import torch
    from comet import load_from_checkpoint

    model = load_from_checkpoint(str(checkpoint))
    devices = int(torch.cuda.is_available())
    cache: dict[tuple[str, str, str], float] = {}

    def counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
        triples = list(zip(sources, hypotheses, references, strict=True))
        new = [triple for triple in dict.fromkeys(triples) if triple not in cache]
        if new:
            samples = [{"src": src, "mt": mt, "ref": ref} for src, mt, ref in new]
            scores = model.predict(
                samples, batch_size=BATCH_SIZE, gpus=devices, progress_bar=False
            ).scores
            cache.update(zip(new, map(float, scores), strict=True))
        return np.array([[cache[triple], 1.0] for triple in triples])

    return counts


def mean_score(sums: np.ndarray) -> np.ndarray:
    """Return 100 times the mean of the sentences' scores from sums of counts [..., 2]."""
    return np.asarray(100 * sums[..., 0] / sums[..., 1])


def _without_model(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    raise UserError("COMET needs a model: name its checkpoint under 'comet' in the configuration.")


SCORES.register("comet")(
    Score(
        _without_model,
        mean_score,
        tasks=frozenset(),
        higher_is_better=True,
        short_name="COMET",
        name="COMET",
        unit="0–100",
        takes_raw_texts=True,
    )
)
