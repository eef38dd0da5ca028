import io
import os
import subprocess
import sys
import threading
import time
import zipfile
from itertools import pairwise

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cfrec
from cfrec import copies
from cfrec.pieces import hash_file, hash_parts
from cfrec.ratings import Source, build_ratings

TABLE = "userId,movieId,rating,timestamp\n1,20,3.5,99\n2,10,4,98\n1,20,4.5,100\n2,20,0.5,97\n"
MOVIES = 'movieId,title,genres\n10,"Boot, Das (1981)",Drama|War\n20,Fargo,Crime\n'
ARRAYS = ("user_idx", "movie_idx", "rating", "timestamp", "user_ids")


@pytest.fixture(autouse=True)
def folder(cache, monkeypatch):
    """Where the copies are; every file is a large one."""
    monkeypatch.setattr("cfrec.readers.LARGE_FILE", 0)
    yield cache / "copies"
    finish()


def finish():
    for thread in threading.enumerate():
        if thread.name == "cfrec-copy":
            thread.join()


def read(*args, **options):
    ratings = cfrec.read_ratings(*args, **options)
    finish()
    return ratings


def stored(folder):
    return sorted(folder.glob("*")) if folder.exists() else []


@pytest.fixture
def table(tmp_path):
    path = tmp_path / "r.csv"
    path.write_text(TABLE)
    return path


@pytest.fixture
def no_parsing(monkeypatch):
    """Whatever is read from now on comes from a copy."""
    return lambda: monkeypatch.setattr("cfrec.readers._read", lambda *_: pytest.fail("the file is read again"))


def assert_same(found, wanted):
    for name in ARRAYS:
        a, b = getattr(found, name), getattr(wanted, name)
        assert type(a) is type(b), name
        assert a is b is None or (a.tolist() == b.tolist() and a.dtype == b.dtype and a.flags.writeable and a.flags.aligned), name
    pd.testing.assert_frame_equal(found.movies, wanted.movies)
    assert (found.scale, found.report, found.split_by) == (wanted.scale, wanted.report, wanted.split_by)


@pytest.mark.parametrize("text", [TABLE, TABLE.replace("\n1,", "\nann,"), "user,item,rating\n1,é,3\n1,007,2\n"])
def test_the_copy_is_what_was_read(tmp_path, no_parsing, text):
    (tmp_path / "r.csv").write_text(text, encoding="utf-8")
    wanted = read(tmp_path / "r.csv")
    no_parsing()
    assert_same(read(tmp_path / "r.csv"), wanted)


@pytest.mark.parametrize("ids", [np.array([3, 1, 2**62]), np.array(["b", "", "é"], object)])
def test_types_come_back_and_what_is_written_into_the_arrays_never_reaches_the_copy(table, ids):
    wanted = build_ratings(ids, ids, np.array([1, 2, 5]), movies={str(ids[0]): ("Boot, Das (1981)", "Drama|War")})
    original = copies.Original([table], "")
    copies.keep_copy(original, wanted).join()
    found = copies.find_copy(original, wanted.source)
    assert_same(found, wanted)
    assert {type(user) for user in found.user_ids.tolist()} == {type(ids.tolist()[0])}
    found.rating[:] = 0
    found.movies.loc[0, ["mean_rating", "year", "title"]] = [3, 1999, "other"]
    assert_same(copies.find_copy(original, wanted.source), wanted)


def test_the_same_content_is_found_under_another_name_and_in_a_folder_with_titles(tmp_path, folder, no_parsing):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "ratings.csv").write_text(TABLE)
        (tmp_path / name / "movies.csv").write_text(MOVIES)
    wanted = read(tmp_path / "a", source=Source("ml", "MovieLens"))
    assert wanted.movies["title"].tolist() == ["Das Boot (1981)", "Fargo"]
    no_parsing()
    found = read(tmp_path / "b")
    assert_same(found, wanted)
    assert found.source.name == "b"  # not the first reader's
    assert len(stored(folder)) == 1


