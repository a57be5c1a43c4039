"""Corpora as they are distributed, in miniature: the real speech of the project, cut in two."""

import hashlib
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s2txai.datasets import FORMATS, audio, parse_task, read_dataset, select
from s2txai.datasets.files import read_yaml
from s2txai.datasets.formats.common import with_file_names
from s2txai.datasets.manifest import Utterance
from s2txai.errors import UserError
from s2txai.steps.decode import decode_shard
from s2txai.steps.shard import Workplace
from s2txai.storage.artifacts import load
from s2txai.storage.store import Store
from s2txai.study.config import datasets_schema
from s2txai.study.plan import plan
from s2txai.study.schema_errors import config_errors
from tests.toy import Handle, WordModel, write_speech

ROOT = Path(__file__).resolve().parents[2]
SPEECH = ROOT / "resources/speech/librivox/sense_and_sensibility_01_austen_64kb-0870.wav"
RATE = 16_000
SCHEMA = datasets_schema()
DIRECTION = {"folder": "corpus", "source": "en", "target": "it", "split": "test"}
ENGLISH = ["and mister john dashwood had then leisure", "to consider how much"]
ITALIAN = ["e il signor John Dashwood ebbe allora agio", "di pensare quanto"]
CUTS = [(0.5, 3.25), (3.25, 6.1)]  # s
MODEL = {
    "family": "whisper", "description": "Many languages.", "licence": "MIT",
    "languages": ["en"], "translation_targets": ["it"], "source": {"path": "models/many"},
    "options": {"translation_prompt": ["<|startoftranscript|>", "<|{target}|>", "<|translate|>"]},
}  # fmt: skip
FACTS = {"description": "In miniature.", "licence": "none"}


def put(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(f"{line}\n" for line in lines), "utf-8")


def put_speech(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, soundfile.read(SPEECH)[0], RATE)


def put_europarl(root):
    folder = root / "corpus" / "en" / "it" / "test"
    put(folder / "segments.lst", *(f"en.2008.1-020 {start:.2f} {end:.2f}" for start, end in CUTS))
    put(folder / "segments.en", *ENGLISH)
    put(folder / "segments.it", *ITALIAN)
    put_speech(root / "corpus" / "en" / "audios" / "en.2008.1-020.flac")
    return {"format": "europarl-st", **DIRECTION}


def put_must_c(root):
    folder = root / "corpus" / "en-it" / "data" / "test"
    put(
        folder / "txt" / "test.yaml",
        *(
            f"- {{duration: {end - start:.6f}, offset: {start:.6f}, rW: 9, uW: 0, "
            "speaker_id: spk.1, wav: ted_1.wav}"
            for start, end in CUTS
        ),
    )
    put(folder / "txt" / "test.en", *ENGLISH)
    put(folder / "txt" / "test.it", *ITALIAN)
    put_speech(folder / "wav" / "ted_1.wav")
    return {"format": "must-c", **DIRECTION}


def put_covost(root):
    folder = root / "corpus"
    clips = folder / "clips"
    clips.mkdir(parents=True)
    samples, _ = soundfile.read(SPEECH)
    rows = []
    for name, (start, end), *texts in zip(CLIPS, CUTS, ENGLISH, ITALIAN, strict=True):
        cut = samples[round(start * RATE) : round(end * RATE)]
        soundfile.write(clips / f"{name}.flac", cut, RATE)
        rows.append("\t".join([f"{name}.flac", *texts, "ab12"]))
    table = folder / "covost_v2.en_it.test.tsv"
    put(table, "path\tsentence\ttranslation\tclient_id", *rows)
    return {"format": "covost", **DIRECTION}


def put_kaldi(root):
    folder = root / "corpus"
    put_speech(folder / "wav" / "talk.wav")
    put(folder / "wav.scp", "talk wav/talk.wav")
    spans = zip(KALDI_IDS, CUTS, strict=True)
    put(folder / "segments", *(f"{name} talk {start} {end}" for name, (start, end) in spans))
    for file, texts in {"text": ENGLISH, "text.it": ITALIAN}.items():
        put(folder / file, *map(" ".join, zip(KALDI_IDS, texts, strict=True)))
    return {"format": "kaldi", "folder": "corpus", "language": "en"}


