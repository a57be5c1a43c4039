"""Messages and progress of long work, on the terminal and in the step's log file."""

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tqdm import tqdm

from s2txai.errors import UserError

logger = logging.getLogger("s2txai")
_progress_logger = logging.getLogger("s2txai.progress")

SECONDS_BETWEEN_LINES = 10.0


@contextmanager
def logging_to(path: Path) -> Iterator[None]:
    """Send messages and uncaught exceptions to a file and to stderr.

    A :class:`~s2txai.errors.UserError` is logged as its sentence and ends the process with status
    1; any other exception is logged with its traceback and raised again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    file, terminal = logging.FileHandler(path, mode="w"), logging.StreamHandler(sys.stderr)
    # A terminal shows a bar instead of progress lines.
    terminal.addFilter(lambda record: record.name != _progress_logger.name or not _has_terminal())
    for handler in (file, terminal):
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", "%H:%M:%S"))
        logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logging.captureWarnings(True)
    logging.getLogger("py.warnings").addHandler(file)
    try:
        yield
    except UserError as error:
        logger.error("%s", error)
        raise SystemExit(1) from None
    except Exception:
        logger.exception("Unexpected error")
        raise
    finally:
        for handler in (file, terminal):
            logger.removeHandler(handler)
        logging.captureWarnings(False)
        logging.getLogger("py.warnings").removeHandler(file)
        file.close()


def _has_terminal() -> bool:
    return sys.stderr.isatty()


class Progress:
    """Counts work and reports its rate and the remaining time.

    A bar where stderr is a terminal, and lines in the log every ten seconds.

    Parameters
    ----------
    label
        What is being worked on.
    total
        Units of work in all.
    unit
        Name of a unit, in the plural ("masks").
    """

    def __init__(self, label: str, total: int, unit: str) -> None:
        self._label, self._total, self._unit = label, total, unit
        self._amount = 0
        self._started = self._reported = time.monotonic()
        self._bar = tqdm(
            total=total, desc=label, unit=f" {unit}", disable=not _has_terminal(), leave=False
        )

    def add(self, amount: int) -> None:
        """Count ``amount`` more units of work."""
        self._amount += amount
        self._bar.update(amount)
        now = time.monotonic()
        if now - self._reported >= SECONDS_BETWEEN_LINES:
            self._reported = now
            rate = self._amount / (now - self._started)
            remaining = (self._total - self._amount) / rate
            _progress_logger.info(
                "%s: %d/%d %s, %.2f %s/s, %s left",
                self._label, self._amount, self._total, self._unit, rate, self._unit,
                duration(remaining),
            )  # fmt: skip

    def close(self) -> None:
        """End the bar and log the total."""
        self._bar.close()
        # Work that is found in the store takes no time that every clock can measure.
        seconds = max(time.monotonic() - self._started, 1e-3)
        if self._amount:
            _progress_logger.info(
                "%s: %d %s in %s (%.2f %s/s)",
                self._label, self._amount, self._unit, duration(seconds),
                self._amount / seconds, self._unit,
            )  # fmt: skip

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def duration(seconds: float) -> str:
    """Return seconds as ``45 s``, ``3 min 20 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
