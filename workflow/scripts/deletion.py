"""Decode the utterances of one shard with salient cells deleted."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.saliency.deletion_maps import further_layers, map_names
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.steps.deletion import Search, deletion_shard
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
        compute=compute,
        threads=snakemake.threads,
        on_failure=snakemake.config["on_failure"],
    )
    methods = [method for method in GRADIENTS if snakemake.input.get(method)]
    steps = ("decode", "smx", "aggregate", *methods)
    directories = {step: Path(snakemake.input[step]) for step in steps}
    ids = pass_on(params.ids, directories.values(), place.output)
    made = {step: load_shard(directory, ids, step) for step, directory in directories.items()}
    # None where every utterance of the shard failed.
    n_layers = max((len(found["ca_layer"]) for found in made["aggregate"]), default=0)
    gradients = {method: made.pop(method) for method in methods}
    deletion_shard(
        place,
        *made.values(),
        maps=map_names(params.poolings, methods, further_layers(params.layers, n_layers)),
        percents=range(0, 101, params.deletion["step"]),
        search=Search(
            params.deletion["beam"],
            compute["batch_size"],
            params.seed,
            insertion=params.deletion["insertion"],
        ),
        gradients=gradients,
    )
