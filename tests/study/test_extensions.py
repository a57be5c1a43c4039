"""Extensions: the examples of docs/adding.md, word for word, from planning to the last step."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml

from s2txai.analysis.scoring import SCORES
from s2txai.cli import main
from s2txai.datasets import FORMATS
from s2txai.datasets.files import read_yaml
from s2txai.datasets.text_normalisers import TEXT_NORMALISERS
from s2txai.errors import UserError
from s2txai.models.families import FAMILIES
from s2txai.models.handle import ModelHandle
from s2txai.saliency.aggregation import AGGREGATIONS
from s2txai.saliency.correlation import METRICS, NORMALISERS
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.methods import METHODS
from s2txai.saliency.occluded_values import OCCLUDED_STATES, OCCLUDED_VALUES
from s2txai.saliency.pooling import POOLINGS
from s2txai.steps.aggregate import aggregate_shard
from s2txai.steps.attention import attention_shard
from s2txai.steps.decode import decode_shard
from s2txai.steps.gradients import gradients_shard
from s2txai.steps.shard import Workplace
from s2txai.steps.smh import smh_shard
from s2txai.steps.smx import smx_shard
from s2txai.storage.artifacts import load_shard
from s2txai.storage.store import Store
from s2txai.study import extensions
from s2txai.study.jobs import Jobs
from s2txai.study.plan import plan
from tests.models.test_model_contract import noise
from tests.studies import write_tables_of_run
from tests.synthetic_results import paths_in
from tests.tiny_whisper import save_tiny_whisper
from tests.weights import ROOT

# What each section of the page registers.
NAMES = {
    "A metric": (METRICS, "magnitude"),
    "A pooling": (POOLINGS, "median2d"),
    "A gradient method": (METHODS, "gradient_size"),
    "An estimator": (ESTIMATORS, "centred"),
    "An aggregation of attention": (AGGREGATIONS, "strongest"),
    "A text normalisation": (TEXT_NORMALISERS, "lower"),
    "A score": (SCORES, "ler"),
    "A model family": (FAMILIES, "whisper-borrowed-tag"),
    "A corpus format": (FORMATS, "pairs"),
}
REGISTRIES = [registry for registry, _ in NAMES.values()] + [
    OCCLUDED_VALUES,
    OCCLUDED_STATES,
    NORMALISERS,
]
RUN = ("said", "tiny", "asr-en")
MASKS = {"n_masks": 32, "p": 0.5}


def examples():
    """Return the example of each section of the page that has one."""
    sections = re.split(r"^## (.+)$", (ROOT / "docs" / "adding.md").read_text("utf-8"), flags=re.M)
    blocks = {
        title: re.findall(r"^```python\n(.*?)^```$", text, flags=re.M | re.S)
        for title, text in zip(sections[1::2], sections[2::2], strict=True)
    }
    assert all(len(found) <= 1 for found in blocks.values())
    return {title: code for title, found in blocks.items() for code in found}


@pytest.fixture(autouse=True)
def registries(monkeypatch):
    """Forget after each test what its extensions registered."""
    from s2txai import registry

    monkeypatch.setattr(extensions, "_loaded", {})
    monkeypatch.setattr(registry, "_EXTENDED", {})
    for one in REGISTRIES:
        monkeypatch.setattr(one, "_entries", dict(one._entries))
        monkeypatch.setattr(one, "_origins", {})


@pytest.fixture
def root(tmp_path):
    """A project with the examples as extensions, and a corpus in the format of one of them."""
    shutil.copytree(ROOT / "workflow", tmp_path / "workflow")
    shutil.copytree(ROOT / "profiles", tmp_path / "profiles")
    shutil.copy(ROOT / "Snakefile", tmp_path)
    shutil.copytree(ROOT / "config", tmp_path / "config")
    (tmp_path / "extensions").mkdir()
    for title, code in examples().items():
        (tmp_path / "extensions" / file_of(title)).write_text(code)
    write_corpus(tmp_path / "said")
    return tmp_path


def file_of(title):
    return f"{title.lower().replace(' ', '_')}.py"


def write_corpus(folder):
    import soundfile

    folder.mkdir()
    for number, (name, seconds) in enumerate({"long": 0.8, "short": 0.5}.items()):
        soundfile.write(folder / f"{name}.wav", noise(seconds, number), 16_000)
        (folder / f"{name}.txt").write_text("North east.\n")


@pytest.fixture
def config(root):
    """A configuration that uses all of them."""
    config = read_yaml(ROOT / "config" / "config.yaml")
    config["extensions"] = [f"extensions/{file_of(title)}" for title in NAMES]
    config["runs"] = [{"dataset": "said", "models": ["tiny"], "tasks": ["asr-en"]}]
    config["datasets"] = {
        "said": {
            "format": "pairs", "folder": "said", "language": "en", "description": "Noise.",
            "licence": "CC0",
        }
    }  # fmt: skip
    config["models"] = {
        "tiny": {
            "family": "whisper-borrowed-tag", "description": "Random.", "licence": "MIT",
            "languages": ["en"], "translation_targets": [], "source": {"path": "weights"},
            "shape": {
                "encoder_parameters": 1000, "decoder_parameters": 1000, "layers": 2, "heads": 2,
            },
        }
    }  # fmt: skip
    config["text_normalisation"] = "lower"
    config["smx"] |= {**MASKS, "n_segments": [200, 400], "estimator": "centred"}
    config["smh"] |= {**MASKS, "estimator": "centred"}
    config["gradient"]["methods"] = ["gradient_size"]
    config["aggregate"]["poolings"] = ["avg2d", "median2d"]
    return config


def wildcards(**more):
    dataset, model, task = RUN
    return SimpleNamespace(dataset=dataset, model=model, task=task, shard="0000", **more)


def test_the_page_has_an_example_of_each():
    assert list(examples()) == list(NAMES)


def test_all_are_planned(config, root):
    study = plan(config, root)
    assert [utterance.id for utterance in study.runs[RUN].utterances] == ["long", "short"]
    assert study.methods == ("gradient_size",)
    hashes = [registry.origin(name) for registry, name in NAMES.values()]
    assert len(set(hashes)) == len(NAMES)
    assert None not in hashes


def test_planning_with_all_imports_no_torch(config, root):
    (root / "my.yaml").write_text(yaml.safe_dump(config))
    code = (
        "import sys; from pathlib import Path; root = Path(sys.argv[1])\n"
        "from s2txai.study.config import read_config; from s2txai.study.plan import plan\n"
        "plan(read_config(root, [root / 'my.yaml']), root)\n"
        "print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
    )
    planned = subprocess.run(
        [sys.executable, "-c", code, str(root)], capture_output=True, text=True, check=True
    )
    assert planned.stdout.strip() == ""


def test_all_are_estimated(config, root, monkeypatch, capsys):
    (root / "my.yaml").write_text(yaml.safe_dump(config))
    monkeypatch.chdir(root)
    monkeypatch.setattr("s2txai.models.process.configure_process", lambda **_: None)
    assert main(["estimate", "my.yaml"]) == 0
    table = capsys.readouterr().out
    assert "said/tiny/asr-en" in table
    assert "GPU-hours" in table
    assert re.search(r"in all +2 +[1-9]\d* ", table)


@pytest.fixture
def computed(config, root):
    """The steps up to the maps, as the scripts of the rules call them.

    Called with the name of a step, it returns the artefacts of that step.
    """
    study = plan(config, root)
    run = study.runs[RUN]
    (root / "weights").mkdir()
    save_tiny_whisper(root / "weights")
    family = Jobs(study, config, root).family(wildcards())
    handle = ModelHandle(family, root / "weights", device="cpu", precision="float32")

    def place(step):
        return Workplace(handle, Store(root / "store"), root / step / "0000")

    def read(step):
        ids = [utterance.id for utterance in run.utterances]
        return load_shard(root / step / "0000", ids, step)

    decode_shard(place("decode"), run.shard("0000"), run.task, beam=2)
    attention_shard(place("attention"), read("decode"))
    smx = MaskDesign.of(config["smx"], seed=0)
    smh = MaskDesign.of(config["smh"], seed=0, occluded_value="zero")
    smx_shard(place("smx"), read("decode"), smx, batch_size=8)
    smh_shard(place("smh"), read("decode"), smh, batch_size=8)
    gradients_shard(
        place("gradient_size"), "gradient_size", read("decode"), parameters={}, batch_size=8
    )
    aggregate_shard(
        root / "aggregate" / "0000",
        *(read(step) for step in ("decode", "attention", "smx", "smh")),
        poolings=config["aggregate"]["poolings"],
        estimators={"smx": "centred", "smh": "centred"},
        gradients={"gradient_size": read("gradient_size")},
    )
    read.run, read.place, read.root = run, place, root
    return read


def test_all_have_a_part_in_a_study(computed):
    """One test, since the steps take some seconds."""
    check_maps(computed)
    check_tables(computed)
    check_deletion(computed)
    check_page(computed)
    check_figures(computed)


def check_maps(computed):
    for artifact in computed("aggregate"):
        shape = artifact["ca_mean"].shape
        for name in ("smx_median2d", "gradient_size", "ca_strongest", "vn_strongest"):
            assert artifact[name].shape == shape
            assert np.isfinite(artifact[name]).all()
        assert (artifact["ca_strongest"] >= artifact["ca_mean"]).all()
        assert (artifact["gradient_size"] >= 0).all()
        # Centred over all cells, of which each step has as many.
        np.testing.assert_allclose(artifact["smh"].mean(axis=1), 0, atol=1e-5)


def check_tables(computed):
    from s2txai.steps.correlate import correlation_tables
    from s2txai.steps.transcripts import transcript_tables

    run = computed.run
    poolings = ["avg2d", "median2d"]
    tables = correlation_tables(computed("aggregate"), poolings=poolings, rows="all", seed=0)
    assert {"smx_median2d", "gradient_size"} <= set(tables.summary["saliency"])
    assert "magnitude" in set(tables.summary["metric"])
    _, scores = transcript_tables(
        run.utterances, computed("decode"), run.task, text_normalisation="lower"
    )
    # The scores of the project come first: the first is the main one.
    assert list(scores["metric"]) == ["wer", "wer_max", "ler"]


def check_deletion(computed):
    from s2txai.steps.deletion import DeletionDesign, deletion_shard
    from s2txai.steps.deletion_curves import deletion_tables

    methods = {"gradient_size": computed("gradient_size")}
    deletion_shard(
        computed.place("deletion"),
        *(computed(step) for step in ("decode", "smx", "aggregate")),
        DeletionDesign(beam=1, percents=[0, 50, 100], seed=0),
        poolings=["avg2d", "median2d"],
        gradients=methods,
    )
    tables = deletion_tables(
        ["North east."] * 2, computed("deletion"), computed.run.task, text_normalisation="lower"
    )
    assert {"smx_median2d", "gradient_size"} <= set(tables.areas["map"])
    assert "ler" in set(tables.areas["metric"])


def check_page(computed):
    """The report has the extensions' maps under the names that they give themselves."""
    from s2txai.report.page import ReportContext, write_report
    from s2txai.report.runs import RunFiles

    root, run = computed.root, computed.run
    write_tables_of_run(
        computed, run, root, poolings=["avg2d", "median2d"], text_normalisation="lower"
    )
    context = ReportContext(
        config={}, versions={}, git_commit="",
        models={"tiny": {"family": "whisper", "description": "", "licence": "", "source": {}}},
        datasets={"said": {"manifest": "m.tsv", "description": "", "licence": ""}},
        paper_reference=ROOT / "config" / "paper_reference.csv",
    )  # fmt: skip
    recordings = {utterance.id: utterance for utterance in run.utterances}
    files = RunFiles(*RUN, root, run.shards, recordings)
    write_report([files], paths_in(root / "report"), context)
    page = (root / "report" / "index.html").read_text(encoding="utf-8")
    for name in ("gradient size", "SMX median", "Magnitude"):
        assert page.count(name) > 1, name
    header = (root / "report" / "sweep.csv").read_text().splitlines()[0].split(",")
    assert {"rho_gradient_size", "signature_gradient_size", "auc_gradient_size"} <= set(header)


