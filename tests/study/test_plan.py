"""From a configuration to runs, or to one sentence a mistake."""

import copy
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2txai.datasets import languages, parse_task
from s2txai.datasets.files import read_yaml
from s2txai.errors import UserError
from s2txai.study.config import read_config
from s2txai.study.plan import Run, Study, plan

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = read_yaml(ROOT / "config" / "config.yaml")

MODELS = """
english:
  family: whisper
  description: English only.
  licence: MIT
  languages: [en]
  translation_targets: []
  source: {path: models/english}
many:
  family: whisper
  description: Many languages.
  licence: MIT
  languages: [en, it]
  translation_targets: [en]
  source: {path: /elsewhere/many}
"""
DATASETS = """
talks:
  manifest: talks/manifest.tsv
  description: Two languages.
  licence: CC0
"""
ROWS = [
    ("en-1", "en-1.wav", "en", "first", ""),
    ("it-1", "it-1.wav", "it", "secondo", "second"),
    ("en-2", "sub/en-2.wav", "en", "third", ""),
    ("en-3", "en-3.wav", "en", "fourth", ""),
]


def write_wav(path, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, np.random.default_rng(seed).uniform(-0.5, 0.5, 1600), 16000)


def write_manifest(path, rows=ROWS):
    header = ("id", "path", "language", "transcript", "translation_en")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in (header, *rows)), "utf-8")
    for number, row in enumerate(rows):
        write_wav(path.parent / row[1], number)


@pytest.fixture
def root(tmp_path):
    """A project of its own, with the real schemas."""
    shutil.copytree(ROOT / "workflow" / "schemas", tmp_path / "workflow" / "schemas")
    (tmp_path / "config").mkdir()
    (tmp_path / "config" / "models.yaml").write_text(MODELS)
    (tmp_path / "config" / "datasets.yaml").write_text(DATASETS)
    write_manifest(tmp_path / "talks" / "manifest.tsv")
    return tmp_path


@pytest.fixture
def config():
    found = copy.deepcopy(DEFAULT)
    found["runs"] = [{"dataset": "talks", "models": ["english", "many"], "tasks": ["asr-en"]}]
    found["shard_size"] = 2
    return found


def complaint(config, root):
    with pytest.raises(UserError) as caught:
        plan(config, root)
    return str(caught.value)


def test_runs_and_shards(config, root):
    config["runs"].append({"dataset": "talks", "models": ["many"], "tasks": ["st-it-en", "asr-it"]})
    study = plan(config, root)
    assert list(study.runs) == [
        ("talks", "english", "asr-en"),
        ("talks", "many", "asr-en"),
        ("talks", "many", "st-it-en"),
        ("talks", "many", "asr-it"),
    ]
    run = study.runs["talks", "many", "asr-en"]
    assert run.key == ("talks", "many", "asr-en")
    assert run.shards == {"0000": ["en-1", "en-2"], "0001": ["en-3"]}
    assert [one.id for one in run.utterances] == ["en-1", "en-2", "en-3"]
    assert [one.id for one in run.shard("0001")] == ["en-3"]
    assert [one.path.name for one in run.shard("0000")] == ["en-1.wav", "en-2.wav"]


def test_layers_are_those_of_their_entry(config, root):
    config["runs"][0]["layers"] = [0, -1]
    config["runs"].append({"dataset": "talks", "models": ["many"], "tasks": ["asr-it"]})
    assert [run.layers for run in plan(config, root).runs.values()] == [(0, -1), (0, -1), ()]
    config["runs"][0]["layers"] = ["last"]
    assert "config: 'runs[0].layers[0]' must be a whole number" in complaint(config, root)


def align(root, text):
    """Give the first recording an alignment."""
    rows = [(*row, "", "") for row in ROWS]
    rows[0] = (*ROWS[0], "en-1.tsv", "hand")
    header = ("id", "path", "language", "transcript", "translation_en")
    header += ("alignment", "alignment_evidence")
    lines = ["\t".join(row) for row in (header, *rows)]
    (root / "talks" / "manifest.tsv").write_text("\n".join(lines))
    (root / "talks" / "en-1.tsv").write_text(f"tier\tstart_s\tend_s\tlabel\n{text}")


