"""D4: a download is whole and known, or it is not used; nothing of it stays in the cache."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
import requests

import cfrec
from cfrec import datasets
from cfrec.errors import DownloadError
from tests.promises.counts import counted

logger = logging.getLogger(__name__)

Answer = Callable[[socket.socket, int], None]
MOST_SECONDS = 5.0
KNOWN, UNKNOWN = "ml-1m", "ml-latest-small"  # with a published checksum, and without
HTML = b"<!DOCTYPE html><title>Maintenance</title>"
ROWS = "".join(f"{k % 9 + 1},{k % 31},{k % 5}.5,{k}\n" for k in range(2_000))


def packed(rows: str) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo("ml/ratings.csv"), "userId,movieId,rating,timestamp\n" + rows)
    return buffer.getvalue()


GOOD = packed(ROWS)
OTHER = packed(ROWS.replace("0.5", "1.5"))  # whole, and not the one that is known
CHANGED = GOOD.replace(b"1,0,0.5", b"1,0,9.5")  # the archive's own checksum is wrong


def reply(body: bytes, *headers: str, status: str = "200 OK", length: int | str | None = -1) -> Answer:
    """An answer with a length of its own choice: by default the true one, and none at all for None."""
    size = [] if length is None else [f"Content-Length: {len(body) if length == -1 else length}"]
    head = "\r\n".join([f"HTTP/1.1 {status}", "Connection: close", *size, *headers]) + "\r\n\r\n"
    return lambda connection, _: connection.sendall(head.encode() + body)


def redirect(to: str) -> Answer:
    return lambda connection, port: reply(b"", f"Location: {to.format(port=port)}", status="302 Found")(connection, port)


def stall(connection: socket.socket, _: int) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + GOOD[:50])
    connection.recv(1)  # until the other side gives up


def say_nothing(connection: socket.socket, _: int) -> None:
    connection.recv(1)


def never_end(connection: socket.socket, _: int, *head: str) -> None:
    connection.sendall("\r\n".join([f"HTTP/1.1 {head[0] if head else '200 OK'}", *head[1:], "", ""]).encode())
    while True:
        connection.sendall(GOOD)


def reset(connection: socket.socket, _: int) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # so that closing it is not a polite end


class Server:
    """A server in GroupLens' place that answers whatever it is told to, down to the byte."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.paths: list[str] = []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection = self.listener.accept()[0]
            except OSError:  # it is closed: the test is over
                return
            threading.Thread(target=self._answer, args=[connection], daemon=True).start()

    def _answer(self, connection: socket.socket) -> None:
        with connection:
            request = connection.recv(65536).decode()
            path = request.partition(" ")[2].partition(" ")[0] or "/"
            self.paths.append(path)
            try:
                self.answers.get(path, self.answers["*"])(connection, self.port)
            except OSError:  # the client is gone, as it should be
                return

    def close(self) -> None:
        with contextlib.suppress(OSError):  # closed already
            self.listener.shutdown(socket.SHUT_RDWR)  # or the thread that waits would take one more
        self.listener.close()


@pytest.fixture
def server(monkeypatch, cache) -> Iterator[Server]:
    server = Server()
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))  # before it tries again
    monkeypatch.setattr(datasets, "_PATIENCE", (0.2, 0.2))
    monkeypatch.setattr(datasets.Dataset, "url", property(lambda self: f"http://127.0.0.1:{server.port}/{self.archive}"))
    for name, checksum in ((KNOWN, hashlib.md5(GOOD).hexdigest()), (UNKNOWN, None)):
        monkeypatch.setitem(datasets.DATASETS, name, datasets.Dataset(name, "MovieLens", 2003, 1, 1, 1, len(GOOD), checksum))
    yield server
    server.close()


ANSWERS = {
    "cut": reply(GOOD[:-1000], length=len(GOOD)),
    "cut, and no length given": reply(GOOD[:-1000], length=None),
    "reset": reset,
    "stalls": stall,
    "says nothing": say_nothing,
    "never ends": never_end,
    "a length too small": reply(GOOD, length=len(GOOD) - 1000),
    "a length too large": reply(GOOD, length=len(GOOD) + 1000),
    "a broken chunk": reply(b"zz\r\n" + GOOD, "Transfer-Encoding: chunked", length=None),
    "chunks that stop": reply(b"%x\r\n" % len(GOOD) + GOOD[:-1000], "Transfer-Encoding: chunked", length=None),
    "a page with 200": reply(HTML),
    "404": reply(HTML, status="404 Not Found"),
    "500": reply(HTML, status="500 Internal Server Error"),
    "the archive with 500": reply(GOOD, status="500 Internal Server Error"),
    "nothing with 200": reply(b""),
    "204": reply(b"", status="204 No Content"),
    "not HTTP at all": lambda connection, _: connection.sendall(b"SSH-2.0-x\r\n"),
    "a wrong checksum inside": reply(CHANGED),
    "twice": reply(GOOD + GOOD[:-1]),
    "squeezed": reply(GOOD[:-1], "Content-Encoding: gzip"),
    "to a file": redirect("file:///etc/hostname"),
    "to a page on another host": redirect("http://localhost:{port}/page"),
    "to nowhere": redirect("http://localhost:1/x"),
    "to no address": redirect("http://[::1"),
    "in a loop": redirect("/loop"),
    "a redirect to a page, with no end of its own": lambda connection, port: never_end(connection, port, "302 Found", "Location: /page"),
}
FINE = {
    "whole": reply(GOOD),
    "whole, and no length given": reply(GOOD, length=None),
    "whole, with a length in words": reply(GOOD, length="many"),
    "whole, with a negative length": reply(GOOD, length="-7"),
    "whole, on another host": redirect("http://localhost:{port}/good"),
    "whole, after a redirect that is cut": reply(b"x", "Location: /good", status="302 Found", length=100),
    "whole, in chunks": reply(b"%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n", "Transfer-Encoding: chunked", length=None),
}


