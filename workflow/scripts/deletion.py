"""Decode the utterances of one shard with salient cells deleted."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.artifacts import load_shard
from s2txai.deletion import further_layers, map_names
from s2txai.log import logging_to
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.steps.deletion import Search, deletion_shard
from s2txai.steps.shard import Workplace

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
    )
    artifacts = [
        load_shard(Path(snakemake.input[step]), params.ids, step)
        for step in ("decode", "smx", "aggregate")
    ]
    gradients = {
        method: load_shard(Path(snakemake.input[method]), params.ids, method)
        for method in GRADIENTS
        if snakemake.input.get(method)
    }
    n_layers = len(artifacts[-1][0]["ca_layer"])
    layers = further_layers(params.layers, n_layers)
    deletion_shard(
        place,
        *artifacts,
        maps=map_names(params.poolings, list(gradients), layers),
        percents=range(0, 101, params.deletion["step"]),
        search=Search(
            params.deletion["beam"],
            compute["batch_size"],
            params.seed,
            insertion=params.deletion["insertion"],
        ),
        gradients=gradients,
    )
