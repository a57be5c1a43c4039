"""List the utterances of one run that a step failed on."""

from typing import TYPE_CHECKING

from s2txai.steps.failures import list_failures
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    list_failures(job.run, job.inputs(), job.output())
