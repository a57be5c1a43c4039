"""Which segments each mask occludes: the same answer in whatever blocks it is asked for."""

import hashlib
import json
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

N_FOLDS = 4
"""Masks are dealt into this many folds (mask m to fold m mod 4), to measure reliability."""

# One step of Philox's counter gives four numbers of 64 bits.
_DRAWS_PER_COUNT = 4


@dataclass(frozen=True)
class MaskPlan:
    """Which masks to draw.

    Attributes
    ----------
    seed, utterance
        With a segmentation's name and a mask's index they determine the mask, whatever the batch,
        shard, device or order of work.
    names
        Of the K segmentations.
    sizes
        Segments of each segmentation, S_k.
    n_masks
        Masks wanted of each segmentation.
    p
        Probability that a segment is occluded.
    token_p
        Probability that the embedding of a preceding token is occluded by the same mask.
    """

    seed: int
    utterance: str
    names: tuple[str, ...]
    sizes: tuple[int, ...]
    n_masks: tuple[int, ...]
    p: float
    token_p: float = 0.0

    def draw(self, k: int, start: int, stop: int) -> npt.NDArray[np.bool_]:
        """Return masks ``start`` to ``stop - 1`` of segmentation k, bool [N, S_k]."""
        return self._draw(self.names[k], start, stop, self.sizes[k], self.p)

    def draw_tokens(self, k: int, start: int, stop: int, n_rows: int) -> npt.NDArray[np.bool_]:
        """Return the preceding tokens that the same masks occlude, bool [N, I]."""
        return self._draw(f"{self.names[k]} tokens", start, stop, n_rows, self.token_p)

    def _draw(self, name: str, start: int, stop: int, n: int, p: float) -> npt.NDArray[np.bool_]:
        return occlusion(
            seed=self.seed, utterance=self.utterance, segmentation=name,
            start=start, stop=stop, n_segments=n, p=p,
        )  # fmt: skip


def occlusion(
    *,
    seed: int,
    utterance: str,
    segmentation: str,
    start: int,
    stop: int,
    n_segments: int,
    p: float,
) -> npt.NDArray[np.bool_]:
    """Draw masks ``start`` to ``stop - 1``, each occluding every segment with probability ``p``.

    Each mask owns its stretch of a counter-based generator (Philox), so it does not depend on
    batches, shards, devices or the order of work, and more masks leave the first ones as they are.

    Parameters
    ----------
    seed, utterance, segmentation
        What keys the generator; different ones give independent masks.
    start, stop
        Range of mask numbers.
    n_segments
        Segments of the segmentation.
    p
        Probability of occlusion, from 0 to 1.

    Returns
    -------
    bool [stop - start, n_segments]
        True where the mask occludes the segment.
    """
    identity = json.dumps([seed, utterance, segmentation]).encode()
    key = int.from_bytes(hashlib.sha256(identity).digest()[:16], "little")
    counts_per_mask = -(-n_segments // _DRAWS_PER_COUNT)
    generator = np.random.Philox(key=key)
    generator.advance(start * counts_per_mask)
    n_draws = counts_per_mask * _DRAWS_PER_COUNT
    draws = generator.random_raw((stop - start) * n_draws).reshape(stop - start, n_draws)
    occluded: npt.NDArray[np.bool_] = draws[:, :n_segments] < int(p * 2**64)
    return occluded


def is_checked(start: int, stop: int, share: float) -> npt.NDArray[np.bool_]:
    """Return which of masks ``start`` to ``stop - 1`` are also scored exactly, bool [N].

    A function of the mask's number alone, the same in all four folds: as floor(m / 4) grows, every
    1 / share-th.
    """
    exact_share = Fraction(str(share))  # 50 * 0.02 is to be 1
    counts = [int(i * exact_share) for i in range(start // N_FOLDS, (stop - 1) // N_FOLDS + 2)]
    steps = np.arange(start, stop) // N_FOLDS - start // N_FOLDS
    return np.diff(counts).astype(bool)[steps]
