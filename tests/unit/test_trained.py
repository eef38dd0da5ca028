import re
from dataclasses import replace

import numpy as np
import pytest

import cfrec
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


def test_the_version_is_the_same_for_the_same_model(trained):
    assert re.fullmatch("[0-9a-f]{16}", trained.version)
    copied = {name: getattr(trained, name).copy() for name in ("user_factors", "user_bias", "movie_factors", "movie_bias")}
    turned = np.asfortranarray(trained.movie_factors)
    assert replace(trained, **copied).version == replace(trained, movie_factors=turned).version == trained.version
    assert replace(trained, state=None, device="elsewhere").version == trained.version
    assert replace(trained, fit_seconds=9.0).version != trained.version  # the same recipe, run again within a second


@pytest.mark.parametrize("name", ["user_factors", "user_bias", "movie_factors", "movie_bias"])
def test_one_other_bit_makes_another_version(trained, name):
    array = getattr(trained, name).copy()
    array.flat[-1] = np.nextafter(array.flat[-1], np.float32(9))
    assert replace(trained, **{name: array}).version != trained.version


def test_without_choices_there_are_no_traits(trained):
    assert trained.user_choice is trained.movie_traits is None
    assert trained.n_traits == 0
    assert list(trained.weights()) == ["user_factors", "user_bias", "movie_factors", "movie_bias"]


def test_choices_are_learned_and_traits_are_not(chosen, trained):
    assert list(chosen.weights()) == [*trained.weights(), "user_choice", "movie_traits"]
    assert chosen.n_traits == 2
    assert chosen.n_parameters == trained.n_parameters + 90 * (4 + 2)
    users, movies = np.arange(36), np.arange(36)
    assert (chosen.predict_rows(users, movies) == trained.predict_rows(users, movies)).all()


@pytest.mark.parametrize("name", ["user_choice", "movie_traits"])
def test_choices_and_traits_cannot_be_changed_and_make_the_version(chosen, trained, name):
    with pytest.raises(ValueError, match="read-only"):
        getattr(chosen, name)[0, 0] = 1
    others = [replace(chosen, **{name: -getattr(chosen, name)}), replace(chosen, **{name: None})]
    assert len({model.version for model in (trained, chosen, *others)}) == 4


def test_what_a_model_was_trained_on_when_and_how_makes_its_version(trained):
    others = [
        replace(trained, created="2020-01-01T00:00:00+00:00"),
        replace(trained, fingerprint=trained.fingerprint + 1),
        replace(trained, config=replace(trained.config, seed=7)),
    ]
    assert len({model.version for model in (trained, *others)}) == 4


def test_a_copy_with_other_titles_people_or_figures_is_another_version(trained):
    """What pages work out from a model they keep under its version, for everyone."""
    others = [
        replace(trained, movies=trained.movies.assign(title="Spoiled (1999)")),
        replace(trained, movies=trained.movies.assign(genres="Spoiled")),
        replace(trained, movies=trained.movies.assign(n_ratings=trained.movies["n_ratings"] + 1)),
        replace(trained, user_ids=trained.user_ids[::-1].copy()),
        replace(trained, source=replace(trained.source, title="Spoiled")),
        replace(trained, metrics=dict.fromkeys(trained.metrics, 0.1)),
        replace(trained, history=trained.history[:-1]),
    ]
    assert len({model.version for model in (trained, *others)}) == 8


def test_weights_that_trade_places_make_another_version(trained):
    users, movies = np.array([1, 2], np.float32), np.array([2, 1], np.float32)
    assert replace(trained, user_bias=users, movie_bias=movies).version != replace(trained, user_bias=movies, movie_bias=users).version


def test_the_version_survives_storage(trained, shipped, tmp_path):
    assert cfrec.load_model(cfrec.save_model(trained, tmp_path / "m")).version == trained.version
    assert cfrec.load_model("models/ml-100k").version == shipped.version != trained.version