CLIPS = ["common_voice_en_1", "common_voice_en_2"]
KALDI_IDS = ["anna-talk-1", "anna-talk-2"]
CORPORA = {
    "europarl-st": put_europarl,
    "must-c": put_must_c,
    "covost": put_covost,
    "kaldi": put_kaldi,
}
IDS = {
    "europarl-st": ["en.2008.1-020_500_3250", "en.2008.1-020_3250_6100"],
    "must-c": ["ted_1_500_3250", "ted_1_3250_6100"],
    "covost": CLIPS,
    "kaldi": KALDI_IDS,
}


@pytest.fixture(params=CORPORA)
def corpus(request, tmp_path):
    """Entry, folder that it is relative to, and name of the format."""
    return CORPORA[request.param](tmp_path), tmp_path, request.param


def complaint(entry, root):
    with pytest.raises(UserError) as caught:
        read_dataset(entry, root)
    sentence = str(caught.value)
    assert "\n" not in sentence
    return sentence


def change(path, old, new):
    text = path.read_text("utf-8")
    assert old in text
    path.write_text(text.replace(old, new), "utf-8")


# What the formats share


def test_segments_have_their_texts_language_and_names(corpus):
    entry, root, name = corpus
    utterances = read_dataset(entry, root)
    assert [one.id for one in utterances] == IDS[name]
    assert [one.transcript for one in utterances] == ENGLISH
    assert [one.translations for one in utterances] == [{"it": text} for text in ITALIAN]
    assert {one.language for one in utterances} == {"en"}
    assert select(utterances, parse_task("asr-en")) == utterances
    assert select(utterances, parse_task("st-en-it")) == utterances


def test_samples_are_those_of_the_segment(corpus):
    entry, root, _ = corpus
    whole = soundfile.read(SPEECH, dtype="float32")[0]
    for one, (start, end) in zip(read_dataset(entry, root), CUTS, strict=True):
        np.testing.assert_array_equal(
            one.read(RATE), whole[round(start * RATE) : round(end * RATE)]
        )
        assert one.seconds() == pytest.approx(end - start)


def test_entries_are_what_the_schema_allows(corpus):
    entry, _, _ = corpus
    assert config_errors({"mine": entry | FACTS}, SCHEMA) == []
    for key in entry.keys() - {"format", "language"}:
        without = {name: value for name, value in entry.items() if name != key} | FACTS
        (sentence,) = config_errors({"mine": without}, SCHEMA)
        assert sentence.startswith(f"'mine.{key}' is missing")
    (sentence,) = config_errors({"mine": entry | FACTS | {"manifest": "m.tsv"}}, SCHEMA)
    assert sentence.startswith("unknown key 'mine.manifest'")


def test_the_schema_knows_the_formats():
    assert SCHEMA["additionalProperties"]["properties"]["format"]["enum"] == list(FORMATS)
    (sentence,) = config_errors({"mine": {"format": "europarl"} | FACTS}, SCHEMA)
    assert sentence.endswith("not 'europarl'; did you mean 'europarl-st'?")


def test_a_missing_corpus_is_refused(corpus):
    entry, root, _ = corpus
    missing = entry | {"folder": "elsewhere"}
    assert complaint(missing, root) == (
        f"No folder {root / 'elsewhere'}; correct 'folder' in the list of datasets."
    )


def test_names_that_cannot_be_files_or_occur_again_are_changed():
    names = ["a/b", "a-b", "a", "a", "a", "ü", "x" * 200, "x" * 201]
    utterances = [Utterance(name, Path("a"), "en", "") for name in names]
    ids = [one.id for one in with_file_names(utterances, Path("corpus"))]
    digests = {name: hashlib.sha256(name.encode()).hexdigest()[:8] for name in names}
    assert ids == [
        f"a-b-{digests['a/b']}", "a-b", "a", "a_2", "a_3", digests["ü"],
        f"{'x' * 90}-{digests['x' * 200]}", f"{'x' * 90}-{digests['x' * 201]}",
    ]  # fmt: skip
    fewer = with_file_names(utterances[:4], Path("corpus"))
    assert [one.id for one in fewer] == ids[:4]