def leftovers(home: Path) -> list[str]:
    return [str(path.relative_to(home)) for path in home.rglob("*")]


def refusal(name: str, home: Path) -> str:
    """The message with which fetching is refused; nothing is left then, and it did not take long."""
    started = time.monotonic()
    with pytest.raises(DownloadError) as caught:
        cfrec.load_dataset(name)
    assert time.monotonic() - started < MOST_SECONDS
    assert leftovers(home) == []
    assert datasets.find_local(name) is None
    return str(caught.value)


def serve(server: Server, answer: Answer) -> None:
    server.answers = {"*": answer, "/page": reply(HTML), "/good": reply(GOOD)}


@pytest.mark.parametrize("dataset", [KNOWN, UNKNOWN])
@pytest.mark.parametrize("answer", ANSWERS)
def test_what_is_not_whole_is_not_used_and_the_error_says_what_to_put_where(server, cache, dataset, answer):
    serve(server, ANSWERS[answer])
    message = refusal(dataset, cache)
    assert f"Get {dataset}.zip from {datasets.PAGE}" in message
    assert f"put it into {cache}" in message
    assert len(message) < 500 + len(str(cache))
    assert len(server.paths) <= 2 * (requests.models.DEFAULT_REDIRECT_LIMIT + 1)  # it is tried twice


@pytest.mark.parametrize("dataset", [KNOWN, UNKNOWN])
@pytest.mark.parametrize("answer", FINE)
def test_what_is_whole_is_used_and_is_there_without_a_connection(server, cache, dataset, answer):
    """Negative control of the test above, which would pass if nothing were ever used."""
    serve(server, FINE[answer])
    assert cfrec.load_dataset(dataset).report.n_rows == 2_000
    assert leftovers(cache) == [f"{dataset}.zip"]
    server.close()
    n_requests = len(server.paths)
    again = cfrec.load_dataset(dataset)
    assert again.report.n_rows == 2_000
    assert len(again) == 9 * 31  # pairs
    assert len(server.paths) == n_requests


def test_without_a_connection_the_error_says_what_to_put_where(server, cache):
    server.close()
    for name in (KNOWN, UNKNOWN):
        assert f"Get {name}.zip from {datasets.PAGE} on a machine with a connection and put it into {cache}" in refusal(name, cache)
    cache.joinpath(f"{KNOWN}.zip").write_bytes(GOOD)
    assert cfrec.load_dataset(KNOWN).report.n_rows == 2_000


def test_a_whole_archive_that_is_not_the_known_one_is_not_used(server, cache):
    serve(server, reply(OTHER))
    assert "does not have the published checksum" in refusal(KNOWN, cache)
    assert cfrec.load_dataset(UNKNOWN).report.n_rows == 2_000


def test_a_redirect_never_leaves_https(server, cache, monkeypatch):
    """Or whoever sits between could answer in GroupLens' name: two releases have no checksum to tell."""
    monkeypatch.setattr(datasets.Dataset, "url", property(lambda self: f"https://example.org/{self.archive}"))
    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", lambda _, request, **__: answered(request, "http://example.com/x.zip"))
    assert "it leads to an address that is not safe" in refusal(UNKNOWN, cache)
    monkeypatch.setattr("requests.adapters.HTTPAdapter.send", lambda _, request, **__: answered(request, "https://example.com/x.zip"))
    assert cfrec.load_dataset(UNKNOWN).report.n_rows == 2_000  # negative control


def answered(request: requests.PreparedRequest, leads_to: str) -> requests.Response:
    """A redirect to that address, and there the archive."""
    response = requests.Response()
    response.request, response.url = request, request.url
    response.status_code, response.headers["Location"] = (200 if request.url == leads_to else 302), leads_to
    response.raw = SimpleNamespace(read1=io.BytesIO(GOOD).read1, close=lambda: None)
    return response


