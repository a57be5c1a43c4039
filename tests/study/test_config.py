import copy
import subprocess
import sys
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.study.config import (
    SCHEMAS,
    check_config,
    check_task,
    datasets_schema,
    load_datasets,
    load_models,
    read_config,
    read_yaml,
)
from s2txai.study.schema_errors import config_errors

ROOT = Path(__file__).parents[2]
MODELS = ROOT / "config" / "models.yaml"

SCHEMA = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "smx": {
            "type": "object",
            "additionalProperties": False,
            "required": ["n_masks"],
            "properties": {
                "n_masks": {"type": "integer", "minimum": 1, "description": "masks a level"},
                "p": {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
            },
        },
        "metric": {"enum": ["pearson", "spearman"]},
        "utterances": {"oneOf": [{"const": "all"}, {"type": "array", "minItems": 1}]},
        "frames": {"type": ["integer", "null"], "minimum": 3},
        "task": {"type": "string", "pattern": "^asr", "description": "what to do"},
        "levels": {"type": "array", "uniqueItems": True, "items": {"type": "integer"}},
    },
}


@pytest.mark.parametrize(
    ("config", "sentences"),
    [
        ({"smx": {"n_masks": 4, "p": 0.5}, "utterances": "all", "frames": None}, []),
        (
            {"metrik": "pearson"},
            [
                "unknown key 'metrik'; did you mean 'metric'? Known keys here: "
                "smx, metric, utterances, frames, task, levels."
            ],
        ),
        ({"smx": {}}, ["'smx.n_masks' is missing; add it (masks a level)."]),
        ({"smx": {"n_masks": 0}}, ["'smx.n_masks' must be at least 1, not 0."]),
        (
            {"smx": {"n_masks": "many"}},
            ["'smx.n_masks' must be a whole number (at least 1), not 'many'."],
        ),
        (
            {"smx": {"n_masks": 1, "p": 2}},
            ["'smx.p' must be more than 0 and at most 1, not 2."],
        ),
        (
            {"smx": {"n_masks": 1, "p": "1e-3"}},
            [
                "'smx.p' must be a number (more than 0 and at most 1), not '1e-3'; YAML wants a "
                "decimal point and the exponent's sign, as in 1.0e-3."
            ],
        ),
        (
            {"metric": "spearmann"},
            [
                "'metric' must be one of 'pearson', 'spearman', not 'spearmann'; "
                "did you mean 'spearman'?"
            ],
        ),
        ({"utterances": "some"}, ["'utterances' must be 'all' or a list, not 'some'."]),
        ({"utterances": []}, ["'utterances' must have at least 1 entry, not 0."]),
        ({"frames": "x"}, ["'frames' must be a whole number or null (at least 3), not 'x'."]),
        ({"task": "st"}, ["'task' must match ^asr (what to do), not 'st'."]),
        ({"task": False}, ["'task' must be a text, not false; write it in quotes."]),
        ({"levels": [1, "2", 1]}, [
            "'levels' must not name 1 twice.",
            "'levels[1]' must be a whole number, not '2'; write it as 2 without quotes.",
        ]),
        ({"smx": {True: 1}}, ["key true of 'smx' is not a text; write it in quotes."]),
    ],
)  # fmt: skip
def test_errors_are_plain_sentences(config, sentences):
    assert config_errors(config, SCHEMA) == sentences


@pytest.mark.parametrize(("value", "shown"), [(True, "true"), (False, "false")])
def test_the_insertion_of_earlier_releases_is_refused_with_the_choices(value, shown):
    config = read_config(ROOT, [])
    config["deletion"]["insertion"] = value
    with pytest.raises(UserError) as caught:
        check_config(config)
    assert str(caught.value).endswith(
        f"'deletion.insertion' must be one of 'none', 'log_prob', 'decode', not {shown}."
    )


def test_sentences_begin_with_the_file():
    assert config_errors({"x": 1}, SCHEMA, "my.yaml")[0].startswith("my.yaml: unknown key 'x'")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: [1\nc: 2\n", "line 3"),
        ("a: 1\nb:\n  c: 1\n  c: 2\n", "line 4: key 'c' is already given in line 3"),
        ("- a\n", "must hold lines of the form 'key: value'"),
        ("", "must hold lines of the form 'key: value'"),
        ("a: \x01\n", "not valid YAML"),
    ],
)
def test_faulty_yaml_is_refused(tmp_path, text, words):
    path = tmp_path / "c.yaml"
    path.write_text(text)
    with pytest.raises(UserError) as caught:
        read_yaml(path)
    assert str(path) in str(caught.value)
    assert words in str(caught.value)


