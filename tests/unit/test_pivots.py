"""Pivot tables as people lay them out, each with the same ratings; a user or movie without any is none."""

import io

import numpy as np
import pandas as pd
import pytest

import cfrec
from cfrec.errors import DataError
from cfrec.pivots import find_pivot, is_not_rated

USERS, MOVIES = [f"p{u}@x.org" for u in range(30)], [f"Film {m}" for m in range(14)]
STARS = {(u, m): float((i * j + i) % 5 + 1) for i, u in enumerate(USERS) for j, m in enumerate(MOVIES) if (i + 2 * j) % 3 or j == 13}


def triples(ratings):
    movies = ratings.movies["movie_id"].to_numpy()[ratings.movie_idx].tolist()
    return dict(zip(zip(ratings.user_ids[ratings.user_idx].tolist(), movies, strict=True), ratings.rating.tolist(), strict=True))


def cell(user, movie, blank):
    stars = STARS.get((user, movie))
    return blank if stars is None else f"{stars:g}"


def table(blank="", corner="user", extra=None, *, turned=False, last=""):
    """CSV; ``extra`` maps names of further columns to functions of the row."""
    down, across = (MOVIES, USERS) if turned else (USERS, MOVIES)
    header = [corner, *(extra or {}), *across]
    rows = [
        [a, *(make(k, a) for make in (extra or {}).values()), *(cell(*((b, a) if turned else (a, b)), blank) for b in across)]
        for k, a in enumerate(down)
    ]
    return "\n".join(",".join(map(str, row)) for row in [header, *rows]) + "\n" + last


def read(text, **more):
    return cfrec.read_ratings(io.StringIO(text), **more)


def kinds(ratings):
    return [note.kind for note in ratings.report.notes]


@pytest.mark.parametrize("blank", ["", "0", "99", "-1", "NA", "-", "x", "not seen", "n.a."])
def test_marks_for_not_rated(blank):
    ratings = read(table(blank))
    assert triples(ratings) == STARS
    note = next(note for note in ratings.report.notes if note.kind == "pivot")
    assert (f"“{blank}”" in note.text or f"{blank} stands for" in note.text) == (blank not in ("", "NA"))


def test_a_mark_can_be_said_to_be_a_rating():
    ratings = read(table("0"))
    assert ratings.report.lines()[-1].endswith("--not-rated nan.")
    assert len(read(table("0"), **ratings.report.notes[0].change)) == len(USERS) * len(MOVIES)


@pytest.mark.parametrize("corner", ["user", "Name", "email", "", "Unnamed: 0", "Teilnehmer"])
def test_what_the_rows_are_is_found_by_the_corner_or_by_the_looks_of_names(corner):
    assert triples(read(table(corner=corner))) == STARS


@pytest.mark.parametrize("corner", ["movie", "Title", "", "Filme"])
def test_a_row_for_each_movie(corner):
    ratings = read(table(corner=corner, turned=True))
    assert triples(ratings) == STARS
    assert ("turned" in kinds(ratings)) == (corner not in ("movie", "Title"))


def test_where_nothing_tells_what_the_rows_are_it_is_said_and_turned_by_one_argument():
    names = {user: f"Anna {k}" for k, user in enumerate(USERS)}
    text = table(corner="who or what", turned=True)
    for user, name in names.items():
        text = text.replace(user, name)
    ratings = read(text)
    assert (ratings.n_users, kinds(ratings)) == (14, ["pivot", "turned"])
    (turned,) = [note for note in ratings.report.notes if note.kind == "turned"]
    assert triples(read(text, **turned.change)) == {(names[user], movie): stars for (user, movie), stars in STARS.items()}
    assert triples(read(text, columns={"movie": "who or what"})) == triples(read(text, **turned.change))


def mean(_, user):
    return f"{np.mean([stars for (u, _), stars in STARS.items() if u == user]):.2f}"


@pytest.mark.parametrize(
    "extra",
    [
        {"Age": lambda k, _: 20 + k},
        {"Gender": lambda k, _: "mf"[k % 2]},
        {"Average": mean},
        {"Durchschnitt": mean},
        {"How many": lambda _, user: sum(u == user for u, _ in STARS)},
        {"Timestamp": lambda k, _: f"2024/03/{k % 28 + 1:02} 4:00 PM"},
    ],
)
def test_columns_that_hold_no_ratings_are_left_out_and_told(extra):
    ratings = read(table(corner="Username", extra=extra))
    (name,) = extra
    assert triples(ratings) == STARS
    assert [note.text for note in ratings.report.notes if note.kind == "left_out"] == [
        f"Columns that hold no ratings were left out: {name}."
    ]


