"""Bring the maps of one shard to encoder steps."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.steps.aggregate import aggregate_shard
from s2txai.storage.artifacts import load_shard
from s2txai.storage.failures import pass_on

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    output = Path(snakemake.output[0])
    methods = [method for method in GRADIENTS if snakemake.input.get(method)]
    steps = ("decode", "attention", "smx", "smh", *methods)
    directories = {step: Path(snakemake.input[step]) for step in steps}
    ids = pass_on(snakemake.params.ids, directories.values(), output)
    made = {step: load_shard(directory, ids, step) for step, directory in directories.items()}
    gradients = {method: made.pop(method) for method in methods}
    aggregate_shard(
        output,
        *made.values(),
        poolings=snakemake.params.poolings,
        estimators=snakemake.params.estimators,
        gradients=gradients,
        on_failure=snakemake.config["on_failure"],
    )
