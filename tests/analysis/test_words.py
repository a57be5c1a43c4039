"""Word boundaries from planted alignments, and their errors."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers.models.whisper.generation_whisper import _dynamic_time_warping, _median_filter

from s2txai.analysis.word_times import BEST_HEAD
from s2txai.analysis.words import (
    MEDIAN_WIDTH,
    TOLERANCES,
    error_summary,
    match_words,
    smooth,
    standardise,
    token_starts,
    warp,
    word_boundaries,
)
from s2txai.datasets import parse_task, read_alignment, read_manifest
from s2txai.datasets.audio import read_audio
from s2txai.datasets.text_forms import letters_of
from s2txai.errors import UserError
from s2txai.models import decoding
from s2txai.models.base import CrossAttention
from s2txai.models.loading import load_model
from s2txai.saliency.aggregation import attention_maps
from s2txai.saliency.attention import attention
from s2txai.saliency.heard import Heard
from s2txai.steps.timestamps import timing_tables
from s2txai.storage.artifacts import Artifact
from tests.studies import Study, pick, write_corpus
from tests.toy import MISPLACED, PLANTED, WORD_STEPS, WordModel, n_words
from tests.weights import ROOT, model_directory

STEP = 0.02  # s, of the toy
WORD = WORD_STEPS * STEP


def planted(starts, n_steps, height=1.0):
    """Return a map [I, T'] whose tokens attend evenly to the steps from their start to the next."""
    bounds = [*starts, n_steps]
    found = np.zeros((len(starts), n_steps))
    for row, (start, end) in enumerate(itertools.pairwise(bounds)):
        found[row, start:end] = height
    return found


@pytest.mark.parametrize("starts", [[0, 5, 10, 20], [0, 4, 30], [0, 17]])
def test_planted_boundaries_are_found_exactly(starts):
    assert token_starts(planted(starts, 40)[None])[0].tolist() == starts


def test_planted_boundaries_are_found_under_noise():
    starts = [0, 9, 20, 33, 41]
    noise = np.random.default_rng(0).uniform(0, 0.6, (50, 5, 60))
    found = token_starts(planted(starts, 60) + noise)
    assert np.abs(found - starts).max() <= 1


def test_scale_of_a_step_does_not_matter():
    """How much attention a step receives in all says nothing of whose step it is."""
    rng = np.random.default_rng(1)
    maps = rng.random((3, 6, 30))
    scaled = maps * rng.uniform(0.1, 10, 30) + rng.uniform(0, 5, 30)
    np.testing.assert_allclose(standardise(scaled), standardise(maps), atol=1e-9)
    np.testing.assert_array_equal(token_starts(scaled), token_starts(maps))


def test_standardised_columns():
    found = standardise(np.array([[1.0, 2.0], [3.0, 2.0]]))
    np.testing.assert_allclose(found, [[-1, 0], [1, 0]])  # population deviation; none: 0


def test_median_of_seven_mirrored_at_the_ends():
    row = np.array([5.0, 1, 4, 2, 3, 9, 8, 7, 0])
    padded = [2, 4, 1, *row, 7, 8, 9]
    expected = [np.median(padded[step : step + 7]) for step in range(len(row))]
    np.testing.assert_allclose(smooth(row[None])[0], expected)


def paths(n_tokens, n_steps):
    """Yield all monotone paths as lists of cells."""
    if (n_tokens, n_steps) == (1, 1):
        yield [(0, 0)]
        return
    for tokens, steps in ((n_tokens, n_steps - 1), (n_tokens - 1, n_steps - 1),
                          (n_tokens - 1, n_steps)):  # fmt: skip
        if tokens > 0 and steps > 0:
            for path in paths(tokens, steps):
                yield [*path, (n_tokens - 1, n_steps - 1)]


def first_steps(path):
    return [min(step for token, step in path if token == row) for row in range(path[-1][0] + 1)]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))
def test_warping_finds_the_cheapest_path(n_tokens, n_steps, seed):
    costs = np.random.default_rng(seed).standard_normal((4, n_tokens, n_steps))
    for map_, starts in zip(costs, warp(costs), strict=True):
        best = min(paths(n_tokens, n_steps), key=lambda path: sum(map_[cell] for cell in path))
        assert starts.tolist() == first_steps(best)


