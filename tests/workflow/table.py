"""The table of docs/workflow.md: what Snakemake plans after a change.

``python -m tests.workflow.table`` measures it and writes it there. Outputs are empty files that
Snakemake holds for results (``--touch``), since planning looks at their times and its own records
only; tests/workflow/test_incremental.py compares that with a run that did happen.
"""

import os
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import yaml

from benchmarks.dag import make_outputs
from tests.weights import ROOT
from tests.workflow.project import Job, Project

PAGE = ROOT / "docs" / "workflow.md"
BEGIN, END = "<!-- table: begin -->\n", "<!-- table: end -->\n"

RUN = "speech/whisper-base/asr-en"
LOCAL_RUN = "speech/local/asr-en"
MANIFEST = "speech/manifest.tsv"
STEPS = ("decode", "attention", "smx", "smh", "aggregate", "deletion")
OPTIONAL_STEPS = ("gradients", "smx_design")
TABLES = ("transcripts", "correlate", "heads", "deletion_curves")
OPTIONAL_TABLES = ("sensitivity", "timestamps")

SPEECH = ROOT / "resources" / "speech" / "librivox"
ROWS = (
    ("one", "0870", "en", "and mister john dashwood had then leisure", ""),
    ("two", "0880", "en", "he was not an ill disposed young man", ""),
    ("three", "0890", "en", "unless to be rather cold hearted", ""),
    ("quattro", "0920", "it", "era un buon giovane", "he was a good young man"),
)


@dataclass(frozen=True)
class Case:
    """A change, and what follows from it.

    Attributes
    ----------
    change
        As the table says it.
    apply
        Does it to a finished project.
    computed
        What the jobs compute, as the table says it; the rest they find in the store.
    local
        Whether the project has shards of one utterance and a model on this machine, instead of
        shards of two and a model from Python packages.
    """

    change: str
    apply: Callable[[Project], None]
    computed: str
    local: bool = False


def config(**changes):
    return lambda project: project.configure(**changes)


def edited(name, old, new):
    return lambda project: project.edit(name, old, new)


def insert(position):
    """Return a change that gives the manifest a row at a position among the English rows."""

    def apply(project):
        shutil.copy(_recording("0930"), project.folder / "speech" / "new.wav")
        path = project.folder / MANIFEST
        lines = path.read_text().splitlines(keepends=True)
        lines.insert(1 + position, "new\tnew.wav\ten\the might even have been made amiable\t\n")
        path.write_text("".join(lines))

    return apply


def remove(name):
    def apply(project):
        path = project.folder / MANIFEST
        lines = path.read_text().splitlines(keepends=True)
        path.write_text("".join(line for line in lines if not line.startswith(f"{name}\t")))

    return apply


def align(project):
    """Say when the words of the first utterance are said."""
    words = "word\t0.2\t0.4\tand\n"
    (project.folder / "speech" / "one.tsv").write_text(f"tier\tstart_s\tend_s\tlabel\n{words}")
    path = project.folder / MANIFEST
    header, first, *others = path.read_text().splitlines()
    lines = [f"{header}\talignment\talignment_evidence", f"{first}\tone.tsv\thand"]
    path.write_text("\n".join([*lines, *(f"{line}\t\t" for line in others)]) + "\n")


def record_again(project):
    shutil.copy(_recording("0930"), project.folder / "speech" / "two.wav")


def touch_audio(project):
    for path in (project.folder / "speech").glob("*.wav"):
        path.touch()


def move_audio(project):
    (project.folder / "speech" / "two.wav").rename(project.folder / "speech" / "second.wav")
    project.edit(MANIFEST, "two.wav", "second.wav")


def replace_weights(project):
    """Put other weights into the model's folder, dated before the old ones."""
    weights = Path(project.config["models"]["local"]["source"]["path"]) / "model.bin"
    weights.write_bytes(b"other weights")
    os.utime(weights, (0, 0))


def reorder(project):
    path = project.folder / project.configfile
    path.write_text(yaml.safe_dump(_reversed(project.config), sort_keys=False))


def _reversed(value):
    if not isinstance(value, dict):
        return value
    return {key: _reversed(value[key]) for key in reversed(value)}


def lose_smh(project):
    shutil.rmtree(project.folder / "results" / RUN / "smh")


def runs(*models, tasks=("asr-en",), **more):
    run = {"dataset": "speech", "models": list(models), "tasks": list(tasks)}
    return config(runs=[run | more])


