"""Which heads to use, and a verdict: what attention is good for in one run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.headline import (
    ENOUGH_WORDS,
    FEW_UTTERANCES,
    FEWEST_UTTERANCES,
    LEAST_RELIABILITY,
    START_TOLERANCE,
    headline,
)
from s2txai.analysis.heads import Heads, Selection, select_heads
from s2txai.analysis.intervals import interval, mean_and_interval, resampled_means, resamples
from s2txai.analysis.utterance import UtteranceData
from s2txai.analysis.word_times import SpokenWords
from s2txai.analysis.words import token_starts_of_set
from s2txai.datasets import Diacritics, Utterance
from s2txai.saliency.correlation import correlation, correlations
from s2txai.wording import number_beside

NOT_TESTED = {
    "translation": "a translation's words have no times in the speech.",
    "no alignments": "the manifest names no alignment for these utterances.",
    "failed": "every utterance with an alignment failed.",
    "no words": "the hypotheses of the utterances with an alignment hold no word.",
    "no match": (
        "no word of the hypotheses matches a word of the alignments, so no word has a time to "
        "compare with."
    ),
}
"""Why timestamps were not tested: reasons, as the verdict names them, and the end of a sentence."""

Ends = tuple[float, float, float]
"""A mean and the ends of its interval; NaN where undefined."""


@dataclass(frozen=True)
class HeadChoice:
    """Heads chosen for a purpose.

    Attributes
    ----------
    heads
        [layer, head] of each, the best first; none where no head has a score.
    rank
        int [L H], of every head from 1.
    single
        float64 [L H], mean score of every head by itself.
    held_out
        What sets chosen on other utterances reach: mean, and the ends of its 95 % interval.
    """

    heads: list[list[int]]
    rank: np.ndarray
    single: np.ndarray
    held_out: Ends


@dataclass(frozen=True)
class Timing:
    """Word starts read off chosen heads.

    Attributes
    ----------
    choice
        Heads whose scores are negative mean errors in seconds.
    within
        Share of the words that sets chosen on other utterances start within the tolerance.
    n_utterances, n_words
        What the choice was made on: utterances with matched words, and these words.
    """

    choice: HeadChoice
    within: Ends
    n_utterances: int
    n_words: int


@dataclass(frozen=True)
class HeadFindings:
    """What the step writes.

    Attributes
    ----------
    ranking
        One row per head.
    generation_config
        The chosen heads, as ``generation_config.json`` of a Whisper names them.
    verdict
        Numbers and sentences.
    """

    ranking: pd.DataFrame
    generation_config: dict[str, list[list[int]]]
    verdict: dict[str, Any]


def rank_heads(
    aggregated: Sequence[UtteranceData],
    decoded: Sequence[UtteranceData],
    summary: pd.DataFrame,
    aligned: Sequence[Utterance],
    *,
    pooling: str,
    seed: int,
    why_unaligned: str = "no alignments",
    diacritics: Diacritics = "kept",
) -> HeadFindings:
    """Rank the heads of a run and say what its attention is good for.

    Parameters
    ----------
    aggregated, decoded
        Maps and hypotheses of all utterances.
    summary
        Summary of the correlations; see :class:`s2txai.analysis.correlations.CorrelationTables`.
    aligned
        Utterances whose words' times are known; their results are among the above.
    pooling
        Of the SMX that stands for the input.
    seed
        Of resamples and cross-validation.
    why_unaligned
        Why ``aligned`` is empty, where it is: a reason of :data:`NOT_TESTED`.
    diacritics
        Of the words that are compared, see :func:`s2txai.analysis.word_times.timestamps`.
    """
    L, H = aggregated[0]["ca_head"].shape[:2]
    agreeing = _by_agreement(aggregated, L * H, seed)
    maps = {data.utterance: data for data in aggregated}
    hypotheses = {data.utterance: data for data in decoded}
    spoken = {
        utterance.id: SpokenWords.of(utterance, hypotheses[utterance.id], diacritics)
        for utterance in aligned
    }
    timed = [(words, maps[name]) for name, words in spoken.items() if len(words.matched)]
    timing = _by_timing(timed, L * H, seed) if timed else None
    ranking = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(L), H),
            "head": np.tile(np.arange(H), L),
            "rank_smh": agreeing.rank,
            "rho_smh": agreeing.single,
            "chosen_smh": _in_set(agreeing, L, H),
        }
    )
    if timing is not None:
        ranking["rank_start"] = timing.choice.rank
        ranking["start_mae"] = -timing.choice.single
        ranking["chosen_start"] = _in_set(timing.choice, L, H)
    best = agreeing if timing is None else timing.choice
    verdict = _verdict(
        summary,
        pooling,
        len(aggregated),
        agreeing,
        _untested(spoken, why_unaligned) if timing is None else _judged(timing),
    )
    return HeadFindings(ranking, {"alignment_heads": best.heads}, verdict)


def _in_set(choice: HeadChoice, L: int, H: int) -> list[bool]:
    return [[layer, head] in choice.heads for layer in range(L) for head in range(H)]


def _by_agreement(aggregated: Sequence[UtteranceData], n_heads: int, seed: int) -> HeadChoice:
    """Choose the heads whose mean agrees best with SMH."""
    flat = [data["ca_head"].reshape(n_heads, *data["smh"].shape) for data in aggregated]
    single = np.array(
        [
            [result.value for result in correlations(maps, data["smh"])]
            for maps, data in zip(flat, aggregated, strict=True)
        ]
    ).T

    def score(heads: Heads, utterance: int) -> float:
        together = flat[utterance][list(heads)].mean(axis=0)
        return correlation(together, aggregated[utterance]["smh"]).value

    selection = select_heads(single, score, seed=seed)
    held_out = mean_and_interval(selection.held_out, seed=seed)
    return _choice(selection, single, np.ones(len(aggregated)), aggregated[0], held_out)


def _by_timing(
    timed: Sequence[tuple[SpokenWords, UtteranceData]], n_heads: int, seed: int
) -> Timing:
    """Choose the heads whose words start where they are said.

    ``timed`` are utterances with words whose time is known, and their maps.
    """
    maps = [data["ca_head"].reshape(n_heads, *data["smh"].shape) for _, data in timed]

    def errors(heads: Heads, utterance: int) -> np.ndarray:
        words, own = timed[utterance][0], maps[utterance]
        starts = token_starts_of_set(own[list(heads)][:, words.rows])
        times = words.times(starts[None], own.shape[-1])[0]
        return np.asarray(np.abs(times[:, 0] - words.true[:, 0]))

    def score(heads: Heads, utterance: int) -> float:
        return -float(errors(heads, utterance).mean())

    n_words = np.array([len(words.matched) for words, _ in timed], dtype=np.float64)
    single = np.array([[score((head,), n) for n in range(len(timed))] for head in range(n_heads)])
    selection = select_heads(single, score, weights=n_words.tolist(), seed=seed)
    counts = resamples(len(timed), seed=seed)
    held_out = _weighted(selection.held_out, n_words, counts)
    hits = np.array(
        [
            float((errors(heads, n) <= START_TOLERANCE + 1e-6).mean()) if heads else float("nan")
            for n, heads in enumerate(selection.held_out_heads)
        ]
    )
    choice = _choice(selection, single, n_words, timed[0][1], held_out)
    within = _weighted(hits, n_words, counts)
    return Timing(choice, within, len(timed), int(n_words.sum()))


def _weighted(values: np.ndarray, weights: np.ndarray, counts: np.ndarray) -> Ends:
    """Return the weighted mean over utterances and the ends of its interval."""
    usable = np.isfinite(values) & (weights > 0)
    if not usable.any():
        return (float("nan"),) * 3
    values, weights, counts = values[usable], weights[usable], counts[:, usable]
    resampled = resampled_means(values * weights, counts) / resampled_means(weights, counts)
    low, high = interval(resampled, len(values))
    return float(np.average(values, weights=weights)), float(low), float(high)


def _choice(
    selection: Selection,
    single: np.ndarray,
    weights: np.ndarray,
    aggregated: UtteranceData,
    held_out: Ends,
) -> HeadChoice:
    H = aggregated["ca_head"].shape[1]
    rank = np.empty(len(single), dtype=np.int64)
    rank[selection.order] = np.arange(1, len(single) + 1)
    defined = np.isfinite(single)
    total = (defined * weights).sum(axis=1)
    sums = (np.where(defined, single, 0) * weights).sum(axis=1)
    means = np.divide(sums, total, out=np.full(len(single), np.nan), where=total > 0)
    # Without a score, the first heads would be named for standing first.
    heads = selection.heads if defined.any() else ()
    return HeadChoice([list(divmod(head, H)) for head in heads], rank, means, held_out)


def _verdict(
    summary: pd.DataFrame,
    pooling: str,
    n_utterances: int,
    agreeing: HeadChoice,
    timestamps: dict[str, Any],
) -> dict[str, Any]:
    rows = headline(summary)
    shares = {
        name: _share(rows, saliency)
        for name, saliency in (("input", f"smx_{pooling}"), ("encoder_output", "smh"))
    }
    layers = rows[(rows["attention"] == "ca_layer") & (rows["saliency"] == "smh")]
    layers = layers.dropna(subset="rho")
    best_layer = int(layers.loc[layers["rho"].idxmax(), "layer"]) if len(layers) else None
    verdict: dict[str, Any] = {
        "n_utterances": n_utterances,
        "share": shares,
        "best_layer": best_layer,
        "heads_smh": {
            "heads": agreeing.heads,
            **_ends("rho_held_out", agreeing.held_out, n_utterances),
        },
        "timestamps": timestamps,
    }
    verdict["sentences"] = _sentences(verdict, pooling)
    return {name: _plain(value) for name, value in verdict.items()}


def _untested(spoken: Mapping[str, SpokenWords], why_unaligned: str) -> dict[str, Any]:
    """Return what is said of timestamps where no word has a time to compare with."""
    if not spoken:
        reason = why_unaligned
    elif any(words.texts for words in spoken.values()):
        reason = "no match"
    else:
        reason = "no words"
    return {"good_enough": "not tested", "reason": reason}


def _judged(timing: Timing) -> dict[str, Any]:
    error, high, low = (-value for value in timing.choice.held_out)
    n = timing.n_utterances
    return {
        "good_enough": _good_enough(timing.within, n),
        "n_utterances": n,
        "n_words": timing.n_words,
        "heads": timing.choice.heads,
        **_ends("start_mae_held_out", (error, low, high), n),
        **_ends("within_100ms_held_out", timing.within, n),
    }


def _plain(value: Any) -> Any:
    """Return the value with what JSON has no number for as None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _share(rows: pd.DataFrame, saliency: str) -> dict[str, Any]:
    """Return what the mean of all heads explains of a saliency map, as the paper reads rho."""
    row = rows[(rows["attention"] == "ca_mean") & (rows["saliency"] == saliency)].iloc[0]
    n = int(row["n_utterances"])
    ends = tuple(float(row[f"rho_corrected{end}"]) for end in ("", "_low", "_high"))
    share = {
        "rho": float(row["rho"]),
        "reliability": float(row["reliability"]),
        **_ends("rho_corrected", (ends[0], ends[1], ends[2]), n),
        "n_utterances": n,
    }
    return {"status": "undecided" if _undecided(share) else "measured", **share}


