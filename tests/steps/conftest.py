"""A study whose steps are all done, and one that is about to begin."""

from types import SimpleNamespace

import pytest

from tests.studies import Study, write_corpus
from tests.toy import WordModel


@pytest.fixture(scope="session")
def finished(tmp_path_factory):
    """All steps, once. Tests that run more steps work on a copy of the store."""
    root = tmp_path_factory.mktemp("finished")
    study = Study(root, write_corpus(root), WordModel())
    study.everything()
    return SimpleNamespace(root=root, study=study)


@pytest.fixture
def study(tmp_path):
    return Study(tmp_path, write_corpus(tmp_path), WordModel())
