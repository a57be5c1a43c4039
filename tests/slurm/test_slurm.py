"""The workflow on a cluster: real sbatch, a real model, jobs and masters that are killed."""

import json
import re
import shutil
import subprocess

import numpy as np
import pytest

from s2txai.storage.artifacts import load
from tests.slurm.cluster import (
    active_jobs_of,
    jobs_of,
    run,
    said,
    submitting,
    unlock,
    wait_until,
)
from tests.weights import ROOT

pytestmark = [pytest.mark.slurm, pytest.mark.model]

MASKED = "src/s2txai/steps/masked.py"
RUN = "results/librivox/whisper-tiny.en/asr-en"
MODEL_STEPS = {"decode", "attention", "smx", "smh", "deletion"}
TABLE_STEPS = {
    "transcripts", "aggregate", "correlate", "deletion_curves", "timestamps", "heads",
    "comparisons", "failures", "report",
}  # fmt: skip


def test_every_job_goes_through_sbatch(submitted):
    jobs = jobs_of(submitted)
    ids = {int(found) for found in re.findall(r"SLURM jobid '?(\d+)", said(submitted))}
    assert ids == {job.id for job in jobs}
    assert {job.rule for job in jobs if job.state == "COMPLETED"} == MODEL_STEPS | TABLE_STEPS
    page = (submitted.folder / "results/report/index.html").read_text()
    assert "sns-0880" in page


def test_models_run_where_the_gpus_are_and_tables_where_they_are_not(submitted):
    for job in jobs_of(submitted):
        wanted = ("gpu", 1) if job.rule in MODEL_STEPS else ("cpu", 0)
        assert (job.partition, job.gpus) == wanted, job


def test_the_queue_is_not_held_to_one_gpu(submitted):
    """smx does not wait for attention, as it would with the default profile."""
    log = said(submitted)
    first = [log.index(f"slurm_logs/rule_{rule}/") for rule in ("smx", "smh", "attention")]
    assert "Finished jobid" not in log[min(first) : max(first)]


def test_a_job_killed_for_memory_is_tried_again_with_more(submitted):
    killed, passed = (job for job in jobs_of(submitted) if job.rule == "attention")
    assert (killed.state, killed.memory) == ("FAILED", 300)
    assert (passed.state, passed.memory) == ("COMPLETED", 4000)
    logs = submitted.folder.glob(f".snakemake/slurm_logs/rule_attention/**/{killed.id}.log")
    assert "exceeded memory limit" in "".join(path.read_text() for path in logs)


def masks_in_store(study, step):
    [entry] = (study.folder / "results/.cache" / step / "sns-0880").glob("*.npz")
    return int(np.sum(load(entry, step)["n_masks"]))


def slow_down(project, seconds):
    """Let jobs put masks into the store after each batch, and wait then, however quick the machine.

    A changed source is no reason to run again.
    """
    edited = project.folder / MASKED
    shutil.copy(edited, edited.with_suffix(".kept"))
    project.edit(MASKED, "CHECKPOINTS = 5.0", "CHECKPOINTS = 0.0")
    stored = "self.save(current(), {})\n"
    project.edit(MASKED, stored, f"{stored}            time.sleep({seconds})\n")


def speed_up(project):
    edited = project.folder / MASKED
    edited.with_suffix(".kept").replace(edited)


def test_a_cancelled_job_computes_the_missing_masks_only(study):
    slow_down(study.project, seconds=0.5)
    study.project.configure(compute={"batch_size": 4}, smh={"n_masks": 160})
    with submitting(study, "all_saliency", "--retries", "0") as master:
        wait_until(lambda: masks_in_store(study, "smh") > 40, "more masks in the store")
        [job] = active_jobs_of(study)
        assert job.rule == "smh"
        subprocess.run(["scancel", str(job.id)], check=True)
        assert master.wait(timeout=600) != 0
    wait_until(lambda: not active_jobs_of(study), "the end of the cancelled job")
    kept = masks_in_store(study, "smh")
    assert 32 < kept < 160
    speed_up(study.project)

    assert run(study, "all_saliency") == 0, said(study)
    assert [job.rule for job in jobs_of(study)] == ["smh", "smh"]
    assert masks_in_store(study, "smh") == 160
    told = json.loads((study.folder / RUN / "smh/0000/sns-0880.job.json").read_text())
    assert told["masks_computed"] == 160 - kept
    log = (study.folder / "results/logs/librivox/whisper-tiny.en/asr-en/smh/0000.log").read_text()
    assert f"{kept} masks are in the store already" in log


def test_what_to_do_after_the_master_died(study):
    """The commands of docs/cluster.md, as they stand there."""
    slow_down(study.project, seconds=600)
    study.project.configure(smx={"n_masks": 32})
    with submitting(study, "all_saliency"):
        wait_until(lambda: any(job.state == "RUNNING" for job in jobs_of(study)), "a running job")
    assert run(study, "all_saliency") != 0
    assert "--unlock" in said(study)
    # It lives on, and a rerun would not know it: two jobs would write the same files.
    assert [job.rule for job in active_jobs_of(study)] == ["smx"]

    subprocess.run(
        ["bash", "-euo", "pipefail", "-c", cancel_of_docs()],
        cwd=study.folder,
        check=True,
    )
    wait_until(lambda: not active_jobs_of(study), "the end of stale jobs")
    speed_up(study.project)
    assert unlock(study) == 0, said(study)
    assert run(study, "all_saliency") == 0, said(study)
    assert masks_in_store(study, "smx") == 32


def cancel_of_docs():
    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    [command] = re.findall(r"^squeue .*scancel.*$", page, re.M)
    return command