# EuroParl-ST


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"target": "de"}, "No folder 'de' in {corpus}/en, which holds audios, it; correct"),
        ({"split": "dev"}, "No folder 'dev' in {corpus}/en/it, which holds test; correct"),
    ],
)
def test_directions_and_splits_of_europarl(tmp_path, changes, sentence):
    entry = put_europarl(tmp_path) | changes
    assert complaint(entry, tmp_path).startswith(sentence.format(corpus=tmp_path / "corpus"))


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("020 3.25 6.10", "020 3.25", "line 2: not of the form 'speech start end'"),
        ("3.25 6.10", "x 6.10", "line 2: 'x' is no time in seconds"),
        ("3.25 6.10", "-1 6.10", "line 2: '-1' is no time in seconds"),
        ("3.25 6.10", "6.10 6.10", "line 2: the segment ends at 6.1 s, not after 6.1 s"),
        ("020 3.25", "021 3.25", "line 2: no recording "),
    ],
)
def test_faulty_segments_of_europarl(tmp_path, old, new, words):
    entry = put_europarl(tmp_path)
    table = tmp_path / "corpus/en/it/test/segments.lst"
    change(table, old, new)
    assert complaint(entry, tmp_path).startswith(f"{table}, {words}")


def test_texts_that_are_not_parallel(tmp_path):
    entry = put_europarl(tmp_path)
    path = tmp_path / "corpus/en/it/test/segments.it"
    put(path, *ITALIAN, "")
    assert complaint(entry, tmp_path).startswith(f"{path} has 3 lines for the 2 segments of ")
    path.unlink()
    assert complaint(entry, tmp_path).startswith(f"{path} cannot be read (No such file")


@pytest.mark.parametrize("suffix", [".wav", ".ogg", ".mp3"])
def test_recordings_of_any_format(tmp_path, suffix):
    entry = put_europarl(tmp_path)
    flac = tmp_path / "corpus/en/audios/en.2008.1-020.flac"
    put_speech(flac.with_name(f"en.2008.1-020{suffix}"))
    flac.unlink()
    assert {one.path.suffix for one in read_dataset(entry, tmp_path)} == {suffix}


def test_aac_is_refused_with_the_command_that_converts_it(tmp_path):
    root = tmp_path / "my corpora"
    entry = put_europarl(root)
    audios = root / "corpus/en/audios"
    shutil.move(audios / "en.2008.1-020.flac", audios / "en.2008.1-020.m4a")
    assert complaint(entry, root).endswith(
        f"en.2008.1-020.m4a is AAC, which libsndfile does not read; convert the recordings with: "
        f'for f in \'{audios}\'/*.m4a; do ffmpeg -i "$f" "${{f%.m4a}}.flac"; done'
    )


def test_segments_without_translation_have_none(tmp_path):
    entry = put_europarl(tmp_path)
    change(tmp_path / "corpus/en/it/test/segments.it", ITALIAN[1], "")
    utterances = read_dataset(entry, tmp_path)
    assert utterances[1].translations == {}
    with pytest.raises(UserError, match=re.escape("(in another format, its text in 'it')")):
        select(utterances, parse_task("st-en-it"))


# MuST-C


