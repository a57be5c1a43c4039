import logging
import sys
import warnings

import pytest

from s2txai import log
from s2txai.errors import UserError
from s2txai.log import Progress, duration, logger, logging_to


@pytest.fixture
def path(tmp_path):
    return tmp_path / "logs" / "step.log"  # the folder does not exist yet


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr(log, "time", clock)
    return clock


def test_messages_go_to_file_and_terminal(path, capsys):
    with logging_to(path):
        logger.info("loading %s", "tiny")
        logging.getLogger("s2txai.saliency.segments").warning("merged")
    text = path.read_text()
    assert "INFO loading tiny" in text
    assert "WARNING merged" in text
    assert "loading tiny" in capsys.readouterr().err


def test_a_new_run_starts_a_new_file(path):
    for message in ("first", "second"):
        with logging_to(path):
            logger.info(message)
    assert "first" not in path.read_text()


def test_nothing_is_logged_afterwards(path, capsys):
    before = list(logger.handlers)
    with logging_to(path):
        pass
    logger.warning("too late")
    assert "too late" not in path.read_text()
    assert logger.handlers == before


def test_user_errors_are_sentences(path, capsys):
    with pytest.raises(SystemExit) as caught, logging_to(path):
        raise UserError("config: no such model; choose another.")
    assert caught.value.code == 1
    for text in (path.read_text(), capsys.readouterr().err):
        assert "ERROR config: no such model; choose another." in text
        assert "Traceback" not in text


def test_other_errors_are_logged_with_their_origin(path):
    with pytest.raises(ZeroDivisionError), logging_to(path):
        1 / 0  # noqa: B018
    text = path.read_text()
    assert "Traceback" in text
    assert "ZeroDivisionError" in text


def test_warnings_of_libraries_are_kept(path):
    shown = warnings.showwarning
    with logging_to(path):
        warnings.warn("old option", UserWarning, stacklevel=1)
    assert "old option" in path.read_text()
    assert warnings.showwarning is shown


def test_progress_tells_rate_and_time_left(path, clock):
    with logging_to(path), Progress("smx u1", 480, "masks") as progress:
        clock.now += 4
        progress.add(16)  # too soon for a line
        clock.now += 12
        progress.add(16)
        clock.now += 3
        progress.add(16)
        clock.now += 9
        progress.add(16)
    lines = [line.split("INFO ")[1] for line in path.read_text().splitlines()]
    assert lines == [
        "smx u1: 32/480 masks, 2.00 masks/s, 3 min 44 s left",
        "smx u1: 64/480 masks, 2.29 masks/s, 3 min 02 s left",
        "smx u1: 64 masks in 28 s (2.29 masks/s)",
    ]


def test_no_work_is_not_reported(path):
    with logging_to(path), Progress("smx u1", 0, "masks"):
        pass
    assert path.read_text() == ""


def test_work_in_no_time(path, clock):
    with logging_to(path), Progress("decode", 1, "utterances") as progress:
        progress.add(1)
    assert "decode: 1 utterances in 0 s" in path.read_text()


def test_a_terminal_shows_a_bar_and_no_progress_lines(path, clock, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with logging_to(path), Progress("smx u1", 4, "masks") as progress:
        clock.now += 20
        progress.add(2)
        logger.info("something else")
    shown = capsys.readouterr().err
    assert "something else" in shown
    assert "left" not in shown
    assert "2/4 masks" in path.read_text()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (200, "3 min 20 s"),
        (3599.6, "1 h 00 min"), (7500, "2 h 05 min"), (100 * 3600, "100 h 00 min"),
    ],
)  # fmt: skip
def test_duration(seconds, text):
    assert duration(seconds) == text
