"""Write the report page."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.report.page import ReportContext, ReportPaths, write_report
from s2txai.report.runs import RunFiles
from s2txai.study.environment import git_commit, library_versions
from s2txai.study.plan import plan

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    root = Path(snakemake.scriptdir).resolve().parents[1]
    study = plan(snakemake.config, root)
    results = Path("results")
    runs = [
        RunFiles.of(run, has_designs=bool(study.designs), results=results)
        for run in study.runs.values()
    ]
    context = ReportContext(
        config=snakemake.config,
        versions=library_versions(),
        git_commit=git_commit(root),
        models=study.models,
        datasets=study.datasets,
        paper_reference=Path(snakemake.input.paper),
    )
    paths = ReportPaths(
        page=Path(snakemake.output.page),
        sweep=Path(snakemake.output.sweep),
        layers=Path(snakemake.output.layers),
        figures=Path(snakemake.output.figures),
        explorer=Path(snakemake.output.explorer),
        results=results,
    )
    write_report(runs, paths, context)
