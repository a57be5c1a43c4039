"""Time the words of one run and compare them with the alignments of its manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.analysis.word_times import timestamps
from s2txai.log import logging_to
from s2txai.study.plan import plan
from s2txai.study.results import load_shards, without_failed, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, files = snakemake.wildcards, snakemake.input
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    planned = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    run = without_failed(planned.aligned_only(), files.aggregate)
    aggregated = load_shards(run, files.aggregate, "aggregate")
    tables = timestamps(run.utterances, aggregated, load_shards(run, files.decode, "decode"))
    for name in ("words", "utterances", "summary"):
        write_table(getattr(tables, name), run, Path(snakemake.output[name]))
