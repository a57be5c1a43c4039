"""Result files and store entries of format version 1 are read under the names of today."""

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from s2txai.errors import UserError
from s2txai.hashing import fingerprint
from s2txai.steps.shard import Workplace, forced_of, stored_entry
from s2txai.storage.artifacts import FORMAT_VERSION, load, save
from s2txai.storage.store import Store
from s2txai.storage.versions import ALGORITHM_VERSIONS

SOURCE = {
    "utterance": "u1",
    "model_sha256": "m" * 64,
    "audio_sha256": "a" * 64,
    "task": "asr-en",
}
ROLES = ["prompt", "text", "special", "eos"]
TOKENS = [61, 7, 8, 2]


def write_version_1(path, arrays, axes, step, parameters, version=1):
    """Write a file as the first release did, without the code of today."""
    meta = {
        **SOURCE,
        "step": step,
        "parameters": parameters,
        "axes": axes,
        "units": {},
        "format_version": version,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    members = {**arrays, "meta": np.array(json.dumps(meta, sort_keys=True))}
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in members.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, np.asarray(array), allow_pickle=False)


def write_decode(path, parameters, version=1):
    arrays = {"roles": np.array(ROLES), "tokens": np.array(TOKENS)}
    axes = {name: ["token"] for name in arrays}
    write_version_1(path, arrays, axes, "decode", parameters, version)


def test_forced_tokens_have_their_role(tmp_path):
    write_decode(tmp_path / "u1.npz", {"beam": 5})
    artifact = load(tmp_path / "u1.npz", "decode")
    assert artifact["roles"].tolist() == ["forced", *ROLES[1:]]
    assert artifact["roles"].dtype == np.array(ROLES).dtype
    assert artifact["tokens"].tolist() == TOKENS
    assert forced_of(artifact) == TOKENS[:1]
    assert artifact.meta["parameters"] == {"beam": 5}


@pytest.mark.parametrize(
    ("step", "parameters", "expected"),
    [
        (
            "integrated_gradients",
            {"n_steps": 32, "occluded_value": "bin mean"},
            {"n_points": 32, "occluded_value": "bin mean"},
        ),
        (
            "aggregate",
            {"smx": {"p": 0.5}, "poolings": ["avg2d"], "integrated_gradients": {"n_steps": 32}},
            {"smx": {"p": 0.5}, "poolings": ["avg2d"], "integrated_gradients": {"n_points": 32}},
        ),
        (
            "deletion",
            {"beam": 1, "integrated_gradients": {"n_steps": 8, "precision": "float32"}},
            {"beam": 1, "integrated_gradients": {"n_points": 8, "precision": "float32"}},
        ),
    ],
)
def test_points_of_the_integral_have_their_name(tmp_path, step, parameters, expected):
    # An array of this name means encoder steps, and keeps it.
    arrays = {"n_steps": np.array(12)}
    write_version_1(tmp_path / "u1.npz", arrays, {"n_steps": []}, step, parameters)
    artifact = load(tmp_path / "u1.npz", step)
    assert artifact.meta["parameters"] == expected
    assert artifact["n_steps"] == 12


def test_what_is_saved_again_is_of_the_version_of_today(tmp_path):
    write_decode(tmp_path / "u1.npz", {"beam": 5})
    artifact = load(tmp_path / "u1.npz")
    save(tmp_path / "new.npz", artifact.arrays, artifact.meta)
    again = load(tmp_path / "new.npz")
    assert again.meta["format_version"] == FORMAT_VERSION == 2
    assert again["roles"].tolist() == artifact["roles"].tolist()


@pytest.mark.parametrize("version", [0, 3, None, [], "1"])
def test_other_versions_are_refused(tmp_path, version):
    write_decode(tmp_path / "u1.npz", {}, version)
    with pytest.raises(UserError, match="has format version"):
        load(tmp_path / "u1.npz")


def test_an_entry_of_the_store_is_found_and_read(tmp_path):
    place = Workplace(
        SimpleNamespace(precision="float32", family="whisper"), Store(tmp_path), tmp_path / "output"
    )
    # As the first release computed it: a name of today in it would find nothing.
    key = fingerprint(
        version=ALGORITHM_VERSIONS["decode"],
        precision="float32",
        source=SOURCE,
        parameters={"beam": 5},
    )
    entry = tmp_path / "decode" / "u1" / f"{key}.npz"
    write_decode(entry, {"beam": 5, "precision": "float32"})
    artifact = stored_entry(place, "decode", SOURCE, {"beam": 5})
    assert artifact is not None
    assert artifact["roles"].tolist() == ["forced", *ROLES[1:]]
    assert entry.exists()
