"""Timestamps: word boundaries read off every map, against those that the manifest names."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import pandas as pd

from s2txai.analysis.correlations import design_of
from s2txai.analysis.signature import signature
from s2txai.analysis.words import (
    MEDIAN_WIDTH,
    error_summary,
    match_words,
    token_starts,
    word_boundaries,
)
from s2txai.datasets import Utterance, Word, read_alignment
from s2txai.datasets.alignment import EVIDENCE
from s2txai.errors import UserError
from s2txai.saliency.correlation import NORMALISERS
from s2txai.saliency.gradient_statistics import GRADIENTS
from s2txai.storage.artifacts import Artifact, check_same_source

BEST_HEAD = "ca_best_head"
_MAP = ["map", "layer", "head"]
_COUNTS = ["n_words", "n_matched"]
_TIMES = ["start", "end", "reference_start", "reference_end", "start_error", "end_error"]


@dataclass(frozen=True)
class Tables:
    """What the step writes, one table a file.

    Attributes
    ----------
    words
        One row a matched word and map; no single heads.
    utterances
        Errors of each utterance and map, single heads included.
    summary
        Errors over the words of all utterances with the same evidence.
    """

    words: pd.DataFrame
    utterances: pd.DataFrame
    summary: pd.DataFrame


def _no_tables() -> Tables:
    """Return tables without rows, for a run whose utterances with alignments all failed."""
    nothing = np.array([])
    measures = list(error_summary(nothing, nothing))
    led, map_of = ["utterance", "evidence"], ["evidence", *_MAP]
    return Tables(
        pd.DataFrame(columns=[*led, *_MAP, "word_index", "word", *_TIMES, "signature"]),
        pd.DataFrame(columns=[*led, *_MAP, *measures, *_COUNTS, "signature"]),
        pd.DataFrame(columns=[*map_of, *measures, *_COUNTS, "n_utterances", "signature"]),
    )


def timestamps(
    utterances: Sequence[Utterance], aggregated: Sequence[Artifact], decoded: Sequence[Artifact]
) -> Tables:
    """Compare the word boundaries of every map with those of the manifest.

    Parameters
    ----------
    utterances
        Rows of the manifest, all with an alignment.
    aggregated, decoded
        Their ``aggregate`` and ``decode`` artefacts, in the same order.

    Raises
    ------
    UserError
        If an alignment is missing or malformed, or files of different hypotheses lie together.
    """
    if not utterances:
        return _no_tables()
    found = [_of_utterance(*one) for one in zip(utterances, aggregated, decoded, strict=True)]
    words, by_utterance = (
        pd.concat(tables, ignore_index=True) for tables in zip(*found, strict=True)
    )
    by_utterance = pd.concat([by_utterance, _best_heads(by_utterance)], ignore_index=True)
    tables = Tables(words, by_utterance, _summary(by_utterance))
    for table in (tables.words, tables.utterances, tables.summary):
        _sign(table, aggregated, decoded)
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
    heard
        int [W], those of ``texts`` that match a word of the reference.
    true
        float64 [W, 2], start and end of these in the reference, in seconds.
    n_words
        Words of the reference.
    """

    texts: list[str]
    rows: np.ndarray
    heard: np.ndarray
    true: np.ndarray
    n_words: int
    _decoded: Artifact

    @classmethod
    def of(cls, utterance: Utterance, decoded: Artifact) -> Self:
        """Match hypothesis and reference; raises as :func:`timestamps`."""
        reference = _reference(utterance)
        # What every hypothesis begins with is said by nobody.
        rows = decoded["roles"] != "forced"
        texts = _words(decoded["pieces"][rows], decoded["word_index"][rows])
        pairs = np.array(match_words([word.text for word in reference], texts), dtype=int)
        spoken, heard = pairs.reshape(-1, 2).T
        true = np.array([(word.start, word.end) for word in reference])[spoken]
        return cls(texts, rows, heard, true, len(reference), decoded)

    def times(self, starts: np.ndarray, n_steps: int) -> np.ndarray:
        """Return start and end of the matched words, in seconds [M, W, 2].

        ``starts`` is int [M, spoken rows], the step at which each token begins; ``n_steps`` is T'.
        """
        index = self._decoded["word_index"][self.rows].tolist()
        return _seconds(word_boundaries(starts, index, n_steps)[:, self.heard], self._decoded)


