"""What the analysis knows of one utterance: plain arrays and how they were computed."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from s2txai.errors import UserError


@dataclass(frozen=True)
class UtteranceData:
    """The results of one utterance that a table is made of.

    Attributes
    ----------
    utterance
        Its id.
    arrays
        By name, as ``docs/results.md`` lists them for each step.
    parameters
        How the arrays were computed; of aggregated maps by the step that made them.
    masks
        Number of masks and reliability of sampled maps, by step.
    """

    utterance: str
    arrays: Mapping[str, npt.NDArray[Any]]
    parameters: Mapping[str, Any]
    masks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        """Return the array ``name``.

        Raises
        ------
        UserError
            If there is no such array; the message lists those there are.
        """
        if name not in self.arrays:
            raise UserError(
                f"The results of utterance '{self.utterance}' hold no array '{name}', only "
                f"{', '.join(sorted(self.arrays))}: delete their folder and run the workflow again."
            )
        return self.arrays[name]

    def without_maps(self) -> Self:
        """Return the same with no other arrays than single numbers, which take no memory."""
        numbers = {name: values for name, values in self.arrays.items() if not np.ndim(values)}
        return replace(self, arrays=numbers)
