"""Extract the cross-attention of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.steps.attention import attention_shard
from s2txai.steps.shard import Workplace
from s2txai.storage.artifacts import load_shard
from s2txai.storage.failures import pass_on

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    place = Workplace.open(
        snakemake.params.family,
        Path(snakemake.input.model),
        Path(snakemake.output[0]),
        compute=snakemake.config["compute"],
        threads=snakemake.threads,
        on_failure=snakemake.config["on_failure"],
    )
    directory = Path(snakemake.input.decode)
    ids = pass_on(snakemake.params.ids, [directory], place.output)
    attention_shard(place, load_shard(directory, ids, "decode"))
