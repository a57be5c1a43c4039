"""pyproject.toml, requirements.lock and environment.yml say the same."""

import re
import tomllib
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
PINS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["dev"]]
ENVIRONMENT = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))


def canonical(name):
    return re.sub("[-_.]+", "-", name).lower()


def locked():
    """Return the versions of the lock file: one a package, or several for different platforms."""
    versions = {}
    for line in (ROOT / "requirements.lock").read_text("utf-8").splitlines():
        requirement = line.split("#")[0].split(";")[0].strip()
        if requirement:
            name, found = requirement.split("==")
            versions.setdefault(canonical(name), []).append(found.strip())
    return versions


@pytest.mark.parametrize("pin", PINS)
def test_pins_are_exact_and_in_the_lock(pin):
    name, _, wanted = pin.partition("==")
    assert re.fullmatch(r"[0-9][0-9A-Za-z.+]*", wanted), "pin an exact version"
    assert locked().get(canonical(name)) == [wanted], "run `make lock`"


@pytest.mark.parametrize("pin", PINS)
def test_these_versions_are_what_is_tested(pin):
    name, _, wanted = pin.partition("==")
    assert version(name).partition("+")[0] == wanted


def test_build_requirements_are_in_the_lock():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    for requirement in project["build-system"]["requires"]:
        name, _, wanted = requirement.partition("==")
        assert locked()[canonical(name)] == [wanted]


def test_torch_and_torchaudio_go_together():
    assert locked()["torch"] == locked()["torchaudio"]


def test_conda_environment_installs_the_lock():
    *packages, through_pip = ENVIRONMENT["dependencies"]
    assert ENVIRONMENT["name"] == PROJECT["name"]
    # No second list of versions that could drift from the lock.
    assert through_pip == {"pip": ["-r requirements.lock", "-e ."]}
    assert packages[1:] == ["pip"]


def test_conda_environment_has_a_python_that_the_project_supports():
    python = ENVIRONMENT["dependencies"][0]
    lowest = re.fullmatch(r">=(3\.[0-9]+)", PROJECT["requires-python"])[1]
    assert python == f"python={lowest}"


@pytest.mark.parametrize("pin", PROJECT["optional-dependencies"]["slurm"])
def test_pins_of_the_cluster_are_exact(pin):
    """Not in the lock: nobody without a cluster needs them."""
    name, _, wanted = pin.partition("==")
    assert re.fullmatch(r"[0-9][0-9A-Za-z.+]*", wanted), "pin an exact version"
    assert canonical(name) not in locked()
