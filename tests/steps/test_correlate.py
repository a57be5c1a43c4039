"""The step writes the tables of its artefacts, whose maps it lets go one by one."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.steps.correlate import OUTPUTS, correlate_run, correlation_tables
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from tests.analysis.test_correlations import POOLINGS, aggregated

RUN = Run("d", "m", parse_task("asr-en"), utterances=(), shards={})
OPTIONS = {"poolings": POOLINGS, "rows": "all", "seed": 3}
PARQUET = ("rows", "heads")


def artifacts():
    return [aggregated("u1", 1), aggregated("u2", 2)]


def read(path):
    return pd.read_parquet(path) if path.suffix == ".parquet" else pd.read_csv(path)


def test_every_table_is_written(tmp_path):
    outputs = {
        name: tmp_path / f"{name}.{'parquet' if name in PARQUET else 'csv'}" for name in OUTPUTS
    }
    correlate_run(RUN, iter(artifacts()), outputs, **OPTIONS)
    tables = correlation_tables(artifacts(), **OPTIONS)
    for name, path in outputs.items():
        written = read(path)
        assert list(written)[:3] == ["dataset", "model", "task"]
        assert (written["task"] == "asr-en").all()
        if name != "heads":
            assert len(written) > 0
    heads, rest = read(outputs["heads"]), read(outputs["utterances"])
    assert set(heads["attention"]) == {"ca_head"}
    assert set(rest["attention"]) == {"ca_mean", "ca_layer"}
    assert len(heads) + len(rest) == len(tables.utterances)
    np.testing.assert_allclose(read(outputs["summary"])["rho"], tables.summary["rho"])


def test_maps_are_let_go_one_by_one():
    alive = weakref.WeakSet()
    most = []

    class Watched(np.ndarray):
        pass

    def shards():
        for artifact in (aggregated(f"u{n}", n) for n in range(4)):
            watched = artifact["smh"].view(Watched)
            alive.add(Held(watched))
            yield Artifact({**artifact.arrays, "smh": watched}, artifact.meta)
            del watched, artifact
            gc.collect()
            most.append(len(alive))

    class Held:
        """An array cannot be hashed; this lives as long as its array."""

        def __init__(self, array):
            array.held = self

    correlation_tables(shards(), **OPTIONS)
    assert max(most) <= 2


def test_maps_of_other_parameters_are_refused(tmp_path):
    first, second = artifacts()
    meta = second.meta | {"parameters": {**second.meta["parameters"], "smx": {"p": 0.9}}}
    first, second = (
        replace(first, path=tmp_path / "u1.npz"),
        Artifact(second.arrays, meta, tmp_path / "u2.npz"),
    )
    message = r"u1\.npz and .*u2\.npz hold smx maps made with different parameters: delete"
    with pytest.raises(UserError, match=message):
        correlation_tables([first, second], **OPTIONS)
