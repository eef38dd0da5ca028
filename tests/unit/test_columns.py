import random
from datetime import UTC, datetime

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfrec.columns import RowError, _read_numbers, _RowReader, read_columns
from cfrec.errors import DataError
from cfrec.tables import numbered_rows


def rows_of(columns):
    return list(zip(columns.user_id.tolist(), columns.movie_id.tolist(), columns.rating.tolist(), strict=True))


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::", " "])
@pytest.mark.parametrize("header", ["", "userId{0}movieId{0}rating{0}timestamp\n"])
def test_any_separator_with_or_without_a_header(separator, header):
    text = header.format(separator) + separator.join(["1", "20", "3.5", "99"]) + "\n" + separator.join(["2", "10", "4", "98"]) + "\n"
    columns = read_columns(text, "f.csv")
    assert rows_of(columns) == [(1, 20, 3.5), (2, 10, 4.0)]
    assert columns.timestamp.tolist() == [99, 98]
    assert columns.user_id.dtype == np.int64


@pytest.mark.parametrize(
    "header",
    [
        "userId,movieId,rating",
        "user_id,item_id,rating",
        "User,Item,Score",
        "user,movie,stars",
        '"user id","movie id","Rating"',
        "user_id:token,item_id:token,rating:float",
    ],
)
def test_the_usual_names(header):
    assert rows_of(read_columns(header + "\n7,8,2\n", "f")) == [(7, 8, 2.0)]


def test_columns_in_another_order_and_columns_of_no_use():
    columns = read_columns("comment,rating,movie,user\nnice,4,9,1\nso so,2,8,1\n", "f")
    assert rows_of(columns) == [(1, 9, 4.0), (1, 8, 2.0)]


def test_titles_and_genres_beside_the_ratings():
    text = 'user,item,rating,title,genres\n1,5,4,"Boot, Das (1981)",Drama|War\n2,5,3,other name,x\n1,6,2,Fargo,"Crime, Drama"\n'
    assert read_columns(text, "f").catalogue == {"5": ("Boot, Das (1981)", "Drama|War"), "6": ("Fargo", "Crime|Drama")}


def test_a_title_can_stand_for_the_movie():
    columns = read_columns("user,title,rating\nann,Fargo,4\n", "f")
    assert rows_of(columns) == [("ann", "Fargo", 4.0)]
    assert columns.catalogue == {"Fargo": ("Fargo", "")}


@pytest.mark.parametrize("user", ["007", "1.0", "ann", "10" * 15, "-", "+1", "１", "1٢", "9223372036854775808"])
def test_ids_are_text_unless_all_are_plain_integers(user):
    columns = read_columns(f"user,item,rating\n{user},5,4\n2,6,3\n", "f")
    assert columns.user_id.tolist() == [user, "2"]
    assert columns.movie_id.tolist() == [5, 6]


def test_the_largest_integer_ids():
    ids = [2**63 - 1, -(2**63)]
    for more in ("", '"1",2,3\n'):  # the fast way, and the slow one
        columns = read_columns(f"user,item,rating\n{ids[0]},5,4\n{ids[1]},5,4\n{more}", "f")
        assert columns.user_id.tolist()[:2] == ids


def test_decimal_commas_between_semicolons():
    assert rows_of(read_columns("user;item;rating\n1;2;3,5\n", "f")) == [(1, 2, 3.5)]


def test_dates_are_times():
    columns = read_columns("user,item,rating,date\n1,2,3,1998-04-22\n1,3,3,1998-04-22T01:00:00+00:00\n1,4,3,7\n1,5,3,8.0\n", "f")
    midnight = int(datetime(1998, 4, 22, tzinfo=UTC).timestamp())
    assert columns.timestamp.tolist() == [midnight, midnight + 3600, 7, 8]


@pytest.mark.parametrize(
    ("cell", "seconds"), [("0" * 5_000 + "7", 7), ("-007", -7), ("9223372036854775807.000", 2**63 - 1), ("-9223372036854775808", -(2**63))]
)
def test_times_of_many_digits(cell, seconds):
    assert read_columns(f"user,item,rating,time\n1,2,3,{cell}\n", "f").timestamp.tolist() == [seconds]


@pytest.mark.parametrize("cell", ["9" * 5_000, "0" * 25 + "9" * 25, "9223372036854775808", "-9223372036854775809", "1_0", "٣"])
def test_times_beyond_64_bits_are_named(cell):
    """Those of thousands of digits, or with as many zeros in front, once escaped as ValueError and OverflowError."""
    with pytest.raises(RowError, match="line 2, column timestamp"):
        read_columns(f"user,item,rating,time\n1,2,3,{cell}\n", "f")


def test_a_message_holds_the_beginning_of_a_row_only():
    for text in ("x" * 100_000 + "\n", ",".join(["user"] + ["x" * 10_000] * 9) + "\n", "user,item,rating\n1,2," + "x" * 100_000 + "\n"):
        with pytest.raises(DataError) as caught:
            read_columns(text, "f")
        assert 100 < len(str(caught.value)) < 700


BAD_ROWS = [
    ("1,2", "", "has 2 fields where 3 are expected"),
    ("1,2,3,4", "", "has 4 fields where 3 are expected"),
    ("1,2,good", "rating", "is not a number between"),
    ("1,2,", "rating", "is not a number between"),
    ("1,2,nan", "rating", "is not a number between"),
    ("1,2,1e400", "rating", "is not a number between"),
    ("1,2,5000", "rating", "is not a number between"),
    ("1,2,1_0", "rating", "is not a number between"),
    (",2,3", "user", "is empty"),
    ("1,  ,3", "movie", "is empty"),
    ('"1"2,2,3', "", "has a quotation mark inside a field"),
]