def _undecided(share: Mapping[str, Any]) -> str:
    """Return why a share is undecided, as the end of a sentence; "" where it is measured."""
    n, reliability = share["n_utterances"], share["reliability"]
    if np.isnan(share["rho"]):
        return "in no utterance is there a row in which both attention and the map vary."
    if np.isnan(reliability):
        return "the reliability of the map is not defined, since its half-maps do not vary."
    if reliability < LEAST_RELIABILITY:
        return (
            f"the map's reliability is {number_beside(reliability, LEAST_RELIABILITY, 2)}, below "
            f"{LEAST_RELIABILITY}; more masks raise it."
        )
    if np.isnan(share["rho_corrected"]):
        return (
            f"the correlation of {share['rho']:.2f} cannot be corrected for noise, which only maps "
            "that are means over masks allow; list such a pooling, as avg2d, first in "
            "'aggregate.poolings'."
        )
    if n < FEWEST_UTTERANCES:
        return (
            f"{_counted(n)} with a defined correlation, fewer than {FEWEST_UTTERANCES}. Corrected "
            f"for noise, the correlation with the mean of all heads is "
            f"{share['rho_corrected']:.2f} there."
        )
    return ""


def _counted(n: int) -> str:
    return "1 utterance" if n == 1 else f"{n:,} utterances"


