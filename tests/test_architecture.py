"""The package's folders import downwards only, as CONTRIBUTING says, and names mean one thing."""

import ast
import importlib
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "s2txai"

LEAVES = {"errors", "log", "registry", "hashing", "wording"}
# What a folder may import beside itself and the leaves.
ALLOWED = {
    "datasets": set(),
    "models": {"datasets"},
    "saliency": {"models", "datasets"},
    "analysis": {"saliency", "models", "datasets"},
    "storage": {"saliency", "models", "datasets"},
    "study": {"storage", "saliency", "models", "datasets"},
    "steps": {"study", "storage", "analysis", "saliency", "models", "datasets"},
    "report": {"study", "storage", "analysis", "saliency", "models", "datasets"},
}
# Modules on top of all folders.
TOP = {"__init__", "__main__", "api", "cli"}

# Participles and the like, which say nothing of a value.
VAGUE = {"found", "told", "stated", "made", "one", "known", "chosen", "asked", "wanted"}

# What Snakemake imports while it plans.
PLANNING = (
    "s2txai",
    "s2txai.study.plan",
    "s2txai.study.config",
    "s2txai.study.fetch_model",
    "s2txai.storage.versions",
    "s2txai.storage.failures",
    "s2txai.models.families",
    "s2txai.saliency.methods",
    "s2txai.saliency.estimators",
    "s2txai.saliency.pooling",
    "s2txai.saliency.aggregation",
    "s2txai.saliency.occluded_values",
    "s2txai.saliency.correlation",
)

FILES = sorted(PACKAGE.rglob("*.py"))


def imports(path: Path) -> set[str]:
    """Return the modules of the package that a file imports, as ``folder`` or ``module``."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path} imports relatively"
            modules = {"s2txai"} if node.module == "s2txai" else set()
            names |= {f"{node.module}.{alias.name}" for alias in node.names if modules}
            names |= {str(node.module)} - modules
    parts = [name.split(".") for name in names if name.split(".")[0] == "s2txai"]
    return {part[1] for part in parts if len(part) > 1 and not part[1].startswith("__")}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_folders_import_downwards(path):
    first = path.relative_to(PACKAGE).parts[0]
    if first.removesuffix(".py") in TOP:
        return
    if first.removesuffix(".py") in LEAVES:
        allowed = LEAVES
    else:
        assert first in ALLOWED, f"{path} is in no folder that CONTRIBUTING names"
        allowed = ALLOWED[first] | LEAVES | {first}
    assert imports(path) <= allowed


def test_an_import_that_climbs_is_seen(tmp_path):
    file = tmp_path / "climbing.py"
    file.write_text(
        "from s2txai import cli\nfrom s2txai.steps.job import Job\nimport s2txai.study.plan\n"
    )
    assert imports(file) == {"cli", "steps", "study"}


def test_no_module_name_occurs_twice():
    names = Counter(
        path.stem
        for path in FILES
        if "steps" not in path.relative_to(PACKAGE).parts and not path.stem.startswith("__")
    )
    assert [name for name, n in names.items() if n > 1] == []


def rules() -> set[str]:
    text = "\n".join(
        file.read_text(encoding="utf-8") for file in (ROOT / "workflow" / "rules").glob("*.smk")
    )
    return set(re.findall(r"^rule (\w+):", text, re.MULTILINE))


def test_a_step_has_one_name():
    scripts = {file.stem for file in (ROOT / "workflow" / "scripts").glob("*.py")}
    assert rules() == scripts
    files = {file.stem for file in (ROOT / "workflow" / "rules").glob("*.smk")}
    assert rules() <= files
    modules = {file.stem for file in (PACKAGE / "steps").glob("*.py")}
    # The page is a package of its own; models are fetched by the study.
    steps = rules() - {"report", "fetch_model"}
    assert steps <= modules
    tests = {file.stem.removeprefix("test_") for file in (ROOT / "tests" / "steps").glob("test_*")}
    assert steps <= tests


def test_steps_hold_no_other_modules_than_steps_and_their_helpers():
    modules = {file.stem for file in (PACKAGE / "steps").glob("*.py")} - rules()
    assert modules == {"__init__", "job", "masked", "plain", "shard"}


STEP_FILES = [path for path in FILES if path.parent.name == "steps"]


@pytest.mark.parametrize("path", STEP_FILES, ids=lambda path: path.stem)
def test_a_step_imports_no_other_step(path):
    text = path.read_text(encoding="utf-8")
    imported = set(re.findall(r"^ *from s2txai\.steps\.(\w+) import", text, re.MULTILINE))
    imported |= set(re.findall(r"^ *import s2txai\.steps\.(\w+)", text, re.MULTILINE))
    assert imported <= {"job", "masked", "plain", "shard"}
    assert "from s2txai.steps import" not in text


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_names_are_nouns(path):
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
    assert {name for name in names if name.strip("_") in VAGUE} == set()


def test_planning_imports_no_torch():
    code = f"import sys\nfor name in {PLANNING!r}: __import__(name)\nprint('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


WHERE = ROOT / "CONTRIBUTING.md"


def places() -> list[tuple[str, str]]:
    """Return the rows of the table "where is ...?": question and what answers it."""
    text = WHERE.read_text(encoding="utf-8")
    section = text.split("## Where is …?")[1].split("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \| `([^`]+)` \|$", section, re.MULTILINE)
    return [(question.strip(), place) for question, place in rows]


def test_the_table_of_places_has_twenty_questions():
    assert len(places()) >= 20


@pytest.mark.parametrize(("question", "place"), places())
def test_what_the_table_of_places_names_is_there(question, place):
    if "/" in place:
        assert (ROOT / place).exists()
        return
    module, name = place.rsplit(".", 1)
    assert hasattr(importlib.import_module(module), name)
