"""The profile for SLURM keeps up with the rules and with the default profile."""

import re
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
DEFAULT, SLURM = (
    yaml.safe_load((ROOT / "profiles" / name / "config.yaml").read_text("utf-8"))
    for name in ("default", "slurm")
)


def rules():
    """Return the text of each rule by its name."""
    texts = {}
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        _, *pairs = re.split(r"^rule (\w+):$", path.read_text("utf-8"), flags=re.M)
        texts |= dict(zip(pairs[::2], pairs[1::2], strict=True))
    return texts


def test_rules_that_ask_for_a_gpu_go_to_its_partition():
    with_gpu = {name for name, text in rules().items() if "gpu=1" in text}
    assert len(with_gpu) == 7
    assert set(SLURM["set-resources"]) == with_gpu
    partitions = {entry["slurm_partition"] for entry in SLURM["set-resources"].values()}
    assert len(partitions) == 1
    assert SLURM["default-resources"]["slurm_partition"] not in partitions


def test_every_submitted_rule_asks_for_memory_by_attempt_and_for_time():
    for name, text in rules().items():
        # These run where Snakemake does.
        if name not in ("fetch_model", "check_failures"):
            assert re.search(r"mem_mb=memory\(\d+\)", text), name
            assert re.search(r"runtime=\d+", text), name


def test_jobs_run_again_for_the_same_reasons():
    for key in ("rerun-triggers", "rerun-incomplete", "show-failed-logs"):
        assert SLURM[key] == DEFAULT[key]
    # The cap of one machine would let one job of a cluster run at a time.
    assert "resources" not in SLURM