def starts_by_whisper(costs):
    """Return what the path that transformers walks says."""
    tokens, steps = _dynamic_time_warping(costs)
    return [int(steps[tokens == token].min()) for token in range(len(costs))]


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.integers(1, 30), st.integers(0, 2**32 - 1))
def test_ties_are_broken_as_whisper_breaks_them(n_tokens, n_steps, seed):
    # Whole numbers of few values, so that many paths cost the same, exactly.
    costs = np.random.default_rng(seed).integers(-2, 3, (4, n_tokens, n_steps)).astype(float)
    assert warp(costs).tolist() == [starts_by_whisper(map_) for map_ in costs]


@pytest.mark.parametrize("seed", range(20))
def test_tokens_start_where_whisper_starts_them(seed):
    """Standardising, smoothing and warping together, on attention of one row a token."""
    rng = np.random.default_rng(seed)
    I, n_steps = rng.integers(2, 25), rng.integers(8, 120)
    attention = torch.tensor(rng.dirichlet(np.full(n_steps, 0.1), I), dtype=torch.float32)
    deviation, mean = torch.std_mean(attention, dim=-2, keepdim=True, unbiased=False)
    # transformers divides by a deviation of 0.
    standard = (attention - mean) / torch.where(deviation > 0, deviation, 1)
    smoothed = _median_filter(standard[None, None], MEDIAN_WIDTH)[0, 0]
    expected = starts_by_whisper(-smoothed.double().numpy())
    assert token_starts(attention.numpy()[None])[0].tolist() == expected


def test_ties_prefer_the_next_step():
    # Where all paths cost the same the last token stays as long as it can.
    assert warp(np.zeros((1, 3, 5)))[0].tolist() == [0, 0, 0]


def test_maps_are_warped_apart(monkeypatch):
    maps = np.random.default_rng(2).random((7, 5, 20))
    together = token_starts(maps)
    monkeypatch.setattr("s2txai.analysis.words._CELLS_AT_ONCE", 2 * 5 * 20)
    np.testing.assert_array_equal(token_starts(maps), together)


def test_words_end_where_the_next_row_begins():
    # A special token, a word of two tokens, one of one, the end of sentence.
    starts = np.array([[0, 2, 4, 7, 9], [0, 1, 1, 3, 3]])
    bounds = word_boundaries(starts, [-1, 0, 0, 1, -1], 12)
    assert bounds.tolist() == [[[2, 7], [7, 9]], [[1, 3], [3, 3]]]


def test_the_last_word_ends_with_the_speech_where_no_row_follows():
    assert word_boundaries(np.array([[0, 5]]), [0, 1], 12).tolist() == [[[0, 5], [5, 12]]]


def test_no_words():
    assert word_boundaries(np.array([[0]]), [-1], 12).shape == (1, 0, 2)


def test_words_are_compared_without_case_and_punctuation():
    assert letters_of(" “Where're,", "en") == "where're"
    # As in scores: accents count but in English, and where they are folded.
    assert letters_of("naïve", "en") == "naive"
    assert letters_of("Está", "es") == "está"
    assert letters_of("Está", "es", folded=True) == "esta"
    assert letters_of("Straße", "de") == "straße"
    assert letters_of(" – ", "en") == ""


def test_only_equal_words_are_matched():
    reference = ["Mary", "rolled", "the", "old", "barrel"]
    hypothesis = ["Well", "mary", "–", "rolls", "the", "barrel."]
    assert match_words(reference, hypothesis) == [(0, 1), (2, 4), (4, 5)]
    assert match_words(reference, []) == []
    assert match_words(["…"], ["well"]) == []


def test_errors_by_hand():
    found = error_summary(np.array([-0.05, 0.01, -0.3, 0.1]), np.array([0.02, 0.02, 0.2, 0.0]))
    assert found["start_mae"] == pytest.approx(0.115)
    assert found["start_bias"] == pytest.approx(-0.06)
    assert found["end_mae"] == found["end_bias"] == pytest.approx(0.06)
    assert [found[f"start_within_{n}"] for n in TOLERANCES] == [0.25, 0.5, 0.75, 0.75]
    assert [found[f"end_within_{n}"] for n in TOLERANCES] == [0.75, 0.75, 0.75, 1]


def test_no_word_no_error():
    assert all(np.isnan(value) for value in error_summary(np.array([]), np.array([])).values())


class SteadyModel(WordModel):
    """Head ``PLANTED`` attends to a word for as long as it lasts, the other to the word after."""

    def cross_attention(self, states, prompt, tokens):
        speech = states.shape[1] - self._n_padding
        weights = np.full((1, 2, len(tokens), states.shape[1]), 0.9 / speech, np.float32)
        for row in range(n_words(speech)):
            steps = np.arange(WORD_STEPS) + row * WORD_STEPS
            weights[0, :, row, :speech] = 0.01
            weights[0, PLANTED, row, steps] = 0.2
            weights[0, MISPLACED, row, (steps + WORD_STEPS) % speech] = 0.2
        weights[..., speech:] = 0.1 / self._n_padding
        return CrossAttention(weights, weights)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    root = tmp_path_factory.mktemp("timestamps")
    found = Study(root, write_corpus(root), SteadyModel())
    for step in (found.decode, found.attention, found.smx, found.smh, found.aggregate):
        step()
    return found


