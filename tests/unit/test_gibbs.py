from dataclasses import replace
from threading import Event

import numpy as np
import pytest

import cfrec
from cfrec.config import TrainConfig
from cfrec.gibbs import GibbsRun
from cfrec.ratings import build_ratings


def config_of(**changes):
    return TrainConfig.preset("balanced", **({"n_factors": 4, "epochs": 12, "device": "cpu"} | changes))


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


def camps_kept(trained):
    """The share of neighbours that are of the movie's own camp."""
    ids = trained.movies["movie_id"].tolist()
    near = [cfrec.similar_movies(trained, movie, k=5)["movie_id"].to_numpy() for movie in ids]
    return np.mean([(found % 2 == movie % 2).mean() for movie, found in zip(ids, near, strict=True)])


def test_it_finds_the_blocks(trained, blocks):
    assert trained.outcome == "completed"
    assert trained.metrics["mse"] < 0.05 * blocks.rating.var()
    assert (trained.config.method, trained.best_epoch, len(trained.history)) == ("gibbs", 12, 12)
    assert trained.user_choice.shape == (trained.n_users, 4 + trained.movie_traits.shape[1])


def test_same_seed_same_bits_at_any_number_of_threads_other_seed_others(trained, blocks):
    again = cfrec.train(*blocks.split(), config_of(n_threads=1))
    other = cfrec.train(*blocks.split(), config_of(seed=43))
    for name, array in trained.weights().items():
        assert (again.weights()[name] == array).all(), name
    assert not (other.movie_factors == trained.movie_factors).all()


def test_the_model_is_the_mean_that_was_followed(trained):
    assert trained.metrics["mse"] == pytest.approx(trained.history[-1].valid_loss, rel=0.02)


def test_who_rated_what_is_in_the_movies_factors():
    """The stars of the two camps' films are nearly alike: what sets them apart is who rates them. Without choice it is not learned."""
    train, valid = company().split()
    both, stars_alone = (cfrec.train(train, valid, config_of(choice_weight=weight, epochs=20)) for weight in (5.0, 0.0))
    assert camps_kept(both) > 0.95
    assert camps_kept(stars_alone) < 0.85
    assert stars_alone.user_choice is None


def test_choice_is_at_the_bottom_of_its_loss(blocks):
    """The users' choice vectors, given the movies': no small step makes the loss of ``fitting`` smaller."""
    train, valid = blocks.split()
    config = config_of(epochs=1)
    run = GibbsRun(train, valid, config)
    movies = np.hstack([run.draws["movie"][:, :4], run.traits]).astype(float)
    run._choose(np.random.default_rng(0))
    chosen = np.zeros((train.n_users, train.n_movies))
    chosen[train.user_idx, train.movie_idx] = 1
    held = config.user_choice_l2 * (chosen.sum(1) + config.unseen_weight * train.n_movies)

    def loss(choice):
        t = choice @ movies.T
        return (chosen * (1 - t) ** 2).sum() + config.unseen_weight * (t**2).sum() + held @ (choice**2).sum(1)

    best, random = run.latest["choice"].astype(float), np.random.default_rng(1)
    assert best.any()
    for _ in range(20):
        assert loss(best + 0.05 * random.normal(size=best.shape)) > loss(best)


