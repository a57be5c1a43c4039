"""Fail if an utterance of the study failed."""

from pathlib import Path
from typing import TYPE_CHECKING

from s2txai.log import logging_to
from s2txai.study.results import check_failures

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with logging_to(Path(snakemake.log[0])):
    check_failures([Path(path) for path in snakemake.input.failures])
