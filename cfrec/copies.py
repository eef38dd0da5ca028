"""Copies of large files of ratings in the cache folder, in a form that is read in a moment the next time.

A copy is one file under ``copies`` in the cache folder: a seal of 64 hexadecimal digits, then three Arrow streams: the movies, the users'
ids, the ratings. The seal is the SHA-256 of the copy's key (what it was read from, how, and into which format) and of the streams: a copy
that is damaged, another file's, or of another format fails this one check. A copy that was forged on purpose passes it.

A copy is written under another name and renamed, so that nobody reads half of one. What cannot be written or read costs time only: a
line in the log says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import logging
import mmap
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np

from cfrec import datasets
from cfrec.pieces import hash_file, hash_parts
from cfrec.ratings import Ratings, Source
from cfrec.report import ReadReport

logger = logging.getLogger(__name__)

FORMAT = 3  # to be raised whenever the same file is read into something else than before
MOST_COPIES = 4  # the most recently used
_SUFFIX, _NEW, _EARLIER = ".arrow", ".new-", ".safetensors"
_STALE = 3600.0  # seconds after which a copy that is still being written never will be
_SEAL = 64  # bytes; a multiple of 8, so that the arrays after it are aligned
_COLUMNS = ("user_idx", "movie_idx", "rating", "timestamp")


class Original:
    """The files that ratings are read from, as they are when this is made.

    Parameters
    ----------
    paths : paths
        The file of ratings first.
    options : str
        How they are read: other options make another copy.
    """

    def __init__(self, paths: Iterable[Path], options: str) -> None:
        self.paths, self.options = tuple(paths), options
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
            name = hashlib.sha256("\n".join([f"{FORMAT} {self.options}", *parts]).encode()).hexdigest()
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
    except (OSError, ValueError, LookupError, TypeError) as error:
        logger.warning("the copy %s is not used: %s", path, error)
        return None
    return ratings


def keep_copy(original: Original, ratings: Ratings) -> Thread:
    """Store a copy, unless the files changed since; drops those that were not used for longest.

    Writing goes on in the thread that is returned, which the process waits for when it ends. What the caller changes in the arrays
    meanwhile makes a copy that fails its check.
    """
    parts = _encode(ratings)
    thread = Thread(target=_keep, args=(original, parts, hash_parts(parts)), name="cfrec-copy")
    thread.start()
    return thread


def _keep(original: Original, parts: list[memoryview], digest: str) -> None:
    try:
        key = original.hash(in_threads=False)  # a process that is about to end starts no threads
        if original.has_changed():
            logger.warning("%s changed while it was read: no copy of it is kept", original.paths[0])
            return
        original.folder.mkdir(parents=True, exist_ok=True)
        _write(original.folder / f"{key}{_SUFFIX}", [_seal(key, digest), *parts])
        _prune(original.folder)
    except OSError as error:
        logger.warning("no copy of %s is kept in %s: %s", original.paths[0], original.folder, error)


def _seal(key: str, digest: str) -> bytes:
    return hashlib.sha256(f"{key} {digest}".encode()).hexdigest().encode()


class _Parts(io.RawIOBase):
    """A file in memory that keeps views of what is written: Arrow hands over the arrays themselves, so nothing is copied."""

    def __init__(self) -> None:
        self.views: list[memoryview] = []

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.views.append(memoryview(data))
        return len(data)


def _encode(ratings: Ratings) -> list[memoryview]:
    """The Arrow streams, in parts."""
    import pyarrow as pa

    ids = pa.array(ratings.user_ids, None if ratings.user_ids.dtype == np.int64 else pa.large_string())
    columns = {name: pa.array(values) for name in _COLUMNS if (values := getattr(ratings, name)) is not None}
    facts = {"scale": json.dumps(ratings.scale), "report": ratings.report.to_json()}
    with _Parts() as parts:
        for table in (pa.Table.from_pandas(ratings.movies), pa.table({"user_ids": ids}), pa.table(columns, metadata=facts)):
            with pa.ipc.new_stream(parts, table.schema) as stream:
                stream.write_table(table)
    return parts.views


def _write(path: Path, parts: list[bytes | memoryview]) -> None:
    handle, new = tempfile.mkstemp(prefix=_NEW, dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.writelines(parts)
        Path(new).replace(path)
    finally:
        Path(new).unlink(missing_ok=True)


def _decode(path: Path, key: str, source: Source) -> Ratings:
    """Read a copy. Raises ValueError where it is damaged, or whatever else reading it comes to."""
    import pyarrow as pa

    with path.open("rb") as file:
        content = pa.py_buffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY))
    seal, streams = content[:_SEAL].to_pybytes(), content[_SEAL:]
    if seal != _seal(key, hash_parts([memoryview(streams)])):
        raise ValueError("it is damaged, or another file's")
    reader = pa.BufferReader(streams)
    movies, users, table = (pa.ipc.open_stream(reader).read_all() for _ in range(3))
    arrays = {name: _view(part[name].chunk(0), content) for part in (users, table) for name in part.column_names}
    for name, n_rows in (("user_idx", len(users)), ("movie_idx", len(movies))):
        if arrays[name].min() < 0 or arrays[name].max() >= n_rows:
            raise ValueError(f"its {name} leads out of the table")
    return Ratings(
        **{"timestamp": None, **arrays},
        movies=movies.to_pandas(),
        scale=tuple(json.loads(table.schema.metadata[b"scale"])),
        source=source,
        report=ReadReport.from_json(table.schema.metadata[b"report"].decode()),
    )


def _view(values: Any, content: Any) -> Any:
    """An Arrow array as NumPy's: text as objects, numbers as a view of the map, which is writable, unlike Arrow's ``to_numpy``."""
    if values.type == "large_string":
        return values.to_numpy(zero_copy_only=False)
    return np.frombuffer(content, values.type.to_pandas_dtype(), len(values), values.buffers()[1].address - content.address)


def _prune(folder: Path) -> None:
    """Delete all but the most recently used copies, those of earlier formats, and what writers that were killed left behind."""
    copies = sorted(folder.glob(f"*{_SUFFIX}"), key=_last_use, reverse=True)
    stale = [path for path in folder.glob(f"{_NEW}*") if _last_use(path) < time.time() - _STALE]
    for path in [*copies[MOST_COPIES:], *stale, *folder.glob(f"*{_EARLIER}")]:
        with contextlib.suppress(OSError):  # another process did, or (on Windows) still uses it
            path.unlink()


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
