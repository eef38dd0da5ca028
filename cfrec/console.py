"""The terminal: tables, one JSON document, progress on stderr, and Ctrl-C."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any

import pandas as pd
from tqdm import tqdm

from cfrec.trained import EpochMetrics

_STDERR = 2


def show(message: str) -> None:
    """Say something beside the result, on stderr. That nobody listens there must not end a training."""
    with contextlib.suppress(BrokenPipeError):
        tqdm.write(message, file=sys.stderr)


def print_json(document: object) -> None:
    """The one JSON document of a command, on stdout."""
    print(json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False))


def records(table: pd.DataFrame) -> Any:
    """A table's rows as JSON objects; missing values are null."""
    return json.loads(table.to_json(orient="records", double_precision=6, force_ascii=False))


def print_table(table: pd.DataFrame) -> None:
    """A table on stdout: text to the left, numbers to the right."""
    columns = [[name, *map(_cell, table[name].tolist())] for name in table.columns]
    right = [pd.api.types.is_numeric_dtype(table[name]) for name in table.columns]
    widths = [max(map(len, column)) for column in columns]
    for row in zip(*columns, strict=True):
        cells = [cell.rjust(w) if r else cell.ljust(w) for cell, w, r in zip(row, widths, right, strict=True)]
        print("  ".join(cells).rstrip())


def _cell(value: object) -> str:
    if value is pd.NA or value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


@contextmanager
def epoch_progress(n_epochs: int) -> Iterator[Callable[[EpochMetrics], None]]:
    """A bar over epochs on a terminal, a line an epoch otherwise."""
    if not sys.stderr.isatty():
        line = "epoch {epoch}/{of}  train {train_loss:.4f}  valid {valid_loss:.4f}  {seconds:.2f} s  {ratings_per_second:,.0f} ratings/s"
        yield lambda m: show(line.format(of=n_epochs, **asdict(m)))
        return
    with tqdm(total=n_epochs, unit="epoch", leave=False) as bar:

        def advance(m: EpochMetrics) -> None:
            bar.set_postfix_str(f"train {m.train_loss:.4f}, valid {m.valid_loss:.4f}")
            bar.update()

        yield advance


@contextmanager
def download_progress(name: str) -> Iterator[Callable[[int, int], None] | None]:
    """A bar over bytes on a terminal; nothing otherwise, as the download's start and end are told in lines."""
    if not sys.stderr.isatty():
        yield None
        return
    with tqdm(desc=name, unit="B", unit_scale=True, leave=False) as bar:

        def advance(done: int, total: int) -> None:
            bar.total = total or None
            bar.update(done - bar.n)

        yield advance


@contextmanager
def stop_on_interrupt() -> Iterator[threading.Event]:
    """An event that the first Ctrl-C, or SIGTERM, sets; the second Ctrl-C interrupts as usual."""
    stop = threading.Event()

    def on_signal(*_: object) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        with contextlib.suppress(OSError):  # past sys.stderr, in the midst of whose own writing the signal may have come
            os.write(_STDERR, b"\nStopping: the best so far is kept.\n")

    if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
        yield stop
        return
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
