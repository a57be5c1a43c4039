"""Small models whose saliency and attention are known, in double precision.

A step's state is its ``r`` frames side by side, so states hold the input itself. Logits are linear
in the states: a table of weights says what each row reads from each step, and the attention of
every head is given, too.
"""

from collections import Counter
from pathlib import Path

import numpy as np
import soundfile
import torch

from s2txai.models.base import (
    CheapPass,
    CrossAttention,
    Facts,
    Features,
    Model,
    TokenTable,
    n_steps,
)

SUBSAMPLING = 2
FRAME = 80  # samples
SAMPLING_RATE = 8000  # Hz


class LinearModel(Model):
    """Logits of row i: bias_i + sum over steps and dimensions of state times weight.

    Parameters
    ----------
    weights
        [I, steps, D, V] with D = r F, padding steps included.
    bias
        [I, V].
    n_padding
        Steps after the speech, as a model with a context of fixed length has them.
    """

    def __init__(self, weights, bias=0.0, n_padding=0):
        self._weights = torch.as_tensor(weights, dtype=torch.float64)
        self._bias = torch.as_tensor(bias, dtype=torch.float64)
        self._n_padding = n_padding
        self.facts = Facts(
            sampling_rate=SAMPLING_RATE,
            frame_shift=FRAME / SAMPLING_RATE,
            subsampling=SUBSAMPLING,
            max_new_tokens=40,
        )
        self.device = torch.device("cpu")
        self.calls = Counter()  # inputs that went through each method

    def readout(self, steps, n_rows):
        """Return weights [I, steps + padding, D, V] and bias [I, V] for ``steps`` of speech."""
        return self._weights[:n_rows], self._bias

    def encode(self, features, padding_value):
        self.calls["encode"] += len(features)
        N, T, F = features.shape
        steps = n_steps(T, SUBSAMPLING)
        states = torch.full(
            (N, (steps + self._n_padding) * SUBSAMPLING, F), padding_value, dtype=torch.float64
        )
        states[:, :T] = features
        return states.reshape(N, steps + self._n_padding, SUBSAMPLING * F)

    def decode(self, states, prompt, tokens):
        self.calls["decode"] += len(states)
        return self._logits(states, len(tokens))

    def differentiable_logits(self, features, padding_value, prompt, tokens):
        return self.decode(self.encode(features, padding_value), prompt, tokens)

    def encoder_attention(self, features, padding_value):
        """Return [1, steps, steps]: a state holds its own frames and nothing else."""
        return np.eye(self.encode(features, padding_value).shape[1], dtype=np.float32)[None]

    def _logits(self, states, n_rows):
        weights, bias = self.readout(states.shape[1] - self._n_padding, n_rows)
        return torch.einsum("njd,ijdv->niv", states, weights) + bias


# Word v is spoken in bin v.
WORDS = ("north", "east", "south", "west")
N_BINS = len(WORDS)
EOS = N_BINS
PROMPT = [7]
WORD_STEPS = 4  # encoder steps of a word
WORD_FRAMES = WORD_STEPS * SUBSAMPLING
PLANTED, MISPLACED = 0, 1


