import io
import random

import pytest

import cfrec
from cfrec import tables
from cfrec.errors import DataError
from cfrec.layouts import find_layout, to_utf8
from cfrec.tables import RowError

HEADER = "user,item,rating,title\n"
LATIN, JOINED = "né".encode("latin-1"), "\ufeff1,2,3\n\ufeff4,5,6\n".encode()


def read(data, **how):
    return cfrec.read_ratings(io.BytesIO(data.encode()), **how)


def rows_of(ratings):
    """User, movie, stars and title of each row."""
    users, movies = ratings.user_ids[ratings.user_idx].tolist(), ratings.movies.iloc[ratings.movie_idx]
    return list(zip(users, movies["movie_id"].tolist(), ratings.rating.tolist(), movies["raw_title"].tolist(), strict=True))


def cut_slowly(*args):
    return tables._cut_slowly(*args[:-1])


def test_encodings():
    data = [b"\xef\xbb\xbfa,b\r\nc", LATIN, "né".encode(), "né".encode("utf-16"), b"Don\x92t", b"\x81\xe9", JOINED]
    texts = ["a,b\r\nc", "né", "né", "né", "Don’t", "\x81é", "1,2,3\n4,5,6\n"]
    assert [to_utf8(each, "f")[0].decode() for each in data] == texts


REFUSED = {
    b"": "f is empty",
    b" \n ": "f is empty",
    b"1,2\0,3": "holds NUL bytes",
    b"<!DOCTYPE html>": "web page",
    b"\n <HTML>": "web page",
}
REFUSED |= {
    "é\n".encode() + b"\xff\n": "f, line 2: the file is UTF-8 but",
    "1\n3".encode("utf-16")[:-1]: "f, line 2: .* UTF-16, but is damaged",
}


@pytest.mark.parametrize("data", REFUSED)
def test_what_is_no_text_is_refused(data):
    with pytest.raises(DataError, match=REFUSED[data]):
        to_utf8(data, "f")


@pytest.mark.parametrize("separator", [",", ";", "\t", "|", "::", " "])
@pytest.mark.parametrize("header", ["", "userId{0}movieId{0}rating{0}timestamp"])
@pytest.mark.parametrize("start", ["", "\n" * 25, " " * 21_000 + "\n"])
def test_any_separator_with_or_without_a_header_behind_blank_lines(separator, header, start):
    ratings = read(start + header.format(separator) + "\n1,20,3.5,99\n2,10,4,8\n".replace(",", separator))
    assert rows_of(ratings) == [(1, 20, 3.5, "20"), (2, 10, 4.0, "10")]
    assert ratings.timestamp.tolist() == [99, 8]


def test_separator_and_header():
    for text in ("1\tHello, a, b, c\t5\n2\tx\t4", "1\t2\t3\t2020-01-01 10:00:00", "user\tFilm\t5\n", "user_1\tmovie_7\t5"):
        assert (find_layout(text.encode(), "f").separator, find_layout(text.encode(), "f").header) == ("\t", None)
    for text in ("a b c\n1 2 3", "what when how\nx y 3", "x 0 1 2 3 4 5 6 7\na 1 2 3 4 5 1 2 3"):
        assert find_layout(text.encode(), "f").header == tuple(text.split("\n")[0].split(" "))


BAD = "7,8,9,10,11"  # a field too many
LINES = {  # text in which BAD is first on the line of that number
    5: f"{HEADER}1,2,3,a\n\n\n{BAD}\n1,3,3,b\n",
    6: f'{HEADER}1,2,3,"a\nb\nc"\n1,3,3,b\n{BAD}\n',
    7: f"# one\n% two\n\n{HEADER}1,2,3,a\n,,,\n{BAD}\n",
    8: f"sep=,\n{HEADER}# here,too\n// and, here\n1,2,3,a\n\n1,3,3,b\n{BAD}\n{BAD}\n",
    9: f'\n\n"user\nid",item,rating,title\n1,2,3,a\n"1","3",3,"x\n""\n"\n{BAD}\n',
}


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("cut", [tables._cut, cut_slowly])
@pytest.mark.parametrize("line", LINES)
def test_the_line_of_a_bad_row(monkeypatch, line, cut, end):
    monkeypatch.setattr(tables, "_cut", cut)
    text = LINES[line].replace("\n", end)
    with pytest.raises(RowError, match=f"upload, line {line}: '7,8,9,10,11' has 5 fields where 4 are expected"):
        read(text)
    with pytest.raises(RowError, match=f"upload, line {line}, column rating: 'x' is not a number"):
        read(text.replace(BAD, "7,8,x,11", 1))
    kept = read(text, drop_bad=True)
    assert kept.report.reasons == {"row has 5 fields where 4 are expected": text.count(BAD)}
    assert [row[:3] for row in rows_of(kept)] == [(1, 2, 3.0), (1, 3, 3.0)][: 1 if line == 7 else 2]