def _ends(name: str, values: Ends, n_utterances: int) -> dict[str, float]:
    """Return a mean and its interval by name, without an interval from too few utterances."""
    mean, low, high = values
    if n_utterances < FEWEST_UTTERANCES:
        low = high = float("nan")
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def _good_enough(within: Ends, n_utterances: int) -> str:
    """Say whether enough words start in time: by the interval, not by the mean alone."""
    _, low, high = within
    if n_utterances < FEWEST_UTTERANCES or np.isnan(low):
        return "undecided"
    if low >= ENOUGH_WORDS:
        return "yes"
    return "no" if high < ENOUGH_WORDS else "undecided"


def _sentences(verdict: dict[str, Any], pooling: str) -> list[str]:
    """Say it in words."""
    few = verdict["n_utterances"] < FEWEST_UTTERANCES
    sentences = [
        _share_sentence("the input", f"SMX {pooling}", verdict["share"]["input"]),
        _share_sentence("the encoder's output", "SMH", verdict["share"]["encoder_output"]),
    ]
    if verdict["best_layer"] is not None:
        here = f"In {_counted(verdict['n_utterances'])}, layer" if few else "Layer"
        sentences.append(
            f"{here} {verdict['best_layer']} agrees best with SMH, layers counted from 0."
        )
    sentences.append(_timing_sentence(verdict["timestamps"]))
    sentences.append(_heads_sentence(verdict))
    if verdict["n_utterances"] < FEW_UTTERANCES:
        sentences.append(
            f"Utterances: {verdict['n_utterances']}, fewer than {FEW_UTTERANCES}; this describes "
            "them, not the model."
        )
    return sentences


