"""Score the transcripts of one run."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.steps.decode import score_transcripts
from s2txai.study.plan import plan
from s2txai.study.results import load_shards, remaining, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards, params = snakemake.wildcards, snakemake.params
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    planned = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    run = remaining(planned, snakemake.input.decode)
    transcripts, scores = score_transcripts(
        run.utterances,
        load_shards(run, snakemake.input.decode, "decode"),
        run.task,
        text_normalisation=params.text_normalisation,
        diacritics=params.diacritics,
    )
    write_table(transcripts, run, Path(snakemake.output.transcripts))
    write_table(scores, run, Path(snakemake.output.scores))
