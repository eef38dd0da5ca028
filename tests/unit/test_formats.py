import bz2
import gzip
import io
import lzma
import pickle
import random
import re
import zipfile

import pytest

from cfrec import archives, formats
from cfrec.errors import DataError
from cfrec.formats import is_arrow, is_json, is_parquet, refuse_unreadable, unpack

TABLE = b"user,movie,rating\n" + b"".join(b"%d,%d,%d\n" % (k % 97, k * 7 % 311, k % 5 + 1) for k in range(5_000))
PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("suffix", PACK)
def test_compressed_files_are_unpacked(suffix):
    packed = PACK[suffix](TABLE)
    assert unpack(packed, f"ratings.csv{suffix}") == (TABLE, "ratings.csv")
    assert unpack(packed, f"ratings.csv{suffix.upper()}") == (TABLE, "ratings.csv")
    assert unpack(packed, "ratings") == (TABLE, "ratings")
    assert unpack(PACK[suffix](b""), f"a{suffix}") == (b"", "a")


@pytest.mark.parametrize("suffix", PACK)
def test_all_streams_of_a_file_are_read(suffix):
    packed = b"".join(PACK[suffix](TABLE[k : k + 999]) for k in range(0, len(TABLE), 999))
    assert unpack(packed, "a")[0] == TABLE
    assert unpack(lzma.compress(b"1") + b"\0" * 8 + lzma.compress(b"2"), "a")[0] == b"12"


@pytest.mark.parametrize("name", ["a.gz", "a.csv"])
def test_what_is_not_compressed_stays_as_it_is(name):
    for data in (TABLE, b"", b"BZh9,1,2"):
        same, told = unpack(data, name)
        assert same is data
        assert told == name


@pytest.mark.parametrize("suffix", PACK)
def test_damaged_and_cut_files_are_read_right_or_refused(suffix):
    """A second stream whose first bytes are damaged would be left out by Python's own readers of bz2 and xz."""
    packed, rng, refusals = PACK[suffix](TABLE[:9_000]) + PACK[suffix](TABLE[9_000:]), random.Random(0), []
    half = len(PACK[suffix](TABLE[:9_000]))
    for at in [half, half + 1, half + 4, *(rng.randrange(8, len(packed)) for _ in range(150))]:
        flipped = bytearray(packed)
        flipped[at] ^= 1 << rng.randrange(8)
        for data, is_cut in ((bytes(flipped), False), (packed[:at], True)):
            try:
                assert unpack(data, f"a{suffix}")[0] == (TABLE[:9_000] if is_cut and at == half else TABLE)
            except DataError as error:
                refusals.append(str(error))
    assert len(refusals) > 280
    assert all(re.fullmatch(rf"a\{suffix} is damaged or not whole \(.+\)\. Download or make it again\.", text) for text in refusals)


@pytest.mark.parametrize("suffix", PACK)
def test_bombs_are_stopped_early(suffix, monkeypatch):
    bomb = PACK[suffix](bytes(64 << 20))
    monkeypatch.setattr(archives, "_SMALL", 1 << 20)
    with pytest.raises(DataError, match=r"unpacks to far more than a table does \((4|8) MB so far\). Unpack it, and give"):
        unpack(bomb, "a")


def test_what_does_not_fit_into_memory_is_not_unpacked(monkeypatch):
    monkeypatch.setattr("cfrec.memory.free_memory", lambda: 1_000_000)
    with pytest.raises(DataError, match="a: to unpack it would need about 4 MB of memory, and 1 MB are free"):
        unpack(gzip.compress(TABLE), "a")


def test_xz_that_asks_for_much_memory_is_refused(monkeypatch):
    packed = lzma.compress(TABLE, preset=9)
    assert unpack(packed, "a")[0] == TABLE
    monkeypatch.setattr(formats, "_MOST_MEMORY", 1 << 20)
    with pytest.raises(DataError, match="damaged or not whole"):
        unpack(packed, "a")


