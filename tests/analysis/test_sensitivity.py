"""Designs of the perturbation, compared on a model that reads a known part of the input."""

from dataclasses import replace

import numpy as np
import pytest

from s2txai.analysis.sensitivity import MAIN, across_halves
from s2txai.errors import UserError
from s2txai.saliency.correlation import correlation
from s2txai.saliency.occluded_values import OCCLUDED_VALUES
from s2txai.saliency.reliability import half_correlation, split_half
from s2txai.saliency.statistics import HALVES, Statistics
from s2txai.steps.sensitivity import sensitivity_table
from s2txai.steps.smx import smx_shard
from s2txai.storage.artifacts import load_shard
from tests.studies import SMX, Study, write_corpus
from tests.toy import WordModel

FEATURES = np.array([[1.0, 5.0], [3.0, 4.0], [2.0, 9.0]], np.float32)


@pytest.mark.parametrize(
    ("name", "expected"), [("bin mean", [2, 6]), ("bin minimum", [1, 4]), ("padding", [-7, -7])]
)
def test_occluded_values(name, expected):
    found = OCCLUDED_VALUES[name](FEATURES, -7.0)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected)


def test_unknown_occluded_value():
    with pytest.raises(UserError, match="Unknown occluded value 'bin man'; did you mean"):
        OCCLUDED_VALUES["bin man"]


DESIGNS = {
    MAIN: {},
    "n_segments-40": {"n_segments": (40,)},
    "p-0.9": {"p": 0.9},
    "again": {"seed": 2},
}


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("designs")
    found = Study(root, write_corpus(root), WordModel())
    for step in (found.decode, found.attention, found.smx, found.smh, found.aggregate):
        step()
    return found


@pytest.fixture(scope="module")
def designs(study):
    made = {}
    for name, changes in DESIGNS.items():
        perturb(study, name, **changes)
        made[name] = read(study, name)
    return made


def perturb(study, name, decoded=None, **changes):
    decoded = study.read("decode") if decoded is None else decoded
    smx_shard(study.place(name), decoded, replace(SMX, **changes), batch_size=32)


def read(study, name):
    return load_shard(study.place(name).output, study.ids, "smx")


@pytest.fixture(scope="module")
def table(study, designs):
    return sensitivity_table(study.read("aggregate"), designs, rows="all", estimator="mean")


def of_all_heads(table):
    return table[table["attention"] == "ca_mean"].set_index("design")


def test_a_row_for_each_design_and_choice_of_heads(table, designs):
    layers = sorted(table["layer"].dropna().unique())
    assert layers
    assert list(table["design"].unique()) == list(designs)
    assert len(table) == len(designs) * (1 + len(layers))


def test_the_main_design_is_the_headline(table, study):
    summary = study.correlate().summary
    summary = summary[
        (summary["saliency"] == "smx_avg2d")
        & (summary["metric"] == "pearson")
        & (summary["normalise"] == "token")
        & summary["attention"].isin(["ca_mean", "ca_layer"])
    ]
    main = table[table["design"] == MAIN]
    for column in ("rho", "reliability", "rho_corrected"):
        np.testing.assert_allclose(main[column], summary[column], rtol=1e-4)


def test_designs_say_what_they_are(table):
    rows = of_all_heads(table)
    assert rows["n_segments"].to_dict() == {
        MAIN: "400 800", "n_segments-40": "40", "p-0.9": "400 800", "again": "400 800",
    }  # fmt: skip
    assert rows.loc["p-0.9", "p"] == 0.9
    assert (rows["occluded_value"] == "bin mean").all()
    assert rows["signature"].nunique() == len(DESIGNS)
    assert "p:0.9" in rows.loc["p-0.9", "signature"]


def test_coarse_segments_blur_the_map(table):
    rows = of_all_heads(table)
    # A segment covers several words: the map cannot tell them apart, however many masks it has.
    assert rows.loc["n_segments-40", "reliability"] > 0.8
    assert rows.loc["n_segments-40", "rho_corrected"] < rows.loc[MAIN, "rho_corrected"] - 0.1
    assert rows.loc["n_segments-40", "rho_with_main_corrected"] < 0.9


def test_other_masks_of_the_same_design_measure_the_same(table):
    rows = of_all_heads(table)
    assert rows.loc["again", "rho_with_main"] < 0.999
    assert rows.loc["again", "rho_with_main_corrected"] == pytest.approx(1, abs=0.05)
    assert rows.loc["again", "rho_corrected"] == pytest.approx(
        rows.loc[MAIN, "rho_corrected"], abs=0.05
    )
    assert rows.loc[MAIN, "rho_with_main"] == pytest.approx(1)


def test_noise_that_two_designs_share_is_no_agreement():
    """The same masks, and scores of two models that have nothing in common but the noise."""
    rng = np.random.default_rng(0)
    signals = rng.standard_normal((2, 8, 40))
    common = 1.5 * rng.standard_normal((4, 8, 40))  # by fold
    maps = signals[:, None] + common  # (design, fold, I, T')
    halves = np.array(
        [[[one[list(folds)].mean(axis=0) for folds in pair] for pair in HALVES] for one in maps]
    )
    assert correlation(maps[0].mean(axis=0), maps[1].mean(axis=0)).value > 0.2
    assert across_halves(*halves) == pytest.approx(0, abs=0.1)
    assert across_halves(halves[0], halves[0]) == pytest.approx(half_correlation(halves[0]))


def test_a_design_in_the_store_is_not_computed_again(study):
    other = Study(study.results.parent, study.utterances, None, "other")
    perturb(other, "p-0.9", study.read("decode"), p=0.9)
    for found, wanted in zip(read(other, "p-0.9"), read(study, "p-0.9"), strict=True):
        np.testing.assert_array_equal(found["occluded_sum"], wanted["occluded_sum"])


def test_reliability_is_that_of_the_map(table, designs):
    halves = [
        split_half(Statistics.from_mapping(artifact.arrays), "avg2d")
        for artifact in designs["p-0.9"]
    ]
    found = of_all_heads(table).loc["p-0.9", "reliability"]
    assert found == pytest.approx(np.mean(halves), abs=0.02)


def test_another_occluded_value_is_another_map(study):
    perturb(study, "quiet", occluded_value="bin minimum")
    for quiet, main in zip(read(study, "quiet"), study.read("smx"), strict=True):
        assert quiet.meta["parameters"]["occluded_value"] == "bin minimum"
        sums = [artifact["occluded_sum"].sum(axis=0).T for artifact in (quiet, main)]
        assert correlation(*sums).value < 0.999
