"""Gradients on the input of one shard, by one method."""

from typing import TYPE_CHECKING

from s2txai.steps.gradients import PRECISION, gradients_shard
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    gradients_shard(
        job.place(precision=PRECISION),
        job.wildcards.method,
        job.artifacts("decode")["decode"],
        parameters=job.params.parameters,
        batch_size=job.compute["batch_size"],
    )
