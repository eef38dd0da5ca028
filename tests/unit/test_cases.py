"""Files in the shapes that people really have: each is made here from the same 432 ratings by 30 people of 24 films."""

import bz2
import gzip
import io
import json
import lzma
import random
import uuid
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cfrec
from cfrec.errors import DataError

STARS = {(u, m): 1.0 + (u * m + u + 2 * m) % 5 for u in range(1, 31) for m in range(1, 25) if (7 * u + 3 * m) % 5 > 1}
ROWS = [(u, m, s) for (u, m), s in STARS.items()]
random.Random(0).shuffle(ROWS)
FRAME = pd.DataFrame(ROWS, columns=["userId", "movieId", "rating"])
LIKED, ONES = {key: float(s > 3) for key, s in STARS.items()}, dict.fromkeys(STARS, 1.0)
TITLES = [f"Film {m} ({1950 + m})" for m in range(1, 25)]


def table(header, row):
    """A text: the header, and ``row`` filled with user u, movie m, stars s and the number k of each rating."""
    rows = [row(u, m, s, k) if callable(row) else row.format(u=u, m=m, s=s, k=k) for k, (u, m, s) in enumerate(ROWS)]
    return "\n".join([header] * bool(header) + rows) + "\n"


def films(header, row):
    return io.StringIO("\n".join([header, *(row.format(m=m, y=1950 + m) for m in range(1, 25))]))


def read(data, **how):
    data = data.encode() if isinstance(data, str) else data
    return cfrec.read_ratings(io.BytesIO(data) if isinstance(data, bytes) else data, **how)


def triples(ratings):
    """(user, movie) -> stars; no pair comes twice."""
    users, movies = ratings.user_ids[ratings.user_idx].tolist(), ratings.movies["movie_id"].to_numpy()[ratings.movie_idx].tolist()
    found = dict(zip(zip(users, movies, strict=True), ratings.rating.tolist(), strict=True))
    assert len(found) == len(ratings) == ratings.report.n_used
    return found


def taken(ratings):
    return " ".join(column.role for column in ratings.report.columns if column.role)


def notes(ratings):
    return {note.kind: note.text for note in ratings.report.notes}


PLAIN = table("userId,movieId,rating", "{u},{m},{s}")


def pivot(blank, form):
    """A row for each user or movie; the form may leave out the names, or count each row's ratings in front."""
    down = form == "movieId"
    sides, cells = (range(1, 25), range(1, 31))[:: 1 if down else -1], lambda a, b: STARS.get((b, a) if down else (a, b))
    rows = [[f"{cells(a, b):g}" if cells(a, b) else blank for b in sides[1]] for a in sides[0]]
    first = [sum(cell != blank for cell in row) for row in rows] if form == "counts" else sides[0]
    rows = [[str(k), *row] for k, row in zip(first, rows, strict=True)] if form else rows
    return "\n".join(map(",".join, ([[form, *map(str, sides[1])]] if form not in ("", "counts") else []) + rows))


PIVOTS = [
    *((blank, "userId") for blank in ("0", "99", "-1", "", "NaN")),
    ("0", "x"),
    ("99", ""),
    ("99", "counts"),
    ("0", "movieId"),
    ("", "movieId"),
]


SAID = {"counts": ["left_out"], "x": ["turned"]}  # beside the shape


@pytest.mark.parametrize(("blank", "form"), PIVOTS)
def test_pivot_tables(blank, form):
    """wide_numeric_zeros.csv was once read as 61 ratings of 6 films."""
    ratings = read(pivot(blank, form))
    assert (triples(ratings), [*notes(ratings)]) == (STARS, ["pivot", *SAID.get(form, [])])
    shape = "movie and a column for each user: 24 × 30" if form == "movieId" else "user and a column for each movie: 30 × 24"
    left = f"; {blank} stands for “not rated”" if blank not in ("", "NaN") else ""
    assert notes(ratings)["pivot"] == f"This is a table with a row for each {shape} cells, of which 432 hold a rating{left}."


