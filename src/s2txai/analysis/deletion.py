"""Step 6: does the model fail when the cells a map calls salient are deleted?

Cells are deleted in order of the sentence map and the utterance is decoded again; the faster the
score falls, the more faithful the map (paper, section 5; ``docs/definitions.md``). Insertion is the
opposite: only the most salient cells are there. Both also ask how probable the model's unperturbed
hypothesis still is, which needs no search.
"""

import hashlib
import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from s2txai.errors import UserError
from s2txai.models.base import Model
from s2txai.models.decoding import token_log_probs
from s2txai.models.memory import ENCODED_AT_ONCE, smaller_batch
from s2txai.saliency.deletion_maps import cell_order
from s2txai.saliency.heard import Heard
from s2txai.saliency.occluded_values import bin_mean

# Input [T, F], of NumPy or of torch.
Cells = TypeVar("Cells", np.ndarray, torch.Tensor)

AXES = {"percents": ["percent"], "hypotheses": ["percent"], "log_probs": ["percent"]}
UNITS = {"percents": "% of cells", "log_probs": "nat"}

# The array of new hypotheses in a ``deletion`` artefact, by mode.
HYPOTHESES = {"deletion": "hypotheses", "insertion": "insertion_hypotheses"}

# Digest of an input; the new hypothesis, if one was decoded, and the mean log-probability of the
# unperturbed one.
_Key = bytes
_Point = tuple[str | None, float]

# Of the size of a map. Divided, not added up: 0.15 is to reach the threshold 0.15.
THRESHOLDS = np.arange(21) / 20


def delete(
    features: Cells,
    saliency: npt.ArrayLike | torch.Tensor,
    percent: float,
    occluded_value: npt.ArrayLike | torch.Tensor = 0.0,
    *,
    seed: int = 0,
) -> Cells:
    """Return a copy of ``features`` whose most salient cells hold the occluded value.

    Parameters
    ----------
    features
        [T, F], an array or a tensor; it stays as it is.
    saliency
        [T, F], or [1, T, F] as published files hold it; ties are broken by a permutation drawn from
        ``seed``.
    percent
        Of the cells, 0-100: the first floor(T F percent / 100) are deleted.
    occluded_value
        Value of a deleted cell: a number, or one for each bin [F].
    seed
        Of the tie-breaking.

    Returns
    -------
    ndarray or Tensor
        [T, F], of the kind, type and device of ``features``.

    Raises
    ------
    UserError
        If the two maps differ in shape, or ``percent`` is not within 0-100.
    """
    return _replaced(features, _most_salient(features, saliency, percent, seed), occluded_value)


def insert(
    features: Cells,
    saliency: npt.ArrayLike | torch.Tensor,
    percent: float,
    occluded_value: npt.ArrayLike | torch.Tensor = 0.0,
    *,
    seed: int = 0,
) -> Cells:
    """Return a copy of ``features`` where only the most salient cells keep their value.

    Parameters, value and errors are those of :func:`delete`: the first floor(T F percent / 100)
    cells keep their value, the others get the occluded value.
    """
    return _replaced(features, ~_most_salient(features, saliency, percent, seed), occluded_value)


def _most_salient(
    features: Cells, saliency: npt.ArrayLike | torch.Tensor, percent: float, seed: int
) -> np.ndarray:
    """Return bool [T, F], the first floor(T F percent / 100) cells in descending order."""
    if isinstance(saliency, torch.Tensor):
        saliency = saliency.detach().cpu().double().numpy()
    expected: tuple[int, ...] = tuple(features.shape)
    shape = np.shape(saliency)
    if shape not in (expected, (1, *expected)):
        raise UserError(
            f"The saliency map has shape {shape}, the features {expected}: give one value per cell."
        )
    if not 0 <= percent <= 100:
        raise UserError(f"Cannot delete or insert {percent} % of the cells: choose 0 to 100.")
    return _first_cells(cell_order(saliency, seed), expected, percent)


