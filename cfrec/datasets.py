"""The MovieLens releases: where they are, what they may be used for, and one download each into the user's cache."""

from __future__ import annotations

import logging
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cfrec.archives import is_whole
from cfrec.errors import DataError, DownloadError

logger = logging.getLogger(__name__)

Progress = Callable[[int, int], None]  # bytes so far, bytes in all

CITATION = (
    "F. Maxwell Harper and Joseph A. Konstan. 2015. The MovieLens Datasets: History and Context. "
    "ACM Transactions on Interactive Intelligent Systems (TiiS) 5, 4: 19:1-19:19. https://doi.org/10.1145/2827872"
)
_TERMS = "For research and other non-commercial use only; acknowledge GroupLens, and do not imply its endorsement"
NO_REDISTRIBUTION = f"{_TERMS}. The data may not be redistributed without separate permission."
SAME_TERMS = f"{_TERMS}. Redistribution, of transformed data too, only under these same terms."
_PATIENCE = (5.0, 30.0)  # seconds to wait for a connection, and for each next bytes
_LEAST_SECONDS, _SLOWEST = 60.0, 100_000  # time limit of a download: seconds, plus its size at this many bytes per second
_BLOCK = 1 << 16  # bytes
_ARRIVING = ".arriving-"  # begins the name of a folder for what is being downloaded, and of its lock
_CAUSES = {  # by a word in the network's error
    "hash": "what arrived does not have the published checksum",
    "timed out": "no answer in time",
    "Chunked": "the connection broke off",
    "Connection": "no connection",
}
PAGE = "https://grouplens.org/datasets/movielens/"

# The wheel carries ml-100k's 100,000 rows in the same order: the second source where GroupLens cannot be reached.
WHEEL = "recbole-1.2.1-py3-none-any.whl"
WHEEL_REQUIREMENT = "recbole==1.2.1"
WHEEL_SHA256 = "9c9948202011f37eb0a7c6768129313f00d6403ad221ec940d5e2d5d5f33a407"


@dataclass(frozen=True)
class Dataset:
    """One MovieLens release. ``checksum`` is GroupLens' own (MD5), or None where it publishes none."""

    name: str
    title: str
    year: int
    n_ratings: int
    n_users: int
    n_movies: int
    size: int  # of the archive, bytes
    checksum: str | None
    licence: str = NO_REDISTRIBUTION
    citation: str = CITATION

    @property
    def archive(self) -> str:
        """File name of the archive."""
        return f"{self.name}.zip"

    @property
    def url(self) -> str:
        """Where GroupLens offers the archive."""
        return f"https://files.grouplens.org/datasets/movielens/{self.archive}"


DATASETS = {
    d.name: d
    for d in (
        Dataset("ml-100k", "MovieLens 100K", 1998, 100_000, 943, 1_682, 4_924_029, "0e33842e24a9c977be4e0107933c0723"),
        Dataset("ml-latest-small", "MovieLens Latest Small", 2018, 100_836, 610, 9_742, 978_202, None, SAME_TERMS),
        Dataset("ml-latest", "MovieLens Latest", 2023, 33_832_162, 330_975, 86_537, 351_000_000, None, SAME_TERMS),
        Dataset("ml-1m", "MovieLens 1M", 2003, 1_000_209, 6_040, 3_883, 5_917_549, "c4d9eecfca2ab87c1945afe126590906"),
        Dataset("ml-10m", "MovieLens 10M", 2009, 10_000_054, 69_878, 10_681, 65_566_137, "ce571fd55effeba0271552578f2648bd"),
        Dataset("ml-20m", "MovieLens 20M", 2016, 20_000_263, 138_493, 27_278, 198_702_078, "cd245b17a1ae2cc31bb14903e1204af3"),
        Dataset("ml-25m", "MovieLens 25M", 2019, 25_000_095, 162_541, 62_423, 261_978_986, "6b51fb2759a8657d3bfcbfc42b592ada"),
        Dataset("ml-32m", "MovieLens 32M", 2023, 32_000_204, 200_948, 87_585, 238_950_008, "d472be332d4daa821edc399621853b57", SAME_TERMS),
    )
}


def get_dataset(name: str) -> Dataset:
    """Look a release up by name. Raises DataError, naming the known ones, if it is unknown."""
    if name not in DATASETS:
        raise DataError(f"There is no data set {name!r}. Known: {', '.join(DATASETS)}.")
    return DATASETS[name]


def data_home() -> Path:
    """The cache folder: ``CFREC_HOME``, or the operating system's cache folder for this user."""
    import pooch

    return Path(os.environ.get("CFREC_HOME") or pooch.os_cache("cfrec")).expanduser()


def find_local(name: str) -> Path | None:
    """The data set's archive, folder or wheel in the cache folder, or None. Nothing is fetched."""
    dataset, home = get_dataset(name), data_home()
    candidates = [home / dataset.archive, home / name]
    if name == "ml-100k":
        candidates.append(home / WHEEL)
    return next((path for path in candidates if path.exists()), None)


def fetch(name: str, *, on_progress: Progress | None = None) -> Path:
    """Make a data set present on this machine, downloading it at most once: who finds another process doing so waits for it.

    Parameters
    ----------
    name : str
        A key of ``DATASETS``.
    on_progress : callable, optional
        Called with the bytes so far and the bytes in all, while it waits too; what it raises ends the download.

    Returns
    -------
    Path
        The archive (checksum verified when it arrived), or a folder of that name the user put there.

    Raises
    ------
    DataError
        There is no such data set.
    DownloadError
        It could not be downloaded from any source, or what came was not whole; says which file to put where.
    """
    dataset, report = get_dataset(name), on_progress or (lambda *_: None)
    sweep_downloads()
    if local := find_local(name):
        return local

    def report_waiting() -> bool:
        report(0, dataset.size)
        return False

    try:
        with _locked(_folder(dataset), cancel_check=report_waiting):
            return find_local(name) or _download(dataset, report)
    except OSError as error:
        why = error.strerror or error
        raise DownloadError(f"{data_home()} cannot be written to: {why}. Set CFREC_HOME to a folder that can.") from error


