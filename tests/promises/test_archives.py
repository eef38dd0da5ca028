"""D1: an archive never writes anything, explodes or hangs: it is read right, or refused."""

from __future__ import annotations

import bz2
import io
import logging
import os
import random
import stat
import struct
import sys
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cfrec
from cfrec import archives
from cfrec.errors import CfrecError, DataError
from tests.promises.counts import counted

logger = logging.getLogger(__name__)

TABLE = b"userId,movieId,rating,timestamp\n" + b"".join(b"%d,%d,%d.5,%d\n" % (k % 9, k % 31, k % 5, k) for k in range(200))
MOVIES = b"movieId,title,genres\n" + b"".join(b"%d,Film %d (1999),Drama\n" % (k, k) for k in range(31))
MOST_MEMORY = 12 << 20  # bytes
MOST_SECONDS = 2.0


def packed(*members, method=zipfile.ZIP_DEFLATED) -> bytes:
    """An archive of (name or ZipInfo, content)."""
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", method) as archive:
        warnings.simplefilter("ignore")  # of names that come twice
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def link(name: str, target: str) -> tuple[zipfile.ZipInfo, str]:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
    return info, target


def hand_made(name: bytes, content: bytes, *, method: int, declared: int, packed_size: int | None = None, checksum: int = 0, n=1) -> bytes:
    """An archive that says what it is told to say: ``n`` entries that all lie over the same bytes."""
    packed_size = len(content) if packed_size is None else packed_size
    facts = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 0, checksum, packed_size, declared, len(name), 0)
    local = b"PK\3\4" + facts + name + content
    entry = b"PK\1\2" + struct.pack("<H", 20) + facts + struct.pack("<HHHII", 0, 0, 0, 0, 0) + name
    return local + entry * n + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, n % 65536, n % 65536, len(entry) * n, len(local), 0)


def deflated(data: bytes) -> bytes:
    squeeze = zlib.compressobj(9, zlib.DEFLATED, -15)
    return squeeze.compress(data) + squeeze.flush()


ZEROS = b"1,2,3\n" * (18 << 20 >> 3)  # 14 MB that shrink to 14 KB
BOMB = deflated(ZEROS)
HOSTILE = {
    "a name that climbs": packed(("../../ratings.csv", TABLE)),
    "a name that climbs on Windows": packed(("..\\..\\ratings.csv", TABLE)),
    "an absolute name": packed(("/etc/cron.d/ratings.csv", TABLE)),
    "a drive": packed(("C:\\Windows\\ratings.csv", TABLE)),
    "a NUL in a name": packed(("ratings.csv\0.exe", TABLE)),
    "a link": packed(link("ratings.csv", "/etc/passwd")),
    "a link to a table beside it": packed(link("ratings.csv", "movies.csv"), ("movies.csv", MOVIES)),
    "a link, then a file through it": packed(link("ml", "/tmp"), ("ml/ratings.csv", TABLE)),
    "no name": hand_made(b"", TABLE, method=0, declared=len(TABLE), checksum=zlib.crc32(TABLE)),
    "one name twice": packed(("ratings.csv", TABLE), ("ratings.csv", TABLE[:50])),
    "names alike": packed(("ratings.csv", TABLE), ("RATINGS.CSV", TABLE[:50])),
    "a table of movies twice": packed(("my_ratings.csv", TABLE), ("my_movies.csv", MOVIES), ("my_movies.csv", MOVIES)),
    "a thousand to one": packed(("ratings.csv", ZEROS)),
    "an archive in an archive": packed(("ratings.zip", packed(("ratings.csv", ZEROS)))),
    "a bomb beside a table": packed(("ratings.csv", TABLE), ("movies.csv", ZEROS)),
    "too small a size declared": hand_made(b"ratings.csv", BOMB, method=8, declared=2_000, checksum=zlib.crc32(ZEROS)),
    "too large a size declared": hand_made(b"ratings.csv", deflated(TABLE), method=8, declared=1 << 23, checksum=zlib.crc32(TABLE)),
    "4 GB declared": hand_made(b"ratings.csv", BOMB, method=8, declared=0xFFFFFFF0),
    "a packed size that hides the ratio": hand_made(b"ratings.csv", BOMB, method=8, declared=len(ZEROS), packed_size=1 << 30),
    "a bzip2 bomb that is declared small": hand_made(b"ratings.csv", bz2.compress(bytes(40 << 20)), method=12, declared=2_000),
    "an LZMA member": packed(("ratings.csv", TABLE), method=zipfile.ZIP_LZMA),
    "an unknown method": hand_made(b"ratings.csv", TABLE, method=98, declared=len(TABLE)),
    "entries over one another": hand_made(b"ratings.csv", BOMB, method=8, declared=len(ZEROS), n=1_000),
    "a hundred thousand entries": hand_made(b"ratings.csv", TABLE, method=0, declared=len(TABLE), n=100_000),
    "long names": packed(*[("x" * 60_000 + f"{k}.csv", TABLE) for k in range(3)]),
    "names that forge lines": packed(("a\n\x1b[31mERROR.csv", TABLE), ("b\u202e.csv", TABLE)),
    "nothing": packed(),
    "folders only": packed(("ratings.csv/", b""), ("ml/", b"")),
}
READ_RIGHT = {
    *("a name that climbs", "a name that climbs on Windows", "an absolute name", "a drive", "a NUL in a name"),
}  # a name is compared and never followed
WRITES = ("open", "os.mkdir", "os.rename", "os.link", "os.symlink", "os.truncate", "shutil.")
watched: list[str] | None = None


