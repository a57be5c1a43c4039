"""Saliency on the encoder outputs of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
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
        compute=compute,
        threads=snakemake.threads,
        on_failure=snakemake.config["on_failure"],
    )
    directory = Path(snakemake.input.decode)
    ids = pass_on(params.ids, [directory], place.output)
    smh_shard(
        place,
        load_shard(directory, ids, "decode"),
        **params.masks,
        seed=params.seed,
        batch_size=compute["batch_size"],
    )
