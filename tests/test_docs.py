"""The documentation says what is there: files, names, arrays, columns, configuration keys."""

import importlib
import re
import tomllib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from s2txai.analysis.sensitivity import MAIN
from s2txai.datasets import Utterance, parse_task
from s2txai.saliency.deletion_maps import map_names
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.methods import METHODS
from s2txai.saliency.pooling import POOLINGS
from s2txai.saliency.statistics import Statistics
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.decode import decode_shard
from s2txai.steps.deletion import DeletionDesign, deletion_shard
from s2txai.steps.deletion_curves import deletion_tables
from s2txai.steps.gradients import gradients_shard
from s2txai.steps.sensitivity import sensitivity_table
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.steps.timestamps import timing_tables
from s2txai.steps.transcripts import transcript_tables
from s2txai.storage.artifacts import Artifact, load, load_shard
from s2txai.storage.store import Store
from s2txai.study.plan import Run
from s2txai.study.results import write_table
from tests.toy import Handle, WordModel, write_speech
from tests.weights import ROOT

PAGES = [
    path
    for path in (
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        ROOT / "SECURITY.md",
        *sorted((ROOT / "docs").glob("*.md")),
    )
    if path.exists()
]
TOP_FOLDERS = {
    path.name for path in ROOT.iterdir() if path.is_dir() and not path.name.startswith(".")
} | {".ci", "benchmarks", "docs", "tests"}
# Made by the workflow, not part of a fresh clone.
GENERATED = ("results", "resources/models")
STEPS = ("decode", "attention", "smx", "smh", *METHODS, "aggregate", "deletion")
TABLES = (
    "decode/transcripts", "decode/scores", "correlate/utterances", "correlate/summary",
    "correlate/reliability", "correlate/mixing", "correlate/best_heads", "correlate/masks",
    "correlate/classes", "deletion/curves", "deletion/auc", "deletion/size",
    "sensitivity/sensitivity", "timestamps/words", "timestamps/utterances", "timestamps/summary",
)  # fmt: skip

# Where the examples of docs/results.md find their files.
ID = "sns-0880"
RUN = Run(
    "librivox", "whisper-tiny.en", parse_task("asr-en"),
    (Utterance(ID, Path(f"{ID}.wav"), "en", "north east west"),), {"0000": [ID]},
)  # fmt: skip


class SinglePrecision(WordModel):
    """The toy, with logits in the type that the interface asks for."""

    def decode(self, states, prompt, tokens):
        return super().decode(states, prompt, tokens).float()


@dataclass(frozen=True)
class Results:
    """What the steps wrote with a toy model."""

    root: Path
    tables: dict[str, pd.DataFrame]

    def artifact(self, step: str) -> Artifact:
        return load(folder(self.root, step) / f"{ID}.npz", step)


def folder(root: Path, step: str) -> Path:
    return root / "results" / "/".join(RUN.key) / step / "0000"


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    root = tmp_path_factory.mktemp("project")
    utterance = Utterance(ID, root / f"{ID}.wav", "en", "north east west")
    write_speech(utterance.path, utterance.transcript)
    model = Handle(SinglePrecision())

    def place(step):
        return Workplace(model, Store(root / "cache"), folder(root, step))

    def made(step):
        return load_shard(folder(root, step), [ID], step)

    masks = {"n_segments": (200,), "n_masks": 32, "p": 0.5, "seed": 0}
    parameters = {
        "grad": masks, "input_x_gradient": {}, "integrated_gradients": {"n_points": 4},
    }  # fmt: skip
    decode_shard(place("decode"), [utterance], RUN.task, beam=1)
    attention_shard(place("attention"), made("decode"))
    smx_shard(place("smx"), made("decode"), MaskDesign(32, n_segments=(200,)), batch_size=8)
    smh_shard(place("smh"), made("decode"), MaskDesign(32, "zero"), batch_size=8)
    for method in METHODS:
        gradients_shard(
            place(method), method, made("decode"), parameters=parameters[method], batch_size=8
        )
    gradients = {method: made(method) for method in METHODS}
    sources = [made(step) for step in ("decode", "attention", "smx", "smh")]
    aggregate_shard(
        folder(root, "aggregate"), *sources, poolings=list(POOLINGS), gradients=gradients
    )
    deletion_shard(
        place("deletion"), made("decode"), made("smx"), made("aggregate"),
        DeletionDesign(1, [0, 50, 100], 0, insertion="decode"),
        poolings=list(POOLINGS), gradients=gradients, batch_size=8,
    )  # fmt: skip
    return Results(root, written_tables(root, utterance, made))


