from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch

import cfrec
from cfrec.adam import Loss
from cfrec.config import TrainConfig
from cfrec.gibbs import GibbsRun, _blas, one_blas_thread
from cfrec.model import EmbeddingNet
from cfrec.ratings import build_ratings


def config_of(**changes):
    return TrainConfig.preset("balanced", **({"n_factors": 4, "epochs": 12, "device": "cpu"} | changes))


@pytest.fixture(scope="module")
def trained(blocks):
    return cfrec.train(*blocks.split(), config_of())


def company(seed=0, n_users=80, n_movies=60, n_camps=2):
    """Each of some camps rates its own movies most; whoever strays rates the other camps' by chance. Movies differ by camp alone."""
    random = np.random.default_rng(seed)
    camp_user, camp_movie = np.arange(n_users) % n_camps, np.arange(n_movies) % n_camps
    rates = random.random((n_users, n_movies)) < np.where(camp_user[:, None] == camp_movie, 0.35, 0.03)
    users, movies = np.nonzero(rates)
    stars = np.where(camp_movie[movies] == 0, 4.0, 3.0) + random.choice([-1, 0, 1], len(users))
    return build_ratings(users, movies, stars)


def camps_kept(trained, n_camps=2):
    """The share of neighbours that are of the movie's own camp."""
    ids = trained.movies["movie_id"].tolist()
    near = [cfrec.similar_movies(trained, movie, k=5)["movie_id"].to_numpy() for movie in ids]
    return np.mean([(found % n_camps == movie % n_camps).mean() for movie, found in zip(ids, near, strict=True)])


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


@pytest.fixture
def solved(blocks):
    """A run whose users, and then whose movies, have been solved for; and the loss of choice as ``fitting`` writes it, with all pairs."""
    train, valid = blocks.split()
    config = config_of(epochs=1)
    run = GibbsRun(train, valid, config)
    rated = np.zeros((train.n_users, train.n_movies))
    rated[train.user_idx, train.movie_idx] = 1
    n_u, n_m = rated.sum(1), rated.sum(0)
    held_u = config.user_choice_l2 * (n_u + config.unseen_weight * n_m.sum() ** 2 / (n_m**2).sum())
    held_m = config.movie_choice_l2 * (n_m + config.unseen_weight * n_u.sum() ** 2 / (n_u**2).sum())

    def loss(users, movies):
        t = users @ np.hstack([movies, run.traits]).T
        seen = (rated * (1 - t) ** 2).sum() + config.unseen_weight * (t**2).sum()
        return seen + held_u @ (users**2).sum(1) + held_m @ (movies**2).sum(1)

    return run, loss


def test_choice_is_at_the_bottom_of_its_loss_for_users_and_then_for_movies(solved):
    """No small step makes it smaller."""
    run, loss = solved
    random, start = np.random.default_rng(1), run.choice["movie"].astype(float)
    run._choose(random)
    users = run.choice["user"].astype(float)
    run._place(random)
    movies = run.choice["movie"].astype(float)
    assert loss(users, movies) < loss(users, start)
    for _ in range(20):
        assert loss(users + 0.05 * random.normal(size=users.shape), start) > loss(users, start)
        assert loss(users, movies + 0.05 * random.normal(size=movies.shape)) > loss(users, movies)


def test_rounds_of_both_come_to_rest_where_autograd_finds_no_slope(blocks):
    """Two solvers of one loss: where alternating least squares have come to, gradient descent would stay."""
    train, valid = blocks.split()
    config = config_of(n_factors=4, choice_weight=1.0)  # two of the four are for choice
    run = GibbsRun(train, valid, config)
    net = EmbeddingNet(train.n_users, train.n_movies, 2, traits=torch.as_tensor(run.traits))
    loss = Loss(train, replace(config, method="adam", n_factors=2, user_l2=0.0, movie_l2=0.0, bias_l2=0.0), "cpu")
    pairs = torch.as_tensor(train.user_idx), torch.as_tensor(train.movie_idx)

    def slopes():
        weights = net.user_choice.weight, net.movie_factors.weight
        with torch.no_grad():
            for weight, side in zip(weights, ("user", "movie"), strict=True):
                weight.copy_(torch.as_tensor(run.choice[side]))
        penalty = sum(loss.pulls[name] @ net.get_parameter(f"{name}.weight").square().sum(1) for name in ("user_choice", "movie_factors"))
        return max(slope.abs().max().item() for slope in torch.autograd.grad(loss.of_choice(net, *pairs) + penalty, weights))

    run._choose(np.random.default_rng(0))
    steep = slopes()
    for _ in range(300):
        run._place(np.random.default_rng(0))
        run._choose(np.random.default_rng(0))
    assert slopes() < 0.01 * steep