def test_archives_have_copies_and_uploads_have_none(tmp_path, folder, table, no_parsing):
    """What a visitor uploads stays in memory: the page says so."""
    read(io.BytesIO(TABLE.encode()))
    read(table, movies=io.BytesIO(MOVIES.encode()))
    assert stored(folder) == []
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("ratings.csv", TABLE)
    wanted = read(tmp_path / "r.zip")
    no_parsing()
    assert_same(read(tmp_path / "r.zip"), wanted)


def test_small_files_have_no_copy(folder, table, monkeypatch):
    monkeypatch.setattr("cfrec.readers.LARGE_FILE", len(TABLE) + 1)
    read(table)
    assert stored(folder) == []


def test_another_table_of_movies_or_another_way_of_reading_is_another_copy(tmp_path, folder, table):
    (tmp_path / "m.csv").write_text(MOVIES)
    assert read(table).movies["title"].tolist() == ["10", "20"]
    assert read(table, movies=tmp_path / "m.csv").movies["title"].tolist() == ["Das Boot (1981)", "Fargo"]
    (tmp_path / "m.csv").write_text(MOVIES.replace("Fargo", "Cargo"))
    assert read(table, movies=tmp_path / "m.csv").movies["title"].tolist() == ["Das Boot (1981)", "Cargo"]
    read(table, drop_bad=True)
    assert len(stored(folder)) == 4


def test_changed_content_is_read_anew(table):
    read(table)
    table.write_text(TABLE.replace("3.5", "2.5").replace("0.5", "1.5"))  # of the same size
    assert read(table).rating.tolist() == [4.0, 4.5, 1.5]


def test_bad_rows_are_reported_from_the_copy_too_and_bad_files_have_none(folder, table, no_parsing):
    table.write_text(TABLE + "1,2,x,3\n")
    with pytest.raises(cfrec.CfrecError, match="line 6"):
        read(table)
    assert stored(folder) == []
    wanted = read(table, drop_bad=True)
    assert wanted.report.n_dropped == 1
    no_parsing()
    assert read(table, drop_bad=True).report == wanted.report


def test_a_copy_is_arrow_streams_behind_their_seal_of_this_user_alone(folder, table):
    ratings = read(table)
    (path,) = stored(folder)
    streams = path.read_bytes()[64:]
    reader = pa.BufferReader(streams)
    _, users, columns = (pa.ipc.open_stream(reader).read_all() for _ in range(3))
    assert users["user_ids"].to_pylist() == ratings.user_ids.tolist()
    assert columns.to_pydict() == {name: getattr(ratings, name).tolist() for name in ARRAYS[:4]}
    assert path.read_bytes()[:64] == copies._seal(path.stem, hash_parts([memoryview(streams)]))
    if os.name == "posix":
        assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("cuts", [[], [0, 10], [3, 3, 17, 24]])
def test_parts_have_the_hash_of_the_file_that_they_make_up(tmp_path, monkeypatch, cuts):
    monkeypatch.setattr("cfrec.pieces._PIECE", 10)
    data = bytes(range(25))
    (tmp_path / "f").write_bytes(data)
    parts = [memoryview(data)[begin:end] for begin, end in pairwise([0, *cuts, 25])]
    assert hash_parts(parts) == hash_file(tmp_path / "f")


