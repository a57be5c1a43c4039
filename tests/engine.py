"""Masks with a given score, added to statistics by the engine that all perturbations share."""

import torch

from s2txai.saliency.engine import BatchSize, accumulate
from s2txai.saliency.gradients import ChangeSums, first_order_change
from s2txai.saliency.score_sums import ScoreSums

CPU = torch.device("cpu")


def add_masks(statistics, score, plan, *, batch_size=32, on_batch=None, device=CPU):
    """Bring statistics of SPES to the masks of a plan, in place; return the last batch's size."""
    return _add(ScoreSums(statistics, score, plan, device), plan, batch_size, on_batch, device)


def add_changes(statistics, model, heard, masks, *, batch_size=32, on_batch=None):
    """Bring statistics of first-order changes to the masks of a plan; see :func:`add_masks`."""
    sums = ChangeSums(statistics, first_order_change(model, heard, masks), model, heard)
    return _add(sums, masks.plan, batch_size, on_batch, model.device)


def _add(sums, plan, batch_size, on_batch, device):
    batch = BatchSize(batch_size)
    accumulate(sums, plan, device=device, batch=batch, on_batch=on_batch)
    sums.statistics()
    return batch.size
