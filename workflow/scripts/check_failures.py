"""Fail if an utterance of the study failed."""

from typing import TYPE_CHECKING

from s2txai.steps.check_failures import check_failures
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    check_failures(job.inputs("failures"))
