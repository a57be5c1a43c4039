"""What the rules of the workflow declare about their jobs: inputs, parameters, resources.

The rule files call nothing else, so that everything they declare is tested without Snakemake.
Planning a study of thousands of jobs calls these functions for each of them; they read no file but
those that a change of must run a job again.
"""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from s2txai.datasets.languages import bleu_tokeniser
from s2txai.saliency.methods import METHODS
from s2txai.storage.failures import Failure, failures_where_met
from s2txai.storage.versions import version_of
from s2txai.study import layout
from s2txai.study.choices import extensions_of, gradient_settings
from s2txai.study.fetch_model import fetched_entry, local_files, local_states
from s2txai.study.plan import Run, Study

_RUN_A_MODEL = frozenset(step.name for step in layout.STEPS if step.runs_model)
# Steps that share the version of an algorithm.
_VERSION_NAMES = {"transcripts": "score", "deletion_curves": "score"}


class Wildcards(Protocol):
    """The wildcards of a job; which there are depends on its rule."""

    dataset: str
    model: str
    task: str
    shard: str
    design: str
    method: str


def in_order(value: Any) -> Any:
    """Sort the keys of a configuration: their order in its file is no reason to run again."""
    return json.loads(json.dumps(value, sort_keys=True))


class Jobs:
    """The jobs of a study.

    Methods that take ``wildcards`` are input or parameter functions of rules; methods that take
    none return a value, or such a function.

    Parameters
    ----------
    study
        As it was planned.
    config
        The configuration.
    root
        The project's folder.
    """

    def __init__(self, study: Study, config: Mapping[str, Any], root: Path) -> None:
        self._study, self._config, self._root = study, config, root

    # Runs

    def run(self, wildcards: Wildcards) -> Run:
        """Return the run of a job."""
        return self._study.runs[wildcards.dataset, wildcards.model, wildcards.task]

    def shard_ids(self, wildcards: Wildcards) -> list[str]:
        """Return the utterances of a job's shard."""
        return list(self.run(wildcards).shards[wildcards.shard])

    def ids(self, wildcards: Wildcards) -> list[str]:
        """Return the utterances of a job's run."""
        return [utterance.id for utterance in self.run(wildcards).utterances]

    # Inputs

    def shards_of(self, folder: str) -> Callable[[Wildcards], list[str]]:
        """Return an input function: every shard of the run at a step."""
        return lambda wildcards: layout.shard_paths(self.run(wildcards), folder)

    def last_shards(self, wildcards: Wildcards) -> list[str]:
        """Return every shard of the steps that no later step reads."""
        return layout.last_shards(self._study, self.run(wildcards))

    def design_shards(self, wildcards: Wildcards) -> dict[str, list[str]]:
        """Return every shard of each design, under ``design <name>``."""
        run = self.run(wildcards)
        return {
            f"design {design}": layout.shard_paths(run, layout.design_folder(design))
            for design in self._study.designs
        }

    def gradient_shards(self, wildcards: Wildcards) -> dict[str, str]:
        """Return the shard of each gradient method, under the method's name."""
        folder = layout.run_folder(self.run(wildcards).key)
        return {method: f"{folder}/{method}/{wildcards.shard}" for method in self._study.methods}

    def comet_checkpoint(self, wildcards: Wildcards) -> dict[str, str]:
        """Return the model that scores translations, where one is configured."""
        if "comet" not in self._config or self.run(wildcards).task.kind != "st":
            return {}
        return {"comet": os.path.relpath(self._root / self._config["comet"])}

    def model_files(self, wildcards: Wildcards) -> list[str]:
        """Return a local model's files: changed weights repeat its download and what follows."""
        return [str(file) for file in local_files(self._study.models[wildcards.model])]

    # Parameters

    def version(self, step: str) -> Callable[[Wildcards], Any]:
        """Return a parameter function: the version of a step's algorithm.

        Together with the hashes of the extensions that have a part in its numbers, where there are
        any; without extensions the parameter is the bare number, as in earlier releases.
        """

        def value(wildcards: Wildcards) -> Any:
            extensions = extensions_of(step, self._config, **self._choices(step, wildcards))
            number = self._number(step, wildcards)
            return {"version": number, "extensions": extensions} if extensions else number

        return value

    def _choices(self, step: str, wildcards: Wildcards) -> dict[str, Any]:
        """Return what only the job's wildcards say of the names that it uses."""
        choices: dict[str, Any] = {}
        if step in _RUN_A_MODEL:
            choices["family"] = self.family(wildcards)
        if step == "gradients":
            choices["method"] = wildcards.method
        if step == "smx" and hasattr(wildcards, "design"):
            choices["design"] = self._study.designs[wildcards.design]
        return choices

    def _number(self, step: str, wildcards: Wildcards) -> int:
        if step == "gradients":
            return version_of(wildcards.method)
        return version_of(_VERSION_NAMES.get(step, step))

    def family(self, wildcards: Wildcards) -> str:
        """Return the family of a job's model."""
        return str(self._study.models[wildcards.model]["family"])

    def audio(self, wildcards: Wildcards) -> str:
        """Return the hash of the recordings of a job's shard."""
        return self.run(wildcards).audio_sha256(wildcards.shard)

    def max_seconds(self, wildcards: Wildcards) -> float | None:
        """Return the longest utterance that a job's model accepts."""
        return self.run(wildcards).max_seconds

    def layers(self, wildcards: Wildcards) -> list[int]:
        """Return the decoder layers by whose attention cells are deleted."""
        return list(self.run(wildcards).layers)

    def tokeniser(self, wildcards: Wildcards) -> str:
        """Return the tokeniser of BLEU, which depends on what is installed."""
        return bleu_tokeniser(self.run(wildcards).task.target)

    def diacritics(self, wildcards: Wildcards) -> str:
        """Return whether accents count when texts are compared."""
        return self.run(wildcards).diacritics

    def references(self, wildcards: Wildcards) -> str:
        """Return the hash of the reference texts of a job's run."""
        return self.run(wildcards).references_sha256()

    def alignments(self, wildcards: Wildcards) -> str:
        """Return the hash of the word boundaries of a job's run."""
        return self.run(wildcards).alignments_sha256()

    def masks(self, section: str) -> Any:
        """Return the settings of ``smx`` or ``smh``."""
        return in_order(self._config[section])

    def masks_of_design(self, wildcards: Wildcards) -> Any:
        """Return the settings of ``smx`` of a job's design."""
        return in_order(self._study.designs[wildcards.design])

    def gradient_parameters(self, wildcards: Wildcards) -> Any:
        """Return what a job's gradient method uses of the configuration."""
        return in_order(METHODS[wildcards.method].parameters(gradient_settings(self._config)))

    def estimator(self, section: str) -> str:
        """Return the estimator of ``smx`` or ``smh``."""
        return str(self._config[section].get("estimator", "mean"))

    def model_entry(self, wildcards: Wildcards) -> Any:
        """Return what a model's files depend on of its entry."""
        return in_order(fetched_entry(self._study.models[wildcards.model]))

    def model_states(self, wildcards: Wildcards) -> list[tuple[int, int]]:
        """Return size and time of a local model's files: Snakemake overlooks older ones."""
        return local_states(self._study.models[wildcards.model])

    def run_names(self) -> list[str]:
        """Return ``dataset/model/task`` of every run."""
        return ["/".join(key) for key in self._study.runs]

    # Resources

    def by_attempt(
        self, amount: float, per_utterance: float = 0
    ) -> Callable[[Wildcards, int], Any]:
        """Return a resource function: ``amount`` at first, and more where a killed job is repeated.

        ``per_utterance`` is what each utterance of the run needs besides, where a job processes all
        of them. Not for the minutes of a job that runs a model: it goes on from the store, and
        partitions with GPUs may refuse more minutes than they allow.
        """
        if not per_utterance:
            return lambda wildcards, attempt: attempt * amount
        return lambda wildcards, attempt: (
            attempt * round(amount + per_utterance * len(self.ids(wildcards)))
        )

    # The study

    def tables(self, name: str) -> list[str]:
        """Return a table of every run."""
        return layout.tables(self._study, name)

    def timed_tables(self, name: str) -> list[str]:
        """Return a table of word timestamps of every run that has them."""
        return layout.timed_tables(self._study, name)

    def all_shards(self, *folders: str) -> list[str]:
        """Return the shards of every run in the folders of some steps."""
        return [path for folder in folders for path in layout.all_shards(self._study, folder)]

    def failures_so_far(self) -> list[Failure]:
        """Return the failures of the steps of this configuration, whatever the target was."""
        folders = layout.folders_with_failures(self._study)
        return [
            failure
            for run in self._study.runs.values()
            for failure in failures_where_met(Path(layout.run_folder(run.key)), run.shards, folders)
        ]


def figure_heading(wildcards: Any) -> str:
    """Return the heading of a figure in Snakemake's own report."""
    if "dataset" not in wildcards.keys():  # noqa: SIM118  (no mapping)
        return "All runs"
    return "{model} on {dataset}, {task}".format(**wildcards)


def failures_sentence(failures: Sequence[Failure]) -> str:
    """Return what a run of Snakemake ends with where utterances failed."""
    first = failures[0]
    return (
        f"Not every utterance could be processed: {len(failures):,} failed so far; "
        f"docs/workflow.md says how to go on. The first is '{first.utterance}' in {first.step}: "
        f"{first.message}"
    )
