"""Kaldi filterbanks, normalised by utterance."""

import numpy as np
import torch
from torchaudio.compliance import kaldi

SAMPLING_RATE = 16_000  # Hz
FRAME_SHIFT = 0.01  # s
FRAME_LENGTH = 400  # samples of the first window
_INT16 = 2**15  # Kaldi's waveforms are integers of 16 bits
_LEAST_VARIANCE = 1e-10


def filterbank(audio: np.ndarray, n_bins: int) -> np.ndarray:
    """Return log-mel energies, float32 [T, F], of a waveform in [-1, 1] at 16 kHz.

    Kaldi's defaults: windows of 25 ms every 10 ms that lie inside the audio, no dither.
    """
    waveform = torch.from_numpy(np.asarray(audio, dtype=np.float32))[None] * _INT16
    frames = kaldi.fbank(waveform, num_mel_bins=n_bins)
    return np.asarray(frames.numpy())


def normalise(frames: np.ndarray) -> np.ndarray:
    """Return float32 [T, F] with mean 0 and variance 1 in every bin over the utterance.

    Moments are float64: in float32 the difference of squares loses three digits.
    """
    exact = frames.astype(np.float64)
    mean = exact.mean(axis=0)
    variance = np.maximum((exact**2).mean(axis=0) - mean**2, _LEAST_VARIANCE)
    return np.asarray((exact - mean) / np.sqrt(variance), dtype=np.float32)
