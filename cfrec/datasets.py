"""The MovieLens releases: where they are, what they may be used for, and one download each into the user's cache."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
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
_MOST_REDIRECTS = 5
_ARRIVING, _LOCK = ".arriving-", ".lock"  # a folder of what is being downloaded, and what its process holds until it ends
_YOUNG = 60.0  # seconds in which such a folder may not have its lock yet
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
    """Make a data set present on this machine, downloading it at most once.

    Parameters
    ----------
    name : str
        A key of ``DATASETS``.
    on_progress : callable, optional
        Called with the bytes so far and the bytes in all.

    Returns
    -------
    Path
        The archive (checksum verified when it arrived), or a folder of that name the user put there.

    Raises
    ------
    DataError
        There is no such data set.
    DownloadError
        No source could be reached, or what came was not whole; says which file to put where.
    """
    dataset = get_dataset(name)
    sweep_downloads()
    if local := find_local(name):
        return local
    logger.warning("Fetching %s (%.0f MB) into %s.", dataset.title, dataset.size / 1e6, data_home())
    logger.warning("%s\nCite: %s", dataset.licence, dataset.citation)
    failures = []
    for source in (_from_grouplens, _from_wheel):
        try:
            return source(dataset, on_progress)
        except DownloadError as error:
            logger.info("%s", error)
            failures.append(str(error))
    raise DownloadError(
        f"Could not get {dataset.title}: {' '.join(failures)} "
        f"Get {dataset.archive} from {PAGE} on a machine with a connection and put it into {data_home()}, "
        "or use a CSV file of your own."
    )


def sweep_downloads() -> None:
    """Remove from the cache folder what downloads left there whose process was killed: nobody holds their lock."""
    from filelock import FileLock, Timeout

    for folder in data_home().glob(f"{_ARRIVING}*"):
        try:
            if not (folder / _LOCK).exists() and time.time() - folder.stat().st_mtime < _YOUNG:
                continue
            with FileLock(folder / _LOCK, timeout=0):
                pass
            shutil.rmtree(folder)
        except Timeout:  # it is alive
            continue
        except OSError as error:  # another process was quicker, or it may not be removed
            logger.info("%s stays: %s", folder, error)


class _Downloader:
    """A downloader for pooch that reports its progress and keeps within limits of time and size, whatever the server sends."""

    def __init__(self, seconds: float, most: int, on_progress: Progress | None) -> None:
        self.deadline, self.most, self.on_progress = time.monotonic() + seconds, most, on_progress

    def __call__(self, url: str, output_file: str, _: object) -> None:
        import requests
        import urllib3

        with requests.Session() as session:
            session.max_redirects = _MOST_REDIRECTS
            with session.get(url, stream=True, timeout=_PATIENCE, headers={"Accept-Encoding": "identity"}) as response:
                response.raise_for_status()
                if urlsplit(response.url).scheme != urlsplit(url).scheme:
                    raise ValueError("it leads to an address that is not safe")
                length = response.headers.get("Content-Length", "")
                total = int(length) if re.fullmatch("[0-9]{1,15}", length) else 0
                try:
                    done = self._copy(response.raw.read1, Path(output_file), total)
                except urllib3.exceptions.HTTPError as error:
                    raise ValueError("the connection broke off") from error  # which pooch takes for a reason to try again
        if done < total:
            raise ValueError("the connection broke off")

    def _copy(self, read: Callable[[int], bytes], path: Path, total: int) -> int:
        """Write what comes to a file; returns how many bytes came."""
        done = 0
        with path.open("wb") as output:
            while chunk := read(1 << 16):
                done += len(chunk)
                if time.monotonic() > self.deadline:
                    raise TimeoutError("the download took too long")
                if done > self.most:
                    raise ValueError("far more comes than there should be")
                output.write(chunk)
                if self.on_progress:
                    self.on_progress(done, max(total, done))
        return done


def _from_grouplens(dataset: Dataset, on_progress: Progress | None) -> Path:
    import pooch
    import requests

    pooch.get_logger().setLevel(logging.ERROR)
    with _arriving() as folder:
        known_hash = f"md5:{dataset.checksum}" if dataset.checksum else None
        store = pooch.create(
            folder, base_url="", urls={dataset.archive: dataset.url}, registry={dataset.archive: known_hash}, retry_if_failed=1
        )
        downloader = _Downloader(60 + dataset.size / 100_000, 2 * dataset.size + (1 << 20), on_progress)
        try:
            path = Path(store.fetch(dataset.archive, downloader=downloader))
        except (requests.RequestException, TimeoutError, ValueError) as error:
            raise DownloadError(f"GroupLens: {_cause(error)}.") from error
        if not (dataset.checksum or is_whole(path)):
            raise DownloadError("GroupLens: what arrived is not a whole zip archive.")
        return path.replace(data_home() / dataset.archive)


@contextmanager
def _arriving() -> Iterator[Path]:
    """A folder in the cache for what is not yet known to be whole; it is gone afterwards. Raises DownloadError if there can be none."""
    from filelock import FileLock

    home = data_home()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=_ARRIVING, dir=home) as folder, FileLock(Path(folder) / _LOCK):
            yield Path(folder)
    except OSError as error:
        why = error.strerror or error
        raise DownloadError(f"{home} cannot be written to: {why}. Set CFREC_HOME to a folder that can.") from error


def _cause(error: Exception) -> str:
    """The part of a network error that a person can use."""
    if "hash" in str(error):
        return "what arrived does not have the published checksum"
    if isinstance(error, TimeoutError) or "timed out" in str(error):
        return "no answer in time"
    return "no connection" if "Connection" in type(error).__name__ else str(error).rstrip(".")


def _from_wheel(dataset: Dataset, on_progress: Progress | None) -> Path:
    """Fetch the wheel that holds ml-100k through pip, from whatever index the user has configured."""
    if dataset.name != "ml-100k":
        raise DownloadError("There is no second source.")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--quiet"]
    command += ["--timeout", "15", "--retries", "1"]
    with _arriving() as folder:
        try:
            run = subprocess.run(
                [*command, "--dest", str(folder), WHEEL_REQUIREMENT], capture_output=True, text=True, timeout=120, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            raise DownloadError("The package index: pip gave no answer in time.") from error
        wheel = folder / WHEEL
        if run.returncode or not wheel.exists():
            why = (run.stderr or "").strip().rpartition("\n")[2][:200]
            raise DownloadError(f"The package index: pip could not download {WHEEL_REQUIREMENT} ({why or 'no reason given'}).")
        if hashlib.sha256(wheel.read_bytes()).hexdigest() != WHEEL_SHA256:
            raise DownloadError(f"The package index: {WHEEL} does not have the expected SHA-256.")
        size = wheel.stat().st_size
        if on_progress:
            on_progress(size, size)
        return wheel.replace(data_home() / WHEEL)
