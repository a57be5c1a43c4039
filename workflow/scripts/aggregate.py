"""Bring the maps of one shard to encoder steps."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.artifacts import load_shard
from s2txai.log import logging_to
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.steps.aggregate import aggregate_shard

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    artifacts = [
        load_shard(Path(snakemake.input[step]), snakemake.params.ids, step)
        for step in ("decode", "attention", "smx", "smh")
    ]
    gradients = {
        method: load_shard(Path(snakemake.input[method]), snakemake.params.ids, method)
        for method in GRADIENTS
        if snakemake.input.get(method)
    }
    aggregate_shard(
        Path(snakemake.output[0]),
        *artifacts,
        poolings=snakemake.params.poolings,
        estimators=snakemake.params.estimators,
        gradients=gradients,
    )
