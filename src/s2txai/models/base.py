"""What every speech-to-text model looks like to the rest of the package.

A family (Whisper, a Conformer, ...) is one module that implements :class:`Model` and one line in
the registry; everything downstream uses only what is declared here.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch

from s2txai.datasets import Task
from s2txai.errors import UserError
from s2txai.models.options import NO_OPTIONS

Role = Literal["text", "special", "eos", "forced"]


@dataclass(frozen=True)
class Facts:
    """What stays the same for every utterance that a model receives.

    Attributes
    ----------
    sampling_rate
        Of the audio the model expects, in Hz.
    frame_shift
        Time between two input frames, in seconds.
    subsampling
        Input frames for one encoder step (r).
    max_new_tokens
        The most tokens the decoder can predict after its prompt.
    time_only
        Whether the F values of a frame are samples of a waveform, which have no meaning one by
        one, so that only whole frames are occluded.
    """

    sampling_rate: int
    frame_shift: float
    subsampling: int
    max_new_tokens: int
    time_only: bool = False


@dataclass(frozen=True)
class Features:
    """The part of a model's input that covers speech.

    Attributes
    ----------
    values
        float32 [T, F], the frames whose analysis window touches the audio.
    padding_value
        What the model's input holds after them, where its context has a fixed length (Whisper
        pads to 30 s); these frames are never perturbed nor correlated.
    """

    values: np.ndarray
    padding_value: float


@dataclass(frozen=True)
class TokenTable:
    """What each predicted token is, one entry per row.

    Attributes
    ----------
    pieces
        The token's text, leading space included.
    roles
        ``text``, ``special``, ``eos`` or, of a token that every hypothesis begins with, ``forced``.
    word_index
        Which word of the hypothesis the token belongs to, from 0; -1 for no word.
    """

    pieces: list[str]
    roles: list[Role]
    word_index: list[int]


@dataclass(frozen=True)
class CrossAttention:
    """Cross-attention of a teacher-forced pass, over all encoder steps (padding included).

    Attributes
    ----------
    weights
        float32 [L, H, I, steps]; each row sums to 1.
    value_norm
        float32 [L, H, I, steps]: the norm of what each step contributes to the layer's output,
        weight times norm of the transformed value vector (Kobayashi et al. 2020, eq. 5).
    """

    weights: np.ndarray
    value_norm: np.ndarray


class PerturbedLogits(Protocol):
    """From perturbations of one input to logits."""

    def __call__(
        self,
        features: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        occluded_tokens: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] of a teacher-forced pass over ``tokens``.

        Parameters
        ----------
        features
            [N, T, F].
        prompt, tokens
            The hypothesis.
        occluded_tokens
            bool [N, I], as for :meth:`Model.decode_without_tokens`; None: none.
        """


@dataclass(frozen=True)
class CheapPass:
    """A pass over perturbations of one input that costs less, and is close to the exact one.

    Attributes
    ----------
    logits
        Runs it.
    description
        For people: what it computes.
    """

    logits: PerturbedLogits
    description: str


