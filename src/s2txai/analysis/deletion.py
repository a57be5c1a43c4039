"""Step 6: does the model fail when the cells a map calls salient are deleted?

Cells are deleted in order of the sentence map and the utterance is decoded again; the faster the
score falls, the more faithful the map (paper, section 5; ``docs/definitions.md``). Insertion is the
opposite: only the most salient cells are there. Both also ask how probable the model's unperturbed
hypothesis still is, which needs no search.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

from s2txai.errors import UserError
from s2txai.log import logger
from s2txai.models.base import Model
from s2txai.models.decoding import token_log_probs
from s2txai.models.memory import smaller_batch
from s2txai.saliency.baselines import bin_mean
from s2txai.saliency.heard import Heard
from s2txai.saliency.normalise import paired_min_max, single_mean_std
from s2txai.saliency.pooling import LAYER

# Input [T, F], of NumPy or of torch.
Cells = TypeVar("Cells", np.ndarray, torch.Tensor)

AXES = {"percents": ["percent"], "hypotheses": ["percent"], "log_probs": ["percent"]}
UNITS = {"percents": "% of cells", "log_probs": "nat"}

# 0 % and 100 % are the same input whatever the map.
ENDS = (0, 100)

# Of the size of a map. Divided, not added up: 0.15 is to reach the threshold 0.15.
THRESHOLDS = np.arange(21) / 20

NO_GRADIENTS: Mapping[str, np.ndarray] = MappingProxyType({})


def delete(
    features: Cells,
    saliency: npt.ArrayLike | torch.Tensor,
    percent: float,
    baseline: npt.ArrayLike | torch.Tensor = 0.0,
    *,
    seed: int = 0,
) -> Cells:
    """Return a copy of ``features`` whose most salient cells hold the baseline.

    Parameters
    ----------
    features
        [T, F], an array or a tensor; it stays as it is.
    saliency
        [T, F], or [1, T, F] as published files hold it; ties are broken by a permutation drawn from
        ``seed``.
    percent
        Of the cells, 0-100: the first floor(T F percent / 100) are deleted.
    baseline
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
    return _replaced(features, _most_salient(features, saliency, percent, seed), baseline)


def insert(
    features: Cells,
    saliency: npt.ArrayLike | torch.Tensor,
    percent: float,
    baseline: npt.ArrayLike | torch.Tensor = 0.0,
    *,
    seed: int = 0,
) -> Cells:
    """Return a copy of ``features`` where only the most salient cells keep their value.

    Parameters, value and errors are those of :func:`delete`: the first floor(T F percent / 100)
    cells keep their value, the others get the baseline.
    """
    return _replaced(features, ~_most_salient(features, saliency, percent, seed), baseline)


# The array of the hypotheses of each mode.
HYPOTHESES: Mapping[str, str] = MappingProxyType(
    {"deletion": "hypotheses", "insertion": "insertion_hypotheses"}
)

# What can be done with the most salient cells.
MODES: Mapping[str, Callable[..., np.ndarray]] = MappingProxyType(
    {"deletion": delete, "insertion": insert}
)


