"""The step aggregate."""

from dataclasses import replace

import numpy as np
import pytest

from s2txai.errors import UserError
from s2txai.steps.aggregate import aggregate_shard
from tests.studies import POOLINGS, again


def test_aggregate_holds_what_correlate_needs(finished):
    for artifact, smh in zip(
        finished.study.read("aggregate"), finished.study.read("smh"), strict=True
    ):
        n_rows, steps = artifact["smh"].shape
        assert artifact["smx_max2d_halves"].shape == (3, 2, n_rows, steps)
        assert artifact["ca_mean"].shape == (n_rows, steps)
        total = smh["occluded_sum"].sum(axis=0) / smh["occluded_count"].sum(axis=0)[:, None]
        np.testing.assert_allclose(artifact["smh"], total.T, rtol=1e-6)
        assert artifact["n_masks_smx"] == 600
        assert artifact.meta["parameters"]["smx"]["n_segments"] == [400, 800]


def test_mixed_hypotheses_are_refused(finished, tmp_path):
    decoded, attention, smx, smh = (
        finished.study.read(step) for step in ("decode", "attention", "smx", "smh")
    )
    other = [replace(one, meta=one.meta | {"hypothesis_sha256": "0" * 64}) for one in smh]
    with pytest.raises(UserError, match="hypothesis_sha256 differs"):
        aggregate_shard(tmp_path, decoded, attention, smx, other, poolings=POOLINGS)


def test_another_pooling_needs_no_model(finished):
    other = again(finished, "pooling")
    for step in (other.decode, other.attention, other.smx, other.smh):
        step()
    other.aggregate(poolings=("max_freq_avg_time",))
    assert all("smx_max_freq_avg_time" in one.arrays for one in other.read("aggregate"))
