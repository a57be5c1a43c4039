"""Time the words of one run and compare them with the alignments of its manifest."""

from typing import TYPE_CHECKING

from s2txai.steps.job import opened
from s2txai.steps.timestamps import OUTPUTS, timestamps_run
from s2txai.study.results import without_failed

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    # Every aligned utterance may have failed; the tables are then empty.
    run = without_failed(job.run.aligned_only(), job.inputs("aggregate"))
    timestamps_run(
        run,
        job.shards(run, "aggregate"),
        job.shards(run, "decode"),
        {name: job.output(name) for name in OUTPUTS},
    )