def test_pivot_tables_of_pandas_with_titles_and_with_all_rated_and_a_bad_cell_far_below():
    wide = FRAME.pivot_table(index="userId", columns="movieId", values="rating")
    assert triples(read(wide)) == STARS
    named = wide.set_axis([f"Film, {m}" for m in wide.columns], axis=1).to_csv(sep=";")
    assert triples(read(named)) == {(u, f"Film, {m}"): s for (u, m), s in STARS.items()}
    cells = {(u, f"m{m}"): (u * m) % 5 + 1 if (u + m) % 3 else 3 for u in range(1_100) for m in range(12)}
    text = pd.Series(cells).unstack()[[f"m{m}" for m in range(12)]].to_csv(index_label="user")
    assert triples(read(text)) == cells
    with pytest.raises(DataError, match=r"upload, line 1101, column m11: '\d000' is not a number"):
        read(text.rstrip() + "000")
    assert read(text.rstrip() + "000", drop_bad=True).report.reasons == {"rating is not a number between -1000 and 1000": 1}


UMR = "user movie rating"
FORMS = [  # text, roles, user, movie
    (PLAIN, UMR, int, int),
    (table("", "{k},{u},{m},{s}"), UMR, int, int),  # noheader_index
    (table("", "{u},{m},{s},12{k:08}"), UMR + " timestamp", int, int),
    (table("", "0001713{m:03},A{u:04}XYZ,{s},12{k:08}"), "movie user rating timestamp", "A{:04}XYZ".format, "0001713{:03}".format),
    (table("User-ID;ISBN;Book-Rating", '"{u}";"{m:09}X";"{s:.0f}"'), UMR, int, "{:09}X".format),
    (table("item,user,rating,time", "{m},{u},{s},12{k:08}"), "movie user rating timestamp", int, int),
    (table("user,item,rating,what", "{u},{m},{s},x"), UMR, int, int),
    (table(",user,movie,rating", "{k},{u},{m},{s}"), UMR, int, int),  # pandas' index
    (table("Unnamed: 0,user,movie,rating", "{k},{u},{m},{s}"), UMR, int, int),
    (table("user,movie,rating", "{k},{u},{m},{s}"), UMR, int, int),  # R's, without a name
    (table("user,movie,rating,", "{u},{m},{s},"), UMR, int, int),
    (table("sep=;\nuser;movie;rating", "{u};{m};{s}"), UMR, int, int),
    (table("# by me\n% twice\n\n// thrice\nuser,movie,rating", "{u},{m},{s}\n# so far"), UMR, int, int),
    (table("Ratings of 2020\nuser,movie,rating", "{u},{m},{s}"), UMR, int, int),
    (table("userId,movieId,rating", lambda u, m, s, k: f"{u}{'.0' * (k % 2)},{m},{s}"), UMR, int, int),  # ids_mixed
    (table("user,movie,rating", '{u},{m},"{s}"').replace(".0", ",0"), UMR, int, int),
    (table("user;movie;rating", "{u};{m};{s}").replace(".0", ",0"), UMR, int, int),
    (table("userId,movieId,rating,review", '{u},{m},{s},"one\nline, two"'), UMR, int, int),  # multiline
]


@pytest.mark.parametrize(("text", "roles", "user", "movie"), FORMS)
def test_columns_and_forms_of_csv(text, roles, user, movie):
    ratings, guessed = read(text), text[0].isdecimal()
    assert triples(ratings) == {(user(u), movie(m)): s for (u, m), s in STARS.items()}
    assert (taken(ratings), [*notes(ratings)], ratings.report.n_dropped) == (
        roles,
        ["guess"] * guessed + ["file"] * (text[:7] == "Ratings"),
        0,
    )
    assert {column.found for column in ratings.report.columns if column.role} == {"guess" if guessed else "name"}
    times = ratings.timestamp.tolist() if "timestamp" in roles else None
    assert times is None or times == [1_200_000_000 + k for k in range(432)]


