"""A study whose jobs are submitted to SLURM, and what SLURM says about them."""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.workflow.project import Project

# Without accounting, and quicker than on a cluster; else the profile as it is.
HERE = ("--slurm-init-seconds-before-status-checks", "2", "--latency-wait", "10")
ACTIVE = ("PENDING", "RUNNING", "COMPLETING")


@dataclass(frozen=True)
class Study:
    """A project, and the folder in which it is started, as docs/cluster.md says.

    Attributes
    ----------
    project
        Its files.
    """

    project: Project

    @property
    def folder(self) -> Path:
        return self.project.folder / "study"

    def arguments(self) -> list[str]:
        project = self.project.folder
        return [
            "--snakefile", str(project / "Snakefile"),
            "--configfile", str(project / self.project.configfile),
        ]  # fmt: skip

    def profile(self) -> list[str]:
        return ["--workflow-profile", str(self.project.folder / "profiles" / "slurm")]


@dataclass(frozen=True)
class SlurmJob:
    """A job as SLURM knows it.

    Attributes
    ----------
    id, rule, state, partition, memory
        Of the job; memory in MB.
    gpus
        How many it was given.
    """

    id: int
    rule: str
    state: str
    partition: str
    memory: int
    gpus: int


def jobs_of(study: Study) -> list[SlurmJob]:
    """Return all jobs that were submitted from its folder, in order."""
    shown = subprocess.run(
        ["scontrol", "show", "job", "-o"], capture_output=True, text=True, check=False
    )
    facts = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in shown.stdout.splitlines()]
    ours = [fact for fact in facts if fact.get("WorkDir") == str(study.folder)]
    return sorted((_job(fact) for fact in ours), key=lambda job: job.id)


def _job(fact: dict[str, str]) -> SlurmJob:
    gpus = re.search(r"gres[:/]gpu[:=](\d+)", fact.get("TresPerJob", ""))
    memory, unit = re.fullmatch(r"([\d.]+)([MG])", fact["MinMemoryNode"]).groups()
    return SlurmJob(
        int(fact["JobId"]),
        re.match(r"rule_(\w+?)(?:_wildcards|$)", fact["Comment"])[1],
        fact["JobState"],
        fact["Partition"],
        round(float(memory) * {"M": 1, "G": 1024}[unit]),
        int(gpus[1]) if gpus else 0,
    )


def active_jobs_of(study: Study) -> list[SlurmJob]:
    return [job for job in jobs_of(study) if job.state in ACTIVE]


@contextlib.contextmanager
def running(study: Study, *arguments: str) -> Iterator[subprocess.Popen]:
    """Start Snakemake; what it says goes to ``master.log``. None outlives the block.

    It is killed for good: a Snakemake that lost its jobs ignores SIGTERM. And it is killed with the
    tests, or it would submit to the SLURM of the next run.
    """
    snakemake = [sys.executable, "-m", "snakemake"]
    with (study.folder / "master.log").open("w") as log:
        master = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", *snakemake, *study.arguments(), *arguments],
            cwd=study.folder,
            env={**os.environ, "PYTHONPATH": str(study.project.folder / "src")},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        yield master
    finally:
        master.kill()
        master.wait()


def submitting(study: Study, *arguments: str) -> contextlib.AbstractContextManager:
    """Start a Snakemake that submits its jobs."""
    return running(study, *study.profile(), *HERE, *arguments)


def run(study: Study, *arguments: str, seconds: int = 1200) -> int:
    """Submit, and wait for the end; return the exit status."""
    with submitting(study, *arguments) as master:
        return master.wait(timeout=seconds)


def unlock(study: Study) -> int:
    """Take the lock away, as docs/cluster.md says: without the profile."""
    with running(study, "--unlock") as snakemake:
        return snakemake.wait(timeout=300)


def said(study: Study) -> str:
    return (study.folder / "master.log").read_text()


def wait_until(condition: Callable[[], object], what: str, seconds: int = 600) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.2)