def test_the_network_predicts_what_the_mean_of_the_draws_does(blocks):
    """Axes, lengths, biases and traits are dealt out anew for the network, and no score of any pair changes: neither stars nor choice."""
    train, valid = blocks.split()
    run = GibbsRun(train, valid, config_of(epochs=3))
    for epoch in (1, 2, 3):
        run._pass(epoch, lambda: False)
    run.last = run._weights()
    net, k = run.network(), run.k
    users, movies = run.mean_rows["user"].astype(float), run.mean_rows["movie"].astype(float)
    stars = users[:, :k] @ movies[:, :k].T + users[:, k:] + movies[:, k]
    scores = net["user_factors"] @ net["movie_factors"].T + net["user_bias"][:, None] + net["movie_bias"]
    assert scores * run.slope == pytest.approx(stars, abs=1e-4)
    assert np.ptp(stars) > 1  # in standard deviations: there is something to keep
    chosen = run.choice["user"].astype(float) @ np.hstack([run.choice["movie"], run.traits]).T
    assert net["user_choice"] @ np.hstack([net["movie_factors"], run.traits]).T == pytest.approx(chosen, abs=1e-4)
    products = net["movie_factors"].T @ net["movie_factors"]
    assert np.abs(products - np.diag(np.diag(products))).max() < 1e-3 * products[0, 0]  # principal axes
    assert net["user_factors"].mean(axis=0) == pytest.approx(0, abs=1e-6)  # what all like of a movie is in its bias


def test_the_mean_of_products_is_that_of_the_draws(blocks):
    """Of two draws with one factor each, kept as two factors: exactly the mean of both products."""
    run = GibbsRun(*blocks.split(), config_of(n_factors=2, choice_weight=0.0))
    random, products = np.random.default_rng(0), []
    for _ in range(2):
        rows = {side: random.normal(size=(n, 3)).astype(np.float32) for side, n in run.sizes.items()}
        for part in rows.values():
            part[:, 1] = 0
        run._average(rows)
        products.append(rows["user"][:, :2].astype(float) @ rows["movie"][:, :2].T)
    users, movies = run.mean_rows["user"], run.mean_rows["movie"]
    assert users[:, :2] @ movies[:, :2].T == pytest.approx(sum(products) / 2, abs=1e-4)


def test_two_factors_or_one_epoch_give_poorer_neighbours():
    train, valid = company(n_users=600, n_movies=400, n_camps=20).split()
    default, flat, short = (
        camps_kept(cfrec.train(train, valid, TrainConfig.preset(device="cpu", **change)), 20)
        for change in ({}, {"n_factors": 2}, {"epochs": 1})
    )
    assert default > 0.7
    assert flat < 0.3
    assert short < 0.5


def test_stopped_and_resumed_it_comes_to_the_same_bits(blocks):
    train, valid = blocks.split()
    stop = Event()
    stopped = cfrec.train(train, valid, config_of(), stop=stop, on_epoch=lambda m: m.epoch == 5 and stop.set())
    assert (stopped.outcome, len(stopped.history)) == ("stopped", 5)
    resumed, whole = cfrec.train(train, valid, config_of(), resume=stopped), cfrec.train(train, valid, config_of())
    for name, array in whole.weights().items():
        assert (resumed.weights()[name] == array).all(), name
    wrong = {name: array * np.float32(1.5) if name == "memory.drawn.movie" else array for name, array in stopped.state.arrays.items()}
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


def test_blas_has_its_threads_again_after_runs_that_overlap():
    """An estimate that began before a run and ended in its midst left BLAS with one thread for good."""

    def threads():
        return [library["num_threads"] for library in _blas().info()]

    with _blas().limit(limits=2):
        before = threads()
        one_blas_thread.__enter__()
        one_blas_thread.__enter__()
        one_blas_thread.__exit__()
        assert threads() == [1] * len(before)  # the second is still inside
        one_blas_thread.__exit__()
        assert threads() == before != [1] * len(before)