def test_a_guess_says_what_it_took_and_another_choice_can_be_made():
    text = table("", "{m:03},A{u:04}XYZ,{s},12{k:08}")
    assert "column 3 as rating, column 4 as timestamp, column 2 as user, column 1 as movie" in notes(read(text))["guess"]
    other = read(text, columns={"user": 1, "movie": 2, "rating": 3})
    assert (triples(other), notes(other)) == ({(f"{m:03}", f"A{u:04}XYZ"): s for (u, m), s in STARS.items()}, {})


IMDB = "user,Const,Your Rating,Date Rated,Title,Year,Genres", 'p{u},tt{m:07},{s},2020-02-01,"Film {m}",19{m:02},"Drama, Crime"'
LETTERBOXD = "User,Date,Name,Year,Letterboxd URI,Rating", "p{u},2020-02-01,Film {m},19{m:02},https://boxd.it/{m},{s}"


@pytest.mark.parametrize(("header", "row", "genres"), [(*IMDB, "Drama|Crime"), (*LETTERBOXD, "")])
def test_exports_with_a_column_for_the_person_and_without(header, row, genres):
    ratings = read(table(header, row))
    titles = {m: f"Film {m} ({1900 + m})" for m in range(1, 25)}
    assert triples(ratings) == {(f"p{u}", f"tt{m:07}" if genres else titles[m]): s for (u, m), s in STARS.items()}
    assert (sorted(ratings.movies["title"]), set(ratings.movies["genres"])) == (sorted(titles.values()), {genres})
    assert set(ratings.timestamp.tolist()) == {1_580_515_200}
    with pytest.raises(DataError, match=r"upload has no column for user; .* one person's own ratings: a network learns from many people's"):
        read(table(header.split(",", 1)[1], row.split(",", 1)[1].replace("{m", "{k")))


def test_title_and_year_tell_films_apart_and_one_user_is_said():
    ratings = read(table("user,title,year,rating", lambda u, m, s, k: f"{u},{'Solaris' if m < 3 else f'Film {m}'},{1950 + m},{s}"))
    name = ["", "Solaris (1951)", "Solaris (1952)", *TITLES[2:]]
    assert triples(ratings) == {(u, name[m]): s for (u, m), s in STARS.items()}
    one = read("user,title,rating\n" + "".join(f"me,Film {m},{1 + m % 5}\n" for m in range(60)))
    assert (len(one), [*notes(one)], "one person: a network learns from many" in notes(one)["one_user"]) == (60, ["one_user"], True)


def test_an_unquoted_comma_early_in_the_file_names_its_line():
    text = table("user,item,rating,title", lambda u, m, s, k: f"{u},{m},{s},A Film{', the Bad' if k == 4 else ''} and the Ugly {m}")
    with pytest.raises(DataError, match=r"upload, line 6: '.*, the Bad and .*' has 5 fields where 4 are expected"):
        read(text)
    ratings = read(text, drop_bad=True)
    assert triples(ratings) == {(u, m): s for u, m, s in ROWS[:4] + ROWS[5:]}
    assert ratings.report.reasons == {"row has 5 fields where 4 are expected": 1}


def test_users_that_are_nan_are_missing():
    text = table("userId,movieId,rating", lambda u, m, s, k: f"{'NaN' if k % 20 == 1 else u},{m},{s}")
    for data, place in ((text, "upload, line 3"), (pd.read_csv(io.StringIO(text)), "The table, row 2")):
        with pytest.raises(DataError, match=f"{place}, column user: '(NaN)?' is missing"):
            read(data)
        ratings = read(data, drop_bad=True)
        assert triples(ratings) == {(u, m): s for k, (u, m, s) in enumerate(ROWS) if k % 20 != 1}
        assert ratings.report.reasons == {"user is missing": 22}


def test_times_that_are_not_understood_cost_no_rating():
    missing = table("user,movie,rating,timestamp", lambda u, m, s, k: f"{u},{m},{s},{k or ''}")
    for text, said in ((table("user,movie,rating,date", "{u},{m},{s},01/10/2008"), "432 of 432 times"), (missing, "1 of 432 times")):
        ratings = read(text)
        assert (triples(ratings), ratings.timestamp, notes(ratings)["times"].startswith(said + " cannot be used")) == (STARS, None, True)


