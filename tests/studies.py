"""A corpus of two recordings, and all steps run on it in process as the workflow's scripts do."""

from dataclasses import replace
from pathlib import Path

from s2txai.datasets import parse_task, read_manifest, select
from s2txai.saliency.design import MaskDesign
from s2txai.steps import correlate, deletion_curves
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.correlate import correlate_run, correlation_tables
from s2txai.steps.decode import decode_shard
from s2txai.steps.deletion import DeletionDesign, deletion_shard
from s2txai.steps.deletion_curves import deletion_curves_run, deletion_tables
from s2txai.steps.failures import list_failures
from s2txai.steps.gradients import gradients_shard
from s2txai.steps.heads import heads_run
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.steps.transcripts import transcripts_run
from s2txai.storage.artifacts import load_shard
from s2txai.storage.store import Store
from tests.toy import Handle, write_speech

TASK = parse_task("asr-en")
TEXTS = {"five": "north east south west east", "four": "west south north east"}
POOLINGS = ("avg2d", "max2d")
SMX = MaskDesign(600, n_segments=(400, 800), p=0.5, seed=1)
SMH = MaskDesign(600, "zero", p=0.5, seed=1)
GRADIENT_PARAMETERS = {
    "grad": {"n_segments": (400, 800), "n_masks": 64, "p": 0.5, "seed": 1},
    "input_x_gradient": {},
    "integrated_gradients": {"n_points": 8},
}
PERCENTS = list(range(0, 101, 10))
DELETION = DeletionDesign(beam=1, percents=PERCENTS, seed=1)


def write_corpus(root: Path):
    """Write the recordings and their manifest into a folder, and return the utterances."""
    lines = ["id\tpath\tlanguage\ttranscript"]
    for number, (name, text) in enumerate(TEXTS.items()):
        write_speech(root / f"{name}.wav", text, seed=number)
        lines.append(f"{name}\t{name}.wav\ten\t{text}")
    (root / "manifest.tsv").write_text("\n".join(lines))
    return select(read_manifest(root / "manifest.tsv"), TASK)


class Study:
    """Runs steps on one shard and reads their results, as the workflow's scripts do.

    Parameters
    ----------
    root
        Folder that gets the store and the results.
    utterances
        Of the shard.
    model
        None where the store has everything.
    name
        Of the folder of results.
    """

    def __init__(self, root, utterances, model, name="results"):
        self.utterances = utterances
        self.ids = [utterance.id for utterance in utterances]
        self.handle = Handle(model)
        self.store, self.results = Store(root / "store"), root / name

    def place(self, step):
        return Workplace(model=self.handle, store=self.store, output=self.results / step / "0000")

    def read(self, step):
        return load_shard(self.results / step / "0000", self.ids, step)

    def decode(self, beam=5):
        decode_shard(self.place("decode"), self.utterances, TASK, beam=beam)

    def attention(self):
        attention_shard(self.place("attention"), self.read("decode"))

    def smx(self, *, batch_size=32, **changes):
        design = replace(SMX, **changes)
        smx_shard(self.place("smx"), self.read("decode"), design, batch_size=batch_size)

    def smh(self, *, batch_size=64, **changes):
        design = replace(SMH, **changes)
        smh_shard(self.place("smh"), self.read("decode"), design, batch_size=batch_size)

    def gradient(self, method, *, batch_size=16, **changes):
        gradients_shard(
            self.place(method), method, self.read("decode"),
            parameters=GRADIENT_PARAMETERS[method] | changes, batch_size=batch_size,
        )  # fmt: skip

    def aggregate(self, poolings=POOLINGS, methods=()):
        earlier = [self.read(step) for step in ("decode", "attention", "smx", "smh")]
        gradients = {method: self.read(method) for method in methods}
        aggregate_shard(
            self.results / "aggregate" / "0000", *earlier, poolings=poolings, gradients=gradients
        )

    def deletion(self, design=DELETION, *, poolings=POOLINGS, methods=(), batch_size=4):
        earlier = [self.read(step) for step in ("decode", "smx", "aggregate")]
        deletion_shard(
            self.place("deletion"), *earlier, design, poolings=poolings,
            gradients={method: self.read(method) for method in methods}, batch_size=batch_size,
        )  # fmt: skip

    def everything(self):
        for step in (self.decode, self.attention, self.smx, self.smh, self.aggregate):
            step()
        self.deletion()

    def correlate(self):
        return correlation_tables(self.read("aggregate"), poolings=POOLINGS, rows="all")

    def scores(self):
        references = [utterance.transcript for utterance in self.utterances]
        return deletion_tables(
            references, self.read("deletion"), TASK, text_normalisation="whisper"
        )

    def files(self, *steps):
        """Return the bytes of the results of some steps, or of all, by path."""
        return {
            path.relative_to(self.results): path.read_bytes()
            for step in steps or [""]
            for path in sorted((self.results / step).rglob("*.npz"))
        }


def write_tables_of_run(read, run, folder, *, poolings, text_normalisation):
    """Write the tables that a page is made of, as the jobs of a run do.

    Parameters
    ----------
    read
        From the name of a step to its artefacts.
    run
        Whose they are.
    folder
        Of the run's results.
    poolings, text_normalisation
        Of the study.
    """
    scoring = {"text_normalisation": text_normalisation, "diacritics": "kept"}

    def paths(step, names, suffix=".csv"):
        return {name: folder / step / f"{name}{suffix}" for name in names}

    transcripts_run(run, read("decode"), paths("decode", ["transcripts", "scores"]), **scoring)
    correlate_run(
        run, read("aggregate"), paths("correlate", correlate.OUTPUTS),
        poolings=poolings, rows="all", seed=0,
    )  # fmt: skip
    deletion_curves_run(
        run, read("deletion"), paths("deletion", deletion_curves.OUTPUTS), **scoring, seed=0
    )
    heads_run(
        run, read("aggregate"), read("decode"), folder / "correlate" / "summary.csv",
        paths("heads", ["ranking"]) | paths("heads", ["generation_config", "verdict"], ".json"),
        pooling=poolings[0], seed=0,
    )  # fmt: skip
    list_failures(run, [], folder / "failures.tsv")


def again(finished, name, model=None):
    """Return a finished study with an empty results folder and the filled store."""
    return Study(finished.root, finished.study.utterances, model, name)


def pick(table, **wanted):
    """Return the only row of a table with these values."""
    found = table
    for name, value in wanted.items():
        found = found[found[name] == value]
    assert len(found) == 1
    return found.iloc[0]
