"""Which family a folder of files is of."""

import json
import subprocess
import sys

import pytest

from s2txai.errors import UserError
from s2txai.models.families import FAMILIES
from s2txai.models.loading import load_model
from s2txai.models.recognition import family_of
from tests.tiny_models import TINY


@pytest.mark.parametrize("family", TINY)
def test_every_family_is_recognised_by_its_files(tmp_path, family):
    TINY[family](tmp_path)
    assert family_of(tmp_path) == family


def test_a_folder_of_ctranslate2_is_recognised(tmp_path):
    (tmp_path / "model.bin").touch()
    (tmp_path / "config.json").write_text('{"suppress_ids": []}')
    assert family_of(tmp_path) == "whisper"


def test_no_two_families_claim_the_same_models():
    types = [model_type for name in FAMILIES for model_type in FAMILIES[name].model_types]
    layouts = [layout for name in FAMILIES for layout in FAMILIES[name].layouts]
    assert len(set(types)) == len(types)
    assert len(set(layouts)) == len(layouts)
    assert all(FAMILIES[name].model_types or FAMILIES[name].layouts for name in FAMILIES)


@pytest.mark.parametrize("model_type", ["qwen2_audio", "wav2vec2", "voxtral"])
def test_networks_without_cross_attention_are_refused(tmp_path, model_type):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(UserError, match="other networks, such as decoder-only ones, cannot be"):
        family_of(tmp_path)


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, "has neither a 'model_type' in config.json nor the files of one family"),
        ({"model.bin": ""}, "has neither"),
        ({"config.json": "{"}, "has neither"),
        ({"config.json": "[]"}, "has neither"),
        ({"config.json": json.dumps({"model_type": "bert"})}, "holds a model of the type 'bert'"),
        ({"config.json": json.dumps({"model_type": ["whisper"]})}, "of the type"),
        (dict.fromkeys(["a.pt", "a.yaml", "model.bin", "config.json"], ""), "has neither"),
    ],
)
def test_other_folders_are_refused_with_the_list_of_families(tmp_path, files, reason):
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=reason) as raised:
        family_of(tmp_path)
    assert all(name in str(raised.value) for name in FAMILIES)


def test_a_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="No folder"):
        family_of(tmp_path / "nothing")


def test_a_model_is_loaded_by_its_folder_alone(tmp_path):
    TINY["conformer"](tmp_path)
    assert type(load_model(str(tmp_path), device="cpu")).__name__ == "ConformerModel"


def test_unknown_options_and_precisions_are_refused(tmp_path):
    with pytest.raises(UserError, match="'conformer' has no option 'x', only ctc_weight"):
        load_model(tmp_path, "conformer", device="cpu", options={"x": 1})
    with pytest.raises(UserError, match="Unknown precision 'half'; choose one of: auto, float32"):
        load_model(tmp_path, "conformer", device="cpu", precision="half")


def test_recognising_a_family_imports_no_torch():
    code = "import sys, s2txai.models.recognition; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
