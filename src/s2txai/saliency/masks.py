"""Which segments each mask occludes: the same answer in whatever blocks it is asked for."""

import hashlib
import json

import numpy as np
import numpy.typing as npt

# One step of Philox's counter gives four numbers of 64 bits.
_DRAWS_PER_COUNT = 4


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
