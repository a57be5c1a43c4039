"""Look at one token, and compute one number of the tables again.

Run it from the project's folder after `make reproduce`, or paste it cell by cell into a notebook:

    .venv/bin/python examples/one_token.py
    .venv/bin/python examples/one_token.py results/librivox/whisper-base/asr-en sns-0930 young
"""

# %% Where to look: a run, an utterance, a word
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from s2txai.saliency.correlation import correlation
from s2txai.storage.artifacts import load

arguments = sys.argv[1:4]
run = Path(arguments[0] if arguments else "results/librivox/whisper-tiny.en/asr-en")
utterance = arguments[1] if len(arguments) > 1 else "sns-0880"
word = arguments[2] if len(arguments) > 2 else "young"

# %% Artefacts: arrays by name, and what they are
shards = [path.parent.name for path in run.glob(f"decode/*/{utterance}.npz")]
if not shards:
    sys.exit(f"{run} holds nothing of {utterance}: run `make reproduce`, or name another run.")
shard = shards[0]
decoded = load(run / "decode" / shard / f"{utterance}.npz", "decode")
aggregated = load(run / "aggregate" / shard / f"{utterance}.npz", "aggregate")
print(str(decoded["text"]))
print("ca_head has the axes", aggregated.meta["axes"]["ca_head"], aggregated["ca_head"].shape)

# %% One token: what it attends to (CA), and what it uses (SMX, SMH), at encoder steps
pieces = [piece.strip() for piece in decoded["pieces"].tolist()]
if word not in pieces:
    sys.exit(f"'{word}' is no token of {utterance}; name one of {', '.join(pieces)}.")
row = pieces.index(word)
step = float(decoded["frame_shift"]) * int(decoded["subsampling"])  # s
seconds = np.arange(aggregated["smh"].shape[1]) * step

figure, (spectrogram, lines) = plt.subplots(2, sharex=True, figsize=(7, 4), layout="constrained")
end = len(decoded["features"]) * float(decoded["frame_shift"])
extent = (0, end, 0, decoded["features"].shape[1])
spectrogram.imshow(decoded["features"].T, origin="lower", aspect="auto", extent=extent)
spectrogram.set_ylabel("mel bin")
spectrogram.set_title(f"“{word}” in “{decoded['text']!s}”", loc="left")
for name, label in (("ca_mean", "CA, mean of heads"), ("smx_avg2d", "SMX"), ("smh", "SMH")):
    values = aggregated[name][row]
    # Standardised, as the headline correlation sees the row.
    lines.plot(seconds, (values - values.mean()) / values.std(), label=label)
lines.set(xlabel="time (s)", ylabel="standard deviations")
lines.legend(frameon=False, loc="upper left")
figure.savefig(f"{utterance}-{word}.png", dpi=120)
print(f"drawn: {utterance}-{word}.png")

# %% One correlation: all heads together against the saliency of the encoder's output
found = correlation(aggregated["ca_mean"], aggregated["smh"])
print(f"rho(CA, SMH) = {found.value:.4f} over {found.n_rows} rows, {found.n_constant} left out")

table = pd.read_csv(run / "correlate" / "utterances.csv", converters={"utterance": str})
stated = table.query(
    "utterance == @utterance and attention == 'ca_mean' and saliency == 'smh' "
    "and metric == 'pearson' and normalise == 'token'"
)["value"].item()
print(f"correlate/utterances.csv says {stated:.4f}")
assert np.isclose(found.value, stated)