def test_a_last_row_that_adds_up_the_others_is_no_user():
    ratings = read(table(last="Total," + ",".join("70" for _ in MOVIES) + "\n"))
    assert (triples(ratings), "sums" in kinds(ratings)) == (STARS, True)


def test_answers_to_a_form_are_called_by_what_is_in_brackets():
    text = table(corner="Name")
    for movie in MOVIES[::-1]:
        text = text.replace(movie, f"How was it? [{movie}]", 1)
    assert triples(read(text)) == STARS


def test_tables_of_pandas_with_their_index_in_any_place():
    frame = pd.DataFrame([(*pair, stars) for pair, stars in STARS.items()], columns=["userId", "title", "rating"])
    wide = frame.pivot_table(index="userId", columns="title", values=["rating"])
    assert triples(cfrec.read_ratings(wide)) == STARS
    last = wide.droplevel(0, axis=1).reset_index()
    last = last[[*last.columns[1:], "userId"]]  # as Parquet stores an index
    assert triples(cfrec.read_ratings(last)) == STARS
    assert triples(read(last.reset_index().to_csv(index=False))) == STARS


def test_ids_of_movies_that_stand_alone_in_the_header_are_no_ratings():
    """They were once read as those of a user; so was the sum that pandas adds."""
    ids = {movie: k for k, movie in enumerate(MOVIES)}
    rows = [[cell(user, movie, "") for movie in MOVIES] for user in USERS]
    alone = "\n".join(",".join(row) for row in [list(map(str, ids.values())), *rows])
    wanted = {(USERS.index(user) + 1, ids[movie]): stars for (user, movie), stars in STARS.items()}
    assert triples(read(alone)) == wanted
    sums = [["userId", *map(str, ids.values()), "All"], *([str(k + 1), *row, "9"] for k, row in enumerate(rows))]
    summed = "\n".join(",".join(row) for row in sums)
    assert triples(read(summed)) == wanted


def test_a_first_column_that_counts_each_row_s_ratings_is_none_though_all_rated_as_many():
    rows = [["5", *("99" if (u + m) % 2 else f"{(u * m) % 5 - 2.25:g}" for m in range(10))] for u in range(12)]
    ratings = read("\n".join(map(",".join, rows)))
    assert (len(ratings), ratings.n_users, ratings.n_movies, ratings.scale[:2]) == (60, 12, 10, (-2.25, 1.75))


def test_headers_of_r_and_a_line_above_with_as_many_separators_and_percents():
    text = table("NA", corner="")
    assert triples(read('"",' + text[1:])) == STARS
    assert triples(read("My survey" + "," * 14 + "\n" + table())) == STARS
    percents = read(table().replace(",5", ",100%"))
    assert triples(percents) == {pair: 100 if stars == 5 else stars for pair, stars in STARS.items()}


def test_two_columns_of_one_name_are_refused():
    with pytest.raises(DataError, match="Two columns of the table are called 'Film 3'"):
        read(table().replace("Film 4", "Film 3", 1))


def test_long_tables_are_no_pivot_tables():
    scores = [[str(k % 7), str(k % 11), str(k % 5), str(k % 3), str(k % 4)] for k in range(40)]
    assert find_pivot(["userId", "beerId", "rating", "taste", "aroma"], scores, 5) is None
    assert find_pivot(["user", "movie", "rating", "timestamp"], [["1", "2", "3", "0"], ["2", "2", "3", "0"]], 4) is None
    assert find_pivot(None, [["1", "2", "3", "4"]] * 3, 4) is None
    assert find_pivot(["user", "movie", "rating"], [["1", "2", "0"]] * 3, 3) is None


def test_a_mark_is_a_number_apart_from_the_rest_and_frequent():
    scores = np.array([1.0, 2, 3, 4, 5])
    assert is_not_rated(np.array([scores, 0 * scores], np.float32)) == 0
    assert is_not_rated(np.array([scores, 0 * scores + 99], np.float32)) == 99
    assert is_not_rated(np.array([scores - 3, 0 * scores], np.float32)) is None  # in the middle of the scale
    assert is_not_rated(np.array([scores, scores], np.float32)) is None
    assert is_not_rated(np.append(np.tile(scores, 20), 0.0)) is None  # once in a hundred: a rating like any other
