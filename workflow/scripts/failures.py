"""List the utterances of one run that a step could not do."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.study.plan import plan
from s2txai.study.results import failures_table, write_table

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    wildcards = snakemake.wildcards
    study = plan(snakemake.config, Path(snakemake.scriptdir).resolve().parents[1])
    run = study.runs[wildcards.dataset, wildcards.model, wildcards.task]
    write_table(failures_table(run, snakemake.input), run, Path(snakemake.output[0]))
