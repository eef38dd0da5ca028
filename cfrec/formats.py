"""What kind of file this is, by its first and last bytes; and the content of a compressed one."""

from __future__ import annotations

import bz2
import codecs
import gzip
import io
import lzma
import re
import zlib
from collections.abc import Iterator
from pathlib import PurePath

from cfrec.archives import SAVE_AS_CSV, listed, most_unpacked, open_archive
from cfrec.errors import DataError
from cfrec.memory import check_fits

_COMPRESSED = {rb"\x1f\x8b\x08": ".gz", rb"BZh[1-9](1AY&SY|\x17rE8P\x90)": ".bz2", rb"\xfd7zXZ\0": ".xz"}
_JSON = re.compile(rb"\s*(?:\[\s*[\[{]|\{\s*[\"'}])")
_BLOCK = 4 << 20  # bytes
_PACKED = 1 << 16  # bytes
_MOST_MEMORY = 1 << 30  # bytes that unpacking xz may take beside what comes out; its own best level takes 65 MB
_AGAIN = "Download or make it again."
_UNPACK = "Unpack it, and give the file inside."
_PICTURE = "Give a table of ratings, such as a CSV file."
_HEAD, _TAIL = 512, 8  # bytes that the patterns below see: the file's first and its last
_UNREADABLE = [
    (rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an Excel or Word file, of the old kind or locked", SAVE_AS_CSV),
    (rb"\x80[\x02-\x05].*\.\Z", "a Python pickle", SAVE_AS_CSV),
    (rb"\x93NUMPY", "a NumPy array", SAVE_AS_CSV),
    (rb"\x89HDF\r\n\x1a\n", "an HDF5 file", SAVE_AS_CSV),
    (rb"SQLite format 3\0", "an SQLite database", SAVE_AS_CSV),
    (rb"%PDF-", "a PDF", SAVE_AS_CSV),
    (rb"RD[ABX][23]\n[ABX]\n|[BX]\n\0\0\0[\x02\x03]", "an R data file", SAVE_AS_CSV),
    (rb"<stata_dta>|[\x6c-\x73][\x01\x02]\x01\0", "a Stata file", SAVE_AS_CSV),
    (rb"\$FL[23]@\(#\)", "an SPSS file", SAVE_AS_CSV),
    (rb"MATLAB \d\.\d MAT-file", "a MATLAB file", SAVE_AS_CSV),
    (rb"Obj\x01", "an Avro file", SAVE_AS_CSV),
    (rb"ORC.*\x82\xf4\x03\x03ORC.\Z", "an ORC file", SAVE_AS_CSV),
    (rb"PAR1\x15.*(?<!PAR1)\Z", "a Parquet file without its end", _AGAIN),
    (rb"PK\x03\x04", "a zip archive", _UNPACK),
    (rb".{257}ustar(\x0000|  \0)", "a tar archive", _UNPACK),
    (rb"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (rb"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (rb"\x28\xb5\x2f\xfd", "compressed with Zstandard", _UNPACK),
    (rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|GIF8[79]a", "a picture", _PICTURE),
]


def unpack(data: bytes, name: str) -> tuple[bytes, str]:
    """The content of a file compressed with gzip, bzip2 or xz, and its name without the suffix; any other file as it is.

    Parameters
    ----------
    data : bytes
        The whole file. Several compressed streams may follow one another: all are read.
    name : str
        What the file is called.

    Raises
    ------
    DataError
        It is damaged or cut, would become far larger than tables do, or does not fit into memory.
    """
    head = data[:_HEAD]
    suffix = next((suffix for magic, suffix in _COMPRESSED.items() if re.match(magic, head)), None)
    if suffix is None:
        return data, name
    shown, parts, size = listed([name]), [], 0
    check_fits(len(data), f"{shown}: to unpack it")
    try:
        for part in _unpacked(data, suffix):
            parts.append(part)
            size += len(part)
            if size > most_unpacked(len(data)):
                raise DataError(f"{shown} unpacks to far more than a table does ({size / 1e6:,.0f} MB so far). {_UNPACK}")
            check_fits(size + _BLOCK, f"{shown}: to unpack it")  # a copy of it all is made at the end, beside the parts
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError) as error:
        raise DataError(f"{shown} is damaged or not whole ({str(error)[:100]}). {_AGAIN}") from error
    return b"".join(parts), name[: -len(suffix)] if name.lower().endswith(suffix) else name


def _unpacked(data: bytes, suffix: str) -> Iterator[bytes]:
    """At most ``_BLOCK`` bytes at a time. Python's own files of bz2 and xz would take a damaged second stream for the end."""
    if suffix == ".gz":
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            yield from iter(lambda: file.read(_BLOCK), b"")
        return
    begin = 0
    while begin < len(data):
        stream = bz2.BZ2Decompressor() if suffix == ".bz2" else lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_MOST_MEMORY)
        while not stream.eof:
            part = data[begin : begin + _PACKED] if stream.needs_input else b""
            if stream.needs_input and not part:
                raise EOFError("it ends too early")
            begin += len(part)
            yield stream.decompress(part, _BLOCK)
        begin -= len(stream.unused_data)
        while suffix == ".xz" and data[begin : begin + 4] == b"\0" * 4:  # padding
            begin += 4


def refuse_unreadable(data: bytes, name: str) -> None:
    """Raise DataError, which names the format and says what to do, for a file that holds no text and no table that can be read."""
    if data[:4] == b"PK\3\4":
        with open_archive(io.BytesIO(data), listed([name])):  # which says so if it is a workbook
            pass
    ends = data[:_HEAD] + data[-_TAIL:]
    kinds = [(kind, advice) for pattern, kind, advice in _UNREADABLE if re.match(pattern, ends, re.DOTALL)]
    if PurePath(name).suffix.lower() in (".pkl", ".pickle"):  # pickles of the oldest kind begin with any letter
        kinds.append(("a Python pickle", SAVE_AS_CSV))
    if kinds:
        raise DataError(f"{listed([name])} is {kinds[0][0]}. {kinds[0][1]}")


def is_parquet(data: bytes) -> bool:
    """Whether a file is Parquet: its mark stands at both ends."""
    return len(data) > 8 and data[:4] == data[-4:] == b"PAR1"


def is_arrow(data: bytes) -> bool:
    """Whether a file is Arrow's file format, or Feather, its older form."""
    return data[:8] == b"ARROW1\0\0" or data[:4] == data[-4:] == b"FEA1"


def is_json(data: bytes) -> bool:
    """Whether a file begins as JSON does, with an object or a list of them; a bracket alone may be a cell of text."""
    return _JSON.match(data[:_HEAD].removeprefix(codecs.BOM_UTF8)) is not None
