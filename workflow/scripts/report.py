"""Write the report page."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.report.page import Facts, write_report
from s2txai.report.runs import RunFiles
from s2txai.study.environment import git_commit, library_versions
from s2txai.study.plan import plan

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    root = Path(snakemake.scriptdir).resolve().parents[1]
    study = plan(snakemake.config, root)
    runs = [RunFiles.of(run, has_designs=bool(study.designs)) for run in study.runs.values()]
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
