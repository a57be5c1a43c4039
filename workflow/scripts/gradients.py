"""Gradients on the input of one shard, by one method."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.steps.gradients import COMPUTE, gradient_shard
from s2txai.steps.shard import Workplace
from s2txai.storage.artifacts import load_shard
from s2txai.storage.failures import pass_on

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    params, compute = snakemake.params, snakemake.config["compute"]
    place = Workplace.open(
        params.family,
        Path(snakemake.input.model),
        Path(snakemake.output[0]),
        compute={**compute, **COMPUTE},
        threads=snakemake.threads,
        on_failure=snakemake.config["on_failure"],
    )
    directory = Path(snakemake.input.decode)
    ids = pass_on(params.ids, [directory], place.output)
    gradient_shard(
        place,
        snakemake.wildcards.method,
        load_shard(directory, ids, "decode"),
        batch_size=compute["batch_size"],
        **params.parameters,
    )
