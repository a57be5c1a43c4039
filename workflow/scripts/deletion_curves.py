"""Score the deletion of one run."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.analysis.deletion_curves import LearnedScore, score_deletion
from s2txai.datasets import reference
from s2txai.log import logging_to
from s2txai.study.plan import plan
from s2txai.study.results import load_shards, remaining, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, params = snakemake.wildcards, snakemake.params
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    planned = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    run = remaining(planned, snakemake.input.deletion)
    learned = None
    if checkpoint := snakemake.input.get("comet"):
        sources = [utterance.transcript for utterance in run.utterances]
        learned = LearnedScore(Path(checkpoint), sources)
    tables = score_deletion(
        [reference(utterance, run.task) for utterance in run.utterances],
        load_shards(run, snakemake.input.deletion, "deletion"),
        run.task,
        text_normalisation=params.text_normalisation,
        diacritics=params.diacritics,
        learned=learned,
        seed=params.seed,
    )
    write_table(tables.curves, run, Path(snakemake.output.curves))
    write_table(tables.areas, run, Path(snakemake.output.auc))
    write_table(tables.sizes, run, Path(snakemake.output.size))
