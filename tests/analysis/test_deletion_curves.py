"""Areas and their intervals, from artefacts written by hand."""

import numpy as np
import pytest

from s2txai.analysis.deletion_curves import score_deletion
from s2txai.analysis.intervals import interval, resamples
from s2txai.analysis.scoring import corpus_score
from s2txai.analysis.utterance import UtteranceData
from s2txai.datasets import parse_task

PERCENTS = np.array([0, 50, 100])
REFERENCES = ["a b c d e", "a b", "c d e f", "e f g h"]
# One row an utterance: at 0, 50 and 100 % along the good order, then along the random one.
GOOD = [["a b c d e", "a x", ""], ["a b", "b b b b", "x"], ["c d e f", "c d", ""],
        ["e f g h", "e f g", "e"]]  # fmt: skip
RANDOM = [["a b c d e", "a b c d x", ""], ["a b", "a b", "x"], ["c d e f", "c d e", ""],
          ["e f g h", "e f g h", "e"]]  # fmt: skip
LOG_PROBS = np.log([[0.8, 0.2, 0.1], [0.9, 0.3, 0.1], [0.8, 0.4, 0.2], [0.5, 0.1, 0.1]])
SCORING = {"text_normalisation": "none"}


def deleted_utterance(n):
    half = np.array([LOG_PROBS[n], (LOG_PROBS[n] + LOG_PROBS[n][0]) / 2])  # (map, percent)
    arrays = {
        "maps": np.array(["ca_mean", "random"]),
        "percents": PERCENTS,
        "modes": np.array(["deletion", "insertion"]),
        "sizes": np.array([10.0 + n, 50]),
        "log_probs": np.stack([half, half[:, ::-1]]),
        "hypotheses": np.array([GOOD[n], RANDOM[n]]),
    }
    parameters = {"beam": 1, "seed": 3, "smx": {}}
    return UtteranceData(f"u{n}", arrays, parameters)


@pytest.fixture(params=["asr-en", "st-it-en"])
def task(request):
    return parse_task(request.param)


@pytest.fixture
def tables(task):
    deleted = [deleted_utterance(n) for n in range(4)]
    return score_deletion(REFERENCES, deleted, task, seed=5, **SCORING)


def pick(table, name, metric, mode="deletion"):
    return table[
        (table["map"] == name) & (table["metric"] == metric) & (table["mode"] == mode)
    ].squeeze()


def area(chosen, hypotheses, metric):
    """Return the area of the utterances ``chosen``, some of them several times."""
    scores = [
        corpus_score(
            metric, [REFERENCES[n] for n in chosen], [hypotheses[n][k] for n in chosen],
            language="en", **SCORING,
        )
        for k in range(3)
    ]  # fmt: skip
    return (scores[0] + scores[1]) / 4 + (scores[1] + scores[2]) / 4


def test_interval_is_that_of_the_corpora_drawn_again(tables, task):
    metric = "wer" if task.kind == "asr" else "bleu"
    drawn = [np.repeat(np.arange(4), counts.astype(int)) for counts in resamples(4, seed=5)]
    known = {}

    def areas(hypotheses, key):
        for chosen in drawn:
            name = key, tuple(chosen)
            if name not in known:
                known[name] = area(chosen, hypotheses, metric)
        return np.array([known[key, tuple(chosen)] for chosen in drawn])

    good, chance = areas(GOOD, "good"), areas(RANDOM, "random")
    found = pick(tables.areas, "ca_mean", metric)
    assert found["auc"] == pytest.approx(area(range(4), GOOD, metric))
    assert [found["auc_low"], found["auc_high"]] == pytest.approx(np.array(interval(good, 4)))
    difference = area(range(4), GOOD, metric) - area(range(4), RANDOM, metric)
    assert found["above_random"] == pytest.approx(difference)
    ends = [found["above_random_low"], found["above_random_high"]]
    assert ends == pytest.approx(np.array(interval(good - chance, 4)))
    assert found["auc_low"] < found["auc"] < found["auc_high"]


def test_word_errors_by_hand(tables, task):
    if task.kind == "asr":
        # 0; 4 + 3 + 2 + 1 of 15 words; all of them but the e that is said.
        found = tables.curves
        scores = pick(found, "ca_mean", "wer")["score"].tolist()
        assert scores == pytest.approx([0, 100 * 10 / 15, 100 * 14 / 15])


@pytest.mark.parametrize("language", ["ja", "th", "yue"])
def test_characters_are_counted_where_no_spaces_are_written(language):
    deleted = [deleted_utterance(n) for n in range(4)]
    tables = score_deletion(REFERENCES, deleted, parse_task(f"asr-{language}"), seed=5, **SCORING)
    assert set(tables.curves["metric"]) == {"cer", "cer_max", "log_prob", "probability"}
    # Every word of the texts is one character.
    scores = pick(tables.curves, "ca_mean", "cer_max")["score"].tolist()
    assert scores == pytest.approx([0, 100 * 10 / 15, 100 * 14 / 15])
    signatures = pick(tables.areas, "random", "cer")["signature"]
    assert "|unit:character|tokeniser:grapheme clusters|" in signatures


def test_probability_by_hand(tables):
    p = np.exp(LOG_PROBS).mean(axis=0)
    found = pick(tables.areas, "ca_mean", "probability")
    assert found["auc"] == pytest.approx(100 * ((p[0] + p[1]) / 4 + (p[1] + p[2]) / 4))
    log_prob = pick(tables.areas, "ca_mean", "log_prob")
    mean = LOG_PROBS.mean(axis=0)
    assert log_prob["auc"] == pytest.approx((mean[0] + 2 * mean[1] + mean[2]) / 4)
    assert log_prob["above_random"] < 0
    assert log_prob["above_random_high"] < 0
    # The same values the other way round.
    inserted = pick(tables.areas, "ca_mean", "log_prob", "insertion")
    assert inserted["auc"] == pytest.approx(log_prob["auc"])


def test_one_utterance_has_no_interval():
    deleted = [deleted_utterance(0)]
    found = score_deletion(REFERENCES[:1], deleted, parse_task("asr-en"), **SCORING).areas
    assert found["auc"].notna().all()
    assert found[["auc_low", "auc_high", "above_random_low"]].isna().all(axis=None)


def test_sizes_by_hand(tables):
    sizes = tables.sizes.set_index("map")
    assert sizes["size"].tolist() == [11.5, 50]
    assert 10 <= sizes.at["ca_mean", "size_low"] < 11.5 < sizes.at["ca_mean", "size_high"] <= 13


def test_the_signature_says_how_the_masks_of_a_map_were_scored():
    design = {"n_segments": [50], "p": 0.5, "encoder": "auto", "check": 0.05, "seed": 0}
    deleted = []
    for n in range(4):
        data = deleted_utterance(n)
        arrays = {**data.arrays, "maps": np.array(["smx_full", "random"])}
        parameters = {**data.parameters, "smx": {**design, "n_masks": 640}}
        deleted.append(UtteranceData(data.utterance, arrays, parameters))
    tables = score_deletion(REFERENCES, deleted, parse_task("asr-en"), seed=5, **SCORING)
    of_smx = pick(tables.areas, "smx_full", "wer")["signature"]
    assert "|n_segments:50|p:0.5|encoder:auto|check:0.05|mask_seed:0|n_masks:640|" in of_smx
    assert "encoder" not in pick(tables.areas, "random", "wer")["signature"]
