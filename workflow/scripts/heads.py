"""Rank the heads of one run and write a verdict."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from s2txai.analysis.verdict import judge
from s2txai.log import logging_to
from s2txai.study.plan import plan
from s2txai.study.results import load_shards, remaining, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, files, params = snakemake.wildcards, snakemake.input, snakemake.params
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    planned = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    # Of the later of the two steps, which names the failures of both.
    run = remaining(planned, files.aggregate)
    found = judge(
        load_shards(run, files.aggregate, "aggregate"),
        load_shards(run, files.decode, "decode"),
        pd.read_csv(files.summary),
        run.aligned(),
        pooling=params.pooling,
        seed=params.seed,
    )
    write_table(found.ranking, run, Path(snakemake.output.ranking))
    for name in ("generation_config", "verdict"):
        text = json.dumps(getattr(found, name), indent=2) + "\n"
        Path(snakemake.output[name]).write_text(text)
