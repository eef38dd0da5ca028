from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

import cfrec
from cfrec.model import EmbeddingNet
from cfrec.ratings import build_ratings
from cfrec.walkthrough import factor_cells, network_layers, network_text, walk_through


def block(movie_id):
    return (movie_id - 100) // 12


def test_the_first_films_are_of_a_kind_and_the_others_are_not(trained, blocks):
    shown = walk_through(trained, blocks)
    assert len(shown.movie_ids) == len(set(shown.movie_ids)) == 7
    assert len({block(movie) for movie in shown.movie_ids[:3]}) == 1
    assert block(shown.movie_ids[3]) != block(shown.movie_ids[0])
    similar = cfrec.similar_movies(trained, shown.movie_ids[0], k=35).set_index("movie_id")["similarity"]
    assert shown.similarity == pytest.approx(similar[shown.movie_ids[1]], abs=1e-5)


def test_in_the_shipped_model_they_are_a_trilogy(shipped):
    assert set(walk_through(shipped).titles[:3]) == {"Star Wars", "The Empire Strikes Back", "Return of the Jedi"}


def test_real_ratings_are_shown_as_they_were_given(trained, blocks):
    shown = walk_through(trained, blocks)
    given = {(u, m): s for u, m, s in zip(blocks.user_idx.tolist(), blocks.movie_idx.tolist(), blocks.rating.tolist(), strict=True)}
    _, kept = blocks.split()
    kept_aside = set(zip(kept.user_idx.tolist(), kept.movie_idx.tolist(), strict=True))
    assert shown.real
    for movie in shown.movie_ids:
        for user in shown.user_ids:
            pair = trained.user_row(user), trained.movie_row(movie)
            expected = (given[pair], pair in kept_aside) if pair in given else (None, None)
            assert shown.rating(movie, user) == expected
    assert 0 < np.isnan(shown.stars).sum() < shown.stars.size  # stars and gaps


def test_people_go_from_those_who_like_the_first_films_to_those_who_do_not(trained, blocks):
    shown = walk_through(trained, blocks)
    assert len(shown.user_ids) == len(set(shown.user_ids)) == 8
    favourite = block(shown.movie_ids[0])
    fans = [(user - 1) % 3 == favourite for user in shown.user_ids]
    assert fans == sorted(fans, reverse=True)
    assert 0 < sum(fans) < 8


def test_it_begins_with_a_rating_kept_aside_that_taste_brings_near(trained, blocks):
    shown = walk_through(trained, blocks)
    stars, kept_aside = shown.rating(*shown.start)
    assert kept_aside is True
    parts = cfrec.explain_prediction(trained, shown.start[1], shown.start[0])
    before, after = parts["start"].iloc[3], parts["end"].iloc[3]
    assert abs(after - stars) < abs(before - stars)
    assert abs(after - stars) <= trained.metrics["rmse"]


def test_without_ratings_it_shows_the_guesses(trained):
    shown = walk_through(trained)
    assert not shown.real
    for place, movie in enumerate(shown.movie_ids):
        expected = cfrec.predict_ratings(trained, shown.user_ids, [movie] * len(shown.user_ids))
        assert shown.stars[place].tolist() == pytest.approx(expected.tolist())
    assert shown.rating(*shown.start) == (None, None)
    assert shown.start[1] in shown.user_ids


def test_ratings_of_others_are_not_taken_for_those_of_the_model(trained, blocks, shipped):
    assert not walk_through(shipped, blocks).real
    fewer = build_ratings(
        blocks.user_ids[blocks.user_idx[:50]], blocks.movies["movie_id"].to_numpy()[blocks.movie_idx[:50]], blocks.rating[:50]
    )
    assert not walk_through(trained, fewer).real


@pytest.mark.parametrize("change", [{"split": None}, {"fingerprint": 1}])
def test_what_was_kept_aside_may_not_be_known(trained, blocks, change):
    shown = walk_through(replace(trained, **change), blocks)
    assert shown.kept_aside is None
    stars, kept_aside = shown.rating(*shown.start)
    assert stars in (2, 5)
    assert kept_aside is None


