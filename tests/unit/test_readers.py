import contextlib
import io
import struct
import zipfile

import numpy as np
import pandas as pd
import pytest

import cfrec
from cfrec.errors import DataError
from cfrec.ratings import Ratings

FLAGS = "|".join("0" * 8 + "1" + "0" * 8 + "1" + "0")  # Drama and War of ml-100k's nineteen
UNKNOWN = "|".join("1" + "0" * 18)

# One made-up set of ratings in each of the forms that GroupLens and the wheel use.
ML_100K = {
    "u.data": "196\t242\t3\t881250949\n186\t302\t5\t891717742\n196\t267\t1\t881250950\n",
    "u.item": f"242|Boot, Das (1981)|04-Apr-1997||http://x|{FLAGS}\n"
    f"267|unknown||||{UNKNOWN}\n302|Misérables, Les (1995) |01-Jan-1995||http://x|{FLAGS}\n",
}
WHEEL = {
    "ml-100k.inter": "user_id:token\titem_id:token\trating:float\ttimestamp:float\n196\t242\t3\t881250949\n186\t302\t5\t891717742\n"
    "196\t267\t1\t881250950",
    "ml-100k.item": "item_id:token\tmovie_title:token_seq\trelease_year:token\tclass:token_seq\n242\tBoot, Das\t1981\tDrama War\n"
    "267\tunkonwn\tunkonwn\tunknown\n302\tMisérables, Les\t1995\tDrama War\n",
}
ML_1M = {
    "ratings.dat": "196::242::3::881250949\n186::302::5::891717742\n196::267::1::881250950\n",
    "movies.dat": "242::Boot, Das (1981)::Drama|War\n267::unknown::unknown\n302::Misérables, Les (1995)::Drama|War\n",
}
ML_25M = {
    "ratings.csv": "userId,movieId,rating,timestamp\n196,242,3.0,881250949\n186,302,5.0,891717742\n196,267,1.0,881250950\n",
    "movies.csv": 'movieId,title,genres\n242,"Boot, Das (1981)",Drama|War\n267,unknown,unknown\n302,"Misérables, Les (1995)",Drama|War\n'
    "999,Nobody rated this (2000),(no genres listed)\n",
}
LATIN_1 = {"u.item", "movies.dat"}


def encode(name: str, text: str) -> bytes:
    return text.encode("latin-1" if name in LATIN_1 else "utf-8")


def write_folder(folder, files):
    folder.mkdir()
    for name, text in files.items():
        (folder / name).write_bytes(encode(name, text))
    return folder


def write_zip(path, files, prefix="ml/"):
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in files.items():
            archive.writestr(prefix + name, encode(name, text))
    return path


def assert_same(a: Ratings, b: Ratings):
    for name in ("user_idx", "movie_idx", "rating", "timestamp", "user_ids"):
        assert getattr(a, name).tolist() == getattr(b, name).tolist(), name
        assert getattr(a, name).dtype == getattr(b, name).dtype, name
    pd.testing.assert_frame_equal(a.movies, b.movies)


@pytest.mark.parametrize("files", [WHEEL, ML_1M, ML_25M], ids=["wheel", "1m", "25m"])
def test_all_forms_give_equal_ratings(tmp_path, files):
    wanted = cfrec.read_ratings(write_folder(tmp_path / "100k", ML_100K))
    assert wanted.movies["title"].tolist() == ["Das Boot (1981)", "unknown", "Les Misérables (1995)"]
    assert wanted.movies["raw_title"].tolist() == ["Boot, Das (1981)", "unknown", "Misérables, Les (1995)"]
    assert wanted.movies["year"].tolist() == [1981, pd.NA, 1995]
    assert wanted.movies["genres"].tolist() == ["Drama|War", "unknown", "Drama|War"]
    assert wanted.timestamp.tolist() == [881250949, 891717742, 881250950]
    assert_same(cfrec.read_ratings(write_folder(tmp_path / "folder", files)), wanted)
    archive = write_zip(tmp_path / "archive.zip", files)
    assert_same(cfrec.read_ratings(archive), wanted)
    with archive.open("rb") as stream:
        assert_same(cfrec.read_ratings(stream), wanted)


