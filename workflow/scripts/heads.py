"""Rank the heads of one run and write a verdict."""

from typing import TYPE_CHECKING

from s2txai.steps.heads import OUTPUTS, heads_run
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    # `aggregate` passes on the failures of `decode`.
    run = job.remaining("aggregate")
    heads_run(
        run,
        job.shards(run, "aggregate"),
        job.shards(run, "decode"),
        job.inputs("summary")[0],
        {name: job.output(name) for name in OUTPUTS},
        pooling=job.params.pooling,
        seed=job.params.seed,
    )
