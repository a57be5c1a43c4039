"""Cross-attention of hypotheses that share their input, for beam search."""

import torch
from torch.nn import functional as nnf

from s2txai.models.occlusion import KeysAndValues


def shared_attention(
    query: torch.Tensor,
    of_inputs: KeysAndValues,
    *,
    mask: torch.Tensor | None = None,
    scale: float | None = None,
) -> torch.Tensor:
    """Attend from k rows per input to the steps of that input.

    The rows of an input become positions of one row, so keys and values are neither projected nor
    copied for each of them.

    Parameters
    ----------
    query
        [N k, H, L, d]: k rows of the first input, then those of the second.
    of_inputs
        Keys and values [N, H, steps, d].
    mask
        bool [N, 1, 1, steps], the steps that are visible; None for all.
    scale
        What scores are multiplied by; None for ``1 / sqrt(d)``.

    Returns
    -------
    torch.Tensor
        Context [N k, H, L, d].
    """
    keys, values = of_inputs
    n_rows, heads, length, width = query.shape
    n_inputs = len(keys)
    k = n_rows // n_inputs
    folded = query.view(n_inputs, k, heads, length, width).transpose(1, 2)  # (N, H, k, L, d)
    context = nnf.scaled_dot_product_attention(
        folded.reshape(n_inputs, heads, k * length, width), keys, values, mask, scale=scale
    )
    unfolded = context.view(n_inputs, heads, k, length, width).transpose(1, 2)
    return unfolded.reshape(n_rows, heads, length, width)
