"""The step smx."""

import json

import pytest
import torch

from s2txai.errors import UserError
from s2txai.storage.artifacts import load


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
