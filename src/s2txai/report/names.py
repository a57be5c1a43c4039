"""What things are called where people read them."""

from collections.abc import Sequence

from s2txai.analysis.headline import Variant, variants
from s2txai.analysis.scoring import SCORES
from s2txai.saliency.aggregation import AGGREGATIONS, LAYER
from s2txai.saliency.correlation import METRICS
from s2txai.saliency.methods import METHODS
from s2txai.saliency.pooling import POOLINGS

LONGEST_LABEL = 30  # characters of a line in a figure

# Of maps that are in no registry.
_MAPS = {
    "ca_last": "CA, last layer",
    "ca_best_head": "CA, best head of the other utterances",
    "smx": "SMX",
    "smh": "SMH",
    "smx_full": "SMX, full resolution",
    "random": "random order",
    "energy": "loudest first",
}

# What the rows of a map are standardised along.
_NORMALISATIONS = {"token": "rows", "none": "none", "frame": "columns"}


def map_name(name: str) -> str:
    """Return a map's name for people, as ``SMX <pooling>`` of ``smx_<pooling>``."""
    if name in _MAPS:
        return _MAPS[name]
    if name in METHODS:
        return METHODS[name].name or name
    if name.startswith("smx_"):
        pooling = name.removeprefix("smx_")
        return f"SMX {(pooling in POOLINGS and POOLINGS[pooling].name) or pooling}"
    if aggregation := _aggregation_name(name):
        return f"CA, {aggregation}"
    return name.replace(LAYER, "CA, layer ", 1)


def _aggregation_name(attention: str) -> str:
    """Return the name for people of an aggregation of heads; empty where it has none."""
    name = attention.removeprefix("ca_")
    return AGGREGATIONS[name].name if attention != name and name in AGGREGATIONS else ""


def short_score_name(metric: str) -> str:
    """Return a score's name without its unit."""
    return SCORES[metric].short_name


def score_name(metric: str, *, short: bool = False) -> str:
    """Return a score's name, full or short, with its unit."""
    score = SCORES[metric]
    return f"{score.short_name if short else score.name} ({score.unit})"


def variant_name(variant: Variant) -> str:
    """Return the name of a metric and its normalisation."""
    metric = METRICS[variant.metric].name or variant.metric.capitalize()
    name = f"{metric}, {_NORMALISATIONS[variant.normalise]}"
    return f"{name} (headline)" if variant == variants()[0] else name


def attention_name(attention: str, layer: int | None, n_layers: int) -> str:
    """Return the name of a choice of heads."""
    if layer is None:
        return _aggregation_name(attention) or attention
    return f"layer {layer} (last)" if layer == n_layers - 1 else f"layer {layer}"


def shortened(text: str) -> str:
    """Return text with its middle left out where it is long: names often differ at their ends."""
    if len(text) <= LONGEST_LABEL:
        return text
    half = (LONGEST_LABEL - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def printable(text: str) -> str:
    """Return text on one line, with control characters spelled out."""
    return "".join(
        character if character.isprintable() else repr(character)[1:-1] for character in text
    )


def row_labels(pieces: Sequence[str], roles: Sequence[str], words: Sequence[int]) -> list[str]:
    """Return a label for each predicted token.

    A piece that goes on with the word of the piece before it starts with ``+``; the end of the
    sentence is ``[end]``. A token that holds bytes of a character only names the piece with which
    the character is complete.
    """
    labels = []
    before = -1
    for row, (piece, role, word) in enumerate(zip(pieces, roles, words, strict=True)):
        text = printable(piece.strip()) or "[blank]"
        if not piece and role == "text":
            completed = next(filter(None, pieces[row:]), "")
            text = f"[part of {printable(completed.strip())}]"
        continues = role == "text" and word == before and word >= 0
        labels.append("[end]" if role == "eos" else f"+{text}" if continues else text)
        before = word
    return labels
