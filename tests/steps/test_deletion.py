"""The step deletion: which hypotheses are decoded, and what is kept of them."""

from dataclasses import replace

import numpy as np

from s2txai.saliency.deletion_maps import map_names
from tests.studies import DELETION, PERCENTS, POOLINGS, TEXTS


def test_deletion_ends_are_the_same_for_every_map(finished):
    for artifact, text in zip(finished.study.read("deletion"), TEXTS.values(), strict=True):
        assert artifact["maps"].tolist() == list(map_names(POOLINGS))
        assert artifact["percents"].tolist() == PERCENTS
        hypotheses = artifact["hypotheses"]
        assert hypotheses.shape == (7, 11)
        assert set(hypotheses[:, 0]) == {text}
        assert len(set(hypotheses[:, -1])) == 1
        assert hypotheses[0, -1] != text
        assert artifact["modes"].tolist() == ["deletion", "insertion"]
        deleted, inserted = artifact["log_probs"]  # (map, percent)
        # All inserted is nothing deleted.
        assert len(set(deleted[:, 0]) | set(inserted[:, -1])) == 1
        assert len(set(deleted[:, -1]) | set(inserted[:, 0])) == 1
        assert (deleted[:, 0] > deleted[:, -1]).all()


def test_insertion_is_decoded_when_asked_for(study):
    for step in (study.decode, study.attention, study.smx, study.smh, study.aggregate):
        step()
    study.deletion(poolings=())
    before, model = study.read("deletion"), study.handle.model
    assert all("insertion_hypotheses" not in one.arrays for one in before)
    model.calls.clear()
    study.deletion(replace(DELETION, insertion=True), poolings=())
    # Deletions and both ends are in the store; the only layer is both the last and the mean.
    assert model.calls["generate"] == 2 * 4 * (len(PERCENTS) - 2)
    for old, new in zip(before, study.read("deletion"), strict=True):
        np.testing.assert_array_equal(new["hypotheses"], old["hypotheses"])
        np.testing.assert_array_equal(new["log_probs"], old["log_probs"])
        inserted = new["insertion_hypotheses"]
        assert set(inserted[:, 0]) == set(old["hypotheses"][:, -1])
        assert set(inserted[:, -1]) == set(old["hypotheses"][:, 0])
    areas = study.scores().areas
    wer = areas[(areas["metric"] == "wer") & (areas["mode"] == "insertion")].set_index("map")
    # The words are there as soon as the cells that hold them are.
    assert wer.at["smx_full", "auc"] < wer.at["random", "auc"] - 10
    log_prob = areas[areas["metric"] == "log_prob"].set_index(["mode", "map"])["auc"]
    assert log_prob["deletion", "smx_full"] < log_prob["deletion", "random"]
    assert log_prob["insertion", "smx_full"] > log_prob["insertion", "random"]


def test_one_more_map_decodes_only_that_map(study):
    for step in (study.decode, study.attention, study.smx, study.smh, study.aggregate):
        step()
    model = study.handle.model
    study.deletion(poolings=("avg2d",))
    before = study.read("deletion")
    model.calls.clear()
    study.deletion(poolings=("avg2d", "max2d"))
    inner = len(PERCENTS) - 2  # both ends are known
    assert model.calls["generate"] == 2 * inner
    for old, new in zip(before, study.read("deletion"), strict=True):
        maps = list(map_names(("avg2d", "max2d")))
        assert new["maps"].tolist() == maps
        kept = [maps.index(name) for name in old["maps"]]
        assert sorted(set(range(len(maps))) - set(kept)) == [maps.index("smx_max2d")]
        np.testing.assert_array_equal(new["hypotheses"][kept], old["hypotheses"])
