import json
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from s2txai.errors import UserError
from s2txai.storage.artifacts import (
    FORMAT_VERSION,
    Artifact,
    check_same_source,
    load,
    load_shard,
    save,
)

ARRAYS = {
    "log_probs": np.array([-0.5, -1.25], np.float32),
    "pieces": np.array(["to", "día"]),
    "padding_value": np.float32(-1.5),
}
AXES = {"log_probs": ["token"], "pieces": ["token"], "padding_value": []}


def meta(axes=AXES, **changes):
    return {
        "step": "decode",
        "utterance": "u1",
        "dataset": "speech",
        "model": "tiny",
        "model_sha256": "m" * 64,
        "audio_sha256": "a" * 64,
        "task": "asr-en",
        "parameters": {"beam": 5},
        "axes": axes,
        "units": {"log_probs": "nat"},
        **changes,
    }


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "decode" / "0000" / "u1.npz"
    save(path, ARRAYS, meta())
    return path


def rewrite(path, member, content):
    """Replace one member of an archive, or remove it when the content is None."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members[member] = content
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in members.items():
            if data is not None:
                archive.writestr(name, data)


def rewrite_meta(path, content):
    with zipfile.ZipFile(path, "a") as archive, archive.open("new.npy", "w") as member:
        np.lib.format.write_array(member, np.array(content))
    with zipfile.ZipFile(path) as archive:
        data = archive.read("new.npy")
    rewrite(path, "new.npy", None)
    rewrite(path, "meta.npy", data)


def test_round_trip(path):
    artifact = load(path, "decode")
    assert set(artifact.arrays) == set(ARRAYS)
    for name, array in ARRAYS.items():
        np.testing.assert_array_equal(artifact[name], array)
        assert artifact[name].dtype == np.asarray(array).dtype
    assert artifact.meta == meta(format_version=FORMAT_VERSION)
    assert artifact.path == path


def test_numpy_opens_it(path):
    with np.load(path, allow_pickle=False) as archive:
        np.testing.assert_array_equal(archive["pieces"], ARRAYS["pieces"])
        assert json.loads(str(archive["meta"]))["utterance"] == "u1"


@settings(max_examples=40, deadline=None)
@given(
    array=hnp.arrays(
        st.one_of(hnp.floating_dtypes(), hnp.integer_dtypes(), hnp.unicode_string_dtypes()),
        hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
    ),
    fortran=st.booleans(),
)
def test_round_trip_of_any_array(tmp_path_factory, array, fortran):
    path = tmp_path_factory.mktemp("any") / "u1.npz"
    given_array = np.asarray(array, order="F") if fortran else array
    axes = {"x": [f"axis{n}" for n in range(array.ndim)]}
    save(path, {"x": given_array}, meta(axes))
    read = load(path)["x"]
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_same_content_gives_same_bytes(tmp_path, monkeypatch):
    save(tmp_path / "first.npz", ARRAYS, meta())
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    monkeypatch.setattr("time.time", lambda: 2e9)
    backwards = dict(reversed(ARRAYS.items()))
    save(tmp_path / "second.npz", backwards, dict(reversed(meta().items())))
    assert (tmp_path / "first.npz").read_bytes() == (tmp_path / "second.npz").read_bytes()


def test_layout_in_memory_does_not_show_in_the_bytes(tmp_path):
    maps = np.arange(6.0).reshape(2, 3)
    for name, array in [("c", maps), ("fortran", np.asfortranarray(maps))]:
        save(tmp_path / name, {"map": array}, meta({"map": ["token", "step"]}))
    assert (tmp_path / "c").read_bytes() == (tmp_path / "fortran").read_bytes()


def test_failed_writing_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    before = path.read_bytes()

    def full_disk(*_args, **_kwargs):
        raise OSError("No space left on device")

    monkeypatch.setattr(np.lib.format, "write_array", full_disk)
    with pytest.raises(OSError, match="No space"):
        save(path, ARRAYS, meta())
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_objects_are_refused(tmp_path):
    with pytest.raises(TypeError, match="pieces"):
        save(tmp_path / "x.npz", {"pieces": np.array(["a", None])}, meta({"pieces": ["token"]}))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("key", ["step", "utterance", "model_sha256", "audio_sha256", "axes"])
def test_incomplete_meta_is_refused(tmp_path, key):
    incomplete = meta()
    del incomplete[key]
    with pytest.raises(ValueError, match=key):
        save(tmp_path / "x.npz", ARRAYS, incomplete)


@pytest.mark.parametrize("axes", [{**AXES, "pieces": ["token", "frame"]}, {"log_probs": ["token"]}])
def test_wrong_axes_are_not_written(tmp_path, axes):
    with pytest.raises(ValueError, match="pieces"):
        save(tmp_path / "x.npz", ARRAYS, meta(axes))


def test_missing_file(tmp_path):
    with pytest.raises(UserError, match=r"absent\.npz does not exist"):
        load(tmp_path / "absent.npz")


def test_pickles_are_refused(path, tmp_path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (ran.touch, ())

    np.savez(path, payload=np.array([Payload()], dtype=object))
    with pytest.raises(UserError, match=str(path)):
        load(path)
    assert not ran.exists()


def test_foreign_files_are_refused(path):
    for content in [b"", b"not a zip", b"\x80\x04N."]:
        path.write_bytes(content)
        with pytest.raises(UserError, match=str(path)):
            load(path)
    np.savez(path, log_probs=ARRAYS["log_probs"])
    with pytest.raises(UserError, match="not written by s2txai"):
        load(path)


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
def test_truncated_files_are_refused(path, kept):
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(UserError, match="cannot be read"):
        load(path)


def test_flipped_bits_never_change_what_is_read(path):
    """Every bit of the numbers is under a checksum; elsewhere a flip is refused or harmless."""
    content, intact = path.read_bytes(), load(path)
    refused = 0
    for position in range(len(content)):
        damaged = bytearray(content)
        damaged[position] ^= 1 << (position % 8)
        path.write_bytes(damaged)
        try:
            artifact = load(path)
        except UserError:
            refused += 1
            continue
        assert artifact.meta == intact.meta
        for name, array in intact.arrays.items():
            np.testing.assert_array_equal(artifact[name], array)
    assert refused > len(content) / 2


def test_other_format_version_is_refused(path):
    rewrite_meta(path, json.dumps(meta(format_version=FORMAT_VERSION + 1)))
    with pytest.raises(UserError, match=f"format version {FORMAT_VERSION + 1}, not"):
        load(path)


@pytest.mark.parametrize("content", ["{", "[1]", 7])
def test_unreadable_meta_is_refused(path, content):
    rewrite_meta(path, content)
    with pytest.raises(UserError, match="no readable 'meta'"):
        load(path)


def test_lacking_meta_is_refused(path):
    rewrite_meta(path, json.dumps({"format_version": FORMAT_VERSION, "step": "decode"}))
    with pytest.raises(UserError, match="audio_sha256"):
        load(path)


def test_wrong_step_is_refused(path):
    with pytest.raises(UserError, match="'decode', not 'smx'"):
        load(path, "smx")


@pytest.mark.parametrize("axes", [{**AXES, "pieces": ["token", "frame"]}, {"log_probs": ["token"]}])
def test_wrong_axes_are_refused(path, axes):
    rewrite_meta(path, json.dumps(meta(axes, format_version=FORMAT_VERSION)))
    with pytest.raises(UserError, match=r"contradicts itself.*pieces"):
        load(path)


def test_missing_array_is_named_with_those_there(path):
    with pytest.raises(UserError, match=r"no array 'features', only log_probs, padding_value"):
        load(path)["features"]


@pytest.mark.parametrize(
    "key", ["utterance", "model_sha256", "audio_sha256", "task", "hypothesis_sha256"]
)
def test_mixing_files_that_disagree_names_both(tmp_path, key):
    paths = [tmp_path / f"{n}.npz" for n in range(3)]
    for path, value in zip(paths, ["same", "same", "other"], strict=True):
        save(path, ARRAYS, meta(**{key: value}))
    first, second, third = map(load, paths)
    check_same_source(first, second)
    with pytest.raises(UserError, match=key) as raised:
        check_same_source(first, second, third)
    assert str(paths[0]) in str(raised.value)
    assert str(paths[2]) in str(raised.value)


def test_sources_are_compared_where_both_state_them():
    decode = Artifact({}, meta())
    attention, smx = (Artifact({}, meta(hypothesis_sha256=value)) for value in "hk")
    check_same_source(decode, attention)
    with pytest.raises(UserError, match="hypothesis_sha256"):
        check_same_source(decode, attention, smx)


def test_shard_comes_in_the_order_of_its_ids(tmp_path):
    for utterance in ["u1", "u2", "u3"]:
        save(tmp_path / f"{utterance}.npz", ARRAYS, meta(utterance=utterance))
    (tmp_path / ".snakemake_timestamp").touch()
    (tmp_path / ".u4.npz.0.partial").touch()
    shard = load_shard(tmp_path, ["u3", "u1"], "decode")
    assert [artifact.meta["utterance"] for artifact in shard] == ["u3", "u1"]


def test_shard_names_what_is_missing(path):
    with pytest.raises(UserError, match=r"0000 lacks the results of u0, u2:"):
        load_shard(path.parent, ["u0", "u1", "u2"], "decode")


def test_shard_refuses_renamed_files_and_other_steps(path):
    path.with_name("u2.npz").write_bytes(path.read_bytes())
    with pytest.raises(UserError, match=r"u2\.npz holds the utterance 'u1'"):
        load_shard(path.parent, ["u1", "u2"], "decode")
    with pytest.raises(UserError, match="not 'smx'"):
        load_shard(path.parent, ["u1"], "smx")
