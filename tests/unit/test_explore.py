from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import cfrec
from cfrec.errors import ConfigError, NotFoundError
from cfrec.explore import kept_on_map


@pytest.fixture
def four(trained):
    """Four movies whose cosines are known: a = (1, 0), b = (2, 0), c = (0, 3), d = (-1, 0), e = 0."""
    factors = np.array([[1, 0], [2, 0], [0, 3], [-1, 0], [0, 0]], np.float32)
    movies = trained.movies.iloc[:5].assign(n_ratings=[9, 3, 5, 7, 1], genres=["A|B", "A", "B", "AB", "A"]).reset_index(drop=True)
    return replace(trained, movie_factors=factors, movie_bias=np.array([0.1, 0.5, -1, 0.3, 0], np.float32), movies=movies)


def test_cosines_by_hand(four):
    table = cfrec.similar_movies(four, 100, k=9)
    assert table["movie_id"].tolist() == [101, 102, 103]  # neither the movie itself nor the one nothing was learned of
    assert table["similarity"].tolist() == pytest.approx([1, 0, -1])


def test_similar_movies_filters(four):
    assert cfrec.similar_movies(four, 100, k=1)["movie_id"].tolist() == [101]
    assert cfrec.similar_movies(four, 100, min_ratings=5)["movie_id"].tolist() == [102, 103]
    assert cfrec.similar_movies(four, 100, genre="a")["movie_id"].tolist() == [101]  # whole genres, any case
    assert cfrec.similar_movies(four, 100, years=(1952, 1953))["movie_id"].tolist() == [102, 103]


def test_a_movie_nothing_was_learned_of_has_no_neighbours(four):
    assert cfrec.similar_movies(four, 104).empty
    with pytest.raises(NotFoundError, match="999"):
        cfrec.similar_movies(four, 999)


def test_neighbours_and_map_are_read_from_the_factors_alone(four):
    """What else is known of movies, their traits, takes no part: here they would make the last most like the first."""
    traits = np.array([[9, 0], [0, 9], [0, 9], [0, 9], [9, 0]], np.float32)
    chosen = replace(four, user_choice=np.ones((90, 4), np.float32), movie_traits=traits)
    pd.testing.assert_frame_equal(cfrec.similar_movies(chosen, 100, k=9), cfrec.similar_movies(four, 100, k=9))
    pd.testing.assert_frame_equal(cfrec.project_factors(chosen, 2), cfrec.project_factors(four, 2))
    with pytest.raises(ConfigError, match="3 components cannot be computed from 5 movies with 2 factors"):
        cfrec.project_factors(chosen, 3)


def test_biases_best_first_with_mean_and_count_beside(four):
    table = cfrec.movie_biases(four)
    assert table["movie_id"].tolist() == [101, 103, 100, 104, 102]
    assert table["bias"].tolist() == pytest.approx([0.5, 0.3, 0.1, 0, -1])
    assert list(table) == ["movie_id", "title", "bias", "mean_rating", "n_ratings", "genres", "stars", "year"]
    assert table["n_ratings"].tolist() == [3, 7, 9, 1, 5]
    assert table["year"].tolist() == [1951, 1953, 1950, 1954, 1952]
    assert table["mean_rating"].tolist() == four.movies["mean_rating"].iloc[[1, 3, 0, 4, 2]].tolist()
    assert cfrec.movie_biases(four, min_ratings=7)["movie_id"].tolist() == [103, 100]


def test_biases_of_a_genre_and_of_some_years(four):
    """The genres are A|B, A, B, AB, A; the films are of 1950 to 1954; a, b, c have the ids 100, 101, 102."""
    assert cfrec.movie_biases(four, genre="a")["movie_id"].tolist() == [101, 100, 104]  # whole genres, any case
    assert cfrec.movie_biases(four, genre="B")["movie_id"].tolist() == [100, 102]
    assert cfrec.movie_biases(four, genre="")["movie_id"].tolist() == [101, 103, 100, 104, 102]
    assert cfrec.movie_biases(four, genre="Western").empty
    assert cfrec.movie_biases(four, years=(1951, 1953))["movie_id"].tolist() == [101, 103, 102]  # both inclusive
    assert cfrec.movie_biases(four, years=(1954, 1954))["movie_id"].tolist() == [104]
    assert cfrec.movie_biases(four, years=(1953, 1951)).empty
    assert cfrec.movie_biases(four, genre="a", years=(1950, 1953), min_ratings=4)["movie_id"].tolist() == [100]


def test_a_film_without_a_year_is_of_no_years(four):
    undated = replace(four, movies=four.movies.assign(year=pd.array([1950, None, 1952, None, 1954], dtype="Int64")))
    assert cfrec.movie_biases(undated, years=(1900, 2100))["movie_id"].tolist() == [100, 104, 102]
    assert cfrec.movie_biases(undated)["year"].isna().tolist() == [True, True, False, False, False]


def test_the_stars_of_a_bias_by_hand(four):
    """What a user of average generosity without a taste gives: 6 / (1 + exp(-(offset + mean user bias + bias))), clipped to 1 and 5."""
    known = replace(
        four,
        movie_bias=np.log(np.array([1, 2, 1 / 2, 5, 100], np.float32)),
        user_bias=np.array([0.5, -0.1, 0.2], np.float32),  # 0.2 on average
        user_factors=np.full((3, 2), 9, np.float32),
        offset=-0.2,
        y_range=(0.0, 6.0),
        scale=(1.0, 5.0, 1.0),
    )
    table = cfrec.movie_biases(known)
    assert table["movie_id"].tolist() == [104, 103, 101, 100, 102]
    assert table["stars"].tolist() == pytest.approx([5, 5, 4, 3, 2], abs=1e-5)  # the first would be 5.94
    generous = replace(known, user_bias=known.user_bias + np.float32(np.log(2)))
    assert cfrec.movie_biases(generous)["stars"].tolist() == pytest.approx([5, 5, 4.8, 4, 3], abs=1e-5)


