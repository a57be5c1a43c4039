"""Step 3, SMX: SPES on the input spectrogram (Fucci et al. 2024, arXiv 2411.01710).

Random halves of the segments are occluded, the hypothesis is scored again, and the saliency of a
cell is the mean score (KL divergence from the unperturbed distribution) of the masks that occluded
it. Sums are kept by segment, so memory does not grow with the number of masks and more masks extend
a finished file.
"""

from functools import partial

import torch

from s2txai.errors import UserError
from s2txai.models.base import CheapPass, Model
from s2txai.saliency.checked_sums import CheapScore, CheckedSums
from s2txai.saliency.design import MaskDesign
from s2txai.saliency.engine import Masks, OnBatch, Perturbation, perturbed_statistics
from s2txai.saliency.estimators import ESTIMATORS
from s2txai.saliency.heard import Heard
from s2txai.saliency.masks import MaskPlan
from s2txai.saliency.occluded_values import OCCLUDED_VALUES
from s2txai.saliency.score_sums import ScoreSums
from s2txai.saliency.scores import Divergence
from s2txai.saliency.segments import masks_per_segmentation, segmentation_names, segmentations
from s2txai.saliency.statistics import Statistics, heatmap


def smx(
    model: Model,
    heard: Heard,
    design: MaskDesign,
    *,
    utterance: str = "",
    statistics: Statistics | None = None,
    batch_size: int | str = "auto",
    on_batch: OnBatch[Statistics] | None = None,
) -> Statistics:
    """Perturb the input of an utterance (SPES).

    Parameters
    ----------
    model
        Any model.
    heard
        Input and hypothesis.
    design
        Which masks.
    utterance
        Its name is part of the key of its masks.
    statistics
        Of earlier masks of the same design but for their number; changed in place.
    batch_size
        Masks for one forward pass, or ``auto``: what fits into memory.
    on_batch
        Called after a batch of each segmentation, with the number of new masks and a function that
        returns the statistics: for progress and checkpoints.

    Returns
    -------
    Statistics
        With at least the masks of the design; :func:`s2txai.saliency.statistics.heatmap` makes the
        map [I, T, F] of it, in nats.

    Raises
    ------
    UserError
        If not even one mask fits into memory, or the design names an unknown value.
    """
    return perturbed_statistics(
        INPUT, model, heard, design, utterance=utterance, statistics=statistics,
        batch_size=batch_size, on_batch=on_batch,
    )  # fmt: skip


def input_masks(
    heard: Heard, design: MaskDesign, *, utterance: str, subsampling: int, time_only: bool
) -> Masks:
    """Lay out masks over segments of the input; parameters as for ``engine.MasksOf``."""
    if not design.n_segments:
        raise UserError("'n_segments' names no level of segments; name at least one, such as 50.")
    segmented = segmentations(heard.features, design.n_segments, time_only=time_only)
    plan = MaskPlan(
        seed=design.seed,
        utterance=utterance,
        names=segmentation_names(segmented),
        sizes=segmented.n_segments,
        n_masks=masks_per_segmentation(design.n_masks, segmented),
        p=design.p,
        token_p=design.token_p,
    )
    return Masks(plan, segmented.labels)


def input_sums(
    model: Model, heard: Heard, design: MaskDesign, masks: Masks, statistics: Statistics | None
) -> ScoreSums:
    """Begin or continue sums over masks of the input; parameters as for ``engine.SumsOf``."""
    perturbed = PerturbedInput(model, heard, masks, design.occluded_value)
    if statistics is None:
        r = model.facts.subsampling
        statistics = Statistics.zeros(
            masks.segments, len(heard.tokens), r, heard.n_steps(r),
            logarithms=ESTIMATORS[design.estimator].logarithms, tokens=design.token_p > 0,
        )  # fmt: skip
    # Masks that are there already decide how later ones are scored.
    if statistics.check_share is None and (design.encoder == "exact" or statistics.total_masks):
        return ScoreSums(statistics, perturbed.score, masks.plan, model.device)
    return CheckedSums(statistics, perturbed, masks.plan, design.check)


class PerturbedInput:
    """An utterance whose input is perturbed, and the scores of that.

    Parameters
    ----------
    model
        Any model.
    heard
        Input and hypothesis.
    masks
        Their segments are what is occluded.
    occluded_value
        A name of :data:`s2txai.saliency.occluded_values.OCCLUDED_VALUES`.
    """

    def __init__(self, model: Model, heard: Heard, masks: Masks, occluded_value: str) -> None:
        self.device = model.device
        self._model, self._heard = model, heard
        values = OCCLUDED_VALUES[occluded_value](heard.features, heard.padding_value)
        self._occluded_values = torch.from_numpy(values).to(model.device)  # (F,)
        self._original = heard.inputs(model.device)[0]  # (T, F)
        self._labels = torch.from_numpy(masks.labels).to(model.device)
        self._divergence = Divergence(heard.logits(model, self._original[None])[0])

    def inputs(self, occluded: torch.Tensor, k: int) -> torch.Tensor:
        """Return inputs [N, T, F] with segments of segmentation k occluded by bool [N, S_k]."""
        cells = occluded[:, self._labels[k]]  # (N, T, F)
        return torch.where(cells, self._occluded_values, self._original)

    def score(self, occluded: torch.Tensor, k: int, *occluded_tokens: torch.Tensor) -> torch.Tensor:
        """Score masks by the exact pass; see :class:`s2txai.saliency.score_sums.Score`."""
        model, heard, perturbed = self._model, self._heard, self.inputs(occluded, k)
        if not occluded_tokens:
            return self._divergence(heard.logits(model, perturbed))
        states = model.encode(perturbed, heard.padding_value)
        return self._divergence(
            model.decode_without_tokens(states, occluded_tokens[0], heard.prompt, heard.tokens)
        )

    def cheap_scores(self, perturbed: torch.Tensor) -> list[CheapScore]:
        """Return cheaper ways to score, as ``Model.cheap_passes`` does, for inputs [P, T, F]."""
        passes = self._model.cheap_passes(perturbed, self._heard.padding_value)
        return [CheapScore(partial(self._score_by, cheap), cheap.description) for cheap in passes]

    def _score_by(
        self, cheap: CheapPass, occluded: torch.Tensor, k: int, *occluded_tokens: torch.Tensor
    ) -> torch.Tensor:
        perturbed, heard = self.inputs(occluded, k), self._heard
        return self._divergence(
            cheap.logits(perturbed, heard.prompt, heard.tokens, *occluded_tokens)
        )


INPUT = Perturbation(input_masks, input_sums, Statistics, heatmap)
