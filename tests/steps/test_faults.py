"""Faults of recordings and manifests: each works, or is one sentence with file and line.

What other files test: recordings that are empty, not audio, shorter than 0.1 s, silent, hold NaN or
infinity, are stereo, at 8 or 44.1 kHz or MP3 (``test_audio.py``, ``test_datasets_formats.py``);
manifests without a column or row, with an id twice, with a slash in it or too long, in another
encoding or with the line ends of Windows (``test_datasets.py``); random damage (``test_fuzz.py``).

Not noticed: an Ogg file that breaks off between two of its pages, since nothing in it tells.
"""

import io
import re
import wave

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from s2txai.datasets import read_manifest
from s2txai.datasets.audio import audio_duration, read_audio
from s2txai.errors import UserError
from s2txai.study.plan import plan
from tests.study.test_plan import complaint, config, root, write_wav  # noqa: F401, fixtures

RATE = 16_000


def speech(rate=RATE, seconds=1.0):
    """Return two tones below 2 kHz, fading in and out, so that filters agree at the ends."""
    time = np.arange(int(rate * seconds)) / rate
    tones = 0.4 * np.sin(2 * np.pi * 300 * time) + 0.2 * np.sin(2 * np.pi * 1700 * time)
    return tones * np.hanning(len(time))


STEPS = {"PCM_U8": 2**-7, "PCM_16": 2**-15, "PCM_24": 2**-23, "PCM_32": 2**-23, "FLOAT": 2**-23}


@pytest.mark.parametrize("subtype", STEPS)
def test_samples_of_any_width(tmp_path, subtype):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(), RATE, subtype=subtype)
    np.testing.assert_allclose(read_audio(path, RATE), speech(), atol=STEPS[subtype])


def test_samples_are_those_of_another_reader(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(), RATE, subtype="PCM_16")
    with wave.open(str(path)) as opened:
        stored = np.frombuffer(opened.readframes(opened.getnframes()), "<i2")
    np.testing.assert_array_equal(read_audio(path, RATE), stored / np.float32(2**15))


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000])
def test_rates_agree_with_another_conversion(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(rate), rate, subtype="FLOAT")
    common = np.gcd(rate, RATE)
    expected = resample_poly(speech(rate), RATE // common, rate // common)
    found = read_audio(path, RATE)
    assert abs(len(found) - len(expected)) <= 1
    np.testing.assert_allclose(found[: RATE - 1], expected[: RATE - 1], atol=2e-3)


def test_stereo_at_another_rate(tmp_path):
    path = tmp_path / "a.wav"
    left, right = speech(48_000), 0.5 * speech(48_000)
    soundfile.write(path, np.stack([left, right], axis=1), 48_000, subtype="PCM_24")
    np.testing.assert_allclose(read_audio(path, RATE), 0.75 * speech(), atol=2e-3)


@pytest.mark.parametrize("kind", ["WAV", "WAVEX", "AIFF", "AU", "FLAC", "OGG", "MP3"])
def test_a_recording_that_breaks_off(tmp_path, kind):
    path = tmp_path / "talk"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 2 * RATE)
    soundfile.write(path, noise, RATE, format=kind)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(
        UserError, match=r"talk (breaks off|cannot be read|holds 0\.000 s)"
    ) as raised:
        read_audio(path, RATE)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("lost", [100, 2000])
def test_a_few_lost_bytes_do_no_harm(tmp_path, lost):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(), RATE)
    path.write_bytes(path.read_bytes()[:-lost])
    samples = read_audio(path, RATE)
    np.testing.assert_allclose(samples, speech()[: len(samples)], atol=2**-15)
    assert len(samples) == RATE - lost // 2


@pytest.mark.parametrize("stated", [0xFFFFFFFF, 0x7FFFF000])
def test_audio_from_a_pipe_states_no_length(tmp_path, stated):
    out = io.BytesIO()
    soundfile.write(out, speech(), RATE, format="WAV")
    data = bytearray(out.getvalue())
    data[4:8] = data[40:44] = stated.to_bytes(4, "little")
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    assert audio_duration(path) == 1
    np.testing.assert_allclose(read_audio(path, RATE), speech(), atol=2**-15)


@pytest.mark.parametrize(
    ("rate", "words"),
    [(8, "which is too low for speech"), (44_101, "which cannot be resampled to 16000 Hz")],
)
def test_rates_of_no_recording(tmp_path, rate, words):
    path = tmp_path / "a.wav"
    soundfile.write(path, speech(rate, 8000 / rate), rate)
    with pytest.raises(UserError, match=f"a.wav has a sampling rate of {rate} Hz, {words}"):
        read_audio(path, RATE)


