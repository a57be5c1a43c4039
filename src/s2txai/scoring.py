"""Corpus scores of hypotheses against references: WER, its clipped form, BLEU."""

import unicodedata
from collections.abc import Callable, Sequence

import jiwer
import sacrebleu
from whisper_normalizer.basic import BasicTextNormalizer
from whisper_normalizer.english import EnglishTextNormalizer

from s2txai.datasets import Diacritics, Task
from s2txai.registry import Registry
from s2txai.signature import signature

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


@SCORES.register("wer")
def word_error_rate(references: Sequence[str], hypotheses: Sequence[str]) -> float:
    """Return the corpus word error rate in percent; 0 when the references hold no word.

    Parameters
    ----------
    references, hypotheses
        One text an utterance; words are split on white space.
    """
    # jiwer splits on the plain space only; tabs and no-break spaces part words as well.
    spoken, heard = (
        [" ".join(text.split()) for text in texts] for texts in (references, hypotheses)
    )
    counts = jiwer.process_words(spoken, heard)
    n_words = sum(len(text.split()) for text in spoken)
    errors = counts.substitutions + counts.deletions + counts.insertions
    return 100 * errors / n_words if n_words else 0.0


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
    normalise = TEXT_NORMALISERS[text_normalisation](language)

    def comparable(texts: Sequence[str]) -> list[str]:
        folded = map(without_diacritics, texts) if diacritics == "folded" else texts
        return [normalise(text) for text in folded]

    return SCORES[name](comparable(references), comparable(hypotheses))


def score_signature(name: str, **facts: object) -> str:
    """Return the signature of a score; sacreBLEU's own settings are part of BLEU's."""
    if name == "bleu":
        facts["sacrebleu"] = f"{sacrebleu.__version__},tok:13a,smooth:exp"
    return signature(metric=name, **facts)
