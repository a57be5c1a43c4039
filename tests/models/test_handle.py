"""The handle: what a model's identity takes, and how a job loads it."""

import pytest

from s2txai.models.handle import ModelHandle
from s2txai.models.options import read_options, write_options
from tests.tiny_models import TINY


def handle(family, directory):
    TINY[family](directory)
    return ModelHandle(family, directory, device="cpu", precision="auto")


def test_identity_and_precision_need_no_loading(tmp_path, monkeypatch):
    place = handle("whisper", tmp_path)
    monkeypatch.setattr("s2txai.models.handle.load_model", None)
    assert place.precision == "float32"
    assert len(place.sha256) == 64


@pytest.mark.parametrize("options", [{}, {"ctc_weight": 0.25}])
def test_a_job_passes_on_the_options_that_lie_beside_the_weights(tmp_path, options):
    place = handle("conformer", tmp_path)
    write_options(tmp_path, options)
    assert read_options(tmp_path) == options
    assert place.model._ctc_weight == options.get("ctc_weight", 0.0)


def test_options_are_part_of_the_identity(tmp_path):
    without = handle("conformer", tmp_path).sha256
    write_options(tmp_path, {"ctc_weight": 0.25})
    assert ModelHandle("conformer", tmp_path, device="cpu", precision="auto").sha256 != without
