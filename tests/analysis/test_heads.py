"""Heads are chosen where they are not judged, and the right ones are found."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from transformers import GenerationConfig

from s2txai.analysis.heads import select_heads
from s2txai.steps.correlate import correlation_tables
from s2txai.steps.heads import head_findings
from s2txai.storage.artifacts import Artifact
from tests.analysis.test_words import SteadyModel, align
from tests.studies import POOLINGS, Study, pick, write_corpus
from tests.tiny_whisper import EOS, NO_TIMESTAMPS, START, tiny_whisper
from tests.toy import PLANTED


def additive(values):
    """Score a set by the mean of its heads' values: the best set is the best head."""

    def score(heads, utterance):
        return float(np.mean([values[head, utterance] for head in heads]))

    return score


def test_the_best_head_is_found_and_held_out_scores_are_its_own():
    rng = np.random.default_rng(0)
    values = rng.normal(0, 0.1, size=(12, 30))
    values[7] += 1
    found = select_heads(values, additive(values))
    assert found.heads == (7,)
    np.testing.assert_array_equal(found.held_out, values[7])


def test_heads_whose_errors_cancel_are_used_together():
    """Each good head is right but noisy; four together are better than one, and bad ones harm."""
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(10, 40))
    quality = np.array([1.0] * 4 + [-3.0] * 6)

    def score(heads, utterance):
        chosen = list(heads)
        return float(quality[chosen].mean() - abs(noise[chosen, utterance].mean()))

    single = np.array([[score((head,), one) for one in range(40)] for head in range(10)])
    found = select_heads(single, score)
    assert sorted(found.heads) == [0, 1, 2, 3]
    assert found.held_out.mean() > single.max(axis=0).mean() - 1
    assert np.isfinite(found.held_out).all()


def test_luck_does_not_count():
    """Heads that are alike: chosen on all, the best looks good; held out it is average."""
    values = np.random.default_rng(0).normal(size=(40, 12))
    found = select_heads(values, additive(values))
    chosen = np.mean([values[head].mean() for head in found.heads])
    assert chosen > 0.3
    assert abs(found.held_out.mean()) < 0.3


def test_every_utterance_is_judged_by_a_choice_without_it():
    """Each utterance has a head of its own that is perfect there and useless elsewhere."""
    n = 6
    values = np.eye(n)
    found = select_heads(values, additive(values))
    assert found.held_out.max() <= 0.5


def test_one_utterance_cannot_judge():
    values = np.array([[0.1], [0.9]])
    found = select_heads(values, additive(values))
    assert found.heads[0] == 1
    assert np.isnan(found.held_out).all()


def test_heads_without_a_value_come_last():
    values = np.array([[np.nan, np.nan], [0.1, 0.2], [np.nan, 0.5]])
    found = select_heads(values, lambda heads, one: -len(heads))
    assert found.order == [2, 1, 0]
    assert found.n_heads == 1


def test_utterances_count_by_their_weight():
    values = np.array([[1.0, 0.0, 0.0], [0.0, 0.6, 0.6]])
    assert select_heads(values, additive(values)).order[0] == 1
    assert select_heads(values, additive(values), weights=[10, 1, 1]).order[0] == 0


def test_sets_are_scored_once():
    asked = []
    values = np.random.default_rng(0).normal(size=(3, 5))

    def score(heads, utterance):
        asked.append((tuple(sorted(heads)), utterance))
        return float(values[list(heads), utterance].mean())

    select_heads(values, score)
    assert len(asked) == len(set(asked))


@pytest.mark.parametrize("seed", [0, 1])
def test_the_choice_on_all_utterances_does_not_depend_on_the_dealing(seed):
    values = np.random.default_rng(0).normal(size=(8, 25))
    found = select_heads(values, additive(values), seed=seed)
    assert found.order == select_heads(values, additive(values), seed=5).order


# The step


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("heads")
    found = Study(root, write_corpus(root), SteadyModel())
    for step in (found.decode, found.attention, found.smx, found.smh, found.aggregate):
        step()
    return found


