"""Which heads to use, and a verdict: what attention is good for in one run."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from s2txai.analysis.heads import Heads, Selection, select_heads
from s2txai.analysis.intervals import FEW, interval, mean_and_interval, resampled_means, resamples
from s2txai.analysis.word_times import SpokenWords
from s2txai.analysis.words import token_starts_of_set
from s2txai.datasets import Utterance
from s2txai.saliency.correlation import correlation, correlations
from s2txai.storage.artifacts import Artifact

TOLERANCE = 0.1  # s, within which a word's start is to lie
ENOUGH = 0.8  # of the words
LEAST_RELIABILITY = 0.5


@dataclass(frozen=True)
class Chosen:
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
class Findings:
    """What the step writes.

    Attributes
    ----------
    ranking
        One row a head.
    generation_config
        The chosen heads, as ``generation_config.json`` of a Whisper names them.
    verdict
        Numbers and sentences.
    """

    ranking: pd.DataFrame
    generation_config: dict[str, list[list[int]]]
    verdict: dict[str, Any]


def judge(
    aggregated: Sequence[Artifact],
    decoded: Sequence[Artifact],
    summary: pd.DataFrame,
    aligned: Sequence[Utterance],
    *,
    pooling: str,
    seed: int,
) -> Findings:
    """Rank the heads of a run and say what its attention is good for.

    Parameters
    ----------
    aggregated, decoded
        Artefacts of all utterances.
    summary
        ``correlate/summary.csv``.
    aligned
        Utterances whose words' times are known; their artefacts are among the above.
    pooling
        Of the SMX that stands for the input.
    seed
        Of resamples and cross-validation.
    """
    L, H = aggregated[0]["ca_head"].shape[:2]
    agreeing = _by_agreement(aggregated, L * H, seed)
    pairs = zip(aggregated, decoded, strict=True)
    by_id = {one.meta["utterance"]: (one, text) for one, text in pairs}
    spoken = [SpokenWords.of(one, by_id[one.id][1]) for one in aligned]
    timed = [
        (words, by_id[one.id][0])
        for one, words in zip(aligned, spoken, strict=True)
        if len(words.heard)
    ]
    timing, within = _by_timing(timed, L * H, seed) if timed else (None, None)
    ranking = pd.DataFrame(
        {
            "layer": np.repeat(np.arange(L), H),
            "head": np.tile(np.arange(H), L),
            "rank_smh": agreeing.rank,
            "rho_smh": agreeing.single,
            "chosen_smh": _is_chosen(agreeing, L, H),
        }
    )
    if timing is not None:
        ranking["rank_start"] = timing.rank
        ranking["start_mae"] = -timing.single
        ranking["chosen_start"] = _is_chosen(timing, L, H)
    best = timing or agreeing
    verdict = _verdict(summary, pooling, len(aggregated), agreeing, timing, within)
    return Findings(ranking, {"alignment_heads": best.heads}, verdict)


def _is_chosen(chosen: Chosen, L: int, H: int) -> list[bool]:
    return [[layer, head] in chosen.heads for layer in range(L) for head in range(H)]


def _by_agreement(aggregated: Sequence[Artifact], n_heads: int, seed: int) -> Chosen:
    """Choose the heads whose mean agrees best with SMH."""
    flat = [one["ca_head"].reshape(n_heads, *one["smh"].shape) for one in aggregated]
    single = np.array(
        [
            [found.value for found in correlations(maps, one["smh"])]
            for maps, one in zip(flat, aggregated, strict=True)
        ]
    ).T

    def score(heads: Heads, utterance: int) -> float:
        together = flat[utterance][list(heads)].mean(axis=0)
        return correlation(together, aggregated[utterance]["smh"]).value

    found = select_heads(single, score, seed=seed)
    held_out = mean_and_interval(found.held_out, seed=seed)
    return _chosen(found, single, np.ones(len(aggregated)), aggregated[0], held_out)


def _by_timing(
    timed: Sequence[tuple[SpokenWords, Artifact]], n_heads: int, seed: int
) -> tuple[Chosen, tuple[float, float, float]]:
    """Choose the heads whose words start where they are said.

    ``timed`` are utterances with words whose time is known, and their ``aggregate`` artefacts.
    Returns the choice, whose scores are negative mean errors in seconds, and the share of words
    that sets chosen on other utterances start within the tolerance, with its interval.
    """
    maps = [one["ca_head"].reshape(n_heads, *one["smh"].shape) for _, one in timed]

    def errors(heads: Heads, utterance: int) -> np.ndarray:
        words, own = timed[utterance][0], maps[utterance]
        starts = token_starts_of_set(own[list(heads)][:, words.rows])
        found = words.times(starts[None], own.shape[-1])[0]
        return np.asarray(np.abs(found[:, 0] - words.true[:, 0]))

    def score(heads: Heads, utterance: int) -> float:
        return -float(errors(heads, utterance).mean())

    n_words = np.array([len(words.heard) for words, _ in timed], dtype=np.float64)
    single = np.array(
        [[score((head,), one) for one in range(len(timed))] for head in range(n_heads)]
    )
    found = select_heads(single, score, weights=n_words.tolist(), seed=seed)
    counts = resamples(len(timed), seed=seed)
    held_out = _weighted(found.held_out, n_words, counts)
    hits = np.array(
        [
            float((errors(heads, one) <= TOLERANCE + 1e-6).mean()) if heads else float("nan")
            for one, heads in enumerate(found.held_out_heads)
        ]
    )
    chosen = _chosen(found, single, n_words, timed[0][1], held_out)
    return chosen, _weighted(hits, n_words, counts)


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


def _chosen(
    found: Selection,
    single: np.ndarray,
    weights: np.ndarray,
    aggregated: Artifact,
    held_out: tuple[float, float, float],
) -> Chosen:
    H = aggregated["ca_head"].shape[1]
    rank = np.empty(len(single), dtype=np.int64)
    rank[found.order] = np.arange(1, len(single) + 1)
    defined = np.isfinite(single)
    total = (defined * weights).sum(axis=1)
    sums = (np.where(defined, single, 0) * weights).sum(axis=1)
    means = np.divide(sums, total, out=np.full(len(single), np.nan), where=total > 0)
    return Chosen([list(divmod(head, H)) for head in found.chosen], rank, means, held_out)


def _verdict(
    summary: pd.DataFrame,
    pooling: str,
    n_utterances: int,
    agreeing: Chosen,
    timing: Chosen | None,
    within: tuple[float, float, float] | None,
) -> dict[str, Any]:
    headline = summary[(summary["metric"] == "pearson") & (summary["normalise"] == "token")]
    shares = {
        name: _share(headline, saliency)
        for name, saliency in (("input", f"smx_{pooling}"), ("encoder_output", "smh"))
    }
    layers = headline[(headline["attention"] == "ca_layer") & (headline["saliency"] == "smh")]
    layers = layers.dropna(subset="rho")
    best_layer = int(layers.loc[layers["rho"].idxmax(), "layer"]) if len(layers) else None
    found: dict[str, Any] = {
        "n_utterances": n_utterances,
        "share": shares,
        "best_layer": best_layer,
        "heads_smh": {"heads": agreeing.heads, **_ends("rho_held_out", agreeing.held_out)},
        "timestamps": {"good_enough": "not tested"},
    }
    if timing is not None and within is not None:
        error, high, low = (-value for value in timing.held_out)
        found["timestamps"] = {
            "good_enough": _good_enough(within),
            "heads": timing.heads,
            **_ends("start_mae_held_out", (error, low, high)),
            **_ends("within_100ms_held_out", within),
        }
    found["sentences"] = _sentences(found, pooling)
    return {name: _plain(value) for name, value in found.items()}


def _plain(value: Any) -> Any:
    """Return the value with what JSON has no number for as None."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return value


