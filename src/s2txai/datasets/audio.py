"""Reading recorded speech."""

import math
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from s2txai.errors import UtteranceError
from s2txai.hashing import file_sha256, fingerprint
from s2txai.wording import number_beside

SHORTEST = 0.1  # s; less holds no speech, and some features need a few frames
# s; ends of segments are rounded, and conversion may drop the last samples of a recording.
LARGEST_EXCESS = 0.1
_LOWEST_RATE = 4000  # Hz; less carries no speech, and would last for hours
_FLOATING = ("FLOAT", "DOUBLE")  # formats whose samples may be NaN
_BLOCK = 4096  # samples
# What libsndfile logs of a WAV, AIFF or AU file that breaks off: bytes stated and found.
_BROKEN_OFF = re.compile(r"^\s*(?:data|SSND|Data Size)\s*: (\d+) \(should be (\d+)\)", re.M)
_UNKNOWN_LENGTH = 2**31 - 2**16  # bytes; as much or more is stated where audio came from a pipe
# Numbers in the table of the filter that resamples; 44.1 to 16 kHz takes 70,560.
_LARGEST_FILTER = 10_000_000


def audio_duration(path: Path, *, offset: float = 0.0, duration: float | None = None) -> float:
    """Return the duration of an audio file, or of a part of it, in seconds, from its header alone.

    Parameters
    ----------
    path
        The file.
    offset
        Where the part begins, in seconds.
    duration
        Of the part, in seconds; to the end of the file if None. An end behind that of the file by
        less than 0.1 s is moved to it.

    Raises
    ------
    UtteranceError
        If the file is missing, is no audio or breaks off, the part is not within it, or is shorter
        than 0.1 s.
    """
    header = _header(path)
    _, n_samples = _part(path, header, offset, duration)
    seconds = max(n_samples, 0) / header.rate
    if seconds < SHORTEST:
        raise UtteranceError(
            f"{_named(path, offset, duration)} holds {number_beside(seconds, SHORTEST, 3)} s of "
            f"audio, less than {SHORTEST} s; leave the utterance out."
        )
    return seconds


def read_audio(
    path: Path, sampling_rate: int, *, offset: float = 0.0, duration: float | None = None
) -> npt.NDArray[np.float32]:
    """Read an audio file, or a part of it, as one channel at a given sampling rate.

    Parameters
    ----------
    path
        A file of any format that libsndfile reads (WAV, FLAC, Ogg, MP3, ...).
    sampling_rate
        Wanted rate in Hz; other rates are resampled (windowed sinc, torchaudio's defaults).
    offset, duration
        The part, as for :func:`audio_duration`; the rest of the file is not read.

    Returns
    -------
    numpy.ndarray of float32, shape (samples,)
        Mean of the channels, full scale = 1.

    Raises
    ------
    UtteranceError
        As :func:`audio_duration`, and if the audio breaks off before the end its header states, has
        a rate that is no usual one, or holds NaN, infinity or nothing but silence.
    """
    audio_duration(path, offset=offset, duration=duration)
    first, n_samples = _part(path, _header(path), offset, duration)
    name = _named(path, offset, duration)
    try:
        channels, rate = soundfile.read(
            path, start=first, frames=n_samples, dtype="float32", always_2d=True
        )  # (samples, C)
    # Memory is what runs out if the header states more samples than there are.
    except (soundfile.SoundFileError, OSError, MemoryError) as error:
        raise _unreadable(path, error) from error
    _check_whole(name, len(channels), n_samples, rate)
    return at_sampling_rate(channels, rate, sampling_rate, name=name)


def at_sampling_rate(
    samples: npt.NDArray[Any], rate: int, sampling_rate: int, *, name: str = "The audio"
) -> npt.NDArray[np.float32]:
    """Return samples as one channel at a given sampling rate.

    Parameters
    ----------
    samples
        [samples] or [samples, channels], full scale = 1; integers are scaled to it.
    rate
        Of the samples, in Hz.
    sampling_rate
        Wanted rate in Hz; other rates are resampled (windowed sinc, torchaudio's defaults).
    name
        What messages call the audio.

    Returns
    -------
    numpy.ndarray of float32, shape (samples,)
        Mean of the channels.

    Raises
    ------
    UtteranceError
        If there are fewer than 0.1 s, the shape is another, the rate is no usual one, or the
        samples hold NaN, infinity or nothing but silence.
    """
    n_channels = samples.shape[1] if samples.ndim == 2 else 1
    if samples.ndim not in (1, 2) or samples.dtype.kind not in "fi" or n_channels > len(samples):
        raise UtteranceError(
            f"{name} is an array {list(samples.shape)} of {samples.dtype}; give floats or signed "
            "integers, [samples] or [samples, channels]."
        )
    if len(samples) < SHORTEST * rate:
        raise UtteranceError(
            f"{name} holds {number_beside(len(samples) / rate, SHORTEST, 3)} s of audio, less than "
            f"{SHORTEST} s; leave the utterance out."
        )
    channels = samples.reshape(len(samples), -1)
    if samples.dtype.kind == "i":
        channels = channels / -float(np.iinfo(samples.dtype).min)
    mono: npt.NDArray[np.float32] = channels.astype(np.float32).mean(axis=1)  # (samples,)
    if not np.isfinite(mono).all():
        raise _not_finite(name)
    if not mono.any():
        raise _silent(name)
    if rate == sampling_rate:
        return mono
    if rate * sampling_rate // math.gcd(rate, sampling_rate) ** 2 > _LARGEST_FILTER:
        raise UtteranceError(
            f"{name} has a sampling rate of {rate} Hz, which cannot be resampled to "
            f"{sampling_rate} Hz; convert it first."
        )
    return _resample(mono, rate, sampling_rate)