def test_three_minutes_are_read(tmp_path):
    path = tmp_path / "long.flac"
    soundfile.write(path, speech(seconds=180), RATE)
    assert audio_duration(path) == 180
    assert read_audio(path, RATE).shape == (180 * RATE,)


def test_three_minutes_are_refused_by_a_model_that_hears_less(config, root):  # noqa: F811
    registry = root / "config" / "models.yaml"
    registry.write_text(registry.read_text().replace("licence:", "max_seconds: 30\n  licence:"))
    soundfile.write(root / "talks" / "en-3.wav", speech(seconds=180), RATE)
    found = complaint(config | {"on_failure": "stop"}, root)
    assert "Utterance 'en-3' lasts 180.0 s" in found
    assert "accepts at most 30 s; cut" in found
    assert "Utterance 'en-3' lasts 180.0 s" in plan(config, root).unusable[0]


@pytest.mark.parametrize(
    ("samples", "words"),
    [(np.zeros(RATE // 20), "holds 0.050 s"), (np.zeros(0), "holds 0.000 s")],
)
def test_short_recordings_are_told_before_any_job(config, root, samples, words):  # noqa: F811
    soundfile.write(root / "talks" / "en-3.wav", samples, RATE)
    refused, told = complaint(config | {"on_failure": "stop"}, root), plan(config, root).unusable[0]
    for found in (refused, told):
        assert f"{root / 'talks' / 'manifest.tsv'}, line 5: " in found
        assert words in found


# Manifests


HEADER = "id\tpath\tlanguage\ttranscript"


def manifest(folder, *lines, end="\n"):
    write_wav(folder / "a.wav")
    path = folder / "m.tsv"
    path.write_bytes(end.join([HEADER, *lines]).encode())
    return path


OUTSIDE = ("../../x", "/etc/passwd", "..", ".hidden", "a\\b")
NOT_PLAIN = ("a b", "día", "a\u202eb", "a\0b", "a\rb", "a" * 300)
COMMANDS = ("-rf", "$(touch x)", "a;b", "{wildcard}", "con|")


@pytest.mark.parametrize("name", [*OUTSIDE, *NOT_PLAIN, *COMMANDS])
def test_ids_that_are_no_file_names(tmp_path, name):
    path = manifest(tmp_path, f"{name}\ta.wav\ten\tyes")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 2: id ")) as raised:
        read_manifest(path)
    assert "cannot name a file" in str(raised.value)


def test_a_refusal_shows_what_would_steer_a_terminal(tmp_path):
    path = manifest(tmp_path, "\x1b[2J\u202ea\ta.wav\ten\tyes")
    with pytest.raises(UserError) as raised:
        read_manifest(path)
    assert r"id '\x1b[2J\u202ea' cannot name a file" in str(raised.value)


@pytest.mark.parametrize("name", ["a" * 100, "A.b-c_d", "0", "a..b"])
def test_ids_that_are_file_names(tmp_path, name):
    path = manifest(tmp_path, f"{name}\ta.wav\ten\tyes")
    (utterance,) = read_manifest(path)
    assert utterance.id == name


@pytest.mark.parametrize("name", ["a" * 300, "a/" * 3000, "\0", ".", "a.wav/b", "nowhere/a.wav"])
def test_paths_that_are_no_files(tmp_path, name):
    path = manifest(tmp_path, f"a\t{name}\ten\tyes")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 2: no audio file")):
        read_manifest(path)


def test_rows_that_are_blank_or_end_as_on_windows(tmp_path):
    path = manifest(tmp_path, "a\ta.wav\ten\tyes", "", " \t ", "b\ta.wav\ten\tno", "", end="\r\n")
    assert [one.transcript for one in read_manifest(path)] == ["yes", "no"]


@pytest.mark.parametrize("encoding", ["utf-16", "latin-1", "cp1252"])
def test_other_encodings(tmp_path, encoding):
    path = manifest(tmp_path)
    path.write_bytes(f"{HEADER}\na\ta.wav\tit\tperché\n".encode(encoding))
    with pytest.raises(UserError, match=re.escape(str(path)) + r", line [12]: not UTF-8"):
        read_manifest(path)


@pytest.mark.parametrize("separator", [",", ";", " "])
def test_other_separators(tmp_path, separator):
    path = tmp_path / "m.csv"
    path.write_text(HEADER.replace("\t", separator))
    with pytest.raises(UserError, match=r"m\.csv, line 1: no column 'id'.*tab-separated"):
        read_manifest(path)


def test_a_folder_and_nothing_at_all(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(tmp_path)
    path = tmp_path / "m.tsv"
    path.touch()
    with pytest.raises(UserError, match="line 1: no column 'id'"):
        read_manifest(path)
