"""How far a perturbation moves each prediction."""

from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch

Array = TypeVar("Array", torch.Tensor, npt.NDArray[np.floating])

# Stands for log 0: the log of float32's smallest normal number.
_LOG_ZERO = float(np.log(np.finfo(np.float32).tiny))

# Logits handled at a time: on a CPU they stay in its cache, on a GPU they fill it.
_BLOCK = {"cpu": 2**18}
_BLOCK_ELSEWHERE = 2**26


def kl_divergence(reference_logits: Array, logits: Array) -> Array:
    """Return KL(reference || perturbed) over the whole vocabulary, for every mask and row.

    The score of SPES (arXiv 2411.01710): sum_v p0 log p0 - p0 log p. A probability of exactly 0 in
    the reference contributes 0, one in the perturbed distribution counts as exp(-87.3), so that
    one underflow cannot turn a whole map into NaN or infinity.

    Parameters
    ----------
    reference_logits : [I, V], [1, I, V] or [N, I, V]
        Logits of the unperturbed input; one for all masks, or one for each.
    logits : [N, I, V]
        Logits of the perturbed inputs.

    Returns
    -------
    [N, I], nats
        Never negative; of the kind of ``logits`` (tensor or array), float32 for half precision.
    """
    if isinstance(logits, np.ndarray):
        reference, perturbed = np.ascontiguousarray(reference_logits), np.ascontiguousarray(logits)
        return kl_divergence(torch.as_tensor(reference), torch.as_tensor(perturbed)).numpy()
    if reference_logits.ndim == 2 or len(reference_logits) == 1:
        return Divergence(reference_logits.reshape(reference_logits.shape[-2:]))(logits)
    return torch.cat(
        [
            Divergence(reference)(row[None])
            for reference, row in zip(reference_logits, logits, strict=True)
        ]
    )


class Divergence:
    """KL divergence from one reference, whose own terms are computed once.

    Parameters
    ----------
    reference_logits : [I, V]
        Logits of the unperturbed input.
    """

    def __init__(self, reference_logits: torch.Tensor) -> None:
        log_p0 = torch.log_softmax(_full_precision(reference_logits), dim=-1)  # (I, V)
        self._p0 = log_p0.exp()
        self._log_p0 = _finite(log_p0)

    def __call__(self, logits: torch.Tensor) -> torch.Tensor:
        """Return the divergence [N, I] of logits [N, I, V], in nats; see :func:`kl_divergence`."""
        N, I, V = logits.shape
        block = _BLOCK.get(logits.device.type, _BLOCK_ELSEWHERE)
        masks, rows = max(1, block // (I * V)), max(1, min(I, block // V))
        divergences = torch.empty((N, I), dtype=self._p0.dtype, device=logits.device)
        for n in range(0, N, masks):
            for i in range(0, I, rows):
                block_of = slice(n, n + masks), slice(i, i + rows)
                divergences[block_of] = self._of_rows(logits[block_of], block_of[1])
        return divergences

    def _of_rows(self, logits: torch.Tensor, rows: slice) -> torch.Tensor:
        log_p = torch.log_softmax(_full_precision(logits), dim=-1)  # (n, i, V)
        # The difference first: the divergence is a small difference of large sums. Not a matrix
        # product: autocast, TF32 and some CPU kernels would round it to about 3 digits.
        log_ratio = _finite(log_p).sub_(self._log_p0[rows])
        return -log_ratio.mul_(self._p0[rows]).sum(dim=-1).clamp_(max=0)


def _full_precision(logits: torch.Tensor) -> torch.Tensor:
    return logits if logits.dtype == torch.float64 else logits.float()


def _finite(log_p: torch.Tensor) -> torch.Tensor:
    return torch.nan_to_num(log_p, nan=torch.nan, neginf=_LOG_ZERO)
