"""The step deletion: which hypotheses are decoded, and what is kept of them."""

from dataclasses import replace

import numpy as np
import pytest

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
        assert artifact["modes"].tolist() == ["deletion"]
        (deleted,) = artifact["log_probs"]  # (map, percent)
        assert len(set(deleted[:, 0])) == len(set(deleted[:, -1])) == 1
        assert (deleted[:, 0] > deleted[:, -1]).all()


def test_insertion_is_computed_when_asked_for(study):
    for step in (study.decode, study.attention, study.smx, study.smh, study.aggregate):
        step()
    study.deletion(poolings=())
    neither, model = study.read("deletion"), study.handle.model
    assert set(study.scores().areas["mode"]) == {"deletion"}
    # Deletions and both ends are in the store; the only layer is both the last and the mean.
    further = 2 * 4 * (len(PERCENTS) - 2)
    model.calls.clear()
    study.deletion(replace(DELETION, insertion="log_prob"), poolings=())
    assert model.calls == {"encode": further, "decode": further}
    scored = study.read("deletion")
    model.calls.clear()
    study.deletion(replace(DELETION, insertion="decode"), poolings=())
    assert model.calls == {"encode": further, "decode": further, "generate": further}
    for none, old, new in zip(neither, scored, study.read("deletion"), strict=True):
        assert old["modes"].tolist() == new["modes"].tolist() == ["deletion", "insertion"]
        assert "insertion_hypotheses" not in old.arrays
        np.testing.assert_array_equal(old["log_probs"][:1], none["log_probs"])
        np.testing.assert_array_equal(new["log_probs"], old["log_probs"])
        for one in (none, old):
            np.testing.assert_array_equal(new["hypotheses"], one["hypotheses"])
        # All inserted is nothing deleted.
        deleted, inserted = new["log_probs"]
        assert len(set(deleted[:, 0]) | set(inserted[:, -1])) == 1
        assert len(set(deleted[:, -1]) | set(inserted[:, 0])) == 1
        inserted = new["insertion_hypotheses"]
        assert set(inserted[:, 0]) == set(new["hypotheses"][:, -1])
        assert set(inserted[:, -1]) == set(new["hypotheses"][:, 0])
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


def test_a_stopped_utterance_keeps_its_finished_curves(study, tmp_path):
    """With batches of as many inputs as a map has, a map is in the store before the next begins."""
    for step in (study.decode, study.attention, study.smx, study.smh, study.aggregate):
        step()
    model = study.handle.model
    encode, n_encoded = model.encode, []

    def interrupted(inputs, padding_value):
        n_encoded.append(len(inputs))
        if sum(n_encoded) > 3 * (len(PERCENTS) - 2):
            raise KeyboardInterrupt
        return encode(inputs, padding_value)

    model.encode = interrupted
    with pytest.raises(KeyboardInterrupt):
        study.deletion(poolings=(), batch_size=len(PERCENTS) - 2)
    model.encode = encode
    # Both ends, attention, whose only layer is the last and the mean, and SMX; not random order.
    assert len(list((tmp_path / "store" / "deletion").rglob("*.npz"))) == 1 + 2
    model.calls.clear()
    study.deletion(poolings=())
    assert model.calls["generate"] == 2 * (2 + 4 * (len(PERCENTS) - 2)) - 2 - 2 * (
        len(PERCENTS) - 2
    )
