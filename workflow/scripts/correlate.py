"""Correlate attention and saliency over one run."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.analysis.correlations import correlate
from s2txai.log import logging_to
from s2txai.study.plan import plan
from s2txai.study.results import iter_shards, remaining, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, params = snakemake.wildcards, snakemake.params
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    planned = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    run = remaining(planned, snakemake.input.aggregate)
    aggregated = iter_shards(run, snakemake.input.aggregate, "aggregate")
    tables = correlate(aggregated, poolings=params.poolings, rows=params.rows, seed=params.seed)
    # Of a large model single heads are most of what there is.
    is_head = tables.utterances["head"].notna()
    write_table(tables.utterances[~is_head], run, Path(snakemake.output.utterances))
    write_table(tables.utterances[is_head], run, Path(snakemake.output.heads))
    for name in ("reliability", "summary", "mixing", "best_heads", "masks", "rows", "classes"):
        write_table(getattr(tables, name), run, Path(snakemake.output[name]))
