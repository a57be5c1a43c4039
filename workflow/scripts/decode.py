"""Decode the utterances of one shard."""

from typing import TYPE_CHECKING

from s2txai.steps.decode import decode_shard
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    decode_shard(
        job.place(),
        job.utterances(),
        job.run.task,
        beam=job.params.beam,
        max_seconds=job.params.max_seconds,
    )