def check_figures(computed):
    """``s2txai show`` is given a file, not a configuration: it knows no extension."""
    code = "import sys; from s2txai.cli import main; sys.exit(main(['show', sys.argv[1]]))"
    for step in ("gradient_size", "aggregate"):
        file = computed.root / step / "0000" / "long.npz"
        done = subprocess.run(
            [sys.executable, "-c", code, str(file)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert "gradient_size" in done.stdout
        assert file.with_suffix(".png").stat().st_size > 10_000


# Hashes


STEPS = {
    "A metric": {"correlate", "sensitivity"},
    "A pooling": {"aggregate", "correlate", "deletion"},
    "A gradient method": {"gradients", "deletion"},
    "An estimator": {"smx", "smh", "aggregate", "sensitivity"},
    "An aggregation of attention": {"aggregate"},
    "A text normalisation": {"transcripts", "deletion_curves"},
    "A score": {"transcripts", "deletion_curves"},
    "A model family": {"decode", "attention", "smx", "smh", "gradients", "deletion"},
    "A corpus format": set(),
}


def versions(config, root):
    """Return the version that the rule of each step has among its parameters."""
    jobs = Jobs(plan(config, root), config, root)
    steps = set.union(*STEPS.values())
    method = wildcards(method="gradient_size")
    return {step: jobs.version(step)(method) for step in steps}


@pytest.mark.parametrize("title", list(NAMES))
def test_a_change_of_its_file_concerns_the_steps_that_use_it(config, root, title, monkeypatch):
    before = versions(config, root)
    forget(monkeypatch)
    with (root / "extensions" / file_of(title)).open("a") as file:
        file.write("# Another comment.\n")
    after = versions(config, root)
    assert {step for step in before if before[step] != after[step]} == STEPS[title]


def forget(monkeypatch):
    """Stand for another process."""
    monkeypatch.setattr(extensions, "_loaded", {})
    for registry, name in NAMES.values():
        registry._entries.pop(name)
        registry._origins.pop(name)


def test_a_study_that_uses_no_name_of_an_extension_has_the_parameters_of_one_without(root):
    config = read_yaml(ROOT / "config" / "config.yaml")
    config["datasets"] = {"said": {"manifest": "m.tsv", "description": "a", "licence": "b"}}
    config["runs"] = [{"dataset": "said", "models": ["whisper-tiny.en"], "tasks": ["asr-en"]}]
    lines = ["id\tpath\tlanguage\ttranscript", "long\tsaid/long.wav\ten\tnorth"]
    (root / "m.tsv").write_text("\n".join(lines))

    def all_versions(config):
        jobs = Jobs(plan(config, root), config, root)
        names = SimpleNamespace(
            dataset="said", model="whisper-tiny.en", task="asr-en", shard="0000", method="grad"
        )
        return {step: jobs.version(step)(names) for step in set.union(*STEPS.values())}

    before = all_versions(config)
    # Of metrics, scores and aggregations all that are registered are used.
    chosen = ("A pooling", "A gradient method", "An estimator", "A text normalisation")
    config["extensions"] = [f"extensions/{file_of(title)}" for title in chosen]
    assert all_versions(config) == before
    assert all(isinstance(version, int) for version in before.values())


def test_a_normalisation_that_nothing_uses_repeats_no_step(config, root):
    before = versions(config, root)
    (root / "my.py").write_text(
        "from s2txai.saliency.correlation import NORMALISERS\n"
        "NORMALISERS.register('halved')(lambda rows: rows / 2)\n"
    )
    config["extensions"].append("my.py")
    assert versions(config, root) == before


def test_the_store_tells_versions_of_an_extension_apart(config, root, monkeypatch):
    from s2txai.steps.shard import entry_path

    handle = SimpleNamespace(precision="float32", family="whisper")
    place = SimpleNamespace(model=handle, store=Store(root / "store"))

    def entry(step):
        return entry_path(place, step, {"utterance": "a"}, {"occluded_value": "bin mean"})

    plan(config, root)
    method, smx = entry("gradient_size"), entry("smx")
    forget(monkeypatch)
    with (root / "extensions" / file_of("A gradient method")).open("a") as file:
        file.write("# Another comment.\n")
    plan(config, root)
    assert entry("gradient_size") != method
    assert entry("smx") == smx


# Refusals


def refusal(config, root, *files):
    with pytest.raises(UserError) as caught:
        plan(config | {"extensions": list(files)}, root)
    sentence = str(caught.value)
    assert "\n" not in sentence
    assert sentence.startswith("config: 'extensions")
    return sentence


def test_a_missing_file(config, root):
    assert f"there is no file {root / 'none.py'}" in refusal(config, root, "none.py")


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("x = (\n", "SyntaxError"),
        ("import nothing_of_this_name\n", "ModuleNotFoundError: No module named 'nothing_of"),
        ("raise RuntimeError('two\\nlines')\n", "RuntimeError: two lines"),
        ("raise SystemExit\n", "SystemExit"),
    ],
)
def test_a_file_that_cannot_be_imported(config, root, code, reason):
    (root / "my.py").write_text(code)
    assert f"my.py cannot be imported ({reason}" in refusal(config, root, "my.py")