def test_comet_is_asked_for_only_where_something_is_translated(config, root):
    config["comet"] = "models/comet.ckpt"
    assert plan(config, root).runs
    config["runs"].append({"dataset": "talks", "models": ["many"], "tasks": ["st-it-en"]})
    assert "'unbabel-comet', which is not installed" in complaint(config, root)


def test_words_are_timed_where_they_are_recognised_and_aligned(config, root):
    config["runs"].append({"dataset": "talks", "models": ["many"], "tasks": ["st-it-en", "asr-it"]})
    align(root, "word\t0\t0.1\tfirst")
    runs = plan(config, root).runs
    aligned = {key: [one.id for one in run.aligned()] for key, run in runs.items()}
    assert aligned == {key: ["en-1"] if key[2] == "asr-en" else [] for key in runs}
    run = ("talks", "many", "asr-en")
    before = runs[run].alignments_sha256()
    align(root, "word\t0\t0.2\tfirst")
    assert plan(config, root).runs[run].alignments_sha256() != before


def test_faulty_alignments_stop_the_plan(config, root):
    align(root, "word\t0.2\t0.1\tfirst")
    assert "en-1.tsv, line 2: 'first' lasts from 0.2 to 0.1 s" in complaint(config, root)


def test_only_what_is_used_is_in_the_study(config, root):
    config["runs"][0]["models"] = ["english"]
    study = plan(config, root)
    assert list(study.models) == ["english"]
    assert list(study.datasets) == ["talks"]


def test_folders_of_models_are_relative_to_the_project(config, root):
    models = plan(config, root).models
    assert models["english"]["source"]["path"] == str(root / "models" / "english")
    assert models["many"]["source"]["path"] == "/elsewhere/many"


def test_selected_utterances_keep_the_order_of_the_manifest(config, root):
    config["runs"][0]["utterances"] = ["en-3", "en-1"]
    run = plan(config, root).runs["talks", "many", "asr-en"]
    assert run.shards == {"0000": ["en-1", "en-3"]}


def test_the_project_s_own_configuration():
    study = plan(DEFAULT, ROOT)
    assert list(study.runs) == [
        ("librivox", "whisper-tiny.en", "asr-en"),
        ("librivox", "whisper-base", "asr-en"),
        ("prompts", "whisper-base", "asr-it"),
        ("prompts", "whisper-base", "st-it-en"),
        ("prompts", "whisper-base", "asr-es"),
        ("prompts", "whisper-base", "st-es-en"),
    ]
    # A model is loaded once for all utterances of a run.
    assert all(list(run.shards) == ["0000"] for run in study.runs.values())
    folded = [run.task.name for run in study.runs.values() if run.diacritics == "folded"]
    assert folded == ["asr-es"]


# Mistakes


