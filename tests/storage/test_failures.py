"""An utterance that cannot be done: recorded, left out from there on, told; the others are done."""

import errno
import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from s2txai.errors import UserError, UtteranceError
from s2txai.models.base import CrossAttention
from s2txai.models.handle import LoadingError, ModelHandle
from s2txai.steps.check_failures import check_failures
from s2txai.steps.decode import decode_shard
from s2txai.steps.failures import list_failures
from s2txai.steps.gradients import gradients_shard
from s2txai.steps.transcripts import transcript_tables
from s2txai.storage.artifacts import load_shard
from s2txai.storage.failures import Failure, failures, failures_where_met, pass_on, record
from s2txai.study.plan import Run
from s2txai.study.results import load_shards, remaining, write_table
from tests.studies import TASK, Study, write_corpus
from tests.toy import WORDS, WordModel, write_speech

GOOD, BAD = "five", "four"
TEXT = "north east south west east"


class Partial(Study):
    """A study that leaves out what failed, as the workflow's scripts do."""

    def read(self, step):
        return load_shard(self.folder(step), self.ids, step)

    def folder(self, step):
        return self.results / step / "0000"

    def after(self, step, *earlier):
        """Begin a step: pass on what failed before it."""
        whole = [utterance.id for utterance in self.utterances]
        self.ids = pass_on(whole, map(self.folder, earlier), self.folder(step))
        return getattr(self, step)

    def everything(self):
        self.decode()
        for step in ("attention", "smx", "smh"):
            self.after(step, "decode")()
        self.after("aggregate", "decode", "attention", "smx", "smh")()
        self.after("deletion", "decode", "smx", "aggregate")()

    def failures(self, step):
        return failures(self.folder(step), [utterance.id for utterance in self.utterances])


class Fails(WordModel):
    """The toy, whose method ``where`` raises on the recording of four words."""

    def __init__(self, where, error):
        super().__init__()
        self._where, self._error = where, error

    def _hears(self, steps):
        if steps == 4 * 4:
            raise self._error

    def encode(self, features, padding_value):
        if self._where == "encode":
            self._hears(features.shape[1] // 2)
        return super().encode(features, padding_value)

    def cross_attention(self, states, prompt, tokens):
        if self._where == "attention":
            self._hears(states.shape[1] - 3)
        return super().cross_attention(states, prompt, tokens)

    def decode(self, states, prompt, tokens):
        if self._where == "masks" and len(states) > 1:
            self._hears(states.shape[1] - 3)
        return super().decode(states, prompt, tokens)


def study_of(root, model=None):
    return Partial(root, write_corpus(root), model or WordModel())


def spoil(path, samples):
    soundfile.write(path, samples, 8000, subtype="FLOAT")


def run_of(study):
    ids = [utterance.id for utterance in study.utterances]
    return Run("toys", "words", TASK, tuple(study.utterances), {"0000": ids})


UNUSABLE = {
    "empty": (np.zeros(0), "holds 0.000 s"),
    "too short": (np.full(400, 0.1), "holds 0.050 s"),
    "silent": (np.zeros(8000), "nothing but silence"),
    "NaN": (np.full(8000, np.nan), "NaN or infinite"),
    "infinite": (np.full(8000, np.inf), "NaN or infinite"),
}


@pytest.mark.parametrize("kind", UNUSABLE)
def test_a_recording_that_cannot_be_used_stops_no_other(tmp_path, kind, caplog):
    study = study_of(tmp_path)
    samples, words = UNUSABLE[kind]
    spoil(tmp_path / f"{BAD}.wav", samples)
    study.decode()
    (found,) = study.failures("decode")
    assert (found.utterance, found.step) == (BAD, "decode")
    assert f"{BAD}.wav" in found.message
    assert words in found.message
    assert f"decode {BAD} failed, on with the others" in caplog.text
    assert "Traceback" not in caplog.text
    assert {path.name for path in study.folder("decode").iterdir()} == {
        f"{GOOD}.npz", f"{BAD}.failure.json",
    }  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"not audio at all", b"RIFF\0\0\0\0WAVE"])
