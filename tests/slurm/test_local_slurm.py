"""The SLURM of the tests, without its packages: what it refuses, and what it clears up."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.slurm import local_slurm


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine with the packages, a root user, and an empty ``/etc/slurm``."""
    monkeypatch.setattr(local_slurm.shutil, "which", lambda program, **_: f"/usr/bin/{program}")
    monkeypatch.setattr(local_slurm.os, "geteuid", lambda: 0)
    monkeypatch.setattr(local_slurm, "ETC", tmp_path)
    monkeypatch.setattr(local_slurm, "_sacct", lambda: None)
    return tmp_path


def test_a_machine_without_the_packages_is_told_what_to_install(machine, monkeypatch):
    assert local_slurm.why_not() == ""
    monkeypatch.setattr(local_slurm.shutil, "which", lambda program, **_: None)
    assert "apt-get install --no-install-recommends slurm-wlm munge" in local_slurm.why_not()


def test_another_user_than_root_cannot(machine, monkeypatch):
    monkeypatch.setattr(local_slurm.os, "geteuid", lambda: 1000)
    assert "root" in local_slurm.why_not()


@pytest.mark.parametrize("there", ["file", "link", "link that leads nowhere"])
def test_a_cluster_is_left_alone(machine, tmp_path, there):
    config = machine / "slurm.conf"
    if there == "file":
        config.touch()
    else:
        target = tmp_path / "shared.conf"
        config.symlink_to(target)
        if there == "link":
            target.touch()
    assert "another SLURM" in local_slurm.why_not()


def test_links_of_a_killed_run_are_no_cluster(machine, tmp_path):
    (machine / "slurm.conf").symlink_to(tmp_path / f"{local_slurm.PREFIX}x" / "slurm.conf")
    assert local_slurm.why_not() == ""


def process(folder, name):
    """Start something that sleeps under a daemon's name."""
    program = folder / name
    shutil.copy(shutil.which("sleep"), program)
    started = subprocess.Popen([program, "600"])
    # Else it stays a zombie, which looks alive.
    threading.Thread(target=started.wait, daemon=True).start()
    return started


def test_daemons_of_a_killed_run_are_stopped_and_no_others(machine, tmp_path):
    root = tmp_path / f"{local_slurm.PREFIX}killed"
    (root / "run").mkdir(parents=True)
    daemon, other = process(tmp_path, "slurmd"), process(tmp_path, "innocent")
    try:
        (root / "run" / "slurmd.node1.pid").write_text(f"{daemon.pid}\n")
        # The daemon of this file has ended, and another process has its number.
        (root / "run" / "slurmd.node2.pid").write_text(f"{other.pid}\n")
        (root / "run" / "munged.pid").write_text("4194999\n")
        (machine / "slurm.conf").symlink_to(root / "slurm.conf")
        while local_slurm.running_program(daemon.pid) != "slurmd":
            time.sleep(0.01)
        local_slurm.stop_leftovers(tmp_path)
        assert daemon.wait(timeout=60) == -signal.SIGTERM
        assert other.poll() is None
        assert not root.exists()
        assert not (machine / "slurm.conf").is_symlink()
    finally:
        for one in (daemon, other):
            one.kill()
            one.wait()


LOCKS = """
import sys
from tests.slurm.local_slurm import lock
lock(sys.argv[1])
print(1, flush=True)
input()
"""


def test_two_runs_do_not_share_a_machine(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", LOCKS, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"1\n"
        with pytest.raises(RuntimeError, match="run on this machine already"):
            local_slurm.lock(tmp_path)
        other.kill()
    # A killed run holds nothing.
    os.close(local_slurm.lock(tmp_path))
