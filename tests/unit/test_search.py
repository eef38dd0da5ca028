from dataclasses import replace

import pytest

from cfrec.errors import NotFoundError
from cfrec.search import find_namesakes, search_movies


def find_movie(trained, text):
    """The movie that a text stands for: the most rated of its namesakes."""
    return find_namesakes(trained, text)["movie_id"].tolist()[0]


@pytest.mark.parametrize(
    ("text", "title"),
    [
        ("the godfather", "The Godfather (1972)"),
        ("godfather", "The Godfather (1972)"),
        ("godfahter", "The Godfather (1972)"),
        ("Godfather, The", "The Godfather (1972)"),
        ("godfather 2", "The Godfather: Part II (1974)"),
        ("shawshank", "The Shawshank Redemption (1994)"),
        ("das boot", "Das Boot (1981)"),
        ("boot", "Das Boot (1981)"),
        ("les miserables", "Les Misérables (1995)"),
        ("LES MISÉRABLES", "Les Misérables (1995)"),
        ("2001", "2001: A Space Odyssey (1968)"),
        ("starwars", "Star Wars (1977)"),
        ("silence of the lams", "The Silence of the Lambs (1991)"),
        ("schindlers list", "Schindler's List (1993)"),
        ("pulp ficton", "Pulp Fiction (1994)"),
        ("dracula 1992", "Bram Stoker's Dracula (1992)"),
        ("alien", "Alien (1979)"),
        ("aliens", "Aliens (1986)"),
        ("m", "M (1931)"),
        ("shaws", "The Shawshank Redemption (1994)"),
        ("la femme nikita", "Nikita (La Femme Nikita) (1990)"),
    ],
)
def test_the_right_film_comes_first(shipped, text, title):
    assert search_movies(shipped, text)["title"].iloc[0] == title


def test_scores_fall_from_at_most_one(shipped):
    scores = search_movies(shipped, "star wars", k=20)["score"]
    assert scores.is_monotonic_decreasing
    assert 0 < scores.iloc[-1] <= scores.iloc[0] <= 1
    assert scores.iloc[0] > 2 * scores.iloc[1]  # the exact title stands out


@pytest.mark.parametrize("text", ["", "   ", "!?", "🎬", "мкж"])
def test_nothing_resembles_this(shipped, text):
    assert search_movies(shipped, text).empty
    with pytest.raises(NotFoundError, match="No title resembles"):
        find_movie(shipped, text)


def test_k_and_very_long_text(shipped):
    assert len(search_movies(shipped, "the", k=3)) == 3
    assert len(search_movies(shipped, "star " * 10_000, k=2)) == 2


def test_one_movie_is_found_by_id_exact_title_or_clear_match(shipped):
    assert find_movie(shipped, "50") == 50
    assert find_movie(shipped, "star wars") == 50
    assert find_movie(shipped, "Star Wars (1977)") == 50
    assert find_movie(shipped, "shawshank") == 64
    assert find_movie(shipped, "chasing amy") in (246, 268)  # one film with two entries


def test_an_ambiguous_title_lists_the_candidates(shipped):
    with pytest.raises(NotFoundError, match=r"could be: .*Monty Python and the Holy Grail \(1974\) \[168\].*Life of Brian"):
        find_movie(shipped, "monty python")


@pytest.fixture
def renamed(trained):
    """A model with ids 100 to 135 whose first movies have other titles; each is rated more than the one before."""
    titles = ["Solaris (Solyaris) (1972)", "Solaris (2002)", "Evangelion: 3.0 (2012)", "300 (2006)", "?! (1972)"]
    movies = trained.movies.assign(n_ratings=range(1, trained.n_movies + 1))
    movies["title"] = titles + [f"Film {chr(65 + row)}" for row in range(trained.n_movies - len(titles))]
    movies.loc[: len(titles) - 1, "year"] = [1972, 2002, 2012, 2006, 1972]
    return replace(trained, movies=movies)


@pytest.mark.parametrize(
    ("text", "ids"),
    [
        ("Solaris", [101, 100]),  # of two movies of this title the better known one first
        ("solaris 1972", [100]),
        ("Solaris (2002)", [101]),
        ("Solyaris", [100]),
        ("Solaris (Solyaris) (1972)", [100]),
        ("3.0", [102]),  # part of a title
        ("104.0", [104]),  # a spreadsheet's 104
        ("300", [103]),
        (" 110 ", [110]),
    ],
)
def test_a_title_an_id_or_all_movies_of_one_title(renamed, text, ids):
    assert find_namesakes(renamed, text)["movie_id"].tolist() == ids
    assert find_movie(renamed, text) == ids[0]


@pytest.mark.parametrize("text", ["9999", "9.0", "1972", "-104", "104.5", "30", "3"])
def test_a_number_that_is_no_id_and_in_no_title_is_not_taken_for_another(renamed, text):
    with pytest.raises(NotFoundError, match=f"no movie with the id {text}, and no title with that number"):
        find_movie(renamed, text)
