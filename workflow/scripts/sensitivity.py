"""Compare the designs of the perturbation over one run."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.analysis.sensitivity import MAIN, sensitivity
from s2txai.log import logging_to
from s2txai.study.plan import plan
from s2txai.study.results import load_shards, remaining, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, params, files = snakemake.wildcards, snakemake.params, snakemake.input
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    planned = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    run = remaining(planned, [*files.aggregate, *files.designs])
    # The shards of one design after those of another.
    n = len(run.shards)
    shards = {name: files.designs[k * n : (k + 1) * n] for k, name in enumerate(params.designs)}
    table = sensitivity(
        load_shards(run, files.aggregate, "aggregate"),
        {
            name: load_shards(run, directories, "smx")
            for name, directories in {MAIN: files.smx, **shards}.items()
        },
        rows=params.rows,
        estimator=params.estimator,
    )
    write_table(table, run, Path(snakemake.output[0]))
