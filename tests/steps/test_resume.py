"""A job killed with -9 in the middle of a shard, and the run after it."""

import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from s2txai.storage.artifacts import load
from tests.studies import Study, write_corpus
from tests.toy import HardOfHearing, WordModel

ROOT = Path(__file__).resolve().parents[2]

# The step in a process of its own, slow enough to be killed in the middle.
CHILD = """
import sys, time
from pathlib import Path
from tests.toy import WordModel
from tests.studies import Study, write_corpus
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


# The same with most masks scored cheaply.
CHEAP_CHILD = (
    CHILD.replace("WordModel", "HardOfHearing")
    .replace("getattr(study, sys.argv[2])()", "study.smx(encoder='auto', check=0.1)")
    .replace(
        "super().decode(states, prompt, tokens)",
        "super().decode(states, prompt, tokens)\n"
        "    def _logits(self, states, n_rows):\n"
        "        time.sleep(0.02)\n"
        "        return super()._logits(states, n_rows)",
    )
    .replace("Slow()", "Slow(error=0.005)")
)


def killed(root, step, program=CHILD):
    """Kill the step when the store holds masks of the second utterance; return their number."""
    child = subprocess.Popen([sys.executable, "-c", program, str(root), step], cwd=ROOT)
    try:
        deadline = time.monotonic() + 300
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


# The step in a process that may write no file larger than so many bytes.
CRAMPED = """
import logging, resource, signal, sys
from pathlib import Path
from tests.toy import WordModel
from tests.studies import Study, write_corpus
from s2txai.log import logging_to

root = Path(sys.argv[1])
study = Study(root, write_corpus(root), WordModel())
largest = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
with logging_to(root / "log"):
    getattr(study, sys.argv[2])()
"""


@pytest.mark.parametrize("step", ["decode", "smx"])
def test_a_full_disk_is_one_sentence_and_costs_nothing_that_was_done(tmp_path, step):
    utterances = write_corpus(tmp_path)
    study = Study(tmp_path, utterances, WordModel())
    if step == "smx":
        study.decode()
    whole = Study(tmp_path / "whole", utterances, WordModel())
    whole.decode()
    if step == "smx":
        whole.smx()
    sizes = {path.stem: path.stat().st_size for path in whole.place(step).output.glob("*.npz")}
    small, large = sorted(sizes, key=sizes.get)
    # There is room for one of the two.
    limit = (sizes[small] + sizes[large]) // 2
    command = [sys.executable, "-c", CRAMPED, str(tmp_path), step, str(limit)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "There is no room for" in done.stderr
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.rglob("*.partial"))
    for path in (tmp_path / "store" / step).rglob("*.npz"):
        load(path, step)  # nothing is there by half
    # With room, only what was not done is done.
    getattr(study, step)()
    assert study.files() == whole.files()


def test_two_jobs_at_once_write_the_same(tmp_path):
    """As after ``kill -9`` of Snakemake, whose job lives on beside that of the next run."""
    study = Study(tmp_path, write_corpus(tmp_path), WordModel())
    study.decode()
    command = [sys.executable, "-c", CHILD, str(tmp_path), "smh"]
    children = [subprocess.Popen(command, cwd=ROOT) for _ in range(2)]
    assert [child.wait(timeout=300) for child in children] == [0, 0]
    whole = Study(tmp_path / "whole", study.utterances, WordModel())
    whole.decode()
    whole.smh()
    assert study.files() == whole.files()
    assert not list(tmp_path.rglob("*.partial"))


CLOCKS = {
    "goes back": lambda told: -3600.0 * told,
    "stands still": lambda told: 0.0,
    "leaps": lambda told: 1e9 * told,
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_a_clock_that_jumps_changes_nothing(tmp_path, monkeypatch, clock):
    """Neither that of the day nor the one that only counts, which stands still in a sleep."""
    study = Study(tmp_path, write_corpus(tmp_path), WordModel())
    whole = Study(tmp_path / "whole", study.utterances, WordModel())
    for step in ("decode", "smx", "smh"):
        getattr(whole, step)()
    ticks = itertools.count()
    monkeypatch.setattr(time, "time", lambda: CLOCKS[clock](next(ticks)))
    if clock != "goes back":  # which it never does
        monkeypatch.setattr(time, "monotonic", lambda: CLOCKS[clock](next(ticks)))
    for step in ("decode", "smx", "smh"):
        getattr(study, step)()
    assert study.files() == whole.files()
    told = [json.loads(path.read_text()) for path in tmp_path.rglob("results/**/*.job.json")]
    assert all(one["seconds"] >= 0 for one in told)


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


def test_a_killed_job_with_cheap_scores_continues_bit_for_bit(tmp_path):
    utterances = write_corpus(tmp_path)
    study = Study(tmp_path, utterances, HardOfHearing(error=0.005))
    study.decode()
    kept = killed(tmp_path, "smx", CHEAP_CHILD)
    assert min(kept) < 600 == max(kept)

    study.handle.model.calls.clear()
    study.smx(encoder="auto", check=0.1)
    # The utterance that was begun goes on as the pilot decided, without another one.
    assert study.handle.model.calls["cheap"] == 600 - min(kept)

    whole = Study(tmp_path / "whole", utterances, HardOfHearing(error=0.005))
    whole.decode()
    whole.smx(encoder="auto", check=0.1)
    assert whole.files() == study.files()
    for artifact in study.read("smx"):
        assert artifact.meta["masks"]["encoder"] == "cheap"
