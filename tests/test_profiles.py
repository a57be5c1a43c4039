"""The profile for SLURM keeps up with the rules and with the default profile."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
DEFAULT, SLURM = (
    yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text("utf-8"))
    for name in ("default", "slurm")
)


def rules():
    """Return the text of each rule by its name; one that inherits has that of its parent, too."""
    texts = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text("utf-8")
        _, *parts = re.split(r"^(?:use )?rule (\w+)(?: as (\w+) with)?:$", text, flags=re.M)
        for name, child, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            texts[child or name] = texts[name] + body if child else body
    return texts


def test_rules_that_ask_for_a_gpu_go_to_its_partition():
    with_gpu = {name for name, text in rules().items() if "gpu=1" in text}
    assert len(with_gpu) == 7
    assert set(SLURM["set-resources"]) == with_gpu
    partitions = {entry["slurm_partition"] for entry in SLURM["set-resources"].values()}
    assert len(partitions) == 1
    assert SLURM["default-resources"]["slurm_partition"] not in partitions


def test_every_submitted_rule_asks_for_memory_and_minutes_by_attempt():
    for name, text in rules().items():
        # Run where Snakemake does.
        if name in ("fetch_model", "check_failures"):
            continue
        assert re.search(r"mem_mb=JOBS\.by_attempt\(\d+", text), name
        # A model goes on from the store; a partition may have a limit.
        minutes = r"runtime=\d+," if "gpu=1" in text else r"runtime=JOBS\.by_attempt\(\d+"
        assert re.search(minutes, text), name


def test_jobs_run_again_for_the_same_reasons():
    for key in ("rerun-triggers", "rerun-incomplete", "show-failed-logs"):
        assert SLURM[key] == DEFAULT[key]
    # The cap of one machine would let one job of a cluster run at a time.
    assert "resources" not in SLURM


def test_a_cluster_is_told_what_a_machine_need_not_be():
    assert SLURM["executor"] == "slurm"
    assert SLURM["retries"] >= 1
    assert SLURM["keep-going"] is True
    assert SLURM["latency-wait"] >= 30
    assert SLURM["slurm-no-requeue"] is True
    assert SLURM["jobs"] > 1


def test_account_and_partitions_are_in_one_place():
    """Between the two lines; a user need not look below."""
    text = (ROOT / "profiles" / "slurm" / "config.yaml").read_text("utf-8")
    _, yours, rest = re.split(r"^# -{4}.*-{20}$", text, flags=re.M)
    for key in ("slurm_account:", "slurm_partition:"):
        assert key in yours
        assert key not in rest
    assert yours.count("slurm_partition:") == 2
