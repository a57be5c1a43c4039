"""Step 6: does the model fail when the cells a map calls salient are deleted?

Cells are deleted in order of the sentence map and the utterance is decoded again; the faster the
score falls, the more faithful the map (paper, section 5; ``docs/definitions.md``).
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch

from s2txai.memory import smaller_batch
from s2txai.models.base import Model
from s2txai.saliency.baselines import bin_mean
from s2txai.saliency.normalise import paired_min_max, single_mean_std

AXES = {"percents": ["percent"], "hypotheses": ["percent"]}
UNITS = {"percents": "% of cells"}

# 0 % and 100 % are the same input whatever the map.
ENDS = (0, 100)

NO_GRADIENTS: Mapping[str, np.ndarray] = MappingProxyType({})


def delete(
    features: np.ndarray,
    saliency: np.ndarray,
    percent: float,
    baseline: npt.ArrayLike = 0.0,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return a copy of ``features`` whose most salient cells hold the baseline.

    Parameters
    ----------
    features
        [T, F].
    saliency
        [T, F]; ties are broken by a permutation drawn from ``seed``.
    percent
        Of the cells, 0-100: the first floor(T F percent / 100) are deleted.
    baseline
        Value of a deleted cell: a number, or one for each bin [F].
    seed
        Of the tie-breaking.

    Returns
    -------
    ndarray
        [T, F], of the type of ``features``.
    """
    return np.where(_most_salient(saliency, percent, seed), baseline, features).astype(
        features.dtype
    )


def insert(
    features: np.ndarray,
    saliency: np.ndarray,
    percent: float,
    baseline: npt.ArrayLike = 0.0,
    *,
    seed: int = 0,
) -> np.ndarray:
    """Return a copy of ``features`` where only the most salient cells keep their value.

    Parameters are those of :func:`delete`.
    """
    return np.where(_most_salient(saliency, percent, seed), features, baseline).astype(
        features.dtype
    )


def cell_order(saliency: np.ndarray, seed: int) -> np.ndarray:
    """Return int [T F], flat cell indices from most to least salient, ties permuted by ``seed``."""
    flat = np.asarray(saliency).ravel()
    ties = np.random.default_rng(seed).permutation(flat.size)
    return np.lexsort((ties, -flat))


def _most_salient(saliency: np.ndarray, percent: float, seed: int) -> np.ndarray:
    """Return bool [T, F], the first floor(T F percent / 100) cells in descending order."""
    chosen = np.zeros(np.size(saliency), dtype=bool)
    chosen[cell_order(saliency, seed)[: int(chosen.size * percent // 100)]] = True
    return chosen.reshape(np.shape(saliency))


def area_under_curve(percent: npt.ArrayLike, score: npt.ArrayLike) -> float:
    """Return the raw trapezoid of a score over percentages; divide by 100 for the tables."""
    return float(np.trapezoid(np.asarray(score, float), np.asarray(percent, float)))


def sentence_map(saliency: np.ndarray) -> np.ndarray:
    """Return [T, F], the mean over tokens of each row's standardised, rescaled map [I, T, F]."""
    return np.asarray(paired_min_max(single_mean_std(saliency)).mean(axis=0))


def spread_over_cells(
    steps: np.ndarray, n_frames: int, n_bins: int, subsampling: int
) -> np.ndarray:
    """Give every cell [I, T, F] of an encoder step that step's value [I, T']."""
    frames = np.repeat(steps, subsampling, axis=1)[:, :n_frames]  # (I, T)
    return np.broadcast_to(frames[:, :, None], (*frames.shape, n_bins))


def random_map(n_frames: int, n_bins: int, seed: int) -> np.ndarray:
    """Return [T, F] of uniform noise, the order that knows nothing."""
    return np.random.default_rng(seed).random((n_frames, n_bins))


def map_names(poolings: Sequence[str], gradients: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the maps that are compared.

    Attention, SMX in each pooling and in full, gradient methods in full, random.
    """
    smx = (*(f"smx_{name}" for name in poolings), "smx_full")
    return ("ca_mean", "ca_last", *smx, *gradients, "random")


def deletion_map(
    name: str,
    aggregated: Mapping[str, np.ndarray],
    full: np.ndarray,
    subsampling: int,
    seed: int,
    gradients: Mapping[str, np.ndarray] = NO_GRADIENTS,
    *,
    time_only: bool = False,
) -> np.ndarray:
    """Return the sentence map [T, F] that a name of :func:`map_names` stands for.

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
    time_only
        Whether the random order is one of whole frames.
    """
    n_frames, n_bins = full.shape[1:]
    if name == "random" and time_only:
        return np.broadcast_to(random_map(n_frames, 1, seed), (n_frames, n_bins))
    if name == "random":
        return random_map(n_frames, n_bins, seed)
    if name == "smx_full":
        return sentence_map(full)
    if name in gradients:
        return sentence_map(gradients[name])
    steps = aggregated["ca_layer"][-1] if name == "ca_last" else aggregated[name]
    return sentence_map(spread_over_cells(steps, n_frames, n_bins, subsampling))


def decode_deleted(
    model: Model,
    features: np.ndarray,
    padding_value: float,
    prompt: list[int],
    saliency: np.ndarray,
    percents: Sequence[int],
    *,
    beam: int,
    max_new_tokens: int,
    batch_size: int,
    seed: int,
    forced: Sequence[int] = (),
) -> list[str]:
    """Decode again with growing shares of the most salient cells deleted.

    Parameters
    ----------
    model
        Any model.
    features, padding_value
        Input [T, F] and what follows it.
    prompt
        What the decoder is given.
    saliency
        Sentence map [T, F].
    percents
        Shares to delete.
    beam, max_new_tokens
        Of the search.
    batch_size
        Inputs decoded at once; halved when the device runs out of memory.
    seed
        Of the tie-breaking.
    forced
        Tokens that every hypothesis begins with.

    Returns
    -------
    list of str
        One hypothesis a percentage.
    """
    baseline = bin_mean(features, padding_value)
    texts: list[str] = []
    while len(texts) < len(percents):
        variants = [
            delete(features, saliency, percent, baseline, seed=seed)
            for percent in percents[len(texts) : len(texts) + batch_size]
        ]
        inputs = torch.from_numpy(np.stack(variants)).to(model.device)  # (N, T, F)
        try:
            states = model.encode(inputs, padding_value)
            sequences = model.generate(
                states, prompt, beam=beam, max_new_tokens=max_new_tokens, forced=forced
            )
        except (RuntimeError, MemoryError) as error:
            batch_size = smaller_batch(batch_size, error)
            continue
        texts += [model.text(tokens) for tokens in sequences]
    return texts
