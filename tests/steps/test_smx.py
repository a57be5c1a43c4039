"""The step smx."""

import json
import re

import pytest
import torch

from s2txai.errors import UserError
from s2txai.report.show import describe_file
from s2txai.storage.artifacts import load
from tests.studies import Study, write_corpus
from tests.toy import HardOfHearing


def test_the_job_tells_where_and_how_it_worked(study):
    study.decode()
    study.smx(batch_size="auto")
    (folder,) = {path.parent for path in study.results.glob("smx/*/*.npz")}
    for utterance in study.ids:
        told = json.loads((folder / f"{utterance}.job.json").read_text())
        assert told["host"]
        assert told["device"] == "cpu"
        assert 1 <= told["batch_size"] <= 16
        assert told["masks_computed"] == 600
        assert told["seconds"] > 0
        meta = json.dumps(load(folder / f"{utterance}.npz").meta)
        assert told["host"] not in meta
        assert "batch" not in meta
    study.smx()
    told = json.loads((folder / "five.job.json").read_text())
    assert told["masks_computed"] == 0


@pytest.mark.parametrize("batch_size", [32, "auto"])
def test_an_input_that_does_not_fit_by_itself_is_a_sentence(study, batch_size):
    study.decode()

    def no_memory(states, prompt, tokens):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    study.handle.model.decode = no_memory
    with pytest.raises(UserError, match="not even hold a forward pass of one input"):
        study.smx(batch_size=batch_size)


def test_how_masks_were_scored_is_said_beside_the_numbers(tmp_path):
    study = Study(tmp_path, write_corpus(tmp_path), HardOfHearing(error=0.005))
    study.decode()
    study.attention()
    study.smx(encoder="auto", check=0.1)
    study.smh()
    study.aggregate()
    artifact = study.read("smx")[0]
    assert artifact.meta["parameters"]["encoder"] == "auto"
    assert artifact.meta["parameters"]["check"] == 0.1
    text = describe_file(artifact)
    assert "scored      by a cheaper encoder, 10 % also exactly" in text
    assert re.search(
        r"^fidelity    [01]\.\d{4} \(worst row [01]\.\d{4}\), bias [+-]0\.\d\d %, not unbiased "
        r"after correction$", text, re.MULTILINE,
    )  # fmt: skip
    masks = study.correlate().masks.set_index(["utterance", "step"])
    of_smx = masks.xs("smx", level="step")
    assert (of_smx["encoder"] == "cheap").all()
    assert (of_smx["check_share"] == 0.1).all()
    # 24 of the pilot, and a tenth of 600.
    assert of_smx["n_scored_both_ways"].between(24 + 56, 24 + 60).all()
    assert (of_smx["score_correlation"] > 0.999).all()
    assert of_smx["score_bias_percent"].abs().lt(1).all()
    assert masks.xs("smh", level="step")["encoder"].isna().all()
    summary = study.correlate().summary
    of_map = summary[summary["saliency"] == "smx_avg2d"]["signature"]
    assert of_map.str.contains("encoder:auto").all()
    assert of_map.str.contains("check:0.1").all()


def test_exact_masks_are_not_those_of_the_cheap_encoder(tmp_path):
    study = Study(tmp_path, write_corpus(tmp_path), HardOfHearing(error=0.005))
    study.decode()
    study.smx()
    exact = study.read("smx")[0]
    study.smx(encoder="auto", check=0.1)
    cheap = study.read("smx")[0]
    assert "check_share" not in exact.arrays
    assert cheap["check_share"] == 0.1
    assert not (cheap["occluded_sum"] == exact["occluded_sum"]).all()
    study.smx()
    assert (study.read("smx")[0]["occluded_sum"] == exact["occluded_sum"]).all()


def test_more_cheap_masks_extend_a_result(tmp_path):
    utterances = write_corpus(tmp_path)
    grown = Study(tmp_path, utterances, HardOfHearing(error=0.005))
    grown.decode()
    grown.smx(encoder="auto", check=0.1, n_masks=256)
    grown.handle.model.calls.clear()
    grown.smx(encoder="auto", check=0.1)
    assert grown.handle.model.calls["cheap"] == 2 * (600 - 256)
    whole = Study(tmp_path / "whole", utterances, HardOfHearing(error=0.005))
    whole.decode()
    whole.smx(encoder="auto", check=0.1)
    for one, other in zip(grown.read("smx"), whole.read("smx"), strict=True):
        assert one.arrays.keys() == other.arrays.keys()
        assert all((one[name] == other[name]).all() for name in one.arrays)