MUST_C = Path("corpus/en-it/data/test/txt/test.yaml")


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("offset: 3.25", "ofset: 3.25", ", segment 2: no 'wav', 'offset' and 'duration'; "),
        ("offset: 3.250000", "offset: x", ", segment 2: 'x' is no time in seconds"),
        ("duration: 2.85", "duration: -2.85", ", segment 2: '-2.85' is no time in seconds"),
        ("duration: 2.850000", "duration: 0", ", segment 2: the segment ends at 3.25 s"),
        ("9, uW: 0, speaker_id: spk.1, wav: ted_1.wav}", "9}", ", segment 1: no 'wav',"),
        ("wav: ted_1.wav}", "wav: ted_2.wav}", ", segment 1: no recording "),
        ("- {duration: 2.85", "- [{duration: 2.85", ", line 3: not valid YAML"),
        ("- {", "- !!python/name:os.system {", ", line 1: not valid YAML"),
    ],
)
def test_faulty_segments_of_must_c(tmp_path, old, new, words):
    entry = put_must_c(tmp_path)
    change(tmp_path / MUST_C, old, new)
    assert complaint(entry, tmp_path).startswith(f"{tmp_path / MUST_C}{words}")


def test_must_c_with_other_content(tmp_path):
    entry = put_must_c(tmp_path)
    put(tmp_path / MUST_C, "segments: 2")
    assert "must be a list of segments" in complaint(entry, tmp_path)
    (tmp_path / MUST_C).unlink()
    assert "test.yaml cannot be read (No such file" in complaint(entry, tmp_path)
    assert "No folder 'en-de' in" in complaint(entry | {"target": "de"}, tmp_path)


# CoVoST 2


def test_covost_that_is_not_split_finds_its_sentences_in_common_voice(tmp_path):
    entry = put_covost(tmp_path)
    expected = read_dataset(entry, tmp_path)
    folder = tmp_path / "corpus"
    (folder / "covost_v2.en_it.test.tsv").unlink()
    rows = [f"{CLIPS[0]}.flac\t{ITALIAN[0]}\ttest", f"{CLIPS[1]}.flac\t{ITALIAN[1]}\ttest_covost"]
    put(folder / "covost_v2.en_it.tsv", "path\ttranslation\tsplit", *rows, "no.flac\tno\ttrain")
    assert "validated.tsv cannot be read" in complaint(entry, tmp_path)
    sentences = [f"x\t{name}.flac\t{text}" for name, text in zip(CLIPS, ENGLISH, strict=True)]
    put(folder / "validated.tsv", "client_id\tpath\tsentence", *reversed(sentences))
    assert read_dataset(entry, tmp_path) == expected
    put(folder / "validated.tsv", "client_id\tpath\tsentence", sentences[0])
    assert f"line 3: {CLIPS[1]}.flac is not in" in complaint(entry, tmp_path)
    assert "names no utterance" in complaint(entry | {"split": "dev"}, tmp_path)


@pytest.mark.parametrize("named", [".mp3", ""])
def test_clips_of_covost_may_have_been_converted(tmp_path, named):
    entry = put_covost(tmp_path)
    change(tmp_path / "corpus" / "covost_v2.en_it.test.tsv", ".flac", named)
    utterances = read_dataset(entry, tmp_path)
    assert [one.id for one in utterances] == CLIPS
    assert {one.path.suffix for one in utterances} == {".flac"}


def test_joined_covost_needs_no_other_table(tmp_path):
    entry = put_covost(tmp_path)
    expected = read_dataset(entry, tmp_path)
    own = tmp_path / "corpus" / "covost_v2.en_it.test.tsv"
    joined = own.with_name("covost_v2.en_it.tsv")
    own.rename(joined)
    change(joined, "client_id", "split")
    change(joined, "ab12", "test")
    assert read_dataset(entry, tmp_path) == expected


def test_variants_of_languages_are_languages_in_tasks(tmp_path):
    entry = put_covost(tmp_path) | {"target": "zh-CN"}
    table = tmp_path / "corpus" / "covost_v2.en_it.test.tsv"
    table.rename(table.with_name("covost_v2.en_zh-CN.test.tsv"))
    assert read_dataset(entry, tmp_path)[0].translations == {"zh": ITALIAN[0]}
    assert config_errors({"mine": entry | FACTS}, SCHEMA) == []


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("path\t", "file\t", "line 1: no column 'path'"),
        ("\tclient_id", "", "line 2: 4 values for 3 columns"),
        (CLIPS[1], "lost", "line 3: no recording "),
    ],
)
def test_faulty_tables_of_covost(tmp_path, old, new, words):
    entry = put_covost(tmp_path)
    table = tmp_path / "corpus" / "covost_v2.en_it.test.tsv"
    change(table, old, new)
    assert complaint(entry, tmp_path).startswith(f"{table}, {words}")