def test_a_file_that_is_no_recording_stops_no_other(tmp_path, content):
    study = study_of(tmp_path)
    (tmp_path / f"{BAD}.wav").write_bytes(content)
    study.decode()
    (found,) = study.failures("decode")
    assert "cannot be read as audio" in found.message or "breaks off" in found.message


def test_a_recording_that_breaks_off_or_is_gone_stops_no_other(tmp_path):
    study = study_of(tmp_path)
    path = tmp_path / f"{BAD}.wav"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    study.decode()
    assert "breaks off" in study.failures("decode")[0].message
    path.unlink()
    study.decode()
    assert f"There is no audio file {path}" in study.failures("decode")[0].message


def test_an_utterance_longer_than_the_model_hears_stops_no_other(tmp_path):
    study = study_of(tmp_path)
    decode_shard(study.place("decode"), study.utterances, TASK, beam=1, max_seconds=0.35)
    (found,) = study.failures("decode")
    assert "Utterance 'five' lasts 0.4 s, but the model accepts at most 0.35 s" in found.message


@pytest.mark.parametrize(
    ("where", "step", "error"),
    [
        ("encode", "decode", RuntimeError("shapes\ndo not\tfit")),
        ("attention", "attention", IndexError("index 3 is out of bounds")),
        ("masks", "smx", ValueError("no such mask")),
    ],
)
def test_an_input_that_the_model_fails_on(tmp_path, caplog, where, step, error):
    """The others' results are those of a run in which nothing failed."""
    study = study_of(tmp_path, Fails(where, error))
    study.everything()
    whole = Study(tmp_path / "whole", study.utterances[:1], WordModel())
    whole.everything()
    later = {"decode": ("attention", "smx"), "attention": (), "smx": ()}[step]
    for name in (step, *later, "aggregate", "deletion"):
        kind = type(error).__name__
        assert study.failures(name) == [
            Failure(BAD, step, f"{kind}: {' '.join(str(error).split())}")
        ]
        assert not (study.folder(name) / f"{BAD}.npz").exists()
    good = {path: data for path, data in study.files().items() if path.stem == GOOD}
    assert good == whole.files()
    # Where it comes from must be found out.
    assert "Traceback" in caplog.text


def test_tables_are_those_of_the_others_and_say_so(tmp_path):
    study = study_of(tmp_path, Fails("masks", ValueError("no such mask")))
    study.everything()
    run = remaining(run_of(study), [study.folder("aggregate")])
    assert [one.id for one in run.utterances] == [GOOD]
    assert [one.id for one in run.failed] == [BAD]
    study.ids = [GOOD]
    write_table(study.correlate().summary, run, tmp_path / "summary.csv")
    summary = pd.read_csv(tmp_path / "summary.csv")
    assert set(summary["n_utterances"]) <= {0, 1}
    assert set(summary["n_failed_utterances"]) == {1}
    # It was decoded: its words count.
    decoded = remaining(run_of(study), [study.folder("decode")])
    assert decoded.failed == ()
    artifacts = load_shards(decoded, [study.folder("decode")], "decode")
    _, scores = transcript_tables(decoded.utterances, artifacts, TASK, text_normalisation="none")
    write_table(scores, decoded, tmp_path / "scores.csv")
    scores = pd.read_csv(tmp_path / "scores.csv")
    assert set(scores["n_utterances"]) == {2}
    assert set(scores["n_failed_utterances"]) == {0}


def test_the_list_of_failures_and_the_check(tmp_path):
    study = study_of(tmp_path, Fails("masks", ValueError("no such mask")))
    study.everything()
    run, paths = run_of(study), [tmp_path / name for name in ("failures.tsv", "none.tsv")]
    list_failures(run, [study.folder("deletion")], paths[0])
    list_failures(run, [study.folder("decode")], paths[1])
    table = pd.read_csv(paths[0], sep="\t")
    assert table.to_dict("records") == [
        {
            "dataset": "toys", "model": "words", "task": "asr-en", "utterance": BAD, "step": "smx",
            "audio": str(tmp_path / f"{BAD}.wav"), "message": "ValueError: no such mask",
        }
    ]  # fmt: skip
    assert pd.read_csv(paths[1], sep="\t").empty
    check_failures(paths[1:])
    with pytest.raises(UserError, match=r"1 failed, .*'four' in smx: ValueError") as raised:
        check_failures(paths)
    assert str(paths[0]) in str(raised.value)
    assert str(paths[1]) not in str(raised.value)


