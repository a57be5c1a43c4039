"""Extract the cross-attention of one shard."""

from typing import TYPE_CHECKING

from s2txai.steps.attention import attention_shard
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    attention_shard(job.place(), job.artifacts("decode")["decode"])
