"""Hostile frames and requests, and visitors who vanish: the server goes on, tells nothing it should not, and takes no more than before."""

from __future__ import annotations

import asyncio
import re
import resource
import statistics
import sysconfig
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

import pytest
from streamlit.proto.BackMsg_pb2 import BackMsg

from tests.crowd import come_and_vanish
from tests.promises.attacks import Target, choose_attacks, commit
from tests.promises.counts import counted
from tests.server import ROOT, Server, Usage, serve
from tests.web import request
from tests.wire import Visitor

pytestmark = pytest.mark.slow  # a new server needs seconds until it can train

AT_ONCE = 16  # attackers
LINES_A_SECOND, LONGEST_LINE = 20, 10_000  # bytes: of a log that is not flooded
GONE_SOON = ["--server.disconnectedSessionTTL", "1"]  # seconds
OWN = "data=A+file+of+your+own"
UPLOADER = "A table of ratings"
TABLE = b"user,movie,rating\n1,2,3\n1,3,4\n2,2,5\n2,3,1\n"
MAIN = f"{ROOT}/streamlit_app.py".encode()  # Streamlit tells every browser the path of the script that it runs

TALKATIVE = """
import sys
import before
import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

st.write(before.sessions)
print(before.sessions, file=sys.stderr, flush=True)
before.sessions.append(get_script_run_ctx().session_id)
open(__file__ + " is not there")
"""

HOARDING = """
import threading, time
import kept
import streamlit as st

thread = threading.Thread(target=time.sleep, args=[60], daemon=True)
thread.start()
kept.kept.append((bytearray(b"x") * 100_000, open(__file__), thread))
st.write("Hello")
"""


class Listener:
    """Looks for what nobody should be told, in all that is sent: folders, tracebacks, and ids of sessions."""

    def __init__(self, *sessions: str, folder: Path = ROOT) -> None:
        told = [str(folder), "site-packages", sysconfig.get_path("stdlib"), "Traceback (most recent call last)", *sessions]
        self._wanted = re.compile(b"|".join(re.escape(secret.encode()) for secret in told))
        self._sessions = {session.encode() for session in sessions}
        self.found: set[bytes] = set()
        self.gained: set[str] = set()

    def found_in(self, data: bytes) -> set[bytes]:
        """What is in these bytes that should not be."""
        return {b"a session" if found in self._sessions else found for found in self._wanted.findall(data.replace(MAIN, b""))}

    def hear(self, data: bytes) -> None:
        """Look into one thing that was sent."""
        self.found |= self.found_in(data)


async def page_time(url: str) -> float:
    """Seconds, the median of five, until a new visitor sees a page."""
    times = []
    for _ in range(5):
        async with Visitor(url) as visitor:
            times.append(await visitor.open("/similar"))
            assert visitor.exceptions == []
    return statistics.median(times)


@asynccontextmanager
async def half_open(url: str, n: int) -> AsyncIterator[None]:
    """Connections that say nothing, or half of a request, and stay."""
    where, held = urlsplit(url), []
    try:
        for k in range(n):
            _, writer = await asyncio.open_connection(where.hostname, where.port)
            held.append(writer)
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-Slow: " if k % 2 else b"")
        yield
    finally:
        for writer in held:
            writer.close()