@pytest.mark.parametrize("name", ["helper.py", "helper"])
def test_a_file_beside_it_is_not_found(config, root, name):
    path = root / name
    path.touch() if path.suffix else path.mkdir()
    (root / "my.py").write_text("from helper.maps import x\n")
    sentence = refusal(config, root, "my.py")
    assert f"my.py imports {name} beside it, but an extension is one file" in sentence


def test_a_failed_import_leaves_nothing_behind(config, root):
    (root / "my.py").write_text(examples()["A pooling"] + "\n1 / 0\n")
    for _ in range(2):
        assert "ZeroDivisionError" in refusal(config, root, "my.py")
        assert "median2d" not in POOLINGS
    plan(config, root)


@pytest.mark.parametrize(
    ("title", "name", "other"),
    [
        ("A gradient method", "gradient_size", "decode"),
        ("A gradient method", "gradient_size", "ca_size"),
        ("An aggregation of attention", "strongest", "head"),
    ],
)
def test_a_name_that_means_something_else(config, root, title, name, other):
    code = examples()[title].replace(f'register("{name}")', f'register("{other}")')
    (root / "my.py").write_text(code)
    sentence = refusal(config, root, "my.py")
    assert f"'{other}' has a name that means something else in results" in sentence


def test_a_name_that_is_taken(config, root):
    code = examples()["A pooling"].replace('register("median2d")', 'register("max2d")')
    (root / "my.py").write_text(code)
    sentence = refusal(config, root, "my.py")
    assert sentence.endswith("pooling 'max2d' is registered already; choose another name.")


