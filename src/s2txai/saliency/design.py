"""The design of a perturbation: how many masks of which kind, read from a configuration once."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from s2txai.errors import UserError
from s2txai.saliency.checks import ENCODERS
from s2txai.saliency.masks import N_FOLDS, MaskPlan

INPUT_VALUE = "bin mean"
"""What an occluded cell of the input holds unless a configuration says otherwise."""

STATE_VALUE = "zero"
"""What an occluded encoder step becomes unless a configuration says otherwise."""


@dataclass(frozen=True)
class MaskDesign:
    """Which masks perturb an utterance, and what is made of them.

    Attributes
    ----------
    n_masks
        Masks per utterance, dealt evenly over the levels of segmentation.
    occluded_value
        A name of :data:`s2txai.saliency.occluded_values.OCCLUDED_VALUES` where the input is
        perturbed, of ``OCCLUDED_STATES`` where encoder states are.
    n_segments
        Levels of segmentation, in segments for 500 frames; none where encoder steps are the
        segments.
    p
        Probability that a segment is occluded.
    seed
        Of the masks.
    estimator
        A name of :data:`s2txai.saliency.estimators.ESTIMATORS`, for which sums are kept.
    target_reliability
        Of the map at encoder steps (mean over the cells of a step): masks are added, ``n_masks`` at
        a time, until it is reached or there are ``max_masks``. None: ``n_masks`` are enough.
    max_masks
        At least ``n_masks``; needed with a target.
    token_p
        Probability that a mask also occludes the embedding of a preceding token.
    encoder
        A name of :data:`s2txai.saliency.checks.ENCODERS`; only ``exact`` where no input is encoded.
    check
        Share of the masks that are also scored exactly where the others are scored cheaply, or
        ``auto``.
    """

    n_masks: int
    occluded_value: str = INPUT_VALUE
    n_segments: tuple[int, ...] = ()
    p: float = 0.5
    seed: int = 0
    estimator: str = "mean"
    target_reliability: float | None = None
    max_masks: int | None = None
    token_p: float = 0.0
    encoder: str = "exact"
    check: float | str = "auto"

    def __post_init__(self) -> None:
        """Refuse designs that give no map.

        Raises
        ------
        UserError
            If a number is out of its range.
        """
        levels = max(1, len(self.n_segments))
        fewest = N_FOLDS * levels
        if self.n_masks < fewest:
            raise UserError(
                f"'n_masks' must be at least {fewest}, not {self.n_masks}, for {levels} levels of "
                f"segments: reliability needs {N_FOLDS} masks of each."
            )
        if any(n < 1 for n in self.n_segments):
            raise UserError(f"'n_segments' must be at least 1 each, not {list(self.n_segments)}.")
        if not 0 < self.p < 1:
            raise UserError(f"'p' must be more than 0 and less than 1, not {self.p}.")
        if not 0 <= self.token_p < 1:
            raise UserError(f"'token_p' must be at least 0 and less than 1, not {self.token_p}.")
        if self.encoder not in ENCODERS:
            raise UserError(f"'encoder' must be {' or '.join(ENCODERS)}, not {self.encoder}.")
        if self.check != "auto" and not (
            isinstance(self.check, int | float) and 0 < self.check <= 1
        ):
            raise UserError(f"'check' must be auto or more than 0 and at most 1: {self.check}.")
        if self.max_masks is not None and self.max_masks < self.n_masks:
            raise UserError(
                f"'max_masks' must be at least 'n_masks' ({self.n_masks}), not {self.max_masks}."
            )

    @classmethod
    def of(
        cls, section: Mapping[str, Any], *, seed: int, occluded_value: str = INPUT_VALUE
    ) -> "MaskDesign":
        """Return the design that a section of the configuration describes.

        Parameters
        ----------
        section
            Keys are the attributes of this class, but for ``seed``.
        seed
            Of the study.
        occluded_value
            Where the section names none.
        """
        settings = {"occluded_value": occluded_value, **section, "seed": seed}
        return cls(**{**settings, "n_segments": tuple(settings.get("n_segments", ()))})

    @property
    def parameters(self) -> dict[str, Any]:
        """What changes the numbers of a mask; its number is not among them."""
        parameters: dict[str, Any] = {
            "p": self.p,
            "seed": self.seed,
            "occluded_value": self.occluded_value,
            "score": "KL",
        }
        if self.n_segments:
            parameters["n_segments"] = list(self.n_segments)
        if self.token_p:
            parameters["token_p"] = self.token_p
        if self.encoder != "exact":
            parameters |= {"encoder": self.encoder, "check": self.check}
        return parameters

    def plans(self, plan: MaskPlan) -> Iterator[MaskPlan]:
        """Yield the plan and, where a reliability is asked for, growing multiples of it.

        The multiples do not depend on how far an earlier run came: resumed equals uninterrupted.
        """
        yield plan
        most = (self.max_masks or self.n_masks) / self.n_masks
        for multiple in range(2, math.ceil(most) + 1):
            share = min(multiple, most)
            yield replace(plan, n_masks=tuple(round(n * share) for n in plan.n_masks))
