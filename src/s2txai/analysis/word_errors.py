"""The word error rate and its clipped form; words are split on white space."""

from collections.abc import Sequence

import jiwer
import numpy as np

from s2txai.analysis.score_registry import SCORES, Score


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Return [n, 2] of each utterance: word errors, words of the reference."""
    # jiwer splits on the plain space only; tabs and no-break spaces part words as well.
    spoken, recognised = (
        [" ".join(text.split()) for text in texts] for texts in (references, hypotheses)
    )
    counts = np.zeros((len(spoken), 2))
    for n, chunks in enumerate(jiwer.process_words(spoken, recognised).alignments):
        # What is replaced, left out or added is as long as the longer side.
        counts[n, 0] = sum(
            max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
            for chunk in chunks
            if chunk.type != "equal"
        )
        counts[n, 1] = len(spoken[n].split())
    return counts


def error_rate(sums: np.ndarray) -> np.ndarray:
    """Return the word error rate in percent of sums [..., 2]; 0 where there is no word."""
    errors, words = sums[..., 0], sums[..., 1]
    return np.asarray(np.where(words > 0, 100 * errors / np.maximum(words, 1), 0.0))


def clipped_error_rate(sums: np.ndarray) -> np.ndarray:
    """Return min(100, WER): clipped once on the corpus, not utterance by utterance."""
    return np.asarray(np.minimum(100.0, error_rate(sums)))


SCORES.register("wer")(
    Score(
        word_counts,
        error_rate,
        tasks=frozenset({"asr"}),
        higher_is_better=False,
        short_name="WER",
        name="word error rate, WER",
        unit="%",
    )
)
SCORES.register("wer_max")(
    Score(
        word_counts,
        clipped_error_rate,
        tasks=frozenset({"asr"}),
        higher_is_better=False,
        short_name="clipped WER",
        name="word error rate clipped at 100, WER",
        unit="%",
    )
)