def test_a_third_of_zeros_is_noticed_and_can_be_left_out():
    text = table("user,item,rating", lambda u, m, s, k: f"{u},{m},{0 if k % 3 == 0 else s}")
    ratings = read(text)
    assert triples(ratings) == {(u, m): s if k % 3 else 0 for k, (u, m, s) in enumerate(ROWS)}
    assert notes(ratings)["not_rated"].startswith("0 stands for 33% of all ratings")
    left = read(text, **ratings.report.notes[0].change)
    assert triples(left) == {(u, m): s for k, (u, m, s) in enumerate(ROWS) if k % 3}
    assert (left.report.reasons, left.report.notes) == ({"rating is 0: not rated": 144}, ())


WORDS = [
    (lambda s: "Like" if s > 3 else "dislike", LIKED, "'Like' as 1"),
    (lambda s: s > 3, LIKED, "'False' as 0"),
    (lambda s: "👍" if s > 3 else "👎", LIKED, "'👎' as 0"),
    (lambda s: "★" * int(s) + "☆" * int(5 - s), STARS, "'★★★☆☆' as 3"),
    (lambda s: f"{s:g}/5", STARS, "'3/5' as 3"),
]


@pytest.mark.parametrize(("write", "wanted", "shown"), WORDS)
def test_ratings_in_words(write, wanted, shown):
    ratings = read(table("user,movie,rating", lambda u, m, s, k: f"{u},{m},{write(s)}"))
    assert (triples(ratings), [*notes(ratings)], shown in notes(ratings)["words"]) == (wanted, ["words"], True)


def test_choices_and_counts_of_plays():
    said = {"user,item,rating": ("equal", 1), "user,item,plays": ("counts", "4{k:05}"), "user,item": ("choices", "")}
    for header, (kind, cell) in said.items():
        ratings = read(table(header, "{u},{m}" + f",{cell}" * (cell != "")))
        assert (triples(ratings), [*notes(ratings)], "there are no stars" in notes(ratings)[kind]) == (ONES, [kind], True)
    text = table("user,artist,rating", "{u},{m},{k}")
    assert notes(read(text))["counts"].startswith("rating goes up to 431: are these counts, of plays")
    plays = read(text, **read(text).report.notes[0].change)
    assert (triples(plays), plays.report.reasons) == ({pair: 1 for pair in ONES if pair != ROWS[0][:2]}, {"count is 0": 1})


LISTS = ["Drama|Sci-Fi", '"Drama, Sci-Fi"', '"[""Drama"", ""Sci-Fi""]"', "\"['Drama', 'Sci-Fi']\""]
LISTS += ["\"[{{'id': 16, 'name': 'Drama'}}, {{'id': 35, 'name': 'Sci-Fi'}}]\""]


@pytest.mark.parametrize("genres", LISTS)
def test_lists_as_genres_and_line_breaks_in_a_table_of_films(genres):
    ratings = read(PLAIN, movies=films("genres,id,imdb_id,title,year,plot", genres + ',{m},tt{m},Film {m},{y},"one\nline, two"'))
    assert (triples(ratings), ratings.movies["title"].tolist(), set(ratings.movies["genres"])) == (STARS, TITLES, {"Drama|Sci-Fi"})
    beside = read(table("userId,movieId,rating,title,genres", "{u},{m},{s},Film {m}," + genres))
    assert (triples(beside), set(beside.movies["genres"])) == (STARS, {"Drama|Sci-Fi"})