def test_unknown_keys(config, root):
    config["smx"]["n_mask"] = config["smx"].pop("n_masks")
    sentences = complaint(config, root).splitlines()
    assert len(sentences) == 2
    for start in (
        "config: unknown key 'smx.n_mask'; did you mean 'n_masks'?",
        "config: 'smx.n_masks' is missing",
    ):
        assert any(sentence.startswith(start) for sentence in sentences), sentences


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            {"dataset": "talk"},
            "config: unknown dataset 'talk'; did you mean 'talks'? Choose one of: talks; or "
            "describe it under 'datasets' in the config.",
        ),
        (
            {"models": ["many", "gpt"]},
            "config: unknown model 'gpt'. Choose one of: english, many; or describe it under "
            "'models' in the config.",
        ),
        (
            {"models": ["englsh"]},
            "config: unknown model 'englsh'; did you mean 'english'? Choose one of: english, many; "
            "or describe it under 'models' in the config.",
        ),
        (
            {"models": ["many", "english"], "tasks": ["asr-en", "st-it-en"]},
            "config: runs of 'talks': "
            "Model 'english' cannot perform task st-it-en, since it does not know the language "
            "'it'; choose another model, or of what it can do: asr-en.",
        ),
        (
            {"models": ["many"], "tasks": ["st-en-it"]},
            "config: runs of 'talks': "
            "Model 'many' cannot perform task st-en-it, since it translates into en; choose "
            "another model, or of what it can do: asr-<language>, st-<language>-en (from "
            "another language), where <language> is one of en, it.",
        ),
        (
            {"tasks": ["asr"]},
            "config: runs of 'talks': "
            "Task 'asr' is not of the form asr-<language> or st-<source>-<target>: write for "
            "example asr-en or st-it-en.",
        ),
        (
            {"utterances": ["en-1", "en-22"]},
            "config: runs of 'talks': "
            "Unknown utterance 'en-22'; did you mean 'en-2'? Choose ids of the dataset.",
        ),
    ],
)
def test_impossible_runs(config, root, change, sentence):
    config["runs"][0] |= change
    assert complaint(config, root) == sentence


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"shard_size": 0}, "config: 'shard_size' must be at least 1, not 0."),
        ({"shard_size": True}, "config: 'shard_size' must be a whole number (at least 1), not"),
        (
            {"text_normalisation": "whispr"},
            "config: 'text_normalisation': Unknown text normalisation 'whispr'; did you mean "
            "'whisper'? Choose one of: none, whisper.",
        ),
        ({"runs": []}, "config: 'runs' must"),
        (
            {"smh": {"n_masks": 100, "p": 0.5, "target_reliability": 0.9}},
            "config: 'smh.max_masks' is missing; 'smh.target_reliability' needs it.",
        ),
        (
            {"smh": {"n_masks": 100, "p": 0.5, "target_reliability": 0.9, "max_masks": 99}},
            "config: 'smh.max_masks' must be at least 'smh.n_masks' (100), not 99.",
        ),
        (
            {"smh": {"n_masks": 100, "p": 0.5, "estimator": "loglin"}},
            "config: 'smh.estimator': Unknown estimator 'loglin'; did you mean 'loglinear'? "
            "Choose one of: loglinear, mean.",
        ),
        (
            {"smh": {"n_masks": 100, "p": 0.5, "occluded_value": "nil"}},
            "config: 'smh.occluded_value': Unknown occluded state 'nil'. Choose one of: "
            "attention-mask, mean, zero.",
        ),
        ({"smh": {"n_masks": 100, "p": 1}}, "config: 'smh.p' must be more than 0 and less than 1"),
    ],
)
def test_impossible_values(config, root, change, sentence):
    found = complaint(config | change, root)
    assert found.startswith(sentence)
    assert len(found.splitlines()) == 1


def test_the_same_run_twice(config, root):
    config["runs"].append({"dataset": "talks", "models": ["many"], "tasks": ["asr-it", "asr-en"]})
    expected = "config: runs ask twice for talks/many/asr-en; put its utterances together."
    assert complaint(config, root) == expected


@pytest.mark.parametrize("step", ["smx", "smh"])
def test_too_few_masks(config, root, step):
    config[step]["n_masks"] = 8
    found = complaint(config, root)
    assert found.startswith(f"config: '{step}.n_masks' must be at least 16, not 8")
    assert len(found.splitlines()) == 1


def test_too_few_masks_for_the_levels(config, root):
    config["smx"] |= {"n_masks": 16, "n_segments": [10, 20, 30, 40, 50]}
    expected = (
        "config: 'smx.n_masks' must be at least 20, not 16, for 5 levels of 'smx.n_segments': "
        "reliability needs 4 masks of each."
    )
    assert complaint(config, root) == expected
    config["smx"]["n_masks"] = 20
    plan(config, root)


def test_an_unknown_pooling(config, root):
    config["aggregate"]["poolings"] = ["avg2"]
    assert complaint(config, root) == (
        "config: 'aggregate.poolings': Unknown pooling 'avg2'; did you mean 'avg2d'? "
        "Choose one of: avg2d, max2d, max_freq_avg_time."
    )


def test_silence_is_found_before_anything_runs(config, root):
    soundfile.write(root / "talks" / "en-3.wav", np.zeros(1600), 16000)
    config["on_failure"] = "stop"
    told = complaint(config, root)
    assert "manifest.tsv, line 5: " in told
    assert "en-3.wav holds nothing but silence; leave the utterance out." in told


