"""The server's log: a line a record, and no more lines than someone can read, even if somebody tries to fill the disk with them.

No line tells who is here or where things are: anyone who knows the id of a session can take it over.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import sysconfig
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from threading import Lock

_LINE = "%(asctime)s %(levelname)s %(name)s: %(message)s"
_MOST, _SECONDS = 20, 10.0  # records of one logger in this many seconds
_LONGEST = 1_000  # characters of a message
_FRAMES = 6  # of a traceback, the innermost
_SESSION = re.compile(r"[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}|\b(?:request|expected)=[0-9a-f]{8}\b")
_FOLDERS = [  # what lies in them is named without them
    f"{folder}{os.sep}"
    for folder in (sysconfig.get_path("purelib"), sysconfig.get_path("stdlib"), Path(__file__).parent.parent, Path.home())
]


def tidy(record: logging.LogRecord) -> None:
    """Make a record one line of bounded length, with the places that an error passed, and without sessions and folders."""
    try:
        message = record.getMessage()[:_LONGEST]
    except Exception:  # noqa: BLE001  # arguments that do not fit, in whatever library: it is not to fall over its log
        message = str(record.msg)[:_LONGEST]
    if record.exc_info and (error := record.exc_info[1]):
        frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
        places = " > ".join(f"{frame.filename}:{frame.lineno}" for frame in frames)
        message = f"{message}: {type(error).__name__}: {str(error)[:_LONGEST]} ({places})"
    record.exc_info = record.exc_text = record.stack_info = None
    for folder in _FOLDERS:
        message = message.replace(folder, "")
    printable = "".join(c if c.isprintable() else " " for c in _SESSION.sub("(a session)", message))
    record.msg, record.args = " ".join(printable.split()), None


class RateLimit(logging.Filter):
    """Lets through, tidied, at most ``most`` records of a logger in ``seconds``; the next one says how many were left out."""

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
                start, passed = now, 0
            allowed = passed < self._most
            self._windows[record.name] = (start, passed + allowed, 0 if allowed else left_out + 1)
        if allowed:
            tidy(record)
            record.msg += f" ({left_out:,} records before this one were left out)" if left_out else ""
        return allowed


def set_up(limit: RateLimit | None = None) -> None:
    """Write cfrec's records to stderr, from INFO up, and put all loggers of the process under one limit each. Once for a process."""
    shared = limit or RateLimit()
    own, handler = logging.getLogger("cfrec"), logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(_LINE))
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