class WordModel(LinearModel):
    """Hears one word every four steps, by the energy of the second of these steps alone.

    Its single layer has two heads. Head ``PLANTED`` attends to the step that each row reads, head
    ``MISPLACED`` to one half an utterance away, which the row does not depend on. The end of
    sentence is predicted from the number of steps, so its row depends on no input and both heads
    spread their attention evenly there. A tenth of all attention falls on padding.
    """

    def __init__(self, n_padding=3):
        super().__init__(np.zeros((0, 0, 0, 0)), n_padding=n_padding)

    def features(self, audio):
        frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, N_BINS, FRAME // N_BINS)
        return Features(np.abs(frames).mean(axis=2, dtype=np.float32), padding_value=0.0)

    def prompt(self, task):
        return list(PROMPT)

    def readout(self, steps, n_rows):
        weights = torch.zeros(
            n_rows, steps + self._n_padding, SUBSAMPLING * N_BINS, N_BINS + 1, dtype=torch.float64
        )
        bias = torch.zeros(n_rows, N_BINS + 1, dtype=torch.float64)
        bias[:, EOS] = -20
        for row in range(n_rows):
            if row >= n_words(steps):
                bias[row, EOS] = 20
                continue
            for frame in range(SUBSAMPLING):
                for word in range(N_BINS):
                    weights[row, step_of(row), frame * N_BINS + word, word] = 5
        return weights, bias

    def generate(self, states, prompt, *, beam, max_new_tokens, forced=()):
        assert prompt == PROMPT
        self.calls["generate"] += len(states)
        n_rows = n_words(states.shape[1] - self._n_padding) + 1
        best = self._logits(states, n_rows).argmax(dim=2)
        return best[:, :max_new_tokens].tolist()

    def cross_attention(self, states, prompt, tokens):
        speech = states.shape[1] - self._n_padding
        weights = np.full((1, 2, len(tokens), states.shape[1]), 0.9 / speech, np.float32)
        weights[..., speech:] = 0.1 / self._n_padding
        for row in range(n_words(speech)):
            weights[0, :, row, :speech] = 0
            weights[0, PLANTED, row, step_of(row)] = 0.9
            weights[0, MISPLACED, row, (step_of(row) + speech // 2) % speech] = 0.9
        return CrossAttention(weights, 2 * weights)

    def token_table(self, tokens):
        spoken = [token != EOS for token in tokens]
        return TokenTable(
            pieces=[f" {WORDS[token]}" if token != EOS else "<eos>" for token in tokens],
            roles=["text" if word else "eos" for word in spoken],
            word_index=[row if word else -1 for row, word in enumerate(spoken)],
        )

    def text(self, tokens):
        return " ".join(WORDS[token] for token in tokens if token != EOS)


class HardOfHearing(WordModel):
    """A :class:`WordModel` whose cheap pass mixes a share of the next word into each word.

    Parameters
    ----------
    error
        The share; with 0.005 scores are close, with 0.6 far off.
    """

    def __init__(self, error=0.6):
        super().__init__()
        self._error = error
        self.n_learnt_from = []

    def cheap_passes(self, perturbed, padding_value):
        self.n_learnt_from.append(len(perturbed))

        def logits(features, prompt, tokens, occluded_tokens=None):
            self.calls["cheap"] += len(features)
            late = features.roll(-WORD_FRAMES, dims=1)
            mixed = (1 - self._error) * features + self._error * late
            return self._logits(self.encode(mixed, padding_value), len(tokens))

        return [CheapPass(logits, "all of it, badly")]


def n_words(steps):
    return steps // WORD_STEPS


def step_of(row):
    """Return the encoder step that row ``row`` of a :class:`WordModel` reads."""
    return WORD_STEPS * row + 1


def write_speech(path: Path, text: str, seed: int = 0) -> None:
    """Write a recording in which :class:`WordModel` hears ``text``."""
    rng = np.random.default_rng(seed)
    words = [WORDS.index(word) for word in text.split()]
    loud = np.full((len(words), WORD_FRAMES, N_BINS), 0.1)
    loud[np.arange(len(words)), :, words] = 0.9
    loud += rng.uniform(-0.05, 0.05, loud.shape)  # so that SLIC has something to follow
    samples = np.repeat(loud.reshape(-1, N_BINS), FRAME // N_BINS, axis=1).ravel()
    soundfile.write(path, samples, SAMPLING_RATE, subtype="PCM_16")


class Handle:
    """Stands for a model handle; asking for the model fails where it is ``None``."""

    family = "toy"
    precision = "float32"
    device = "cpu"

    def __init__(self, model, sha256="a" * 64):
        self._model = model
        self.sha256 = sha256

    @property
    def model(self):
        assert self._model is not None, "the model was loaded although all work is in the store"
        return self._model