def test_an_unknown_gradient_method(config, root):
    config["gradient"]["methods"] = ["grad", "integrated_gradient"]
    assert complaint(config, root) == (
        "config: 'gradient.methods': Unknown gradient method 'integrated_gradient'; did you mean "
        "'integrated_gradients'? Choose one of: grad, input_x_gradient, integrated_gradients."
    )


def test_too_few_masks_for_grad_matter_only_where_it_is_listed(config, root):
    config["smx"]["n_segments"] = [10, 20, 30, 40, 50]
    config["gradient"]["n_masks"] = 16
    plan(config, root)
    config["gradient"]["methods"] = ["grad"]
    assert complaint(config, root).startswith("config: 'gradient.n_masks' must be at least 20, not")


def test_no_gradient_method_is_listed_by_default():
    assert DEFAULT["gradient"]["methods"] == []


def test_all_mistakes_of_form_are_told_at_once(config, root):
    config["decode"]["beam"] = 0
    config["deletion"]["step"] = 7
    del config["seed"]
    sentences = complaint(config, root).splitlines()
    assert len(sentences) == 3
    for key in ("decode.beam", "deletion.step", "seed"):
        assert sum(f"'{key}'" in sentence for sentence in sentences) == 1, sentences


def test_designs_are_the_main_one_with_changes(config, root):
    config["smx"] |= {"n_segments": [50, 100], "p": 0.5, "target_reliability": 0.9}
    config["smx"]["max_masks"] = 1000
    config["sensitivity"] = [
        {"n_segments": [300, 400], "n_masks": 400},
        {"p": 0.1},
        {"occluded_value": "bin minimum"},
    ]
    designs = plan(config, root).designs
    assert list(designs) == [
        "n_masks-400_n_segments-300-400", "p-0.1", "occluded_value-bin-minimum",
    ]  # fmt: skip
    assert designs["p-0.1"]["p"] == 0.1
    assert designs["p-0.1"]["n_segments"] == [50, 100]
    assert designs["p-0.1"]["n_masks"] == config["smx"]["n_masks"]
    # The search for a reliability belongs to the main design.
    assert not {"target_reliability", "max_masks"} & set(designs["p-0.1"])


def test_without_designs_there_are_none(config, root):
    assert plan(config, root).designs == {}


@pytest.mark.parametrize(
    ("designs", "sentence"),
    [
        (
            [{"p": 0.5}],
            "config: 'sensitivity[0]' is the design of 'smx' itself; change or drop it.",
        ),
        (
            [{"occluded_value": "bin mean"}],
            "config: 'sensitivity[0]' is the design of 'smx' itself; change or drop it.",
        ),
        ([{"p": 0.1}, {"p": 0.1}], "config: 'sensitivity[1]' is there twice; drop one."),
        (
            [{"n_segments": [10, 20, 30, 40, 50], "n_masks": 16}],
            "config: 'sensitivity[0].n_masks' must be at least 20, not 16, for 5 levels of "
            "'sensitivity[0].n_segments': reliability needs 4 masks of each.",
        ),
        ([{}], "config: 'sensitivity[0]' must have at least 1 entry, not 0."),
        (
            [{"beam": 3}],
            "config: unknown key 'sensitivity[0].beam'. Known keys here: n_segments, n_masks, p, "
            "occluded_value.",
        ),
    ],
)
def test_impossible_designs(config, root, designs, sentence):
    config["smx"]["p"] = 0.5
    config["sensitivity"] = designs
    assert complaint(config, root) == sentence


def test_missing_audio(config, root):
    (root / "talks" / "en-3.wav").unlink()
    found = complaint(config, root)
    assert f"{root / 'talks' / 'manifest.tsv'}, line 5: no audio file" in found


def test_audio_that_is_none_is_told_before_any_job(config, root):
    (root / "talks" / "en-3.wav").write_text("not audio")
    study = plan(config, root)
    first, second = study.unusable
    where = f"{root / 'talks' / 'manifest.tsv'}, line 5"
    told = (
        f"1 of 3 recordings cannot be used; {where}: {root / 'talks' / 'en-3.wav'} cannot be read"
    )
    assert first.startswith(f"talks/english/asr-en: {told}")
    assert second.startswith(f"talks/many/asr-en: {told}")
    assert "\n" not in first
    (run, _) = study.runs.values()
    assert list(run.unusable) == ["en-3"]
    assert [one.id for one in run.utterances] == ["en-1", "en-2", "en-3"]


