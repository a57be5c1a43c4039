"""WER, its clipped form and BLEU against published values (see `convention` in the file)."""

import json
from pathlib import Path

import pytest

from s2txai.analysis.deletion import area_under_curve
from s2txai.analysis.scoring import SCORES

GOLDEN = json.loads((Path(__file__).parent / "data" / "wer_max_cases.json").read_text("utf-8"))
CASES = GOLDEN["cases"]


def texts(pairs):
    return [pair["ref"] for pair in pairs], [pair["hyp"] for pair in pairs]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
@pytest.mark.parametrize(
    ("score", "published"), [("wer", "wer"), ("wer_max", "wer_max"), ("bleu", "sacrebleu")]
)
def test_corpus(case, score, published):
    references, hypotheses = texts(case["pairs"])
    assert SCORES[score](references, hypotheses) == pytest.approx(case[published], abs=1e-9)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_each_pair(case):
    for pair, published in zip(case["pairs"], case["per_pair"], strict=True):
        for score in ("wer", "wer_max"):
            found = SCORES[score]([pair["ref"]], [pair["hyp"]])
            assert found == pytest.approx(published[score], abs=1e-9)


def test_clipping_is_for_the_corpus():
    """Clipped utterance by utterance, this corpus would score less than its WER."""
    case = next(case for case in CASES if case["name"] == "mixed_corpus_level")
    assert max(pair["wer"] for pair in case["per_pair"]) > 100
    assert SCORES["wer_max"](*texts(case["pairs"])) == SCORES["wer"](*texts(case["pairs"])) == 50


def test_steps_of_a_deletion():
    """Hypotheses of two utterances (D-<utterance>-<step>) at two steps."""
    example = GOLDEN["steps_example"]
    references = [row["tgt_text"] for row in example["tsv"]]
    steps = {}
    for line in example["lines"]:
        name, _, text = line.split("\t")
        kind, utterance, step = name.split("-")
        if kind == "D":
            steps.setdefault(int(step), {})[int(utterance)] = text
    scores = [
        SCORES["wer_max"](references, [steps[step][utterance] for utterance in (0, 1)])
        for step in sorted(steps)
    ]
    assert scores == pytest.approx(example["scores_wer_max"])
    assert area_under_curve([0, 100], scores) / 100 == pytest.approx(50)
