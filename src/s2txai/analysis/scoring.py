"""Corpus scores of hypotheses against references, after text normalisation.

The scores are in modules of their own (:mod:`s2txai.analysis.word_errors`,
:mod:`s2txai.analysis.bleu`, :mod:`s2txai.analysis.comet`), each registered in :data:`SCORES` when
this module is imported.
"""

from collections.abc import Sequence

from s2txai.analysis import bleu, comet, word_errors  # noqa: F401  (registers the scores)
from s2txai.analysis.score_registry import SCORES, Score
from s2txai.analysis.signature import signature
from s2txai.datasets import Diacritics, Task
from s2txai.datasets.languages import text_unit
from s2txai.datasets.text_forms import same_forms, without_diacritics
from s2txai.datasets.text_normalisers import TEXT_NORMALISERS
from s2txai.errors import UserError

__all__ = [
    "SCORES",
    "TEXT_NORMALISERS",
    "Score",
    "comparable",
    "corpus_score",
    "score_names",
    "score_signature",
]


def score_names(task: Task) -> tuple[str, ...]:
    """Return the scores of a task and its language, the main one first."""
    units = (None, text_unit(task.target))
    return tuple(
        name
        for name in SCORES
        if task.kind in SCORES[name].tasks and SCORES[name].text_unit in units
    )


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
        One text per utterance.
    text_normalisation
        A name of :data:`TEXT_NORMALISERS`.
    language
        Of the texts.
    diacritics
        ``folded`` takes them off both texts first: for references that are written without.

    Raises
    ------
    UserError
        If the score counts words and the language does not part them.
    """
    score = SCORES[name].of(language)
    if score.text_unit == "word" and text_unit(language) == "character":
        raise UserError(
            f"The score '{name}' counts words, which '{language}' does not part by spaces; use "
            "'cer' or 'cer_max'."
        )
    texts = {"text_normalisation": text_normalisation, "language": language}
    return score(
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
    """Return texts normalised for scoring; parameters are those of :func:`corpus_score`.

    Forms of the same character are made equal first, whatever the normalisation, and once more
    after it, since it may take characters apart.
    """
    normalise = TEXT_NORMALISERS[text_normalisation](language)
    alike = map(same_forms, texts)
    folded = map(without_diacritics, alike) if diacritics == "folded" else alike
    return [same_forms(normalise(text)) for text in folded]


def score_signature(name: str, score: Score | None = None, **facts: object) -> str:
    """Return the signature of a score: the facts, then those that the score itself adds.

    Parameters
    ----------
    name
        Of the score.
    score
        The score itself, if it is another than the registered one.
    facts
        What the number depends on, ``language`` of the texts among it.
    """
    own = (score or SCORES[name].of(str(facts["language"]))).facts
    return signature(metric=name, **{**facts, **own})