NOTHING = "nothing"
CASES = (
    Case("the project folder is moved", lambda project: None, NOTHING),
    Case("comments and order of keys in a configuration", reorder, NOTHING),
    Case("a recording is touched", touch_audio, NOTHING),
    Case("a recording is moved, and the manifest says so", move_audio, NOTHING),
    Case(
        "a comment or code in `workflow/scripts/`",
        edited("workflow/scripts/smx.py", '"""Saliency', '# a remark\n"""Saliency'), NOTHING,
    ),
    Case(
        "code in `src/s2txai/`, its version in `versions.py` unchanged",
        edited("src/s2txai/saliency/scores.py", '"""', '# a remark\n"""'), NOTHING,
    ),
    Case(
        "code in `src/s2txai/`, and the version of `smx` raised",
        edited("src/s2txai/storage/versions.py", '"smx": ', '"smx": 1'),  # 1 becomes 11
        "all masks of SMX; deletion by its maps",
    ),
    Case(
        "the description of a model",
        edited("config/models.yaml", "OpenAI Whisper base", "Whisper base by OpenAI"), NOTHING,
    ),
    Case("`compute.batch_size` or `compute.device`", config(compute={"batch_size": 4}), NOTHING),
    Case(
        "`compute.precision`", config(compute={"precision": "bfloat16"}), "everything",
    ),
    Case(
        "a reference text",
        edited(MANIFEST, "he was not an ill", "he was not a very ill"), "the scores",
    ),
    Case("an alignment of an utterance", align, "the word timestamps"),
    Case("`text_normalisation`", config(text_normalisation="none"), "the scores"),
    Case("`correlate.rows`", config(correlate={"rows": "text"}), "the correlations"),
    Case(
        "a pooling more in `aggregate.poolings`",
        config(aggregate={"poolings": ["avg2d", "max_freq_avg_time", "max2d"]}),
        "the maps; deletion by those of the new pooling",
    ),
    Case(
        "a layer more in `layers` of a run", runs("whisper-base", layers=[0]),
        "deletion by its attention",
    ),
    Case(
        "a larger `smx.n_masks`", config(smx={"n_masks": 720}),
        "the additional masks; deletion by the maps of SMX",
    ),
    Case("a larger `smh.n_masks`", config(smh={"n_masks": 3000}), "the additional masks"),
    Case(
        "a smaller `smh.n_masks`", config(smh={"n_masks": 100}),
        "nothing: results keep the masks that they have",
    ),
    Case(
        "`smx.n_segments` or `smx.p`", config(smx={"n_segments": [50]}),
        "all masks of SMX; deletion by its maps",
    ),
    Case(
        "`smx.encoder` or `smx.check`", config(smx={"encoder": "exact"}),
        "all masks of SMX; deletion by its maps",
    ),
    Case(
        "`smx.estimator`", config(smx={"estimator": "loglinear"}),
        "all masks of SMX, since only loglinear keeps logarithms; deletion by its maps",
    ),
    Case(
        "a design more in `sensitivity`", config(sensitivity=[{"p": 0.1}]),
        "the masks of the design",
    ),
    Case(
        "a method more in `gradient.methods`", config(gradient={"methods": ["input_x_gradient"]}),
        "the gradients; deletion by their map",
    ),
    Case("`seed`", config(seed=1), "all masks; the deletion"),
    Case(
        "`decode.beam`", config(decode={"beam": 2}),
        "the hypotheses; attention, masks and deletion of those that differ",
    ),
    Case("`deletion.step` or `deletion.beam`", config(deletion={"step": 10}), "the deletion"),
    Case("`deletion.insertion`", config(deletion={"insertion": "decode"}), "the insertion"),
    Case("`shard_size`", config(shard_size=1), NOTHING),
    Case(
        "results of a step are deleted, not the store", lose_smh,
        "nothing; `snakemake all_saliency` links them again",
    ),
    Case("another recording under an old id", record_again, "this utterance"),
    Case("an utterance more, at the end", insert(3), "the new utterance"),
    Case("an utterance more, as the second", insert(1), "the new utterance"),
    Case("the second utterance is removed", remove("two"), NOTHING),
    Case(
        "an utterance more, at the end; shards of one", insert(3), "the new utterance", local=True
    ),
    Case(
        "an utterance more, as the second; shards of one", insert(1), "the new utterance",
        local=True,
    ),
    Case("the second utterance is removed; shards of one", remove("two"), NOTHING, local=True),
    Case("a model more", runs("whisper-base", "whisper-tiny.en"), "the new run"),
    Case("a task more", runs("whisper-base", tasks=["asr-en", "st-it-en"]), "the new run"),
    Case(
        "weights in a folder of this machine are replaced, even by older files; shards of one",
        replace_weights, "everything", local=True,
    ),
)  # fmt: skip


