"""Step 3, smh: saliency on encoder outputs, decoder passes only."""

from collections.abc import Sequence

from s2txai.saliency.design import MaskDesign
from s2txai.saliency.smh import STATES
from s2txai.steps.masked import grow_shard
from s2txai.steps.shard import Workplace
from s2txai.storage.artifacts import Artifact


def smh_shard(
    place: Workplace,
    decoded: Sequence[Artifact],
    design: MaskDesign,
    *,
    batch_size: int | str = "auto",
) -> None:
    """Perturb the encoder output of every utterance.

    Parameters
    ----------
    place, decoded
        Where, and the ``decode`` artefacts.
    design
        Which masks.
    batch_size
        Masks for one forward pass; ``auto``: what fits into memory.
    """
    grow_shard(place, "smh", STATES, decoded, design, batch_size)
