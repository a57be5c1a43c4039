"""How far a perturbation moves each prediction."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Array = TypeVar("Array", torch.Tensor, npt.NDArray[np.floating])

# Stands for log 0 in the perturbed distribution: the log of float32's smallest normal number.
_LOG_ZERO = float(np.log(np.finfo(np.float32).tiny))

# Logits handled at a time, so that temporaries stay at 64 MiB (float32) whatever the batch.
_CHUNK = 2**24


def kl_divergence(reference_logits: Array, logits: Array) -> Array:
    """Return KL(reference || perturbed) over the whole vocabulary, for every mask and row.

    The score of SPES (arXiv 2411.01710): sum_v p0 log p0 - p0 log p. A probability of exactly 0 in
    the reference contributes 0, one in the perturbed distribution counts as exp(-87.3), so that
    one underflow cannot turn a whole map into NaN or infinity.

    Parameters
    ----------
    reference_logits : [I, V] or [N, I, V]
        Logits of the unperturbed input; one for all masks, or one for each.
    logits : [N, I, V]
        Logits of the perturbed inputs.

    Returns
    -------
    [N, I], nats
        Never negative; of the kind of ``logits`` (tensor or array), float32 for half precision.
    """
    if isinstance(logits, np.ndarray):
        return kl_divergence(torch.as_tensor(reference_logits), torch.as_tensor(logits)).numpy()
    reference = torch.log_softmax(_full_precision(reference_logits), dim=-1)
    p0 = reference.exp()
    negative_entropy = -torch.special.entr(p0).sum(dim=-1)  # (I) or (N, I)
    step = max(1, _CHUNK // logits[0].numel())
    cross = []
    for start in range(0, len(logits), step):
        block = _full_precision(logits[start : start + step])  # (n, I, V)
        log_p = torch.log_softmax(block, dim=-1)
        log_p = log_p.masked_fill(torch.isneginf(log_p), _LOG_ZERO)
        weights = p0[start : start + step] if p0.ndim == 3 else p0
        # Not a matrix product: autocast or TF32 would round it to about 3 digits, and the
        # divergence is a small difference of large sums.
        cross.append((weights * log_p).sum(dim=-1))  # (n, I)
    divergence: torch.Tensor = (negative_entropy - torch.cat(cross)).clamp(min=0)
    return divergence


def _full_precision(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()
