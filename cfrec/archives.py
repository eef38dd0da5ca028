"""The files of a folder or a zip archive, found by name and read one at a time: nothing is ever unpacked to disk.

Whatever an archive says of itself may be a lie: how many entries it has, how large they are, and what they are called. Names are
compared and shown, and never used as paths.
"""

from __future__ import annotations

import lzma
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import numpy.typing as npt

from cfrec.errors import DataError
from cfrec.memory import check_fits
from cfrec.pieces import LARGE_FILE, map_file

Bytes = npt.NDArray[np.uint8]

# Whatever zipfile raises on a damaged archive.
ZIP_ERRORS = (
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    ArithmeticError,
    EOFError,
    NotImplementedError,
    RuntimeError,
    OSError,
    ValueError,
)
_LARGEST_FILE = 4 << 30  # bytes; the ratings of the largest release take 0.9 GB
_LARGEST_RATIO = 50  # unpacked to packed size; the releases' is about 4, and only a bomb's is hundreds
_SMALL = 10 << 20  # bytes that a file may unpack to whatever the ratio
_MOST_ENTRIES = 10_000  # the releases have less than twenty; zipfile takes a kilobyte and 10 µs for each
_ENTRY = b"PK\1\2"  # what each entry in an archive's list begins with
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others unpack in steps of any size: 400 bytes become a gigabyte
_LOCKED = 1  # an entry's flag
_BLOCK = 1 << 20  # bytes


class Files:
    """The files of a folder or an archive, found by their last name and read one at a time."""

    def __init__(self, names: list[str], read: Callable[[str], bytes | Bytes]) -> None:
        self.names, self._read = names, read

    def find(self, last_name: str) -> str | None:
        """The one file of that last name, or None. Raises DataError if there are several."""
        matches = [n for n in self.names if PurePosixPath(n).name.lower() == last_name]
        if len(matches) > 1:
            raise DataError(f"There is more than one {last_name}: {listed(matches[:4])}. Keep the one that is meant.")
        return matches[0] if matches else None

    def read(self, name: str) -> bytes | Bytes:
        """The content of a file. Raises DataError or OSError if it cannot be read."""
        return self._read(name)


def listed(names: list[str]) -> str:
    """Names of files for a message: an archive may call its files anything, at any length."""
    return ", ".join("".join(c if c.isprintable() else "?" for c in name[-60:]) for name in names)


def open_folder(folder: Path) -> Files:
    """The files in a folder, and in the folders in it."""
    files = [p for pattern in ("*", "*/*") for p in sorted(folder.glob(pattern)) if p.is_file()]
    return Files([p.relative_to(folder).as_posix() for p in files], lambda name: read_path(folder / name))


def read_path(path: Path) -> bytes | Bytes:
    """A file's bytes; a large one's are mapped. Raises OSError."""
    return map_file(path) if path.stat().st_size >= LARGE_FILE else path.read_bytes()


def is_archive(file: Path | IO[bytes]) -> bool:
    """Whether a file is a zip archive by its first bytes; or by its name, so that a damaged one is not taken for a table."""
    if isinstance(file, Path):
        if file.suffix.lower() in (".zip", ".whl"):
            return True
        with file.open("rb") as stream:
            return stream.read(4) == b"PK\3\4"
    if not file.seekable():
        return False
    start = file.tell()
    found = file.read(4) == b"PK\3\4"
    file.seek(start)
    return found


@contextmanager
def open_archive(file: Path | IO[bytes], name: str) -> Iterator[Files]:
    """The files in a zip archive. Raises DataError if it is damaged, holds links, or more files than anybody's."""
    with _open(file, name) as (archive, size):
        yield Files(_file_names(archive, name), lambda member: _read_member(archive, member, name, size))