def flip(share):
    def damage(data):
        at = int(share * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return damage


CUTS = [lambda d: b"", lambda d: d[:20], lambda d: d[:-1], lambda d: d + b"x", lambda d: bytes(len(d)), lambda d: b"\xff" * 99]


@pytest.mark.parametrize("damage", [*map(flip, np.linspace(0, 1, 40)), *CUTS])
def test_a_damaged_copy_is_not_used_and_written_again(folder, table, damage, caplog):
    wanted = read(table)
    (path,) = stored(folder)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert_same(read(table), wanted)
    assert "is not used" in caplog.text
    assert path.read_bytes() == whole


def test_a_copy_of_something_else_or_of_another_version_is_not_used(folder, table, monkeypatch, caplog):
    read(table)
    (path,) = stored(folder)
    table.write_text(TABLE.replace("3.5", "2.5"))
    read(table)
    (other,) = set(stored(folder)) - {path}
    other.write_bytes(path.read_bytes())
    assert len(read(table)) == 3
    assert "another file's" in caplog.text
    monkeypatch.setattr(copies, "FORMAT", copies.FORMAT + 1)
    read(table)
    assert len(stored(folder)) == 3


@pytest.mark.parametrize(("name", "index"), [("movie_idx", 2), ("user_idx", 2), ("movie_idx", -1), ("user_idx", -1)])
def test_indices_that_lead_out_of_the_tables_are_not_used(table, caplog, name, index):
    """Compiled code does not check them: they would read foreign memory."""
    original, ratings = copies.Original([table], ""), read(table)
    getattr(ratings, name)[0] = index
    copies.keep_copy(original, ratings).join()
    assert copies.find_copy(original, ratings.source) is None
    assert f"its {name} leads out of the table" in caplog.text


def test_only_the_most_recently_used_are_kept(tmp_path, folder, no_parsing):
    paths = [tmp_path / f"{k}.csv" for k in range(copies.MOST_COPIES + 2)]
    for age, path in enumerate(paths):
        path.write_text(TABLE + f"9,{age + 1},1,1\n")
        read(path)
        for copy in stored(folder):
            os.utime(copy, (copy.stat().st_atime, copy.stat().st_mtime - 100))
        read(paths[0])  # is used again and again
    assert len(stored(folder)) == copies.MOST_COPIES
    no_parsing()
    read(paths[0])
    read(paths[-1])


def test_what_killed_writers_and_earlier_formats_left_is_swept_away_but_not_what_is_being_written(folder, table):
    folder.mkdir(parents=True)
    for name in (".new-old", ".new-now", "1-ab.safetensors"):
        (folder / name).write_bytes(b"x")
    os.utime(folder / ".new-old", (0, time.time() - 2 * 3600))
    read(table)
    assert [path.suffix or path.name for path in stored(folder)] == [".new-now", ".arrow"]


def test_a_full_disk_and_a_cache_that_cannot_be_made_cost_time_only(tmp_path, folder, table, monkeypatch, caplog):
    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(copies.os, "fdopen", lambda handle, *_: Full(handle, "wb"))
        assert len(read(table)) == 3
    assert f"no copy of {table} is kept in {folder}: [Errno 28]" in caplog.text
    assert stored(folder) == []
    monkeypatch.setenv("CFREC_HOME", str(table / "home"))  # a file is no folder
    assert len(read(table)) == 3
    assert f"no copy of {table} is kept in {table}" in caplog.text


def test_a_file_that_changes_while_it_is_read_has_no_copy(folder, table, caplog):
    original, ratings = copies.Original([table], ""), build_ratings(np.array([1]), np.array([1]), np.array([1]))
    table.write_text(TABLE + "9,9,1,1\n")
    copies.keep_copy(original, ratings).join()
    assert stored(folder) == []
    assert "changed while it was read" in caplog.text


def test_arrays_that_are_changed_at_once_make_no_copy_that_is_used(table, monkeypatch):
    written, ready = copies._write, threading.Event()
    monkeypatch.setattr(copies, "_write", lambda *args: ready.wait(10) and written(*args))
    ratings = cfrec.read_ratings(table)
    wanted = ratings.rating.tolist()
    ratings.rating[:] = 1
    ratings.movies.loc[0, "title"] = "other"
    ready.set()
    finish()
    assert read(table).rating.tolist() == wanted
    assert read(table).movies["title"].tolist() == ["10", "20"]


def test_several_processes_that_write_at_once(folder, table, no_parsing):
    program = "import sys, cfrec, cfrec.readers as r; r.LARGE_FILE = 0; assert len(cfrec.read_ratings(sys.argv[1])) == 3"
    writers = [subprocess.Popen([sys.executable, "-c", program, str(table)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    assert len(stored(folder)) == 1  # and a process that ends at once has written it
    no_parsing()
    assert len(read(table)) == 3
