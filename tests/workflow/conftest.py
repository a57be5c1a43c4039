import shutil

import pytest

from tests.weights import model_directory
from tests.workflow.project import Project


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """The project after the one real run that all tests share. Do not change it: copy it."""
    project = Project.new(tmp_path_factory.mktemp("finished"))
    # A finished download, as a user's second run finds it.
    models = project.folder / "resources" / "models"
    shutil.copytree(model_directory("whisper-tiny.en"), models / "whisper-tiny.en")
    done = project.snakemake()
    assert done.returncode == 0, done.stdout + done.stderr
    return project


@pytest.fixture
def project(finished, tmp_path):
    """A copy of the finished project, for one test to change."""
    return finished.copy(tmp_path)
