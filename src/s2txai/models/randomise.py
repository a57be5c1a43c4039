"""Randomised weights, from the output down: what explains a model must not survive them.

The cascading randomisation of Adebayo et al. 2018, "Sanity Checks for Saliency Maps".
"""

import torch

from s2txai.models.base import Model


def randomise(model: Model, n_layers: int, *, seed: int) -> None:
    """Replace the weights of the layers nearest to the output, in place.

    Every tensor is filled with independent normal numbers of its own mean and standard deviation,
    so that activations keep their scale and nothing learned is left. Tensors whose entries are all
    alike stay as they are.

    Parameters
    ----------
    model
        Loaded for this purpose; its weights are lost.
    n_layers
        How many of ``model.layers()``, from the first; all of them leave nothing learned.
    seed
        Of the numbers. A deeper randomisation with the same seed gives the same numbers to the
        layers it has in common with a shallower one.
    """
    for number, layer in enumerate(model.layers()[:n_layers]):
        generator = torch.Generator().manual_seed(seed * 10_000 + number)
        for weights in layer.parameters():
            drawn = torch.randn(weights.shape, generator=generator).to(weights)
            # A single entry has no spread.
            spread = weights.std() if weights.numel() > 1 else torch.zeros_like(weights.mean())
            weights.data = weights.mean() + spread * drawn