def check_sound(path: Path, *, offset: float = 0.0, duration: float | None = None) -> None:
    """Refuse silence and NaN at little cost: most files are read up to their first sound.

    Parameters are those of :func:`audio_duration`.

    Raises
    ------
    UtteranceError
        If the file cannot be read up to there, or holds nothing but silence, NaN or infinity.
    """
    _check_sound(path, offset, duration, *_state(path))


# Asked for by every run that uses the recording.
@cache
def _check_sound(
    path: Path, offset: float, duration: float | None, _size: int, _mtime_ns: int
) -> None:
    first, n_samples = _part(path, _header(path), offset, duration)
    name = _named(path, offset, duration)
    heard = False
    try:
        with soundfile.SoundFile(path) as file:
            file.seek(first)
            # Whole numbers never are.
            may_be_nan = file.subtype in _FLOATING
            for block in file.blocks(_BLOCK, frames=n_samples, dtype="float32"):
                if not np.isfinite(block).all():
                    raise _not_finite(name)
                heard = heard or bool(block.any())
                if heard and not may_be_nan:
                    return
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error) from error
    if not heard:
        raise _silent(name)


def _unreadable(path: Path, error: Exception) -> UtteranceError:
    return UtteranceError(
        f"{path} cannot be read as audio ({error}); if it is a recording, convert it to WAV or "
        "FLAC."
    )


def _not_finite(name: str) -> UtteranceError:
    return UtteranceError(
        f"{name} holds samples that are NaN or infinite; record or convert again."
    )


def _silent(name: str) -> UtteranceError:
    return UtteranceError(f"{name} holds nothing but silence; leave the utterance out.")


@dataclass(frozen=True)
class _Header:
    """Samples of each channel, and their rate in Hz."""

    n_samples: int
    rate: int


def _header(path: Path) -> _Header:
    if not path.is_file():
        raise UtteranceError(f"There is no audio file {path}; correct its path.")
    return _read_header(path, *_state(path))


# The recording of a speech is asked for once for each of its utterances.
@cache
def _read_header(path: Path, _size: int, _mtime_ns: int) -> _Header:
    try:
        info = soundfile.info(path)
    except (soundfile.SoundFileError, OSError) as error:
        raise _unreadable(path, error) from error
    if info.samplerate < _LOWEST_RATE:
        raise UtteranceError(
            f"{path} has a sampling rate of {info.samplerate} Hz, which is too low for speech; use "
            f"a recording of at least {_LOWEST_RATE} Hz."
        )
    n_stated = _stated_samples(info.frames, info.extra_info)
    _check_whole(path, info.frames, n_stated, info.samplerate)
    return _Header(info.frames, info.samplerate)


def _stated_samples(n_found: int, log: str) -> int:
    """Return how many samples a header states, of which libsndfile found some, from its log."""
    broken = _BROKEN_OFF.search(log)
    if not broken or int(broken[1]) >= _UNKNOWN_LENGTH:
        return n_found
    return round(n_found * int(broken[1]) / max(1, int(broken[2])))


def _check_whole(name: object, n_samples: int, n_stated: int, rate: int) -> None:
    """Refuse recordings that lack more than conversion may drop."""
    if n_stated - n_samples >= LARGEST_EXCESS * rate:
        raise UtteranceError(
            f"{name} breaks off after {n_samples / rate:.3f} of {n_stated / rate:.3f} s; copy or "
            "convert the recording again."
        )


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of a file, which change with its content."""
    state = path.stat()
    return state.st_size, state.st_mtime_ns


def _part(path: Path, header: _Header, offset: float, duration: float | None) -> tuple[int, int]:
    """Return the first sample of a part, and how many it has."""
    first = round(offset * header.rate)
    if duration is None:
        return first, header.n_samples - first
    last = round((offset + duration) * header.rate)
    if last - header.n_samples >= LARGEST_EXCESS * header.rate:
        raise UtteranceError(
            f"{path} ends at {header.n_samples / header.rate:.3f} s, before the utterance's end at "
            f"{offset + duration:.3f} s; correct the times or use the recording they belong to."
        )
    return first, min(last, header.n_samples) - first


def _named(path: Path, offset: float, duration: float | None) -> str:
    if duration is None:
        return str(path)
    return f"{path} from {offset:g} to {offset + duration:g} s"


def _resample(
    samples: npt.NDArray[np.float32], rate: int, sampling_rate: int
) -> npt.NDArray[np.float32]:
    # Imported here: reading audio that needs no resampling does without torch.
    import torch
    from torchaudio.functional import resample

    resampled = resample(torch.from_numpy(samples), rate, sampling_rate)
    return np.asarray(resampled.numpy(), dtype=np.float32)


def audio_sha256(path: Path, *, offset: float = 0.0, duration: float | None = None) -> str:
    """Return a hash of an audio file's bytes and, where only a part is used, of which part.

    Parameters
    ----------
    path, offset, duration
        As for :func:`audio_duration`.

    Returns
    -------
    str
        Hexadecimal; for a whole file that of :func:`file_sha256`. A file is read once a process.

    Raises
    ------
    UtteranceError
        If the file cannot be read.
    """
    try:
        whole = _read_sha256(path, *_state(path))
    except OSError as error:
        raise UtteranceError(
            f"{path} cannot be read ({error.strerror}); correct its path or permissions."
        ) from error
    if offset == 0 and duration is None:
        return whole
    return fingerprint(file=whole, offset=offset, duration=duration)


@cache
def _read_sha256(path: Path, _size: int, _mtime_ns: int) -> str:
    return file_sha256(path)