def test_movies_are_at_the_bottom_of_both_losses(blocks):
    """The movies' means, given the users: the derivative of stars and choice together, in each number, is nothing beside its parts."""
    train, valid = blocks.split()
    config = config_of(epochs=1)
    run = GibbsRun(train, valid, config)
    run._choose(np.random.default_rng(0))
    run._draw_users(np.random.default_rng(0))
    users, choice, trust = run.draws["user"].astype(float), run.latest["choice"].astype(float), run.prior["evenness"].copy()
    run._draw_movies(np.random.default_rng(0))
    q, bias, d = run.latest["movie"][:, :4].astype(float), run.latest["movie"][:, 4].astype(float), 4
    rated = np.zeros((train.n_users, train.n_movies))
    stars = np.full(rated.shape, run.mean)
    rated[train.user_idx, train.movie_idx], stars[train.user_idx, train.movie_idx] = 1, train.rating
    missed = rated * trust[:, None] * (stars - run.mean - users[:, d:] - bias - users[:, :d] @ q.T)
    t = choice[:, :d] @ q.T + choice[:, d:] @ run.traits.T
    held = config.movie_choice_l2 * (rated.sum(0) + config.unseen_weight * train.n_users)
    parts = [
        run.alpha * missed.T @ users[:, :d],
        config.choice_weight * run.alpha * (rated * (1 - t) - config.unseen_weight * t).T @ choice[:, :d],
        -config.choice_weight * run.alpha * held[:, None] * q - 0.3 * q,
    ]
    assert np.abs(sum(parts)).max() < 1e-3 * np.abs(parts[1]).max()


def test_stopped_and_resumed_it_comes_to_the_same_bits(blocks):
    train, valid = blocks.split()
    stop = Event()
    stopped = cfrec.train(train, valid, config_of(), stop=stop, on_epoch=lambda m: m.epoch == 5 and stop.set())
    assert (stopped.outcome, len(stopped.history)) == ("stopped", 5)
    resumed, whole = cfrec.train(train, valid, config_of(), resume=stopped), cfrec.train(train, valid, config_of())
    for name, array in whole.weights().items():
        assert (resumed.weights()[name] == array).all(), name
    wrong = {name: array * np.float32(1.5) if name == "memory.draw.movie" else array for name, array in stopped.state.arrays.items()}
    other = cfrec.train(train, valid, config_of(), resume=replace(stopped, state=replace(stopped.state, arrays=wrong)))
    assert not (other.movie_factors == whole.movie_factors).all()  # the check is not blind


def test_nobody_unknown_has_factors_and_a_film_unrated_has_the_bias_expected():
    """Rarely rated films are worse here, so a film that nobody rated is expected to be worse than the mean."""
    random = np.random.default_rng(0)
    users, movies = np.nonzero(random.random((60, 40)) < np.linspace(0.02, 0.9, 40))
    ratings = build_ratings(users, movies, np.where(movies < 20, 2.0, 4.0) + random.choice([-0.5, 0.5], len(users)))
    untouched = int(np.argmin(np.bincount(ratings.movie_idx)))
    train = ratings.take(np.flatnonzero(ratings.movie_idx != untouched))
    trained = cfrec.train(train, ratings.take(np.flatnonzero(ratings.movie_idx == untouched)), config_of())
    assert not trained.movie_factors[untouched].any()
    assert trained.movie_bias[untouched] < np.median(trained.movie_bias)


def test_people_who_are_uneven_count_less(blocks):
    train, valid = blocks.split()
    wild = train.user_idx == 3
    noisy = replace(train, rating=np.where(wild, np.random.default_rng(0).choice([1, 5], len(train)), train.rating).astype(np.float32))
    run = GibbsRun(noisy, valid, config_of())
    for epoch in range(1, 8):
        run._pass(epoch, lambda: False)
    assert run.prior["evenness"][3] < 0.5 * np.median(run.prior["evenness"])


def test_ratings_in_other_units_come_to_the_same(blocks):
    """On a scale 16 times as wide each number is 16 times as large, and nothing else."""
    train, valid = blocks.split()
    wide = [replace(part, rating=part.rating * 16, scale=tuple(16 * end for end in part.scale)) for part in (train, valid)]
    small, large = cfrec.train(train, valid, config_of()), cfrec.train(*wide, config_of())
    assert large.metrics["mse"] == pytest.approx(small.metrics["mse"] * 16**2, rel=1e-4)
    assert large.movie_factors == pytest.approx(small.movie_factors, abs=1e-4)
