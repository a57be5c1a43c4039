"""A listener whose attention, context mixing and use of features are planted, and what must follow.

The first half builds the model and its recordings. The second half says which maps the six steps
must find. It shares no code with the package: every combination of masks that matters is
enumerated, which gives both the map without noise and the noise that a mask leaves.

**The recording.** Four bins, two frames for an encoder step, four steps for a word: a step of
babble, two steps of the word, a step of babble. Bin 0 is loud and bin 1 quiet where "yes" is said,
the other way round where "no" is said; bins 2 and 3 crackle at random and mean nothing.

**The model.** A state is a share ``1 - mixing`` of its own step and a share ``mixing`` of the mean
of its neighbours, up to ``REACH`` steps away. A word's row attends to the two steps of its word and
reads there, of the first frame, how much louder bin 0 is than bin 1. Much louder is "yes", much
quieter is "no", anything between is "maybe".
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch

from s2txai.errors import UserError
from s2txai.models.base import CrossAttention, Features, TokenTable
from tests.toy import FRAME, SAMPLING_RATE, SUBSAMPLING, LinearModel

# --- The recording -------------------------------------------------------------------------------

WORDS = ("yes", "no", "maybe")
YES, NO, MAYBE, EOS = range(4)
# As many "yes" as "no", so that the mean of each bin is halfway between loud and quiet.
TEXTS = {"four": "yes no no yes", "six": "no yes no yes yes no"}
N_BINS = 4
BLOCK = 4  # encoder steps of a word with the babble around it
LOUD, QUIET = 0.9, 0.1


def said_steps(row: int) -> list[int]:
    """Return the two steps in which word ``row`` is said."""
    return [BLOCK * row + 1, BLOCK * row + 2]


def energies(text: str) -> np.ndarray:
    """Return [T, F]."""
    heard = []  # for each step: does it sound like "yes" or like "no"?
    for word in text.split():
        heard += ["yes", word, word, "no"]
    yes = np.repeat([sound == "yes" for sound in heard], SUBSAMPLING)  # (T)
    crackle = np.random.default_rng(len(yes)).random((len(yes), 2)) < 0.5
    return np.where(np.column_stack([yes, ~yes, crackle]), LOUD, QUIET)


def record(path: Path, text: str) -> None:
    """Write the recording of a text."""
    samples = np.repeat(energies(text), FRAME // N_BINS, axis=1).ravel()
    soundfile.write(path, samples, SAMPLING_RATE, subtype="PCM_16")


# --- The model -----------------------------------------------------------------------------------

REACH = 2
GAIN = 12.0
DOUBT = 1.25  # logit of "maybe"
N_PADDING = 3
ON_SPEECH = 0.9  # the rest of all attention falls on padding

# Layer 0 looks and does nothing with it; layer 1 is where the model reads. In each, head 1 looks
# everywhere evenly.
IDLE, READING = 0, 1
LOOKING, EVEN = 0, 1


def mixing_matrix(n_steps: int, mixing: float) -> np.ndarray:
    """Return [T', T']: what share of each state comes from which step."""
    distance = np.abs(np.subtract.outer(np.arange(n_steps), np.arange(n_steps)))
    neighbours = (distance > 0) & (distance <= REACH)
    means = neighbours / neighbours.sum(axis=1, keepdims=True)
    return (1 - mixing) * np.eye(n_steps) + mixing * means


def reading_attention(n_steps: int) -> np.ndarray:
    """Return [words, T']: every word's row looks at the two steps of its word."""
    weights = np.zeros((n_steps // BLOCK, n_steps))
    for row in range(len(weights)):
        weights[row, said_steps(row)] = ON_SPEECH / 2
    return weights


def misplaced_attention(n_steps: int) -> np.ndarray:
    """Return [words, T']: every row looks at the word after its own.

    Its own word keeps what looking everywhere evenly would give it; with less, the two maps would
    not be unrelated but opposed.
    """
    reading = reading_attention(n_steps)
    by_chance = 1 / len(reading) * 2 / BLOCK  # two steps of all steps
    return by_chance * reading + (1 - by_chance) * np.roll(reading, -1, axis=0)


class PlantedModel(LinearModel):
    """See the top of the file.

    Parameters
    ----------
    mixing
        Share of a state that comes from other steps.
    attentive
        If not, the model reads the same steps without attending to them: all its heads look away.
    """

    def __init__(self, mixing: float = 0.0, attentive: bool = True):
        super().__init__(np.zeros((0, 0, 0, 0)), n_padding=N_PADDING)
        self.mixing = mixing
        self.attentive = attentive

    def features(self, audio):
        frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, N_BINS, FRAME // N_BINS)
        return Features(np.abs(frames).mean(axis=2, dtype=np.float32), padding_value=0.0)

    def prompt(self, task):
        return [9]

    def encode(self, features, padding_value):
        states = super().encode(features, padding_value)
        speech = states.shape[1] - N_PADDING
        mixing = torch.from_numpy(mixing_matrix(speech, self.mixing))
        states[:, :speech] = torch.einsum("jk,nkd->njd", mixing, states[:, :speech])
        return states

    def encoder_attention(self, features, padding_value):
        """Return the one layer [1, steps, steps] whose rollout is the planted mixing.

        Rollout keeps half of every step, so no attention says that a state keeps less.
        """
        if self.mixing > 0.5:
            raise UserError("Attention cannot say how much this model mixes: leave it out.")
        (layer,) = super().encoder_attention(features, padding_value)
        speech = len(layer) - N_PADDING
        layer[:speech, :speech] = 2 * mixing_matrix(speech, self.mixing) - np.eye(speech)
        return layer[None]

    def readout(self, steps, n_rows):
        reads = torch.zeros(SUBSAMPLING, N_BINS, len(WORDS) + 1, dtype=torch.float64)
        reads[0, 0, [YES, NO]] = torch.tensor([GAIN / 2, -GAIN / 2], dtype=torch.float64)
        reads[0, 1] = -reads[0, 0]
        attention = torch.zeros(n_rows, steps + N_PADDING, dtype=torch.float64)
        attention[: steps // BLOCK, :steps] = torch.from_numpy(reading_attention(steps))
        bias = torch.zeros(n_rows, len(WORDS) + 1, dtype=torch.float64)
        bias[:, MAYBE], bias[:, EOS] = DOUBT, -20
        bias[steps // BLOCK :, EOS] = 20  # the sentence ends after its last word, whatever is heard
        return attention[:, :, None, None] * reads.reshape(-1, len(WORDS) + 1), bias

    def generate(self, states, prompt, *, beam, max_new_tokens, forced=()):
        n_rows = (states.shape[1] - N_PADDING) // BLOCK + 1
        return self._logits(states, n_rows).argmax(dim=2)[:, :max_new_tokens].tolist()

    def cross_attention(self, states, prompt, tokens):
        speech = states.shape[1] - N_PADDING
        words = speech // BLOCK
        weights = np.zeros((2, 2, len(tokens), states.shape[1]), np.float32)
        weights[..., :speech] = ON_SPEECH / speech
        weights[..., speech:] = (1 - ON_SPEECH) / N_PADDING
        away = misplaced_attention(speech)
        weights[IDLE, LOOKING, :words, :speech] = away
        look = reading_attention(speech) if self.attentive else away
        weights[READING, LOOKING, :words, :speech] = look
        return CrossAttention(weights, weights)

    def token_table(self, tokens):
        return TokenTable(
            pieces=[f" {WORDS[token]}" if token != EOS else "<eos>" for token in tokens],
            roles=["text" if token != EOS else "eos" for token in tokens],
            word_index=[row if token != EOS else -1 for row, token in enumerate(tokens)],
        )

    def text(self, tokens):
        return " ".join(WORDS[token] for token in tokens if token != EOS)


# --- What must follow ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Saliency:
    """A saliency map of one row at encoder steps, without noise and with it.

    Attributes
    ----------
    steps
        [T'], the map that infinitely many masks would give.
    noise
        Expected variance over the steps of the error of one mask; n masks leave an n-th of it.
    """

    steps: np.ndarray
    noise: float

    def reliability(self, n_masks: float) -> float:
        """Return the expected correlation of two maps of ``n_masks`` masks each."""
        signal = self.steps.var()
        return float(signal / (signal + self.noise / n_masks))


def divergence(evidence: float, perturbed: np.ndarray) -> np.ndarray:
    """Return the score in nats of evidence for "yes" (positive) or "no" that was perturbed."""

    def log_probabilities(evidence):
        doubt, end = np.full_like(evidence, DOUBT), np.full_like(evidence, -20)
        logits = np.stack([evidence / 2, -evidence / 2, doubt, end])
        return logits - np.log(np.exp(logits).sum(axis=0))

    before, after = log_probabilities(np.array([evidence])), log_probabilities(perturbed)
    return (np.exp(before) * (before - after)).sum(axis=0)


def enumerate_masks(evidence: float, shifts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return a row's saliency [S] without noise, and the covariance [S, S] that one mask leaves.

    Parameters
    ----------
    evidence
        Of the unperturbed input.
    shifts
        [S], how occluding each segment changes the evidence. Most change nothing; all combinations
        of the others are tried, each as likely as any (p = 0.5).
    """
    used = np.flatnonzero(shifts)
    masks = (np.arange(2 ** len(used))[:, None] >> np.arange(len(used))) & 1  # (combination, used)
    scores = divergence(evidence, evidence + masks @ shifts[used])
    saliency = np.full(len(shifts), scores.mean())
    saliency[used] = (masks * scores[:, None]).sum(axis=0) / masks.sum(axis=0)

    # A mask moves the mean of the n p masks that occlude a segment by (score - mean) / (n p).
    errors = np.tile(scores[:, None] - scores.mean(), len(shifts))
    errors[:, used] = 2 * masks * (scores[:, None] - saliency[used])
    covariance = errors.T @ errors / len(scores)
    unused = np.setdiff1d(np.arange(len(shifts)), used)
    covariance[unused, unused] *= 2  # whether such a segment is occluded is one more coin
    return saliency, covariance


def noise_over_steps(covariance: np.ndarray) -> float:
    """Return the expected variance over steps of errors with this covariance [T', T']."""
    n_steps = len(covariance)
    centre = np.eye(n_steps) - 1 / n_steps
    return float(np.trace(centre @ covariance @ centre) / n_steps)


class Truth:
    """What the steps must find in one recording.

    Parameters
    ----------
    energies
        [T, F], the model's input.
    mixing
        Of the model.
    segments
        [K, T, F], ids unique over K; without, every cell is a segment.
    """

    def __init__(self, energies: np.ndarray, mixing: float, segments: np.ndarray | None = None):
        x = self.energies = np.asarray(energies, dtype=np.float64)
        T, F = x.shape
        self.n_steps = T // SUBSAMPLING
        self.segments = np.arange(T * F).reshape(1, T, F) if segments is None else segments
        mixed = mixing_matrix(self.n_steps, mixing)
        attention = reading_attention(self.n_steps)
        # What a row reads from each cell: the first frame of a step, bin 0 against bin 1.
        self.weights = np.zeros((len(attention), T, F))  # (I, T, F)
        self.weights[:, ::SUBSAMPLING, 0] = GAIN * attention @ mixed
        self.weights[:, ::SUBSAMPLING, 1] = -self.weights[:, ::SUBSAMPLING, 0]
        self.evidence = (self.weights * x).sum(axis=(1, 2))  # (I)
        # Occluding a cell puts the mean of its bin there; occluding a state leaves no evidence.
        self.cell_shifts = self.weights * (x.mean(axis=0) - x)  # (I, T, F)
        states = mixed @ x[::SUBSAMPLING]  # first frames
        self.step_shifts = -GAIN * attention * (states[:, 0] - states[:, 1])  # (I, T')

    def smh(self) -> list[Saliency]:
        """Return the map of encoder outputs, row by row."""
        found = []
        for evidence, shifts in zip(self.evidence, self.step_shifts, strict=True):
            steps, covariance = enumerate_masks(evidence, shifts)
            found.append(Saliency(steps, noise_over_steps(covariance)))
        return found

    def smx_cells(self) -> np.ndarray:
        """Return the map of the input [I, T, F]; segmentations have equally many masks."""
        return np.stack([self._cells(row)[0] for row in range(len(self.evidence))])

    def smx(self) -> list[Saliency]:
        """Return the map of the input, pooled by the mean over each step's cells."""
        found = []
        for row in range(len(self.evidence)):
            cells, covariance = self._cells(row)
            steps = cells.reshape(self.n_steps, -1).mean(axis=1)
            found.append(Saliency(steps, noise_over_steps(covariance)))
        return found

    def _cells(self, row: int) -> tuple[np.ndarray, np.ndarray]:
        """Return a row's map [T, F], and the covariance [T', T'] that one mask leaves at steps."""
        K = len(self.segments)
        cells = np.zeros(self.energies.shape)
        covariance = np.zeros((self.n_steps, self.n_steps))
        for labels in self.segments:
            _, ids = np.unique(labels, return_inverse=True)
            shifts = np.bincount(ids.ravel(), self.cell_shifts[row].ravel())
            # Cells of a segment may cancel but for rounding.
            shifts[np.abs(shifts) < 1e-9] = 0
            saliency, of_segments = enumerate_masks(self.evidence[row], shifts)
            cells += saliency[ids.reshape(labels.shape)] / K
            # Share of each segment in each step's mean.
            by_step = ids.reshape(self.n_steps, -1)  # (T', cells of a step)
            share = np.stack([np.bincount(one, minlength=len(shifts)) for one in by_step])
            share = share / by_step.shape[1]
            covariance += share @ of_segments @ share.T / K  # a K-th of the weight and of the masks
        return cells, covariance

    def deletion_curve(self, percents, saliency: np.ndarray, n_orders: int = 400) -> np.ndarray:
        """Return the expected WER when cells go in the order of a map [T, F], ties at random."""
        rng = np.random.default_rng(0)
        shifts = self.cell_shifts.reshape(len(self.evidence), -1)
        counts = [saliency.size * percent // 100 for percent in percents]
        wrong = np.zeros(len(percents))
        for _ in range(n_orders):
            order = np.lexsort((rng.random(saliency.size), -saliency.ravel()))
            gone = np.cumsum(shifts[:, order], axis=1)
            lost = np.column_stack([np.zeros(len(shifts)), gone])[:, counts]  # (I, percent)
            left = self.evidence[:, None] + lost
            wrong += (np.sign(self.evidence)[:, None] * left / 2 < DOUBT).mean(axis=0)
        return 100 * wrong / n_orders


def expected_rho(attention: np.ndarray, rows: list[Saliency], n_masks: float = np.inf) -> float:
    """Return the expected correlation with attention [I, T'], the mean over rows."""
    pairs = zip(attention, rows, strict=True)
    return float(
        np.mean(
            [np.corrcoef(a, row.steps)[0, 1] * row.reliability(n_masks) ** 0.5 for a, row in pairs]
        )
    )
