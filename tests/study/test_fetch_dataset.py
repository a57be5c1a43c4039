"""Datasets of the Hugging Face hub; a folder of Parquet files stands for the hub."""

import io
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow
import pytest
import soundfile
from pyarrow import parquet

from s2txai import cli
from s2txai.datasets import parse_task, read_manifest, select
from s2txai.errors import UserError
from s2txai.study import fetch_dataset
from s2txai.study.fetch_dataset import HubDataset, split_files

PROMPTS = Path(__file__).resolve().parents[2] / "resources" / "speech" / "prompts"
REVISION = "0123456789abcdef" * 2 + "01234567"
WANTED = HubDataset(
    "owner/talks", REVISION, "test", "it", audio="audio", text="sentence",
    translations={"en": "english"},
)  # fmt: skip
AUDIO = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])


def wav(path):
    samples, rate = soundfile.read(path)
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format="WAV")
    return buffer.getvalue()


ROWS = [
    {
        "audio": {"bytes": (PROMPTS / "tt-weasels.it.flac").read_bytes(), "path": "weasels.flac"},
        "sentence": "Le donnole hanno\tmangiato\n il nostro sistema",
        "english": "Weasels have eaten our system",
        "speaker": 1,
    },
    {
        "audio": {"bytes": wav(PROMPTS / "vm-nobodyavail.it.flac"), "path": "x/nobody (1).wav"},
        "sentence": "Al momento nessuno",
        "english": None,
        "speaker": 2,
    },
    {
        "audio": {"bytes": (PROMPTS / "ss-noservice.it.flac").read_bytes(), "path": None},
        "sentence": "Il numero che ha digitato",
        "english": "The number you have dialed",
        "speaker": 3,
    },
]


@pytest.fixture
def hub(tmp_path):
    """A function that writes rows as files of the dataset; returns arguments that read them."""
    root = tmp_path / "hub"

    def write(*files, audio=AUDIO):
        for number, rows in enumerate(files):
            path = root / "data" / f"test-{number:05d}-of-{len(files):05d}.parquet"
            path.parent.mkdir(parents=True, exist_ok=True)
            table = pyarrow.table(
                {
                    "audio": pyarrow.array([row["audio"] for row in rows], audio),
                    **{
                        column: [row[column] for row in rows]
                        for column in ("sentence", "english", "speaker")
                    },
                }
            )
            parquet.write_table(table, path)
        return {"listing": listing, "download": download}

    def listing(repo, revision):
        assert (repo, revision) == ("owner/talks", REVISION)
        files = (file for file in root.rglob("*") if file.is_file())
        return ["README.md", *(file.relative_to(root).as_posix() for file in files)]

    def download(repo, revision, name):
        assert (repo, revision) == ("owner/talks", REVISION)
        return root / name

    return write


def fetch(wanted, output, functions):
    return fetch_dataset.fetch_dataset(wanted, output, **functions)


def test_recordings_and_manifest_are_those_of_the_hub(hub, tmp_path):
    output = tmp_path / "talks"
    assert fetch(WANTED, output, hub(ROWS[:2], ROWS[2:])) == 3
    utterances = read_manifest(output / "manifest.tsv")
    assert utterances[0].id == "weasels"
    assert re.fullmatch(r"nobody-1--[0-9a-f]{8}", utterances[1].id)
    assert re.fullmatch(r"[0-9a-f]{16}", utterances[2].id)
    assert utterances[0].transcript == "Le donnole hanno mangiato il nostro sistema"
    assert [one.translations.get("en") for one in utterances] == [row["english"] for row in ROWS]
    assert select(utterances, parse_task("asr-it")) == utterances
    assert [one.path.suffix for one in utterances] == [".flac", ".wav", ".flac"]
    names = ("tt-weasels", "vm-nobodyavail", "ss-noservice")
    for one, name in zip(utterances, names, strict=True):
        samples, rate = soundfile.read(PROMPTS / f"{name}.it.flac", dtype="float32")
        np.testing.assert_allclose(one.read(rate), samples, atol=2**-15)


def test_only_what_is_asked_for_is_downloaded(hub, tmp_path):
    functions = hub(ROWS)
    other = tmp_path / "hub" / "data" / "train-00000-of-00001.parquet"
    other.write_bytes(b"never read")
    wanted = replace(WANTED, translations={})
    fetch(wanted, tmp_path / "talks", functions)
    header = (tmp_path / "talks" / "manifest.tsv").read_text("utf-8").splitlines()[0]
    assert header.split("\t") == ["id", "path", "language", "transcript"]