def written_tables(root, utterance, made):
    scoring = {"text_normalisation": "whisper"}
    transcripts, scores = transcript_tables([utterance], made("decode"), RUN.task, **scoring)
    correlations = correlation_tables(made("aggregate"), poolings=list(POOLINGS), rows="all")
    designs = sensitivity_table(
        made("aggregate"), {MAIN: made("smx")}, rows="all", estimator="mean"
    )
    timed = timing_tables([aligned(utterance)], made("aggregate"), made("decode"))
    deletion = deletion_tables([utterance.transcript], made("deletion"), RUN.task, **scoring)
    frames = [
        transcripts, scores, correlations.utterances, correlations.summary,
        correlations.reliability, correlations.mixing, correlations.best_heads, correlations.masks,
        correlations.classes, deletion.curves, deletion.areas, deletion.sizes, designs,
        timed.words, timed.utterances, timed.summary,
    ]  # fmt: skip
    tables = {}
    for name, frame in zip(TABLES, frames, strict=True):
        write_table(frame, RUN, root / f"{name}.csv")
        tables[name] = pd.read_csv(root / f"{name}.csv")
    return tables


def aligned(utterance):
    path = utterance.path.with_suffix(".align.tsv")
    path.write_text("tier\tstart_s\tend_s\tlabel\nword\t0\t0.08\tnorth\n")
    return replace(utterance, alignment=path, alignment_evidence="hand")


