import io
import random
import zipfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cfrec
from cfrec import plain
from cfrec.columns import read_columns
from cfrec.errors import DataError
from cfrec.plain import read_plain
from cfrec.tables import decode


@pytest.fixture(autouse=True)
def _small_is_large(monkeypatch):
    monkeypatch.setattr(plain, "LARGE_FILE", 0)
    monkeypatch.setattr("cfrec.ratings.MANY_ROWS", 0)


def lists(columns):
    ids = [(column.tolist(), column.dtype == object) for column in (columns.user_id, columns.movie_id)]
    return *ids, columns.rating.astype(np.float32).tolist(), None if columns.timestamp is None else columns.timestamp.tolist()


HEADERS = {
    "": [0, 1, 2, 3],
    "userId,movieId,rating,timestamp": [0, 1, 2, 3],
    "rating,timestamp,user,item": [2, 3, 0, 1],
    "user,item,rating,note": [0, 1, 2, 3],
}


@settings(max_examples=400, deadline=None, derandomize=True)
@given(
    st.integers(0, 2**32 - 1), st.sampled_from([",", "\t", ";", "|", "::"]), st.sampled_from(list(HEADERS)), st.sampled_from(["\n", "\r\n"])
)
def test_what_is_read_from_bytes_is_what_the_careful_reader_finds(seed, separator, header, line_end):
    """Whatever a few random edits make of a clean file: it is declined, or both agree."""
    rng = random.Random(seed)
    rows = [
        [str(rng.randint(1, 40)), str(rng.randint(-3, 99)), rng.choice(["1", "2.5", "4.0", "-1"]), str(rng.randint(0, 9**9))]
        for _ in "12345678"
    ]
    lines = [separator.join(header.split(","))] if header else []
    lines += [separator.join(row[k] for k in np.argsort(HEADERS[header])) if "rating,t" in header else separator.join(row) for row in rows]
    text = line_end.join(lines) + rng.choice(["", line_end, line_end * 2])
    edits = ["", "0", "-", ".", ",", separator, "\n", "\r", "e5", " ", '"', "+", "9" * 18, "9" * 20, "٣", "é", "\0", "x", "_", "\ufeff"]
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(edits) + text[at + rng.randint(0, 1) :]
    data = text.encode()
    found = read_plain(data, "f")
    if found is not None:
        assert lists(found) == lists(read_columns(decode(data, "f"), "f"))


@pytest.mark.parametrize("separator", [",", "\t", ";", "|", "::"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
@pytest.mark.parametrize("header", ["", "userId,movieId,rating,timestamp"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_clean_files_are_read_from_bytes(separator, line_end, header, mark):
    """Negative control of the test above, which would pass if everything were declined."""
    lines = [*([header] if header else []), "1,20,3.5,99", "-2,10,4,98"]
    found = read_plain(mark + line_end.join(lines).replace(",", separator).encode(), "f")
    assert lists(found) == (([1, -2], False), ([20, 10], False), [3.5, 4.0], [99, 98])


def test_many_pieces(monkeypatch):
    monkeypatch.setattr(plain, "_PIECE", 20)
    rows = [(u, u + 1, 2.5) for u in range(1, 60)]
    text = "\n".join(f"{u},{m},{r}" for u, m, r in rows)
    found = read_plain(text.encode(), "f")
    assert lists(found)[:3] == ((list(range(1, 60)), False), (list(range(2, 61)), False), [2.5] * 59)
    for bad in ("30,31.0,2.5", "030,31,2.5", "30,31,2,5", "30,31,x", "30,31,", "\n30,31,2.5", "30,31,2.5 "):
        assert read_plain(text.replace("30,31,2.5", bad).encode(), "f") is None
    monkeypatch.setattr(plain, "_LONGEST_LINE", 4)
    assert read_plain(text.encode(), "f") is None


def test_ids_beyond_32_bits_are_integers_too():
    found = read_plain(b"76561197960287930,5,4\n1,6,3\n", "f")
    assert lists(found)[0] == ([76561197960287930, 1], False)
    found = read_plain(b"2147483647,5,4\n-2147483647,6,3\n", "f")
    assert found.user_id.dtype == np.int32
    assert lists(found)[0] == ([2147483647, -2147483647], False)


@pytest.mark.parametrize(("user", "free"), [("1", 3 * 75), ("1" * 15, 3 * 115)])
def test_what_would_not_fit_is_refused(monkeypatch, user, free):
    """Where ids turn out to be wide, too."""
    data = (f"{user},2,3\n" * 3).encode()
    monkeypatch.setattr("cfrec.memory.free_memory", lambda: free)
    assert len(read_plain(data, "f").rating) == 3
    monkeypatch.setattr("cfrec.memory.free_memory", lambda: free - 1)
    with pytest.raises(DataError, match="f would need about"):
        read_plain(data, "f")


@pytest.mark.parametrize(
    "text", ["", "\n\n", "user,item,rating\n", "user,item,rating,title\n1,2,3,4\n", "1 2 3\n", '"user",item,rating\n1,2,3\n']
)
def test_what_is_left_to_the_careful_reader(text):
    assert read_plain(text.encode(), "f") is None


def test_whole_files_uploads_and_archives_are_the_same_with_and_without_compiled_code(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    rows = np.column_stack([rng.integers(1, 30, 400), rng.integers(100, 140, 400), rng.integers(1, 6, 400), rng.integers(1, 9, 400)])
    text = "userId,movieId,rating,timestamp\n" + "".join(",".join(map(str, row)) + "\n" for row in rows)
    (tmp_path / "r.csv").write_text(text)
    with zipfile.ZipFile(tmp_path / "r.zip", "w") as archive:
        archive.writestr("ratings.csv", text)
    found = [cfrec.read_ratings(path) for path in (tmp_path / "r.csv", tmp_path / "r.zip", io.BytesIO(text.encode()))]
    monkeypatch.setattr(plain, "load_kernels", lambda _: None)
    monkeypatch.setattr("cfrec.ratings.load_kernels", lambda _: None)
    wanted = cfrec.read_ratings(tmp_path / "r.csv")
    assert wanted.report.n_duplicates > 0
    for ratings in found:
        assert ratings.report == wanted.report
        assert ratings.scale == wanted.scale
        assert ratings.movies.equals(wanted.movies)
        for name in ("user_idx", "movie_idx", "rating", "timestamp", "user_ids"):
            assert getattr(ratings, name).tolist() == getattr(wanted, name).tolist(), name
            assert getattr(ratings, name).dtype == getattr(wanted, name).dtype, name
            assert getattr(ratings, name).flags.writeable, name


def test_a_bad_row_is_named_as_in_a_small_file(tmp_path):
    (tmp_path / "r.csv").write_bytes(b"user,item,rating\r\n1,2,3\r\n1,3,x\r\n")
    with pytest.raises(DataError, match=r"r\.csv, line 3, column rating: 'x'"):
        cfrec.read_ratings(tmp_path / "r.csv")
