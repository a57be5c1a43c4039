"""Saliency on the encoder outputs of one shard."""

from typing import TYPE_CHECKING

from s2txai.saliency.design import STATE_VALUE, MaskDesign
from s2txai.steps.job import opened
from s2txai.steps.smh import smh_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    smh_shard(
        job.place(),
        job.artifacts("decode")["decode"],
        MaskDesign.of(job.params.masks, seed=job.params.seed, occluded_value=STATE_VALUE),
        batch_size=job.compute["batch_size"],
    )
