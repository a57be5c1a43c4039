"""Which heads to use: a set of heads chosen on some utterances and judged on others.

People who read timestamps off attention pick heads by hand (``alignment_heads`` of Whisper). Here
a set is the k heads that score best one by one, k chosen by the score of the set.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24)  # of sets that are tried
N_PARTS = 10  # of the utterances, each judged by a choice on the others

Heads = tuple[int, ...]


@dataclass(frozen=True)
class Selection:
    """A set of heads.

    Attributes
    ----------
    order
        All heads, the best first, by their own scores on all utterances.
    n_heads
        How many of them make up the set.
    held_out
        float64 [n], for every utterance the score of the set that was chosen on others; NaN where
        there are no others.
    held_out_heads
        These sets; empty where there are no others.
    """

    order: list[int]
    n_heads: int
    held_out: np.ndarray
    held_out_heads: list[Heads]

    @property
    def heads(self) -> Heads:
        """The set, the best head first."""
        return tuple(self.order[: self.n_heads])


def select_heads(
    single: np.ndarray,
    score: Callable[[Heads, int], float],
    *,
    weights: Sequence[float] | None = None,
    seed: int = 0,
) -> Selection:
    """Choose a set of heads, on all utterances, and by cross-validation to judge the choice.

    Parameters
    ----------
    single
        [heads, n], score of every head in every utterance, the higher the better; NaN where it has
        none.
    score
        That of a set of heads in an utterance, by their numbers; called once for each pair.
    weights
        Of the utterances [n]; alike if None.
    seed
        Of the dealing of utterances into ten parts, each judged by a choice on the other nine.
    """
    n = single.shape[1]
    importance = np.ones(n) if weights is None else np.asarray(weights, dtype=np.float64)
    scores: dict[tuple[Heads, int], float] = {}

    def of_set(heads: Heads, utterance: int) -> float:
        key = (tuple(sorted(heads)), utterance)
        if key not in scores:
            scores[key] = score(heads, utterance)
        return scores[key]

    def choose(utterances: np.ndarray) -> tuple[list[int], int]:
        means = [_mean(row[utterances], importance[utterances]) for row in single]
        # A stable order: of equal heads the one of the lower layer.
        order = np.argsort(
            [-mean if np.isfinite(mean) else np.inf for mean in means], kind="stable"
        )
        sizes = [size for size in SIZES if size <= len(order)]
        sets = [tuple(order[:size].tolist()) for size in sizes]
        worth = [
            _mean(
                np.array([of_set(heads, utterance) for utterance in utterances]),
                importance[utterances],
            )
            for heads in sets
        ]
        best = int(np.nanargmax(worth)) if np.isfinite(worth).any() else 0
        return order.tolist(), sizes[best]

    held_out = np.full(n, np.nan)
    held_out_heads: list[Heads] = [()] * n
    everything = np.arange(n)
    for part in _parts(n, seed):
        others = np.setdiff1d(everything, part)
        if len(others):
            order, size = choose(others)
            for utterance in part:
                held_out_heads[utterance] = tuple(order[:size])
                held_out[utterance] = of_set(held_out_heads[utterance], utterance)
    order, size = choose(everything)
    return Selection(order, size, held_out, held_out_heads)


def _parts(n: int, seed: int) -> list[np.ndarray]:
    """Deal n utterances into ten parts, or as many as there are utterances."""
    shuffled = np.random.default_rng(seed).permutation(n)
    return [part for part in np.array_split(shuffled, min(n, N_PARTS)) if len(part)]


def _mean(values: np.ndarray, weights: np.ndarray) -> float:
    defined = np.isfinite(values)
    total = weights[defined].sum()
    return float((values[defined] * weights[defined]).sum() / total) if total > 0 else float("nan")
