"""A project folder like a user's: a copy of the workflow's files, in which Snakemake runs."""

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.weights import ROOT


@dataclass(frozen=True, order=True)
class Job:
    """A job of a dry run.

    Attributes
    ----------
    rule
        Its name.
    run
        ``dataset/model/task``; empty for jobs of no run.
    shard
        Its number; empty for jobs of no shard.
    """

    rule: str
    run: str = ""
    shard: str = ""


class Project:
    """A copy of the workflow's files, so that tests may edit them."""

    def __init__(self, folder: Path, configfile: str = "config/test.yaml") -> None:
        self.folder = folder
        self.configfile = configfile

    @classmethod
    def new(cls, folder: Path, configfile: str = "config/test.yaml") -> "Project":
        for name in ("workflow", "config", "profiles", "src"):
            shutil.copytree(ROOT / name, folder / name, ignore=_compiled)
        shutil.copy(ROOT / "Snakefile", folder)
        speech = folder / "resources" / "speech"
        speech.parent.mkdir()
        speech.symlink_to(ROOT / "resources" / "speech")
        return cls(folder, configfile)

    def copy(self, folder: Path) -> "Project":
        """Copy everything with its times, as Snakemake goes by them; share what was fetched."""
        ignore = shutil.ignore_patterns("log", "locks", "__pycache__")
        for entry in self.folder.iterdir():
            if entry.name == "resources":
                (folder / entry.name).symlink_to(entry)
            elif entry.is_dir():
                shutil.copytree(entry, folder / entry.name, symlinks=True, ignore=ignore)
            else:
                shutil.copy2(entry, folder)
        return Project(folder, self.configfile)

    def snakemake(self, *arguments, configfile=None, cwd=None):
        command = [sys.executable, "-m", "snakemake", "--cores", "2", *arguments]
        return subprocess.run(
            [*command, "--configfile", configfile or self.configfile],
            cwd=cwd or self.folder,
            # Before the installed package, so that a test may edit the package too.
            env={**os.environ, "PYTHONPATH": str(self.folder / "src")},
            capture_output=True,
            text=True,
            check=False,
        )

    def planned(self, *arguments, **options) -> set[Job]:
        """Return the jobs that would run."""
        shown = self.snakemake("--dry-run", *arguments, **options)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        return self._jobs(shown.stdout + shown.stderr)

    def counted(self, *arguments, **options) -> dict[str, int]:
        """Return how many jobs of each rule would run, without targets."""
        shown = self.snakemake("--dry-run", *arguments, **options)
        assert shown.returncode == 0, shown.stdout + shown.stderr
        [table] = set(re.findall(r"^job +count\n[- ]+\n((?:\w+ +\d+\n)+)", shown.stdout, re.M))
        counts = {rule: int(n) for rule, n in re.findall(r"(\w+) +(\d+)", table)}
        assert counts.pop("total") == sum(counts.values())
        return {rule: n for rule, n in counts.items() if not rule.startswith("all")}

    def _jobs(self, shown: str) -> set[Job]:
        messages = dict(self._messages())
        jobs = set()
        for line in re.findall(r"^Job \d+: (.+)", shown, re.M):
            [(rule, found)] = [
                (rule, found)
                for rule, pattern in messages.items()
                if (found := pattern.fullmatch(line))
            ]
            values = found.groupdict()
            run = "/".join(values.get(name, "") for name in ("dataset", "model", "task")).strip("/")
            jobs.add(Job(rule, run, values.get("shard", "")))
        # Every job has a message; one without would go unseen here.
        counted = re.search(r"^job +count\n[- ]+\n(?:\w+ +\d+\n)*?total +(\d+)$", shown, re.M)
        targets = re.findall(r"^(?:local)?rule all\w*:$", shown, re.M)
        assert len(jobs) + len(targets) == (int(counted[1]) if counted else 0), shown
        return jobs

    def _messages(self):
        """Yield each rule with what its message looks like, the wildcards being groups."""
        for path in (self.folder / "workflow" / "rules").glob("*.smk"):
            for rule, message in re.findall(
                r"^(?:rule|use rule \w+ as) (\w+)(?: with)?:\n"
                r'(?:(?!^(?:use )?rule ).*\n)*?    message:\n +"(.+)"$',
                path.read_text(),
                re.M,
            ):
                escaped = re.escape(message)
                yield (
                    rule,
                    re.compile(re.sub(r"\\{wildcards\\?\.(\w+)\\}", r"(?P<\1>[^ ,]+)", escaped)),
                )

    @property
    def config(self) -> dict:
        return yaml.safe_load((self.folder / self.configfile).read_text())

    def edit(self, name: str, old: str, new: str) -> None:
        path = self.folder / name
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    def configure(self, **changes) -> None:
        """Change keys of the configuration, those of sections as ``smx={"n_masks": 8}``."""
        path = self.folder / self.configfile
        content = self.config
        for key, value in changes.items():
            if isinstance(value, dict):
                content[key] = {**content.get(key, {}), **value}
            else:
                content[key] = value
        path.write_text(yaml.safe_dump(content))


_compiled = shutil.ignore_patterns("__pycache__", "*.egg-info")
