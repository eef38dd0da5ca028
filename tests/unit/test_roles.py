import pytest

from cfrec.errors import DataError
from cfrec.roles import NAMES, find_movie_roles, find_roles, guess_movie_roles, plain

ROWS = [[str(1 + k * 7 % 40), str(100 + k * 3 % 50), str(1 + k % 5), str(1_200_000_000 + 99 * k)] for k in range(60)]
USER, MOVIE, RATING, TIME = map(list, zip(*ROWS, strict=True))
COUNTER, UNIQUE = [str(k) for k in range(60)], [f"text {k}" for k in range(60)]


def roles(header, *columns, given=None):
    rows = [list(row) for row in zip(*(columns or (USER, MOVIE, RATING, TIME)), strict=True)]
    return find_roles(header and header.split(","), rows, len(rows[0]), "f", given)


def listed(found):
    return [use.role for use in found.report()]


BY_NAME = {
    "userId,movieId,rating,timestamp": ["user", "movie", "rating", "timestamp"],
    "User-ID,ISBN,Book-Rating,Location": ["user", "movie", "rating", ""],
    " user id ,Movie_ID,SCORE,unixReviewTime": ["user", "movie", "rating", "timestamp"],
    "user_id:token,item_id:token,rating:float,timestamp:float": ["user", "movie", "rating", "timestamp"],
    "comment,stars,film,critic": ["", "rating", "movie", "user"],
    "user,artist,plays,x": ["user", "movie", "count", ""],
    "user,artist,plays,rating": ["user", "movie", "", "rating"],  # stars say more than counts
    "name,movie,rating,x": ["user", "movie", "rating", ""],  # a lone name is the person's
    "username,user_id,movie,rating": ["", "user", "movie", "rating"],  # of two the earlier in the list
}


@pytest.mark.parametrize("header", BY_NAME)
def test_roles_by_the_names_of_columns(header):
    found = roles(header)
    assert (listed(found), set(found.found.values())) == (BY_NAME[header], {"name"})


def test_each_name_stands_for_one_role():
    names = [name for options in NAMES.values() for name in options.split()]
    assert len(set(names)) == len(names)
    assert all(plain(name) == name for name in names)


def test_columns_that_are_given():
    """A name comes before a number, and what is given before what is found."""
    assert listed(roles("a,b,C c,7", given={"user": 2, "movie": 1, "rating": "3", "timestamp": "7"})) == [
        "movie",
        "user",
        "rating",
        "timestamp",
    ]
    assert listed(roles("a,b,C c,7", given={"user": "B", "movie": " a ", "count": "c c"})) == ["movie", "user", "count", ""]
    assert listed(roles("2,movie,rating,x", given={"user": "2"}))[0] == "user"
    found = roles("user,movie,rating,timestamp", given={"movie": "user", "user": "movie", "rating": None, "timestamp": None})
    assert (listed(found), found.found) == (["movie", "user", "", ""], {"movie": "given", "user": "given"})


WRONG = [
    ({"user": "zz"}, r"f has no column 'zz'\. It has: 1: user, 2: movie, 3: rating, 4: when\. Columns are counted from 1"),
    ({"user": 0}, "f has no column '0'"),
    ({"user": 5}, "f has no column '5'"),
    ({"user": 1, "movie": "user"}, "A column of f is given two roles: user=1, movie=1"),
    ({"person": 1}, "There is no role 'person' for a column. There are: user, movie, rating, count"),
]


@pytest.mark.parametrize(("given", "message"), WRONG)
def test_columns_that_cannot_be(given, message):
    with pytest.raises(DataError, match=message):
        roles("user,movie,rating,when", given=given)


def test_guesses():
    tt, b0 = [f"tt{m:0>7}" for m in MOVIE], [f"B0{m:0>8}" for m in MOVIE]
    people, a = [f"user{u}" for u in USER], [f"A{u:0>12}" for u in USER]
    names = {
        id(USER): "user",
        id(people): "user",
        id(a): "user",
        id(MOVIE): "movie",
        id(tt): "movie",
        id(b0): "movie",
        id(RATING): "rating",
    }
    for columns in (
        (USER, MOVIE, RATING, TIME),
        (USER, MOVIE, TIME, RATING),
        (COUNTER, USER, MOVIE, RATING),
        (tt, people, RATING),
        (b0, a, RATING),
    ):
        found = roles(None, *columns)
        assert listed(found) == [(names | {id(TIME): "timestamp"}).get(id(column), "") for column in columns]
        assert set(found.found.values()) == {"guess"}
    beside = roles("uid,iid,r,x", USER, MOVIE, RATING, UNIQUE)
    assert (listed(beside), beside.found["rating"]) == (["user", "movie", "rating", ""], "guess")


REFUSED = [
    ("who,what,text", (USER, UNIQUE, UNIQUE), "movie and rating"),
    ("movie,rating,text", (MOVIE, RATING, UNIQUE), "user; .*one person's own ratings"),  # nothing comes twice in that column
    ("movie,rating,a,b", (MOVIE, RATING, USER, USER), "user; .*one person's own ratings"),  # which of the two?
    ("user,movie,text", (USER, MOVIE, UNIQUE), "rating"),
    (None, (UNIQUE, UNIQUE), "rating"),
]


@pytest.mark.parametrize(("header", "columns", "missing"), REFUSED)
def test_what_cannot_be_told_is_refused(header, columns, missing):
    with pytest.raises(DataError, match=f"f has no column for {missing}"):
        roles(header, *columns)


def test_tables_of_choices_and_of_movies():
    assert listed(roles("user,movie", USER, MOVIE)) == ["user", "movie"]
    assert find_movie_roles(["imdb_id", "id", "Title", "Genres", "release_date"]) == ({"title": 2, "genres": 3, "year": 4}, [0, 1])
    assert guess_movie_roles([["1", "1995", "Heat", "Drama"], ["2", "1979", "Alien", ""]], 4) == ({"title": 2, "genres": 3, "year": 1}, [0])
    assert guess_movie_roles([["1", "2"], ["3", "4"]], 2) == ({}, [])
