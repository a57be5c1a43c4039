"""Timestamps: word boundaries read off every map, against those that the manifest names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from s2txai.analysis.columns import by_utterance
from s2txai.analysis.map_designs import design_of
from s2txai.analysis.signature import signature
from s2txai.analysis.utterance import UtteranceData
from s2txai.analysis.words import (
    MEDIAN_WIDTH,
    error_summary,
    pair_words,
    token_starts,
    word_boundaries,
)
from s2txai.datasets import Diacritics, Utterance, Word, read_alignment
from s2txai.datasets.alignment import EVIDENCE
from s2txai.errors import UserError
from s2txai.saliency.correlation import NORMALISERS
from s2txai.saliency.methods import METHODS

BEST_HEAD = "ca_best_head"
_MAP = ["map", "layer", "head"]
_COUNTS = ["n_words", "n_matched"]
_TIMES = ["start", "end", "reference_start", "reference_end", "start_error", "end_error"]


@dataclass(frozen=True)
class TimingTables:
    """What the step writes, one table per file.

    Attributes
    ----------
    words
        One row per matched word and map; no single heads.
    utterances
        Errors of each utterance and map, single heads included.
    summary
        Errors over the words of all utterances with the same evidence.
    """

    words: pd.DataFrame
    utterances: pd.DataFrame
    summary: pd.DataFrame


def _no_tables() -> TimingTables:
    """Return tables without rows, for a run whose utterances with alignments all failed."""
    nothing = np.array([])
    measures = list(error_summary(nothing, nothing))
    source, map_of = ["utterance", "evidence"], ["evidence", *_MAP]
    return TimingTables(
        pd.DataFrame(columns=[*source, *_MAP, "word_index", "word", *_TIMES, "signature"]),
        pd.DataFrame(columns=[*source, *_MAP, *measures, *_COUNTS, "signature"]),
        pd.DataFrame(columns=[*map_of, *measures, *_COUNTS, "n_utterances", "signature"]),
    )


def timestamps(
    utterances: Sequence[Utterance],
    aggregated: Sequence[UtteranceData],
    decoded: Sequence[UtteranceData],
    *,
    diacritics: Diacritics = "kept",
) -> TimingTables:
    """Compare the word boundaries of every map with those of the manifest.

    Parameters
    ----------
    utterances
        Rows of the manifest, all with an alignment.
    aggregated, decoded
        Their aggregated maps and decoded hypotheses, in the same order.
    diacritics
        ``folded`` takes them off the words that are compared, as off the texts that are scored.

    Raises
    ------
    UserError
        If an alignment is missing or malformed.
    """
    if not utterances:
        return _no_tables()
    pairs = [
        _of_utterance(utterance, maps, hypothesis, diacritics)
        for utterance, maps, hypothesis in zip(utterances, aggregated, decoded, strict=True)
    ]
    words, errors = (pd.concat(parts, ignore_index=True) for parts in zip(*pairs, strict=True))
    errors = pd.concat([errors, _best_heads(errors)], ignore_index=True)
    tables = TimingTables(words, errors, _summary(errors))
    for table in (tables.words, tables.utterances, tables.summary):
        _sign(table, aggregated, decoded, diacritics)
    return tables


@dataclass(frozen=True)
class SpokenWords:
    """The words of an utterance that were recognised, and when they are said.

    Attributes
    ----------
    texts
        All words of the hypothesis.
    rows
        bool [I], rows of the hypothesis that somebody says.
    matched
        int [W, 2], first and last of those of ``texts`` that match a word of the reference; more
        than one where no spaces are written and texts are parted otherwise.
    true
        float64 [W, 2], start and end of these in the reference, in seconds.
    n_words
        Words of the reference.
    """

    texts: list[str]
    rows: np.ndarray
    matched: np.ndarray
    true: np.ndarray
    n_words: int
    _decoded: UtteranceData

    @classmethod
    def of(
        cls, utterance: Utterance, decoded: UtteranceData, diacritics: Diacritics = "kept"
    ) -> Self:
        """Match hypothesis and reference; raises as :func:`timestamps`."""
        reference = _reference(utterance)
        # What every hypothesis begins with is said by nobody.
        rows = decoded["roles"] != "forced"
        texts = _words(decoded["pieces"][rows], decoded["word_index"][rows])
        pairs = pair_words(
            [word.text for word in reference],
            texts,
            language=utterance.language,
            diacritics=diacritics,
        )
        matched = np.array([(pair.first, pair.last) for pair in pairs], dtype=int).reshape(-1, 2)
        true = np.array(
            [
                (reference[pair.reference_first].start, reference[pair.reference_last].end)
                for pair in pairs
            ]
        ).reshape(-1, 2)
        return cls(texts, rows, matched, true, len(reference), decoded)

    def times(self, starts: np.ndarray, n_steps: int) -> np.ndarray:
        """Return start and end of the matched words, in seconds [M, W, 2].

        ``starts`` is int [M, spoken rows], the step at which each token begins; ``n_steps`` is T'.
        """
        index = self._decoded["word_index"][self.rows].tolist()
        bounds = word_boundaries(starts, index, n_steps)  # (M, words, 2)
        first, last = self.matched.T
        matched = np.stack([bounds[:, first, 0], bounds[:, last, 1]], axis=-1)
        return _seconds(matched, self._decoded)

    def matched_texts(self) -> list[str]:
        """Return the text of each match, as the hypothesis has it."""
        return ["".join(self.texts[first : last + 1]) for first, last in self.matched.tolist()]


def _of_utterance(
    utterance: Utterance,
    aggregated: UtteranceData,
    decoded: UtteranceData,
    diacritics: Diacritics,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the matched words in every map but single heads, and the errors in every map."""
    spoken = SpokenWords.of(utterance, decoded, diacritics)
    texts, matched, true = spoken.matched_texts(), spoken.matched, spoken.true
    names, maps = _maps(aggregated)
    times = spoken.times(token_starts(maps[:, spoken.rows]), maps.shape[-1])
    errors = times - true
    source = {"utterance": utterance.id, "evidence": utterance.alignment_evidence}
    summaries = pd.DataFrame([error_summary(*of_map.T) for of_map in errors])
    summaries = pd.concat([names, summaries], axis=1).assign(
        **source, n_words=spoken.n_words, n_matched=len(matched)
    )
    words = pd.concat(
        [
            pd.DataFrame(
                {
                    **source,
                    **name,
                    "word_index": matched[:, 0],
                    "word": texts,
                    "start": times[m, :, 0],
                    "end": times[m, :, 1],
                    "reference_start": true[:, 0],
                    "reference_end": true[:, 1],
                    "start_error": errors[m, :, 0],
                    "end_error": errors[m, :, 1],
                }
            )
            for m, name in enumerate(names.to_dict("records"))
            if name["map"] != "ca_head"
        ],
        ignore_index=True,
    )
    measures = [name for name in summaries if name not in (*source, *_MAP, *_COUNTS)]
    whole = {"layer": "Int64", "head": "Int64"}
    return words.astype(whole), summaries[[*source, *_MAP, *measures, *_COUNTS]]


