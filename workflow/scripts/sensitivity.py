"""Compare the designs of the perturbation over one run."""

from typing import TYPE_CHECKING

from s2txai.analysis.sensitivity import MAIN
from s2txai.steps.job import opened
from s2txai.steps.sensitivity import sensitivity_run

if TYPE_CHECKING:
    from snakemake.iocontainers import snakemake

with opened(snakemake) as job:
    # The inputs of a design have its name; see the rule.
    inputs = {MAIN: "smx"} | {name: f"design {name}" for name in job.params.designs}
    run = job.remaining("aggregate", *inputs.values())
    sensitivity_run(
        run,
        job.shards(run, "aggregate"),
        {name: job.shards(run, source, "smx") for name, source in inputs.items()},
        job.output(),
        rows=job.params.rows,
        estimator=job.params.estimator,
    )
