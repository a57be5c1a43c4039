import hashlib

import numpy as np
import pytest
import soundfile

from s2txai.audio import file_sha256, read_audio
from s2txai.errors import UserError

RATE = 16_000


def sine(rate, seconds=0.5, frequency=440.0):
    return np.sin(2 * np.pi * frequency * np.arange(int(rate * seconds)) / rate) / 2


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_samples_are_read_as_stored(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    soundfile.write(path, sine(RATE), RATE)
    samples = read_audio(path, RATE)
    assert samples.dtype == np.float32
    np.testing.assert_allclose(samples, sine(RATE), atol=2**-15)


def test_channels_are_averaged(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.stack([sine(RATE), np.zeros(RATE // 2)], axis=1), RATE)
    np.testing.assert_allclose(read_audio(path, RATE), sine(RATE) / 2, atol=2**-15)


@pytest.mark.parametrize("rate", [8_000, 44_100])
def test_other_rates_are_resampled(tmp_path, rate):
    path = tmp_path / "a.wav"
    soundfile.write(path, sine(rate), rate, subtype="FLOAT")
    samples = read_audio(path, RATE)
    assert samples.shape == (RATE // 2,)
    middle = slice(1000, -1000)  # the filter meets the edges outside
    np.testing.assert_allclose(samples[middle], sine(RATE)[middle], atol=2e-3)


def test_unusable_audio_is_refused(tmp_path):
    path = tmp_path / "a.wav"
    with pytest.raises(UserError, match="No audio file"):
        read_audio(path, RATE)
    path.write_text("no audio")
    with pytest.raises(UserError, match="cannot be read as audio"):
        read_audio(path, RATE)
    soundfile.write(path, np.zeros(0), RATE)
    with pytest.raises(UserError, match=r"holds 0\.000 s"):
        read_audio(path, RATE)
    soundfile.write(path, np.zeros(RATE // 10 - 1), RATE)
    with pytest.raises(UserError, match=r"less than 0\.1 s"):
        read_audio(path, RATE)
    for value in (np.nan, np.inf):
        soundfile.write(path, np.append(sine(RATE), value), RATE, subtype="FLOAT")
        with pytest.raises(UserError, match="NaN or infinite"):
            read_audio(path, RATE)


def test_file_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"speech" * 100_000)
    assert file_sha256(path) == hashlib.sha256(path.read_bytes()).hexdigest()


def test_silence_is_refused(tmp_path):
    path = tmp_path / "silent.wav"
    soundfile.write(path, np.zeros(16_000, np.float32), 16_000)
    with pytest.raises(UserError, match="nothing but silence"):
        read_audio(path, 16_000)