def _share(headline: pd.DataFrame, saliency: str) -> dict[str, float]:
    """Return what the mean of all heads explains of a saliency map, as the paper reads rho."""
    row = headline[(headline["attention"] == "ca_mean") & (headline["saliency"] == saliency)]
    columns = ["rho", "reliability", "rho_corrected", "rho_corrected_low", "rho_corrected_high"]
    return {name: float(row[name].iloc[0]) for name in columns}


def _ends(name: str, found: tuple[float, float, float]) -> dict[str, float]:
    return dict(zip((name, f"{name}_low", f"{name}_high"), found, strict=True))


def _good_enough(within: tuple[float, float, float]) -> str:
    """Tell whether enough words start in time: by the interval, not by the mean alone."""
    _, low, high = within
    if np.isnan(low):
        return "undecided"
    if low >= ENOUGH:
        return "yes"
    return "no" if high < ENOUGH else "undecided"


def _sentences(found: dict[str, Any], pooling: str) -> list[str]:
    """Say it in words."""
    said = [
        _share_sentence("the input", f"SMX {pooling}", found["share"]["input"]),
        _share_sentence("the encoder's output", "SMH", found["share"]["encoder_output"]),
    ]
    if found["best_layer"] is not None:
        said.append(
            f"Of the layers, counted from 0, layer {found['best_layer']} agrees best with SMH."
        )
    said.append(_timing_sentence(found["timestamps"]))
    said.append(_heads_sentence(found))
    if found["n_utterances"] < FEW:
        said.append(
            f"Utterances: {found['n_utterances']}, fewer than {FEW}; this describes them, not the "
            "model."
        )
    return said


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


def _heads_sentence(found: dict[str, Any]) -> str:
    """Name the heads of ``generation_config.json``."""
    by_timing = "heads" in found["timestamps"]
    heads = found["timestamps" if by_timing else "heads_smh"]["heads"]
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
    verdict = {"yes": "are good enough", "no": "are not good enough"}.get(
        timing["good_enough"], "may or may not be good enough, more utterances must tell,"
    )
    return (
        f"Timestamps from heads chosen on other utterances {verdict} for 100 ms: {share:.0f} % "
        f"[{low:.0f}, {high:.0f}] of the words start within it, {100 * ENOUGH:.0f} % are asked for."
    )
