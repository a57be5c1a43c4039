"""Fetch one model."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logger, logging_to
from s2txai.study.fetch_model import fetch_model

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    fetch_model(snakemake.params.entry, Path(snakemake.output[0]), logger)