def is_whole(path: Path) -> bool:
    """Whether each file of a zip archive can be unpacked and has the checksum written beside it; bombs are not tried."""
    try:
        with _open(path, path.name) as (archive, size):
            for info in archive.infolist():
                _check_member(info, path.name, size)
            in_all = sum(info.file_size for info in archive.infolist())  # entries may overlap
            return in_all <= _LARGEST_RATIO * size + _SMALL and archive.testzip() is None
    except (DataError, *ZIP_ERRORS):
        return False


@contextmanager
def _open(file: Path | IO[bytes], name: str) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """An archive, and how many bytes it has."""
    if isinstance(file, Path):
        with file.open("rb") as stream, _open(stream, name) as opened:
            yield opened
            return
    n_entries, size = _count_entries(file, 0)
    if n_entries > _MOST_ENTRIES:
        raise DataError(f"{name} holds more than {_MOST_ENTRIES:,} files. Make an archive of the table of ratings alone.")
    with _whole_zip(name):
        archive = zipfile.ZipFile(file)
    with archive:
        if _count_entries(file, archive.start_dir)[0] != len(archive.filelist):
            raise DataError(f"{name} is not a whole zip archive (its list of files has a gap). Download or make it again.")
        yield archive, size


def _count_entries(file: IO[bytes], start: int) -> tuple[int, int]:
    """How many entries there may be at most from ``start`` on, and how many bytes: known before zipfile reads a list of millions."""
    file.seek(start)
    n_entries = size = 0
    end = b""
    while block := file.read(_BLOCK):
        n_entries += (end + block).count(_ENTRY)
        size += len(block)
        end = block[-len(_ENTRY) + 1 :]
    return n_entries, size


def _file_names(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Names of the plain files. Raises DataError where one comes twice, or is a link: which file is meant cannot be told then."""
    files = [info for info in archive.infolist() if not info.filename.endswith("/") and "__MACOSX" not in info.filename]
    seen = set()
    for info in files:
        if stat.S_IFMT(info.external_attr >> 16) not in (0, stat.S_IFREG):
            raise DataError(f"{name} holds a link: {listed([info.filename])}. Put the file itself into it.")
        if info.filename in seen:
            raise DataError(f"{name} holds {listed([info.filename])} more than once. Make the archive again.")
        seen.add(info.filename)
        if not info.flag_bits & _LOCKED and info.compress_type in _METHODS:
            with _whole_zip(name):
                archive.open(info).close()  # which compares the name in the list with the one beside the content
    return [info.filename for info in files]


@contextmanager
def _whole_zip(name: str) -> Iterator[None]:
    """Say in one way whatever zipfile finds wrong with an archive."""
    try:
        yield
    except ZIP_ERRORS as error:
        raise DataError(f"{name} is not a whole zip archive ({str(error)[:200]}). Download or make it again.") from error


def _read_member(archive: zipfile.ZipFile, member: str, name: str, size: int) -> bytes:
    info = archive.getinfo(member)
    _check_member(info, name, size)
    check_fits(info.file_size + info.compress_size, f"{name}: to unpack {listed([member])}")
    with _whole_zip(name), archive.open(info) as stream:
        data = stream.read(info.file_size + 1)
        if len(data) != info.file_size:
            raise EOFError(f"{listed([member])} is shorter than it should be")
        return data


def _check_member(info: zipfile.ZipInfo, name: str, size: int) -> None:
    """Raise DataError for a file that should not be unpacked; ``size`` is the archive's own, which its parts cannot exceed."""
    if info.flag_bits & _LOCKED:
        raise DataError(f"{name} is locked with a password. Unpack it, and give the file inside.")
    if info.compress_type not in _METHODS:
        raise DataError(f"{name} is packed in an unusual way. Unpack it, and give the file inside.")
    packed = min(info.compress_size, size)
    if info.file_size > min(_LARGEST_FILE, _LARGEST_RATIO * packed + _SMALL):
        unpacked = f"{listed([info.filename])} would unpack to {info.file_size / 1e6:,.0f} MB from {packed / 1e6:,.1f} MB"
        raise DataError(f"{name}: {unpacked}. Unpack it, and give the file inside.")