def test_a_file_object_for_the_movies_and_text_instead_of_bytes():
    ratings = cfrec.read_ratings(io.StringIO("user,item,rating\n1,2,3\n"), io.BytesIO(b"item,title\n2,Fargo\n"))
    assert ratings.movies["title"].tolist() == ["Fargo"]
    with pytest.raises(DataError, match="upload is not a whole zip archive"):
        cfrec.read_ratings(io.BytesIO(b"PK\x03\x04"))


def test_an_uploaded_zip_with_an_offset_beyond_all_bounds_is_refused(tmp_path):
    """Its entry says that it begins at byte 2^63: an OverflowError once escaped."""
    data = write_zip(tmp_path / "a.zip", {"ratings.csv": "user,movie,rating\n1,2,3\n"}).read_bytes()
    start, end = data.rfind(b"PK\1\2"), data.rfind(b"PK\5\6")
    entry, last = bytearray(data[start:end]), bytearray(data[end:])
    struct.pack_into("<H", entry, 30, 12)
    struct.pack_into("<I", entry, 42, 2**32 - 1)
    struct.pack_into("<I", last, 12, len(entry) + 12)
    with pytest.raises(DataError, match="not a whole zip archive"):
        cfrec.read_ratings(io.BytesIO(data[:start] + bytes(entry) + struct.pack("<HHQ", 1, 8, 2**63) + bytes(last)))


def test_a_file_object_and_its_name():
    stream = io.BytesIO(b"user,item,rating\n1,2,x\n")
    stream.name = "upload.csv"
    with pytest.raises(DataError, match=r"upload\.csv, line 2, column rating: 'x'"):
        cfrec.read_ratings(stream)


