"""The registry of corpus scores: what a score counts, and what it is called."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from s2txai.datasets.languages import TextUnit
from s2txai.registry import SCORE, Registry

Counts = Callable[[Sequence[str], Sequence[str]], np.ndarray]


@dataclass(frozen=True)
class Score:
    """A corpus score as a function of counts that add up over utterances.

    A score of resampled utterances hence needs no text.

    Attributes
    ----------
    counts
        From references and hypotheses of n utterances to float64 [n, K].
    of_sums
        From sums of counts over utterances [..., K] to scores [...].
    tasks
        Kinds of tasks that the score is of, ``asr`` or ``st``; empty where a configuration must ask
        for it.
    higher_is_better
        Whether better hypotheses score higher; word errors fall.
    short_name, name, unit
        For people.
    facts
        What the score depends on beside the texts, for its signature.
    takes_raw_texts
        Whether texts are scored as they are, without text normalisation.
    text_unit
        What it counts, where it is of languages that have this unit only; None for any language.
    adapted
        From a language to the score of its texts, where these are split in another way.
    """

    counts: Counts
    of_sums: Callable[[np.ndarray], np.ndarray]
    tasks: frozenset[str]
    higher_is_better: bool
    short_name: str
    name: str
    unit: str
    facts: Mapping[str, str] = field(default_factory=dict)
    takes_raw_texts: bool = False
    text_unit: TextUnit | None = None
    adapted: "Callable[[str], Score] | None" = None

    def of(self, language: str) -> "Score":
        """Return the score as it is of texts in a language."""
        return self.adapted(language) if self.adapted else self

    def __call__(self, references: Sequence[str], hypotheses: Sequence[str]) -> float:
        """Return the score of a corpus, one reference and one hypothesis per utterance."""
        return float(self.of_sums(self.counts(references, hypotheses).sum(axis=0)))


SCORES: Registry[Score] = Registry(SCORE)
