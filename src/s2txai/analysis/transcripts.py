"""How good the hypotheses of a run are, against human references."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from s2txai.analysis.scoring import corpus_score, score_names, score_signature
from s2txai.datasets import Diacritics, Task


def score_transcripts(
    hypotheses: Mapping[str, str],
    references: Sequence[str],
    task: Task,
    *,
    text_normalisation: str,
    diacritics: Diacritics = "kept",
    decoding: Mapping[str, Any],
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Compare the hypotheses of a whole dataset with the human references.

    Parameters
    ----------
    hypotheses
        By the id of the utterance.
    references
        Human texts in the same order.
    task
        What was decoded.
    text_normalisation
        A name of :data:`s2txai.analysis.scoring.TEXT_NORMALISERS`.
    diacritics
        ``kept`` or ``folded`` in both texts.
    decoding
        Parameters of the search, for the signature.

    Returns
    -------
    transcripts, scores
        One row per utterance, with the main score of the task; one row per corpus score, with its
        signature.
    """
    options: dict[str, Any] = {
        "text_normalisation": text_normalisation,
        "language": task.target,
        "diacritics": diacritics,
    }
    texts = list(hypotheses.values())
    main = score_names(task)[0]
    transcripts = pd.DataFrame(
        {
            "utterance": list(hypotheses),
            "reference": references,
            "hypothesis": texts,
            main: [
                corpus_score(main, [human], [machine], **options)
                for human, machine in zip(references, texts, strict=True)
            ],
        }
    )
    scores = pd.DataFrame(
        [
            {
                "metric": name,
                "score": corpus_score(name, references, texts, **options),
                "n_utterances": len(references),
                "signature": score_signature(name, reference="human", **options, **decoding),
            }
            for name in score_names(task)
        ]
    )
    return transcripts, scores