def _share_sentence(what: str, saliency: str, share: Mapping[str, Any]) -> str:
    reason = _undecided(share)
    if reason:
        return (
            f"What attention explains of the saliency of {what} ({saliency}) is undecided: {reason}"
        )
    value, low, high = (share[f"rho_corrected{end}"] for end in ("", "_low", "_high"))
    # Rounded as it is printed, so that 100 % is never called more than possible.
    if not 0 <= round(value, 2) <= 1:
        ends = f" [{low:.2f}, {high:.2f}]" if np.isfinite(low) else ""
        reading = (
            "explains none of the"
            if value < 0
            else "agrees as well as a map without noise could with the"
        )
        return (
            f"The mean of all heads {reading} saliency of {what} ({saliency}): the correlation "
            f"corrected for noise is {value:.2f}{ends}."
        )
    ends = f" [{100 * low:.0f}, {100 * high:.0f}]" if np.isfinite(low) else ""
    return (
        f"The mean of all heads explains {100 * value:.0f} %{ends} of the "
        f"saliency of {what} ({saliency}, correlation corrected for noise)."
    )


def _heads_sentence(verdict: dict[str, Any]) -> str:
    """Name the heads of ``generation_config.json``."""
    timing = verdict["timestamps"]
    by_timing = "heads" in timing
    heads = (timing if by_timing else verdict["heads_smh"])["heads"]
    if not heads:
        return "No heads are chosen: no head has a defined correlation with SMH."
    n = timing["n_utterances"] if by_timing else verdict["n_utterances"]
    here = f"In {_counted(n)}, the" if n < FEWEST_UTTERANCES else "The"
    listed = ", ".join(f"{layer}.{head}" for layer, head in heads)
    purpose = "whose word starts are best" if by_timing else "that agree best with SMH"
    return f"{here} heads {purpose} together, best first, as layer.head counted from 0: {listed}."


def _timing_sentence(timing: Mapping[str, Any]) -> str:
    if timing["good_enough"] == "not tested":
        return f"Timestamps were not tested: {NOT_TESTED[timing['reason']]}"
    share, low, high = (
        100 * timing[f"within_100ms_held_out{end}"] for end in ("", "_low", "_high")
    )
    n, n_words = timing["n_utterances"], timing["n_words"]
    words = f"{n_words:,} matched word{'' if n_words == 1 else 's'}"
    question = "Whether timestamps are good enough for 100 ms is undecided"
    if np.isnan(share):
        # One utterance, or none but it: no other one to choose heads on.
        return (
            f"{question}: {_counted(n)} with matched words, and heads are judged on other "
            "utterances than they are chosen on."
        )
    threshold = 100 * ENOUGH_WORDS
    within = number_beside(share, threshold, 0)
    if n < FEWEST_UTTERANCES:
        return (
            f"{question}: {_counted(n)} with matched words, fewer than {FEWEST_UTTERANCES}. "
            f"{within} % of their {words} start within it, by heads chosen on other utterances."
        )
    ends = ", ".join(number_beside(end, threshold, 0) for end in (low, high))
    reached = (
        f"{within} % [{ends}] of {words} in {_counted(n)} start within it, by heads chosen on "
        "other utterances"
    )
    if timing["good_enough"] == "undecided":
        return f"{question}: {reached}, and the interval holds the threshold, {threshold:.0f} %."
    judgement = "are" if timing["good_enough"] == "yes" else "are not"
    return (
        f"Timestamps {judgement} good enough for 100 ms: {reached}; the threshold is "
        f"{threshold:.0f} %."
    )
