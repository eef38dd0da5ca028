"""Import what takes seconds while the first page is being read, not when it is needed."""

from __future__ import annotations

import gc
import time
from functools import cache
from threading import Event, Thread

_ready = Event()


@cache  # any visitor can have the app's own caches cleared, and what is frozen twice is what visitors left behind: for good
def warm_up(delay: float = 1.0) -> Thread:
    """Begin in a thread after ``delay`` seconds, in which a first page can be drawn; returns the thread at once. Once in a process."""
    thread = Thread(target=_import_all, args=[delay], name="cfrec-warm-up", daemon=True)
    thread.start()
    return thread


def is_warm() -> bool:
    """Whether everything is imported."""
    return _ready.is_set()


def _import_all(delay: float) -> None:
    time.sleep(delay)
    try:
        import plotly.graph_objects  # noqa: F401
        import pyarrow.csv  # noqa: F401
        import sklearn.decomposition  # noqa: F401

        import cfrec.adam  # noqa: F401
        from cfrec.training import prepare

        prepare()
    finally:  # what could not be imported fails again where it is used, and is explained there
        _ready.set()
    # What is imported by now stays for good: collectors that look through it again and again would hold up all visitors.
    gc.collect()
    gc.freeze()
