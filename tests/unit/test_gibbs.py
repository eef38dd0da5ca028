from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch

import cfrec
from cfrec import gibbs
from cfrec.config import TrainConfig
from cfrec.errors import ConfigError
from cfrec.gibbs import GibbsRun
from cfrec.ratings import build_ratings


def config_of(**changes):
    return TrainConfig.preset("accurate", **({"n_factors": 3, "epochs": 30, "device": "cpu"} | changes))


@pytest.fixture(scope="module")
def trained(blocks):
    return cfrec.train(*blocks.split(), config_of())


def company(seed=0, n_users=80, n_movies=60):
    """Each of two camps rates its own movies, nearly all; whoever strays rates the other camp's by chance. Movies differ by camp alone."""
    random = np.random.default_rng(seed)
    camp_user, camp_movie = np.arange(n_users) % 2, np.arange(n_movies) % 2
    rates = random.random((n_users, n_movies)) < np.where(camp_user[:, None] == camp_movie, 0.35, 0.03)
    users, movies = np.nonzero(rates)
    stars = np.where(camp_movie[movies] == 0, 4.0, 3.0) + random.choice([-1, 0, 1], len(users))
    return build_ratings(users, movies, stars)


def test_it_finds_the_blocks(trained, blocks):
    assert trained.outcome == "completed"
    assert trained.metrics["mse"] < 0.05 * blocks.rating.var()
    assert trained.n_factors == 6
    assert (trained.config.method, trained.best_epoch, len(trained.history)) == ("gibbs", 30, 30)


def test_same_seed_same_bits_other_seed_others(trained, blocks):
    again, other = (cfrec.train(*blocks.split(), config_of(seed=seed)) for seed in (42, 43))
    assert (again.movie_factors == trained.movie_factors).all()
    assert not (other.movie_factors == trained.movie_factors).all()


def test_the_model_is_the_mean_that_was_followed(trained):
    assert trained.metrics["mse"] == pytest.approx(trained.history[-1].valid_loss, abs=0.01)


def test_without_the_whole_product_it_is_nearly_the_same(blocks, trained, monkeypatch):
    monkeypatch.setattr(gibbs, "DENSE", 0)
    sampled = cfrec.train(*blocks.split(), config_of())
    assert sampled.metrics["mse"] == pytest.approx(trained.metrics["mse"], abs=0.02 * float(blocks.rating.var()))


def test_blocks_of_rows_are_drawn_as_all_at_once(blocks, monkeypatch):
    train, valid = blocks.split()
    whole = GibbsRun(train, valid, config_of(epochs=3), "cpu")
    monkeypatch.setattr(gibbs, "DRAWN_AT_ONCE", 1000)
    again = GibbsRun(train, valid, config_of(epochs=3), "cpu")
    for run in (whole, again):
        run.fit(lambda _: None, Event(), Event())
    assert torch.allclose(whole.users.rows, again.users.rows, atol=1e-4)
    monkeypatch.setattr(gibbs, "DRAWN_AT_ONCE", 7)  # other random numbers for the same distribution
    small = cfrec.train(train, valid, config_of())
    assert small.metrics["mse"] < 0.05 * blocks.rating.var()


def test_averaging_is_better_than_the_last_draw(blocks):
    noisy = replace(blocks, rating=(blocks.rating + np.random.default_rng(0).normal(0, 1, len(blocks))).astype(np.float32).clip(1, 5))
    train, valid = noisy.split()
    run = GibbsRun(train, valid, config_of(epochs=60), "cpu")
    run.fit(lambda _: None, Event(), Event())
    last = gibbs._Watched(valid, "cpu")
    last.add(run.users.rows, run.movies.rows, fresh=True)
    assert run.history[-1].valid_loss < 0.97 * last.loss(run.mean, run.scale, train.scale)


