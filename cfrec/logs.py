"""The server's log: a line a record, and no more lines than someone can read, whoever tries to fill the disk with them."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from threading import Lock

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MOST, _SECONDS = 20, 10.0  # records of one logger in so many seconds
_LONGEST = 2_000  # characters of a message


class RateLimit(logging.Filter):
    """Lets through at most ``most`` records of a logger in ``seconds``; the next that comes through says how many were left out."""

    def __init__(self, most: int = _MOST, seconds: float = _SECONDS, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._most, self._seconds, self._clock = most, seconds, clock
        self._lock = Lock()
        self._windows: dict[str, tuple[float, int, int]] = {}  # logger -> start of its window, records let through, records left out

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to write the record."""
        with self._lock:
            now = self._clock()
            start, passed, left_out = self._windows.get(record.name, (now, 0, 0))
            if now >= start + self._seconds:
                if left_out:
                    record.msg, record.args = f"{record.getMessage()} ({left_out:,} records before this one were left out)", None
                start, passed, left_out = now, 0, 0
            allowed = passed < self._most
            self._windows[record.name] = (start, passed + allowed, left_out + (not allowed))
            return allowed


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        return text if record.exc_info else text.replace("\r", " ").replace("\n", " ")[:_LONGEST]


def set_up(limit: RateLimit | None = None) -> None:
    """Write cfrec's records to stderr, from INFO up, and put all loggers of the process under one limit each. Once for a process."""
    shared = limit or RateLimit()
    own, handler = logging.getLogger("cfrec"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(_LINE))
    own.addHandler(handler)
    own.setLevel(logging.INFO)
    own.propagate = False

    class Limited(logging.getLoggerClass()):  # type: ignore[misc]  # whatever class loggers have had until now
        """A logger that is made from now on."""

        def __init__(self, name: str, level: int = logging.NOTSET) -> None:
            super().__init__(name, level)
            self.addFilter(shared)

    logging.setLoggerClass(Limited)
    for logger in [logging.getLogger(), *logging.getLogger().manager.loggerDict.values()]:
        if isinstance(logger, logging.Logger):
            logger.addFilter(shared)