def test_nothing_left_is_one_sentence(tmp_path):
    study = study_of(tmp_path)
    for name in (GOOD, BAD):
        spoil(tmp_path / f"{name}.wav", np.zeros(8000))
    study.everything()
    with pytest.raises(UserError, match=r"toys/words/asr-en: none of 2 utterances") as raised:
        remaining(run_of(study), [study.folder("deletion")])
    assert "'five' failed in decode" in str(raised.value)
    assert "nothing but silence" in str(raised.value)


def test_a_mended_recording_is_done_and_no_other_again(tmp_path):
    study = study_of(tmp_path)
    spoil(tmp_path / f"{BAD}.wav", np.zeros(8000))
    study.everything()
    model = study.handle.model
    write_speech(tmp_path / f"{BAD}.wav", "west south north east", seed=1)
    model.calls.clear()
    study.everything()
    assert study.failures("deletion") == []
    whole = Study(tmp_path / "whole", study.utterances, WordModel())
    whole.everything()
    assert study.files() == whole.files()
    alone = Study(tmp_path / "alone", study.utterances[1:], WordModel())
    alone.everything()
    # The first utterance was in the store.
    assert model.calls == alone.handle.model.calls


def test_stop_raises_the_first(tmp_path, caplog):
    study = study_of(tmp_path)
    spoil(tmp_path / f"{GOOD}.wav", np.zeros(8000))
    with pytest.raises(UtteranceError, match="nothing but silence"):
        decode_shard(
            replace(study.place("decode"), on_failure="stop"), study.utterances, TASK, beam=1
        )
    assert "decode: stopped at the utterance five" in caplog.text
    assert list(study.results.rglob("*.*")) == []


NOT_OF_AN_UTTERANCE = {
    "disk full": OSError(errno.ENOSPC, "No space left on device"),
    "GPU": RuntimeError("CUDA error: device-side assert triggered"),
    "interrupt": KeyboardInterrupt(),
    "config": UserError("This family cannot do it: change the configuration."),
    "program": NameError("name 'x' is not defined"),
    "loading": LoadingError("x cannot be loaded"),
}


@pytest.mark.parametrize("kind", NOT_OF_AN_UTTERANCE)
def test_a_failure_of_the_job_fails_the_job(tmp_path, kind):
    error = NOT_OF_AN_UTTERANCE[kind]
    study = study_of(tmp_path, Fails("encode", error))
    with pytest.raises(type(error)) as raised:
        study.decode()
    assert raised.value is error
    assert study.failures("decode") == []
    # What was done before is kept.
    assert (study.folder("decode") / f"{GOOD}.npz").exists()


OUT_OF_MEMORY = {
    "GPU": torch.OutOfMemoryError("CUDA out of memory."),
    "host": RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    "Python": MemoryError(),
}


@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
@pytest.mark.parametrize(("where", "step"), [("encode", "decode"), ("attention", "attention")])
def test_memory_that_does_not_hold_one_input_fails_the_job(tmp_path, caplog, where, step, kind):
    """More memory may do it: the job is tried again, not the utterance given up."""
    study = study_of(tmp_path, Fails(where, OUT_OF_MEMORY[kind]))
    if step != "decode":
        study.decode()
    with pytest.raises(UserError, match="not even hold a forward pass of one input: give the job"):
        getattr(study, step)()
    assert f"{step}: stopped at the utterance four" in caplog.text
    assert study.failures(step) == []
    assert (study.folder(step) / f"{GOOD}.npz").exists()


def test_an_unexpected_error_on_every_utterance_fails_the_job(tmp_path, caplog):
    class Broken(WordModel):
        def encode(self, features, padding_value):
            raise RuntimeError("a mistake in the program")

    study = study_of(tmp_path, Broken())
    with pytest.raises(RuntimeError, match="a mistake in the program"):
        study.decode()
    assert "decode: not one of 2 utterances could be processed" in caplog.text


