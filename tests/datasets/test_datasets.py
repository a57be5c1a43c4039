import re
from pathlib import Path

import pytest

from s2txai.datasets import (
    Task,
    Utterance,
    Word,
    parse_task,
    read_alignment,
    read_manifest,
    reference,
    select,
    shards,
)
from s2txai.datasets.alignment import EVIDENCE
from s2txai.errors import UserError
from s2txai.study.config import load_datasets

ROOT = Path(__file__).parents[2]
HEADER = "id\tpath\tlanguage\ttranscript\ttranslation_en"


@pytest.fixture
def manifest(tmp_path):
    """A function that writes lines as a manifest beside an audio file a.wav."""
    (tmp_path / "a.wav").write_bytes(b"")

    def write(*lines):
        path = tmp_path / "m.tsv"
        path.write_bytes("\n".join(lines).encode())
        return path

    return write


def test_manifest_is_read_in_order_with_paths_relative_to_it(manifest, tmp_path):
    path = manifest(
        "\ufeffid\tpath\tlanguage\ttranscript\ttranslation_en\ttranslation_de\tspeaker\r",
        'b\ta.wav\tit\tha detto "sì"\u2028 \the said "yes"\t\tAnna\r',
        "",
        f"a\t{tmp_path / 'a.wav'}\ten\tyes\t\tja\tBob\r",
    )
    audio = tmp_path / "a.wav"
    assert read_manifest(path) == [
        Utterance("b", audio, "it", 'ha detto "sì"', {"en": 'he said "yes"'}),
        Utterance("a", audio, "en", "yes", {"de": "ja"}),
    ]


ROW = "a\ta.wav\ten\tyes\t"


@pytest.mark.parametrize(
    ("lines", "line", "words"),
    [
        ([""], 1, "no column 'id'"),
        (["id\tpath\tlanguage", ROW], 1, "no column 'transcript'"),
        ([HEADER + "\tid", ROW + "\ta"], 1, "column 'id' occurs twice"),
        ([HEADER + "\ttranslation_EN", ROW + "\t"], 1, "'translation_EN' must end"),
        ([HEADER], 2, "no utterance"),
        ([HEADER, ROW, "", ROW], 4, "already used in line 2"),
        ([HEADER, "a\ta.wav\ten\tyes"], 2, "4 values for 5 columns"),
        ([HEADER, "a\t\ten\tyes\t"], 2, "'path' is empty"),
        ([HEADER, "a/b\ta.wav\ten\tyes\t"], 2, "id 'a/b' cannot name a file"),
        ([HEADER, "a" * 101 + "\ta.wav\ten\tyes\t"], 2, "cannot name a file"),
        ([HEADER, "a\ta.wav\tEnglish\tyes\t"], 2, "language 'English'"),
        ([HEADER, "a\tb.wav\ten\tyes\t"], 2, "no audio file"),
    ],
)
def test_faulty_manifest_is_refused_with_file_and_line(manifest, lines, line, words):
    path = manifest(*lines)
    with pytest.raises(UserError, match=re.escape(f"{path}, line {line}: ")) as caught:
        read_manifest(path)
    assert words in str(caught.value)


ALIGNED = "id\tpath\tlanguage\ttranscript\talignment\talignment_evidence"


def test_alignments_are_optional_row_by_row(manifest, tmp_path):
    (tmp_path / "a.tsv").write_text("")
    path = manifest(ALIGNED, "a\ta.wav\ten\tyes\ta.tsv\thand", "b\ta.wav\ten\tyes\t\t")
    first, second = read_manifest(path)
    assert (first.alignment, first.alignment_evidence) == (tmp_path / "a.tsv", "hand")
    assert (second.alignment, second.alignment_evidence) == (None, "")


@pytest.mark.parametrize(
    ("cells", "words"),
    [
        ("b.tsv\thand", "no alignment file"),
        ("\thand", "alignment_evidence is 'hand', but no alignment"),
        ("a.wav\tguess", "'guess' must be one of hand, reference, machine"),
        ("a.wav\t", "'' must be one of"),
    ],
)
def test_faulty_alignment_columns_are_refused(manifest, cells, words):
    path = manifest(ALIGNED, f"a\ta.wav\ten\tyes\t{cells}")
    with pytest.raises(UserError, match=re.escape(f"{path}, line 2: ")) as caught:
        read_manifest(path)
    assert words in str(caught.value)


TIERS = "tier\tstart_s\tend_s\tlabel"


