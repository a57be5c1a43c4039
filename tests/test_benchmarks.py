"""The benchmark of a GPU, dry: that it works where there is none, and what it needs to run."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu
from benchmarks.fast import closeness
from benchmarks.gpu import PARTS, TARGETS, Bench, Part, Table, Target, deviations, run_parts
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import N_FOLDS
from s2txai.saliency.statistics import Statistics
from tests.toy import EOS, PROMPT, WORD_FRAMES, HardOfHearing

ROOT = Path(__file__).resolve().parents[1]
WHISPER = ("Whisper tiny.en", "Whisper base")
FAMA = "FAMA small shape"


def cells(text):
    """Return the columns of each row of a table, without its head."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert lines[0] == "| at (s) | what | measured | targets |"
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


@pytest.fixture(scope="module")
def dry(tmp_path_factory):
    """Return the exit status of a dry run, and the rows that it left in its file."""
    out = tmp_path_factory.mktemp("gpu") / "table.md"
    status = gpu.main(["--dry", "--out", str(out)])
    return status, cells(out.read_text())


def measured(rows, what):
    (row,) = [row for row in rows if row[1].startswith(what)]
    return row[2:]


def test_a_dry_run_measures_everything(dry):
    status, rows = dry
    assert status == 0
    names = [row[1] for row in rows if row[1] != "target"]
    expected = ["software", "card", "dry run", f"{WHISPER[0]}: one forward pass"]
    expected += [f"{WHISPER[0]}: sums of 32 masks", f"{WHISPER[0]}: simulated out of memory"]
    expected += [f"{model}: KL in float16" for model in (*WHISPER, FAMA)]
    expected += [f"{model}: SMH" for model in WHISPER]
    for how in ("eager", "compiled"):
        expected += [f"{model}: SMX, exact, float32, {how}" for model in (*WHISPER, FAMA)]
        expected += [f"{model}: SMX, fast, float32, {how}" for model in WHISPER]
    expected += [f"{FAMA}: SMX, exact, float32, eager, attention without cuDNN"]
    for start in expected:
        assert sum(name.startswith(start) for name in names) >= 1, start
    assert len(names) == len(expected)
    assert not any("failed" in row[2] or "skipped" in row[2] for row in rows)


def test_a_dry_run_scores_cheaply(dry):
    for model in WHISPER:
        for how in ("eager", "compiled"):
            text, _ = measured(dry[1], f"{model}: SMX, fast, float32, {how}")
            assert "50 % checked" in text


def test_a_dry_run_says_nothing_of_a_gpu(dry):
    verdicts = {row[2]: row[3] for row in dry[1] if row[1] == "target"}
    assert list(verdicts) == [target.name for target in TARGETS]
    assert verdicts.pop(gpu.HALVING.name) == "met in 1 of 1"
    assert set(verdicts.values()) == {"not measured"}


def test_a_dry_run_compares_sums(dry):
    text, _ = measured(dry[1], f"{WHISPER[0]}: sums of 32 masks in float32")
    assert text.startswith("the same masks; mean score of a segment differs by at most 0.0000 %")


def test_a_batch_that_does_not_fit_is_halved_and_no_mask_lost(dry):
    text, verdict = measured(dry[1], f"{WHISPER[0]}: simulated out of memory above 4 inputs")
    assert text.startswith("batches of 8 became batches of 4; 16 of 16 masks; ")
    assert verdict == "sums after a halved batch within the same tolerance: met"


@pytest.fixture
def bench(tmp_path):
    """Return a bench that writes a table to a file, and a function that reads its rows."""
    out = tmp_path / "table.md"
    table = Table(out)
    return (
        Bench("cpu", tmp_path, tmp_path, table, gpu.DRY, is_dry=True),
        lambda: [row[1:] for row in cells(out.read_text())],
    )


def writes(what, figures=None):
    return lambda bench: bench.table.row(what, "done", figures)


def test_parts_that_do_not_fit_are_named_and_left_out(bench):
    bench, rows = bench
    parts = [
        Part("too long", 50, writes("too long")),
        Part("in the way of a target", 25, writes("in the way of a target")),
        Part("target", 30, writes("target"), has_target=True),
        Part("short", 5, writes("short")),
    ]
    assert run_parts(bench, parts, budget=40.4)
    assert [row[:2] for row in rows()] == [
        [
            "too long",
            "skipped: it may take 50 s, 40 s are left, 30 s of them for parts with a target",
        ],
        [
            "in the way of a target",
            "skipped: it may take 25 s, 40 s are left, 30 s of them for parts with a target",
        ],
        ["target", "done"],
        ["short", "done"],
    ]


def test_what_was_spent_before_counts(tmp_path):
    table = Table(None, started=0.0)
    bench = Bench("cpu", tmp_path, tmp_path, table, gpu.DRY, is_dry=True)
    ran = []
    assert run_parts(bench, [Part("late", 1, ran.append)], budget=480)
    assert ran == []


