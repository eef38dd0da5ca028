import contextlib
import hashlib
import io
import subprocess
import threading
import time
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest
from filelock import FileLock

from cfrec import datasets
from cfrec.errors import DataError, DownloadError


def small_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("ml-1m/ratings.dat", "1::2::3::4\n")
    return buffer.getvalue()


GOOD = small_zip()


@pytest.fixture
def serve(monkeypatch):
    """A local server in GroupLens' place: serve(body, cut=…) sets the answer; returns the list of requests."""
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))  # before it tries again
    answer, requests = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_response(answer.get("status", 200))
            self.send_header("Content-Length", str(len(answer["body"])))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the client may give up
                for start in range(0, len(answer["body"]), 10) if answer.get("slowly") else ():
                    time.sleep(answer["slowly"])
                    self.wfile.write(answer["body"][start : start + 10])
            if not answer.get("slowly"):
                whole = len(requests) > answer.get("cuts", len(requests))
                self.wfile.write(answer["body"] if whole else answer["body"][: answer.get("cut")])

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, args=[0.01], daemon=True).start()
    monkeypatch.setattr(datasets.Dataset, "url", property(lambda self: f"http://127.0.0.1:{server.server_port}/{self.archive}"))

    def set_answer(**changes):
        answer.update(changes)
        return requests

    yield set_answer
    server.shutdown()


@pytest.fixture
def known(monkeypatch):
    """ml-1m with the checksum of the small archive."""
    changed = datasets.Dataset("ml-1m", "MovieLens 1M", 2003, 1, 1, 1, len(GOOD), hashlib.md5(GOOD).hexdigest())
    monkeypatch.setitem(datasets.DATASETS, "ml-1m", changed)


def test_the_registry_is_complete():
    assert list(datasets.DATASETS) == ["ml-100k", "ml-latest-small", "ml-latest", "ml-1m", "ml-10m", "ml-20m", "ml-25m", "ml-32m"]
    for dataset in datasets.DATASETS.values():
        assert dataset.url == f"https://files.grouplens.org/datasets/movielens/{dataset.name}.zip"
        assert dataset.checksum is None or len(dataset.checksum) == 32
        assert "commercial" in dataset.licence
        assert "Harper" in dataset.citation
    assert {name for name, d in datasets.DATASETS.items() if d.checksum is None} == {"ml-latest-small", "ml-latest"}


def test_a_download_is_fetched_once_and_reports_its_progress(cache, serve, known):
    requests = serve(body=GOOD)
    seen = []
    path = datasets.fetch("ml-1m", on_progress=lambda done, total: seen.append((done, total)))
    assert path == cache / "ml-1m.zip"
    assert path.read_bytes() == GOOD
    assert seen[-1] == (len(GOOD), len(GOOD))
    assert datasets.fetch("ml-1m") == path
    assert len(requests) == 1


@pytest.mark.parametrize(
    "answer",
    [
        {"body": GOOD[:-10]},
        {"body": GOOD, "cut": 50},
        {"body": b"<html>Maintenance</html>"},
        {"body": b"", "status": 503},
        {"body": GOOD.replace(b"1::2", b"9::2")},
    ],
    ids=["short", "cut", "html", "503", "changed"],
)
def test_a_broken_download_is_never_used(cache, serve, known, answer):
    serve(**answer)
    with pytest.raises(DownloadError, match=r"MovieLens 1M could not be downloaded from any source.*put it into"):
        datasets.fetch("ml-1m")
    assert datasets.find_local("ml-1m") is None
    assert not list(cache.glob("*"))


def test_without_a_checksum_the_archive_itself_is_checked(cache, serve):
    serve(body=b"PK not really")
    with pytest.raises(DownloadError, match="not a whole zip"):
        datasets.fetch("ml-latest-small")
    assert datasets.find_local("ml-latest-small") is None
    serve(body=GOOD)
    assert datasets.fetch("ml-latest-small").read_bytes() == GOOD


def test_a_download_has_a_time_limit_however_slowly_it_comes(cache, serve, known, monkeypatch):
    serve(body=GOOD * 10, slowly=0.05)  # seven seconds
    monkeypatch.setattr(datasets, "_LEAST_SECONDS", 0.2)
    started = time.monotonic()
    with pytest.raises(DownloadError, match="no end in time"):
        datasets.fetch("ml-1m")
    assert time.monotonic() - started < 2


