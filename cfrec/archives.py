"""The files of a folder or a zip archive, found by name and read one at a time: nothing is ever unpacked to disk.

Whatever an archive says of itself may be a lie: how many entries it has, how large they are, and what they are called. Names are
compared and shown, and never used as paths.
"""

from __future__ import annotations

import io
import lzma
import re
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path, PurePosixPath
from typing import IO

from cfrec.errors import DataError
from cfrec.memory import check_fits

# Whatever zipfile raises on a damaged archive.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, ArithmeticError, EOFError, RuntimeError, OSError, ValueError)
SAVE_AS_CSV = "Open it in the program it is made for and save it as CSV, then give that file."
_DOCUMENTS = {  # by a file in them: what else is a zip archive
    r"xl/workbook\.(xml|bin)": "an Excel workbook",
    r"content\.xml|Index/Document\.iwa": "a document or workbook of LibreOffice or Apple",
    r"\[Content_Types\]\.xml": "an Office document",
}
_LARGEST_FILE = 4 << 30  # bytes; the ratings of the largest release take 0.9 GB
_LARGEST_RATIO = 50  # unpacked to packed size; the releases' is about 4, and only a bomb's is hundreds
_SMALL = 10 << 20  # bytes that a file may unpack to whatever the ratio
_MOST_ENTRIES = 10_000  # the releases have less than twenty; zipfile takes a kilobyte and 10 µs for each
_FILE, _ENTRY = b"PK\3\4", b"PK\1\2"  # what an archive begins with, and each entry in its list of files
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # others unpack in steps of any size: 400 bytes become a gigabyte
_LOCKED = 1  # an entry's flag
_BLOCK = 1 << 20  # bytes


class Files:
    """The files of a folder or an archive, found by their last name and read one at a time."""

    def __init__(self, names: list[str], read: Callable[[str], bytes]) -> None:
        self.names, self.read = names, read  # which raises DataError or OSError

    def find(self, last_name: str) -> str | None:
        """The one file of that last name, or None. Raises DataError if there are several."""
        matches = [n for n in self.names if PurePosixPath(n).name.lower() == last_name]
        if len(matches) > 1:
            raise DataError(f"There is more than one {last_name}: {listed(matches[:4])}. Keep the one that is meant.")
        return matches[0] if matches else None


def listed(names: list[str]) -> str:
    """Names of files for a message: an archive may call its files anything, at any length."""
    return ", ".join("".join(c if c.isprintable() else "?" for c in name[-60:]) for name in names)


def most_unpacked(packed: int) -> int:
    """The most bytes that this many packed bytes may unpack to: more is a bomb."""
    return min(_LARGEST_FILE, _LARGEST_RATIO * packed + _SMALL)


def open_folder(folder: Path) -> Files:
    """The files in a folder, and in the folders in it."""
    files = [p for pattern in ("*", "*/*") for p in sorted(folder.glob(pattern)) if p.is_file()]
    return Files([p.relative_to(folder).as_posix() for p in files], lambda name: (folder / name).read_bytes())


def is_archive(file: Path | IO[bytes]) -> bool:
    """Whether a file is a zip archive by its first bytes; or by its name, so that a damaged one is not taken for a table."""
    if isinstance(file, Path):
        with file.open("rb") as stream:
            return file.suffix.lower() in (".zip", ".whl") or is_archive(stream)
    if not file.seekable():
        return False
    start = file.tell()
    found = file.read(4) == _FILE
    file.seek(start)
    return found


@contextmanager
def open_archive(file: Path | IO[bytes], name: str) -> Iterator[Files]:
    """The files in a zip archive.

    Raises
    ------
    DataError
        It is damaged, a workbook, or holds links, the same name twice, or more files than anybody's.
    """
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
    with file.open("rb") if isinstance(file, Path) else nullcontext(file) as stream:
        if _count_entries(stream, 0) > _MOST_ENTRIES:
            raise DataError(f"{name} holds more than {_MOST_ENTRIES:,} files. Make an archive of the table of ratings alone.")
        size = stream.seek(0, io.SEEK_END)
        with _whole_zip(name):
            archive = zipfile.ZipFile(stream)
        with archive:
            if _count_entries(stream, archive.start_dir) != len(archive.filelist):
                raise DataError(f"{name} is not a whole zip archive (its list of files has a gap). Download or make it again.")
            yield archive, size


def _count_entries(file: IO[bytes], start: int) -> int:
    """How many entries there may be at most from ``start`` on: known before zipfile reads a list of millions."""
    n_entries, end = 0, b""
    file.seek(start)
    while block := file.read(_BLOCK):
        n_entries += (end + block).count(_ENTRY)
        end = block[-len(_ENTRY) + 1 :]
    return n_entries


def _file_names(archive: zipfile.ZipFile, name: str) -> list[str]:
    """Names of the plain files. Raises DataError where one comes twice, or is a link: which file is meant cannot be told then."""
    files = [info for info in archive.infolist() if not info.filename.endswith("/") and "__MACOSX" not in info.filename]
    _refuse_document([info.filename for info in files], name)
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


def _refuse_document(names: list[str], name: str) -> None:
    found = [kind for pattern, kind in _DOCUMENTS.items() if any(re.fullmatch(pattern, file) for file in names)]
    if names and all(file.endswith(".npy") for file in names):
        found = ["a NumPy archive"]
    if found:
        raise DataError(f"{name} is {found[0]}. {SAVE_AS_CSV}")


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
    if info.file_size > most_unpacked(packed):
        unpacked = f"{listed([info.filename])} would unpack to {info.file_size / 1e6:,.0f} MB from {packed / 1e6:,.1f} MB"
        raise DataError(f"{name}: {unpacked}. Unpack it, and give the file inside.")