def align(utterance, folder, evidence="hand", late=0.0, **words):
    """Return the utterance with its alignment, ``late`` seconds late, some words replaced."""
    lines = ["tier\tstart_s\tend_s\tlabel"]
    for number, word in enumerate(utterance.transcript.split()):
        start, end = (late + (number + side) * WORD for side in range(2))
        lines.append(f"word\t{start:.4f}\t{end:.4f}\t{words.get(word, word.upper())}")
    path = folder / f"{utterance.id}.align.tsv"
    path.write_text("\n".join(lines))
    return replace(utterance, alignment=path, alignment_evidence=evidence)


def measured(study, utterances):
    places = [study.ids.index(one.id) for one in utterances]
    made = ([study.read(step)[place] for place in places] for step in ("aggregate", "decode"))
    return timing_tables(utterances, *made)


def test_planted_words_are_timed_exactly(study, tmp_path):
    tables = measured(study, [align(one, tmp_path) for one in study.utterances])
    row = pick(tables.summary, map="ca_head", head=PLANTED)
    assert row["start_mae"] == pytest.approx(0, abs=1e-9)
    assert row["start_within_20"] == 1
    # The end of sentence takes the last step of each utterance.
    assert row["end_mae"] == pytest.approx(2 * STEP / 9)
    assert row["end_bias"] == pytest.approx(-2 * STEP / 9)
    assert (row["n_words"], row["n_matched"], row["n_utterances"]) == (9, 9, 2)
    assert pick(tables.summary, map="ca_head", head=MISPLACED)["start_mae"] > WORD / 2
    assert len(tables.utterances) == 2 * (
        1 + 1 + 2 + 1 + 2 + 1
    )  # mean, layer, SMX, SMH, heads, best
    assert set(tables.summary["map"]) == {
        "ca_mean", "ca_layer", "ca_head", BEST_HEAD, "smx_avg2d", "smx_max2d", "smh",
    }  # fmt: skip
    assert len(tables.words) == 9 * (1 + 1 + 2 + 1 + 1 - 1)


def test_late_references_show_as_early_words(study, tmp_path):
    tables = measured(study, [align(one, tmp_path, late=0.03) for one in study.utterances])
    row = pick(tables.summary, map="ca_head", head=PLANTED)
    assert row["start_bias"] == pytest.approx(-0.03)
    assert row["start_mae"] == pytest.approx(0.03)
    assert [row[f"start_within_{n}"] for n in TOLERANCES] == [0, 1, 1, 1]


def test_words_that_differ_are_left_out_and_counted(study, tmp_path):
    (first, _) = study.utterances
    aligned = align(first, tmp_path, north="winter")
    tables = measured(study, [aligned])
    row = pick(tables.summary, map="ca_mean")
    assert (row["n_words"], row["n_matched"]) == (5, 4)
    words = tables.words[tables.words["map"] == "ca_mean"]
    assert words["word"].tolist() == ["east", "south", "west", "east"]
    assert words["word_index"].tolist() == [1, 2, 3, 4]
    truth = [word.start for word in read_alignment(aligned.alignment)][1:]
    assert words["reference_start"].tolist() == truth
    np.testing.assert_allclose(words["start"] - words["reference_start"], words["start_error"])


def test_nothing_matched_is_no_number(study, tmp_path):
    (first, _) = study.utterances
    other = dict.fromkeys(first.transcript.split(), "winter")
    tables = measured(study, [align(first, tmp_path, **other)])
    row = pick(tables.summary, map="ca_mean")
    assert (row["n_words"], row["n_matched"], row["n_utterances"]) == (5, 0, 0)
    assert np.isnan(row["start_mae"])
    assert len(tables.words) == 0


def test_the_best_head_is_chosen_on_the_other_utterances(study, tmp_path):
    first, second = study.utterances
    # By the words of the first the misplaced head is right.
    aligned = [align(first, tmp_path, late=WORD), align(second, tmp_path)]
    best = measured(study, aligned).utterances.query(f"map == '{BEST_HEAD}'")
    assert best["utterance"].tolist() == [first.id, second.id]
    assert best["head"].tolist() == [PLANTED, MISPLACED]
    assert best["start_bias"].iloc[0] == pytest.approx(-WORD)