@pytest.mark.parametrize("name", ["resources/models/mine/my.py", "linked.py"])
def test_a_file_of_a_downloaded_model(config, root, name):
    folder = root / "resources" / "models" / "mine"
    folder.mkdir(parents=True)
    (folder / "my.py").write_text(examples()["A pooling"])
    (root / "linked.py").symlink_to(folder / "my.py")
    assert "lies in the folder of a downloaded model" in refusal(config, root, name)
    assert "median2d" not in POOLINGS


def test_names_without_their_extension_are_unknown(config, root):
    with pytest.raises(UserError, match="Unknown text normalisation 'lower'"):
        plan(config | {"extensions": config["extensions"][-2:]}, root)


@pytest.mark.parametrize("value", ["my.py", [1]])
def test_a_value_that_is_no_list_of_files(config, root, value):
    with pytest.raises(UserError, match="'extensions' must be a list of Python files"):
        plan(config | {"extensions": value}, root)


def test_the_same_file_is_imported_once(config, root):
    path = Path("extensions") / file_of("A pooling")
    config["extensions"] += [str(root / path), f"./{path}"]
    plan(config, root)
    plan(config, root)


def test_what_was_hashed_is_what_runs(config, root, monkeypatch):
    """Bytecode of an earlier version of the same size and time must not be taken."""
    path = root / "my.py"
    path.write_text(examples()["A pooling"])
    plan(config | {"extensions": [*config["extensions"][2:], "my.py"]}, root)
    assert not (root / "__pycache__").exists()