def sweep_downloads() -> None:
    """Remove from the cache folder what downloads left there whose process was killed: nobody holds their lock."""
    for lock in data_home().glob(f"{_ARRIVING}*.lock"):
        with suppress(OSError), _locked(lock.with_suffix(""), timeout=0):  # of a living one: filelock.Timeout is an OSError
            pass


def _folder(dataset: Dataset) -> Path:
    """Where a data set is kept until it is known to be whole."""
    return data_home() / f"{_ARRIVING}{dataset.name}"


@contextmanager
def _locked(folder: Path, *, timeout: float = -1, cancel_check: Callable[[], bool] | None = None) -> Iterator[None]:
    """Have a folder to oneself, among all processes; afterwards it is gone, with whatever a killed one left in it."""
    from filelock import FileLock

    lock = folder.with_suffix(".lock")
    with FileLock(lock).acquire(timeout, poll_interval=0.2, cancel_check=cancel_check):
        try:
            folder.mkdir(exist_ok=True)
            yield
        finally:
            shutil.rmtree(folder, ignore_errors=True)
            with suppress(OSError):  # Windows keeps a file that is open
                lock.unlink()  # who waits for it makes a new one: filelock takes no lock whose file has lost its name


def _download(dataset: Dataset, report: Progress) -> Path:
    logger.warning("Downloading %s (%.0f MB) into %s.", dataset.title, dataset.size / 1e6, data_home())
    logger.warning("%s\nCite: %s", dataset.licence, dataset.citation)
    failures = []
    for source in (_from_grouplens, _from_wheel) if dataset.name == "ml-100k" else (_from_grouplens,):
        try:
            return source(dataset, report)
        except DownloadError as error:
            logger.info("%s", error)
            failures.append(str(error))
    raise DownloadError(
        f"{dataset.title} could not be downloaded from any source. {' '.join(failures)} Get {dataset.archive} from {PAGE} "
        f"on a machine with a connection and put it into {data_home()}, or use a CSV file of your own."
    )


def _from_grouplens(dataset: Dataset, report: Progress) -> Path:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    hooks, headers = {"response": _watch(dataset, report)}, {"Accept-Encoding": "identity"}
    downloader = pooch.HTTPDownloader(chunk_size=_BLOCK, timeout=_PATIENCE, headers=headers, hooks=hooks)
    registry = {dataset.archive: f"md5:{dataset.checksum}" if dataset.checksum else None}
    store = pooch.create(_folder(dataset), "", urls={dataset.archive: dataset.url}, registry=registry, retry_if_failed=1)
    try:
        path = Path(store.fetch(dataset.archive, downloader=downloader))
    except (requests.RequestException, ValueError) as error:
        text = f"{type(error).__name__} {error}"
        raise DownloadError(f"GroupLens: {next((why for sign, why in _CAUSES.items() if sign in text), error)}.") from error
    if not (dataset.checksum or is_whole(path)):
        raise DownloadError("GroupLens: what arrived is not a whole zip archive.")
    return path.replace(data_home() / dataset.archive)


def _watch(dataset: Dataset, report: Progress) -> Callable[..., None]:
    """A hook for requests, called with each answer before it is read: reports what comes, and keeps it within limits.

    A progress bar of pooch's could not: it hears of full blocks alone, and of none from a server that sends a byte now and then.
    """
    deadline, most = time.monotonic() + _LEAST_SECONDS + dataset.size / _SLOWEST, 2 * dataset.size + (1 << 20)

    def read(raw: Any, size: int) -> Iterator[bytes]:
        done = 0
        while block := raw.read1(size):
            done += len(block)
            if time.monotonic() > deadline or done > most:
                raise DownloadError(f"GroupLens: {'far more comes than there should be' if done > most else 'no end in time'}.")
            report(done, max(done, dataset.size))
            yield block

    def watch(response: Any, **_: object) -> None:
        if urlsplit(response.url).scheme != urlsplit(dataset.url).scheme:
            raise DownloadError("GroupLens: it leads to an address that is not safe.")
        response.headers.pop("Content-Length", None)  # pooch stops at one that is no number; urllib3 compares it all the same
        response.raw.stream = lambda size, **_: iter(()) if response.is_redirect else read(response.raw, size)

    return watch


def _from_wheel(dataset: Dataset, report: Progress) -> Path:
    """Download the wheel that holds ml-100k with pip, from whatever index the user has configured."""
    import pooch

    wheel = _folder(dataset) / WHEEL
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command += ["--timeout", "15", "--retries", "1", "--dest", str(wheel.parent), WHEEL_REQUIREMENT]
    try:
        run = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DownloadError("The package index: pip gave no answer in time.") from error
    if run.returncode or not wheel.exists():
        why = (run.stderr or "").strip().rpartition("\n")[2][:200]
        raise DownloadError(f"The package index: pip could not download {WHEEL_REQUIREMENT} ({why or 'no reason given'}).")
    if pooch.file_hash(str(wheel)) != WHEEL_SHA256:
        raise DownloadError(f"The package index: {WHEEL} does not have the expected SHA-256.")
    report(wheel.stat().st_size, wheel.stat().st_size)
    return wheel.replace(data_home() / WHEEL)
