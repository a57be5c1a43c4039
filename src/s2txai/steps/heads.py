"""Heads: which heads of a run to use, and a verdict on its attention."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from s2txai.analysis.verdict import HeadFindings, rank_heads
from s2txai.datasets import Diacritics, Utterance
from s2txai.steps.plain import utterance_data
from s2txai.storage.artifacts import Artifact, replacing
from s2txai.study.plan import Run
from s2txai.study.results import write_table

OUTPUTS = ("ranking", "generation_config", "verdict")


def heads_run(
    run: Run,
    aggregated: Sequence[Artifact],
    decoded: Sequence[Artifact],
    summary: Path,
    outputs: Mapping[str, Path],
    *,
    pooling: str,
    seed: int,
) -> None:
    """Write ranking, chosen heads and verdict of a run under the names of :data:`OUTPUTS`.

    Parameters
    ----------
    run, aggregated, decoded
        A run and artefacts of all its utterances.
    summary
        ``correlate/summary.csv``.
    outputs
        Paths of the results.
    pooling, seed
        As for :func:`s2txai.analysis.verdict.rank_heads`.
    """
    findings = head_findings(
        aggregated,
        decoded,
        pd.read_csv(summary),
        run.aligned(),
        pooling=pooling,
        seed=seed,
        why_unaligned=_why_unaligned(run),
        diacritics=run.diacritics,
    )
    write_table(findings.ranking, run, outputs["ranking"])
    for name in ("generation_config", "verdict"):
        with replacing(outputs[name]) as partial:
            partial.write_text(json.dumps(getattr(findings, name), indent=2) + "\n")


def _why_unaligned(run: Run) -> str:
    """Return the reason of ``verdict.NOT_TESTED`` that holds if no utterance is aligned."""
    if run.task.kind != "asr":
        return "translation"
    return "failed" if any(utterance.alignment for utterance in run.failed) else "no alignments"


def head_findings(
    aggregated: Sequence[Artifact],
    decoded: Sequence[Artifact],
    summary: pd.DataFrame,
    aligned: Sequence[Utterance],
    *,
    pooling: str,
    seed: int,
    why_unaligned: str = "no alignments",
    diacritics: Diacritics = "kept",
) -> HeadFindings:
    """Rank heads by ``aggregate`` and ``decode`` artefacts; see ``verdict.rank_heads``."""
    return rank_heads(
        [utterance_data(artifact) for artifact in aggregated],
        [utterance_data(artifact) for artifact in decoded],
        summary,
        aligned,
        pooling=pooling,
        seed=seed,
        why_unaligned=why_unaligned,
        diacritics=diacritics,
    )
