"""Reading back what the steps of one run wrote."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from s2txai.analysis.deletion_curves import PROBABILITIES
from s2txai.analysis.headline import headline, headline_of_means
from s2txai.datasets import Utterance
from s2txai.errors import UserError
from s2txai.saliency.methods import METHODS
from s2txai.storage.artifacts import Artifact, load
from s2txai.study.plan import Run
from s2txai.study.results import AS_WRITTEN, read_in_blocks, remaining

TABLES = {
    "transcripts": "decode/transcripts.csv",
    "scores": "decode/scores.csv",
    "utterances": "correlate/utterances.csv",
    "summary": "correlate/summary.csv",
    "mixing": "correlate/mixing.csv",
    "best_heads": "correlate/best_heads.csv",
    "classes": "correlate/classes.csv",
    "curves": "deletion/curves.csv",
    "auc": "deletion/auc.csv",
    "failures": "failures.tsv",
}

SENSITIVITY = {"sensitivity": "sensitivity/sensitivity.csv"}
TIMESTAMPS = {"timestamps": "timestamps/summary.csv"}


def saliency_steps() -> tuple[str, ...]:
    """Return the steps that make saliency maps, in the order of tables; extensions add some."""
    return ("smx", "smh", *METHODS)


@dataclass(frozen=True)
class RunFiles:
    """Where one run lies: one dataset, model and task.

    Attributes
    ----------
    dataset, model, task
        Their names.
    tables
        The run's directory, ``{dataset}/{model}/{task}`` in that of the results.
    shards
        Utterance ids by shard, in the order of the manifest.
    audio
        Utterances, which know their recordings, by id.
    has_designs
        Whether other designs of the perturbation were compared.
    has_timestamps
        Whether words were timed against alignments.
    """

    dataset: str
    model: str
    task: str
    tables: Path
    shards: Mapping[str, Sequence[str]]
    audio: Mapping[str, Utterance]
    has_designs: bool = False
    has_timestamps: bool = False

    @classmethod
    def of(cls, run: Run, *, has_designs: bool, results: Path) -> Self:
        """Return where a planned run lies, without the utterances that failed on the way.

        Parameters
        ----------
        run
            As planned.
        has_designs
            Whether the study compares designs.
        results
            Folder of all results.

        Raises
        ------
        UserError
            If no utterance is left.
        """
        folder = results.joinpath(*run.key)
        # The shards of `aggregate` also name the failures of earlier steps.
        rest = remaining(run, [folder / "aggregate" / shard for shard in run.shards])
        return cls(
            *run.key,
            tables=folder,
            shards=rest.shards,
            audio={utterance.id: utterance for utterance in rest.utterances},
            has_designs=has_designs,
            has_timestamps=bool(rest.aligned()),
        )

    @property
    def key(self) -> str:
        """A name of the run for folders and links; no two runs share it."""
        return f"{self.dataset}/{self.model}/{self.task}"

    @property
    def ids(self) -> list[str]:
        """All utterance ids, in the order of the manifest."""
        return [utterance for ids in self.shards.values() for utterance in ids]

    def artifact(self, step: str, utterance: str) -> Artifact:
        """Read one result file; errors as for :func:`s2txai.storage.artifacts.load`."""
        shard = next(name for name, ids in self.shards.items() if utterance in ids)
        return load(self.tables / step / shard / f"{utterance}.npz", step)


@dataclass(frozen=True)
class UtteranceFacts:
    """Sizes of one utterance.

    Attributes
    ----------
    id
        Of the utterance.
    duration
        Of the speech frames, in seconds.
    n_rows, n_frames, n_steps
        Predicted tokens, input frames, encoder steps.
    masks
        What the result says of the masks of each step that draws some: their number, the
        reliability they reached, the target and whether it was reached.
    """

    id: str
    duration: float
    n_rows: int
    n_frames: int
    n_steps: int
    masks: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class RunResults:
    """One run, read.

    Attributes
    ----------
    files
        Where it lies.
    tables
        By the names of :data:`TABLES`.
    utterances
        In the order of the manifest.
    padding
        Share of attention on padding [L, H], mean over all tokens.
    parameters
        By step, as the result files state them.
    model_sha256
        Of the weights that were used.
    verdict
        Sentences on what attention is good for.
    """

    files: RunFiles
    tables: Mapping[str, pd.DataFrame]
    utterances: Sequence[UtteranceFacts]
    padding: np.ndarray
    parameters: Mapping[str, Mapping[str, Any]]
    model_sha256: str
    verdict: Sequence[str]

    @property
    def saliencies(self) -> list[str]:
        """The saliency maps, in the order of the summary."""
        return [str(name) for name in self.tables["summary"]["saliency"].unique()]

    @property
    def n_failed(self) -> int:
        """Utterances that a step could not process."""
        return len(self.tables["failures"])

    @property
    def n_layers(self) -> int:
        """Decoder layers (L)."""
        return len(self.padding)

    @property
    def deletion_metric(self) -> str:
        """The score whose deletion curve is shown."""
        metrics = self.tables["auc"]["metric"]
        # The clipped error rate keeps loops of a lost model from setting the scale.
        clipped = [name for name in ("wer_max", "cer_max") if name in set(metrics)]
        return clipped[0] if clipped else str(metrics.iloc[0])

    def headline(self) -> pd.DataFrame:
        """Return the summary of the headline: Pearson, each token's row standardised."""
        return headline(self.tables["summary"])


