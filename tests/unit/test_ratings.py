from dataclasses import replace

import numpy as np
import pytest
from sklearn.model_selection import train_test_split

from cfrec.errors import DataError
from cfrec.ratings import build_ratings


def build(rows, **more):
    users, movies, stars = zip(*rows, strict=True)
    return build_ratings(np.array(users, np.int64), np.array(movies, np.int64), np.array(stars, float), **more)


def test_ids_are_indexed_in_order_and_rows_keep_theirs():
    ratings = build([(70, 9, 3), (7, 9, 4), (70, 2, 5)])
    assert ratings.user_ids.tolist() == [7, 70]
    assert ratings.movies["movie_id"].tolist() == [2, 9]
    assert ratings.user_idx.tolist() == [1, 0, 1]
    assert ratings.movie_idx.tolist() == [1, 1, 0]
    assert (ratings.user_idx.dtype, ratings.movie_idx.dtype, ratings.rating.dtype) == (np.int32, np.int32, np.float32)
    assert (len(ratings), ratings.n_users, ratings.n_movies) == (3, 2, 2)


def test_text_ids_stay_text():
    ratings = build_ratings(np.array(["bob", "amy"], object), np.array(["007", "7"], object), np.array([1.0, 2.0]))
    assert ratings.user_ids.tolist() == ["amy", "bob"]
    assert ratings.movies["movie_id"].tolist() == ["007", "7"]


def test_the_movies_table_counts_and_averages():
    ratings = build([(1, 5, 2), (2, 5, 5), (1, 6, 4)], movies={"5": ("Boot, Das (1981)", "Drama|War")})
    movies = ratings.movies.set_index("movie_id")
    assert movies.loc[5, ["title", "raw_title", "year", "genres", "n_ratings", "mean_rating"]].tolist() == [
        "Das Boot (1981)",
        "Boot, Das (1981)",
        1981,
        "Drama|War",
        2,
        3.5,
    ]
    assert movies.loc[6, "title"] == "6"  # not in the catalogue: named after its id


def test_most_rated():
    ratings = build([(1, 5, 2), (2, 6, 5), (1, 6, 4), (1, 7, 4), (2, 7, 1)])
    assert ratings.most_rated(2)["movie_id"].tolist() == [6, 7]  # a tie keeps the order of ids


def test_of_two_ratings_the_later_stays_by_time():
    ratings = build([(1, 5, 2), (1, 5, 4), (2, 5, 3)], timestamp=np.array([20, 10, 5]))
    assert ratings.rating.tolist() == [2, 3]
    assert ratings.timestamp.tolist() == [20, 5]
    assert (ratings.report.n_rows, ratings.report.n_used, ratings.report.n_duplicates) == (3, 2, 1)


def test_of_two_ratings_the_later_row_stays_without_times():
    assert build([(1, 5, 2), (1, 5, 4), (2, 5, 3)]).rating.tolist() == [4, 3]


@pytest.mark.parametrize(
    ("stars", "scale"),
    [([1, 2, 5], (1, 5, 1)), ([0.5, 1, 5], (0.5, 5, 0.5)), ([3, 3], (3, 3, 1)), ([1, 10], (1, 10, 9)), ([0, 0.013, 1], (0, 1, 0.1))],
)
def test_the_scale_is_found(stars, scale):
    ratings = build([(1, m, s) for m, s in enumerate(stars)])
    assert ratings.scale == pytest.approx(scale)


@pytest.mark.parametrize(("n", "fraction", "seed"), [(100, 0.2, 42), (37, 0.3, 7), (2, 0.5, 0)])
def test_split_equals_scikit_learn(n, fraction, seed):
    ratings = build([(k, k % 5, 1 + k % 5) for k in range(n)])
    train, valid = ratings.split(fraction, seed)
    wanted_train, wanted_valid = train_test_split(np.arange(n), test_size=fraction, random_state=seed)
    assert train.user_idx.tolist() == wanted_train.tolist()
    assert valid.user_idx.tolist() == wanted_valid.tolist()
    assert train.movies is ratings.movies  # no copies of the tables
    assert train.split_by == valid.split_by == (fraction, seed)
    assert train.take(np.array([0])).split_by is None


def test_folds_hold_each_rating_out_once():
    ratings = build([(k, k % 5, 3) for k in range(23)])
    folds = list(ratings.folds(5))
    assert sorted(np.concatenate([valid.user_idx for _, valid in folds]).tolist()) == list(range(23))
    for train, valid in folds:
        assert sorted([*train.user_idx, *valid.user_idx]) == list(range(23))


def test_what_cannot_be_split_is_refused():
    one = build([(1, 1, 3)])
    with pytest.raises(DataError, match="too few"):
        one.split()
    with pytest.raises(DataError, match="share of ratings held out"):
        one.split(1.5)
    with pytest.raises(DataError, match="seed of the split"):
        one.split(0.5, -1)
    with pytest.raises(DataError, match="folds"):
        next(one.folds(5))


def test_no_rating_and_unequal_columns_are_refused():
    with pytest.raises(DataError, match="no rating"):
        build_ratings(np.array([], np.int64), np.array([], np.int64), np.array([]))
    with pytest.raises(DataError, match="differ in length"):
        build_ratings(np.array([1]), np.array([1, 2]), np.array([1.0, 2.0]))


def test_more_movies_than_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr("cfrec.memory.free_memory", lambda: 1_000)
    assert build_ratings(np.array([1, 1]), np.array([1, 2]), np.array([1.0, 2.0])).n_movies == 2
    with pytest.raises(DataError, match="A table of 3 movies would need about"):
        build_ratings(np.array([1, 1, 1]), np.array([1, 2, 3]), np.array([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("lowest", "highest", "unit"),
    [(1, 5, 1), (0.5, 5, 1), (0, 5, 1), (1, 10, 2), (0, 10, 2), (0, 100, 32), (0, 1, 0.25), (3, 3, 1), (-10, 10, 4), (1e6, 5e6, 2**20)],
)
def test_the_unit_by_hand(blocks, lowest, highest, unit):
    assert replace(blocks, scale=(lowest, highest, 1.0)).unit == unit
