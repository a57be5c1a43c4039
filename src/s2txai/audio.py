"""Reading recorded speech."""

import hashlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from s2txai.errors import UserError

SHORTEST = 0.1  # s; less holds no speech, and some features need a few frames


def audio_duration(path: Path) -> float:
    """Return the duration of an audio file in seconds, from its header alone.

    Raises
    ------
    UserError
        If the file is missing, is no audio, or is shorter than 0.1 s.
    """
    if not path.is_file():
        raise UserError(f"No audio file {path}; correct its path in the manifest.")
    try:
        duration = float(soundfile.info(path).duration)
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as audio ({error}); convert it to WAV or FLAC."
        ) from error
    if duration < SHORTEST:
        raise UserError(
            f"{path} holds {duration:.3f} s of audio, less than {SHORTEST} s; "
            "leave it out of the manifest."
        )
    return duration


def read_audio(path: Path, sampling_rate: int) -> npt.NDArray[np.float32]:
    """Read an audio file as one channel at a given sampling rate.

    Parameters
    ----------
    path
        A file of any format that libsndfile reads (WAV, FLAC, Ogg, MP3, ...).
    sampling_rate
        Wanted rate in Hz; other rates are resampled (windowed sinc, torchaudio's defaults).

    Returns
    -------
    numpy.ndarray of float32, shape (samples,)
        Mean of the channels, full scale = 1.

    Raises
    ------
    UserError
        If the file is missing, is no audio, holds NaN, infinity or nothing but silence, or is
        shorter than 0.1 s.
    """
    audio_duration(path)
    try:
        channels, rate = soundfile.read(path, dtype="float32", always_2d=True)  # (samples, C)
    except (soundfile.SoundFileError, OSError) as error:
        raise UserError(
            f"{path} cannot be read as audio ({error}); convert it to WAV or FLAC."
        ) from error
    samples: npt.NDArray[np.float32] = channels.mean(axis=1)  # (samples,)
    if not np.isfinite(samples).all():
        raise UserError(f"{path} holds samples that are NaN or infinite; record or convert again.")
    if not samples.any():
        raise UserError(f"{path} holds nothing but silence; leave it out of the manifest.")
    return samples if rate == sampling_rate else _resample(samples, rate, sampling_rate)


def _resample(
    samples: npt.NDArray[np.float32], rate: int, sampling_rate: int
) -> npt.NDArray[np.float32]:
    # Imported here: reading audio that needs no resampling does without torch.
    import torch
    from torchaudio.functional import resample

    resampled = resample(torch.from_numpy(samples), rate, sampling_rate)
    return np.asarray(resampled.numpy(), dtype=np.float32)


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes in hexadecimal, reading it in blocks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