def test_an_unquoted_comma_in_a_table_of_films():
    text = films("movieId,title,genres", "{m},Film {m} ({y}),Drama").read().replace("Film 6", "Film, 6")
    with pytest.raises(DataError, match=r"upload, line 7: '6,Film, 6 \(1956\),Drama' has 4 fields where 3 are expected"):
        read(PLAIN, movies=io.StringIO(text))
    ratings = read(PLAIN, movies=io.StringIO(text), drop_bad=True)
    assert (triples(ratings), ratings.movies["title"].tolist()) == (STARS, [*TITLES[:5], "6", *TITLES[6:]])
    assert notes(ratings)["movies"] == "Left out of upload: 1 × row has 4 fields where 3 are expected."
    assert notes(ratings)["titles"] == "1 of 24 rated movies have no title in the table of movies."


@pytest.mark.parametrize(("rated", "listed"), [("{m}.0", "{m}"), ("{m}", "{m}.0"), ("{m:05}", "{m}"), ("{m}", "{m:05}")])
def test_ids_that_became_floats_or_lost_their_zeros_find_their_titles(rated, listed):
    ratings = read(table("userId,movieId,rating", "{u}," + rated + ",{s}"), movies=films("movieId,title", listed + ",Film {m} ({y})"))
    assert ({(u, int(m)): s for (u, m), s in triples(ratings).items()}, ratings.movies["title"].tolist()) == (STARS, TITLES)


def written(write):
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


JSON_LINES = FRAME.to_json(orient="records", lines=True)
FORMATS = {
    **{module.__name__: module.compress(PLAIN.encode()) for module in (gzip, bz2, lzma)},
    **{write.__name__: written(write) for write in (FRAME.to_parquet, FRAME.to_feather)},
    "JSON lines": JSON_LINES,
    "JSON lines of several kinds": gzip.compress(JSON_LINES.replace('"movieId":7,', '"movieId":"7","more":[1],').encode()),
    "JSON list": json.dumps(FRAME.to_dict("records"), indent=1),
    "pandas": FRAME.assign(x=[[1]] * len(FRAME)),
    "pandas, an index": FRAME.set_index(["userId", "movieId"]),
    "pandas, other types": FRAME.convert_dtypes().astype({"userId": "category"}),
    "Arrow, in pieces": pa.concat_tables([pa.Table.from_pandas(FRAME[:9]), pa.Table.from_pandas(FRAME[9:])]),
}


@pytest.mark.parametrize("name", FORMATS)
def test_formats(name):
    ratings = read(FORMATS[name])
    assert (triples(ratings), taken(ratings), notes(ratings)) == (STARS, UMR, {})


def test_times_of_a_table_and_damaged_lines_of_json():
    frame = FRAME.assign(date=pd.Timestamp("2008-01-10") + pd.to_timedelta(np.arange(432), "s"))
    assert read(frame).timestamp.tolist() == list(range(1_199_923_200, 1_199_923_632))
    text = JSON_LINES.replace("\n", '\n{"userId": 1,\n', 1)
    with pytest.raises(DataError, match=r"upload, line 2: .* is not an object of JSON"):
        read(text)
    ratings = read(text, drop_bad=True)
    assert (triples(ratings), ratings.report.reasons) == (STARS, {"row is not an object of JSON": 1})


