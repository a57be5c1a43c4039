"""Decode the utterances of one shard."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.steps.decode import decode_shard
from s2txai.steps.shard import Workplace
from s2txai.study.plan import plan

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, params = snakemake.wildcards, snakemake.params
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    run = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    place = Workplace.open(
        params.family,
        Path(snakemake.input.model),
        Path(snakemake.output[0]),
        compute=snakemake.config["compute"],
        threads=snakemake.threads,
        on_failure=snakemake.config["on_failure"],
    )
    decode_shard(
        place,
        run.shard(wildcards.shard),
        run.task,
        beam=params.beam,
        max_seconds=params.max_seconds,
    )