def test_audio_that_is_none_is_refused_where_a_failure_is_to_stop(config, root):
    (root / "talks" / "en-3.wav").write_text("not audio")
    found = complaint(config | {"on_failure": "stop"}, root)
    assert "manifest.tsv, line 5: " in found
    assert "en-3.wav cannot be read as audio" in found


def test_nothing_but_audio_that_is_none_is_refused(config, root):
    for name in ("en-1.wav", "sub/en-2.wav", "en-3.wav"):
        (root / "talks" / name).write_text("not audio")
    found = complaint(config, root)
    assert found.startswith("talks/english/asr-en: 3 of 3 recordings cannot be used; the first: ")


def test_the_hash_of_audio_follows_what_cannot_be_read(config, root, monkeypatch):
    readable = audio_hash(config, root)

    def denied(path):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("s2txai.datasets.audio.file_sha256", denied)
    write_wav(root / "talks" / "en-1.wav", 5)  # else it is remembered
    assert audio_hash(config, root) != readable


def test_an_utterance_longer_than_the_model_accepts(config, root):
    registry = root / "config" / "models.yaml"
    text = registry.read_text()
    assert "licence:" in text
    registry.write_text(text.replace("licence:", "max_seconds: 0.05\n  licence:"))
    found = complaint(config, root)
    assert "accepts at most 0.05 s" in found


# Models and datasets described in the configuration itself


def test_inline_entries(config, root):
    write_manifest(root / "mine" / "list.tsv", ROWS[:1])
    config["datasets"] = {
        "mine": {"manifest": "mine/list.tsv", "description": "Mine.", "licence": "none"}
    }
    entry = dict(read_yaml(root / "config" / "models.yaml")["english"])
    config["models"] = {"tuned": entry | {"source": {"path": "models/tuned"}}}
    config["runs"] = [{"dataset": "mine", "models": ["tuned", "many"], "tasks": ["asr-en"]}]
    study = plan(config, root)
    assert [run.model for run in study.runs.values()] == ["tuned", "many"]
    assert study.runs["mine", "tuned", "asr-en"].shards == {"0000": ["en-1"]}
    assert study.models["tuned"]["source"]["path"] == str(root / "models" / "tuned")
    assert study.datasets["mine"]["manifest"] == "mine/list.tsv"


def test_inline_entries_are_checked_like_those_of_the_tables(config, root):
    config["datasets"] = {"mine": {"manifest": "x.tsv", "describtion": "Mine.", "licence": "none"}}
    found = complaint(config, root)
    assert found.splitlines()[0].startswith("config: datasets: ")
    assert "did you mean 'description'?" in found
    assert "mine" in found
    del config["datasets"]
    config["models"] = {"tuned": {"family": "whisper"}}
    sentences = complaint(config, root).splitlines()
    assert all(sentence.startswith("config: models: ") for sentence in sentences)
    assert len(sentences) == 5  # description, licence, languages, translation_targets, source


def test_tables_of_the_project_are_checked(config, root):
    (root / "config" / "models.yaml").write_text("english:\n  family: whisper\n")
    assert str(root / "config" / "models.yaml") in complaint(config, root)


# Hashes that decide what is done again


def audio_hash(config, root, shard="0000"):
    return plan(config, root).runs["talks", "many", "asr-en"].audio_sha256(shard)


def test_audio_hash_follows_the_audio(config, root):
    before, other_shard = audio_hash(config, root), audio_hash(config, root, "0001")
    write_wav(root / "talks" / "sub" / "en-2.wav", seed=77)
    assert audio_hash(config, root) != before
    assert audio_hash(config, root, "0001") == other_shard


