"""The step pools the maps of every design and writes one table."""

import numpy as np
import pandas as pd
import pytest

from s2txai.analysis.sensitivity import MAIN, DesignMap, sensitivity
from s2txai.datasets import parse_task
from s2txai.errors import UserError
from s2txai.saliency.pooling import pool
from s2txai.saliency.statistics import HALVES
from s2txai.steps import sensitivity as step
from s2txai.steps.plain import utterance_data
from s2txai.storage.artifacts import Artifact
from s2txai.study.plan import Run
from tests.analysis.test_correlations import STEPS, I, aggregated

RUN = Run("d", "m", parse_task("asr-en"), utterances=(), shards={})
OPTIONS = {"rows": "all", "estimator": "mean"}
PARAMETERS = {"n_segments": [50, 100], "p": 0.5, "occluded_value": "bin mean", "seed": 1}
R, F = 2, 3


def smx(utterance, seed, **parameters):
    """Return an artefact whose array ``cells`` [4, I, T, F] holds a map of each fold."""
    cells = np.random.default_rng(seed).random((4, I, R * STEPS, F))
    arrays = {"cells": cells, "subsampling": np.array(R), "n_steps": np.array(STEPS)}
    meta = {"utterance": utterance, "parameters": PARAMETERS | parameters,
            "masks": {"n_masks": 100 + seed}}  # fmt: skip
    return Artifact(arrays, meta)


def mean_of_folds(artifact, estimator):
    assert estimator == "mean"
    return lambda folds: artifact["cells"][list(folds)].mean(axis=0)


@pytest.fixture
def maps(monkeypatch):
    monkeypatch.setattr(step, "maps_of", mean_of_folds)
    return [aggregated("u1", 1), aggregated("u2", 2)]


def test_the_table_is_that_of_pooled_maps(tmp_path, maps):
    designs = {
        MAIN: [smx("u1", 1), smx("u2", 2)],
        "p-0.9": [smx("u1", 3, p=0.9), smx("u2", 4, p=0.9)],
    }
    step.sensitivity_run(RUN, maps, designs, tmp_path / "sensitivity.csv", **OPTIONS)
    written = pd.read_csv(tmp_path / "sensitivity.csv")

    def pooled(artifact):
        of_folds = mean_of_folds(artifact, "mean")
        full, *halves = (
            pool(of_folds(folds), "avg2d", R, STEPS)
            for folds in (range(4), *(folds for pair in HALVES for folds in pair))
        )
        return DesignMap(
            full, np.array(halves).reshape(3, 2, I, STEPS),
            artifact.meta["parameters"], artifact.meta["masks"]["n_masks"],
        )  # fmt: skip

    expected = sensitivity(
        [utterance_data(artifact) for artifact in maps],
        {name: [pooled(artifact) for artifact in of_design] for name, of_design in designs.items()},
        **OPTIONS,
    )
    assert written["design"].unique().tolist() == [MAIN, "p-0.9"]
    assert written["n_masks"].unique().tolist() == ["101-102", "103-104"]
    np.testing.assert_allclose(written["rho"], expected["rho"], rtol=1e-12)
    np.testing.assert_allclose(written["rho_with_main"], expected["rho_with_main"], rtol=1e-12)
    assert written["signature"].tolist() == expected["signature"].tolist()


def test_other_utterances_are_refused(maps):
    designs = {MAIN: [smx("u1", 1), smx("u2", 2)], "p-0.9": [smx("u2", 3), smx("u1", 4)]}
    with pytest.raises(UserError, match=r"utterance differs \(u1, u2\)"):
        step.sensitivity_table(maps, designs, **OPTIONS)
