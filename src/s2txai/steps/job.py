"""What a script of the workflow is given: its place, its run and its inputs, by name."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from s2txai.datasets import Utterance
from s2txai.log import logging_to
from s2txai.saliency.methods import METHODS
from s2txai.storage.artifacts import Artifact, load_shard
from s2txai.storage.failures import pass_on
from s2txai.study import layout
from s2txai.study.extensions import load_extensions
from s2txai.study.plan import Run, Study, plan
from s2txai.study.results import load_shards, remaining

if TYPE_CHECKING:
    from s2txai.steps.shard import OnFailure, Workplace


class Script(Protocol):
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
def opened(snakemake: Script) -> Iterator["Job"]:
    """Yield the job of a script; messages and uncaught exceptions go to its log."""
    with logging_to(Path(snakemake.log[0])):
        yield Job(snakemake)


class Job:
    """One job of the workflow.

    A script reads the configuration in two ways. What changes numbers comes through ``params`` of
    the rule, where a change runs the job again. What changes only the effort, such as the size of a
    batch, comes from the configuration itself, where a change runs nothing again.

    Attributes
    ----------
    params
        Of the rule: what changes numbers.
    wildcards
        Of the rule.
    config
        The configuration: read from it what changes only the effort.
    compute
        Its section ``compute``.
    on_failure
        Its key ``on_failure``.

    Raises
    ------
    UserError
        If an extension of the configuration cannot be imported: they are imported first.
    """

    def __init__(self, snakemake: Script) -> None:
        self._snakemake = snakemake
        self.params = snakemake.params
        self.wildcards = snakemake.wildcards
        self.config: Mapping[str, Any] = snakemake.config
        self.compute: Mapping[str, Any] = snakemake.config["compute"]
        self.on_failure: OnFailure = snakemake.config["on_failure"]
        load_extensions(self.config, self.root)

    @cached_property
    def root(self) -> Path:
        """The project's folder."""
        return Path(self._snakemake.scriptdir).resolve().parents[1]

    @cached_property
    def run(self) -> Run:
        """The run that the job is of, as it was planned; no other run is read."""
        key = (self.wildcards.dataset, self.wildcards.model, self.wildcards.task)
        return plan(self.config, self.root, only=key, check_recordings=False).runs[key]

    @cached_property
    def study(self) -> Study:
        """The whole study, as it was planned; no recording is opened."""
        return plan(self.config, self.root, check_recordings=False)

    def place(self, *, precision: str | None = None, compile: bool = False) -> "Workplace":
        """Return where a step that runs a model works; ``precision`` replaces the configured."""
        # Imports torch, which jobs that run no model do without.
        from s2txai.steps.shard import Workplace

        compute = self.compute if precision is None else {**self.compute, "precision": precision}
        return Workplace.open(
            self.params.family,
            Path(self._snakemake.input.model),
            self.output(),
            compute=compute,
            threads=self._snakemake.threads,
            on_failure=self.on_failure,
            compile=compile,
            store=Path(layout.STORE),
        )

    def output(self, name: str | int = 0) -> Path:
        """Return an output of the rule by its name, or by its number."""
        return Path(self._snakemake.output[name])

    def inputs(self, name: str | None = None) -> list[Path]:
        """Return the inputs of the rule under a name, or all; none where it has none."""
        paths = self._snakemake.input if name is None else self._snakemake.input.get(name) or []
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
        """Return the run without the utterances that failed in these inputs.

        See :func:`s2txai.study.results.remaining`.
        """
        return remaining(self.run, [path for name in names for path in self.inputs(name)])

    def shards(self, run: Run, name: str, step: str | None = None) -> list[Artifact]:
        """Return the artefacts of a run's utterances from all shards of an input."""
        return load_shards(run, self.inputs(name), step or name)
