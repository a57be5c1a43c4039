"""Bring the maps of one shard to encoder steps."""

from typing import TYPE_CHECKING

from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    shard = job.artifacts("decode", "attention", "smx", "smh", *job.methods)
    aggregate_shard(
        job.output(),
        decoded=shard["decode"],
        attention=shard["attention"],
        smx=shard["smx"],
        smh=shard["smh"],
        gradients={method: shard[method] for method in job.methods},
        poolings=job.params.poolings,
        estimators=job.params.estimators,
        on_failure=job.on_failure,
    )