def test_a_folder_that_exists_is_kept(hub, tmp_path):
    (tmp_path / "talks").mkdir()
    with pytest.raises(UserError, match="exists already"):
        fetch(WANTED, tmp_path / "talks", hub(ROWS))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"audio": "adio"}, "no column 'adio'; did you mean 'audio'? Choose one of: audio, "),
        ({"audio": "sentence"}, "row 1: column 'sentence' holds no recording"),
        ({"text": "speaker"}, "row 1: column 'speaker' holds no text"),
        ({"split": "dev"}, "owner/talks has no Parquet files of split 'dev'; "),
        ({"folder": "other"}, "no Parquet files of split 'test' in other; "),
    ],
)
def test_wrong_names_are_refused_and_leave_nothing(hub, tmp_path, changes, words):
    with pytest.raises(UserError, match=re.escape(words)):
        fetch(replace(WANTED, **changes), tmp_path / "made" / "talks", hub(ROWS))
    assert not list(tmp_path.glob("made/*"))


def test_unusable_recordings_are_refused_with_their_row(hub, tmp_path):
    for number, (recording, words) in enumerate(
        [
            ({"bytes": None, "path": "a.wav"}, "holds no recording"),
            ({"bytes": b"noise", "path": "a.wav"}, "the recording cannot be read"),
        ]
    ):
        functions = hub([ROWS[0], ROWS[1] | {"audio": recording}])
        with pytest.raises(UserError, match=f"parquet, row 2: .*{words}"):
            fetch(WANTED, tmp_path / str(number), functions)


def test_files_that_are_no_parquet_are_refused(hub, tmp_path):
    functions = hub(ROWS)
    (tmp_path / "hub" / "data" / "test-00000-of-00001.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match="is no readable Parquet file"):
        fetch(WANTED, tmp_path / "talks", functions)


@pytest.mark.parametrize(
    ("names", "folder", "files"),
    [
        (["test.parquet", "train.parquet"], None, ["test.parquet"]),
        (["test-00000-of-00001-ab12.parquet"], None, ["test-00000-of-00001-ab12.parquet"]),
        (["a/test/1.parquet", "a/test/0.parquet"], None, ["a/test/0.parquet", "a/test/1.parquet"]),
        (["a/test/0.parquet", "b/test/0.parquet"], "b", ["b/test/0.parquet"]),
        (["data/test-00000-of-00001.parquet", "data/test-other-00000-of-00001.parquet"], None,
         ["data/test-00000-of-00001.parquet"]),
    ],
)  # fmt: skip
def test_files_of_a_split(names, folder, files):
    assert split_files(replace(WANTED, folder=folder), names) == files


def test_a_split_in_several_folders_needs_a_choice():
    with pytest.raises(UserError, match="several folders; choose one with --folder: a, b"):
        split_files(WANTED, ["a/test/0.parquet", "b/test/0.parquet"])


def test_revisions_and_languages_are_checked():
    with pytest.raises(UserError, match="Revision 'main' is not the full hash"):
        replace(WANTED, revision="main")
    with pytest.raises(UserError, match="Language 'English'"):
        replace(WANTED, translations={"English": "english"})


ARGUMENTS = [
    "fetch-dataset", "owner/talks", "--split", "test", "--revision", REVISION,
    "--text-column", "sentence", "--language", "it", "--translation", "en=english",
]  # fmt: skip


def test_the_command_prints_the_entry(hub, tmp_path, monkeypatch, capsys):
    functions = hub(ROWS)
    real = fetch_dataset.fetch_dataset
    asked = []

    def fetched(wanted, output):
        asked.append(wanted)
        return real(wanted, output, **functions)

    monkeypatch.setattr(fetch_dataset, "fetch_dataset", fetched)
    assert cli.main([*ARGUMENTS, "--output", str(tmp_path / "talks")]) == 0
    assert asked == [WANTED]
    printed = capsys.readouterr().out
    assert printed.startswith("3 utterances.")
    assert f"talks:\n  manifest: {tmp_path / 'talks' / 'manifest.tsv'}\n" in printed


def test_mistakes_on_the_command_line(tmp_path, capsys):
    with pytest.raises(SystemExit):
        cli.main([*ARGUMENTS, "--output", str(tmp_path), "--translation", "en"])
    assert "'en' is not of the form LANGUAGE=COLUMN" in capsys.readouterr().err


def test_help_does_not_wait_for_the_hub():
    code = (
        "import sys; from s2txai import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print(*{'huggingface_hub', 's2txai.study.fetch_dataset'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == ""
