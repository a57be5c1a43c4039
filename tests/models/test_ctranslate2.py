import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s2txai.errors import UserError
from s2txai.models.ctranslate2 import read_variables

CODES = {"float32": 0, "int8": 1, "int16": 2, "int32": 3, "float16": 4}
ARRAYS = {
    "encoder/conv1/weight": np.arange(12, dtype="float16").reshape(2, 3, 2),
    "decoder/embeddings/weight": np.linspace(-1, 1, 6, dtype="float32").reshape(3, 2),
    "a": np.array([1, -2], dtype="int8"),
    "b": np.array([70_000], dtype="int32"),
    "num_heads": np.array(6, dtype="int16"),
}
ALIASES = {"decoder/projection/weight": "decoder/embeddings/weight"}


def text(value):
    data = value.encode() + b"\0"
    return struct.pack("<H", len(data)) + data


def variable(name, array, *, shape=None, code=None, n_bytes=None):
    shape = array.shape if shape is None else shape
    data = array.astype(array.dtype.newbyteorder("<")).tobytes()
    head = text(name) + struct.pack(f"<B{len(shape)}I", len(shape), *shape)
    head += struct.pack("<B", CODES[array.dtype.name] if code is None else code)
    return head + struct.pack("<I", len(data) if n_bytes is None else n_bytes) + data


def model(variables=None, aliases=None, *, version=6, kind="WhisperSpec", revision=3):
    if variables is None:
        variables = [variable(name, array) for name, array in ARRAYS.items()]
    aliases = ALIASES if aliases is None else aliases
    data = struct.pack("<I", version) + text(kind) + struct.pack("<II", revision, len(variables))
    data += b"".join(variables) + struct.pack("<I", len(aliases))
    return data + b"".join(text(alias) + text(name) for alias, name in aliases.items())


def read(tmp_path, data):
    path = tmp_path / "model.bin"
    path.write_bytes(data)
    return read_variables(path)


def test_variables_round_trip_and_aliases_share_their_array(tmp_path):
    variables = read(tmp_path, model())
    assert set(variables) == set(ARRAYS) | set(ALIASES)
    for name, array in ARRAYS.items():
        assert variables[name].dtype == array.dtype
        assert variables[name].flags.aligned
        np.testing.assert_array_equal(variables[name], array, strict=True)
    assert variables["decoder/projection/weight"] is variables["decoder/embeddings/weight"]


ARRAY = np.zeros(4, dtype="float32")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "ends 4 bytes too early"),
        (b"PK\3\4" + bytes(100), "no CTranslate2 model of format version 6"),
        (model(version=5), "begins with 5"),
        (model(kind="TransformerSpec"), "TransformerSpec revision 3, but only WhisperSpec"),
        (model(revision=2), "WhisperSpec revision 2"),
        (model() + b"x", "1 bytes follow its end"),
        (model()[:-1], "too early"),
        (model([variable("a", ARRAY), variable("a", ARRAY)], {}), "'a' occurs twice"),
        (model([variable("a", ARRAY)], {"a": "a"}), "'a' occurs twice"),
        (model([variable("a", ARRAY)], {"b": "c"}), "unknown variable 'c'"),
        (model([variable("a", ARRAY, code=6)], {}), "type 6"),
        (model([variable("a", ARRAY, shape=(5,))], {}), r"shape \[5\]"),
        (model([variable("a", ARRAY, shape=[2**31] * 8)], {}), "shape"),
        (model([variable("a", ARRAY, shape=[1] * 9)], {}), "9 dimensions"),
        (model([variable("a", ARRAY, shape=(0, 2**32 - 1), n_bytes=0)], {}), "0 bytes"),
        # a size far beyond the file must not be allocated
        (model([variable("a", ARRAY, shape=(2**30 - 1,), n_bytes=2**32 - 4)], {}), "too early"),
        (model([variable("a\0\xff", ARRAY)], {}).replace(b"\xc3\xbf", b"\xff\xff"), "not UTF-8"),
        (model().replace(b"WhisperSpec\0", b"WhisperSpecs"), "NUL"),
    ],
)
def test_malformed_files_are_refused(tmp_path, data, words):
    with pytest.raises(UserError, match=words):
        read(tmp_path, data)


def test_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_variables(tmp_path / "model.bin")


@settings(max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_damage_is_read_or_refused_but_never_crashes(tmp_path, data):
    whole = bytearray(model())
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    damaged = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    try:
        variables = read(tmp_path, damaged)
    except UserError:
        return
    assert sum(array.nbytes for array in variables.values()) <= 2 * len(damaged)