def test_it_learns_from_who_rated_what():
    """Movies that nobody has rated but once are placed by their company; not if the company is dealt at random."""
    ratings = company()
    train, valid = ratings.split(0.5)
    told = cfrec.train(train, valid, config_of(n_factors=2, epochs=60)).metrics["mse"]
    run = GibbsRun(train, valid, config_of(n_factors=2, epochs=60), "cpu")
    for side in (run.users, run.movies):
        side.directions = side.directions[torch.randperm(len(side.directions), generator=torch.Generator().manual_seed(0))]
    run.fit(lambda _: None, Event(), Event())
    assert told < 0.98 * run.history[-1].valid_loss


def test_who_rates_at_random_counts_for_less(blocks):
    random = np.random.default_rng(0)
    wild = blocks.user_idx % 10 == 0
    rating = np.where(wild, random.choice([1, 2, 3, 4, 5], len(blocks)), blocks.rating).astype(np.float32)
    run = GibbsRun(*replace(blocks, rating=rating).split(), config_of(), "cpu")
    run.fit(lambda _: None, Event(), Event())
    assert run.noise[::10].mean() < 0.6 * run.noise.mean()


def test_a_stop_keeps_the_mean_so_far(blocks):
    stop = Event()
    trained = cfrec.train(*blocks.split(), config_of(), stop=stop, on_epoch=lambda m: m.epoch == 12 and stop.set())
    assert (trained.outcome, trained.best_epoch) == ("stopped", 12)
    assert trained.metrics["mse"] < 0.2 * blocks.rating.var()


def test_a_stop_within_the_first_averaged_sweep_of_large_data(blocks, monkeypatch):
    """The users' half had been averaged, but no sample kept: the mean of none was asked for."""
    monkeypatch.setattr(gibbs, "DENSE", 0)
    run = GibbsRun(*blocks.split(), config_of(), "cpu")
    answers = iter([False] * 7 + [True])
    assert [run._pass(epoch, lambda: next(answers)) is None for epoch in (1, 2, 3, 4)] == [False, False, False, True]
    assert np.isfinite(run.best_weights()["movie_factors"]).all()


def test_a_stop_before_the_first_sweep_has_learned_nothing(blocks):
    stop = Event()
    stop.set()
    trained = cfrec.train(*blocks.split(), config_of(), stop=stop)
    assert (trained.outcome, trained.best_epoch) == ("stopped", 0)
    assert np.isfinite(trained.movie_factors).all()


def test_rows_without_training_ratings_have_no_factors_and_the_bias_expected_of_them(blocks):
    train, valid = blocks.split()
    seen = train.take(np.flatnonzero((train.movie_idx != 3) & (train.user_idx != 5)))
    trained = cfrec.train(seen, valid, config_of())
    assert not trained.movie_factors[3].any()
    assert not trained.user_factors[5].any()
    assert trained.movie_factors[4].any()
    assert 0 < abs(trained.movie_bias[3]) < 0.1


def test_it_cannot_be_resumed(blocks, trained):
    with pytest.raises(ConfigError, match="without the state"):
        cfrec.train(*blocks.split(), config_of(), resume=trained)


@pytest.mark.parametrize(("n_users", "n_movies"), [(1, 4), (4, 1), (2, 1), (3, 3)])
def test_the_smallest_data_trains(n_users, n_movies):
    users, movies = (a.ravel() for a in np.meshgrid(np.arange(n_users), np.arange(n_movies)))
    ratings = build_ratings(users, movies, 1.0 + (users + movies) % 5)
    trained = cfrec.train(*ratings.split(0.5), config_of(epochs=5))
    assert np.isfinite(trained.metrics["mse"])


def test_a_constant_set_of_ratings_trains(blocks):
    constant = replace(blocks, rating=np.full_like(blocks.rating, 4.0), scale=(4.0, 4.0, 1.0))
    assert cfrec.train(*constant.split(), config_of(epochs=12)).metrics["mse"] < 1e-6


def test_torch_is_left_as_it_was(blocks):
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    cfrec.train(*blocks.split(), config_of(epochs=2))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
