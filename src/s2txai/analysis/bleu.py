"""sacreBLEU's corpus score with its default settings, and the tokeniser of the target language."""

from collections.abc import Sequence
from functools import lru_cache, partial

import numpy as np
import sacrebleu

from s2txai.analysis.score_registry import SCORES, Score
from s2txai.datasets.languages import bleu_tokeniser


@lru_cache
def _scorer(tokeniser: str) -> sacrebleu.BLEU:
    # Only its counts are used, on which the choice for scores of short sentences has no effect.
    return sacrebleu.BLEU(tokenize=tokeniser, effective_order=True)


def n_gram_counts(
    references: Sequence[str], hypotheses: Sequence[str], *, tokeniser: str
) -> np.ndarray:
    """Return [n, 10] of each utterance: matching and all n-grams of 1 to 4, lengths of both."""
    scorer = _scorer(tokeniser)
    scores = [
        scorer.sentence_score(hypothesis, [reference])
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    rows = [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]
    return np.array(rows, dtype=np.float64).reshape(-1, 10)


def bleu_of_counts(sums: np.ndarray) -> np.ndarray:
    """Return BLEU of sums [..., 10]."""
    whole = np.rint(sums).astype(np.int64).reshape(-1, 10)
    # Resamples repeat each other at the ends of a curve, where nothing or all is left.
    different, place = np.unique(whole, axis=0, return_inverse=True)
    scores = [
        sacrebleu.BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp").score
        for row in different.tolist()
    ]
    return np.asarray(np.array(scores, dtype=np.float64)[place].reshape(sums.shape[:-1]))


def bleu(language: str) -> Score:
    """Return BLEU of texts in a language."""
    tokeniser = bleu_tokeniser(language)
    signature = _scorer(tokeniser).tokenizer.signature()
    return Score(
        partial(n_gram_counts, tokeniser=tokeniser),
        bleu_of_counts,
        tasks=frozenset({"st"}),
        higher_is_better=True,
        short_name="BLEU",
        name="BLEU",
        unit="0–100",
        facts={"sacrebleu": f"{sacrebleu.__version__},tok:{signature},smooth:exp"},
        adapted=bleu,
    )


SCORES.register("bleu")(bleu("en"))
