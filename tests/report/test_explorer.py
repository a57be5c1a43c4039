"""The explorer's data files."""

import base64
import io
import json
import re
import shutil
import zlib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2txai.report.explorer import (
    REGISTER,
    coarse,
    quantised,
    script,
    source_of_data,
    utterance_record,
    write_explorer,
)
from s2txai.report.runs import RunFiles, read_run
from s2txai.saliency.statistics import Statistics, heatmap
from tests.synthetic_results import (
    HOSTILE,
    IDS,
    KEY,
    N_ROWS,
    STEPS,
    F,
    H,
    L,
    T,
    add_gradient,
    write_run,
)  # fmt: skip


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> RunFiles:
    root = tmp_path_factory.mktemp("results").joinpath(*KEY)
    audio = write_run(root)
    return RunFiles(*KEY, root, {"0000": list(IDS)}, audio)


@pytest.fixture(scope="module")
def record(files: RunFiles) -> dict:
    return utterance_record(files, IDS[0], "reference")


def unpack(packed: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return what the browser makes of an array, and the range of each row."""
    data, scale = (zlib.decompress(base64.b64decode(packed[name])) for name in ("data", "scale"))
    bounds = np.frombuffer(scale, "<f4").reshape(-1, 2).astype(np.float64)
    levels = np.frombuffer(data, np.uint8).reshape(len(bounds), -1)
    low, span = bounds[:, :1], np.diff(bounds, axis=1)
    return (low + levels / 255 * span).reshape(packed["shape"]), span


def parse(text: str) -> dict:
    assert text.startswith(f"{REGISTER}(")
    return json.loads(text.removeprefix(f"{REGISTER}(").removesuffix(");\n"))


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e4])
def test_quantisation_is_off_by_half_a_level_at_most(scale: float) -> None:
    values = scale * np.random.default_rng(1).standard_normal((3, 5, 40))
    found, span = unpack(quantised(values))
    error = np.abs(found - values).reshape(15, -1).max(axis=1, keepdims=True)
    assert (error <= span / 510 * 1.001 + 1e-6 * scale).all()


def test_constant_and_undefined_rows_stay_finite() -> None:
    values = np.array([[2.0, 2, 2], [np.nan, 1, 3], [np.nan] * 3, [np.inf, 0, 1]])
    found, _ = unpack(quantised(values))
    np.testing.assert_array_equal(found, [[2, 2, 2], [1, 1, 3], [0, 0, 0], [0, 0, 1]])


def test_coarse_cells_are_means() -> None:
    values = np.arange(2 * 5 * 3).reshape(2, 5, 3)
    found = coarse(values, (3, 2))
    assert found.shape == (2, 3, 2)
    np.testing.assert_array_equal(found[1, 0, 0], values[1, :2, :2].mean())
    np.testing.assert_array_equal(found[1, 2, 1], values[1, 4, 2])
    np.testing.assert_array_equal(coarse(values, (5, 3)), values)


def test_maps_are_those_of_the_results(files: RunFiles, record: dict) -> None:
    aggregated = files.artifact("aggregate", IDS[0])
    heads, span = unpack(record["attention"])
    assert heads.shape == (L, H, N_ROWS, STEPS)
    assert np.abs(heads - aggregated["ca_head"]).max() <= span.max() / 509
    maps = {found["name"]: found for found in record["maps"]}
    assert list(maps) == ["smx_avg2d", "smx_max2d", "smh", "smx_full"]
    for name in ("smx_avg2d", "smx_max2d", "smh"):
        found, span = unpack(maps[name])
        assert np.abs(found[:, :, 0] - aggregated[name]).max() <= span.max() / 509
    full, span = unpack(maps["smx_full"])
    # Of 331 frames two make a cell, the last but one.
    assert full.shape == (N_ROWS, 166, F)
    assert maps["smx_full"]["cell"] == [2, 1]
    exact = heatmap(Statistics.from_mapping(files.artifact("smx", IDS[0]).arrays))
    assert np.abs(full[:, -1] - exact[:, -1]).max() <= span.max() / 509
    assert np.abs(full[:, 3] - exact[:, 6:8].mean(axis=1)).max() <= span.max() / 509


def test_input_tokens_and_axis(files: RunFiles, record: dict) -> None:
    features, span = unpack(record["input"])
    assert features.shape == (T, F)
    exact = files.artifact("decode", IDS[0])["features"]
    assert np.abs(features - exact).max() <= span.max() / 509
    assert (record["frames"], record["steps"], record["subsampling"]) == (T, STEPS, 2)
    assert record["frameShift"] == pytest.approx(0.01)
    assert len(record["tokens"]) == N_ROWS
    assert record["tokens"][7]["label"] == "+iable"
    assert record["tokens"][-1]["role"] == "eos"
    assert all(token["logProb"] <= 0 for token in record["tokens"])


def test_gradient_is_there_where_it_was_computed(files: RunFiles, tmp_path: Path) -> None:
    root = tmp_path / "run"
    shutil.copytree(files.tables, root)
    add_gradient(root)
    maps = utterance_record(replace(files, tables=root), IDS[0], "")["maps"]
    assert [(one["name"], one["label"]) for one in maps][3:] == [
        ("grad", "GRAD"), ("smx_full", "SMX, full resolution"),
    ]  # fmt: skip


def test_recordings_are_cut(files: RunFiles) -> None:
    cut = {name: replace(audio, offset=1.0, duration=0.5) for name, audio in files.audio.items()}
    record = utterance_record(replace(files, audio=cut), IDS[0], "")
    flac = base64.b64decode(record["audio"].removeprefix("data:audio/flac;base64,"))
    whole, rate = soundfile.read(files.audio[IDS[0]].path)
    samples, _ = soundfile.read(io.BytesIO(flac))
    np.testing.assert_allclose(samples, whole[rate : rate + rate // 2], atol=2**-14)
    assert record["offset"] == 1


def test_no_text_ends_the_script() -> None:
    hostile = "</script><!-- \u2028\u2029 \"');alert(1)//\n\x00é"
    text = script({"id": hostile, "text": HOSTILE})
    assert parse(text) == {"id": hostile, "text": HOSTILE}
    assert text.isascii()
    assert not re.search(r"[<\u2028\u2029]", text)
    assert text.count("\n") == 1


def test_undefined_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        script({"id": float("nan")})


def test_a_file_an_utterance_where_the_page_looks_for_it(files: RunFiles, tmp_path: Path) -> None:
    write_explorer(read_run(files), tmp_path / "explorer")
    written = sorted(path for path in tmp_path.rglob("*") if path.is_file())
    assert [str(path.relative_to(tmp_path)) for path in written] == [
        source_of_data(files, name) for name in IDS
    ]
    second = parse(written[1].read_text("ascii"))
    assert second["reference"] == HOSTILE
    assert second["run"] == files.key


def test_addresses_are_quoted(files: RunFiles) -> None:
    assert source_of_data(files, "a b#?%<é") == (
        "explorer/librivox/whisper-tiny.en/asr-en/a%20b%23%3F%25%3C%C3%A9.js"
    )