def cell_order(saliency: npt.ArrayLike, seed: int) -> np.ndarray:
    """Return int [T F], flat cell indices from most to least salient, ties permuted by ``seed``."""
    # Unsigned numbers have no negative.
    flat = np.asarray(saliency, dtype=np.float64).ravel()
    ties = np.random.default_rng(seed).permutation(flat.size)
    return np.lexsort((ties, -flat))


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
            f"The saliency map has shape {shape}, the features {expected}: give one value a cell."
        )
    if not 0 <= percent <= 100:
        raise UserError(f"Cannot delete or insert {percent} % of the cells: choose 0 to 100.")
    salient = np.zeros(math.prod(expected), dtype=bool)
    # A narrow integer, as of an array of percentages, could not hold the product.
    salient[cell_order(saliency, seed)[: int(salient.size * float(percent) // 100)]] = True
    return salient.reshape(expected)


def _replaced(features: Cells, cells: np.ndarray, baseline: npt.ArrayLike | torch.Tensor) -> Cells:
    """Return a copy of features [T, F] that hold the baseline in these cells, bool [T, F]."""
    if isinstance(features, torch.Tensor):
        values = torch.as_tensor(baseline, dtype=features.dtype, device=features.device)
        return torch.where(torch.from_numpy(cells).to(features.device), values, features)
    return np.where(cells, np.asarray(baseline), features).astype(features.dtype)


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


def sentence_map(saliency: np.ndarray) -> np.ndarray:
    """Return [T, F], the mean over tokens of each row's standardised, rescaled map [I, T, F]."""
    return np.asarray(scaled_rows(saliency).mean(axis=0))


def scaled_rows(saliency: np.ndarray) -> np.ndarray:
    """Return [I, T, F], each row's map standardised and brought to [0, 1]."""
    return paired_min_max(single_mean_std(saliency))


def size(saliency: npt.ArrayLike) -> float:
    """Return how much of a map is salient, in percent of its cells.

    The share of the cells whose value reaches a threshold, over the thresholds 0, 0.05 ... 1
    (trapezoid): about 100 times the mean of the map. 2.5 where a single one of very many cells
    stands out, 100 where all are at the top; the smaller, the sharper the map.

    Parameters
    ----------
    saliency
        [T, F], or [I, T, F] with rows of which each has the same say. Thresholds are held against
        the values as they are: bring a map within [0, 1] first (:func:`scaled_rows`).

    Returns
    -------
    float
        0-100.
    """
    flat = np.sort(np.asarray(saliency, dtype=np.float64), axis=None)
    reached = flat.size - np.searchsorted(flat, THRESHOLDS, side="left")  # value >= threshold
    return float(np.trapezoid(100 * reached / flat.size, THRESHOLDS))


def spread_over_cells(
    steps: np.ndarray, n_frames: int, n_bins: int, subsampling: int
) -> np.ndarray:
    """Give every cell [I, T, F] of an encoder step that step's value [I, T']."""
    frames = np.repeat(steps, subsampling, axis=1)[:, :n_frames]  # (I, T)
    return np.broadcast_to(frames[:, :, None], (*frames.shape, n_bins))


def random_map(n_frames: int, n_bins: int, seed: int) -> np.ndarray:
    """Return [T, F] of uniform noise, the order that knows nothing."""
    return np.random.default_rng(seed).random((n_frames, n_bins))


def energy_map(features: np.ndarray, *, time_only: bool = False) -> np.ndarray:
    """Return [T, F], how loud each cell is: the order that knows the speech but not the model.

    Parameters
    ----------
    features
        [T, F]: log-energies, whose own values are ordered, or blocks of a waveform.
    time_only
        Whether they are blocks of a waveform: then the sum of the squares of a block.
    """
    if not time_only:
        return np.asarray(features, dtype=np.float64)
    energy = np.square(features, dtype=np.float64).sum(axis=1, keepdims=True)  # (T, 1)
    return np.broadcast_to(energy, features.shape)


def map_names(
    poolings: Sequence[str], gradients: Sequence[str] = (), layers: Sequence[int] = ()
) -> tuple[str, ...]:
    """Return the maps that are compared.

    Attention of all heads, of the last layer and of further ``layers``, SMX in each pooling and in
    full, gradient methods in full, random, energy.
    """
    smx = (*(f"smx_{name}" for name in poolings), "smx_full")
    attention = ("ca_mean", "ca_last", *(f"{LAYER}{layer}" for layer in layers))
    return (*attention, *smx, *gradients, "random", "energy")


def further_layers(layers: Sequence[int], n_layers: int) -> list[int]:
    """Return the listed layers that a decoder has beside its last, in order, from 0.

    ``layers`` count from 0, or from -1 for the last.
    """
    known = [layer for layer in layers if -n_layers <= layer < n_layers]
    for layer in set(layers) - set(known):
        logger.warning(
            "Layer %d of the configuration is left out: the decoder has layers 0 to %d.",
            layer, n_layers - 1,
        )  # fmt: skip
    return sorted({layer % n_layers for layer in known} - {n_layers - 1})


def scaled_maps(
    name: str,
    aggregated: Mapping[str, np.ndarray],
    full: np.ndarray,
    subsampling: int,
    seed: int,
    gradients: Mapping[str, np.ndarray] = NO_GRADIENTS,
    *,
    features: np.ndarray | None = None,
    time_only: bool = False,
) -> np.ndarray:
    """Return the maps within [0, 1] that a name of :func:`map_names` stands for, one a row.

    Parameters
    ----------
    name
        A name of :func:`map_names`.
    aggregated
        Arrays of the ``aggregate`` artefact.
    full
        SMX at full resolution [I, T, F].
    subsampling
        Frames for one encoder step.
    seed
        Of the random order.
    gradients
        Maps [I, T, F] of gradient methods by their name.
    features
        Input [T, F]; only ``energy`` reads it.
    time_only
        Whether random order and energy are of whole frames.

    Returns
    -------
    ndarray
        [I, T, F]; [1, T, F] for random order and energy, which are the same for all rows. The mean
        over the first axis is the sentence map, in whose order cells are deleted.
    """
    n_frames, n_bins = full.shape[1:]
    if name == "random":
        noise = random_map(n_frames, 1 if time_only else n_bins, seed)
        return np.broadcast_to(noise, (1, n_frames, n_bins))
    if name == "energy" and features is not None:
        return scaled_rows(energy_map(features, time_only=time_only)[None])
    if name == "smx_full":
        return scaled_rows(full)
    if name in gradients:
        return scaled_rows(gradients[name])
    if name == "ca_last":
        steps = aggregated["ca_layer"][-1]
    elif name.startswith(LAYER):
        steps = aggregated["ca_layer"][int(name.removeprefix(LAYER))]
    else:
        steps = aggregated[name]
    return scaled_rows(spread_over_cells(steps, n_frames, n_bins, subsampling))


def deletion_map(
    name: str,
    aggregated: Mapping[str, np.ndarray],
    full: np.ndarray,
    subsampling: int,
    seed: int,
    gradients: Mapping[str, np.ndarray] = NO_GRADIENTS,
    *,
    features: np.ndarray | None = None,
    time_only: bool = False,
) -> np.ndarray:
    """Return the sentence map [T, F] of a name; parameters are those of :func:`scaled_maps`."""
    maps = scaled_maps(
        name, aggregated, full, subsampling, seed, gradients,
        features=features, time_only=time_only,
    )  # fmt: skip
    return np.asarray(maps.mean(axis=0))


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
    saliency: np.ndarray,
    percents: Sequence[int],
    *,
    mode: str = "deletion",
    search: BeamSearch | None,
    batch_size: int,
    seed: int,
) -> Outcome:
    """Run the model on growing shares of the most salient cells, deleted or inserted.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and unperturbed hypothesis.
    saliency
        Sentence map [T, F].
    percents
        Shares to delete, or to insert.
    mode
        A name of :data:`MODES`.
    search
        How to decode; None: only the log-probability of the hypothesis is wanted.
    batch_size
        Inputs at once; halved when the device runs out of memory.
    seed
        Of the tie-breaking.
    """
    baseline = bin_mean(heard.features, heard.padding_value)
    found = Outcome([], [])
    while len(found.log_probs) < len(percents):
        done = len(found.log_probs)
        variants = [
            MODES[mode](heard.features, saliency, percent, baseline, seed=seed)
            for percent in percents[done : done + batch_size]
        ]
        inputs = torch.from_numpy(np.stack(variants)).to(model.device)  # (N, T, F)
        try:
            states = model.encode(inputs, heard.padding_value)
            logits = model.decode(states, heard.prompt, heard.tokens)  # (N, I, V)
            log_probs = [float(token_log_probs(rows, list(heard.tokens)).mean()) for rows in logits]
            texts = [] if search is None else _decode(model, states, list(heard.prompt), search)
        except (RuntimeError, MemoryError) as error:
            batch_size = smaller_batch(batch_size, error)
            continue
        found.log_probs.extend(log_probs)
        found.texts.extend(texts)
    return found


def _decode(model: Model, states: torch.Tensor, prompt: list[int], search: BeamSearch) -> list[str]:
    sequences = model.generate(
        states, prompt,
        beam=search.beam, max_new_tokens=search.max_new_tokens, forced=search.forced,
    )  # fmt: skip
    return [model.text(tokens) for tokens in sequences]
