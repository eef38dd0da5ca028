import pytest

from cfrec.errors import NotFoundError
from cfrec.search import find_movie, search_movies


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
