"""Compare models, tasks and layers over all runs."""

from typing import TYPE_CHECKING

from s2txai.steps.comparisons import comparisons_of_study
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    comparisons_of_study(
        job.inputs("utterances"),
        job.output(),
        pooling=job.params.pooling,
        seed=job.params.seed,
    )
