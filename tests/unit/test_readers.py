import gzip
import io
import re
import zipfile
from collections import Counter

import pandas as pd
import pyarrow as pa
import pytest

import cfrec
from cfrec.errors import DataError
from cfrec.ratings import Ratings
from cfrec.tables import RowError

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


def encode(name: str, text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("latin-1" if name in LATIN_1 else "utf-8")


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


def read(text, movies=None, **how):
    return cfrec.read_ratings(io.StringIO(text), movies=movies and io.StringIO(movies), **how)


def test_binary_files_text_files_and_tables_and_how_they_are_called(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,x\n")
    with (tmp_path / "r.csv").open("rb") as stream, pytest.raises(DataError, match=r"^r\.csv, line 2, column rating: 'x' is not a number"):
        cfrec.read_ratings(stream)
    table = pa.table({"user": [1], "item": [2], "rating": [3.5]})
    ratings = cfrec.read_ratings(table, movies=pd.DataFrame({"item": [2.0], "title": ["Fargo"]}))
    assert (ratings.rating.tolist(), ratings.movies["title"].tolist(), ratings.source.name) == ([3.5], ["Fargo"], "The table")
    with pytest.raises(DataError, match=r"The movies should be a path, a binary file, or a table of pandas, polars or Arrow; this is list"):
        cfrec.read_ratings(table, movies=[1])


TITLES = [  # ids of the ratings, a table of movies, titles
    ("2 3", "item;title;genre\n2;Fargo (1996);Crime, Thriller\n3;Alien (1979);\n", ["Fargo (1996)", "Alien (1979)"]),
    ("2 x3", "item,title\n2,Fargo\n", ["Fargo", "x3"]),  # the ratings' ids are text
    ("7 296 306", "id,name,year\n296,A,1999.0\nabc,B,\n0306,C,\n7.0,D,\n", ["D", "A (1999)", "C"]),  # one odd id costs no other title
    ("296 306", "id,name,year\n296,,1999\n306,B,2000\n", ["296 (1999)", "B (2000)"]),  # a film without a title
    ("5 6", "imdb_id,id,title\ntt5,5,A\ntt6,6,B\n", ["A", "B"]),  # of two kinds of id the one that finds most
    ("tt5 tt6", "imdb_id,id,title\ntt5,5,A\ntt6,6,B\n", ["A", "B"]),
    ("5", "id,title\n5,A\n5,B\n", ["B"]),  # of several rows the last
]
NO_TITLES = {
    "item,title\n9,A\n": "knows none of the rated ones: ratings have ids like '5', it has '9'",
    "item,title\n": "upload holds no movie below its header",
    "item,year\n5,1999\n": "upload needs a header that names a movie id and a title; its first row is .'item', 'year'",
    " ": "upload is empty",
}


@pytest.mark.parametrize(("ids", "movies", "titles"), TITLES)
def test_titles_from_a_second_table(ids, movies, titles):
    ratings = read("user,item,rating\n" + "".join(f"ann,{movie},4\n" for movie in ids.split()), movies)
    assert (ratings.movies["movie_id"].astype(str).tolist(), ratings.movies["title"].tolist()) == (ids.split(), titles)


@pytest.mark.parametrize("movies", NO_TITLES)
def test_tables_of_movies_that_cannot_be_used(movies):
    with pytest.raises(DataError, match=NO_TITLES[movies]):
        read("user,item,rating\n1,5,3\n", movies)


def test_titles_and_genres_beside_the_ratings_are_those_of_the_first_row():
    ratings = read(
        'user,item,rating,title,genres\n1,5,4,"Boot, Das (1981)",Drama|War\n2,5,3,other name,x\n1,6,2,,\n2,6,2,Fargo,"Crime, Drama"\n'
    )
    assert ratings.movies["raw_title"].tolist() == ["Boot, Das (1981)", "Fargo"]
    assert ratings.movies["genres"].tolist() == ["Drama|War", "Crime|Drama"]


BAD_ROWS = [  # row, column, rule
    ("1,2", "", "has 2 fields where 3 are expected"),
    ("1,2,3,4", "", "has 4 fields where 3 are expected"),
    ("1,2,seven", "rating", "is not a number between -1000 and 1000"),
    ("1,2,-5000", "rating", "is not a number between -1000 and 1000"),
    ("1,2,", "rating", "is missing"),
    (",2,3", "user", "is missing"),
    ("1,  ,3", "movie", "is missing"),
    ('"1"2,2,3', "", "has a quotation mark inside a field"),
]


@pytest.mark.parametrize(("row", "column", "rule"), BAD_ROWS)
def test_a_bad_row_stops_with_file_line_column_value_and_rule(row, column, rule):
    with pytest.raises(RowError) as caught:
        read(f"user,item,rating\n1,2,3\n\n{row}\n1,3,x\n")
    where = "upload, line 4" + f", column {column}" * bool(column)
    assert str(caught.value).startswith(where + ": ")
    assert (caught.value.line, caught.value.column, caught.value.rule) == (4, column, rule)


def test_bad_rows_are_dropped_and_every_row_is_accounted_for():
    text = "user,item,rating\n1,2,3\n,,\n1,2,4\n" + "".join(row + "\n" for row, *_ in BAD_ROWS) + "2,2,5\n"
    ratings = read(text, drop_bad=True)
    report = ratings.report
    assert (ratings.user_ids.tolist(), ratings.rating.tolist()) == ([1, 2], [4, 5])
    assert (report.n_rows, report.n_used, report.n_duplicates, report.n_dropped) == (3 + len(BAD_ROWS), 2, 1, len(BAD_ROWS))
    assert report.reasons == Counter(f"{column or 'row'} {rule}" for _, column, rule in BAD_ROWS)
    with pytest.raises(DataError, match="All 3 rows are bad; most often: rating is not a number"):
        read("user,item,rating\n1,2,x\n1,3,z\n,3,1\n", drop_bad=True)


def test_a_message_holds_the_beginning_of_a_row_only():
    for text in ("x" * 100_000, ",".join(["user"] + ["x" * 10_000] * 9), "user,item,rating\n1,2," + "x" * 100_000):
        with pytest.raises(DataError) as caught:
            read(text + "\n")
        assert 60 < len(str(caught.value)) < 700


def test_peek_shows_columns_and_first_rows(tmp_path):
    text = "who,film,stars\n" + "".join(f"{k},2,3\n" for k in range(9))
    for file in (io.StringIO(text), pd.read_csv(io.StringIO(text), dtype=str), write_zip(tmp_path / "a.zip", {"mine.csv": text})):
        preview = cfrec.readers.peek(file)
        assert [(use.name, use.role) for use in preview.columns] == [("who", "user"), ("film", "movie"), ("stars", "rating")]
        assert preview.rows == [[str(k), "2", "3"] for k in range(5)]


def test_which_file_of_a_zip_or_folder_is_read(tmp_path):
    table = "user,item,rating\n1,2,3\n"
    for files in (
        {"mine.csv": table, "readme.md": "x"},
        {"my_ratings.csv": table, "other.csv": "x"},
        {"a.csv.gz": gzip.compress(table.encode())},
    ):
        assert cfrec.read_ratings(write_zip(tmp_path / "a.zip", files)).rating.tolist() == [3]
    write_folder(write_folder(tmp_path / "outer", {}) / "inner", ML_25M)
    assert cfrec.read_ratings(tmp_path / "outer").rating.tolist() == [3, 5, 1]
    two = [({"1.csv": "", "2.csv": ""}, r"should hold one file of ratings.*1\.csv, .*2\.csv"), ({"a.png": ""}, "no table at all")]
    for files, message in [*two, ({"a/ratings.csv": table, "b/ratings.csv": table}, r"more than one ratings\.csv")]:
        with pytest.raises(DataError, match=message):
            cfrec.read_ratings(write_zip(tmp_path / "b.zip", files))


def damaged(data, what):
    if what == "locked":  # flags of each file and of its entry in the list
        return re.sub(rb"(PK\x03\x04..|PK\x01\x02....).", lambda found: found[1] + b"\1", data, flags=re.DOTALL)
    if what == "cut":
        return data[:-30]
    at = data.rindex(what)
    return data[:at] + b"9" + data[at + 1 :]


@pytest.mark.parametrize("what", ["cut", "locked", b"196,242", b"movies.csv"])
def test_damaged_zips_are_refused(tmp_path, what):
    """A letter changed in the list's movies.csv once lost all titles without a word."""
    data = write_zip(tmp_path / "a.zip", ML_25M).read_bytes()
    assert len(cfrec.read_ratings(io.BytesIO(data))) == 3
    with pytest.raises(DataError, match="locked with a password" if what == "locked" else "upload is not a whole zip archive"):
        cfrec.read_ratings(io.BytesIO(damaged(data, what)))


def test_what_would_not_fit_into_memory_is_neither_unpacked_nor_decoded(tmp_path, monkeypatch):
    monkeypatch.setattr("cfrec.memory.free_memory", lambda: 100)
    monkeypatch.setattr("zipfile.ZipExtFile.read", lambda *_: pytest.fail("it is unpacked"))
    monkeypatch.setattr("cfrec.sheets.to_utf8", lambda *_: pytest.fail("it is decoded"))
    with pytest.raises(DataError, match=r"a\.zip: to unpack ml/\w+\.csv would need about"):
        cfrec.read_ratings(write_zip(tmp_path / "a.zip", ML_25M))
    for file in (io.BytesIO(b"1,2,3\n" * 1_000_000), pd.DataFrame({"user": range(10**6)})):
        with pytest.raises(DataError, match=r"would need about \d+ MB of memory, and 0 MB are free\. Use a smaller file"):
            cfrec.read_ratings(file)


def test_places_that_cannot_be_read_are_named(tmp_path):
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n")
    with pytest.raises(DataError, match=r"no file .*nowhere\.csv"):
        cfrec.read_ratings(tmp_path / "nowhere.csv")
    with pytest.raises(DataError, match=r"no file .*movies\.csv"):
        cfrec.read_ratings(tmp_path / "r.csv", movies=tmp_path / "movies.csv")
    with pytest.raises(DataError, match="cannot be read: File name too long"):
        cfrec.read_ratings(tmp_path / ("x" * 5000))
