"""Cross-attention that sees some encoder steps occluded, for SMH."""

import torch

# Keys and values, each [N, H, steps, d].
KeysAndValues = tuple[torch.Tensor, torch.Tensor]


def occluded_attention(
    query: torch.Tensor,
    of_steps: KeysAndValues,
    of_value: KeysAndValues | None,
    occluded: torch.Tensor,
    scale: float,
) -> torch.Tensor:
    """Attend to steps of which some have the occluded value, or are hidden.

    Keys and values of the steps are projected once for all N; with copies of the states they would
    be projected N times.

    Parameters
    ----------
    query
        [N, H, I, d].
    of_steps
        Keys and values [1, H, steps, d] of the unperturbed states.
    of_value
        Keys and values [1, H, 1, d] of what an occluded step becomes; None hides it.
    occluded
        bool [N, 1, 1, steps].
    scale
        What scores are multiplied by.

    Returns
    -------
    torch.Tensor
        Context [N, H, I, d]; zeros where every step is hidden.
    """
    keys, values = of_steps
    scores = (query * scale) @ keys.transpose(-1, -2)  # (N, H, I, steps)
    if of_value is None:
        lowest = torch.finfo(torch.float32).min
        weights = torch.softmax(scores.float().masked_fill(occluded, lowest), dim=-1)
        # Where all is hidden, nothing is attended to, instead of everything alike.
        weights = weights.masked_fill(occluded, 0.0)
        return weights.to(values.dtype) @ values
    key, value = of_value
    scores = torch.where(occluded, (query * scale) @ key.transpose(-1, -2), scores)
    weights = torch.softmax(scores.float(), dim=-1)
    visible = weights.masked_fill(occluded, 0.0)
    on_occluded = (weights.sum(-1) - visible.sum(-1))[..., None]  # (N, H, I, 1)
    return visible.to(values.dtype) @ values + on_occluded.to(values.dtype) * value


def split_heads(projected: torch.Tensor, heads: int) -> torch.Tensor:
    """Return [N, H, length, d] of [N, length, H d]."""
    n_rows, length, width = projected.shape
    return projected.view(n_rows, length, heads, width // heads).transpose(1, 2)


def value_norms(values: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return [H, steps], the norm of each step's value vector after the output projection.

    The bias of the output projection belongs to no step and is left out (Kobayashi et al. 2020).

    Parameters
    ----------
    values
        [1, H, steps, d].
    weight
        [D, H d], of the output projection.
    """
    heads, _, width = values.shape[1:]
    # (H, d, D): the columns that a head's values meet.
    output = weight.view(len(weight), heads, width).permute(1, 2, 0)
    norms: torch.Tensor = (values[0] @ output).norm(dim=-1)
    return norms
