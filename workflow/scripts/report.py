"""Write the report page."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.report.page import ReportContext, ReportPaths, write_report
from s2txai.report.runs import RunFiles
from s2txai.steps.job import opened
from s2txai.study.environment import git_commit, library_versions
from s2txai.study.layout import RESULTS

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    results = Path(RESULTS)
    write_report(
        [
            RunFiles.of(run, has_designs=bool(job.study.designs), results=results)
            for run in job.study.runs.values()
        ],
        ReportPaths(
            page=job.output("page"),
            sweep=job.output("sweep"),
            layers=job.output("layers"),
            figures=job.output("figures"),
            explorer=job.output("explorer"),
            results=results,
        ),
        ReportContext(
            config=job.config,
            versions=library_versions(),
            git_commit=git_commit(job.root),
            models=job.study.models,
            datasets=job.study.datasets,
            paper_reference=job.inputs("paper")[0],
        ),
    )
