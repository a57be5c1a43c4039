import hashlib

import numpy as np
import pytest
import soundfile

from s2txai.datasets.audio import audio_duration, audio_sha256, check_sound, read_audio
from s2txai.errors import UserError
from s2txai.hashing import file_sha256

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
    with pytest.raises(UserError, match="There is no audio file"):
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


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_sound_is_found_behind_silence(tmp_path, suffix):
    path = tmp_path / f"late.{suffix}"
    late = np.append(np.zeros(RATE), 0.5)
    soundfile.write(path, late, RATE)
    check_sound(path)
    check_sound(path, offset=0.9)
    with pytest.raises(UserError, match=r"from 0 to 0\.9 s holds nothing but silence"):
        check_sound(path, duration=0.9)
    soundfile.write(path, 0 * late, RATE)
    with pytest.raises(UserError, match="nothing but silence"):
        check_sound(path)


def test_nan_is_found_behind_sound(tmp_path):
    path = tmp_path / "a.wav"
    soundfile.write(path, np.append(sine(RATE), np.nan), RATE, subtype="FLOAT")
    with pytest.raises(UserError, match="NaN or infinite"):
        check_sound(path)


# Parts of a file


@pytest.fixture
def speech(tmp_path):
    """Half a second in which every sample differs, with what is stored."""
    path = tmp_path / "speech.wav"
    soundfile.write(path, np.linspace(-0.5, 0.5, RATE // 2), RATE)
    return path, read_audio(path, RATE)


def test_a_part_is_that_of_the_whole(speech):
    path, samples = speech
    assert audio_duration(path) == 0.5
    assert audio_duration(path, offset=0.1, duration=0.25) == 0.25
    part = read_audio(path, RATE, offset=0.1, duration=0.25)
    np.testing.assert_array_equal(part, samples[1600:5600])
    np.testing.assert_array_equal(read_audio(path, RATE, offset=0.3), samples[4800:])


def test_only_the_part_is_read(speech, monkeypatch):
    path, _ = speech
    read = soundfile.read
    counts = []

    def counted(*arguments, **options):
        found = read(*arguments, **options)
        counts.append(len(found[0]))
        return found

    monkeypatch.setattr(soundfile, "read", counted)
    read_audio(path, RATE, offset=0.1, duration=0.2)
    assert counts == [3200]


def test_an_end_just_behind_the_file_is_moved_to_it(speech):
    path, samples = speech
    np.testing.assert_array_equal(read_audio(path, RATE, offset=0.3, duration=0.29), samples[4800:])
    assert audio_duration(path, offset=0.3, duration=0.29) == pytest.approx(0.2)
    with pytest.raises(UserError, match=r"ends at 0\.500 s, before the utterance's end at 0\.610"):
        audio_duration(path, offset=0.3, duration=0.31)


@pytest.mark.parametrize("part", [(0.0, 0.05), (0.45, 0.1), (0.55, 0.01)])
def test_parts_without_speech_are_refused(speech, part):
    offset, duration = part
    with pytest.raises(UserError, match=r"less than 0\.1 s"):
        audio_duration(speech[0], offset=offset, duration=duration)


def test_hash_of_the_whole_is_that_of_the_file_and_parts_differ(speech):
    path, _ = speech
    parts = [{}, {"offset": 0.1}, {"duration": 0.3}, {"offset": 0.1, "duration": 0.3}]
    hashes = [audio_sha256(path, **part) for part in parts]
    assert hashes[0] == file_sha256(path)
    assert len(set(hashes)) == 4


def test_hashes_and_durations_follow_the_file(speech):
    path, _ = speech
    before = audio_sha256(path, offset=0.1)
    soundfile.write(path, np.linspace(-0.5, 0.5, RATE), RATE)
    assert audio_sha256(path, offset=0.1) != before
    assert audio_duration(path) == 1
