"""Importing the package and loading a model change nothing that the process shares."""

import logging
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from s2txai.datasets import parse_task
from s2txai.models.base import tf32_products
from s2txai.models.loading import load_model
from s2txai.models.process import configure_process
from s2txai.steps.shard import Workplace
from tests.tiny_models import TINY

ROOT = Path(__file__).parents[2]

# The first import brings in the libraries, which may set what they like; the second does not.
IMPORTS = """
import importlib, pkgutil, sys, warnings
import matplotlib, torch, transformers
from tests.models.test_process import state

def import_all():
    import s2txai
    for module in pkgutil.walk_packages(s2txai.__path__, "s2txai."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)

import_all()
for name in [name for name in sys.modules if name.split(".")[0] == "s2txai"]:
    del sys.modules[name]
torch.set_num_threads(3)
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
transformers.logging.set_verbosity_info()
before = state(), list(warnings.filters), dict(matplotlib.rcParams)
import_all()
assert (state(), list(warnings.filters), dict(matplotlib.rcParams)) == before
"""


def state():
    """Return what torch and logging keep for the whole process."""
    loggers = {
        name: (log.level, log.disabled, list(log.filters), list(log.handlers))
        for name, log in [("root", logging.getLogger()), *logging.root.manager.loggerDict.items()]
        if isinstance(log, logging.Logger) and not name.startswith("s2txai")
    }
    return {
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "tf32": (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
        "dtype": torch.get_default_dtype(),
        "verbosity": transformers.logging.get_verbosity(),
        "changed loggers": {name: facts for name, facts in loggers.items() if any(facts)},
    }


@pytest.mark.parametrize("family", ["whisper", "conformer"])
def test_loading_and_running_a_model_change_nothing(tmp_path, family):
    TINY[family](tmp_path)
    before = state()
    model = load_model(tmp_path, family, device="cpu", precision="bfloat16")
    assert state() == before
    prompt = model.prompt(parse_task("asr-en"))
    features = torch.randn(1, 40, 80 if family == "conformer" else model._extractor.feature_size)
    model.generate(model.encode(features, 0.0), prompt, beam=2, max_new_tokens=3)
    assert state() == before


def test_importing_every_module_changes_nothing():
    subprocess.run([sys.executable, "-c", IMPORTS], cwd=ROOT, check=True)


@pytest.fixture
def process():
    threads, verbosity = torch.get_num_threads(), transformers.logging.get_verbosity()
    switches = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    yield
    torch.set_num_threads(threads)
    transformers.logging.set_verbosity(verbosity)
    torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = switches


@pytest.mark.parametrize(("precision", "rounds"), [("tf32", True), ("float32", False)])
def test_a_job_has_its_process_for_itself(process, precision, rounds):
    configure_process(precision=precision, threads=1, quiet=True)
    assert state()["threads"][0] == 1
    assert state()["tf32"] == (rounds, rounds)
    assert state()["verbosity"] == logging.ERROR


@pytest.mark.parametrize("threads", [1, 3])
def test_a_place_of_work_computes_with_the_threads_of_its_job(process, tmp_path, threads):
    (tmp_path / "model").mkdir()
    place = Workplace.open(
        "whisper", tmp_path / "model", tmp_path,
        compute={"device": "cpu", "precision": "auto"}, threads=threads, on_failure="stop",
        store=tmp_path / "store",
    )  # fmt: skip
    assert place.model.precision == "float32"
    assert state()["threads"][0] == threads


@pytest.mark.parametrize("allowed", [True, False])
@pytest.mark.parametrize("before", [True, False])
def test_a_pass_on_a_gpu_sets_the_switches_back(process, allowed, before):
    configure_process(precision="tf32" if before else "float32", threads=1)
    with tf32_products(torch.device("cuda"), allowed=allowed):
        assert state()["tf32"] == (allowed, allowed)
    assert state()["tf32"] == (before, before)
    with tf32_products(torch.device("cpu"), allowed=allowed):
        assert state()["tf32"] == (before, before)
