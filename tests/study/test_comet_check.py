"""COMET is refused while planning where something is missing."""

from pathlib import Path

import pytest

from s2txai.datasets import Utterance, parse_task
from s2txai.errors import UserError
from s2txai.study.comet_check import check_comet
from tests.analysis.test_comet import checkpoint, package  # noqa: F401

TASK = parse_task("st-it-en")


def utterances(*transcripts):
    return [Utterance(f"it-{n}", Path("it.wav"), "it", text) for n, text in enumerate(transcripts)]


def test_without_the_package_it_is_refused(checkpoint):  # noqa: F811
    with pytest.raises(UserError, match="or leave 'comet' out"):
        check_comet(checkpoint, TASK, utterances("uno"))


@pytest.mark.usefixtures("package")
def test_the_plan_finds_what_is_missing(tmp_path, checkpoint):  # noqa: F811
    check_comet(checkpoint, TASK, utterances("uno", "due"))
    with pytest.raises(UserError, match=r"no file .*none\.ckpt; name the checkpoint"):
        check_comet(tmp_path / "none.ckpt", TASK, utterances("uno"))
    with pytest.raises(UserError, match="'it-1' has no transcript"):
        check_comet(checkpoint, TASK, utterances("uno", ""))
