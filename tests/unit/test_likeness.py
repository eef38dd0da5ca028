from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec import likeness
from cfrec.likeness import learn_likeness
from cfrec.ratings import build_ratings


def camps(n_users=120, n_movies=60, seed=0):
    """Who likes what is no question: each of three camps rates its own movies mostly; the stars are all alike."""
    random = np.random.default_rng(seed)
    own = np.arange(n_users)[:, None] % 3 == np.arange(n_movies) % 3
    users, movies = np.nonzero(random.random((n_users, n_movies)) < np.where(own, 0.6, 0.1))
    return build_ratings(users, movies, random.integers(3, 5, len(users)).astype(float))


def same_camp(rows, k=5):
    alike = rows @ rows.T - 2 * np.eye(len(rows))
    nearest = np.argsort(-alike, axis=1)[:, :k]
    return (nearest % 3 == np.arange(len(rows))[:, None] % 3).mean()


def test_movies_of_one_camp_are_alike():
    ratings = camps()
    assert same_camp(learn_likeness(ratings, 8)) > 0.9
    dealt = replace(ratings, movie_idx=np.random.default_rng(1).permutation(ratings.movie_idx))
    assert same_camp(learn_likeness(dealt, 8)) < 0.5  # by chance: a third


def test_large_data_are_decomposed_as_well(monkeypatch):
    exact = learn_likeness(camps(), 8)
    monkeypatch.setattr(likeness, "EXACT", 0)
    random = learn_likeness(camps(), 8)
    assert np.abs(exact @ exact.T - random @ random.T).max() < 0.1
    assert (random == learn_likeness(camps(), 8)).all()


def test_rows_are_of_length_one_and_zero_without_ratings():
    ratings = camps()
    rows = learn_likeness(ratings.take(np.flatnonzero(ratings.movie_idx != 4)), 8)
    assert not rows[4].any()
    assert np.linalg.norm(np.delete(rows, 4, axis=0), axis=1) == pytest.approx(1, abs=1e-5)
    assert rows.dtype == np.float32


@pytest.mark.parametrize(("n_users", "n_movies"), [(1, 3), (3, 1), (2, 2)])
def test_the_smallest_data(n_users, n_movies):
    users, movies = (a.ravel() for a in np.meshgrid(np.arange(n_users), np.arange(n_movies)))
    rows = learn_likeness(build_ratings(users, movies, 1.0 + (users + movies) % 5), 8)
    assert rows.shape == (n_movies, 8)
    assert np.isfinite(rows).all()


def test_similar_movies_and_the_map_go_by_likeness_and_predictions_do_not(blocks, block_config, trained, tmp_path):
    train, valid = blocks.split()
    alike = cfrec.train(train, valid, replace(block_config, n_likeness=6))
    assert (alike.predict_rows(valid.user_idx, valid.movie_idx) == trained.predict_rows(valid.user_idx, valid.movie_idx)).all()
    assert alike.likeness is alike.movie_likeness
    assert trained.likeness is trained.movie_factors
    rows = alike.likeness
    found = cfrec.similar_movies(alike, 100, k=1)
    cosines = rows[1:] @ rows[0]
    assert found["movie_id"][0] == 101 + cosines.argmax()
    assert found["similarity"][0] == pytest.approx(cosines.max(), abs=1e-5)
    assert cfrec.project_factors(alike, 5).shape[0] == 36
    cfrec.save_model(alike, tmp_path / "m")
    again = cfrec.load_model(tmp_path / "m")
    assert (again.movie_likeness == alike.movie_likeness).all()
    assert not again.movie_likeness.flags.writeable
    assert again.version == alike.version != trained.version
