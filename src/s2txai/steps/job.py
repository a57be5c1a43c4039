"""What a script of the workflow is given: its place, its run and its inputs, by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

from s2txai.datasets import Utterance
from s2txai.log import logging_to
from s2txai.saliency.methods import METHODS
from s2txai.steps.shard import OnFailure, Workplace
from s2txai.storage.artifacts import Artifact, load_shard
from s2txai.storage.failures import pass_on
from s2txai.study.plan import Run, plan
from s2txai.study.results import load_shards, remaining


class SnakemakeScript(Protocol):
    """The object that Snakemake gives to a script."""

    input: Any
    output: Any
    params: Any
    wildcards: Any
    log: Any
    threads: int
    config: dict[str, Any]
    scriptdir: str


@contextmanager
def opened(snakemake: SnakemakeScript) -> Iterator["Job"]:
    """Yield the job of a script; messages and uncaught exceptions go to its log."""
    with logging_to(Path(snakemake.log[0])):
        yield Job(snakemake)


class Job:
    """One job of the workflow.

    Attributes
    ----------
    params
        Of the rule: what changes numbers.
    compute
        Section ``compute`` of the configuration: what does not.
    on_failure
        Of the configuration.
    wildcards
        Of the rule.
    """

    def __init__(self, snakemake: SnakemakeScript) -> None:
        self._snakemake = snakemake
        self.params = snakemake.params
        self.wildcards = snakemake.wildcards
        self.compute: Mapping[str, Any] = snakemake.config["compute"]
        self.on_failure: OnFailure = snakemake.config["on_failure"]

    @cached_property
    def root(self) -> Path:
        """The project's folder."""
        return Path(self._snakemake.scriptdir).resolve().parents[1]

    @cached_property
    def run(self) -> Run:
        """The run that the job is of, as it was planned."""
        key = (self.wildcards.dataset, self.wildcards.model, self.wildcards.task)
        return plan(self._snakemake.config, self.root).runs[key]

    def place(self, *, precision: str | None = None, compile: bool = False) -> Workplace:
        """Return where a step that runs a model works; ``precision`` replaces the configured."""
        compute = self.compute if precision is None else {**self.compute, "precision": precision}
        return Workplace.open(
            self.params.family,
            Path(self._snakemake.input.model),
            self.output(),
            compute=compute,
            threads=self._snakemake.threads,
            on_failure=self.on_failure,
            compile=compile,
        )

    def output(self, name: str | int = 0) -> Path:
        """Return an output of the rule by its name, or by its number."""
        return Path(self._snakemake.output[name])

    def inputs(self, name: str) -> list[Path]:
        """Return the inputs of the rule under a name; none where it has none."""
        paths = self._snakemake.input.get(name) or []
        return [Path(path) for path in ([paths] if isinstance(paths, str) else paths)]

    @property
    def methods(self) -> list[str]:
        """Gradient methods of which the rule has an input, in the order of their registry."""
        return [method for method in METHODS if self.inputs(method)]

    def utterances(self) -> list[Utterance]:
        """Return the rows of the manifest that make up the shard."""
        return self.run.shard(self.wildcards.shard)

    def artifacts(self, *steps: str) -> dict[str, list[Artifact]]:
        """Return artefacts of the shard by step, of utterances that no earlier step failed on.

        Each list has the same utterances in the same order. Failures of earlier steps are passed on
        to the output.
        """
        directories = {step: self.inputs(step)[0] for step in steps}
        ids = pass_on(self.params.ids, directories.values(), self.output())
        return {step: load_shard(path, ids, step) for step, path in directories.items()}

    def remaining(self, *names: str) -> Run:
        """Return the run without utterances that failed in these inputs."""
        return remaining(self.run, [path for name in names for path in self.inputs(name)])

    def shards(self, run: Run, name: str, step: str | None = None) -> list[Artifact]:
        """Return the artefacts of a run's utterances from all shards of an input."""
        return load_shards(run, self.inputs(name), step or name)