def test_titles_are_short_where_they_can_be(trained):
    titles = ["Heat (1995)", "Alien (1979)", "Alien (2030)", "Up", "Up"]
    few = replace(trained, movies=trained.movies.iloc[:5].assign(title=titles, n_ratings=5), movie_bias=trained.movie_bias[:5])
    few = replace(few, movie_factors=trained.movie_factors[:5])
    shown = walk_through(few)
    by_id = dict(zip(shown.movie_ids, shown.titles, strict=True))
    assert by_id == {100: "Heat", 101: "Alien (1979)", 102: "Alien (2030)", 103: "Up [103]", 104: "Up [104]"}


@pytest.mark.parametrize("n_movies", [1, 2, 3])
def test_the_smallest_models_can_be_shown(n_movies):
    pairs = [(user, movie) for user in "abcd" for movie in range(n_movies)]
    users, movies = np.array([u for u, _ in pairs], object), np.array([f"m{m}" for _, m in pairs], object)
    ratings = build_ratings(users, movies, np.linspace(1, 5, len(pairs)))
    config = cfrec.TrainConfig.preset("quick", n_factors=2, epochs=2, device="cpu")
    trained = cfrec.train(*ratings.split(), config)
    for given in (ratings, None):
        shown = walk_through(trained, given)
        assert sorted(shown.movie_ids) == [f"m{m}" for m in range(n_movies)]
        assert (shown.similarity is None) == (n_movies == 1)
        assert len(shown.cells()) == shown.stars.size
        assert len(factor_cells(trained, shown)) == 2 * n_movies


def test_films_nothing_was_learned_of_have_no_similarity(trained):
    flat = replace(trained, movie_factors=np.zeros_like(trained.movie_factors))
    assert walk_through(flat).similarity is None


def test_cells_are_the_table_row_by_row(trained, blocks):
    shown = walk_through(trained, blocks)
    cells = shown.cells()
    assert cells["film"].tolist()[:8] == [shown.titles[0]] * 8
    assert cells["person"].tolist()[:8] == [str(user) for user in shown.user_ids]
    assert np.array_equal(cells["stars"].to_numpy().reshape(7, 8), shown.stars, equal_nan=True)


def test_the_numbers_shown_are_those_in_which_the_films_differ_most(trained):
    factors = np.zeros((36, 4), np.float32)
    factors[:, 0], factors[:, 1], factors[:, 3] = 1, np.arange(36), np.arange(36) % 2
    shown = walk_through(trained)
    cells = factor_cells(replace(trained, movie_factors=factors), shown, n_numbers=2)
    rows = [trained.movie_row(movie) for movie in shown.movie_ids]
    wide = cells.pivot(index="film", columns="number", values="value").loc[shown.titles]
    assert list(wide) == [2, 4]
    assert wide[2].tolist() == [float(row) for row in rows]


def test_the_network_as_pytorch_prints_it(trained, chosen):
    assert network_text(trained) == repr(EmbeddingNet(90, 36, 4))
    assert network_text(chosen) == repr(EmbeddingNet(90, 36, 4, traits=torch.from_numpy(chosen.movie_traits.copy())))
    assert "  (user_choice): Embedding(90, 6)" in network_text(chosen).splitlines()


def test_layers_with_their_sizes(shipped):
    expected = [
        ("user_factors", 943, 73, 68_839),
        ("user_bias", 943, 1, 943),
        ("movie_factors", 1_682, 73, 122_786),
        ("movie_bias", 1_682, 1, 1_682),
        ("user_choice", 943, 83, 78_269),
    ]
    pd.testing.assert_frame_equal(network_layers(shipped), pd.DataFrame(expected, columns=["layer", "rows", "columns", "parameters"]))
    assert network_layers(shipped)["parameters"].sum() == shipped.n_parameters


def test_choices_are_a_layer_and_traits_which_are_not_learned_are_none(chosen):
    layers = network_layers(chosen)
    assert layers["layer"].tolist() == ["user_factors", "user_bias", "movie_factors", "movie_bias", "user_choice"]
    assert layers.iloc[-1].tolist() == ["user_choice", 90, 6, 540]
    assert layers["parameters"].sum() == chosen.n_parameters
