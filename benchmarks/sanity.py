"""How much of attention and saliency is left when weights are random?

``python -m benchmarks.sanity MODEL`` prints, for a folder of Whisper weights and one LibriVox clip,
the correlation of cross-attention and SMX of the model with randomised weights with those of the
trained one: a third, two thirds, all of its layers from the output down; ``--cascade`` every depth.
Means over three draws of random weights; masks of randomised models are others than the trained
one's, so the first row tells how far the maps repeat.
"""

import argparse
import time
from pathlib import Path

import pandas as pd
import torch

from s2txai.analysis.sanity import Design, Speech, correlations_by_depth
from s2txai.datasets import parse_task
from s2txai.datasets.audio import read_audio
from s2txai.models.base import Model
from s2txai.models.loading import load_model

ROOT = Path(__file__).resolve().parents[1]
CLIP = ROOT / "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0880.wav"
LEVELS = (30,)
MASKS = 64
DRAWS = 3


def hear(model: Model) -> Speech:
    """Return what the trained model says of the clip."""
    features = model.features(read_audio(CLIP, model.facts.sampling_rate))
    prompt = model.prompt(parse_task("asr-en"))
    inputs = torch.from_numpy(features.values).to(model.device)[None]
    states = model.encode(inputs, features.padding_value)
    (tokens,) = model.generate(states, prompt, beam=5, max_new_tokens=40)
    print(f"hypothesis: {model.text(tokens)}")
    return Speech(features.values, features.padding_value, prompt, tokens)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=Path, help="folder of Whisper weights")
    parser.add_argument("--cascade", action="store_true", help="every depth")
    parser.add_argument("--masks", type=int, default=MASKS)
    parser.add_argument("--draws", type=int, default=DRAWS, help="of random weights")
    arguments = parser.parse_args()

    def load() -> Model:
        return load_model(arguments.model, "whisper", device="cpu")

    model = load()
    speech, n = hear(model), len(model.layers())
    depths = range(n + 1) if arguments.cascade else [0, round(n / 3), round(2 * n / 3), n]
    started = time.perf_counter()
    found = pd.concat(
        correlations_by_depth(
            load, speech, depths if draw == 0 else depths[1:], Design(LEVELS, arguments.masks, 0),
            other=Design(LEVELS, arguments.masks, 1), seed=draw,
        )
        for draw in range(arguments.draws)
    )  # fmt: skip
    table = found.pivot_table(index="depth", columns="map", values="rho", aggfunc=["mean", "std"])
    print(f"rho with the trained model's map, {n} layers, {arguments.draws} draws of weights")
    print(table.round(3).to_string())
    print(f"{time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
