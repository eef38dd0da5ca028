import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cfrec import ratings as ratings_module
from cfrec.compiled import load_kernels

kernels = load_kernels("parsing")
ROLES = np.array([1, 2, 3, 4])


def parse(text, roles=ROLES, separator=",", n_rows=None):
    """The columns that are found, as lists; None where the text is not plain."""
    data = np.frombuffer(text.encode(), np.uint8)
    columns = np.zeros((4, len(text.splitlines()) if n_rows is None else n_rows), np.int64)
    ok = kernels.parse_rows(data, ord(separator[0]), len(separator), np.array(roles), columns)
    return columns.tolist() if ok else None


def test_known_numbers():
    text = "1,20,3.5,99\n-4,0,-.25,-7\n999999999999999999,5,1000,0\n"
    assert parse(text) == [[1, -4, 999999999999999999], [20, 0, 5], [3_500_000_000_000, -250_000_000_000, 10**15], [99, -7, 0]]
    assert parse(text.replace("\n", "\r\n")) == parse(text)
    assert parse(text.replace(",", "::"), separator="::") == parse(text)
    assert parse(text[:-1]) == parse(text)


def test_columns_in_another_order_and_of_no_use():
    assert parse("nice (4/5);3,5;2;1\n;4;9;1\n", [0, 3, 2, 1], ";") == [[1, 1], [2, 9], [3_500_000_000_000, 4_000_000_000_000], [0, 0]]
    assert parse("a:b::1::2::3\n", [0, 1, 2, 3], "::") == [[1], [2], [3_000_000_000_000], [0]]
    assert parse("1,2,3,é\n", [1, 2, 3, 0]) is None
    assert parse('1,2,3,"x"\n', [1, 2, 3, 0]) is None


@pytest.mark.parametrize(
    "row",
    [
        *("007,2,3,4", "1,00,3,4", "+1,2,3,4", "-0,2,3,4", "-,2,3,4", ",2,3,4", "1.0,2,3,4", "1e3,2,3,4", " 1,2,3,4", "１,2,3,4"),
        *("9223372036854775808,2,3,4", "1000000000000000000,2,3,4"),  # 19 digits may not fit into 64 bits
        *("1,2,,4", "1,2,.,4", "1,2,-,4", "1,2,3.5.1,4", "1,2,1e1,4", "1,2,nan,4", "1,2,1000.5,4", "1,2,-1001,4", "1,2,-0.0,4", "1,2,03,4"),
        *(
            "1,2,0.1234567890123,4",
            "1,2,3;5,4",
            "1,2,3,",
            "1,2,3,4.0",
            "1,2,3,1998-04-22",
            "1,2,3",
            "1,2,3,4,5",
            "1,2,3,4,",
            "",
            "1,2,3,4\r5",
        ),
    ],
)
def test_what_is_not_plain(row):
    assert parse(f"1,2,3,4\n{row}\n1,2,3,4\n", n_rows=3) is None
    assert parse(f"1,2,3,4\n{row}", n_rows=2) is None


def test_more_or_fewer_lines_than_were_counted():
    assert parse("1,2,3,4\n5,6,7,8\n", n_rows=1) is None
    assert parse("1,2,3,4\n", n_rows=2) is None
    assert parse("1,2,3,4\n\n", n_rows=1) is None


@given(st.integers(0, 1000 * 10**12), st.integers(0, 12))
def test_ratings_are_rounded_as_float_rounds_them(value, n_decimals):
    text = f"{value // 10**12}." + f"{value % 10**12:012d}"[:n_decimals]
    if len(text) <= 19:
        (found,) = parse(f"1,2,{text},4")[2]
        assert found / 10.0**kernels.DECIMALS == float(text)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(-2, 2)), min_size=1, max_size=60), st.booleans())
def test_of_several_ratings_the_latest_is_kept_as_without_compiled_code(rows, with_times):
    user, movie, time = (np.array(column) for column in zip(*rows, strict=True))
    times = time.astype(np.int64) if with_times else None
    columns = user.astype(np.int32), movie.astype(np.int32), 6, times
    wanted = ratings_module._latest(*columns)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ratings_module, "MANY_ROWS", 0)
        found = ratings_module._latest(*columns)
    everything = np.arange(len(rows))
    assert everything[found].tolist() == everything[wanted].tolist()


def test_the_latest_of_three_is_kept_by_time_then_by_row(monkeypatch):
    monkeypatch.setattr(ratings_module, "MANY_ROWS", 0)
    user, movie = np.array([1, 0, 1, 1], np.int32), np.array([2, 2, 2, 2], np.int32)
    assert ratings_module._latest(user, movie, 3, np.array([5, 0, 9, 9])).tolist() == [1, 3]
    assert ratings_module._latest(user, movie, 3, np.array([9, 0, 8, 7])).tolist() == [0, 1]
    assert ratings_module._latest(user, movie, 3, None).tolist() == [1, 3]
    assert ratings_module._latest(user[:2], movie[:2], 3, None) == slice(None)


def test_what_is_prepared_is_what_reading_needs(tmp_path):
    """Or else the first large file would wait for the compiler after all."""
    (tmp_path / "ratings.csv").write_text("user,movie,rating,timestamp\n1,1,4.5,7\n2,1,3,8\n2,1,4,9\n")
    code = (
        "import sys, cfrec, cfrec.plain, cfrec.ratings\n"
        "from cfrec.compiled import load_kernels\n"
        "k = load_kernels('parsing'); k.prepare()\n"
        "made = lambda: [len(f.signatures) for f in (k.parse_rows, k.sort_by_user, k.mark_earlier)]\n"
        "before = made()\n"
        "cfrec.plain.pays_to_compile = cfrec.ratings.pays_to_compile = lambda *_: True\n"
        "assert cfrec.read_ratings(sys.argv[1]).rating.tolist() == [4.5, 4]\n"
        "assert made() == before == [1, 1, 1], made()"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "ratings.csv")], check=True)
