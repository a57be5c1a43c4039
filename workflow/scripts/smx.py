"""Saliency on the input of one shard."""

from typing import TYPE_CHECKING

from s2txai.saliency.design import MaskDesign
from s2txai.steps.job import opened
from s2txai.steps.smx import smx_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    smx_shard(
        job.place(compile=job.compute["compile"]),
        job.artifacts("decode")["decode"],
        MaskDesign.of(job.params.masks, seed=job.params.seed),
        batch_size=job.compute["batch_size"],
    )