def test_titles_from_a_second_file(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\nann,2,3\nbob,3,4\n")
    (tmp_path / "m.csv").write_text("item;title;genre\n2;Fargo (1996);Crime, Thriller\n3;Alien (1979);\n")
    ratings = cfrec.read_ratings(tmp_path / "r.csv", tmp_path / "m.csv")
    assert ratings.movies["title"].tolist() == ["Fargo (1996)", "Alien (1979)"]
    assert ratings.movies["genres"].tolist() == ["Crime|Thriller", ""]
    assert ratings.source.name == "r"


def test_titles_are_found_though_the_ratings_ids_are_text(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\nann,2,3\nbob,x3,4\n")
    (tmp_path / "m.csv").write_text("item,title\n2,Fargo\n")
    assert cfrec.read_ratings(tmp_path / "r.csv", tmp_path / "m.csv").movies["title"].tolist() == ["Fargo", "x3"]


def test_every_row_is_accounted_for(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n1,2,4\n1,3,bad\n2,2,5\n,2,3\n")
    ratings = cfrec.read_ratings(tmp_path / "r.csv", drop_bad=True)
    report = ratings.report
    assert (report.n_rows, report.n_used, report.n_duplicates, report.n_dropped) == (5, 2, 1, 2)
    assert ratings.rating.tolist() == [4, 5]


def test_a_zip_with_one_table_or_one_that_is_called_ratings(tmp_path):
    table = "user,item,rating\n1,2,3\n"
    assert len(cfrec.read_ratings(write_zip(tmp_path / "a.zip", {"mine.csv": table, "readme.md": "x"}))) == 1
    assert len(cfrec.read_ratings(write_zip(tmp_path / "b.zip", {"my_ratings.csv": table, "other.csv": "x"}))) == 1
    with pytest.raises(DataError, match=r"should hold one file of ratings.*one\.csv, .*two\.csv"):
        cfrec.read_ratings(write_zip(tmp_path / "c.zip", {"one.csv": table, "two.csv": table}))
    with pytest.raises(DataError, match="no table at all"):
        cfrec.read_ratings(write_zip(tmp_path / "d.zip", {"a.png": "x"}))


def test_one_odd_id_in_the_movies_costs_no_other_title(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,296,3\n1,306,4\n1,7,4\n")
    (tmp_path / "m.csv").write_text("id,name,year\n296,A,1999.0\nabc,B,\n0306,C,\n7.0,D,\n")
    titles = cfrec.read_ratings(tmp_path / "r.csv", tmp_path / "m.csv").movies.set_index("movie_id")["title"]
    assert titles.to_dict() == {7: "D", 296: "A (1999)", 306: "C"}


def test_a_movie_without_a_title_is_named_after_its_id(tmp_path):
    """Its title was once that of its year alone: " (1999)"."""
    (tmp_path / "r.csv").write_text("user,item,rating\n1,296,3\n1,306,4\n")
    (tmp_path / "m.csv").write_text("id,name,year\n296,,1999\n306,B,2000\n")
    assert cfrec.read_ratings(tmp_path / "r.csv", tmp_path / "m.csv").movies["title"].tolist() == ["296 (1999)", "B (2000)"]


def test_all_rows_dropped_says_why(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,x\n1,3,y\n,3,1\n")
    with pytest.raises(DataError, match="All 3 rows are bad; most often: rating is not a number"):
        cfrec.read_ratings(tmp_path / "r.csv", drop_bad=True)


def test_a_folder_in_the_folder_is_looked_into(tmp_path):
    (tmp_path / "outer").mkdir()
    write_folder(tmp_path / "outer" / "ml-25m", ML_25M)
    assert len(cfrec.read_ratings(tmp_path / "outer")) == 3


def test_two_files_of_one_name_are_ambiguous(tmp_path):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for folder in ("a/", "b/"):
            archive.writestr(folder + "ratings.csv", ML_25M["ratings.csv"])
    with pytest.raises(DataError, match=r"more than one ratings\.csv"):
        cfrec.read_ratings(path)


def test_a_bomb_is_refused_by_its_size(tmp_path):
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", "1,2,3\n" * 4_000_000)
    assert path.stat().st_size < 100_000
    with pytest.raises(DataError, match=r"ratings\.csv would unpack to 24 MB from 0\.0 MB"):
        cfrec.read_ratings(path)


def test_a_locked_zip_says_so(tmp_path):
    path = write_zip(tmp_path / "a.zip", ML_100K)
    data = bytearray(path.read_bytes())
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        for at in [k for k in range(len(data)) if data[k : k + 4] == signature]:
            data[at + offset] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match="locked with a password"):
        cfrec.read_ratings(path)


@pytest.mark.parametrize("seed", range(40))
def test_a_damaged_zip_is_read_right_or_refused(tmp_path, seed):
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ratings.csv", ML_25M["ratings.csv"] * 1)
    wanted = cfrec.read_ratings(path)
    rng = np.random.default_rng(seed)
    data = bytearray(path.read_bytes())
    for at in rng.integers(0, len(data), 3):
        data[at] = rng.integers(0, 256)
    path.write_bytes(data)
    with contextlib.suppress(DataError):
        assert_same(cfrec.read_ratings(path), wanted)


def test_unreadable_places_are_refused_in_words(tmp_path):
    with pytest.raises(DataError, match="no file"):
        cfrec.read_ratings(tmp_path / "a" / "b.csv")
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        cfrec.read_ratings(tmp_path / ("x" * 5000))


def test_a_cut_zip_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", ML_100K)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(DataError, match="not a whole zip archive"):
        cfrec.read_ratings(path)


def test_a_zip_with_a_changed_byte_is_refused(tmp_path):
    path = write_zip(tmp_path / "a.zip", ML_100K)
    data = bytearray(path.read_bytes())
    data[data.index(b"196\t242")] = ord("9")
    path.write_bytes(data)
    with pytest.raises(DataError, match="not a whole zip archive"):
        cfrec.read_ratings(path)


@pytest.fixture
def no_memory(monkeypatch):
    monkeypatch.setattr("cfrec.memory.free_memory", lambda: 100)


def test_a_table_that_would_not_fit_is_refused_before_it_is_decoded(tmp_path, no_memory, monkeypatch):
    monkeypatch.setattr("cfrec.readers.decode", lambda *_: pytest.fail("it is decoded"))
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n")
    for file in (tmp_path / "r.csv", io.BytesIO(b"1,2,3\n" * 1_000_000)):
        with pytest.raises(DataError, match=r"would need about \d+ MB of memory, and 0 MB are free\. Use a smaller file"):
            cfrec.read_ratings(file)


def test_what_would_not_fit_is_not_unpacked(tmp_path, no_memory, monkeypatch):
    path = write_zip(tmp_path / "a.zip", ML_25M)
    monkeypatch.setattr("zipfile.ZipExtFile.read", lambda *_: pytest.fail("it is unpacked"))
    with pytest.raises(DataError, match=r"a\.zip: to unpack ml/\w+\.csv would need about"):
        cfrec.read_ratings(path)


def test_bytes_needed_by_hand():
    from cfrec.readers import _bytes_needed

    assert _bytes_needed(b"ab\ncd\n") == 2 * 6 + 3 * 380  # two texts of a byte each; lines, and what may follow the last
    assert _bytes_needed("é\n".encode()) == 2 * 3 + 2 * 380
    assert _bytes_needed("’\r".encode()) == 2 * 2 * 4 + 2 * 380
    assert _bytes_needed("🎬\n".encode()) == 2 * 4 * 5 + 2 * 380
    assert _bytes_needed("🎬\n".encode("utf-16")) == 2 * 2 * 8 + 2 * 380
    assert _bytes_needed(np.frombuffer(b"ab\n", np.uint8)) == 3 * 3 + 2 * 380  # what is mapped is copied


def test_a_zip_whose_list_calls_a_file_otherwise_is_refused(tmp_path):
    """A letter changed in the list's movies.csv once lost all titles without a word."""
    data = write_zip(tmp_path / "a.zip", ML_25M).read_bytes()
    at = data.rindex(b"movies.csv")
    with pytest.raises(DataError, match="not a whole zip archive"):
        cfrec.read_ratings(io.BytesIO(data[:at] + b"n" + data[at + 1 :]))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match=r"no file .*nowhere\.csv"):
        cfrec.read_ratings(tmp_path / "nowhere.csv")
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n")
    with pytest.raises(DataError, match=r"no file .*movies\.csv"):
        cfrec.read_ratings(tmp_path / "r.csv", tmp_path / "movies.csv")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("movies.csv", "id,name\n", "holds no movie below its header"),  # it was once taken for none given
        ("movies.csv", "id,year\n1,x\n", "names a movie id and a title"),
        ("movies.csv", "id,name\n7,x\n", "knows none of the rated ones: ratings have ids like '2', it has '7'"),
        ("movies.csv", "movieId,title\n1\n", "line 2: has 1 fields where 2"),
        ("movies.dat", "1::x\n", "line 1: has 2 fields where 3"),
        ("u.item", "1|x\n", "line 1: has 2 fields where 24"),
    ],
)
def test_a_bad_file_of_movies_is_named(tmp_path, name, text, message):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n")
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        cfrec.read_ratings(tmp_path / "r.csv", tmp_path / name)


def test_text_ids_train_and_are_found_again(tmp_path):
    rng = np.random.default_rng(0)
    rows = "".join(f"u{u},m{m},{rng.integers(1, 6)}\n" for u in range(6) for m in range(5))
    (tmp_path / "r.csv").write_text("user,item,rating\n" + rows)
    trained = cfrec.train(*cfrec.read_ratings(tmp_path / "r.csv").split(), cfrec.TrainConfig.preset("quick", epochs=1))
    assert "m3" not in cfrec.similar_movies(trained, "m3")["movie_id"].tolist()
    assert len(cfrec.predict_ratings(trained, ["u1", "u5"], ["m0", "m4"])) == 2
