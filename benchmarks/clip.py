"""The clips that benchmarks with real weights listen to."""

from pathlib import Path

import torch

from s2txai.datasets import parse_task
from s2txai.datasets.audio import read_audio
from s2txai.models.base import Model
from s2txai.saliency.heard import Heard

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"


def hear(model: Model, path: Path = CLIP, seconds: float | None = None) -> Heard:
    """Return what a model makes of a clip, or of its first seconds, in English."""
    rate = model.facts.sampling_rate
    samples = read_audio(path, rate)
    features = model.features(samples if seconds is None else samples[: round(seconds * rate)])
    prompt = model.prompt(parse_task("asr-en"))
    inputs = torch.from_numpy(features.values).to(model.device)[None]
    states = model.encode(inputs, features.padding_value)
    (tokens,) = model.generate(states, prompt, beam=5, max_new_tokens=100)
    return Heard(features.values, features.padding_value, prompt, tokens)
