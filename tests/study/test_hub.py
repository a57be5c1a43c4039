"""Downloads from the Hugging Face hub; a cache on disk and a local port stand for it."""

import hashlib
import logging

import huggingface_hub
import pytest

from s2txai.errors import UserError
from s2txai.study import hub

REVISION = "0" * 40
LARGE, SMALL = b"weights" * 1000, b"{}"


def git_sha1(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def test_the_small_checksum_is_that_of_git():
    # `printf '{}' | git hash-object --stdin`
    assert git_sha1(SMALL) == "9e26dfeeb6e641a33dae4961196235bdb965b21b"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A function that puts files into a cache as the hub's library does, and returns the links."""
    snapshot = tmp_path / "models--a--b" / "snapshots" / REVISION
    blobs = tmp_path / "models--a--b" / "blobs"
    for folder in (snapshot, blobs):
        folder.mkdir(parents=True)

    def put(name, data, stated):
        (blobs / stated).write_bytes(data)
        (snapshot / name).symlink_to(f"../../blobs/{stated}")
        return snapshot / name

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(snapshot))
    return put


def download():
    return hub.download_snapshot("a/b", REVISION, ["*.safetensors", "config.json"])


def test_files_are_those_that_the_hub_states(cache):
    weights = cache("model.safetensors", LARGE, sha256(LARGE))
    cache("config.json", SMALL, git_sha1(SMALL))
    # Another program's: neither asked for nor looked at.
    cache("pytorch_model.bin", b"x", "0" * 64)
    assert download() == weights.parent


@pytest.mark.parametrize(
    ("name", "data", "stated"),
    [
        ("model.safetensors", LARGE[:-1] + b"S", sha256(LARGE)),  # one letter
        ("model.safetensors", LARGE[:-1], sha256(LARGE)),  # the download broke off
        ("config.json", SMALL + b" ", git_sha1(SMALL)),
        ("config.json", b"", git_sha1(SMALL)),
    ],
)
def test_changed_files_are_refused(cache, name, data, stated):
    file = cache(name, data, stated)
    with pytest.raises(UserError, match=f"{name} has the checksum .*, not {stated} as the hub"):
        download()
    with pytest.raises(UserError, match="not"):
        hub.check_cached(file)


def test_data_that_repositories_share_are_checked_too(cache, tmp_path):
    """Then the cache links a second time, to a name that is another checksum."""
    file = cache("model.safetensors", LARGE, sha256(LARGE))
    shared = tmp_path / ("1" * 64)
    file.resolve().rename(shared)
    (tmp_path / "models--a--b" / "blobs" / sha256(LARGE)).symlink_to(shared)
    download()
    shared.write_bytes(LARGE + b"x")
    with pytest.raises(UserError, match="as the hub states"):
        download()


def test_files_without_a_checksum_are_refused(cache, tmp_path):
    plain = tmp_path / "config.json"
    plain.write_bytes(SMALL)
    with pytest.raises(UserError, match="states no checksum"):
        hub.check_cached(plain)
    file = cache("config.json", SMALL, "etag-of-a-mirror")
    with pytest.raises(UserError, match="states no checksum"):
        hub.check_cached(file)


def test_a_file_of_a_data_set_is_checked(cache, monkeypatch):
    file = cache("test.parquet", LARGE, sha256(LARGE))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda *_, **__: str(file))
    assert hub.download_file("a/b", REVISION, "test.parquet") == file
    file.resolve().write_bytes(SMALL)
    with pytest.raises(UserError, match="as the hub states"):
        hub.download_file("a/b", REVISION, "test.parquet")


REQUESTS = {
    "snapshot_download": download,
    "list_repo_files": lambda: hub.list_files("a/b", REVISION),
    "hf_hub_download": lambda: hub.download_file("a/b", REVISION, "test.parquet"),
}


@pytest.fixture(params=REQUESTS)
def failing(request, monkeypatch):
    """A function that fails a request with an error; it returns the sentence."""

    def fail_with(error):
        def refuse(*_, **__):
            logging.getLogger("huggingface_hub.utils").warning("%s, trying again", error)
            raise error

        owner = huggingface_hub.HfApi if request.param == "list_repo_files" else huggingface_hub
        monkeypatch.setattr(owner, request.param, refuse)
        with pytest.raises(UserError) as caught:
            REQUESTS[request.param]()
        return str(caught.value)

    return fail_with


def test_an_unreachable_hub_is_one_sentence(failing):
    told = failing(OSError("no route\nto host"))
    assert "\n" not in told
    assert f"a/b at revision {REVISION} could not be fetched" in told
    assert "(no route); check the network" in told


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("HF_ENDPOINT", "http://me:s3cret@host", "refused: HEAD http://me:s3cret@host/a/b"),
        # Not quoted: what is read as the port is half of it.
        ("HTTPS_PROXY", "http://me:s3cr/et@host", "Invalid port: 's3cr'"),
        ("HF_TOKEN", "hf_s3cret", "Illegal header value b'Bearer hf_s3cret'"),
    ],
)
def test_secrets_are_in_neither_sentence_nor_log(
    monkeypatch, failing, capsys, variable, value, said
):
    monkeypatch.setenv(variable, value)
    handler = logging.StreamHandler()
    monkeypatch.setattr(logging.getLogger("huggingface_hub"), "handlers", [handler])
    told = failing(ConnectionError(said))
    logged = capsys.readouterr().err
    assert "****" in told
    assert "****, trying again" in logged.replace("'", "").replace("@host/a/b", "")
    assert "s3cr" not in told + logged
    assert not handler.filters