class Model(Protocol):
    """An encoder-decoder speech-to-text model.

    Shapes: N batch, T frames, F bins, I predicted tokens, V vocabulary, D width. Row i of every
    result belongs to the position that predicts ``tokens[i]``; the prompt is context, not a row.
    """

    facts: Facts
    device: torch.device
    # Whether float32 products on a GPU may round to TF32; set by whoever loads the model.
    tf32: bool = False
    # Where its files are, where it was loaded from some.
    directory: Path | None = None

    @contextmanager
    def arithmetic(self) -> Iterator[None]:
        """Set torch's TF32 switches as this model computes, and set them back afterwards.

        Every method enters it by itself; whoever differentiates :meth:`differentiable_logits` does
        so inside it, since the backward pass obeys the same switches.
        """
        with tf32_products(self.device, allowed=self.tf32):
            yield

    def compile(self) -> None:
        """Compile the encoder with ``torch.compile``; nothing where a family does not."""

    def prompt(self, task: Task) -> list[int]:
        """Return the tokens that the decoder is given before the first row: context, not rows."""

    def forced(self, task: Task) -> list[int]:
        """Return the tokens that every hypothesis begins with; they are rows (role ``forced``).

        None for most families. A model trained to predict the language tag has it here.
        """
        return []

    def features(self, audio: np.ndarray) -> Features:
        """Turn a waveform [samples] at ``facts.sampling_rate`` into input frames."""

    def encode(self, features: torch.Tensor, padding_value: float) -> torch.Tensor:
        """Encode [N, T, F] into states [N, steps, D]; the first ceil(T / r) steps cover speech."""

    def decode(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] of a teacher-forced pass over ``tokens``."""

    def decode_occluded(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
        occluded_value: torch.Tensor | None,
    ) -> torch.Tensor:
        """Return logits [N, I, V] with encoder steps occluded.

        Parameters
        ----------
        states
            [1, steps, D], of one utterance.
        occluded
            bool [N, T'], True where a step over speech is occluded; steps past the speech stay.
        prompt, tokens
            The hypothesis.
        occluded_value
            [D], the vector that an occluded step becomes; None hides it from cross-attention.

        Raises
        ------
        UserError
            If the family cannot hide steps.
        """
        # The plain way; a family overrides it where most of the work is the same for all N.
        if occluded_value is None:
            raise UserError(
                "This family of models cannot hide encoder steps: set 'smh.occluded_value' to zero."
            )
        everywhere = pad_steps(occluded, states.shape[1])[:, :, None]  # (N, steps, 1)
        return self.decode(torch.where(everywhere, occluded_value, states), prompt, tokens)

    def decode_without_tokens(
        self,
        states: torch.Tensor,
        occluded: torch.Tensor,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return logits [N, I, V] with embeddings of preceding tokens set to zero.

        Parameters
        ----------
        states
            [N, steps, D].
        occluded
            bool [N, I]: entry j is the token that the decoder reads to predict row j, the last of
            the prompt for row 0. Its position is still encoded.
        prompt, tokens
            The hypothesis.

        Raises
        ------
        UserError
            If the family cannot do this.
        """
        raise UserError(
            "This family of models cannot occlude preceding tokens: set 'smx.token_p' to 0."
        )

    def cheap_passes(self, perturbed: torch.Tensor, padding_value: float) -> Sequence[CheapPass]:
        """Return cheaper passes for perturbations of one input, the cheapest first.

        Empty where the family has none, or where they would hardly be cheaper for this input.

        Parameters
        ----------
        perturbed
            [P, T, F], perturbations from which the passes learn what hardly changes. Scores of
            these very perturbations would be biased, so they must not be summed.
        padding_value
            As for ``encode``.
        """
        return ()

    def differentiable_logits(
        self,
        features: torch.Tensor,
        padding_value: float,
        prompt: Sequence[int],
        tokens: Sequence[int],
    ) -> torch.Tensor:
        """Return float32 logits [N, I, V] with a graph that leads back to the features.

        The same numbers as ``decode(encode(features, padding_value), prompt, tokens)``, which need
        not keep a graph. Weights stay frozen.

        Parameters
        ----------
        features
            [N, T, F]; gradients flow to it where it requires them.
        padding_value
            As for ``encode``.
        prompt, tokens
            The hypothesis, teacher-forced.
        """

    def generate(
        self,
        states: torch.Tensor,
        prompt: Sequence[int],
        *,
        beam: int,
        max_new_tokens: int,
        forced: Sequence[int] = (),
    ) -> list[list[int]]:
        """Decode each of the N states by beam search.

        A hypothesis begins with the ``forced`` tokens; its last is end of sentence unless there are
        already ``max_new_tokens``, which count from the first after the prompt.
        """

    def cross_attention(
        self, states: torch.Tensor, prompt: Sequence[int], tokens: Sequence[int]
    ) -> CrossAttention:
        """Return the attention of a teacher-forced pass over ``tokens``; ``states`` has N = 1."""

    def encoder_attention(self, features: torch.Tensor, padding_value: float) -> np.ndarray:
        """Return the encoder's self-attention, float32 [layers, steps, steps]; N = 1.

        The mean over the heads of each layer, from input to output: all heads of a deep encoder
        over 30 s would be gigabytes. Entry ``[l, i, j]`` is what step i takes from step j; rows
        over all steps sum to 1.

        Raises
        ------
        UserError
            If the layers of the family's encoder work at another rate than its output.
        """

    def layers(self) -> list[torch.nn.Module]:
        """Return the network in parts, from its output to its input, each weight in one of them.

        Weights are changed in place through these (:mod:`s2txai.models.randomise`).
        """

    def token_table(self, tokens: Sequence[int]) -> TokenTable:
        """Describe each token."""

    def text(self, tokens: Sequence[int]) -> str:
        """Return the plain text of ``tokens``, without special tokens."""


class Loader(Protocol):
    """How a family is loaded."""

    def __call__(
        self,
        directory: Path,
        *,
        device: torch.device,
        precision: torch.dtype,
        options: Mapping[str, Any] = NO_OPTIONS,
    ) -> Model:
        """Load the weights under ``directory``; compute in ``precision`` on ``device``.

        ``options`` holds those of the family's ``options`` that the model's entry sets.
        """


@contextmanager
def tf32_products(device: torch.device, *, allowed: bool) -> Iterator[None]:
    """Let float32 matrix products and convolutions on a GPU round to TF32, or not, for a while."""
    if device.type != "cuda":  # elsewhere there is no TF32, and nothing to switch
        yield
        return
    matmul, convolutions = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, convolutions.allow_tf32
    matmul.allow_tf32 = convolutions.allow_tf32 = allowed
    try:
        yield
    finally:
        matmul.allow_tf32, convolutions.allow_tf32 = before


def pad_steps(occluded: torch.Tensor, n_all_steps: int) -> torch.Tensor:
    """Extend bool [N, T'] to [N, steps] with False: steps past the speech are never occluded."""
    return torch.nn.functional.pad(occluded, (0, n_all_steps - occluded.shape[1]))


def n_steps(n_frames: int, subsampling: int) -> int:
    """Return T', the encoder steps that cover ``n_frames`` frames: ceil(T / r)."""
    return -(-n_frames // subsampling)