def test_audio_hash_ignores_paths_and_texts(config, root):
    before = audio_hash(config, root)
    (root / "talks" / "moved.wav").write_bytes((root / "talks" / "en-1.wav").read_bytes())
    manifest = root / "talks" / "manifest.tsv"
    row = "\ten-1.wav\ten\tfirst\t"
    assert row in manifest.read_text()
    manifest.write_text(manifest.read_text().replace(row, "\tmoved.wav\ten\tother words\t"))
    assert audio_hash(config, root) == before


def test_reference_hash_follows_the_texts_of_the_task(config, root):
    config["runs"] = [{"dataset": "talks", "models": ["many"], "tasks": ["st-it-en", "asr-it"]}]

    def hashes():
        return [run.references_sha256() for run in plan(config, root).runs.values()]

    before = hashes()
    manifest = root / "talks" / "manifest.tsv"
    manifest.write_text(manifest.read_text().replace("\tsecond\n", "\tanother\n"))
    after = hashes()
    assert after[0] != before[0]  # the translation
    assert after[1] == before[1]  # the transcript


def test_planning_needs_no_torch():
    code = (
        "import sys; from pathlib import Path\n"
        "from s2txai.study.plan import plan; from s2txai.datasets.files import read_yaml\n"
        "root = Path(sys.argv[1]); plan(read_yaml(root / 'config' / 'config.yaml'), root)\n"
        "print(*(name for name in ('torch', 'transformers', 'snakemake') if name in sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(ROOT)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == ""


# The setting of the study: neither its weights nor its speech need be here to plan with them.


@pytest.fixture
def study_root(tmp_path):
    """This project without what it has downloaded."""
    for folder in ("config", "workflow/schemas"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def paper(root):
    return plan(read_config(root, [root / "config" / "paper.yaml"]), root)


def test_the_study_is_planned_without_its_weights_and_speech(study_root):
    study = paper(study_root)
    assert {key[1:] for key in study.runs} == {
        (model, task)
        for model in ("study-base", "fama-small", "fama-medium")
        for task in ("asr-en", "st-en-it", "asr-it", "st-it-en")
    }
    assert {len(run.utterances) for run in study.runs.values()} == {1200}
    assert len(study.missing) == 5
    told = "\n".join(study.missing)
    assert "huggingface.co/FBK-MT/fama-small links to" in told
    assert "huggingface.co/FBK-MT/fama-medium links to" in told
    assert "not published as far as we know" in told
    assert "download EuroParl-ST" in told
    assert str(study_root / "resources" / "checkpoints" / "fama-small") in told


def test_absent_speech_is_no_speech_of_another_language(study_root):
    config = read_config(study_root, [study_root / "config" / "paper.yaml"])
    config["runs"][0]["tasks"] = ["asr-it"]
    with pytest.raises(UserError, match="No utterance is selected for task asr-it"):
        plan(config, study_root)


def test_speech_that_is_there_takes_the_place_of_the_guess(study_root):
    corpus = study_root / "resources" / "corpora" / "europarl-st"
    for source, target in (("en", "it"), ("it", "en")):
        write_wav(corpus / source / "audios" / "speech.wav")
        test = corpus / source / target / "test"
        test.mkdir(parents=True)
        (test / "segments.lst").write_text("speech 0.0 0.1\n")
        for language in (source, target):
            (test / f"segments.{language}").write_text("words\n")
    for name in ("study-base", "fama-small", "fama-medium"):
        (study_root / "resources" / "checkpoints" / name).mkdir(parents=True)
    study = paper(study_root)
    assert {len(run.utterances) for run in study.runs.values()} == {1}
    assert study.missing == ()


@pytest.mark.parametrize(
    ("family", "options", "words"),
    [
        ("whispr", {}, "Unknown model family 'whispr'; did you mean 'whisper'?"),
        ("whisper", {"ctc_weight": 0.2}, "has no option 'ctc_weight', only trust_remote_code"),
        ("whisper", {"trust_remote_code": True}, "must be code that cannot change"),
    ],
)
def test_family_and_options_are_checked(root, config, family, options, words):
    entry = read_yaml(root / "config" / "models.yaml")["english"] | {"family": family}
    if options:
        entry["options"] = options
    with pytest.raises(UserError) as caught:
        plan(config | {"models": {"english": entry}}, root)
    assert words in str(caught.value)


# What a job plans


@pytest.fixture
def opened(monkeypatch):
    """Return the names of the audio files that are opened."""
    names = []
    original = soundfile.SoundFile.__init__

    def note(self, file, *arguments, **options):
        names.append(Path(file).name)
        original(self, file, *arguments, **options)

    monkeypatch.setattr(soundfile.SoundFile, "__init__", note)
    return names


def test_a_job_plans_its_run_alone_and_opens_no_recording(config, root, opened):
    write_manifest(root / "other" / "manifest.tsv", ROWS[:1])
    config["datasets"] = {
        "other": {"manifest": "other/manifest.tsv", "description": "More.", "licence": "CC0"}
    }
    config["runs"].append({"dataset": "other", "models": ["many"], "tasks": ["asr-en"]})
    opened.clear()
    whole = plan(config, root)
    assert set(opened) == {"en-1.wav", "en-2.wav", "en-3.wav"}
    opened.clear()
    # The manifest of another run may be gone.
    (root / "other" / "manifest.tsv").unlink()
    key = ("talks", "many", "asr-en")
    own = plan(config, root, only=key, check_recordings=False)
    assert opened == []
    assert own.runs == {key: whole.runs[key]}
    assert own.models == {"many": whole.models["many"]}
    assert own.designs == whole.designs


def test_a_run_that_no_entry_asks_for_is_refused(config, root):
    with pytest.raises(UserError, match="no entry of 'runs' asks for talks/none/asr-en"):
        plan(config, root, only=("talks", "none", "asr-en"))


def test_the_whole_study_can_be_planned_without_its_recordings(config, root, opened):
    opened.clear()
    runs = list(plan(config, root, check_recordings=False).runs)
    assert opened == []
    assert runs == list(plan(config, root).runs)
    assert opened


def test_gradient_methods_are_in_the_order_of_their_registry(config, root):
    config["gradient"]["methods"] = ["integrated_gradients", "grad"]
    assert plan(config, root).methods == ("grad", "integrated_gradients")


def test_the_plan_says_which_tokeniser_bleu_falls_back_on(monkeypatch):
    def remarks(*tasks):
        runs = {("d", "m", task): Run("d", "m", parse_task(task), (), {}) for task in tasks}
        return Study(runs=runs, models={}, datasets={}).remarks

    monkeypatch.setattr(languages, "find_spec", lambda package: None)
    (sentence,) = remarks("st-en-ko", "st-de-ko", "st-en-zh", "asr-ja")
    assert "BLEU of texts in 'ko' counts characters (tok:char)" in sentence
    monkeypatch.setattr(languages, "find_spec", lambda package: object())
    assert remarks("st-en-ko", "st-en-ja") == []


@pytest.mark.parametrize(
    ("tags", "task", "words"),
    [
        (
            ["<|en|>", "<|fr|>", "<|transcribe|>"],
            "asr-it",
            r"no token <\|it\|> among",
        ),
        ([], "asr-it", "English-only, so it cannot do 'asr-it'"),
        (["<|en|>", "<|it|>", "<|transcribe|>"], "st-it-en", r"no special token <\|translate\|>"),
        (["<|en|>", "<|it|>", "<|transcribe|>"], "asr-it", None),
    ],
)
def test_what_the_files_of_a_model_cannot_do_is_refused(root, config, tags, task, words):
    """Whatever the table of models says."""
    names = ["a", "<|endoftext|>", "<|startoftranscript|>", "<|notimestamps|>", *tags]
    folder = root / "many"
    folder.mkdir()
    vocabulary = {name: number for number, name in enumerate(names)}
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": vocabulary}}))
    source = {"path": str(folder)}
    many = read_yaml(root / "config" / "models.yaml")["many"] | {"source": source}
    config["models"] = {"many": many}
    config["runs"] = [{"dataset": "talks", "models": ["many"], "tasks": [task]}]
    if words is None:
        plan(config, root)
        return
    with pytest.raises(UserError, match=f"config: model 'many': .*{words}"):
        plan(config, root)
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(UserError, match="holds an adapter"):
        plan(config, root)
