from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec.errors import ConfigError, NotFoundError


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


def test_biases_best_first_with_mean_and_count_beside(four):
    table = cfrec.movie_biases(four)
    assert table["movie_id"].tolist() == [101, 103, 100, 104, 102]
    assert table["bias"].tolist() == pytest.approx([0.5, 0.3, 0.1, 0, -1])
    assert list(table) == ["movie_id", "title", "bias", "mean_rating", "n_ratings", "genres"]
    assert cfrec.movie_biases(four, min_ratings=7)["movie_id"].tolist() == [103, 100]


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