def test_a_missing_table_of_covost(tmp_path):
    entry = put_covost(tmp_path) | {"target": "de"}
    assert complaint(entry, tmp_path).startswith("Neither ")


# Kaldi


def test_kaldi_without_segments_has_whole_recordings(tmp_path):
    entry = put_kaldi(tmp_path)
    folder = tmp_path / "corpus"
    (folder / "segments").unlink()
    put(folder / "wav.scp", f"anna-talk-1 {folder / 'wav' / 'talk.wav'}")
    (one,) = read_dataset(entry, tmp_path)
    assert (one.id, one.transcript, one.offset, one.duration) == (KALDI_IDS[0], ENGLISH[0], 0, None)
    np.testing.assert_array_equal(one.read(RATE), soundfile.read(SPEECH, dtype="float32")[0])


def test_kaldi_names_the_language_of_each_utterance(tmp_path):
    entry = put_kaldi(tmp_path)
    del entry["language"]
    table = tmp_path / "corpus" / "utt2lang"
    assert complaint(entry, tmp_path).startswith(f"No file {table}; ")
    put(table, f"{KALDI_IDS[0]} en")
    assert complaint(entry, tmp_path).startswith(f"{table}: no line for utterance 'anna-talk-2'")
    put(table, f"{KALDI_IDS[0]} en", f"{KALDI_IDS[1]} Italian")
    assert complaint(entry, tmp_path).startswith(f"{table}, line 2: language 'Italian'")
    put(table, f"{KALDI_IDS[0]} en", f"{KALDI_IDS[1]} it")
    one, other = read_dataset(entry, tmp_path)
    assert (one.language, one.translations) == ("en", {"it": ITALIAN[0]})
    # text.it has what is said, not a translation.
    assert (other.language, other.translations) == ("it", {})


@pytest.mark.parametrize(
    ("file", "line", "words"),
    [
        ("wav.scp", "talk sph2pipe talk.sph |", "line 1: the recording comes from a command; "),
        ("wav.scp", "talk talk.wav", "line 1: no audio file "),
        ("segments", "anna-talk-1 talk 0.5", "line 1: not of the form"),
        ("segments", "anna-talk-1 walk 0.5 1", "line 1: no recording 'walk' in wav.scp"),
        ("segments", "anna-talk-1 talk 2 1", "line 1: the segment ends at 1 s"),
        ("segments", "a talk 0 1\na talk 1 2", "line 2: 'a' is there twice"),
    ],
)
def test_faulty_files_of_kaldi(tmp_path, file, line, words):
    entry = put_kaldi(tmp_path)
    put(tmp_path / "corpus" / file, line)
    assert complaint(entry, tmp_path).startswith(f"{tmp_path / 'corpus' / file}, {words}")


@pytest.mark.parametrize("file", ["wav.scp", "text"])
def test_missing_files_of_kaldi(tmp_path, file):
    entry = put_kaldi(tmp_path)
    (tmp_path / "corpus" / file).unlink()
    assert complaint(entry, tmp_path).startswith(f"{tmp_path / 'corpus' / file} cannot be read")


# Through the workflow


def planned(entry, root, tasks=("asr-en",)):
    """Plan the tiny model on a corpus, described in the configuration itself."""
    config = read_yaml(ROOT / "config/config.yaml")
    folder = str(root / entry["folder"])
    config["datasets"] = {"mine": entry | FACTS | {"folder": folder}}
    config["models"] = {"many": MODEL}
    config["runs"] = [{"dataset": "mine", "models": ["many"], "tasks": list(tasks)}]
    return plan(config | {"shard_size": 1}, ROOT).runs