def test_unreadable_yaml_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")
    (tmp_path / "c.yaml").write_bytes(b"a: \xe9\n")
    with pytest.raises(UserError, match="UTF-8"):
        read_yaml(tmp_path / "c.yaml")


def test_merged_keys_may_be_overridden(tmp_path):
    path = tmp_path / "c.yaml"
    path.write_text("a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  x: 3\n")
    assert read_yaml(path)["b"] == {"x": 3, "y": 2}


@pytest.mark.parametrize("name", ["models", "datasets"])
def test_schemas_are_valid(name):
    Draft202012Validator.check_schema(read_yaml(SCHEMAS / f"{name}.schema.yaml"))
    Draft202012Validator.check_schema(datasets_schema())


def test_shipped_tables_satisfy_their_schemas():
    assert {"whisper-tiny.en", "whisper-base"} <= set(load_models(MODELS))
    assert {"librivox", "prompts"} <= set(load_datasets(ROOT / "config" / "datasets.yaml"))


def test_examples_in_the_table_of_models_are_valid(tmp_path):
    comments = [line[1:] for line in MODELS.read_text().splitlines() if line.startswith("#   ")]
    start = next(number for number, line in enumerate(comments) if line.endswith("my-whisper:"))
    path = tmp_path / "models.yaml"
    path.write_text("\n".join(comments[start:]))
    assert set(load_models(path)) == {"my-whisper", "whisper-small"}


PACKAGED = "whisper-base"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda e: e["source"].update(path="x"), "exactly one of the keys: path; hub; python"),
        (lambda e: e.update(source={}), "exactly one of the keys"),
        (lambda e: e["source"].pop("files"), "source.files' is missing"),
        (
            lambda e: e["source"]["files"]["model.bin"].pop("parts"),
            "files.model.bin.parts' is missing",
        ),
        (
            lambda e: e["source"]["files"].update({"../x": {}}),
            "the name '../x' in 'whisper-base.source.files'",
        ),
        (
            lambda e: e["source"]["python_packages"][0].update(name="-r x"),
            "python_packages[0].name' must match",
        ),
        (
            lambda e: e.update(source={"hub": {"repo": "a/b", "revision": "main"}}),
            "hub.revision' must match",
        ),
        (lambda e: e.update(langauges=["en"]), "did you mean 'languages'?"),
    ],
)
def test_faulty_model_entries_are_refused(change, words):
    models = copy.deepcopy(load_models(MODELS))
    change(models[PACKAGED])
    errors = config_errors(models, read_yaml(SCHEMAS / "models.schema.yaml"), MODELS)
    assert any(words in error for error in errors), errors


def test_loading_reports_every_mistake(tmp_path):
    path = tmp_path / "datasets.yaml"
    path.write_text("mine: {manifest: a.tsv}\n")
    with pytest.raises(UserError) as caught:
        load_datasets(path)
    assert str(caught.value).count(f"{path}: 'mine.") == 2


def test_tasks_are_checked_against_the_model():
    models = load_models(MODELS)
    for task in ("asr-en", "asr-no", "st-it-en"):
        check_task("whisper-base", models["whisper-base"], parse_task(task))
    check_task("whisper-tiny.en", models["whisper-tiny.en"], parse_task("asr-en"))
    for model, task, words in [
        ("whisper-tiny.en", "asr-it", "of what it can do: asr-en"),
        ("whisper-tiny.en", "st-en-it", "translates into no language"),
        ("whisper-base", "st-it-de", "translates into en"),
    ]:
        with pytest.raises(UserError, match=words):
            check_task(model, models[model], parse_task(task))


def test_what_the_workflow_reads_when_parsed_needs_no_torch():
    code = (
        "import sys, s2txai.study.config, s2txai.datasets, s2txai.study.fetch_model; "
        "sys.exit('torch' in sys.modules or 'huggingface_hub' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