@pytest.mark.parametrize(("row", "column", "rule"), BAD_ROWS)
def test_a_bad_row_stops_with_file_line_column_value_and_rule(row, column, rule):
    with pytest.raises(RowError) as caught:
        read_columns(f"user,item,rating\n1,2,3\n\n{row}\n", "my.csv")
    assert str(caught.value).startswith("my.csv, line 4")
    assert caught.value.column == column
    assert rule in str(caught.value)


def test_bad_rows_are_dropped_and_counted_when_asked():
    text = "user,item,rating\n1,2,3\n" + "".join(row + "\n" for row, *_ in BAD_ROWS) + "2,2,4\n"
    columns = read_columns(text, "f", drop_bad=True)
    assert rows_of(columns) == [(1, 2, 3.0), (2, 2, 4.0)]
    assert columns.n_dropped == len(BAD_ROWS) == sum(columns.reasons.values())
    assert columns.reasons["user is empty"] == 1
    assert columns.reasons["rating is not a number between -1000 and 1000"] == 6


def test_lines_of_separators_alone_are_blank():
    assert rows_of(read_columns("user,item,rating\n,,\n1,2,3\n , ,\n", "f")) == [(1, 2, 3.0)]
    assert rows_of(read_columns("1\t2\t3\t\n1\t3\t4\t\n", "f")) == [(1, 2, 3.0), (1, 3, 4.0)]  # nor does an empty column hold times


@pytest.mark.parametrize("row", ["user_1,movie_7,5", "user,Film,5", "user:1,movie:7,5", "ann,Time,5"])
def test_a_first_row_with_a_rating_is_no_header(row):
    user, movie, rating = row.split(",")
    assert rows_of(read_columns(row + "\n", "f")) == [(user, movie, float(rating))]


def test_a_quotation_mark_left_open_is_refused_and_swallows_no_row():
    text = 'userId,movieId,rating,title\n1,5,3,"Heat\n2,5,3,Alien\n3,6,4,Up\n'
    for drop_bad in (False, True):
        with pytest.raises(DataError, match=r"f\.csv, line 2: a quotation mark is opened and not closed"):
            read_columns(text, "f.csv", drop_bad=drop_bad)


def test_a_bad_timestamp_is_named():
    with pytest.raises(RowError, match=r"line 2, column timestamp: 'soon' is neither"):
        read_columns("user,item,rating,timestamp\n1,2,3,soon\n", "f")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("user,item,when\n1,2,3\n", "no column for rating"),
        ("rating\n1\n", "no column for user and movie"),
        ("a,b,c\n1,2,3\n", "does not look like ratings"),
        ("1,2\n", "does not look like ratings"),
    ],
)
def test_what_is_not_ratings_is_refused(text, message):
    with pytest.raises(DataError, match=message):
        read_columns(text, "f")


def slow(text, separator, n_fields):
    roles = {role: k for k, role in enumerate(("user", "movie", "rating", "timestamp")[:n_fields])}
    return _RowReader("f", roles, n_fields, decimal_comma=separator == ";").read(numbered_rows(text, separator, "f"), drop_bad=False)


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([",", "\t", "::"]))
def test_the_fast_reader_never_differs_from_the_slow_one(seed, separator):
    """Whatever a few random edits make of a clean file: the fast reader either declines or agrees with the slow one."""
    rng = random.Random(seed)
    rows = [
        [str(rng.randint(1, 99)), str(rng.randint(1, 99)), rng.choice(["1", "2.5", "4", "-1"]), str(rng.randint(0, 9**9))] for _ in range(8)
    ]
    text = "\n".join(separator.join(row) for row in rows) + rng.choice(["", "\n"])
    for _ in range(rng.randint(0, 2)):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice(["", "0", "-", ".", separator, "\n", "e", " ", '"', "+", "9" * 20]) + text[at + rng.randint(0, 1) :]
    fast = _read_numbers(text, separator, False, {"user": 0, "movie": 1, "rating": 2, "timestamp": 3}, 4)
    if fast is not None:
        wanted = slow(text, separator, 4)
        assert rows_of(fast) == rows_of(wanted)
        assert fast.timestamp.tolist() == wanted.timestamp.tolist()
        assert fast.user_id.dtype == wanted.user_id.dtype


def test_a_file_of_many_chunks(monkeypatch):
    monkeypatch.setattr("cfrec.columns._CHUNK", 20)
    rows = [(u, u + 1, 2.5) for u in range(1, 60)]
    text = "\n".join(f"{u},{m},{r}" for u, m, r in rows)
    roles = {"user": 0, "movie": 1, "rating": 2}
    assert rows_of(_read_numbers(text, ",", False, roles, 3)) == rows
    assert _read_numbers(text.replace("30,31,2.5", "30,31.0,2.5"), ",", False, roles, 3) is None
    assert _read_numbers(text.replace("30,31,2.5", "030,31,2.5"), ",", False, roles, 3) is None
    assert _read_numbers(text.replace("30,31,2.5", "30,00,2.5"), ",", False, roles, 3) is None
    assert _read_numbers(text.replace("30,31,2.5", "0,0,0.5"), ",", False, roles, 3) is not None
    assert _read_numbers(text.replace("30,31,2.5", "30,31,2,5"), ",", False, roles, 3) is None


def test_clean_files_do_take_the_fast_way():
    """Negative control of the test above, which would pass if the fast reader always declined."""
    text = "1,2,3.5,4\n-5,6,1,0\n"
    assert rows_of(_read_numbers(text, ",", False, {"user": 0, "movie": 1, "rating": 2, "timestamp": 3}, 4)) == [(1, 2, 3.5), (-5, 6, 1.0)]