def test_a_download_that_never_ends_is_stopped_by_its_size(cache, serve, known):
    """It once filled the disk until its time was up."""
    serve(body=b"x" * (3 * len(GOOD) + (2 << 20)))
    with pytest.raises(DownloadError, match="far more comes than there should be"):
        datasets.fetch("ml-1m")


def test_what_dead_downloads_left_is_swept_up_and_what_is_being_made_is_not(cache):
    for name in ("living", "dead"):
        (cache / f".arriving-{name}").mkdir(parents=True)
        (cache / f".arriving-{name}" / "x.zip").write_text("x")
        (cache / f".arriving-{name}.lock").touch()
    with FileLock(cache / ".arriving-living.lock"):
        datasets.sweep_downloads()
    assert sorted(path.name for path in cache.iterdir()) == [".arriving-living", ".arriving-living.lock"]


def test_progress_never_passes_the_total(cache, serve, known):
    serve(body=GOOD)
    seen = []
    datasets.fetch("ml-1m", on_progress=lambda done, total: seen.append(done / total))
    assert seen
    assert max(seen) <= 1


def test_a_cache_that_cannot_be_written_says_what_to_set(monkeypatch, serve, known):
    serve(body=GOOD)
    monkeypatch.setenv("CFREC_HOME", "/dev/null/nope")
    for name in ("ml-1m", "ml-100k"):
        with pytest.raises(DownloadError, match=r"cannot be written to.*CFREC_HOME"):
            datasets.fetch(name)


@pytest.mark.parametrize("at", range(0, len(GOOD), 10))
def test_a_damaged_archive_without_a_checksum_is_not_kept(cache, serve, at):
    body = bytearray(GOOD)
    body[at : at + 4] = b"\xff\xff\xff\xff"
    serve(body=bytes(body))
    try:
        path = datasets.fetch("ml-latest-small")
    except DownloadError:
        assert not list(cache.glob("*"))
    else:  # the bytes that were hit carry nothing
        assert zipfile.ZipFile(path).testzip() is None


def test_what_the_user_put_there_is_used(cache):
    (cache / "ml-25m").mkdir(parents=True)
    assert datasets.fetch("ml-25m") == cache / "ml-25m"


@pytest.fixture
def no_grouplens(monkeypatch):
    def fail(*_):
        raise DownloadError("GroupLens: no connection.")

    monkeypatch.setattr(datasets, "_from_grouplens", fail)


def fake_pip(monkeypatch, body=None, error=None):
    commands = []

    def run(command, **_):
        commands.append(command)
        if error:
            raise error
        if body is not None:
            Path(command[command.index("--dest") + 1], datasets.WHEEL).write_bytes(body)
        return subprocess.CompletedProcess(command, 0 if body is not None else 1, "", "ERROR: x\nERROR: No matching distribution")

    monkeypatch.setattr(datasets.subprocess, "run", run)
    return commands


def test_the_wheel_is_the_second_source_of_ml_100k(cache, no_grouplens, monkeypatch):
    commands = fake_pip(monkeypatch, GOOD)
    monkeypatch.setattr(datasets, "WHEEL_SHA256", hashlib.sha256(GOOD).hexdigest())
    path = datasets.fetch("ml-100k")
    assert path == cache / datasets.WHEEL
    assert path.read_bytes() == GOOD
    assert [p.name for p in cache.iterdir()] == [datasets.WHEEL]
    assert "--no-deps" in commands[0]
    assert commands[0][-1] == "recbole==1.2.1"


@pytest.mark.parametrize(
    ("pip", "message"),
    [
        ({"body": GOOD}, "does not have the expected SHA-256"),
        ({}, "pip could not download .*No matching distribution"),
        ({"error": subprocess.TimeoutExpired("pip", 1)}, "no answer in time"),
    ],
)
def test_no_source_says_what_to_put_where(cache, no_grouplens, monkeypatch, pip, message):
    fake_pip(monkeypatch, **pip)
    with pytest.raises(DownloadError, match=rf"GroupLens: no connection.*{message}.*Get ml-100k\.zip.*put it into .*CSV file of your own"):
        datasets.fetch("ml-100k")
    assert datasets.find_local("ml-100k") is None


def test_an_unknown_data_set_lists_the_known():
    with pytest.raises(DataError, match=r"no data set 'ml-5'.*ml-100k, ml-latest-small"):
        datasets.fetch("ml-5")
