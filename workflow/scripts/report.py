"""Write the report page."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.environment import git_commit, library_versions
from s2txai.log import logging_to
from s2txai.plan import plan
from s2txai.report.page import Facts, write_report
from s2txai.report.runs import RunFiles
from s2txai.tables import remaining

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    root = Path(snakemake.scriptdir).resolve().parents[1]
    study = plan(snakemake.config, root)

    def usable(run):
        """Leave out what failed; the shards of `aggregate` name the failures of earlier steps."""
        folder = Path("results", *run.key, "aggregate")
        return remaining(run, [folder / shard for shard in run.shards])

    runs = [
        RunFiles(
            *run.key,
            tables=Path("results", *run.key),
            shards=run.shards,
            audio={utterance.id: utterance for utterance in run.utterances},
            has_designs=bool(study.designs),
            has_timestamps=bool(run.aligned()),
        )
        for run in map(usable, study.runs.values())
    ]
    facts = Facts(
        config=snakemake.config,
        versions=library_versions(),
        git_commit=git_commit(root),
        models=study.models,
        datasets=study.datasets,
        paper_reference=Path(snakemake.input.paper),
    )
    write_report(
        runs,
        Path(snakemake.output.page),
        Path(snakemake.output.sweep),
        Path(snakemake.output.layers),
        Path(snakemake.output.figures),
        Path(snakemake.output.explorer),
        facts,
    )
