"""The Hugging Face hub: what comes from it is checked, and what goes wrong is one sentence."""

import fnmatch
import hashlib
import logging
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from s2txai.errors import UserError
from s2txai.hashing import file_sha256
from s2txai.study.redact import without_secrets

_SHA256 = re.compile("[0-9a-f]{64}")
_GIT_SHA1 = re.compile("[0-9a-f]{40}")
_BLOCK = 1 << 20  # bytes read at a time


def download_snapshot(repo: str, revision: str, patterns: Sequence[str]) -> Path:
    """Download a model of the hub into the hub's own cache, and check its files.

    Parameters
    ----------
    repo
        ``owner/name``.
    revision
        Hash of the commit.
    patterns
        Of the names of the files, which lie at the top of the repository.

    Returns
    -------
    Path
        The folder of this revision in the cache.

    Raises
    ------
    UserError
        If the hub cannot be reached and the cache lacks the model, the hub does not have it, or a
        file is not the one that the hub states.
    """
    # Imported here, since it takes half a second that other sources need not spend.
    from huggingface_hub import snapshot_download

    otherwise = "copy the model here and give its folder as 'path' in the table of models"
    with _asking(repo, revision, otherwise):
        folder = Path(snapshot_download(repo, revision=revision, allow_patterns=list(patterns)))
    for file in sorted(folder.iterdir()):
        if any(fnmatch.fnmatch(file.name, pattern) for pattern in patterns):
            check_cached(file)
    return folder


def list_files(repo: str, revision: str) -> list[str]:
    """Return the names of the files of a dataset on the hub.

    Raises
    ------
    UserError
        If the hub cannot be reached or does not have it.
    """
    from huggingface_hub import HfApi

    with _asking(repo, revision, _COPY_DATASET):
        return list(HfApi().list_repo_files(repo, repo_type="dataset", revision=revision))


def download_file(repo: str, revision: str, name: str) -> Path:
    """Download a file of a dataset into the hub's own cache, and check it.

    Raises
    ------
    UserError
        As :func:`download_snapshot`.
    """
    from huggingface_hub import hf_hub_download

    with _asking(repo, revision, _COPY_DATASET):
        file = Path(hf_hub_download(repo, name, repo_type="dataset", revision=revision))
    check_cached(file)
    return file


_COPY_DATASET = "fetch it on a machine that has them and copy the folder here"


def check_cached(file: Path) -> None:
    """Compare a file of the hub's cache with the checksum that the hub stated when it was fetched.

    The cache has a link under the file's name to data whose name is that checksum: sha256 of large
    files, and git's SHA-1 of small ones.

    Raises
    ------
    UserError
        If they differ, or there is no such checksum.
    """
    expected = file.readlink().name if file.is_symlink() else ""
    if _SHA256.fullmatch(expected):
        actual = file_sha256(file)
    elif _GIT_SHA1.fullmatch(expected):
        actual = _git_sha1(file)
    else:
        raise UserError(
            f"The hub's cache states no checksum of {file}; put the cache (HF_HOME) on a "
            "file system with symbolic links, and take the hub itself, not a mirror without "
            "checksums."
        )
    if actual != expected:
        raise UserError(
            f"{file} has the checksum {actual}, not {expected} as the hub states; delete "
            f"{file.resolve()} and fetch again, and if that does not help, do not trust its source."
        )


def _git_sha1(file: Path) -> str:
    """Return the name that git gives to a file's content."""
    # The hub's choice, not ours.
    digest = hashlib.sha1(usedforsecurity=False)
    digest.update(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as stream:
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _asking(repo: str, revision: str, otherwise: str) -> Iterator[None]:
    """Turn what the hub's library raises into a sentence, and keep secrets out of what it logs."""
    from huggingface_hub import get_token

    def redact(record: logging.LogRecord) -> bool:
        record.msg, record.args = without_secrets(record.getMessage(), get_token()), ()
        return True

    handlers = logging.getLogger("huggingface_hub").handlers
    for handler in handlers:
        handler.addFilter(redact)
    try:
        yield
    # Its errors come from several libraries, and the list changes with the version.
    except Exception as error:
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise UserError(
            f"{repo} at revision {revision} could not be fetched from the Hugging Face hub "
            f"({without_secrets(reason, get_token())}); check the network, the names and your "
            f"access, or {otherwise}."
        ) from error
    finally:
        for handler in handlers:
            handler.removeFilter(redact)