def faulty(seed: int) -> bytes:
    """The answer with the whole archive, cut or changed somewhere."""
    rng = random.Random(seed)
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(GOOD)}\r\nConnection: close\r\n\r\n".encode()
    data = bytearray(head + GOOD)
    at = rng.randrange(len(data)) if rng.random() < 0.7 else rng.randrange(len(head))
    kind = rng.choice(["cut", "flip", "out", "in"])
    if kind == "cut":
        del data[at:]
    elif kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "out":
        del data[at : at + rng.choice([1, 100])]
    else:
        data[at:at] = rng.randbytes(rng.choice([1, 100]))
    return bytes(data)


@counted(sample=30, full=2_000)
def test_answers_that_are_cut_or_changed_anywhere_are_refused_or_right(server, cache, n):
    wanted, n_used = cfrec.read_ratings(io.BytesIO(GOOD)), 0
    for seed in range(n):
        data = faulty(seed)
        server.answers["*"] = lambda connection, _, data=data: connection.sendall(data)
        name = (KNOWN, UNKNOWN)[seed % 2]
        try:
            found = cfrec.load_dataset(name)
        except DownloadError:
            assert leftovers(cache) == [], seed
        else:
            n_used += 1
            assert (found.rating == wanted.rating).all(), seed
            archive = cache / f"{name}.zip"
            assert name == UNKNOWN or archive.read_bytes() == GOOD, seed
            archive.unlink()
    logger.info("%d answers: %d used", n, n_used)
    assert n_used < n / 2


CHILD = """
import sys
from cfrec import datasets
datasets.Dataset.url = property(lambda self: sys.argv[2])
datasets.fetch(sys.argv[1])
"""


@pytest.fixture
def download(server):
    """Begin a download in another process; returns it once its folder is there."""
    children = []

    def begin(name: str, home: Path) -> subprocess.Popen[bytes]:
        before = set(home.glob(f"{datasets._ARRIVING}*/*"))
        child = subprocess.Popen([sys.executable, "-c", CHILD, name, f"http://127.0.0.1:{server.port}/{name}.zip"], stderr=subprocess.PIPE)
        children.append(child)
        until = time.monotonic() + 20
        while not set(home.glob(f"{datasets._ARRIVING}*/*")) - before:
            assert time.monotonic() < until, child.stderr and child.stderr.read()
            time.sleep(0.01)
        return child

    yield begin
    for child in children:
        child.kill()
        child.wait()


def test_a_killed_download_leaves_nothing_after_the_next_start_and_a_living_one_is_left_alone(server, cache, download):
    released = threading.Event()

    def wait(connection: socket.socket, _: int) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD[:50])
        released.wait(30)
        connection.sendall(GOOD[50:])

    server.answers = {"*": wait, f"/{KNOWN}.zip": reply(GOOD)}
    killed = download(UNKNOWN, cache)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    (dead,) = cache.glob("*/*")  # negative control: it is there to be removed
    living = download(UNKNOWN, cache)
    (alive,) = cache.glob("*/*")
    assert alive != dead  # which the second start has removed
    assert datasets.fetch(KNOWN) == cache / f"{KNOWN}.zip"
    assert leftovers(cache).count(f"{KNOWN}.zip") == 1
    assert list(cache.glob("*/*")) == [alive]
    released.set()
    assert living.wait(20) == 0
    assert sorted(leftovers(cache)) == [f"{KNOWN}.zip", f"{UNKNOWN}.zip"]
    assert (cache / f"{UNKNOWN}.zip").read_bytes() == GOOD


def test_who_asks_for_what_is_being_downloaded_waits_for_it(server, cache, download):
    """It is downloaded once, however many ask; and who no longer wants it need not wait."""
    released = threading.Event()

    def wait(connection: socket.socket, _: int) -> None:
        connection.sendall(f"HTTP/1.1 200 OK\r\nContent-Length: {len(GOOD)}\r\n\r\n".encode() + GOOD[:50])
        released.wait(30)
        connection.sendall(GOOD[50:])

    def give_up(done: int, total: int) -> None:
        raise KeyError((done, total))

    server.answers = {"*": wait}
    first = download(UNKNOWN, cache)
    with pytest.raises(KeyError, match=str(len(GOOD))):
        datasets.fetch(UNKNOWN, on_progress=give_up)
    with ThreadPoolExecutor(8) as threads:
        others = [threads.submit(datasets.fetch, UNKNOWN) for _ in range(8)]
        time.sleep(0.3)
        assert not any(other.done() for other in others)
        released.set()
        assert {other.result(20) for other in others} == {cache / f"{UNKNOWN}.zip"}
    assert first.wait(20) == 0
    assert len(server.paths) == 1
    assert leftovers(cache) == [f"{UNKNOWN}.zip"]


def test_if_the_one_that_downloads_is_killed_another_goes_on(server, cache, download):
    server.answers = {"*": stall}
    first = download(UNKNOWN, cache)
    with ThreadPoolExecutor(8) as threads:
        others = [threads.submit(datasets.fetch, UNKNOWN) for _ in range(8)]
        server.answers = {"*": reply(GOOD)}
        first.kill()
        assert {other.result(20) for other in others} == {cache / f"{UNKNOWN}.zip"}
    assert len(server.paths) == 2
    assert leftovers(cache) == [f"{UNKNOWN}.zip"]