def section(page: str, heading: str) -> str:
    """Return the text under a heading, up to the next heading of any level."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    found = re.search(rf"^#+ {re.escape(heading)}\n(.*?)(?=^#+ |\Z)", text, re.M | re.S)
    assert found, f"docs/{page} has no section '{heading}'"
    return found[1]


def table_rows(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def documented_arrays(step: str) -> dict[str, tuple[list[str], str, str]]:
    """Return axes, type and unit by array of a step, each pooling spelled out."""
    shared = (("smx", "smh"), ("input_x_gradient", "integrated_gradients"))
    names = next((names for names in shared if step in names), (step,))
    return arrays_under(" and ".join(f"`{name}`" for name in names))


def arrays_under(heading: str) -> dict[str, tuple[list[str], str, str]]:
    """Return axes, type and unit by array of the table under a heading of docs/results.md."""
    found = {}
    for name, axes, dtype, unit, _ in table_rows(section("results.md", heading)):
        described = ([] if axes == "–" else axes.split(", "), dtype, "" if unit == "–" else unit)
        for pooling in POOLINGS if "<pooling>" in name else [""]:
            found[name.strip("`").replace("<pooling>", pooling)] = described
    return found


@pytest.mark.parametrize("step", STEPS)
def test_arrays_are_those_that_the_step_writes(results, step):
    artifact = results.artifact(step)
    written = {
        name: (
            artifact.meta["axes"][name],
            "str" if array.dtype.kind == "U" else array.dtype.name,
            artifact.meta["units"].get(name, ""),
        )
        for name, array in artifact.arrays.items()
    }
    assert documented_arrays(step) == written


def test_arrays_of_cheap_scores_are_those_that_are_written():
    statistics = Statistics.zeros(np.zeros((1, 4, 2), np.int32), 3, 2, 2)
    exact = statistics.arrays().keys()
    statistics.begin_checks(share=0.1, cheap_pass=0, p=0.5, pilot_moments=np.zeros((6, 3)))
    written = {
        name: (statistics.axes[name], array.dtype.name, statistics.UNITS.get(name, ""))
        for name, array in statistics.arrays().items()
        if name not in exact
    }
    assert arrays_under("`smx` with `encoder: auto`") == written


def test_keys_of_meta_are_those_that_are_written(results):
    keys = {
        name
        for first, _ in table_rows(section("results.md", "`meta`"))
        for name in re.findall("`(.*?)`", first)
    }
    assert keys == set(results.artifact("smx").meta)
    assert keys - {"features_sha256", "hypothesis_sha256", "masks"} == set(
        results.artifact("decode").meta
    )


@pytest.mark.parametrize("table", TABLES)
def test_columns_are_those_that_the_step_writes(results, table):
    columns = list(results.tables[table].columns)
    listed = [
        re.findall("`(.*?)`", first)
        for first, _ in table_rows(section("results.md", f"`{table}.csv`"))
    ]
    assert len(listed) == len(columns)
    assert all(column in names for column, names in zip(columns, listed, strict=True)), listed


def test_columns_of_the_rows_are_those_that_are_written(results):
    table = correlation_tables(
        [results.artifact("aggregate")], poolings=list(POOLINGS), rows="all"
    ).rows
    path = results.root / "rows.parquet"
    write_table(table, RUN, path)
    listed = [
        first.strip("`")
        for first, _ in table_rows(section("results.md", "`correlate/rows.parquet`"))
    ]
    assert listed == list(pd.read_parquet(path).columns)


def test_transcripts_of_translation_have_the_other_column(results):
    utterance = Utterance(ID, results.root / f"{ID}.wav", "it", "", {"en": "north east west"})
    table, _ = transcript_tables(
        [utterance], [results.artifact("decode")], parse_task("st-it-en"),
        text_normalisation="none",
    )  # fmt: skip
    assert table.columns[-1] == "bleu"


def test_signatures_state_the_listed_facts(results):
    for table, facts in table_rows(section("definitions.md", "Signatures")):
        prefix = table.strip("`").removesuffix("*.csv").removesuffix(".csv")
        matching = [frame for name, frame in results.tables.items() if name.startswith(prefix)]
        stated = {
            fact.split(":")[0]
            for frame in matching
            for column in frame.columns[frame.columns.str.startswith("signature")]
            for signature in frame[column]
            for fact in signature.split("|")
        }
        assert stated == {*facts.split(", "), "s2txai"}


def test_examples_in_python_run(results, monkeypatch, capsys):
    monkeypatch.chdir(results.root)
    blocks = re.findall(r"```python\n(.*?)```", section("results.md", "Open a file"), re.S)
    assert len(blocks) == 2
    for block in blocks:
        exec(compile(block, "docs/results.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "north east west" in shown
    assert "Correlation(value=" in shown


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_relative_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(file), f"{page.name} links to {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_paths_exist(page):
    prose = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    for name in re.findall(r"`([\w.*/-]+)`", prose):
        in_repository = name.split("/")[0] in TOP_FOLDERS and "/" in name
        at_root = re.fullmatch(r"[\w.-]+\.(md|toml|lock|cff|yml)", name)
        if (in_repository or at_root) and not name.startswith(GENERATED):
            assert any(ROOT.glob(name.rstrip("/"))), f"{page.name} names {name}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_named_functions_exist(page):
    for name in re.findall(r"`(s2txai(?:\.\w+)+)`", page.read_text(encoding="utf-8")):
        assert resolves(name), f"{page.name} names {name}"


def resolves(name: str) -> bool:
    """Return whether a dotted name is a module, or an attribute within one."""
    parts = name.split(".")
    found = importlib.import_module(parts[0])
    for index, part in enumerate(parts[1:], start=2):
        if not hasattr(found, part):
            try:
                importlib.import_module(".".join(parts[:index]))
            except ModuleNotFoundError:
                return False
        found = getattr(found, part)
    return True


def undescribed(schema: dict, where: str = "") -> list[str]:
    """Return the dotted names of keys without a description."""
    found = []
    for name, inner in schema.get("properties", {}).items():
        key = f"{where}.{name}" if where else name
        found += [] if inner.get("description") else [key]
        found += undescribed(inner, key) + undescribed(inner.get("items", {}), key)
    return found


def test_every_config_key_is_described():
    schema = yaml.safe_load((ROOT / "workflow/schemas/config.schema.yaml").read_text())
    assert undescribed(schema) == []
    assert undescribed({"properties": {"a": {"items": {"properties": {"b": {}}}}}}) == ["a", "a.b"]


def test_manifest_columns_are_those_that_are_read():
    from s2txai.datasets import manifest

    rows = table_rows(section("adding.md", "A dataset"))
    names = [first.strip("`") for first, _ in rows]
    assert names == [
        *manifest._COLUMNS, f"{manifest._TRANSLATION}<language>", *manifest._OPTIONAL,
    ]  # fmt: skip


def test_page_of_models_is_what_the_families_say():
    from s2txai.models.__main__ import page

    written = (ROOT / "docs/models.md").read_text(encoding="utf-8")
    assert written == page(), "run `python -m s2txai.models > docs/models.md`"


def test_poolings_are_defined():
    rows = table_rows(section("definitions.md", "Pooling to encoder steps"))
    assert [first.strip("`") for first, _ in rows] == list(POOLINGS)


def test_maps_of_deletion_are_defined():
    rows = table_rows(section("definitions.md", "Deletion"))
    listed = {name for first, _ in rows for name in re.findall("`(.*?)`", first)}
    assert listed == {"smx_<pooling>", "ca_layer_<layer>", *map_names([], list(METHODS))}


def test_citation_agrees_with_the_package():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == project["version"]
    assert citation["license"] == project["license"]
    assert {"title", "message", "authors"} <= set(citation)