def judged(study, aligned=(), summary=None, times=1, pooling="avg2d"):
    """Return the findings for every utterance, ``times`` over under names of their own."""
    decoded, aggregated = (
        [
            Artifact(one.arrays, one.meta | {"utterance": f"{one.meta['utterance']}{suffix}"})
            for suffix in ["", *map(str, range(1, times))]
            for one in study.read(step)
        ]
        for step in ("decode", "aggregate")
    )
    if summary is None:
        summary = correlation_tables(aggregated, poolings=POOLINGS, rows="all").summary
    aligned = [
        replace(one, id=f"{one.id}{suffix}")
        for suffix in ["", *map(str, range(1, times))]
        for one in aligned
    ]
    return head_findings(aggregated, decoded, summary, aligned, pooling=pooling, seed=0)


def sentence_of(verdict, start):
    (said,) = [sentence for sentence in verdict["sentences"] if sentence.startswith(start)]
    return said


def test_the_planted_head_is_ranked_first_by_agreement(study):
    found = judged(study)
    best = found.ranking[found.ranking["rank_smh"] == 1].iloc[0]
    assert (best["layer"], best["head"]) == (0, PLANTED)
    assert best["chosen_smh"]
    assert found.ranking.sort_values("rank_smh")["rho_smh"].is_monotonic_decreasing
    assert found.generation_config == {"alignment_heads": [[0, PLANTED]]}
    assert found.verdict["timestamps"] == {
        "good_enough": "not tested",
        "reason": "no alignments",
    }
    assert found.verdict["heads_smh"]["heads"] == [[0, PLANTED]]
    assert "start_mae" not in found.ranking
    said = sentence_of(found.verdict, "In 2 utterances, the heads")
    assert "agree best with SMH" in said
    assert said.endswith(f"counted from 0: 0.{PLANTED}.")


def test_the_planted_head_times_words(study, tmp_path):
    found = judged(study, [align(one, tmp_path) for one in study.utterances], times=3)
    row = found.ranking[found.ranking["head"] == PLANTED].iloc[0]
    assert row["rank_start"] == 1
    assert row["start_mae"] == pytest.approx(0, abs=1e-9)
    assert found.generation_config == {"alignment_heads": [[0, PLANTED]]}
    timing = found.verdict["timestamps"]
    assert timing["within_100ms_held_out"] == 1
    assert timing["start_mae_held_out"] == pytest.approx(0, abs=1e-9)
    assert timing["good_enough"] == "yes"
    assert sentence_of(found.verdict, "Timestamps") == (
        "Timestamps are good enough for 100 ms: 100 % [100, 100] of 27 matched words in 6 "
        "utterances start within it, by heads chosen on other utterances; the threshold is 80 %."
    )
    assert sentence_of(found.verdict, "The heads whose word starts are best")


def test_late_words_are_not_good_enough(study, tmp_path):
    late = [align(one, tmp_path, late=0.5) for one in study.utterances]
    found = judged(study, late, times=3)
    assert found.verdict["timestamps"]["good_enough"] == "no"
    assert found.verdict["timestamps"]["start_mae_held_out"] > 0.2
    assert any("are not good enough" in said for said in found.verdict["sentences"])


def test_words_that_are_half_in_time_leave_it_undecided(study, tmp_path):
    first, second = study.utterances
    found = judged(study, [align(first, tmp_path), align(second, tmp_path, late=0.5)], times=3)
    assert found.verdict["timestamps"]["good_enough"] == "undecided"
    said = sentence_of(found.verdict, "Whether timestamps are good enough for 100 ms is undecided")
    assert said.endswith("other utterances, and the interval holds the threshold, 80 %.")
    assert "27 matched words in 6 utterances" in said


def test_one_alignment_cannot_judge(study, tmp_path):
    found = judged(study, [align(study.utterances[0], tmp_path)])
    assert found.verdict["timestamps"]["good_enough"] == "undecided"
    assert found.verdict["timestamps"]["within_100ms_held_out"] is None
    assert "1 utterance with matched words, and heads are judged on other" in sentence_of(
        found.verdict, "Whether timestamps"
    )


