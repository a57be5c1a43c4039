"""Extract the cross-attention of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.artifacts import load_shard
from s2txai.log import logging_to
from s2txai.steps.attention import attention_shard
from s2txai.steps.shard import Workplace

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    place = Workplace.open(
        snakemake.params.family,
        Path(snakemake.input.model),
        Path(snakemake.output[0]),
        compute=snakemake.config["compute"],
        threads=snakemake.threads,
    )
    decoded = load_shard(Path(snakemake.input.decode), snakemake.params.ids, "decode")
    attention_shard(place, decoded)
