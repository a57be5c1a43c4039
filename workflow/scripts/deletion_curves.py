"""Score the deletion of one run."""

from typing import TYPE_CHECKING

from s2txai.steps.deletion_curves import OUTPUTS, deletion_curves_run
from s2txai.steps.job import opened

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    run = job.remaining("deletion")
    deletion_curves_run(
        run,
        job.shards(run, "deletion"),
        {name: job.output(name) for name in OUTPUTS},
        text_normalisation=job.params.text_normalisation,
        diacritics=job.params.diacritics,
        comet_checkpoint=next(iter(job.inputs("comet")), None),
        seed=job.params.seed,
    )
