"""How long Snakemake plans: a study of many utterances, and a finished one run again.

``python -m benchmarks.dag`` makes a manifest of 5,000 utterances that all are one short recording,
asks for three models and four tasks in a scratch copy of the project, and times ``snakemake -n``.
Then it marks a study of about 1,500 jobs as finished (``--touch``) and times the next call, which
has nothing to do. ``--utterances`` and ``--shard-size`` change the first.
"""

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from benchmarks.spes import ROOT

RECORDING = "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"
TARGETS = ["de", "es", "it"]
TASKS = ["asr-en", "st-en-de", "st-en-es", "st-en-it"]
# Suffixes of outputs that are files; others are folders.
FILES = (".csv", ".tsv", ".html", ".json", ".parquet")


def scratch_project(folder: Path) -> None:
    """Copy what Snakemake reads."""
    for name in ("workflow", "config", "profiles", "src"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "Snakefile", folder)


def write_study(folder: Path, n_utterances: int, shard_size: int, models: int, tasks: int) -> None:
    """Write a manifest and a configuration over it.

    All utterances take part in every task; they link to one recording.
    """
    speech = folder / "speech"
    shutil.rmtree(speech, ignore_errors=True)
    speech.mkdir()
    columns = ["id", "path", "language", "transcript"]
    columns += [f"translation_{language}" for language in TARGETS]
    lines = ["\t".join(columns)]
    for number in range(n_utterances):
        (speech / f"{number}.wav").symlink_to(ROOT / RECORDING)
        texts = ["words"] * (1 + len(TARGETS))
        lines.append("\t".join([f"u{number:05d}", f"{number}.wav", "en", *texts]))
    (speech / "manifest.tsv").write_text("\n".join(lines) + "\n")
    entry = {
        "family": "conformer",
        "description": "a stand-in",
        "licence": "none",
        "languages": ["en"],
        "translation_targets": TARGETS,
    }
    weights = folder / "weights"
    weights.mkdir(exist_ok=True)
    names = [f"model{number}" for number in range(models)]
    config = {
        "datasets": {
            "many": {
                "manifest": str(speech / "manifest.tsv"),
                "description": "one recording, many times",
                "licence": "public domain",
            }
        },
        "models": {name: {**entry, "source": {"path": str(weights)}} for name in names},
        "runs": [{"dataset": "many", "models": names, "tasks": TASKS[:tasks]}],
        "shard_size": shard_size,
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(config))


def snakemake(folder: Path, *arguments: str) -> tuple[str, str]:
    """Return how long a call took, and what it printed."""
    started, used = time.perf_counter(), cpu_seconds()
    process = subprocess.run(
        [sys.executable, "-m", "snakemake", "--configfile", "study.yaml", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder / "src")},
        capture_output=True,
        text=True,
        check=False,
    )
    shown = process.stdout + process.stderr
    if process.returncode:
        raise SystemExit(shown)
    seconds, busy = time.perf_counter() - started, cpu_seconds() - used
    return f"{seconds:.1f} s ({busy:.1f} s of CPU)", shown


def cpu_seconds() -> float:
    """Return what children computed so far: beside other work, the clock says little."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return children.ru_utime + children.ru_stime


def n_jobs(shown: str) -> int:
    """Return the number of jobs that a dry run counts."""
    total = re.search(r"^total +(\d+)$", shown, re.M)
    return int(total[1]) if total else 0


def make_outputs(folder: Path, shown: str) -> None:
    """Make the outputs that a dry run names, empty."""
    for names in re.findall(r"Missing output files: ([^;\n]+)", shown):
        for path in (folder / name for name in names.split(", ")):
            if path.suffix in FILES or path.name == ".complete":
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
            else:
                path.mkdir(parents=True, exist_ok=True)


def finish(folder: Path, shown: str) -> None:
    """Let Snakemake take empty outputs for the results of the jobs that a dry run names."""
    make_outputs(folder, shown)
    snakemake(folder, "--cores", "1", "--touch", "--forceall", "--quiet")


def main() -> None:
    """Run both and print a line for each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--utterances", type=int, default=5000)
    parser.add_argument("--shard-size", type=int, default=100)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scratch_project(folder)
        write_study(folder, arguments.utterances, arguments.shard_size, models=3, tasks=4)
        took, shown = snakemake(folder, "--dry-run", "--quiet", "rules")
        print(
            f"plan: {arguments.utterances:,} utterances, 3 models, 4 tasks, shards of "
            f"{arguments.shard_size}: {n_jobs(shown):,} jobs in {took}"
        )
        write_study(folder, 620, 10, models=1, tasks=4)
        _, shown = snakemake(folder, "--dry-run")
        finish(folder, shown)
        took, again = snakemake(folder, "--dry-run")
        if "Nothing to be done" not in again:
            raise SystemExit(again)
        print(f"nothing to do: {n_jobs(shown):,} finished jobs looked through in {took}")


if __name__ == "__main__":
    main()
