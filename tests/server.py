"""A running app for tests and benchmarks: on a free port, with models, a cache folder and a log of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from app_pages._state import WITH_CFREC

ROOT = Path(__file__).parent.parent
_PATIENCE = 60  # seconds until healthy


@dataclass(frozen=True)
class Usage:
    """What a server takes of the machine at one moment."""

    megabytes: float
    threads: int
    descriptors: int
    cpu_seconds: float


@dataclass(frozen=True)
class Server:
    """An app that answers at ``url``."""

    url: str
    pid: int
    log: Path  # all that it printed
    models: Path
    home: Path
    began: float  # time.time() of its start
    healthy: float  # and of its first answer

    def usage(self) -> Usage:
        """What it takes of the machine now."""
        process = psutil.Process(self.pid)
        with process.oneshot():
            times = process.cpu_times()
            rss = process.memory_info().rss / 1e6
            return Usage(rss, process.num_threads(), process.num_fds(), times.user + times.system)


@contextmanager
def serve(
    folder: Path, *, script: Path = ROOT / "streamlit_app.py", home: Path | None = None, options: Sequence[str] = ()
) -> Iterator[Server]:
    """Start an app, wait until it is healthy, and end it afterwards.

    Parameters
    ----------
    folder : Path
        Gets a copy of the shipped models, the log and, where no ``home`` is given, an empty cache folder.
    script : Path
    home : Path, optional
        ``CFREC_HOME``: where data sets are.
    options
        More words for ``streamlit run``.
    """
    models, log, home = folder / "models", folder / "server.log", home or folder / "home"
    for name in WITH_CFREC:  # not those that were trained in this clone
        shutil.copytree(ROOT / "models" / name, models / name, dirs_exist_ok=True)
    port = _free_port()
    command = [sys.executable, "-m", "streamlit", "run", str(script), "--server.port", str(port), "--server.headless", "true"]
    command += ["--server.address", "127.0.0.1", *options]
    environment = os.environ | {"CFREC_MODELS": str(models), "CFREC_HOME": str(home)}
    url, began = f"http://127.0.0.1:{port}", time.time()
    with log.open("ab") as sink:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=sink, stderr=subprocess.STDOUT)
    try:
        _wait_until_healthy(url, process, log)
        yield Server(url, process.pid, log, models, home, began, time.time())
    finally:
        _end(process)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_healthy(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(_PATIENCE * 50):
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=1).close()
            return
        except OSError:
            if process.poll() is not None:
                raise RuntimeError(f"the app did not start: {log.read_text()[-2_000:]}") from None
            time.sleep(0.02)
    raise RuntimeError(f"the app was not healthy within {_PATIENCE} seconds: {log.read_text()[-2_000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(10)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