def test_a_part_that_fails_is_a_row_and_the_others_run(bench):
    bench, rows = bench

    def fails(bench):
        raise ValueError("one | two\nthree")

    assert not run_parts(bench, [Part("first", 1, fails), Part("second", 1, writes("second"))], 9)
    assert [row[:2] for row in rows()] == [
        ["first", "failed: ValueError: one / two three"],
        ["second", "done"],
    ]


def test_a_failure_is_in_the_exit_status(monkeypatch, tmp_path):
    def fails(bench):
        raise ValueError("no")

    monkeypatch.setattr(gpu, "PARTS", [PARTS[0], Part("broken", 1, fails)])
    out = tmp_path / "table.md"
    assert gpu.main(["--dry", "--out", str(out)]) == 1
    assert [row[1] for row in cells(out.read_text())][:4] == [
        "software", "card", "dry run", "broken",
    ]  # fmt: skip


def test_missing_weights_are_named(bench, tmp_path):
    bench, rows = bench
    parts = [part for part in PARTS if part.name == "Whisper base: SMX, exact"]
    assert run_parts(bench, parts, 99)
    assert rows() == [[parts[0].name, f"no weights: {tmp_path / 'whisper-base'} is missing", ""]]


def test_targets_are_judged(bench):
    bench, rows = bench
    least, most = TARGETS[0], next(target for target in TARGETS if not target.at_least)
    bench.table.row("first", "fast", {least: 0.97, most: most.bound / 2})
    bench.table.row("second", "slow", {least: 0.9})
    assert bench.table.summary()
    by_name = {row[1]: row[2] for row in rows() if row[0] == "target"}
    assert rows()[0][2] == f"{least.name}: met; {most.name}: met"
    assert by_name[least.name] == "missed in 1 of 2"
    assert by_name[most.name] == "met in 1 of 1"
    bench.table.row("third", "wrong", {most: float("nan")})
    assert not bench.table.summary()


def test_a_target_may_be_a_most():
    target = Target("error", 0.01, at_least=False)
    assert [target.verdict(figure) for figure in (0.01, 0.02)] == ["met", "missed"]


def planted(counts, means):
    """Return statistics of segments [S] that were occluded ``counts`` times, means [S, I]."""
    S, I = np.shape(means)
    statistics = Statistics.zeros(np.arange(S, dtype=np.int32)[None, :, None], I, 1, S)
    statistics.occluded_count[0] = counts
    statistics.occluded_sum[0] = np.asarray(counts)[:, None] * np.asarray(means)
    return statistics


def test_deviations_of_planted_sums():
    expected = planted([4, 2], [[1.0, 3.0], [2.0, 2.0]])
    other = planted([4, 2], [[1.0, 3.4], [2.0, 2.0]])
    assert deviations(expected, expected) == (0, 0)
    assert deviations(other, expected) == pytest.approx((0.1, 0.4 / 2.5))
    assert deviations(planted([4, 3], np.ones((2, 2))), expected) == (np.inf, np.inf)


@pytest.mark.parametrize(("error", "share"), [(0.002, 0.02), (0.6, 0)])
def test_closeness_of_cheap_scores(error, share):
    loud = np.repeat(np.eye(4, dtype=np.float32)[[3, 1]], WORD_FRAMES, axis=0)
    noise = np.random.default_rng(0).uniform(0, 0.1, loud.shape)
    heard = Heard((0.5 * loud + noise).astype(np.float32), 0.0, PROMPT, [3, 1, EOS])
    design = MaskDesign(400, n_segments=(300,))
    figures = closeness(HardOfHearing(error), heard, design, batch=16)
    assert figures[0] == share
    raw, corrected, bias, corrected_bias = figures[3:]
    if share:
        assert 0.99 < raw < 1
        assert 0.99 < corrected < 1
        assert 0 < abs(bias) < 1
        assert abs(corrected_bias) < 1
    else:
        assert (raw, corrected, bias, corrected_bias) == pytest.approx((1, 1, 0, 0))


def test_without_a_gpu_it_says_so(monkeypatch):
    monkeypatch.setattr(gpu.torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit, match="torch finds no GPU here; --dry shows"):
        gpu.main([])


def test_parts_fit_the_budget_if_those_without_a_target_are_left_out():
    with_target = sum(part.seconds for part in PARTS if part.has_target)
    assert with_target <= 400
    assert PARTS[-1].name == "FAMA small shape: SMX, exact, compiled"


def test_sizes_of_a_dry_run_are_valid_designs():
    assert gpu.DRY.n_compared >= N_FOLDS * len(gpu.FAST_LEVELS)
    assert replace(gpu.DRY, check="auto").n_fast > 2 * gpu.DRY.fast_batch


def test_it_needs_neither_snakemake_nor_what_tests_need():
    program = (
        "import sys\n"
        "for name in ('snakemake', 'pytest', 'hypothesis', 'selenium'):\n"
        "    sys.modules[name] = None\n"  # importing it raises
        "import benchmarks.gpu, s2txai.models.whisper, s2txai.models.conformer\n"
        "assert not any(name.startswith('snakemake.') for name in sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)
