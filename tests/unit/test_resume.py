"""A job killed with -9 in the middle of a shard, and the run after it."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s2txai.artifacts import load
from tests.toy import WordModel
from tests.unit.test_steps import Study, write_corpus

ROOT = Path(__file__).resolve().parents[2]

# The step in a process of its own, slow enough to be killed in the middle.
CHILD = """
import sys, time
from pathlib import Path
from tests.toy import WordModel
from tests.unit.test_steps import Study, write_corpus
import s2txai.steps.masked as masked

masked.SECONDS_BETWEEN_CHECKPOINTS = 0

class Slow(WordModel):
    def decode(self, states, prompt, tokens):
        time.sleep(0.05)
        return super().decode(states, prompt, tokens)

root = Path(sys.argv[1])
study = Study(root, write_corpus(root), Slow())
getattr(study, sys.argv[2])()
"""


def killed(root, step):
    """Kill the step when the store holds masks of the second utterance; return their number."""
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), step], cwd=ROOT)
    try:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline:
            entries = [load(path) for path in (root / "store" / step).rglob("*.npz")]
            if len(entries) == 2 and min(int(entry["n_masks"].sum()) for entry in entries) >= 64:
                break
            assert child.poll() is None, "the step ended before it could be killed"
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
    finally:
        child.kill()
        child.wait()
    assert child.returncode == -signal.SIGKILL
    return [
        int(load(path)["n_masks"].sum()) for path in sorted((root / "store" / step).rglob("*.npz"))
    ]


@pytest.mark.parametrize("step", ["smx", "smh"])
def test_a_killed_job_continues_bit_for_bit(tmp_path, step):
    utterances = write_corpus(tmp_path)
    study = Study(tmp_path, utterances, WordModel())
    study.decode()
    kept = killed(tmp_path, step)
    # One utterance was done, the other begun.
    assert min(kept) < 600 == max(kept)

    study.handle.model.calls.clear()
    getattr(study, step)()
    left = 600 - min(kept)
    assert study.handle.model.calls["decode"] == left + 1  # and the unperturbed input

    whole = Study(tmp_path / "whole", utterances, WordModel())
    whole.decode()
    getattr(whole, step)()
    assert whole.files() == study.files()