def test_evidence_is_kept_apart(study, tmp_path):
    first, second = study.utterances
    aligned = [align(first, tmp_path, "machine"), align(second, tmp_path, "hand")]
    summary = measured(study, aligned).summary
    # Neither has another utterance of its kind to choose a head by.
    assert BEST_HEAD not in set(summary["map"])
    assert summary["evidence"].drop_duplicates().tolist() == ["hand", "machine"]
    assert (summary["n_utterances"] == 1).all()
    for evidence in ("hand", "machine"):
        row = pick(summary, evidence=evidence, map="smh")
        assert (
            f"evidence:{evidence}|diacritics:kept|normalise:token|median:7|beam:5|"
            in row["signature"]
        )
        assert "n_masks:600" in row["signature"]


def test_sensitive_tokens_do_not_own_every_step(study, tmp_path):
    """Rows of saliency differ in size by orders of magnitude, which says nothing of their times."""
    (first, _) = study.utterances
    (decoded, _), (aggregated, _) = study.read("decode"), study.read("aggregate")
    (planted_head,) = aggregated["ca_head"][:, PLANTED]
    sizes = np.geomspace(1, 1000, len(planted_head))[::-1, None]
    sized = aggregated.arrays | {"smh": planted_head * sizes}
    summary = timing_tables(
        [align(first, tmp_path)], [replace(aggregated, arrays=sized)], [decoded]
    ).summary
    assert pick(summary, map="smh")["start_mae"] == pytest.approx(0, abs=1e-9)


def test_forced_rows_are_not_warped(study, tmp_path):
    (first, _) = study.utterances
    (decoded, _), (aggregated, _) = study.read("decode"), study.read("aggregate")
    roles = np.array(["forced", *decoded["roles"][1:]])
    word_index = decoded["word_index"] - 1
    forced = replace(decoded, arrays=decoded.arrays | {"roles": roles, "word_index": word_index})
    words = timing_tables([align(first, tmp_path)], [aggregated], [forced]).words
    words = words[words["map"] == "ca_mean"]
    assert words["word"].tolist() == first.transcript.split()[1:]
    assert words["start"].iloc[0] == 0


def test_tables_without_utterances_have_the_columns(study, tmp_path):
    """As where all utterances that have alignments failed."""
    first, (decoded, _), (aggregated, _) = (
        study.utterances[0], study.read("decode"), study.read("aggregate"),
    )  # fmt: skip
    whole, none = (
        timing_tables([align(first, tmp_path)], [aggregated], [decoded]),
        timing_tables([], [], []),
    )
    for name in ("words", "utterances", "summary"):
        assert getattr(none, name).empty
        assert list(getattr(none, name)) == list(getattr(whole, name))


def test_refusals(study, tmp_path):
    first, second = study.utterances
    (decoded, other), (aggregated, _) = study.read("decode"), study.read("aggregate")
    with pytest.raises(UserError, match=f"'{first.id}' has no alignment"):
        timing_tables([first], [aggregated], [decoded])
    with pytest.raises(UserError, match="utterance differs"):
        timing_tables([align(second, tmp_path)], [aggregated], [other])


@pytest.mark.model
def test_whisper_on_real_speech():
    """By tiny.en's last layer words of this clip start 83 ms off, by its first 348 ms."""
    model = load_model(
        model_directory("whisper-tiny.en"), "whisper", device="cpu", precision="float32"
    )
    manifest = read_manifest(ROOT / "resources/speech/librivox.tsv")
    (utterance,) = (one for one in manifest if one.id == "sns-0870")
    task = parse_task("asr-en")
    decoded = decoding.decode(model, read_audio(utterance.path, 16_000), task, beam=1)
    heard = Heard(
        decoded["features"], float(decoded["padding_value"]),
        decoded["prompt"].tolist(), decoded["tokens"].tolist(),
    )  # fmt: skip
    attended = attention(model, heard)
    meta = {"utterance": utterance.id, "parameters": {"beam": 1}}
    maps = attention_maps(attended["cross_attention"])
    tables = timing_tables([utterance], [Artifact(maps, meta)], [Artifact(decoded, meta)])
    layers = tables.summary[tables.summary["map"] == "ca_layer"].set_index("layer")["start_mae"]
    assert layers[3] < 0.12
    assert layers[0] > 2 * layers[3]
    assert pick(tables.summary, map="ca_mean")["n_matched"] >= 18  # of 22
