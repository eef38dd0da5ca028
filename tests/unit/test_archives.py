import io
import zipfile

import pytest

from cfrec import archives
from cfrec.archives import Files, is_archive, is_whole, listed, open_archive, open_folder
from cfrec.errors import DataError


def zipped(*members, method=zipfile.ZIP_DEFLATED, comment=b"") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.comment = comment
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


def test_files_are_found_by_their_last_name_and_read():
    files = Files(["ml/ratings.csv", "ml/Movies.CSV"], lambda name: name.encode())
    assert files.find("movies.csv") == "ml/Movies.CSV"
    assert files.find("tags.csv") is None
    assert files.read("ml/ratings.csv") == b"ml/ratings.csv"
    with pytest.raises(DataError, match=r"more than one a\.csv: a\.csv, x/a\.csv\. Keep the one"):
        Files(["a.csv", "x/a.csv"], lambda _: b"").find("a.csv")


def test_names_in_messages_are_short_and_printable():
    assert listed(["a.csv", "x" * 100 + ".csv", "b\n\x1b[31m\u202e.csv"]) == f"a.csv, {'x' * 56}.csv, b??[31m?.csv"


def test_what_an_archive_is(tmp_path):
    data = zipped(("a.csv", "1"))
    files = [("a.zip", b"no", True), ("a.csv", data, True), ("b.csv", b"1,2,3\n" + data, False), ("c.csv", b"", False)]
    for name, content, wanted in files:
        (tmp_path / name).write_bytes(content)
        assert is_archive(tmp_path / name) == wanted
        assert is_archive(io.BytesIO(content)) == content.startswith(b"PK")
    stream = io.BytesIO(b"1,2,3\n")
    assert not is_archive(stream)
    assert stream.read() == b"1,2,3\n"


def test_a_table_with_an_archive_behind_it_is_the_same_as_a_file_and_as_an_upload(tmp_path):
    """As a file, it was once read as the archive; as an upload, as the table."""
    data = b"user,item,rating\n1,2,3\n" + zipped(("ratings.csv", "4,5,1"))
    (tmp_path / "r.csv").write_bytes(data)
    for file in (tmp_path / "r.csv", io.BytesIO(data)):
        assert not is_archive(file)


def test_an_archive_is_read_by_name():
    with open_archive(io.BytesIO(zipped(("ml/", b""), ("ml/a.csv", b"1"), ("__MACOSX/a.csv", b"2"), comment=b"hello")), "f") as files:
        assert files.names == ["ml/a.csv"]
        assert files.read("ml/a.csv") == b"1"


def test_a_list_with_a_gap_is_refused():
    """A changed byte says that a name has a comment of 1,024 bytes, which swallows the rest of the list: it once passed for whole."""
    data = bytearray(zipped(("ratings.csv", b"1"), ("movies.csv", b"2")))
    at = data.index(b"PK\1\2") + 33
    data[at] = 4
    with pytest.raises(DataError, match="its list of files has a gap"), open_archive(io.BytesIO(data), "f"):
        pass


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_methods_that_unpack_in_steps_of_any_size_are_refused(method):
    data = io.BytesIO(zipped(("a.csv", b"1"), method=method))
    with open_archive(data, "f") as files, pytest.raises(DataError, match="in an unusual way"):
        files.read("a.csv")


def test_more_files_than_anybody_has_are_refused_before_they_are_listed(monkeypatch):
    monkeypatch.setattr(archives, "_MOST_ENTRIES", 2)
    monkeypatch.setattr(archives, "_BLOCK", 5)  # what an entry begins with lies across blocks
    with open_archive(io.BytesIO(zipped(("a", b""), ("b", b""))), "f") as files:
        assert files.names == ["a", "b"]
    three = io.BytesIO(zipped(("a", b""), ("b", b""), ("c", b"")))
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("it is listed"))
    with pytest.raises(DataError, match="more than 2 files"), open_archive(three, "f"):
        pass


def test_whole_is_what_can_be_unpacked(tmp_path):
    path = tmp_path / "a.zip"
    whole = zipped(("a.csv", b"1,2,3\n" * 1000), ("b.csv", b"4"), method=zipfile.ZIP_STORED)
    path.write_bytes(whole)
    assert is_whole(path)
    for changed in (whole[:-30], whole.replace(b"b.csv4", b"b.csv5"), b"", b"<html>", zipped(("a.csv", bytes(20 << 20)))):
        path.write_bytes(changed)
        assert not is_whole(path)


def test_entries_over_one_another_are_not_unpacked(tmp_path, monkeypatch):
    """Each may unpack to fifty times the archive: a hundred of them would take hours."""
    monkeypatch.setattr(archives, "_SMALL", 3)
    (tmp_path / "a.zip").write_bytes(zipped(("a.csv", bytes(4000)), ("b.csv", bytes(4000)), ("c.csv", bytes(10_000))))
    monkeypatch.setattr(archives, "_check_member", lambda *_: None)
    monkeypatch.setattr(zipfile.ZipFile, "testzip", lambda _: pytest.fail("it is unpacked"))
    assert not is_whole(tmp_path / "a.zip")


def test_a_folder_and_the_folders_in_it(tmp_path):
    (tmp_path / "ml" / "deep").mkdir(parents=True)
    for name in ("a.csv", "ml/b.csv", "ml/deep/c.csv"):
        (tmp_path / name).write_text(name)
    files = open_folder(tmp_path)
    assert files.names == ["a.csv", "ml/b.csv"]
    assert files.read("ml/b.csv") == b"ml/b.csv"