def test_the_stars_do_not_depend_on_which_movies_are_shown(four):
    table = cfrec.movie_biases(four).set_index("movie_id")["stars"]
    assert cfrec.movie_biases(four, genre="B").set_index("movie_id")["stars"].to_dict() == table.loc[[100, 102]].to_dict()


@pytest.fixture
def places():
    """On x alone film 1 has the neighbours 2, 4, 3; on x and z they are 4, 3, 2 away by 2, 3 and the root of 17."""
    return pd.DataFrame({"movie_id": [1, 2, 3, 4], "title": list("abcd"), "x": [0.0, 1, 3, -2], "y": 0.0, "z": [0.0, 4, 0, 0]})


@pytest.mark.parametrize(
    ("axes", "neighbours", "near", "kept"),
    [
        (["x"], [2, 4], 2, 2),
        (["x"], [2, 3], 2, 1),
        (["x"], [3], 2, 0),
        (["x"], [3], 3, 1),
        (["x"], [2, 3, 4], 1, 1),
        (["x", "z"], [2, 3], 2, 1),  # 4 and 3 are the nearest there
        (("x", "z"), [2], 2, 0),
        (["x", "y"], [2, 4, 99], 3, 2),  # 99 is not on the map
        (["x"], [], 2, 0),
        (["y"], [2, 3], 2, 2),  # all at one place: the first in the table
    ],
)
def test_neighbours_kept_on_a_map_by_hand(places, axes, neighbours, near, kept):
    assert kept_on_map(places, axes, 1, neighbours, near) == kept


def test_a_movie_is_not_its_own_neighbour_on_a_map(places):
    assert kept_on_map(places, ["x"], 1, [1, 2], 1) == 1


def test_ids_that_are_text_are_found_on_a_map(places):
    assert kept_on_map(places.assign(movie_id=["one", "2", "3", "4"]), ["x"], "one", ["2", "3"], 2) == 1


def test_all_factors_drawn_keep_all_neighbours_and_shuffled_places_few(trained):
    """With as many axes as factors, and factors of one length about the middle, distance tells what the cosine does."""
    factors = trained.movie_factors / np.linalg.norm(trained.movie_factors, axis=1, keepdims=True)
    even = replace(trained, movie_factors=np.concatenate([factors[:18], -factors[:18]]))
    places = cfrec.project_factors(even, 4)
    shuffled = places.assign(movie_id=np.random.default_rng(0).permutation(places["movie_id"]))
    kept, by_chance = 0, 0
    for movie_id in places["movie_id"]:
        neighbours = cfrec.similar_movies(even, movie_id, k=3)["movie_id"].tolist()
        kept += kept_on_map(places, ["x", "y", "z", "pc4"], movie_id, neighbours, 3)
        by_chance += kept_on_map(shuffled, ["x", "y", "z", "pc4"], movie_id, neighbours, 3)
    assert kept == 36 * 3
    assert by_chance < 36


def test_projection_equals_the_singular_vectors_but_for_the_sign(trained):
    table = cfrec.project_factors(trained, 3)
    centred = trained.movie_factors.astype(float) - trained.movie_factors.astype(float).mean(axis=0)
    left, singular, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(table[["x", "y", "z"]].to_numpy()) == pytest.approx(np.abs(left * singular)[:, :3], abs=1e-6)
    assert table.attrs["explained_variance_ratio"] == pytest.approx((singular**2 / (singular**2).sum())[:3])


def test_the_sign_does_not_depend_on_the_solver(trained):
    """The factor with the largest weight in a component counts positive: turning all factors over turns the map over."""
    table = cfrec.project_factors(trained, 2)
    turned = cfrec.project_factors(replace(trained, movie_factors=-trained.movie_factors), 2)
    assert turned[["x", "y"]].to_numpy() == pytest.approx(-table[["x", "y"]].to_numpy(), abs=1e-6)


def test_projection_by_hand(trained):
    """Points on a line through factor 1: all variation is x, and x grows with the factor."""
    factors = np.array([[0, 1], [0, 3], [0, 5]], np.float32)
    line = replace(trained, movie_factors=factors, movies=trained.movies.iloc[:3])
    table = cfrec.project_factors(line, 2)
    assert table["x"].tolist() == pytest.approx([-2, 0, 2])
    assert table.attrs["explained_variance_ratio"] == pytest.approx([1, 0])


def test_projection_limits(four):
    assert list(cfrec.project_factors(four, 1)) == ["movie_id", "title", "n_ratings", "x"]
    assert cfrec.project_factors(four, 2, min_ratings=5)["movie_id"].tolist() == [100, 102, 103]
    with pytest.raises(ConfigError, match="3 components"):
        cfrec.project_factors(four, 3)
    alike = replace(four, movie_factors=np.ones((5, 2), np.float32))
    assert cfrec.project_factors(alike, 2).attrs["explained_variance_ratio"] == [0.0, 0.0]


def test_more_components_have_names(trained):
    assert list(cfrec.project_factors(trained, 4))[3:] == ["x", "y", "z", "pc4"]


def test_predictions_by_id(trained):
    stars = cfrec.predict_ratings(trained, [1, 1, 2], [100, 112, 112])  # user 1 loves block 0, user 2 block 1
    assert stars[0] > 4
    assert stars[1] < 3
    assert stars[2] > 4
    with pytest.raises(ConfigError, match="do not make pairs"):
        cfrec.predict_ratings(trained, [1], [100, 101])
    with pytest.raises(NotFoundError):
        cfrec.predict_ratings(trained, [1], [99])
