"""T1: a run whose server ends, politely or not, goes on from where it was when the server is back."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable

import numpy as np
import psutil
import pytest

import cfrec
from cfrec.checkpoints import unfinished_runs
from tests.server import serve
from tests.wire import Visitor

pytestmark = pytest.mark.slow  # each starts a server twice

FORM = "data=A+file+of+your+own&recipe=Quick&epochs_quick=1000&n_factors_quick=64&choice_weight_quick=0.0"
UPLOAD = "A table of ratings"


@pytest.fixture(scope="module")
def table() -> bytes:
    """As many ratings as two threads share."""
    random = np.random.default_rng(0)
    users, movies, stars = random.integers(3_000, size=200_000), random.integers(900, size=200_000), random.integers(1, 6, size=200_000)
    return "\n".join(["user,movie,rating", *(f"{u},{m},{s}" for u, m, s in zip(users, movies, stars, strict=True))]).encode()


async def start_a_run(url: str, table: bytes) -> None:
    async with Visitor(url) as visitor:
        await visitor.open(f"/train?{FORM}")
        await visitor.see("Ratings to learn from")
        await visitor.upload(UPLOAD, "own.csv", table)
        await visitor.see("**own")
        await visitor.click("Train")
        await visitor.see("round 2")


async def resume(url: str, table: bytes) -> None:
    async with Visitor(url) as visitor:
        await visitor.open(f"/train?{FORM}")
        await visitor.see("A run was cut short")
        await visitor.upload(UPLOAD, "own.csv", table)
        await visitor.see("**own")
        label = next(button for button in visitor.page.text().split("\n") if button.startswith("Resume from round"))
        await visitor.click(label)
        await visitor.see("Stop and keep the best")
        await visitor.click("Stop and keep the best")
        await visitor.see("The new model against the current one")


def end(pid: int, how: signal.Signals) -> float:
    """Send the server a signal; the seconds until it is gone."""
    began, process = time.monotonic(), psutil.Process(pid)
    os.kill(pid, how)
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        assert time.monotonic() < began + 20, "the server does not end"
        time.sleep(0.02)
    return time.monotonic() - began


def until(condition: Callable[[], bool]) -> None:
    latest = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < latest, "it never came"
        time.sleep(0.1)


@pytest.mark.parametrize("how", [pytest.param(signal.SIGINT, marks=pytest.mark.stress), signal.SIGTERM, signal.SIGKILL])
def test_a_run_goes_on_after_its_server_has_ended(how, table, tmp_path):
    with serve(tmp_path) as server:
        asyncio.run(start_a_run(server.url, table))
        if how == signal.SIGKILL:  # of which it hears nothing: what counts is the last checkpoint
            until(lambda: any((server.models / ".unfinished").glob("*/manifest.json")))
        assert end(server.pid, how) < 12
        log = server.log.read_text()
        assert "Traceback" not in log
        until(lambda: bool(unfinished_runs(server.models)))  # the last threads of a killed process may take a moment
        [checkpoint] = unfinished_runs(server.models)
        learned = cfrec.load_model(checkpoint.folder)
        assert len(learned.history) >= 1
    with serve(tmp_path) as server:
        asyncio.run(resume(server.url, table))
        assert unfinished_runs(server.models) == []