def read_run(files: RunFiles) -> RunResults:
    """Read the tables of a run, and the sizes of its utterances.

    Raises
    ------
    UserError
        If a table or result file is missing or refused.
    """
    paths = TABLES | (SENSITIVITY if files.has_designs else {})
    paths = paths | (TIMESTAMPS if files.has_timestamps else {})
    tables = {name: _read_table(files.tables / path) for name, path in paths.items()}
    facts, padding = [], []
    for aggregated, decoded in _pairs(files):
        steps = aggregated["ca_mean"].shape[1]
        facts.append(
            UtteranceFacts(
                id=str(decoded.meta["utterance"]),
                duration=len(decoded["features"]) * float(decoded["frame_shift"]),
                n_rows=len(decoded["tokens"]),
                n_frames=len(decoded["features"]),
                n_steps=steps,
                masks=aggregated.meta["masks"],
            )
        )
        padding.append(aggregated["padding_mass"])
    return RunResults(
        files=files,
        tables=tables,
        utterances=facts,
        padding=np.concatenate(padding, axis=-1).mean(axis=-1),
        parameters={
            "decode": decoded.meta["parameters"],
            **{
                step: aggregated.meta["parameters"][step]
                for step in saliency_steps()
                if step in aggregated.meta["parameters"]
            },
        },
        model_sha256=str(decoded.meta["model_sha256"]),
        verdict=_read_json(files.tables / "heads" / "verdict.json")["sentences"],
    )


def _pairs(files: RunFiles) -> Iterator[tuple[Artifact, Artifact]]:
    # One utterance at a time: all heads of a large dataset would not fit into memory.
    for utterance in files.ids:
        yield files.artifact("aggregate", utterance), files.artifact("decode", utterance)


def _read_json(path: Path) -> Any:
    if not path.is_file():
        raise UserError(f"The file {path} does not exist: run the workflow step that makes it.")
    return json.loads(path.read_text(encoding="utf-8"))


def _read_table(path: Path) -> pd.DataFrame:
    if not path.is_file():
        raise UserError(f"The table {path} does not exist: run the workflow step that makes it.")
    if path.name == "transcripts.csv":
        # A hypothesis may be empty or read "NA"; neither is a missing value.
        texts = dict.fromkeys(("utterance", "reference", "hypothesis"), str)
        return pd.read_csv(path, dtype=texts, keep_default_na=False)
    if path.suffix == ".tsv":
        return pd.read_csv(path, sep="\t", dtype=str, keep_default_na=False)
    is_long = path.name == "utterances.csv"
    table = read_in_blocks(path, headline_of_means) if is_long else pd.read_csv(path, **AS_WRITTEN)
    if "mode" in table:
        # Of the deletion the page shows the scores of what was decoded.
        shown = (table["mode"] == "deletion") & ~table["metric"].isin(list(PROBABILITIES))
        table = table[shown].reset_index(drop=True)
    whole = {name: "Int64" for name in ("layer", "head") if name in table}
    return table.astype(whole)