def test_a_plan_has_the_tasks_of_the_corpus(corpus):
    entry, root, name = corpus
    runs = planned(entry, root, ("asr-en", "st-en-it"))
    assert [task for _, _, task in runs] == ["asr-en", "st-en-it"]
    for run in runs.values():
        assert run.shards == {"0000": IDS[name][:1], "0001": IDS[name][1:]}
    (transcribed, translated) = runs.values()
    assert transcribed.audio_sha256("0000") == translated.audio_sha256("0000")
    assert transcribed.references_sha256() != translated.references_sha256()


def test_other_times_are_other_audio(tmp_path):
    entry = put_europarl(tmp_path)
    (before,) = planned(entry, tmp_path).values()
    change(tmp_path / "corpus/en/it/test/segments.lst", "3.25 6.10", "3.25 6.05")
    (after,) = planned(entry, tmp_path).values()
    assert after.audio_sha256("0000") == before.audio_sha256("0000")
    assert after.audio_sha256("0001") != before.audio_sha256("0001")


def test_a_segment_behind_the_end_is_told_with_its_line(tmp_path):
    entry = put_europarl(tmp_path)
    table = tmp_path / "corpus/en/it/test/segments.lst"
    end = soundfile.info(SPEECH).duration
    change(table, "6.10", f"{end + 0.09:.2f}")
    assert not next(iter(planned(entry, tmp_path).values())).unusable
    change(table, f"{end + 0.09:.2f}", f"{end + 0.12:.2f}")
    (run,) = planned(entry, tmp_path).values()
    (told,) = run.unusable.values()
    assert told.startswith(f"{table}, line 2: ")


def test_a_recording_is_opened_once_for_all_its_segments(tmp_path, monkeypatch):
    entry = put_europarl(tmp_path)
    opened = []
    info = soundfile.info
    monkeypatch.setattr(soundfile, "info", lambda path: opened.append(path) or info(path))
    hashed = []
    sha256 = audio.file_sha256
    monkeypatch.setattr(audio, "file_sha256", lambda path: hashed.append(path) or sha256(path))
    (run,) = planned(entry, tmp_path).values()
    assert run.audio_sha256("0000") != run.audio_sha256("0001")
    assert len(opened) == len(hashed) == 1


def test_decoding_a_segment_is_decoding_a_file_that_holds_it(tmp_path):
    entry = put_europarl(tmp_path)
    folder = tmp_path / "corpus" / "en"
    spoken = {"whole": "north east south west east", "part": "south west east"}
    for name, text in spoken.items():
        write_speech(tmp_path / f"{name}.wav", text, seed=1)
    whole, rate = soundfile.read(tmp_path / "whole.wav", dtype="int16")
    first = round(0.4 * len(whole))
    soundfile.write(tmp_path / "part.wav", whole[first:], rate)
    (folder / "audios" / "en.2008.1-020.flac").unlink()
    shutil.copy(tmp_path / "whole.wav", folder / "audios" / "en.2008.1-020.wav")
    put(
        folder / "it" / "test" / "segments.lst",
        f"en.2008.1-020 0 {first / rate}",
        f"en.2008.1-020 {first / rate} {len(whole) / rate}",
    )
    cut = read_dataset(entry, tmp_path)[1]
    manual = Utterance(cut.id, tmp_path / "part.wav", "en", "")

    def decoded(utterance, name):
        place = Workplace(Handle(WordModel()), Store(tmp_path / "store"), tmp_path / name)
        decode_shard(place, [utterance], parse_task("asr-en"), beam=1)
        return load(tmp_path / name / f"{cut.id}.npz", "decode")

    one, other = decoded(cut, "cut"), decoded(manual, "manual")
    assert str(one["text"]) == spoken["part"]
    assert one.arrays.keys() == other.arrays.keys()
    for name in one.arrays:
        np.testing.assert_array_equal(one[name], other[name])
    # Found again by file, offset and duration: two segments never share an entry of the store.
    assert one.meta["audio_sha256"] != other.meta["audio_sha256"]