def test_words_of_an_alignment(tmp_path):
    path = tmp_path / "a.align.tsv"
    path.write_text(
        f"{TIERS}\nphone\t0\t0.05\tY\nword\t0.0\t0.25\tyes\r\nword\t0.25\t1\t\n\nword\t1\t2\tno\n"
    )
    assert read_alignment(path) == [Word("yes", 0.0, 0.25), Word("no", 1.0, 2.0)]


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["tier\tstart_s\tend_s"], "line 1: no column 'label'"),
        ([TIERS, "word\t0.5\t0.4\tyes"], "line 2: 'yes' lasts from 0.5 to 0.4 s"),
        ([TIERS, "word\t-1\t0.4\tyes"], "line 2: 'yes' lasts from -1"),
        ([TIERS, "word\tnan\t0.4\tyes"], "line 2: 'yes' lasts from nan"),
        ([TIERS, "word\t0,5\t1\tyes"], "line 2: times must be numbers"),
        ([TIERS, "word\t0\t1"], "line 2: 3 values for 4 columns"),
        ([TIERS, "word\t0\t1\tyes", "word\t0.9\t2\tno"], "line 3: 'no' begins at 0.9 s, before"),
        ([TIERS, "phone\t0\t1\tY"], "no row of tier 'word'"),
    ],
)
def test_faulty_alignments_are_refused(tmp_path, lines, words):
    path = tmp_path / "a.align.tsv"
    path.write_text("\n".join(lines))
    with pytest.raises(UserError, match=re.escape(words)):
        read_alignment(path)


def test_unreadable_alignments_are_refused(tmp_path):
    path = tmp_path / "a.align.tsv"
    with pytest.raises(UserError, match="cannot be read"):
        read_alignment(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="line 1: not UTF-8"):
        read_alignment(path)


def test_other_encodings_and_missing_manifests_are_refused(tmp_path):
    path = tmp_path / "m.tsv"
    with pytest.raises(UserError, match="cannot be read"):
        read_manifest(path)
    path.write_bytes(HEADER.encode() + b"\na\ta.wav\tit\tperch\xe9\t\n")
    with pytest.raises(UserError, match=r"line 2: not UTF-8"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("asr-en", Task("asr", "en", "en")),
        ("asr-haw", Task("asr", "haw", "haw")),
        ("st-it-en", Task("st", "it", "en")),
    ],
)
def test_task_names_round_trip(name, task):
    assert parse_task(name) == task
    assert task.name == name


@pytest.mark.parametrize(
    "name", ["asr", "asr-", "asr-en-it", "st-it", "mt-it-en", "asr-EN", "st-it-it"]
)
def test_malformed_task_names_are_refused(name):
    with pytest.raises(UserError, match=f"Task '{name}'"):
        parse_task(name)


UTTERANCES = [
    Utterance("i1", Path("a"), "it", "uno", {"en": "one"}),
    Utterance("e1", Path("a"), "en", "two"),
    Utterance("i2", Path("a"), "it", "tre", {"en": "three", "de": "drei"}),
    Utterance("f1", Path("a"), "fr", ""),
]


def names(utterances):
    return [utterance.id for utterance in utterances]


def test_selection_keeps_the_source_language_in_manifest_order():
    assert names(select(UTTERANCES, parse_task("asr-it"))) == ["i1", "i2"]
    assert names(select(UTTERANCES, parse_task("st-it-en"), ["i2", "i1"])) == ["i1", "i2"]
    assert names(select(UTTERANCES, parse_task("st-it-de"), ["i2"])) == ["i2"]


@pytest.mark.parametrize(
    ("task", "ids", "words"),
    [
        ("asr-it", ["i11"], "Unknown utterance 'i11'; did you mean 'i1'?"),
        ("asr-it", ["e1"], "is in 'en'"),
        ("asr-es", None, "speech in: en, fr, it"),
        ("asr-it", [], "No utterance is selected"),
        (
            "st-it-de",
            None,
            "'i1' has no reference for task st-it-de; fill in column 'translation_de'",
        ),
        ("asr-fr", None, "column 'transcript'"),
    ],
)
def test_impossible_selections_are_refused(task, ids, words):
    with pytest.raises(UserError, match=re.escape(words)):
        select(UTTERANCES, parse_task(task), ids)


def test_reference_is_transcript_or_translation():
    assert reference(UTTERANCES[0], parse_task("asr-it")) == "uno"
    assert reference(UTTERANCES[0], parse_task("st-it-en")) == "one"


def test_shards_cut_the_ids_in_order():
    assert shards(list("abcde"), 2) == {"0000": ["a", "b"], "0001": ["c", "d"], "0002": ["e"]}
    with pytest.raises(UserError, match="at least 1"):
        shards(["a"], 0)
    with pytest.raises(UserError, match="at least 3"):
        shards([str(number) for number in range(20_001)], 2)


def test_shipped_data_sets_are_complete_and_small():
    datasets = load_datasets(ROOT / "config" / "datasets.yaml")
    manifests = {
        name: read_manifest(ROOT / entry["manifest"])
        for name, entry in datasets.items()
        if "manifest" in entry
    }
    assert len(select(manifests["librivox"], parse_task("asr-en"))) == 5
    evidence = {one.alignment_evidence for one in manifests["aligned"] + manifests["librivox"]}
    assert evidence == set(EVIDENCE)
    for task in ("asr-it", "asr-es", "asr-en", "st-it-en", "st-es-en"):
        assert len(select(manifests["prompts"], parse_task(task))) >= 3
    files = [file for file in (ROOT / "resources" / "speech").rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 4e6