CSV = "Open it in the program it is made for and save it as CSV"
INSIDE = "Unpack it, and give the file inside"
UNREADABLE = {
    "a.xlsx": (zipped(**{"[Content_Types].xml": b"", "xl/workbook.xml": b""}), "an Excel workbook", CSV),
    "a.xlsb": (zipped(**{"[Content_Types].xml": b"", "xl/workbook.bin": b""}), "an Excel workbook", CSV),
    "a.docx": (zipped(**{"[Content_Types].xml": b"", "word/document.xml": b""}), "an Office document", CSV),
    "a.ods": (zipped(mimetype=b"application/vnd.oasis.opendocument.spreadsheet", **{"content.xml": b""}), "workbook of LibreOffice", CSV),
    "a.numbers": (zipped(**{"Index/Document.iwa": b""}), "workbook of LibreOffice or Apple", CSV),
    "a.npz": (zipped(**{"x.npy": b"", "y.npy": b""}), "a NumPy archive", CSV),
    "inner.zip": (zipped(**{"ratings.csv": TABLE}), "a zip archive", INSIDE),
    "a.xls": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504), "an Excel or Word file, of the old kind", CSV),
    **{f"{k}.bin": (pickle.dumps(list(range(k)), protocol=k), "a Python pickle", CSV) for k in (2, 3, 4, 5)},
    "old.pkl": (pickle.dumps([1, 2], protocol=0), "a Python pickle", CSV),
    "old.Pickle": (pickle.dumps([1, 2], protocol=1), "a Python pickle", CSV),
    "a.npy": (b"\x93NUMPY\1\0v\0", "a NumPy array", CSV),
    "a.h5": (b"\x89HDF\r\n\x1a\n\0", "an HDF5 file", CSV),
    "a.db": (b"SQLite format 3\0\x10", "an SQLite database", CSV),
    "a.pdf": (b"%PDF-1.7\n%\xe2\xe3", "a PDF", CSV),
    "a.rda": (b"RDX3\nX\n\0\0\0\3", "an R data file", CSV),
    "b.rda": (b"RDA2\nA\n2\n", "an R data file", CSV),
    "a.rds": (b"X\n\0\0\0\3\0\4\3\0", "an R data file", CSV),
    "a.dta": (b"<stata_dta><header><release>118", "a Stata file", CSV),
    "b.dta": (b"\x72\2\1\0\3\0", "a Stata file", CSV),
    "a.sav": (b"$FL2@(#) SPSS DATA FILE", "an SPSS file", CSV),
    "a.mat": (b"MATLAB 5.0 MAT-file, Platform: GLNXA64", "a MATLAB file", CSV),
    "a.avro": (b"Obj\1\4\x14avro.codec", "an Avro file", CSV),
    "a.orc": (b"ORC\x11\0\0\x0a" + bytes(90) + b"\x82\xf4\3\3ORC\x17", "an ORC file", CSV),
    "a.parquet": (b"PAR1\x15\4\x15\x10" + bytes(90), "a Parquet file without its end", "Download or make it again"),
    "a.tar": (b"ratings.csv".ljust(257, b"\0") + b"ustar\x0000" + bytes(248), "a tar archive", INSIDE),
    "b.tar": (b"ratings.csv".ljust(257, b"\0") + b"ustar  \0" + bytes(248), "a tar archive", INSIDE),
    "a.7z": (b"7z\xbc\xaf\x27\x1c\0\4", "a 7z archive", INSIDE),
    "a.rar": (b"Rar!\x1a\7\1\0", "a RAR archive", INSIDE),
    "a.zst": (b"\x28\xb5\x2f\xfd\x24\0", "compressed with Zstandard", INSIDE),
    "a.png": (b"\x89PNG\r\n\x1a\n\0\0", "a picture", "Give a table of ratings"),
    "a.jpg": (b"\xff\xd8\xff\xe0\0\x10JFIF", "a picture", "Give a table of ratings"),
    "a.gif": (b"GIF89a\1\0", "a picture", "Give a table of ratings"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_cannot_be_read_is_named_and_says_what_to_do(name):
    data, kind, advice = UNREADABLE[name]
    with pytest.raises(DataError) as caught:
        refuse_unreadable(data, name)
    assert str(caught.value).startswith(f"{name} is ")
    assert kind in str(caught.value)
    assert advice in str(caught.value)
    assert not any(check(data) for check in (is_parquet, is_arrow, is_json))


@pytest.mark.parametrize("name", ["a.xlsx", "a.ods", "a.npz"])
def test_a_workbook_opened_as_an_archive_is_told_the_same(name):
    data = UNREADABLE[name][0]
    messages = set()
    for read in (lambda: refuse_unreadable(data, name), lambda: archives.open_archive(io.BytesIO(data), name).__enter__()):
        with pytest.raises(DataError) as caught:
            read()
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_a_name_in_a_message_is_short_and_printable():
    with pytest.raises(DataError, match=r"^x{57}\?.a is a PDF\. "):
        refuse_unreadable(b"%PDF-1.7", "x" * 999 + "\x1b.a")


@pytest.mark.parametrize(
    "data",
    [
        *(
            b"",
            b"1,2,3\n",
            b"userId,movieId\n1,2\n",
            b'"user","movie"\n',
            b"\xef\xbb\xbfuser,movie\n",
            b"ORC,1\nx,ORC\n",
            b"PAR1,2\nx,PAR1",
        ),
        *(
            b"PAR1",
            b"RDX3,\n",
            b"Obj,1\n",
            b"MATLAB 5,1\n",
            b"%comment\n",
            b"$FL2,3\n",
            b"BZh9\n",
            b"PK,3\n",
            b"7z,Rar!\n",
            b"GIF,1\n",
            b"ARROW1,2\n",
        ),
        *(b"x" * 257 + b"ustard\n", "€5,3\n".encode("cp1252"), "user,movie".encode("utf-16")),
    ],
)
def test_a_table_is_none_of_these(data):
    for name in ("ratings.csv", "ratings.xlsx", "ratings"):
        refuse_unreadable(data, name)
        assert unpack(data, name) == (data, name)
    assert not any(check(data) for check in (is_arrow, is_json))
    assert is_parquet(data) == (data == b"PAR1,2\nx,PAR1")


def test_formats_that_are_read_are_told_apart():
    for kind, told in ((b"PAR1\x15\4 PAR1", is_parquet), (b"ARROW1\0\0\xff\xff", is_arrow), (b"FEA1 FEA1", is_arrow), (b"{}", is_json)):
        refuse_unreadable(kind, "a")
        assert [check(kind) for check in (is_parquet, is_arrow, is_json)] == [check is told for check in (is_parquet, is_arrow, is_json)]


JSON = [("[1]", False), ("[,0,0", False), ("[\n {", True), ('\ufeff \r\n\t{"a": 1}', True), ('"a"', False), ("1", False), ("", False)]


@pytest.mark.parametrize(("text", "wanted"), JSON)
def test_json_begins_with_an_object_or_a_list(text, wanted):
    assert is_json(text.encode()) == wanted