def test_a_workbook_is_refused_by_name(tmp_path):
    with zipfile.ZipFile(tmp_path / "fake.xlsx", "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    with pytest.raises(DataError, match=r"fake\.xlsx is an Excel workbook.*as CSV"):
        cfrec.read_ratings(tmp_path / "fake.xlsx")


@pytest.mark.parametrize("unit", [1, 1_000, 1_000_000, 1_000_000_000])
def test_times_in_milliseconds_and_less_are_seconds(unit):
    ratings = read(table("user,movie,rating,timestamp", lambda u, m, s, k: f"{u},{m},{s},{(1_200_000_000 + k) * unit}"))
    assert ratings.timestamp.tolist() == [1_200_000_000 + k for k in range(432)]


def test_a_review_s_heading_is_no_title_and_the_table_of_movies_comes_first():
    """Amazon's reviews of 2023: films were once called "Great!" and the like."""
    text = "".join(json.dumps({"rating": s, "title": f"Great! {k}", "asin": f"v{k}", "parent_asin": f"B{m}", "user_id": f"A{u}"}) + "\n"
                   for k, (u, m, s) in enumerate(ROWS))  # fmt: skip
    ratings = read(text)
    assert (taken(ratings), "title differs from row to row" in notes(ratings)["titles"]) == ("rating title movie user", True)
    assert ratings.movies["title"].tolist() == sorted(f"B{m}" for m in range(1, 25))
    named = read(text, movies=films("parent_asin,title", "B{m},Film {m}"))
    assert named.movies["title"].tolist() == [f"Film {m[1:]}" for m in sorted(f"B{m}" for m in range(1, 25))]


FORMS_OF_TEXT = [
    (table("user,movie,rating,title", '{u},{m},{s},"The \\"Q\\" of {m}"'), int, int),  # as MySQL and Book-Crossing write marks
    (table("user,movie,rating", lambda u, m, s, k: f"{u},{f'{m}e+00' if k % 2 else m},{s}"), int, int),  # as R writes large ids
    (table("", "User {u},Movie {m},{s}"), "User {}".format, "Movie {}".format),  # a blank is no separator
    (table("", "{u} {m} {s} "), int, int),  # a blank at the end is none
    (table("%%MatrixMarket matrix coordinate real general\n%\n30 24 432", "{u} {m} {s}"), int, int),
    (table("", "{{'user': {u}, 'movie': {m}, 'rating': {s}}},"), int, int),  # objects as Python writes them
    (table("user,movie,rating", "{u},{m},{s} out of 5 stars"), int, int),
    (table("user,movie,rating", "{u},{m},{s:.0f}%"), int, int),
]


@pytest.mark.parametrize(("text", "user", "movie"), FORMS_OF_TEXT)
def test_forms_of_text(text, user, movie):
    assert triples(read(text)) == {(user(u), movie(m)): s for (u, m), s in STARS.items()}


def test_text_that_is_not_utf_8_is_said_to_be_and_other_forms_are_refused_by_name():
    assert "not UTF-8 and was read as Windows' Latin" in notes(read(table("user,movie,rating", "é{u},{m},{s}").encode("cp1252")))["file"]
    assert "file" not in notes(read(table("user,movie,rating", "é{u},{m},{s}")))
    with pytest.raises(DataError, match=r"in the Netflix Prize's own form.*Write the film's number in front of each line"):
        read("1:\n1488844,3,2005-09-06\n822109,5,2005-05-13\n2:\n885013,4,2005-10-19\n")


def test_tables_in_memory_of_uuids_categories_and_an_index():
    ids = {u: uuid.UUID(int=u**9 + 2**100) for u in range(1, 31)}
    frame = FRAME.assign(userId=FRAME["userId"].map(ids), rating=pd.Categorical(FRAME["rating"]))
    assert triples(read(frame)) == {(str(ids[u]), m): s for (u, m), s in STARS.items()}
    assert triples(read(FRAME.set_index(["userId", "movieId"])["rating"])) == STARS


@pytest.mark.parametrize(
    ("what", "how", "message"),
    [
        ("https://a.org/r.csv", {}, "is no path of a file"),
        ("a\0b", {}, "is no path of a file"),
        (None, {}, "The ratings should be a path, a binary file, or a table of pandas, polars or Arrow; this is NoneType"),
        (FRAME, {"movies": 42}, "The movies should be a path"),
        (FRAME, {"columns": {"user": 99}}, "has no column '99'"),
        (FRAME.assign(rating=5_000), {}, r"'5000' is not a number between .* \(counts, of plays for example, are told by"),
        (FRAME, {"columns": "user"}, "columns should map roles to columns"),
        (FRAME, {"drop_bad": "no"}, "drop_bad should be True or False"),
        (FRAME, {"not_rated": "0"}, "not_rated a number"),
    ],
)
def test_arguments_of_the_wrong_kind_are_refused_in_words(what, how, message):
    with pytest.raises(DataError, match=message):
        cfrec.read_ratings(what, **how)
