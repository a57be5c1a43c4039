"""Snakemake itself killed, called twice, or misled by the clock: nothing is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest

from s2txai.storage.artifacts import load

pytestmark = [pytest.mark.workflow, pytest.mark.model, pytest.mark.slow]

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
    project.edit("src/s2txai/steps/masked.py", "CHECKPOINTS = 5.0", "CHECKPOINTS = 0.0")
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


def date(project, moment):
    """Give the results of the first step another date; None is now."""
    folder = project.folder / RUN / "decode"
    for path in [folder / "0000", *folder.rglob("*")]:
        os.utime(path, None if moment is None else (moment, moment))


YEAR = 365 * 24 * 3600  # s


def test_results_from_before_a_clock_was_set_back(project):
    """Dated in the future, they are refused by Snakemake; touched, they cost nothing again."""
    result = project.folder / RUN / "smh" / "0000" / f"{ID}.npz"
    targets = (f"{RUN}/smh/0000", f"{RUN}/attention/0000")
    before = result.read_bytes()
    date(project, time.time() + YEAR)
    refused = project.snakemake(*targets)
    assert refused.returncode != 0
    assert "clock skew" in refused.stdout + refused.stderr
    date(project, None)
    done = project.snakemake(*targets)
    assert done.returncode == 0, done.stderr
    assert "Loading" not in done.stderr
    assert result.read_bytes() == before


def test_results_from_before_a_clock_was_set_forward(project):
    """Older than the model they were made with, they are made again, from the store."""
    result = project.folder / RUN / "smh" / "0000" / f"{ID}.npz"
    before = result.read_bytes()
    date(project, time.time() - YEAR)
    done = project.snakemake(f"{RUN}/smh/0000")
    assert done.returncode == 0, done.stderr
    assert "Loading" not in done.stderr
    assert result.read_bytes() == before


def test_a_damaged_result_is_mended_as_its_message_says(project):
    """Its twin in the store is damaged with it: both are one file under two names."""
    folder = project.folder / RUN / "smh" / "0000"
    result = folder / f"{ID}.npz"
    intact = result.read_bytes()
    [entry] = (project.folder / "results/.cache/smh" / ID).glob("*.npz")
    for path in (result, entry):  # two files in this copy of the project
        with path.open("r+b") as file:
            file.seek(len(intact) // 2)
            file.write(bytes(64))
    target = f"{RUN}/aggregate/0000"
    refused = project.snakemake("--forcerun", "aggregate", "--until", "aggregate")
    told = refused.stdout + refused.stderr
    assert refused.returncode != 0
    assert f"{RUN}/smh/0000/{ID}.npz" in told
    assert "delete the folder it lies in" in told
    assert "Traceback" not in told
    shutil.rmtree(folder)
    done = project.snakemake(target)
    assert done.returncode == 0, done.stderr
    assert "is damaged or of other work, so the work is done again" in done.stdout + done.stderr
    assert result.read_bytes() == intact
