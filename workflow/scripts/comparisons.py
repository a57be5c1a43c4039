"""Compare models, tasks and layers over all runs."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.analysis.comparisons import comparisons
from s2txai.log import logging_to
from s2txai.study.results import read_headlines

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    keys = [tuple(run.split("/")) for run in snakemake.params.runs]
    tables = {
        key: read_headlines(path)
        for key, path in zip(keys, snakemake.input.utterances, strict=True)
    }
    params = snakemake.params
    table = comparisons(tables, pooling=params.pooling, seed=params.seed)
    table.to_csv(snakemake.output[0], index=False)
