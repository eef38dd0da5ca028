import pytest

from cfrec.errors import DataError
from cfrec.tables import MOVIE_TABLE_ROLES, decode, find_roles, find_separator, numbered_rows


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\xef\xbb\xbfa,b\r\nc", "a,b\nc"),
        ("né".encode("latin-1"), "né"),
        ("né".encode(), "né"),
        ("né".encode("utf-16"), "né"),
        (b"a\rb", "a\nb"),
        (b"Don\x92t", "Don’t"),
    ],
)
def test_decode(data, text):
    assert decode(data, "f") == text


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"", "empty"), (b" \n ", "empty"), (b"1,2\0,3", "NUL"), (b"<!DOCTYPE html><p>404", "web page"), (b"\n <html>", "web page")],
)
def test_what_is_no_table_is_refused(data, message):
    with pytest.raises(DataError, match=message):
        decode(data, "f")


def test_the_separator_is_the_one_that_cuts_evenly():
    assert find_separator("1\tHello, a, b, c\t5\n2\tx\t4\n") == "\t"
    assert find_separator("1,2,3,2020-01-01 10:00:00\n1,3,3,2020-01-01 10:00:00\n") == ","
    assert find_separator("1::5::3::9\n") == "::"
    assert find_separator("1 2 3\n4 5 6\n") == " "


def test_a_file_of_mixed_encodings_is_refused_rather_than_garbled():
    with pytest.raises(DataError, match=r"f, line 2: the file is UTF-8 but for a byte here"):
        decode("Misérables\n".encode() + b"\xff\n", "f")


def test_damaged_utf_16_is_refused_rather_than_patched():
    """Half a letter once became a replacement character, in an id as well as anywhere."""
    data = "user,item,rating\n1,2,3\n".encode("utf-16")
    with pytest.raises(DataError, match=r"f, line 2: the file begins as UTF-16, but is damaged here"):
        decode(data[:-1], "f")
    assert decode(data, "f").endswith("1,2,3\n")


def test_a_mark_in_the_middle_of_joined_files_is_no_part_of_an_id():
    assert decode("\ufeff1,2,3\n\ufeff4,5,6\n".encode(), "f") == "1,2,3\n4,5,6\n"


@pytest.mark.parametrize("start", ["\n" * 25, " " * 21_000, "\n" * 21_000 + "\t"])
def test_a_separator_is_found_behind_any_number_of_blank_lines(start):
    """A ValueError once escaped where the first twenty lines were blank."""
    assert find_separator(start + "1\t2\t3\n4\t5\t6\n") == "\t"


def test_rows_have_their_line_numbers_and_blank_lines_none():
    assert list(numbered_rows("a,b\n\n , \nc,d\n", ",", "f")) == [(1, ["a", "b"]), (4, ["c", "d"])]
    assert list(numbered_rows("a::b\n\nc::d", "::", "f")) == [(1, ["a", "b"]), (3, ["c", "d"])]


def test_quotation_marks_between_tabs_are_part_of_a_title_unless_they_enclose_a_field():
    assert list(numbered_rows('1\t"Weird Al" Story\n', "\t", "f")) == [(1, ["1", '"Weird Al" Story'])]
    assert list(numbered_rows('"1"\t"a ""b"""\n', "\t", "f")) == [(1, ["1", 'a "b"'])]


def test_a_line_with_a_quotation_mark_inside_a_field_is_left_whole():
    """`"1"2` was once read as 12."""
    rows = list(numbered_rows('"1"2,5,4\n"1",5,"a ""b"" c"\n1,5,a "b" c\n"1",5,"a "b" c"\n', ",", "f"))
    assert [row for _, row in rows] == [['"1"2,5,4'], ["1", "5", 'a "b" c'], ["1", "5", 'a "b" c'], ['"1",5,"a "b" c"']]


@pytest.mark.parametrize("text", ['a,b\n1,"2', 'a,b\n"', 'a,b\n"1"2,"3\n4,5\n', 'a,b\n1,"2\n3"\n'])
def test_a_quotation_mark_left_open_is_refused_at_the_end_too(text):
    """Without a line to swallow, it once passed unnoticed."""
    with pytest.raises(DataError, match="f, line 2: a quotation mark is opened and not closed on this line"):
        list(numbered_rows(text, ",", "f"))


def test_very_long_fields_are_named():
    with pytest.raises(DataError, match=r"f, line 2: cannot be read as a table .*quotation mark"):
        list(numbered_rows('a,b\n"' + "x" * 200_000, ",", "f"))


def test_roles_from_names():
    assert find_roles(["User ID", "movie_id", "Rating:float"]) == {"user": 0, "movie": 1, "rating": 2}
    assert find_roles(["id", "name"]) == {}
    assert find_roles(["id", "name"], MOVIE_TABLE_ROLES) == {"movie": 0, "title": 1}
