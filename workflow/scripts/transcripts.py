"""Score the transcripts of one run."""

from typing import TYPE_CHECKING

from s2txai.steps.job import opened
from s2txai.steps.transcripts import transcripts_run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    run = job.remaining("decode")
    transcripts_run(
        run,
        job.shards(run, "decode"),
        {name: job.output(name) for name in ("transcripts", "scores")},
        text_normalisation=job.params.text_normalisation,
        diacritics=job.params.diacritics,
    )
