"""Corpus scores of hypotheses against references: WER, its clipped form, BLEU.

Each is a function of counts that add up over utterances, so that a score of resampled utterances
needs no text.
"""

import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import jiwer
import numpy as np
import sacrebleu
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from s2txai.analysis.signature import signature
from s2txai.datasets import Diacritics, Task
from s2txai.registry import Registry

TextNormaliser = Callable[[str], str]
Score = Callable[[Sequence[str], Sequence[str]], float]

# From a language to the function that makes its texts comparable.
TEXT_NORMALISERS: Registry[Callable[[str], TextNormaliser]] = Registry("text normalisation")
SCORES: Registry[Score] = Registry("score")


@TEXT_NORMALISERS.register("none")
def untouched(language: str) -> TextNormaliser:
    """Compare cased, punctuated words split on spaces, as the paper does."""
    return str.strip


@TEXT_NORMALISERS.register("whisper")
def whisper_normaliser(language: str) -> TextNormaliser:
    """Return Whisper's normaliser (Radford et al. 2022, appendix C)."""
    normaliser: TextNormaliser = (
        EnglishTextNormalizer() if language == "en" else BasicTextNormalizer()
    )
    return lambda text: normaliser(text).strip()


def without_diacritics(text: str) -> str:
    """Return text with accents and other marks taken off its letters: ``está`` becomes ``esta``."""
    letters = unicodedata.normalize("NFD", text)
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")


@dataclass(frozen=True)
class Additive:
    """A corpus score as a function of counts.

    Attributes
    ----------
    counts
        From references and hypotheses of n utterances to float64 [n, K].
    score
        From sums of counts over utterances [..., K] to scores [...].
    """

    counts: Callable[[Sequence[str], Sequence[str]], np.ndarray]
    score: Callable[[np.ndarray], np.ndarray]


def word_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Return [n, 2] of each utterance: word errors, words of the reference."""
    # jiwer splits on the plain space only; tabs and no-break spaces part words as well.
    spoken, heard = (
        [" ".join(text.split()) for text in texts] for texts in (references, hypotheses)
    )
    found = np.zeros((len(spoken), 2))
    for n, chunks in enumerate(jiwer.process_words(spoken, heard).alignments):
        # What is replaced, left out or added is as long as the longer side.
        found[n, 0] = sum(
            max(one.ref_end_idx - one.ref_start_idx, one.hyp_end_idx - one.hyp_start_idx)
            for one in chunks
            if one.type != "equal"
        )
        found[n, 1] = len(spoken[n].split())
    return found


def error_rate(sums: np.ndarray) -> np.ndarray:
    """Return the word error rate in percent of sums [..., 2]; 0 where there is no word."""
    errors, words = sums[..., 0], sums[..., 1]
    return np.asarray(np.where(words > 0, 100 * errors / np.maximum(words, 1), 0.0))


def n_gram_counts(references: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """Return [n, 10] of each utterance: matching and all n-grams of 1 to 4, lengths of both."""
    # Only its counts are used, on which the choice for scores of short sentences has no effect.
    scorer = sacrebleu.BLEU(effective_order=True)
    found = [
        scorer.sentence_score(hypothesis, [reference])
        for reference, hypothesis in zip(references, hypotheses, strict=True)
    ]
    rows = [[*one.counts, *one.totals, one.sys_len, one.ref_len] for one in found]
    return np.array(rows, dtype=np.float64).reshape(-1, 10)


def bleu_of_counts(sums: np.ndarray) -> np.ndarray:
    """Return sacreBLEU's corpus score with its default settings of sums [..., 10]."""
    whole = np.rint(sums).astype(np.int64).reshape(-1, 10)
    # Resamples repeat each other at the ends of a curve, where nothing or all is left.
    different, place = np.unique(whole, axis=0, return_inverse=True)
    scores = [
        sacrebleu.BLEU.compute_bleu(row[:4], row[4:8], row[8], row[9], smooth_method="exp").score
        for row in different.tolist()
    ]
    return np.asarray(np.array(scores, dtype=np.float64)[place].reshape(sums.shape[:-1]))


ADDITIVE: Mapping[str, Additive] = MappingProxyType(
    {
        "wer": Additive(word_counts, error_rate),
        # Clipped once, on the corpus.
        "wer_max": Additive(word_counts, lambda sums: np.minimum(100.0, error_rate(sums))),
        "bleu": Additive(n_gram_counts, bleu_of_counts),
    }
)


@SCORES.register("wer")
def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the corpus word error rate in percent; 0 when the references hold no word.

    Parameters
    ----------
    references, hypotheses
        One text an utterance; words are split on white space.
    """
    return float(error_rate(word_counts(references, hypotheses).sum(axis=0)))


@SCORES.register("wer_max")
def clipped_word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return min(100, WER): clipped once on the corpus, not utterance by utterance."""
    return min(100.0, word_error_rate(references, hypotheses))


@SCORES.register("bleu")
def bleu(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return sacreBLEU's corpus score with its default settings."""
    return float(sacrebleu.corpus_bleu(list(hypotheses), [list(references)]).score)


def score_names(task: Task) -> tuple[str, ...]:
    """Return the scores that speak of a task: WER for recognition, BLEU for translation."""
    return ("wer", "wer_max") if task.kind == "asr" else ("bleu",)


def corpus_score(
    name: str,
    references: Sequence[str],
    hypotheses: Sequence[str],
    *,
    text_normalisation: str,
    language: str,
    diacritics: Diacritics = "kept",
) -> float:
    """Return a score after text normalisation.

    Parameters
    ----------
    name
        A name of :data:`SCORES`.
    references, hypotheses
        One text an utterance.
    text_normalisation
        A name of :data:`TEXT_NORMALISERS`.
    language
        Of the texts.
    diacritics
        ``folded`` takes them off both texts first: for references that are written without.
    """
    texts = {"text_normalisation": text_normalisation, "language": language}
    return SCORES[name](
        comparable(references, diacritics=diacritics, **texts),
        comparable(hypotheses, diacritics=diacritics, **texts),
    )


def comparable(
    texts: Sequence[str],
    *,
    text_normalisation: str,
    language: str,
    diacritics: Diacritics = "kept",
) -> list[str]:
    """Return texts normalised for scoring; parameters are those of :func:`corpus_score`."""
    normalise = TEXT_NORMALISERS[text_normalisation](language)
    folded = map(without_diacritics, texts) if diacritics == "folded" else texts
    return [normalise(text) for text in folded]


def score_signature(name: str, **facts: object) -> str:
    """Return the signature of a score; sacreBLEU's own settings are part of BLEU's."""
    if name == "bleu":
        facts["sacrebleu"] = f"{sacrebleu.__version__},tok:13a,smooth:exp"
    return signature(metric=name, **facts)
