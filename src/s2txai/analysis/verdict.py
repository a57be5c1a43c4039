"""Which heads to use, and a verdict: what attention is good for in one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.headline import (
    ENOUGH_WORDS,
    FEW_UTTERANCES,
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


@dataclass(frozen=True)
class HeadChoice:
    """Heads chosen for a purpose.

    Attributes
    ----------
    heads
        [layer, head] of each, the best first.
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
    held_out: tuple[float, float, float]


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
    timing, within = _by_timing(timed, L * H, seed) if timed else (None, None)
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
        ranking["rank_start"] = timing.rank
        ranking["start_mae"] = -timing.single
        ranking["chosen_start"] = _in_set(timing, L, H)
    best = timing or agreeing
    verdict = _verdict(summary, pooling, len(aggregated), agreeing, timing, within)
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
) -> tuple[HeadChoice, tuple[float, float, float]]:
    """Choose the heads whose words start where they are said.

    ``timed`` are utterances with words whose time is known, and their maps.
    Returns the choice, whose scores are negative mean errors in seconds, and the share of words
    that sets chosen on other utterances start within the tolerance, with its interval.
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
    return choice, _weighted(hits, n_words, counts)


def _weighted(
    values: np.ndarray, weights: np.ndarray, counts: np.ndarray
) -> tuple[float, float, float]:
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
    held_out: tuple[float, float, float],
) -> HeadChoice:
    H = aggregated["ca_head"].shape[1]
    rank = np.empty(len(single), dtype=np.int64)
    rank[selection.order] = np.arange(1, len(single) + 1)
    defined = np.isfinite(single)
    total = (defined * weights).sum(axis=1)
    sums = (np.where(defined, single, 0) * weights).sum(axis=1)
    means = np.divide(sums, total, out=np.full(len(single), np.nan), where=total > 0)
    return HeadChoice([list(divmod(head, H)) for head in selection.heads], rank, means, held_out)


def _verdict(
    summary: pd.DataFrame,
    pooling: str,
    n_utterances: int,
    agreeing: HeadChoice,
    timing: HeadChoice | None,
    within: tuple[float, float, float] | None,
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
        "heads_smh": {"heads": agreeing.heads, **_ends("rho_held_out", agreeing.held_out)},
        "timestamps": {"good_enough": "not tested"},
    }
    if timing is not None and within is not None:
        error, high, low = (-value for value in timing.held_out)
        verdict["timestamps"] = {
            "good_enough": _good_enough(within),
            "heads": timing.heads,
            **_ends("start_mae_held_out", (error, low, high)),
            **_ends("within_100ms_held_out", within),
        }
    verdict["sentences"] = _sentences(verdict, pooling)
    return {name: _plain(value) for name, value in verdict.items()}


def _plain(value: Any) -> Any:
    """Return the value with what JSON has no number for as None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _share(rows: pd.DataFrame, saliency: str) -> dict[str, float]:
    """Return what the mean of all heads explains of a saliency map, as the paper reads rho."""
    row = rows[(rows["attention"] == "ca_mean") & (rows["saliency"] == saliency)]
    columns = ["rho", "reliability", "rho_corrected", "rho_corrected_low", "rho_corrected_high"]
    return {name: float(row[name].iloc[0]) for name in columns}


def _ends(name: str, values: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), values, strict=True))


def _good_enough(within: tuple[float, float, float]) -> str:
    """Say whether enough words start in time: by the interval, not by the mean alone."""
    _, low, high = within
    if np.isnan(low):
        return "undecided"
    if low >= ENOUGH_WORDS:
        return "yes"
    return "no" if high < ENOUGH_WORDS else "undecided"


def _sentences(verdict: dict[str, Any], pooling: str) -> list[str]:
    """Say it in words."""
    sentences = [
        _share_sentence("the input", f"SMX {pooling}", verdict["share"]["input"]),
        _share_sentence("the encoder's output", "SMH", verdict["share"]["encoder_output"]),
    ]
    if verdict["best_layer"] is not None:
        sentences.append(
            f"Of the layers, counted from 0, layer {verdict['best_layer']} agrees best with SMH."
        )
    sentences.append(_timing_sentence(verdict["timestamps"]))
    sentences.append(_heads_sentence(verdict))
    if verdict["n_utterances"] < FEW_UTTERANCES:
        sentences.append(
            f"Utterances: {verdict['n_utterances']}, fewer than {FEW_UTTERANCES}; this describes "
            "them, not the model."
        )
    return sentences


def _share_sentence(what: str, saliency: str, share: dict[str, float]) -> str:
    if not share["reliability"] >= LEAST_RELIABILITY:
        return (
            f"What attention explains of the saliency of {what} ({saliency}) cannot be told: the "
            f"map's reliability is below {LEAST_RELIABILITY}; add masks."
        )
    low, high = (100 * share[f"rho_corrected_{end}"] for end in ("low", "high"))
    ends = f" [{low:.0f}, {high:.0f}]" if np.isfinite(low) else ""
    return (
        f"The mean of all heads explains {100 * share['rho_corrected']:.0f} %{ends} of the "
        f"saliency of {what} ({saliency}, correlation corrected for noise)."
    )


def _heads_sentence(verdict: dict[str, Any]) -> str:
    """Name the heads of ``generation_config.json``."""
    by_timing = "heads" in verdict["timestamps"]
    heads = verdict["timestamps" if by_timing else "heads_smh"]["heads"]
    listed = ", ".join(f"{layer}.{head}" for layer, head in heads)
    purpose = "whose word starts are best" if by_timing else "that agree best with SMH"
    return f"The heads {purpose} together, best first, as layer.head counted from 0: {listed}."


def _timing_sentence(timing: dict[str, Any]) -> str:
    if timing["good_enough"] == "not tested":
        return "Timestamps were not tested: no word was recognised whose time is known."
    share, low, high = (
        100 * timing[name]
        for name in ("within_100ms_held_out", "within_100ms_held_out_low",
                     "within_100ms_held_out_high")
    )  # fmt: skip
    if np.isnan(share):
        return "Timestamps cannot be judged: that needs two utterances with alignments."
    judgement = {"yes": "are good enough", "no": "are not good enough"}.get(
        timing["good_enough"], "may or may not be good enough, more utterances must tell,"
    )
    return (
        f"Timestamps from heads chosen on other utterances {judgement} for 100 ms: {share:.0f} % "
        f"[{low:.0f}, {high:.0f}] of the words start within it, "
        f"{100 * ENOUGH_WORDS:.0f} % are asked for."
    )