def _of_utterance(
    utterance: Utterance, aggregated: Artifact, decoded: Artifact
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the matched words in every map but single heads, and the errors in every map."""
    check_same_source(decoded, aggregated)
    words_said = SpokenWords.of(utterance, decoded)
    texts, heard, true = words_said.texts, words_said.heard, words_said.true
    names, maps = _maps(aggregated)
    times = words_said.times(token_starts(maps[:, words_said.rows]), maps.shape[-1])
    errors = times - true
    led = {"utterance": utterance.id, "evidence": utterance.alignment_evidence}
    summaries = pd.DataFrame([error_summary(one[:, 0], one[:, 1]) for one in errors])
    summaries = pd.concat([names, summaries], axis=1).assign(
        **led, n_words=words_said.n_words, n_matched=len(heard)
    )
    words = pd.concat(
        [
            pd.DataFrame(
                {
                    **led,
                    **name,
                    "word_index": heard,
                    "word": [texts[position] for position in heard],
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
    measures = [name for name in summaries if name not in (*led, *_MAP, *_COUNTS)]
    whole = {"layer": "Int64", "head": "Int64"}
    return words.astype(whole), summaries[[*led, *_MAP, *measures, *_COUNTS]]


def _reference(utterance: Utterance) -> list[Word]:
    if utterance.alignment is None:
        raise UserError(
            f"Utterance '{utterance.id}' has no alignment: fill in column 'alignment' of its "
            "manifest."
        )
    return read_alignment(utterance.alignment)


def _maps(aggregated: Artifact) -> tuple[pd.DataFrame, np.ndarray]:
    """Return the names of the M maps and the maps [M, I, T'] to be warped.

    A row of attention is a share. A row of saliency is as large as its token is sensitive, and the
    most sensitive one would own every step, so these rows are standardised.
    """
    L, H, I, n_steps = aggregated["ca_head"].shape
    wanted = [
        *(name for name in aggregated.arrays if name.startswith("smx_") and "halves" not in name),
        "smh",
        *GRADIENTS,
    ]
    saliencies = [name for name in wanted if name in aggregated.arrays]
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


def _seconds(steps: np.ndarray, decoded: Artifact) -> np.ndarray:
    """Return when steps begin; the step after the last begins where the speech ends."""
    frames = np.minimum(steps * int(decoded["subsampling"]), len(decoded["features"]))
    # The file holds float32, which is not what was meant: 0.01 s.
    return np.asarray(frames * float(str(decoded["frame_shift"])))


def _best_heads(table: pd.DataFrame) -> pd.DataFrame:
    """Return the row of one head for each utterance, the best of the others of its evidence."""
    heads = table[(table["map"] == "ca_head") & (table["n_matched"] > 0)]
    chosen = [
        heads.iloc[:0],
        *(_best_of_others(own) for _, own in heads.groupby("evidence", sort=False)),
    ]
    return pd.concat(chosen).assign(map=BEST_HEAD)


def _best_of_others(heads: pd.DataFrame) -> pd.DataFrame:
    n_heads = len(heads[["layer", "head"]].drop_duplicates())
    n_utterances = len(heads) // n_heads
    if n_utterances < 2:
        return heads.iloc[:0]
    # Rows are utterance by utterance, heads in the same order. Words count alike.
    error = (heads["start_mae"] * heads["n_matched"]).to_numpy().reshape(n_utterances, n_heads)
    of_others = error.sum(axis=0) - error
    best = of_others.argmin(axis=1)
    return heads.iloc[np.arange(n_utterances) * n_heads + best]


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
    found = grouped.sum().reset_index()
    # 0 / 0 is NaN: no word, no error.
    found[measures] = found[measures].div(found["n_matched"].where(found["n_matched"] > 0), axis=0)
    order = found["evidence"].map(EVIDENCE.index)
    found = found.loc[order.sort_values(kind="stable").index].reset_index(drop=True)
    return found[[*keys, *measures, *_COUNTS, "n_utterances"]]


def _sign(table: pd.DataFrame, aggregated: Sequence[Artifact], decoded: Sequence[Artifact]) -> None:
    """Add the signature of every row: its evidence, and how its map was made."""
    decoding = decoded[0].meta["parameters"]
    designs = {
        name: {} if name.startswith("ca_") else design_of(aggregated, name)
        for name in table["map"].unique()
    }
    table["signature"] = [
        signature(
            evidence=evidence,
            normalise=_normalise(name),
            median=MEDIAN_WIDTH,
            **(decoding | designs[name]),
        )
        for evidence, name in table[["evidence", "map"]].itertuples(index=False)
    ]
