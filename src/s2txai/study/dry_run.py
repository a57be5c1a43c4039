"""The jobs that Snakemake itself plans."""

import re
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from s2txai.errors import UserError

_LONGEST_REASON = 400  # characters
_TABLE = re.compile(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", re.MULTILINE)


def planned_jobs(root: Path, configs: Sequence[Path]) -> Counter[str]:
    """Return how many jobs of each rule a study has of which nothing has run, targets left out.

    Parameters
    ----------
    root
        Folder of the Snakefile.
    configs
        Configuration files laid over the default one.

    Raises
    ------
    UserError
        If Snakemake cannot plan the study.
    """
    command = [sys.executable, "-m", "snakemake", "--dry-run", "--forceall", "--nolock"]
    if configs:
        command += ["--configfile", *(str(path) for path in configs)]
    shown = subprocess.run(
        [*command, "--quiet", "rules", "--cores", "1"],
        cwd=root, capture_output=True, text=True, check=False,
    )  # fmt: skip
    table = _TABLE.search(shown.stdout)
    if shown.returncode != 0 or table is None:
        raise UserError(f"Snakemake cannot plan this study: {_reason(shown.stderr + shown.stdout)}")
    counts = {rule: int(n) for rule, n in re.findall(r"(\w+) +(\d+)", table[1])}
    return Counter(
        {rule: n for rule, n in counts.items() if rule != "total" and not rule.startswith("all")}
    )


def _reason(output: str) -> str:
    """Return what Snakemake says of an error, in one line: from where it names one."""
    lines = [line.strip() for line in output.strip().splitlines()]
    first = next((n for n, line in enumerate(lines) if "Error" in line or "Exception" in line), -1)
    return " ".join(lines[first:])[:_LONGEST_REASON]