@pytest.mark.parametrize("late", [0.0, 0.5])
@pytest.mark.parametrize("times", [1, 2])
def test_fewer_than_five_utterances_decide_nothing(study, tmp_path, late, times):
    aligned = [align(one, tmp_path, late=late) for one in study.utterances]
    found = judged(study, aligned, times=times).verdict
    n = 2 * times
    assert found["timestamps"]["good_enough"] == "undecided"
    share = "100 %" if late == 0 else "0 %"
    assert sentence_of(found, "Whether timestamps") == (
        f"Whether timestamps are good enough for 100 ms is undecided: {n} utterances with matched "
        f"words, fewer than 5. {share} of their {9 * times} matched words start within it, by "
        "heads chosen on other utterances."
    )
    for name in ("input", "encoder_output"):
        assert found["share"][name]["status"] == "undecided"
        assert found["share"][name]["rho_corrected_low"] is None
    assert found["timestamps"]["within_100ms_held_out_high"] is None
    assert found["timestamps"]["start_mae_held_out_low"] is None
    assert found["heads_smh"]["rho_held_out_high"] is None
    assert sum("is undecided" in said for said in found["sentences"]) == 3
    assert not any("[" in said for said in found["sentences"])
    assert not any(
        said.startswith(("The mean of", "Timestamps", "The heads")) for said in found["sentences"]
    )


def test_utterances_without_times_do_not_decide_about_times(study, tmp_path):
    """What counts are the utterances a statement rests on, not those of the run."""
    aligned = [align(study.utterances[0], tmp_path)]
    found = judged(study, aligned, times=4).verdict
    assert found["n_utterances"] == 8
    assert found["timestamps"]["good_enough"] == "undecided"
    assert found["share"]["input"]["status"] == "measured"


def test_words_that_nobody_recognised_choose_no_heads(study, tmp_path):
    wrong = {word: "nothing" for one in study.utterances for word in one.transcript.split()}
    found = judged(study, [align(one, tmp_path, **wrong) for one in study.utterances])
    assert found.verdict["timestamps"] == {"good_enough": "not tested", "reason": "no match"}
    assert found.generation_config == {"alignment_heads": [[0, PLANTED]]}
    assert "no word of the hypotheses matches a word of the alignments" in sentence_of(
        found.verdict, "Timestamps were not tested"
    )


def test_without_hypotheses_nothing_is_said_of_matching(study, tmp_path, monkeypatch):
    monkeypatch.setattr("s2txai.analysis.word_times._words", lambda pieces, word_index: [])
    monkeypatch.setattr("s2txai.analysis.word_times.pair_words", lambda *texts, **rules: [])
    found = judged(study, [align(one, tmp_path) for one in study.utterances]).verdict
    assert found["timestamps"]["reason"] == "no words"
    assert sentence_of(found, "Timestamps") == (
        "Timestamps were not tested: the hypotheses of the utterances with an alignment hold no "
        "word."
    )


def test_shares_are_those_of_the_summary(study):
    summary = study.correlate().summary
    summary["n_utterances"] = 7
    found = judged(study, summary=summary)
    row = pick(
        summary, attention="ca_mean", saliency="smx_avg2d", metric="pearson", normalise="token"
    )
    share = found.verdict["share"]["input"]
    assert share["rho_corrected"] == pytest.approx(row["rho_corrected"])
    said = f"explains {100 * row['rho_corrected']:.0f} % "
    assert any(said in sentence for sentence in found.verdict["sentences"])
    assert any("Utterances: 2, fewer than 20" in said for said in found.verdict["sentences"])


def test_the_best_layer_is_said_of_these_utterances_alone(study):
    assert sentence_of(judged(study).verdict, "In 2 utterances, layer") == (
        "In 2 utterances, layer 0 agrees best with SMH, layers counted from 0."
    )
    assert sentence_of(judged(study, times=3).verdict, "Layer 0 agrees best with SMH")


