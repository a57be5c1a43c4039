"""What the study reports: the headline correlation, its variants, thresholds of verdicts."""

from dataclasses import dataclass

import pandas as pd

from s2txai.saliency.correlation import METRICS

METRIC = "pearson"
NORMALISATION = "token"
# Further normalisations that the headline's metric is reported with.
OTHER_NORMALISATIONS = ("none", "frame")

# Utterances; below, intervals are too narrow more often than they say.
FEW_UTTERANCES = 20
# Utterances; below, a verdict is undecided: the same few could have come out either way by chance,
# and an interval from them says more about the formula than about the model.
FEWEST_UTTERANCES = 5
# Of a map; below, more than half of what varies in it is noise.
LEAST_RELIABILITY = 0.5
START_TOLERANCE = 0.1  # s, within which the start of a word must lie
ENOUGH_WORDS = 0.8  # share of the words whose start must lie within the tolerance


@dataclass(frozen=True)
class Variant:
    """A metric and a normalisation, by their names in tables."""

    metric: str
    normalise: str


def variants() -> tuple[Variant, ...]:
    """Return the reported variants, the headline first: every metric, normalised as the headline.

    A metric that is registered later is one of them.
    """
    others = [name for name in METRICS if name != METRIC]
    return (
        Variant(METRIC, NORMALISATION),
        *(Variant(METRIC, normalise) for normalise in OTHER_NORMALISATIONS),
        *(Variant(metric, NORMALISATION) for metric in others),
    )


def token_variants() -> tuple[Variant, ...]:
    """Return every metric, normalised as the headline."""
    return tuple(variant for variant in variants() if variant.normalise == NORMALISATION)


def headline(table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a table that are of the headline correlation."""
    return table[(table["metric"] == METRIC) & (table["normalise"] == NORMALISATION)]


def headline_of_means(table: pd.DataFrame) -> pd.DataFrame:
    """Return :func:`headline` of the means over all heads and over each layer's heads."""
    rows = headline(table)
    return rows[rows["attention"].isin(["ca_mean", "ca_layer"])]
