"""Time the words of one run and compare them with the alignments of its manifest."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.plan import plan
from s2txai.steps.timestamps import timestamps
from s2txai.tables import load_shards, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, files = snakemake.wildcards, snakemake.input
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    run = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    utterances = run.aligned()
    aligned = {utterance.id for utterance in utterances}

    def made(step):
        shards = load_shards(run, getattr(files, step), step)
        return [artifact for artifact in shards if artifact.meta["utterance"] in aligned]

    tables = timestamps(utterances, made("aggregate"), made("decode"))
    for name in ("words", "utterances", "summary"):
        write_table(getattr(tables, name), run, Path(snakemake.output[name]))
