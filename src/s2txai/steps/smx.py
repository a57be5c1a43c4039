"""Step 3, smx: saliency on the input spectrogram by SPES."""

from collections.abc import Sequence

from s2txai.saliency.design import MaskDesign
from s2txai.saliency.smx import INPUT
from s2txai.steps.masked import grow_shard
from s2txai.steps.shard import Workplace
from s2txai.storage.artifacts import Artifact


def smx_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    design: MaskDesign,
    *,
    batch_size: int | str = "auto",
) -> None:
    """Run SPES on every utterance.

    Parameters
    ----------
    place, decoded
        Where, and the ``decode`` artefacts.
    design
        Which masks.
    batch_size
        Masks for one forward pass; ``auto``: what fits into memory.
    """
    grow_shard(place, "smx", INPUT, decoded, design, batch_size)