def test_unusable_recordings_alone_do_not_fail_the_job(tmp_path):
    study = study_of(tmp_path)
    for name in (GOOD, BAD):
        spoil(tmp_path / f"{name}.wav", np.zeros(8000))
    study.everything()
    assert {one.step for one in study.failures("deletion")} == {"decode"}


def test_a_model_that_cannot_be_loaded_is_no_fault_of_an_utterance(tmp_path, monkeypatch):
    def load(*_, **__):
        raise ValueError("these are no weights")

    monkeypatch.setattr("s2txai.models.handle.load_model", load)
    study = study_of(tmp_path)
    (tmp_path / "model").mkdir()
    study.handle = ModelHandle("whisper", tmp_path / "model", device="cpu", precision="float32")
    study.utterances = study.utterances[:1]
    with pytest.raises(LoadingError, match="these are no weights"):
        study.decode()


class NotFinite(WordModel):
    """The toy, whose logits are NaN on the recording of four words where it is perturbed."""

    def decode(self, states, prompt, tokens):
        logits = super().decode(states, prompt, tokens)
        return logits * np.nan if len(states) > 1 and states.shape[1] == 4 * 4 + 3 else logits


@pytest.mark.parametrize("step", ["smx", "smh"])
def test_numbers_that_are_not_finite(tmp_path, monkeypatch, step):
    monkeypatch.setattr("s2txai.steps.masked.SECONDS_BETWEEN_CHECKPOINTS", 0)
    study = study_of(tmp_path, NotFinite())
    study.decode()
    getattr(study, step)()
    (found,) = study.failures(step)
    assert found.utterance == BAD
    assert "not finite on this input" in found.message
    # Neither now nor at a checkpoint: the next run would go on from there.
    assert not list((tmp_path / "store" / step / BAD).glob("*"))


def test_gradients_of_the_others(tmp_path):
    class Rough(WordModel):
        def differentiable_logits(self, features, padding_value, prompt, tokens):
            if features.shape[1] == 2 * 4 * 4:
                raise RuntimeError("no gradient")
            return super().differentiable_logits(features, padding_value, prompt, tokens).float()

    study = study_of(tmp_path, Rough())
    study.decode()
    for method, parameters in (
        ("grad", {"n_segments": (400,), "n_masks": 16, "p": 0.5, "seed": 0}),
        ("input_x_gradient", {}),
    ):
        gradients_shard(study.place(method), method, study.read("decode"), parameters=parameters)
        assert study.failures(method) == [Failure(BAD, method, "RuntimeError: no gradient")]
        assert (study.folder(method) / f"{GOOD}.npz").exists()


@pytest.mark.parametrize("step", ["smx", "smh"])
def test_the_batch_is_measured_on_an_utterance_that_works(tmp_path, step):
    """The largest one fails; its error is not that of the first in the manifest."""

    class Largest(WordModel):
        def decode(self, states, prompt, tokens):
            if len(states) >= 1 and states.shape[1] == 5 * 4 + 3 and self.strict:
                raise ValueError("too many words")
            return super().decode(states, prompt, tokens)

    model = Largest()
    model.strict = False
    study = study_of(tmp_path, model)
    study.utterances = study.utterances[::-1]
    study.ids = study.ids[::-1]
    study.decode()
    model.strict = True
    getattr(study, step)(batch_size="auto")
    assert study.failures(step) == [Failure(GOOD, step, "ValueError: too many words")]
    assert (study.folder(step) / f"{BAD}.npz").exists()