def measure(folder: Path) -> list[str]:
    """Return the lines of the table, working in an empty folder."""
    with ThreadPoolExecutor(2) as pool:
        kinds = (False, True)
        places = [folder / f"finished{number}" for number in range(2)]
        finished = dict(zip(kinds, pool.map(finished_project, places, kinds), strict=True))

    def jobs(number: int) -> str:
        case = CASES[number]
        project = finished[case.local].copy(_made(folder / f"case{number}"))
        case.apply(project)
        run = LOCAL_RUN if case.local else RUN
        return describe(project.planned(), run)

    # The model's folder is not copied, so it is changed when all others are done.
    together = [number for number, case in enumerate(CASES) if case.apply is not replace_weights]
    with ThreadPoolExecutor(2) as pool:
        cells = dict(zip(together, pool.map(jobs, together), strict=True))
    lines = ["| change | jobs that run | what they compute |", "|---|---|---|"]
    for number, case in enumerate(CASES):
        cell = cells[number] if number in cells else jobs(number)
        lines.append(f"| {case.change} | {cell} | {case.computed} |")
    return lines


def finished_project(folder: Path, local: bool) -> Project:
    """Return a project in which Snakemake has nothing left to do."""
    project = Project.new(_made(folder), "my.yaml")
    speech = project.folder / "speech"
    speech.mkdir()
    lines = ["\t".join(("id", "path", "language", "transcript", "translation_en"))]
    for name, recording, *rest in ROWS:
        shutil.copy(_recording(recording), speech / f"{name}.wav")
        lines.append("\t".join((name, f"{name}.wav", *rest)))
    (project.folder / MANIFEST).write_text("\n".join(lines) + "\n")
    model = folder.parent / "model"
    (project.folder / project.configfile).write_text(yaml.safe_dump(_config(model)))
    if local:
        model.mkdir()
        (model / "config.json").write_text("{}")
        (model / "model.bin").write_bytes(b"weights")
        runs("local")(project)
        config(shard_size=1)(project)
    _pretend(project)
    assert project.planned() == set()
    return project


def describe(jobs: set[Job], run: str) -> str:
    """Return a cell: the jobs of the finished run, of new runs, and of all runs together."""
    cells = [_describe_run(jobs, run)]
    new = {job.run for job in jobs if job.rule in TABLES and job.run != run}
    for name in sorted(new):
        cells.append(f"{_describe_run(jobs, name)} of {name}")
    for rule in ("fetch_model", "comparisons", "report"):
        if any(job.rule == rule for job in jobs):
            cells.insert(0 if rule == "fetch_model" else len(cells), f"`{rule}`")
    return "; ".join(filter(None, cells)) or "none"


def _describe_run(jobs: set[Job], run: str) -> str:
    rules_of = defaultdict(set)
    for job in jobs:
        if job.run == run and job.shard:
            rules_of[job.shard].add(job.rule)
    shards_of = defaultdict(list)
    for shard in sorted(rules_of):
        steps = tuple(step for step in STEPS + OPTIONAL_STEPS if step in rules_of[shard])
        shards_of[steps].append(shard)
    parts = [
        f"{'every step' if steps == STEPS else _code(steps)} on {', '.join(shards)}"
        for steps, shards in shards_of.items()
    ]
    tables = tuple(rule for rule in TABLES + OPTIONAL_TABLES if Job(rule, run) in jobs)
    if tables:
        parts.append("every table" if tables == TABLES else _code(tables))
    return "; ".join(parts)


def _code(names):
    return ", ".join(f"`{name}`" for name in names)


def _config(model):
    return {
        "datasets": {"speech": {"manifest": MANIFEST, "description": "read", "licence": "free"}},
        "models": {
            "local": {
                "family": "whisper", "description": "mine", "licence": "free",
                "languages": ["en"], "translation_targets": [], "source": {"path": str(model)},
            }
        },
        "runs": [{"dataset": "speech", "models": ["whisper-base"], "tasks": ["asr-en"]}],
        "shard_size": 2,
        "smx": {"n_segments": [100, 200, 300], "n_masks": 360},
        "aggregate": {"poolings": ["avg2d", "max2d"]},
    }  # fmt: skip


def _pretend(project):
    """Make Snakemake hold every job of the plan for done."""
    shown = project.snakemake("--dry-run")
    assert shown.returncode == 0, shown.stdout + shown.stderr
    make_outputs(project.folder, shown.stdout + shown.stderr)
    done = project.snakemake("--touch", "--forceall")
    assert done.returncode == 0, done.stdout + done.stderr


def _recording(number):
    return SPEECH / f"sense_and_sensibility_01_austen_64kb-{number}.wav"


def _made(folder):
    folder.mkdir()
    return folder


def written() -> list[str]:
    """Return the lines of the table as docs/workflow.md has them."""
    text = PAGE.read_text(encoding="utf-8")
    return text.split(BEGIN)[1].split(END)[0].strip().split("\n")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        lines = measure(Path(folder))
    before, after = PAGE.read_text(encoding="utf-8").split(BEGIN)
    after = after.split(END)[1]
    table = "\n".join(lines)
    PAGE.write_text(f"{before}{BEGIN}\n{table}\n\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
