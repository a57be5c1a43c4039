"""Sensitivity: the designs of the perturbation of a run, compared."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from s2txai.analysis.sensitivity import DesignMap, sensitivity
from s2txai.steps.plain import utterance_data
from s2txai.steps.shard import maps_of
from s2txai.storage.artifacts import Artifact, check_same_source
from s2txai.study.plan import Run
from s2txai.study.results import write_table


def sensitivity_run(
    run: Run,
    aggregated: Sequence[Artifact],
    designs: Mapping[str, Sequence[Artifact]],
    output: Path,
    *,
    rows: str,
    estimator: str,
) -> None:
    """Write the table of a run; see :func:`sensitivity_table`."""
    write_table(sensitivity_table(aggregated, designs, rows=rows, estimator=estimator), run, output)


def sensitivity_table(
    aggregated: Sequence[Artifact],
    designs: Mapping[str, Sequence[Artifact]],
    *,
    rows: str,
    estimator: str,
) -> pd.DataFrame:
    """Correlate the maps of every design with attention and with the main design.

    Parameters
    ----------
    aggregated
        ``aggregate`` artefacts of all utterances.
    designs
        ``smx`` artefacts of the same utterances by the name of their design, the main one first.
    rows
        As for :func:`s2txai.analysis.sensitivity.sensitivity`.
    estimator
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS`.

    Raises
    ------
    UserError
        If files of different hypotheses, models or audio lie together.
    """
    for of_utterance in zip(aggregated, *designs.values(), strict=True):
        check_same_source(*of_utterance)
    return sensitivity(
        [utterance_data(artifact) for artifact in aggregated],
        {
            name: [_design_map(artifact, estimator) for artifact in artifacts]
            for name, artifacts in designs.items()
        },
        rows=rows,
        estimator=estimator,
    )


def _design_map(artifact: Artifact, estimator: str) -> DesignMap:
    return DesignMap.of(
        maps_of(artifact, estimator),
        subsampling=int(artifact["subsampling"]),
        n_steps=int(artifact["n_steps"]),
        parameters=artifact.meta["parameters"],
        n_masks=artifact.meta["masks"]["n_masks"],
    )