async def attack(target: Target, n: int) -> None:
    """Commit n attacks, so many at a time, beside a tenth as many sockets that are held half open."""
    queue = iter(choose_attacks(Random(n), n))

    async def worker(seed: int) -> None:
        random = Random(seed)
        for each in queue:
            await commit(each, random, target)

    async with half_open(target.url, n // 10):
        await asyncio.gather(*(worker(seed) for seed in range(AT_ONCE)))


async def attack_beside_somebody(server: Server, n: int) -> Listener:
    """Somebody brings a table before the attacks, and finds all as it was after them; what the attackers were told."""
    async with Visitor(server.url) as somebody:
        await somebody.open(f"/train?{OWN}")
        await somebody.see(UPLOADER)
        file = await somebody.upload(UPLOADER, "mine.csv", TABLE)
        usual, session = await page_time(server.url), somebody.page.session
        listener = Listener(session)
        await attack(Target(server.url, session, file, listener.hear, listener.gained.add), n)
        assert (await request(server.url, "/_stcore/health", patience=1)).status == 200
        assert await page_time(server.url) < 2 * usual + 0.1
        await somebody.go("Train", OWN)
        assert "4 ratings by 2 people of 2 films" in somebody.page.text()
        assert (somebody.page.session, somebody.exceptions) == (session, [])
    return listener


@pytest.fixture(scope="module")
def app(tmp_path_factory):
    with serve(tmp_path_factory.mktemp("traffic")) as server:
        yield server


@counted(sample=150, full=10_000)
def test_hostile_traffic_neither_breaks_nor_learns_anything(app, n):
    before, began = app.log.stat().st_size, time.monotonic()
    listener = asyncio.run(attack_beside_somebody(app, n))
    assert (listener.found, listener.gained) == (set(), set())
    lines = app.log.read_bytes()[before:].splitlines()
    assert len(lines) < LINES_A_SECOND * (time.monotonic() - began + 10)
    assert max(map(len, lines)) < LONGEST_LINE
    assert Listener().found_in(b"\n".join(lines)) == set()


def test_no_visitor_can_make_the_server_forget_its_runs(app):
    """Streamlit clears the caches of all visitors when a browser asks for it, whatever its menu shows."""

    async def clear_while_another_has_a_run() -> str:
        async with Visitor(app.url) as trainer, Visitor(app.url) as other:
            await trainer.open(f"/train?{OWN}")
            await trainer.see(UPLOADER)
            await trainer.upload(UPLOADER, "mine.csv", TABLE)
            await trainer.click("Train")
            await trainer.see("Use this model")
            await other.open("/")
            await other.send(BackMsg(clear_cache=True))
            await other.rerun()
            await trainer.rerun()
            return trainer.page.text()

    assert "Use this model" in asyncio.run(clear_while_another_has_a_run())


def test_an_app_that_tells_too_much_is_found_out(tmp_path):
    """Negative control: errors are shown with all details, and the id of whoever came before is written on the page and to the log."""
    (tmp_path / "before.py").write_text("sessions = []\n")
    (tmp_path / "app.py").write_text(TALKATIVE)

    async def look(server: Server) -> tuple[set[bytes], set[bytes]]:
        async with Visitor(server.url) as first, Visitor(server.url) as second:
            await first.open("/")
            await second.open("/")
            listener = Listener(first.page.session, folder=tmp_path)
            return listener.found_in(b"".join(second.received)), listener.found_in(server.log.read_bytes())

    with serve(tmp_path, script=tmp_path / "app.py", options=["--client.showErrorDetails", "full"]) as server:
        told, logged = asyncio.run(look(server))
    assert {b"Traceback (most recent call last)", b"a session"} <= logged
    assert {str(tmp_path).encode(), b"a session"} <= told


async def end_those_who_left(url: str) -> None:
    """Their time is up after a second; they are cleared away when the next one leaves."""
    await asyncio.sleep(1.5)
    async with Visitor(url, keep=False) as visitor:
        await visitor.open("/")
    await asyncio.sleep(1)


async def usage_around(server: Server, n: int) -> tuple[Usage, Usage, Usage]:
    """What a server takes before, just after, and some time after n visitors have vanished; others did before."""
    await come_and_vanish(server.url, 150)
    await end_those_who_left(server.url)
    before = server.usage()
    await come_and_vanish(server.url, n)
    during = server.usage()
    await end_those_who_left(server.url)
    return before, during, server.usage()


async def is_ready(url: str) -> None:
    """Wait until all is imported."""
    async with Visitor(url, keep=False) as visitor:
        await visitor.open("/train")
        await visitor.see("What to train")


@counted(sample=200, full=2_000)
def test_visitors_who_vanish_leave_nothing(tmp_path, n):
    """Streamlit keeps up to 128 of them for two minutes; here for one second, so that it can be seen that they go."""
    with serve(tmp_path, options=GONE_SOON) as server:
        asyncio.run(is_ready(server.url))
        before, during, after = asyncio.run(usage_around(server, n))
    assert after.megabytes - before.megabytes < 5 * n / 100
    assert after.threads <= before.threads + 4
    assert after.descriptors <= before.descriptors + 4
    assert during.descriptors > before.descriptors + 20, "it was not seen that they take any"


def test_an_app_that_keeps_something_of_each_visitor_is_found_out(tmp_path):
    """Negative control: a tenth of a megabyte, a thread and a file a run."""
    (tmp_path / "kept.py").write_text("kept = []\n")
    (tmp_path / "app.py").write_text(HOARDING)
    with serve(tmp_path, script=tmp_path / "app.py", options=GONE_SOON) as server:
        before, _, after = asyncio.run(usage_around(server, 100))
    assert after.megabytes - before.megabytes > 5
    assert after.threads >= before.threads + 100
    assert after.descriptors >= before.descriptors + 100


def test_a_thousand_idle_connections_lock_nobody_out(tmp_path):
    """A process may open 1,024 files on most machines, unless it asks for more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (1_024, hard))
    try:
        with serve(tmp_path) as server:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))

            async def look_beside_them() -> float:
                await page_time(server.url)
                async with half_open(server.url, 1_000):
                    return await page_time(server.url)

            assert asyncio.run(look_beside_them()) < 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