def _first_cells(order: np.ndarray, shape: tuple[int, ...], percent: float) -> np.ndarray:
    """Return bool [T, F], the first floor(T F percent / 100) of the cells in ``order`` [T F]."""
    cells = np.zeros(math.prod(shape), dtype=bool)
    # A narrow integer, as of an array of percentages, could not hold the product.
    cells[order[: int(cells.size * float(percent) // 100)]] = True
    return cells.reshape(shape)


def _replaced(
    features: Cells, cells: np.ndarray, occluded_value: npt.ArrayLike | torch.Tensor
) -> Cells:
    """Return a copy of features [T, F] with the occluded value in some cells, bool [T, F]."""
    if isinstance(features, torch.Tensor):
        values = torch.as_tensor(occluded_value, dtype=features.dtype, device=features.device)
        return torch.where(torch.from_numpy(cells).to(features.device), values, features)
    return np.where(cells, np.asarray(occluded_value), features).astype(features.dtype)


def area_under_curve(percent: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the raw trapezoid of a score over percentages; divide by 100 for the tables.

    Parameters
    ----------
    percent
        [P], of the cells, 0-100, rising.
    score
        [P], in any unit.

    Returns
    -------
    float
        In that unit times percent, as the code published with the paper has it: at most 10,000 for
        a score of at most 100.
    """
    return float(np.trapezoid(np.asarray(score, float), np.asarray(percent, float)))


def salient_share(saliency: npt.ArrayLike) -> float:
    """Return how much of a map is salient, in percent of its cells.

    The share of the cells whose value reaches a threshold, over the thresholds 0, 0.05 ... 1
    (trapezoid): about 100 times the mean of the map. 2.5 where a single one of very many cells
    stands out, 100 where all are at the top; the smaller, the sharper the map.

    Parameters
    ----------
    saliency
        [T, F], or [I, T, F] with rows weighted equally. Thresholds apply to the values as they are:
        bring a map within [0, 1] first (:func:`s2txai.saliency.deletion_maps.scaled_rows`).

    Returns
    -------
    float
        0-100.
    """
    flat = np.sort(np.asarray(saliency, dtype=np.float64), axis=None)
    reached = flat.size - np.searchsorted(flat, THRESHOLDS, side="left")  # value >= threshold
    return float(np.trapezoid(100 * reached / flat.size, THRESHOLDS))


@dataclass(frozen=True)
class BeamSearch:
    """How perturbed inputs are decoded.

    Attributes
    ----------
    beam
        Width of the beam search.
    max_new_tokens
        Its limit.
    forced
        Tokens that every hypothesis begins with.
    """

    beam: int
    max_new_tokens: int
    forced: Sequence[int] = ()


@dataclass(frozen=True)
class Perturbation:
    """Growing shares of the most salient cells of one map, deleted or inserted.

    Attributes
    ----------
    saliency
        Sentence map [T, F].
    percents
        [P], shares to delete, or to insert, 0-100.
    mode
        ``deletion`` or ``insertion``.
    """

    saliency: np.ndarray
    percents: Sequence[int]
    mode: str = "deletion"


@dataclass(frozen=True)
class Outcome:
    """What a model makes of perturbed inputs, one entry per percentage.

    Attributes
    ----------
    texts
        New hypotheses; none where nothing was decoded.
    log_probs
        Mean log-probability of the tokens of the *unperturbed* hypothesis, teacher-forced, in nats.
    """

    texts: list[str]
    log_probs: list[float]


def perturb(
    model: Model,
    heard: Heard,
    perturbations: Sequence[Perturbation],
    *,
    search: BeamSearch | None,
    batch_size: int,
    seed: int,
) -> Iterator[Outcome]:
    """Run the model on the inputs of all perturbations, on equal inputs once.

    Batches run over maps, percentages and modes. An input occurs repeatedly where nothing or
    everything is deleted, and where maps agree on the first cells.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and unperturbed hypothesis.
    perturbations
        Which cells hold the occluded value.
    search
        How to decode; None computes only the log-probability of the hypothesis.
    batch_size
        Inputs at once; halved when the device runs out of memory.
    seed
        Of the tie-breaking.

    Yields
    ------
    Outcome
        Of each perturbation, in order, as soon as its last input is processed.
    """
    inputs = _Inputs(model, heard, search, batch_size)
    unfinished: deque[list[_Key]] = deque()
    for perturbation in perturbations:
        unfinished.append([inputs.add(variant) for variant in _variants(heard, perturbation, seed)])
        while unfinished and inputs.has(unfinished[0]):
            yield inputs.outcome(unfinished.popleft())
    inputs.run()
    yield from (inputs.outcome(keys) for keys in unfinished)


class _Inputs:
    """Distinct inputs, processed in batches as they come in.

    Parameters
    ----------
    model, heard, search, batch_size
        As for :func:`perturb`.
    """

    def __init__(
        self, model: Model, heard: Heard, search: BeamSearch | None, batch_size: int
    ) -> None:
        self._model, self._heard, self._search = model, heard, search
        self._batch_size = batch_size
        self._pending: dict[_Key, np.ndarray] = {}
        self._points: dict[_Key, _Point] = {}

    def add(self, variant: np.ndarray) -> _Key:
        """Take up an input [T, F], and process a batch if it is full; return the input's key."""
        key = hashlib.sha256(variant.tobytes()).digest()
        if key not in self._points:
            self._pending[key] = variant
        if len(self._pending) == self._batch_size:
            self.run()
        return key

    def has(self, keys: Sequence[_Key]) -> bool:
        """Return whether all of these inputs are processed."""
        return all(key in self._points for key in keys)

    def outcome(self, keys: Sequence[_Key]) -> Outcome:
        """Return what the model made of processed inputs."""
        points = [self._points[key] for key in keys]
        texts = [text for text, _ in points if text is not None]
        return Outcome(texts, [log_prob for _, log_prob in points])

    def run(self) -> None:
        """Process what is pending: one batch, or several where memory ran out."""
        while self._pending:
            keys = list(self._pending)[: self._batch_size]
            try:
                points = self._run(np.stack([self._pending[key] for key in keys]))
            except (RuntimeError, MemoryError) as error:
                self._batch_size = smaller_batch(self._batch_size, error)
                continue
            self._points.update(zip(keys, points, strict=True))
            for key in keys:
                del self._pending[key]

    def _run(self, variants: np.ndarray) -> list[_Point]:
        """Return what the model makes of each of the inputs [N, T, F]."""
        model, heard = self._model, self._heard
        inputs = torch.from_numpy(variants).to(model.device)
        parts = torch.split(inputs, ENCODED_AT_ONCE.get(model.device.type, len(inputs)))
        states = torch.cat([model.encode(part, heard.padding_value) for part in parts])
        logits = model.decode(states, heard.prompt, heard.tokens)  # (N, I, V)
        log_probs = [float(token_log_probs(rows, heard.tokens).mean()) for rows in logits]
        texts: Sequence[str | None] = [None] * len(variants)
        if self._search is not None:
            texts = _decode(model, states, heard.prompt, self._search)
        return list(zip(texts, log_probs, strict=True))


def _variants(heard: Heard, perturbation: Perturbation, seed: int) -> Iterator[np.ndarray]:
    """Yield the input [T, F] of each percentage."""
    features = heard.features
    occluded_value = bin_mean(features, heard.padding_value)
    order = cell_order(perturbation.saliency, seed)
    for percent in perturbation.percents:
        salient = _first_cells(order, features.shape, percent)
        cells = salient if perturbation.mode == "deletion" else ~salient
        yield _replaced(features, cells, occluded_value)


def _decode(
    model: Model, states: torch.Tensor, prompt: Sequence[int], search: BeamSearch
) -> list[str]:
    sequences = model.generate(
        states, prompt,
        beam=search.beam, max_new_tokens=search.max_new_tokens, forced=search.forced,
    )  # fmt: skip
    return [model.text(tokens) for tokens in sequences]