def _reference(utterance: Utterance) -> list[Word]:
    if utterance.alignment is None:
        raise UserError(
            f"Utterance '{utterance.id}' has no alignment: fill in column 'alignment' of its "
            "manifest."
        )
    return read_alignment(utterance.alignment)


def _maps(aggregated: UtteranceData) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the names of the M maps and the maps [M, I, T'] to be warped.

    A row of attention is a share. A row of saliency is as large as its token is sensitive, and the
    most sensitive one would own every step, so these rows are standardised.
    """
    L, H, I, n_steps = aggregated["ca_head"].shape
    candidates = [
        *(name for name in aggregated.arrays if name.startswith("smx_") and "halves" not in name),
        "smh",
        *METHODS,
    ]
    saliencies = [name for name in candidates if name in aggregated.arrays]
    names = [
        ("ca_mean", None, None),
        *(("ca_layer", layer, None) for layer in range(L)),
        *((name, None, None) for name in saliencies),
        *(("ca_head", layer, head) for layer in range(L) for head in range(H)),
    ]
    maps = [
        aggregated["ca_mean"][None],
        aggregated["ca_layer"],
        *(NORMALISERS[_normalise(name)](aggregated[name])[None] for name in saliencies),
        aggregated["ca_head"].reshape(L * H, I, n_steps),
    ]
    table = pd.DataFrame(names, columns=_MAP).astype({"layer": "Int64", "head": "Int64"})
    return table, np.concatenate(maps)


def _normalise(name: str) -> str:
    """Return the name of what is done to the rows of a map before anything else."""
    return "none" if name.startswith("ca_") else "token"


def _words(pieces: np.ndarray, word_index: np.ndarray) -> list[str]:
    """Return the words of the hypothesis by their number."""
    n_words = int(word_index.max(initial=-1)) + 1
    return ["".join(pieces[word_index == word]).strip() for word in range(n_words)]


def _seconds(steps: np.ndarray, decoded: UtteranceData) -> np.ndarray:
    """Return when steps begin; the step after the last begins where the speech ends."""
    frames = np.minimum(steps * int(decoded["subsampling"]), len(decoded["features"]))
    # The file holds float32, which is not what was meant: 0.01 s.
    return np.asarray(frames * float(str(decoded["frame_shift"])))


def _best_heads(table: pd.DataFrame) -> pd.DataFrame:
    """Return the row of one head for each utterance, the best of the others of its evidence."""
    heads = table[(table["map"] == "ca_head") & (table["n_matched"] > 0)]
    best = [
        heads.iloc[:0],
        *(_best_of_others(own) for _, own in heads.groupby("evidence", sort=False)),
    ]
    return pd.concat(best).assign(map=BEST_HEAD)


def _best_of_others(rows: pd.DataFrame) -> pd.DataFrame:
    """Return for each utterance the row of the head that times all others best."""
    heads = rows[["layer", "head"]].drop_duplicates(ignore_index=True)
    utterances = rows["utterance"].unique().tolist()
    if len(utterances) < 2:
        return rows.iloc[:0]
    # Words count alike.
    placed = rows.assign(place=np.arange(len(rows)), total=rows["start_mae"] * rows["n_matched"])
    error, place = (
        by_utterance(placed, column, heads, utterances).T for column in ("total", "place")
    )  # (n, heads)
    best = (error.sum(axis=0) - error).argmin(axis=1)
    return rows.iloc[place[np.arange(len(utterances)), best].astype(int)]


def _summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return the errors over all words: means of utterances, weighted by their matched words."""
    keys = ["evidence", *_MAP]
    measures = [name for name in table if name not in ("utterance", *keys, *_COUNTS)]
    counted = table[keys + _COUNTS].copy()
    # The best head is another one for each utterance, and one row over all of them.
    counted.loc[counted["map"] == BEST_HEAD, ["layer", "head"]] = pd.NA
    counted["n_utterances"] = (counted["n_matched"] > 0).astype(int)
    sums = table[measures].mul(table["n_matched"], axis=0).fillna(0)
    grouped = pd.concat([counted, sums], axis=1).groupby(keys, sort=False, dropna=False)
    summary = grouped.sum().reset_index()
    # 0 / 0 is NaN: no word, no error.
    n_matched = summary["n_matched"]
    summary[measures] = summary[measures].div(n_matched.where(n_matched > 0), axis=0)
    order = summary["evidence"].map(EVIDENCE.index)
    summary = summary.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    return summary[[*keys, *measures, *_COUNTS, "n_utterances"]]


def _sign(
    table: pd.DataFrame,
    aggregated: Sequence[UtteranceData],
    decoded: Sequence[UtteranceData],
    diacritics: Diacritics,
) -> None:
    """Add the signature of every row: its evidence, and how its map was made."""
    decoding = decoded[0].parameters
    designs = {
        name: {} if name.startswith("ca_") else design_of(aggregated, name)
        for name in table["map"].unique()
    }
    table["signature"] = [
        signature(
            evidence=evidence,
            diacritics=diacritics,
            normalise=_normalise(name),
            median=MEDIAN_WIDTH,
            **{**decoding, **designs[name]},
        )
        for evidence, name in table[["evidence", "map"]].itertuples(index=False)
    ]