def watch(event: str, args: tuple[object, ...]) -> None:
    """An audit hook: what is written while ``watched`` is a list."""
    if watched is None or not event.startswith(WRITES):
        return
    if event == "open" and not (set(str(args[1])) & set("wax+") or int(args[2] or 0) & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)):
        return
    watched.append(f"{event} {args}")


sys.addaudithook(watch)


class Reading:
    """What a reader made of an archive, and what it took."""

    def __init__(self, read: Callable[[], Any]) -> None:
        global watched  # noqa: PLW0603  # an audit hook stays for good
        watched = self.writes = []
        tracemalloc.start()
        started = time.perf_counter()
        try:
            self.result = read()
        except CfrecError as error:
            self.result = error
        finally:
            self.seconds, self.memory = time.perf_counter() - started, tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            watched = None


def readers(data: bytes, folder: Path) -> list[Callable[[], Any]]:
    """As a file, as an upload, and as what a data set's download left in the cache."""
    (folder / "a.zip").write_bytes(data)
    upload = io.BytesIO(data)
    return [lambda: cfrec.read_ratings(folder / "a.zip"), lambda: cfrec.read_ratings(upload), lambda: cfrec.load_dataset("ml-latest-small")]


@pytest.fixture
def folder(cache, tmp_path):
    """A folder with a.zip; the cache has the same archive as a data set's."""
    cache.mkdir(parents=True)
    (tmp_path / "in").mkdir()
    (cache / "ml-latest-small.zip").symlink_to(tmp_path / "in" / "a.zip")
    for read in readers(packed(("ratings.csv", TABLE)), tmp_path / "in"):  # whatever is imported and written at first
        read()
    return tmp_path / "in"


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused_early_and_nothing_is_written(folder, name):
    readings = [Reading(read) for read in readers(HOSTILE[name], folder)]
    readings.append(Reading(lambda: archives.is_whole(folder / "a.zip")))
    for reading in readings:
        assert reading.writes == []
        assert reading.memory < MOST_MEMORY
        assert reading.seconds < MOST_SECONDS
    for reading in readings[:3]:
        if name in READ_RIGHT:
            assert reading.result.rating.tolist() == [row % 5 + 0.5 for row in reading.result.timestamp.tolist()]
            assert reading.result.report.n_rows == 200
        else:
            assert isinstance(reading.result, DataError)
            assert 40 < len(str(reading.result)) < 500 + 2 * len(str(folder))
            assert str(reading.result).isprintable()


@counted(sample=100, full=5_000)
def test_mutated_archives_are_read_right_or_refused(folder, n):
    """Read as a file, as an upload and from the cache: what is not refused is what was packed."""
    whole = packed(("ml/ratings.csv", TABLE), ("ml/movies.csv", MOVIES))
    wanted = cfrec.read_ratings(io.BytesIO(whole))
    counts: Counter[str] = Counter()
    for seed in range(n):
        data = mutated(whole, seed)
        for read in readers(data, folder)[: 1 + 2 * (seed % 10 == 0)]:
            try:
                found = read()
            except CfrecError:
                counts["refused"] += 1
                continue
            counts["read"] += 1
            same = [(getattr(found, a) == getattr(wanted, a)).all() for a in ("rating", "user_idx", "movie_idx", "timestamp")]
            assert all([*same, found.movies.equals(wanted.movies)]), seed
    logger.info("%d archives: %s", n, dict(counts))
    assert counts["refused"] > n / 2
    assert counts["read"] > n / 50  # where nothing that counts was hit


def mutated(data: bytes, seed: int) -> bytes:
    rng = random.Random(seed)
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 4])):
        lists = data.index(b"PK\1\2")  # half of the mutations hit what zipfile parses
        at = rng.randrange(len(changed)) if rng.random() < 0.5 else min(rng.randrange(lists, len(data)), len(changed) - 1)
        kind = rng.choice(["flip", "flip", "field", "field", "out", "in", "cut", "twice"])
        if kind == "flip":
            changed[at] ^= 1 << rng.randrange(8)
        elif kind == "field":
            width = rng.choice([1, 2, 4, 8])
            changed[at : at + width] = rng.choice([b"\0", b"\xff", b"\x7f", bytes([rng.randrange(256)])]) * width
        elif kind == "out":
            del changed[at : at + rng.choice([1, 2, 30])]
        elif kind == "in":
            changed[at:at] = rng.randbytes(rng.choice([1, 4, 46]))
        elif kind == "cut":
            del changed[at:]
        else:
            changed[at:at] = changed[at : at + rng.choice([4, 46, 200])]
        if not changed:
            break
    return bytes(changed)


def unpack_carelessly(data: bytes, folder: Path) -> None:
    """Negative control: what reading an archive must not be."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        for name in archive.namelist():
            (folder / name).write_bytes(archive.read(name))


def test_the_checks_are_not_blind(folder):
    (folder / "x" / "y").mkdir(parents=True)
    reading = Reading(lambda: unpack_carelessly(HOSTILE["a name that climbs"], folder / "x" / "y"))
    assert (folder / "ratings.csv").exists()  # two folders up
    assert len(reading.writes) == 1
    bomb = packed(("ratings.csv", ZEROS))
    assert Reading(lambda: unpack_carelessly(bomb, folder)).memory > MOST_MEMORY
    small = HOSTILE["a bzip2 bomb that is declared small"]
    with zipfile.ZipFile(io.BytesIO(small)) as archive, pytest.raises(zipfile.BadZipFile):
        archive.read("ratings.csv")
