import numpy as np
import pyarrow as pa
import pytest

from cfrec.columns import id_text, movie_entry, parse_ids, parse_stars, parse_times

MIDNIGHT = 893_203_200  # of 22 April 1998
LARGEST = "9223372036854775807"


def column(*cells):
    return pa.array(cells, pa.string()).dictionary_encode()


def test_ids_are_integers_where_all_of_them_are():
    ids, idx = parse_ids(column("24", "-3", "24.0", " 7 ", "24"))
    assert (ids.tolist(), ids.dtype, idx.tolist(), idx.dtype) == ([-3, 7, 24], np.int64, [2, 0, 2, 1, 2], np.int32)
    assert parse_ids(column(LARGEST, f"-{LARGEST[:-1]}8"))[0].tolist() == [-(2**63), 2**63 - 1]
    assert [*map(id_text, ("24.0", "24.", "-3.00", "24.5", "a.0", "nan"))] == ["24", "24", "-3", "24.5", "a.0", ""]


@pytest.mark.parametrize("user", ["007", "ann", "-", "+1", "１", "1٢", "9223372036854775808", "1.5", "1e-3", "-0"])
def test_ids_are_text_where_one_is_no_plain_integer(user):
    ids, idx = parse_ids(column("2", user))
    assert (ids[idx].tolist(), ids.tolist()) == (["2", user], sorted(["2", user]))


@pytest.mark.parametrize("missing", [None, "", " ", "NaN", "null", "None", "N/A", "\\N", "<NA>"])
def test_what_stands_for_a_missing_value_is_no_id_no_star_and_no_time(missing):
    r"""``\N``, as MySQL writes it, was once the rating "n": no."""
    ids, idx = parse_ids(column("5", missing, "3"))
    assert (ids.tolist(), idx.tolist()) == ([3, 5], [1, -1, 0])
    assert [parsed.rules[0] for parsed in (parse_stars(column(missing), decimal_comma=False), parse_times(column(missing)))] == [
        "is missing"
    ] * 2


STARS = {"4": 4, "4,5": 4.5, "-2.5": -2.5, "1e2": 100, ".5": 0.5, "1000": 1000}
WORDS = {"Like": 1, "thumbs_down": 0, "meh": 0.5, "NO!": 0, "4/5": 4, "3,5 / 10": 3.5, "4 out of 5": 4, "1 star": 1, "★★½": 2.5}
NO_STARS = ["1_0", "nan", "inf", "1e400", "1001", "1,234", "4/7", "x", "★4"]


def test_stars_and_counts():
    parsed = parse_stars(column(*STARS, *WORDS, *NO_STARS), decimal_comma=False)
    n = len(STARS) + len(WORDS)
    assert (parsed.values[:n].tolist(), parsed.read_as) == ([*STARS.values(), *WORDS.values()], WORDS)
    assert [*parsed.rules] == [*range(n, n + len(NO_STARS) + 1)]
    assert parse_stars(column("1,234"), decimal_comma=True).values[0] == 1.234
    counts = parse_stars(column("0", "70000", "-3"), decimal_comma=False, counts=True)
    assert (counts.values[:2].tolist(), [*counts.rules]) == ([0, 1], [2, 3])


TIMES = {"7": 7, "8.0": 8, "-007": -7, "0" * 5_000 + "7": 7, f"{LARGEST}.00": 2**63 - 1, f"-{LARGEST[:-1]}8": -(2**63)}
TIMES |= {"1998-04-22": MIDNIGHT, "1998-04-22T01:00:00+00:00": MIDNIGHT + 3600, "1998-04-22 01:00:00+02:00": MIDNIGHT - 3600}
NO_TIMES = ["9" * 5_000, "0" * 25 + "9" * 25, f"{LARGEST[:-1]}8", f"-{LARGEST[:-1]}9", "1_0", "٣", "soon", "22/04/1998"]


def test_times():
    """Those of thousands of digits, or with as many zeros in front, once escaped as ValueError and OverflowError."""
    parsed = parse_times(column(*TIMES, *NO_TIMES))
    assert parsed.values[: len(TIMES)].tolist() == [*TIMES.values()]
    assert [*parsed.rules] == [*range(len(TIMES), len(TIMES) + len(NO_TIMES) + 1)]


def test_titles_years_and_genres():
    years = {"1995": "Heat (1995)", "1995.0": "Heat (1995)", "15-Dec-1995": "Heat (1995)", "": "Heat", "nan": "Heat"}
    assert [movie_entry("Heat", "", year)[0] for year in years] == [*years.values()]
    assert movie_entry("Heat (1995)", "", "1995")[0] == "Heat (1995)"
    for genres in (
        "Drama|War",
        "Drama ;War,",
        "Drama, War",
        '["Drama", "War"]',
        "('Drama', 'War')",
        "[{'id': 1, 'name': 'Drama'}, {'name': 'War'}]",
    ):
        assert movie_entry("Heat", genres)[1] == "Drama|War"
    assert [movie_entry("Heat", genres)[1] for genres in ("(no genres listed)", "nan", "[]")] == ["", "", ""]
    for genres in ("[" * 9_000, "{[1]: 2}"):  # a RecursionError and a TypeError once escaped
        assert movie_entry("Heat", genres)[1] == genres