RULES = {'"Heat': "opens a quotation mark and does not close it", '"a "b" c"': "has a quotation mark inside a field"}


@pytest.mark.parametrize("cell", RULES)
def test_quotation_marks_that_break_the_rules_name_their_line_and_swallow_no_row(cell):
    """`"1"2` was once read as 12, and a mark left open swallowed the rest of the file."""
    text = f'{HEADER}9,5,3,"Up, ""Up""\nand ""away"""\n1,5,3,{cell}\n2,5,3,Alien\n3,6,4,"x, y"\n'
    with pytest.raises(RowError, match=f"upload, line 4: .* {RULES[cell]}"):
        read(text)
    ratings, first = read(text, drop_bad=True), 'Up, "Up"\nand "away"'
    assert rows_of(ratings) == [(9, 5, 3.0, first), (2, 5, 3.0, first), (3, 6, 4.0, "x, y")]
    assert ratings.report.reasons == {f"row {RULES[cell]}": 1}


def test_quotation_marks_that_are_part_of_a_title():
    tabs, colons = HEADER.replace(",", "\t"), HEADER.replace(",", "::")
    for text, titles in (
        (HEADER + '1,5,3,a "b" c\n1,6,3,"5"" x"\n', ['a "b" c', '5" x']),
        (tabs + '1\t5\t3\t"Weird Al" Story\n1\t6\t4\tb"\n', ['"Weird Al" Story', 'b"']),
        (tabs + '"1"\t"5"\t3\t"a ""b"""\n1\t6\t4\t"x\ty"\n', ['a "b"', "x\ty"]),
        (colons + '1::5::3::"a: b\n1::6::3::c"\n', ['"a: b', 'c"']),
    ):
        assert [(row[1], row[3]) for row in rows_of(read(text))] == [*zip((5, 6), titles, strict=True)]


def outcome(text, *, drop_bad):
    try:
        ratings = read(text, drop_bad=drop_bad)
        return rows_of(ratings), ratings.timestamp is not None and ratings.timestamp.tolist(), dict(ratings.report.reasons)
    except DataError as error:
        return str(error)


def test_the_fast_and_the_slow_cut_agree_whatever_a_few_edits_make_of_a_file(monkeypatch):
    rng, kinds, cut = random.Random(0), {tuple: 0, str: 0}, tables._cut
    for _ in range(200):
        s, end = rng.choice([",", ";", "\t", "|", "::", " "]), rng.choice(["\n", "\r\n", "\r"])
        cells = [
            [str(rng.randint(1, 9)), rng.choice(["5", '"6"', "x7"]), rng.choice(["1", "2.5"]), str(rng.randint(0, 9**9))] for _ in range(8)
        ]
        text = end.join(map(s.join, [["user", "item", "rating", "time"], *cells]))
        for _ in range(rng.randint(0, 3)):
            at = rng.randrange(30, len(text) + 1)
            text = text[:at] + rng.choice(["", "0", ".", s, end, " ", '"', "#", "é", "9" * 20]) + text[at + rng.randint(0, 1) :]
        for drop_bad in (False, True):
            monkeypatch.setattr(tables, "_cut", cut)
            fast = outcome(text, drop_bad=drop_bad)
            monkeypatch.setattr(tables, "_cut", cut_slowly)
            assert fast == outcome(text, drop_bad=drop_bad), text
            kinds[type(fast)] += 1
    assert min(kinds.values()) > 50


def test_a_row_longer_than_a_block_and_times_that_are_whole_only_at_first():
    assert [len(row[3]) for row in rows_of(read(HEADER + f'1,2,3,"{"x" * (5 << 20)}"\n1,3,4,b\n'))] == [5 << 20, 1]
    body = "".join(f"{k},1,3,{k}\n" for k in range(1, 1_500))
    assert read("user,item,rating,time\n" + body + "0,1,3,1970-01-02\n").timestamp.tolist() == [*range(1, 1_500), 86_400]
