"""Snakemake itself killed, called twice, or misled by the clock: nothing is lost."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from s2txai.artifacts import load

pytestmark = [pytest.mark.workflow, pytest.mark.model]

ID = "sns-0880"
RUN = "results/librivox/whisper-tiny.en/asr-en"


def masks_in_store(project):
    [entry] = (project.folder / "results/.cache/smh" / ID).glob("*.npz")
    return int(np.sum(load(entry, "smh")["n_masks"]))


def begin(project, *arguments):
    """Start Snakemake in the background."""
    command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
    return subprocess.Popen(
        [*command, "--configfile", project.configfile],
        cwd=project.folder,
        env={**os.environ, "PYTHONPATH": str(project.folder / "src")},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def test_killed_snakemake_and_a_second_one(project):
    """What docs/workflow.md says: the lock holds, `--unlock` frees it, no mask is lost."""
    project.edit("src/s2txai/steps/masked.py", "CHECKPOINTS = 30.0", "CHECKPOINTS = 0.0")
    project.configure(compute={"batch_size": 4}, smh={"n_masks": 1600})
    target = f"{RUN}/smh/0000"
    master = begin(project, target)
    try:
        deadline = time.monotonic() + 300
        while masks_in_store(project) <= 64:
            assert master.poll() is None, "it ended before it could be killed"
            assert time.monotonic() < deadline
            time.sleep(0.2)
        second = project.snakemake(target)
        assert second.returncode != 0
        assert "--unlock" in second.stdout + second.stderr
        jobs = psutil.Process(master.pid).children(recursive=True)
    finally:
        master.kill()
        master.wait()
    # Its job lives on; a machine that goes down takes it along.
    for job in jobs:
        job.kill()
    psutil.wait_procs(jobs)
    assert master.returncode == -signal.SIGKILL
    kept = masks_in_store(project)
    assert 64 < kept < 1600

    project.configure(smh={"n_masks": 160 + kept // 16 * 16})
    locked = project.snakemake(target)
    assert locked.returncode != 0
    assert "--unlock" in locked.stdout + locked.stderr
    assert project.snakemake("--unlock").returncode == 0
    done = project.snakemake(target)
    assert done.returncode == 0, done.stderr
    told = json.loads((project.folder / target / f"{ID}.job.json").read_text())
    assert told["masks_computed"] == masks_in_store(project) - kept


@pytest.mark.parametrize("hours", [-24 * 365, 24 * 365])
def test_a_clock_that_was_wrong_computes_nothing_again(project, hours):
    """Results dated a year ago, or next year, by a clock that was set right since."""
    target = project.folder / RUN / "smh"
    before = (target / "0000" / f"{ID}.npz").read_bytes()
    moment = time.time() + 3600 * hours
    for path in (project.folder / RUN / "decode").rglob("*"):
        os.utime(path, (moment, moment))
    os.utime(project.folder / RUN / "decode" / "0000", (moment, moment))
    done = project.snakemake(f"{RUN}/smh/0000", f"{RUN}/attention/0000")
    assert done.returncode == 0, done.stderr
    assert "Loading" not in done.stderr
    assert (target / "0000" / f"{ID}.npz").read_bytes() == before