def test_an_empty_hypothesis_is_no_failure(tmp_path):
    """It counts in the score; where nothing can be correlated, it is counted as undefined."""

    class Deaf(WordModel):
        def generate(self, states, prompt, *, beam, max_new_tokens, forced=()):
            found = super().generate(states, prompt, beam=beam, max_new_tokens=max_new_tokens)
            return [tokens[-1:] if len(tokens) == 4 + 1 else tokens for tokens in found]

        def readout(self, steps, n_rows):
            weights, bias = super().readout(steps, n_rows)
            if n_rows == 1:
                weights[:], bias[:, -1] = 0, 20
            return weights, bias

        def cross_attention(self, states, prompt, tokens):
            if len(tokens) > 1:
                return super().cross_attention(states, prompt, tokens)
            weights = np.full((1, 2, 1, states.shape[1]), 1 / states.shape[1], np.float32)
            return CrossAttention(weights, 2 * weights)

    study = study_of(tmp_path, Deaf())
    study.everything()
    assert study.failures("deletion") == []
    decoded = study.read("decode")
    assert [str(one["text"]) for one in decoded] == [TEXT, ""]
    _, scores = transcript_tables(study.utterances, decoded, TASK, text_normalisation="whisper")
    assert scores.set_index("metric")["score"]["wer"] == pytest.approx(100 * 4 / 9)
    summary = study.correlate().summary
    headline = summary[(summary["metric"] == "pearson") & (summary["attention"] == "ca_mean")]
    assert set(headline["n_utterances"]) == {1}
    assert set(headline["n_undefined_utterances"]) == {1}
    curves = study.scores().curves
    assert np.isfinite(curves["score"]).all()


def test_a_hypothesis_that_loops_to_the_limit_is_no_failure(tmp_path):
    class Looping(WordModel):
        def generate(self, states, prompt, *, beam, max_new_tokens, forced=()):
            found = super().generate(states, prompt, beam=beam, max_new_tokens=max_new_tokens)
            return [[0] * max_new_tokens if len(one) == 4 + 1 else one for one in found]

        def readout(self, steps, n_rows):
            weights, bias = super().readout(steps, min(n_rows, steps // 4 + 1))
            more = n_rows - len(bias)
            return (
                torch.cat([weights, weights[-1:].expand(more, -1, -1, -1)]),
                torch.cat([bias, bias[-1:].expand(more, -1)]),
            )

    study = study_of(tmp_path, Looping())
    study.everything()
    assert study.failures("deletion") == []
    first, second = study.read("decode")
    assert str(first["text"]) == TEXT
    assert str(second["text"]) == " ".join([WORDS[0]] * 40)  # the toy's limit
    assert study.read("smx")[1]["occluded_sum"].shape[-1] == 40
    _, scores = transcript_tables(
        study.utterances, [first, second], TASK, text_normalisation="none"
    )
    assert scores.set_index("metric")["score"]["wer"] > 100
    assert set(study.correlate().summary["n_utterances"]) <= {1, 2}


# Records


def test_a_record_is_read_back_and_passed_on(tmp_path):
    told = Failure("a", "smx", 'quotes ", tabs and ünïcode')
    record(told, tmp_path / "smx" / "0000")
    assert failures(tmp_path / "smx" / "0000", ["a", "b"]) == [told]
    left = pass_on(
        ["a", "b"], [tmp_path / "decode" / "0000", tmp_path / "smx" / "0000"], tmp_path / "out"
    )
    assert left == ["b"]
    assert failures(tmp_path / "out", ["a", "b"]) == [told]
    assert json.loads((tmp_path / "out" / "a.failure.json").read_text())["step"] == "smx"


def test_a_failure_counts_where_it_was_met(tmp_path):
    """Passed on, it may be out of date: the step was run again, the later one not yet."""
    record(Failure("a", "decode", "silence"), tmp_path / "smx" / "0000")
    record(Failure("b", "smx", "no number"), tmp_path / "smx" / "0000")
    record(Failure("b", "smx", "no number"), tmp_path / "sensitivity" / "p-0.1" / "0001")
    shards = {"0000": ["a", "b"], "0001": ["b"]}
    steps = {"decode": "decode", "smx": "smx", "sensitivity/p-0.1": "smx"}
    found = failures_where_met(tmp_path, shards, steps)
    assert [(one.utterance, one.step) for one in found] == [("b", "smx"), ("b", "smx")]


def test_what_a_library_says_is_one_line_of_bounded_length():
    told = Failure.of("a", "decode", ValueError("x\n\ty " * 1000))
    assert told.message.startswith("ValueError: x y x y")
    assert len(told.message) <= 500


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"utterance": "a"}', "\0", "[" * 100_000])
def test_a_damaged_record_is_refused(tmp_path, content):
    (tmp_path / "a.failure.json").write_text(content)
    with pytest.raises(UserError, match=r"a\.failure\.json cannot be read"):
        failures(tmp_path, ["a"])
