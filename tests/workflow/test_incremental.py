"""A change repeats what it must and no more: jobs that are planned, and what they compute."""

import re
import shutil

import pytest

from s2txai.storage.artifacts import load
from tests.workflow import table

pytestmark = [pytest.mark.workflow, pytest.mark.model]

RUN = "librivox/whisper-tiny.en/asr-en"
OLD, NEW = "sns-0880", "sns-0870"  # the new one comes first in the manifest


@pytest.fixture(scope="module")
def longer(finished, tmp_path_factory):
    """The finished project, an utterance inserted before the other, its saliency computed."""
    project = finished.copy(tmp_path_factory.mktemp("longer"))
    project.configure(runs=[run_of(NEW, OLD)])
    project.computed = project.snakemake("all_saliency")
    assert project.computed.returncode == 0, project.computed.stderr
    return project


def run_of(*utterances):
    return {
        "dataset": "librivox", "models": ["whisper-tiny.en"], "tasks": ["asr-en"],
        "utterances": list(utterances),
    }  # fmt: skip


def entries(project):
    """Return the entries of the store with their times."""
    store = project.folder / "results" / ".cache"
    return {path.relative_to(store): path.stat().st_mtime_ns for path in store.rglob("*.npz")}


def names(project, step, shard):
    return {path.stem for path in (project.folder / "results" / RUN / step / shard).glob("*.npz")}


def log(project, step, shard="0000"):
    return (project.folder / "results" / "logs" / RUN / step / f"{shard}.log").read_text()


@pytest.mark.slow
def test_the_table_of_the_docs_is_what_snakemake_plans(tmp_path):
    """When this fails and the new plan is right, run ``python -m tests.workflow.table``."""
    assert table.written() == table.measure(tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        "the project folder is moved",
        "a comment or code in `workflow/scripts/`",
        "a pooling more in `aggregate.poolings`",
        "a larger `smh.n_masks`",
    ],
)
def test_a_real_run_leads_to_the_plans_of_the_table(project, change):
    """The table pretends that jobs ran; here they did, with one shard."""
    [case] = [case for case in table.CASES if case.change == change]
    [line] = [line for line in table.written() if line.startswith(f"| {change} |")]
    case.apply(project)
    cell = line.split("|")[2].strip()
    planned = {job for job in project.planned() if job.rule != "timestamps"}
    # The table's recordings have one shard more, and no alignments.
    assert table.describe(planned, RUN) == cell.replace("0000, 0001", "0000")


def test_an_inserted_utterance_is_all_that_is_computed(finished, longer):
    before, after = entries(finished), entries(longer)
    assert before.items() <= after.items()
    new = sorted(path.parts[:2] for path in after.keys() - before.keys())
    assert new == [("decode", NEW), ("smh", NEW), ("smx", NEW)]
    for step in ("smx", "smh"):
        assert f"{step} {NEW}:" in log(longer, step)
        assert f"{step} {OLD}:" not in log(longer, step)
        assert names(longer, step, "0000") == {NEW, OLD}


def test_another_shard_size_loads_no_model(longer, tmp_path):
    project = longer.copy(tmp_path)
    project.configure(shard_size=1)
    done = project.snakemake(*(f"results/{RUN}/smx/{shard}" for shard in ("0000", "0001")))
    assert done.returncode == 0, done.stderr
    assert "Loading" in longer.computed.stderr
    assert "Loading" not in done.stderr
    assert entries(project) == entries(longer)
    # What another cut of the manifest left there is gone.
    for step in ("decode", "smx"):
        assert [names(project, step, shard) for shard in ("0000", "0001")] == [{NEW}, {OLD}]


def test_more_masks_are_added_to_those_that_are_there(project):
    project.configure(smh={"n_masks": 96})
    done = project.snakemake(f"results/{RUN}/smh/0000")
    assert done.returncode == 0, done.stderr
    assert f"smh {OLD}: 64 masks are in the store already" in log(project, "smh")
    assert re.search(rf"smh {OLD}: 32 masks in ", log(project, "smh"))
    artifact = load(project.folder / "results" / RUN / "smh" / "0000" / f"{OLD}.npz", "smh")
    assert artifact["n_masks"].sum() == 96


def test_lost_results_come_back_from_the_store(project):
    """Deleting results but not the store costs no forward pass: the model is never loaded."""
    lost = project.folder / "results" / RUN / "smh"
    before = load(lost / "0000" / f"{OLD}.npz").arrays
    shutil.rmtree(lost)
    done = project.snakemake(f"results/{RUN}/smh/0000")
    assert done.returncode == 0, done.stderr
    assert "Loading" not in done.stderr
    after = load(lost / "0000" / f"{OLD}.npz").arrays
    assert before.keys() == after.keys()
    assert all((before[name] == after[name]).all() for name in before)
