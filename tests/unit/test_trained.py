import numpy as np
import pytest

from cfrec.errors import NotFoundError


def test_predictions_by_hand_and_in_chunks(trained, monkeypatch):
    u, m = np.array([0, 5, 89]), np.array([35, 0, 7])
    dot = (trained.user_factors[u] * trained.movie_factors[m]).sum(1)
    score = dot + trained.user_bias[u] + trained.movie_bias[m] + trained.offset
    low, high = trained.y_range
    wanted = np.clip(low + (high - low) / (1 + np.exp(-score)), 2, 5)
    assert trained.predict_rows(u, m) == pytest.approx(wanted, abs=1e-5)
    monkeypatch.setattr("cfrec.trained._CHUNK", 2)
    assert trained.predict_rows(u, m) == pytest.approx(wanted, abs=1e-5)


def test_stars_are_clipped_to_the_scale(trained):
    assert trained.to_stars(np.array([-30.0, 30.0], np.float32)).tolist() == [2.0, 5.0]


def test_a_shared_model_cannot_be_changed(trained):
    with pytest.raises(ValueError, match="read-only"):
        trained.movie_factors[0, 0] = 1


def test_rows_are_found_by_id_of_any_integer_type(trained):
    assert trained.movie_row(103) == trained.movie_row(np.int32(103)) == 3
    with pytest.raises(NotFoundError, match="no movie with the id '103'"):
        trained.movie_row("103")
    with pytest.raises(NotFoundError, match="no user with the id 0"):
        trained.user_row(0)


def test_sizes(trained):
    assert (trained.n_users, trained.n_movies, trained.n_factors) == (90, 36, 4)
    assert trained.n_parameters == (90 + 36) * 5
