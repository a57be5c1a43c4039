"""Fetch one model."""

from typing import TYPE_CHECKING

from s2txai.log import logger
from s2txai.steps.job import opened
from s2txai.study.fetch_model import fetch_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    fetch_model(job.params.entry, job.output(), logger)
