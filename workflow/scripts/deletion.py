"""Decode the utterances of one shard with salient cells deleted."""

from typing import TYPE_CHECKING

from s2txai.steps.deletion import DeletionDesign, deletion_shard
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    shard = job.artifacts("decode", "smx", "aggregate", *job.methods)
    deletion_shard(
        job.place(),
        decoded=shard["decode"],
        smx=shard["smx"],
        aggregated=shard["aggregate"],
        gradients={method: shard[method] for method in job.methods},
        design=DeletionDesign.of(job.params.deletion, seed=job.params.seed),
        poolings=job.params.poolings,
        layers=job.params.layers,
        batch_size=job.compute["batch_size"],
    )