def test_without_any_correlation_no_layer_is_best(study):
    summary = study.correlate().summary
    summary["rho"] = np.nan
    found = judged(study, summary=summary)
    assert found.verdict["best_layer"] is None
    assert not any("agrees best with SMH" in said for said in found.verdict["sentences"])
    shares = [said for said in found.verdict["sentences"] if "What attention explains" in said]
    assert len(shares) == 2
    assert all("row in which both attention and the map vary" in said for said in shares)


def test_noise_is_no_share(study):
    summary = study.correlate().summary
    summary["reliability"] = 0.4996
    said = judged(study, summary=summary, times=3).verdict["sentences"]
    assert sum("is undecided: the map's reliability is 0.4996" in one for one in said) == 2
    summary["reliability"] = np.nan
    said = judged(study, summary=summary, times=3).verdict["sentences"]
    assert sum("reliability of the map is not defined" in one for one in said) == 2


def test_a_map_that_no_ceiling_belongs_to_is_not_corrected(study):
    found = judged(study, times=3, pooling="max2d").verdict
    assert found["share"]["input"]["rho_corrected"] is None
    assert found["share"]["input"]["status"] == "undecided"
    said = sentence_of(found, "What attention explains of the saliency of the input")
    assert "cannot be corrected for noise" in said
    assert not any("nan" in sentence for sentence in found["sentences"])


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (1.04, "agrees as well as a map without noise could with the saliency"),
        (-0.12, "explains none of the saliency"),
        (0.44, "explains 44 % [44, 44] of the saliency"),
        (1.004, "explains 100 % [100, 100] of the saliency"),
    ],
)
def test_no_share_is_more_than_everything_or_less_than_nothing(study, value, said):
    summary = study.correlate().summary
    summary["n_utterances"] = 7
    for end in ("", "_low", "_high"):
        summary[f"rho_corrected{end}"] = value
    found = judged(study, summary=summary).verdict
    assert sum(said in sentence for sentence in found["sentences"]) == 2


def test_without_any_score_no_head_is_chosen(study):
    aggregated = [
        Artifact(one.arrays | {"ca_head": np.ones_like(one["ca_head"])}, one.meta)
        for one in study.read("aggregate")
    ]
    found = head_findings(
        aggregated, study.read("decode"), study.correlate().summary, [], pooling="avg2d", seed=0
    )
    assert found.generation_config == {"alignment_heads": []}
    assert sentence_of(found.verdict, "No heads are chosen")


def test_transformers_reads_word_times_off_the_heads_of_the_file(study):
    """A network whose heads look at steps of their own: the file chooses which are read."""
    written = json.loads(json.dumps(judged(study).generation_config))
    assert GenerationConfig(**written).alignment_heads == [[0, PLANTED]]
    network = tiny_whisper()._network
    times = {}
    for heads in (written["alignment_heads"], [[1, 0]], [[1, 1]]):
        network.generation_config = GenerationConfig(
            alignment_heads=heads, no_timestamps_token_id=NO_TIMESTAMPS, is_multilingual=False,
            decoder_start_token_id=START, bos_token_id=EOS, eos_token_id=EOS, pad_token_id=EOS,
            max_length=9, suppress_tokens=[EOS],
        )  # fmt: skip
        found = network.generate(
            torch.randn(1, 8, 100, generator=torch.Generator().manual_seed(0)),
            return_token_timestamps=True, return_dict_in_generate=True,
        )  # fmt: skip
        times[str(heads)] = found["token_timestamps"][0].tolist()
    assert all(times[heads] == sorted(times[heads]) for heads in times)
    assert len({tuple(one) for one in times.values()}) > 1


def test_findings_are_json(study, tmp_path):
    found = judged(study, [align(one, tmp_path) for one in study.utterances])
    again = json.loads(json.dumps([found.verdict, found.generation_config], allow_nan=False))
    assert again[0]["n_utterances"] == 2
