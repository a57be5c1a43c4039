"""Error rates of recognition and their clipped forms.

The word error rate is of languages that part words by white space, the character error rate of
those that do not. The two are never put together.
"""

from collections.abc import Callable, Sequence

import jiwer
import numpy as np

from s2txai.analysis.score_registry import SCORES, Score
from s2txai.datasets.languages import TextUnit
from s2txai.datasets.text_forms import graphemes


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Return [n, 2] of each utterance: word errors, words of the reference."""
    return _counts(references, hypotheses, str.split)


def character_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Return [n, 2] of each utterance: errors in characters, characters of the reference.

    Characters are extended grapheme clusters, white space left out.
    """
    return _counts(references, hypotheses, graphemes)


def _counts(
    references: Sequence[str], hypotheses: Sequence[str], units_of: Callable[[str], list[str]]
) -> np.ndarray:
    # jiwer splits on the plain space only; tabs and no-break spaces part words as well.
    spoken, recognised = (
        [" ".join(units_of(text)) for text in texts] for texts in (references, hypotheses)
    )
    counts = np.zeros((len(spoken), 2))
    for n, chunks in enumerate(jiwer.process_words(spoken, recognised).alignments):
        # What is replaced, left out or added is as long as the longer side.
        counts[n, 0] = sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        counts[n, 1] = len(spoken[n].split(" ")) if spoken[n] else 0
    return counts


def error_rate(sums: np.ndarray) -> np.ndarray:
    """Return errors in percent of units, of sums [..., 2]; 0 where there is no unit."""
    errors, units = sums[..., 0], sums[..., 1]
    return np.asarray(np.where(units > 0, 100 * errors / np.maximum(units, 1), 0.0))


def clipped_error_rate(sums: np.ndarray) -> np.ndarray:
    """Return min(100, error rate): clipped once on the corpus, not utterance by utterance."""
    return np.asarray(np.minimum(100.0, error_rate(sums)))


def _register(
    name: str,
    title: str,
    unit: TextUnit,
    counts: Callable[[Sequence[str], Sequence[str]], np.ndarray],
    splitting: str,
) -> None:
    """Register an error rate and its clipped form."""
    short = name.upper()
    forms = {
        name: (error_rate, short, f"{title}, {short}"),
        f"{name}_max": (
            clipped_error_rate, f"clipped {short}", f"{title} clipped at 100, {short}"
        ),
    }  # fmt: skip
    for key, (of_sums, short_name, long_name) in forms.items():
        SCORES.register(key)(
            Score(
                counts,
                of_sums,
                tasks=frozenset({"asr"}),
                higher_is_better=False,
                short_name=short_name,
                name=long_name,
                unit="%",
                facts={"unit": unit, "tokeniser": splitting},
                text_unit=unit,
            )
        )


_register("wer", "word error rate", "word", word_counts, "white space")
_register("cer", "character error rate", "character", character_counts, "grapheme clusters")
