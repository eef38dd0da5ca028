"""Binary copies of large files of ratings in the cache folder, so that the same content is read in a moment the next time.

A copy is one file in safetensors' layout, under ``copies`` in the cache folder; its name holds a hash of everything it was read from.
It is written under another name and renamed, so that readers and writers never see each other's halves; nothing waits for the disk,
since whatever a crash leaves behind fails the checks. What cannot be written, or read, costs time only: a line in the log says so.

Checked when a copy is read: that its facts have the SHA-256 beside them and name this format and this key; that the file is as long as
they say; each array's CRC-32; and that indices lie within the tables. A copy that was forged on purpose is not told from a true one.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import mmap
import os
import tempfile
import time
import zlib
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec import datasets
from cfrec.movies import movies_table
from cfrec.pieces import for_each, hash_file
from cfrec.ratings import Ratings, ReadReport, Source

logger = logging.getLogger(__name__)

FORMAT = 2  # to be raised whenever the same file is read into something else than before
MOST_COPIES = 4  # the most recently used
_SUFFIX, _NEW = ".safetensors", ".new-"
_STALE = 3600.0  # seconds after which a copy that is still being written never will be
_LARGEST_HEADER = 1 << 20  # bytes
# Arrays in the order they are stored in: from wide to narrow, so that each is aligned. Times, and ids that are text, may be missing.
_TYPES = {
    **dict.fromkeys(("timestamp", "user_ids", "movie_ids", "n_ratings"), ("I64", np.int64)),
    **dict.fromkeys(("user_idx", "movie_idx"), ("I32", np.int32)),
    **dict.fromkeys(("rating", "mean_rating"), ("F32", np.float32)),
    "texts": ("U8", np.uint8),  # JSON
}

Array = npt.NDArray[Any]


class _DamagedError(Exception):
    """A copy is not what it should be."""


class Original:
    """The files that ratings are read from, as they are when this is made."""

    def __init__(self, paths: Iterable[Path], *, drop_bad: bool) -> None:
        self.paths, self.drop_bad = tuple(paths), drop_bad
        self.stamps = self._stamp()
        self.folder = datasets.data_home() / "copies"
        self.key: str | None = None

    def _stamp(self) -> list[tuple[int, int]]:
        return [(path.stat().st_size, path.stat().st_mtime_ns) for path in self.paths]

    def has_candidate(self) -> bool:
        """Whether there is a copy of a file of this size. Cheap: nothing is read."""
        return any(self.folder.glob(f"{self.stamps[0][0]}-*{_SUFFIX}"))

    def hash(self, *, in_threads: bool) -> str:
        """What a copy is found by: a hash of the files and of how they are read. Raises OSError where one cannot be read."""
        if self.key is None:
            parts = [f"{path.suffix.lower()} {path.name.lower() if k else ''}" for k, path in enumerate(self.paths)]
            parts += [hash_file(path, in_threads=in_threads) for path in self.paths]
            name = hashlib.sha256("\n".join([f"{FORMAT} {self.drop_bad}", *parts]).encode()).hexdigest()
            self.key = f"{self.stamps[0][0]}-{name[:40]}"
        return self.key

    def has_changed(self) -> bool:
        """Whether the files are no longer what they were, as far as their sizes and times tell."""
        return self.stamps != self._stamp()


def find_copy(original: Original, source: Source) -> Ratings | None:
    """The ratings read from these files before, or None where there is no copy that is whole.

    The large arrays are maps of the copy, private to the process: they take no time to read and no memory that the system could not
    take back, are of the same kind as those read from the original, and what is written into them never reaches the copy.

    Raises
    ------
    OSError
        The original cannot be read.
    """
    if not original.has_candidate():
        return None
    key = original.hash(in_threads=True)
    path = original.folder / f"{key}{_SUFFIX}"
    try:
        ratings = _decode(path, key, source)
        os.utime(path)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, LookupError, TypeError, AttributeError, _DamagedError) as error:
        logger.warning("the copy %s is not used: %s", path, error)
        return None
    return ratings


def keep_copy(original: Original, ratings: Ratings) -> Thread:
    """Store a copy, unless the files changed since; drops those that were not used for longest.

    Hashing and writing go on in the thread that is returned, which the process waits for when it ends. What the caller changes
    in the arrays meanwhile makes a copy that fails its checks.
    """
    arrays = {name: array for name in ("timestamp", "user_idx", "movie_idx", "rating") if (array := getattr(ratings, name)) is not None}
    sums = dict(zip(arrays, for_each(_crc, arrays.values()), strict=True))
    known = replace(ratings, movies=ratings.movies.copy(deep=False))
    thread = Thread(target=_keep, args=(original, known, arrays, sums), name="cfrec-copy")
    thread.start()
    return thread


def _keep(original: Original, ratings: Ratings, arrays: dict[str, Array], sums: dict[str, int]) -> None:
    try:
        key = original.hash(in_threads=False)  # a process that is about to end starts no threads
        if original.has_changed():
            logger.warning("%s changed while it was read: no copy of it is kept", original.paths[0])
            return
        original.folder.mkdir(parents=True, exist_ok=True)
        _write(original.folder / f"{key}{_SUFFIX}", _encode(key, ratings, arrays, sums))
        _prune(original.folder)
    except OSError as error:
        logger.warning("no copy of %s is kept in %s: %s", original.paths[0], original.folder, error)


def _encode(key: str, ratings: Ratings, large: dict[str, Array], sums: dict[str, int]) -> list[Array]:
    """The parts of the file, one after the other."""
    movies = ratings.movies
    texts = {column: movies[column].tolist() for column in ("title", "raw_title", "genres")}
    texts["year"] = [None if year is pd.NA else year for year in movies["year"].tolist()]
    ids = {"user_ids": ratings.user_ids, "movie_ids": movies["movie_id"].to_numpy()}
    texts |= {column: values.tolist() for column, values in ids.items() if values.dtype != np.int64}
    small = {column: values for column, values in ids.items() if values.dtype == np.int64}
    small |= {column: movies[column].to_numpy() for column in ("n_ratings", "mean_rating")}
    small["texts"] = np.frombuffer(json.dumps(texts).encode(), np.uint8)
    sums = sums | {column: _crc(array) for column, array in small.items()}
    arrays = {column: (large | small)[column] for column in _TYPES if column in large | small}
    facts = {
        "format": FORMAT,
        "key": key,
        "scale": ratings.scale,
        "report": asdict(ratings.report),
        "arrays": {column: [len(array), sums[column]] for column, array in arrays.items()},
    }
    return [np.frombuffer(_encode_header(facts), np.uint8), *arrays.values()]


def _encode_header(facts: dict[str, Any]) -> bytes:
    text = json.dumps(facts)
    header: dict[str, Any] = {"__metadata__": {"cfrec": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}}
    end = 0
    for column, (length, _) in facts["arrays"].items():
        code, dtype = _TYPES[column]
        begin, end = end, end + length * np.dtype(dtype).itemsize
        header[column] = {"dtype": code, "shape": [length], "data_offsets": [begin, end]}
    encoded = json.dumps(header).encode()
    encoded += b" " * (-len(encoded) % 8)
    return len(encoded).to_bytes(8, "little") + encoded


def _write(path: Path, parts: list[Array]) -> None:
    handle, new = tempfile.mkstemp(prefix=_NEW, dir=path.parent)
    try:
        with os.fdopen(handle, "wb", buffering=0) as file:
            for part in parts:
                view = part.data.cast("B")
                while view:
                    view = view[file.write(view) :]
        Path(new).replace(path)
    finally:
        Path(new).unlink(missing_ok=True)


def _decode(path: Path, name: str, source: Source) -> Ratings:
    """Read a copy; raises _DamagedError, or whatever else comes of its not being one."""
    facts, arrays = _map(path)
    if (facts["format"], facts["key"]) != (FORMAT, name):
        raise _DamagedError("it is another file's, or of another version")
    if [crc for _, crc in facts["arrays"].values()] != for_each(_crc, arrays.values()):
        raise _DamagedError("its numbers are not those that were written")
    texts = json.loads(arrays["texts"].tobytes())
    ids = {column: arrays[column] if column in arrays else np.array(texts[column], object) for column in ("user_ids", "movie_ids")}
    for column, table in (("user_idx", "user_ids"), ("movie_idx", "movie_ids")):
        if arrays[column].min() < 0 or arrays[column].max() >= len(ids[table]):
            raise _DamagedError(f"its {column} leads out of the table")
    columns = {column: texts[column] for column in ("title", "raw_title", "year", "genres")}
    return Ratings(
        user_idx=arrays["user_idx"],
        movie_idx=arrays["movie_idx"],
        rating=arrays["rating"],
        user_ids=ids["user_ids"],
        movies=movies_table(ids["movie_ids"], **columns, n_ratings=arrays["n_ratings"], mean_rating=arrays["mean_rating"]),
        timestamp=arrays.get("timestamp"),
        scale=tuple(facts["scale"]),
        source=source,
        report=ReadReport(**facts["report"]),
    )


def _map(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    """The facts of a copy, and its arrays, mapped."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > _LARGEST_HEADER:
            raise _DamagedError("it is no copy")
        metadata = json.loads(file.read(size))["__metadata__"]
        if hashlib.sha256(metadata["cfrec"].encode()).hexdigest() != metadata["sha256"]:
            raise _DamagedError("its facts are not those that were written")
        facts: dict[str, Any] = json.loads(metadata["cfrec"])
        begin, arrays = 8 + size, {}
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
    for column, (length, _) in facts["arrays"].items():
        arrays[column] = np.frombuffer(content, _TYPES[column][1], length, begin)
        begin += arrays[column].nbytes
    if begin != len(content):
        raise _DamagedError(f"it has {len(content):,} bytes instead of {begin:,}")
    return facts, arrays


def _crc(array: Array) -> int:
    return zlib.crc32(array.data.cast("B"))


def _prune(folder: Path) -> None:
    """Delete all but the most recently used copies, and what writers that were killed left behind."""
    copies = sorted(folder.glob(f"*{_SUFFIX}"), key=_last_use, reverse=True)
    stale = [path for path in folder.glob(f"{_NEW}*") if _last_use(path) < time.time() - _STALE]
    for path in [*copies[MOST_COPIES:], *stale]:
        with contextlib.suppress(OSError):  # another process did, or (on Windows) still uses it
            path.unlink()


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
