"""Correlate attention and saliency over one run."""

from typing import TYPE_CHECKING

from s2txai.steps.correlate import OUTPUTS, correlate_run
from s2txai.steps.job import opened
from s2txai.study.results import iter_shards

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    run = job.remaining("aggregate")
    correlate_run(
        run,
        iter_shards(run, job.inputs("aggregate"), "aggregate"),
        {name: job.output(name) for name in OUTPUTS},
        poolings=job.params.poolings,
        rows=job.params.rows,
        seed=job.params.seed,
    )
