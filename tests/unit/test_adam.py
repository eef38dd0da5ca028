import math
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cfrec import adam
from cfrec.adam import AdamRun, _Adam, in_large_batches
from cfrec.config import TrainConfig
from cfrec.ratings import build_ratings


def run_of(ratings, **changes):
    config = TrainConfig.preset("quick", method="adam", n_factors=4, device="cpu", **changes)
    return AdamRun(*ratings.split(), config, "cpu")


def test_adam_takes_the_same_steps_as_torch_s():
    rate = 0.01
    torch.manual_seed(0)
    mine, theirs = nn.Parameter(torch.randn(5, 3)), nn.Parameter(torch.zeros(5, 3))
    theirs.data.copy_(mine)
    adam = _Adam({"w": mine}, 0.95, 0.01)
    reference = torch.optim.Adam([theirs], lr=rate, betas=(0.9, 0.95), weight_decay=0.01, fused=True)
    for _ in range(5):
        gradient = torch.randn(5, 3)
        theirs.grad = gradient
        reference.step()
        adam.step((gradient,), rate)
    assert torch.equal(mine, theirs)


def test_the_seed_recipe_is_the_post_s_loop(blocks):
    """Against the loop as the post has it: the same start and order, torch's own Adam, no penalty, no offset."""
    config = TrainConfig.preset("seed", epochs=2, n_factors=4, device="cpu")
    train, valid = blocks.split()
    run = AdamRun(train, valid, config, "cpu")
    weights = {name: nn.Parameter(weight.detach().clone()) for name, weight in run.net.named_parameters()}
    adam = torch.optim.Adam(weights.values(), lr=1.5e-3, weight_decay=3e-4)
    users, movies, stars = (torch.tensor(a) for a in (train.user_idx, train.movie_idx, train.rating))
    for epoch in (1, 2):
        order = torch.randperm(len(stars), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
        for batch in order.split(100):
            u, m = users[batch], movies[batch]
            score = (weights["user_factors.weight"][u] * weights["movie_factors.weight"][m]).sum(1, keepdim=True)
            score = score + weights["user_bias.weight"][u] + weights["movie_bias.weight"][m]
            loss = nn.MSELoss()(
                torch.sigmoid(score) * (run.net.y_range[1] - run.net.y_range[0]) + run.net.y_range[0], stars[batch][:, None]
            )
            adam.zero_grad()
            loss.backward()
            adam.step()
    run.fit(lambda _: None, Event(), Event())
    for name, weight in run.net.named_parameters():
        assert torch.allclose(weight, weights[name], atol=1e-5), name


def test_the_gradient_is_autograd_s(blocks):
    """On a batch in which users and movies recur, with every penalty and an offset."""
    run = run_of(blocks, user_l2=0.3, movie_l2=0.2, bias_l2=0.1, factor_std=0.5, bias_std=0.5)
    random = torch.Generator().manual_seed(0)
    users, movies, stars = (torch.randint(n, (300,), generator=random, dtype=torch.int32) for n in (20, 12, 6))
    squared, (of_users, of_movies) = run._gradients(users, movies, stars)
    p, user_bias, q, movie_bias = run.net.look_up(users, movies)
    errors = (run.net.rate(p, user_bias, q, movie_bias) - stars).square()
    loss = errors + run.user_rows.l2[users] * p.square().sum(1) + run.movie_rows.l2[movies] * q.square().sum(1)
    loss = loss + 0.1 * (user_bias.square() + movie_bias.square()).squeeze(1)
    layers = dict(run.net.named_parameters())
    theirs = dict(zip(layers, torch.autograd.grad(loss.mean(), layers.values()), strict=True))
    mine = {
        "user_factors.weight": of_users[:, :-2],
        "user_bias.weight": of_users[:, -2:-1],
        "movie_factors.weight": of_movies[:, :-2],
        "movie_bias.weight": of_movies[:, -1:],
    }
    assert squared.item() == pytest.approx(errors.sum().item(), rel=1e-5)
    for name, gradient in theirs.items():
        assert (mine[name] - gradient).abs().max() < 1e-5 * gradient.abs().max(), name
        assert gradient.abs().max() > 1e-3, name
    assert not of_users[20:, :-1].any()  # nobody there rated anything


@pytest.mark.parametrize("weight_decay", [0.0, 0.01])
def test_the_ones_beside_the_biases_stay_ones(blocks, weight_decay):
    run = run_of(blocks, weight_decay=weight_decay)
    run.fit(lambda _: None, Event(), Event())
    assert (run.user_rows.table[:, -1] == 1).all()
    assert (run.movie_rows.table[:, -2] == 1).all()
    assert not (run.movie_rows.table[:, -1] == 1).any()  # a bias


def test_the_network_sees_what_adam_learns(blocks):
    run = run_of(blocks)
    run.fit(lambda _: None, Event(), Event())
    layers = {name: weight.detach() for name, weight in run.net.named_parameters()}
    for name, weight in run._weights().items():
        assert torch.equal(weight, layers[f"{name}.weight"].reshape(weight.shape)), name
    stars = run.net(*run.valid[:2]).detach().clamp(2, 5)
    assert run._valid_loss() == pytest.approx((stars - run.valid[2]).square().mean().item(), rel=1e-5)


class Waits(TorchDispatchMode):
    """Counts the times that the host reads a number off the device, or asks for a result whose size depends on numbers there."""

    OPERATIONS = ("_local_scalar_dense", "nonzero", "masked_select", "_unique2", "bincount", "equal", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in self.OPERATIONS:
            self.seen.append(name)
        return func(*args, **(kwargs or {}))


def test_the_host_waits_for_the_device_once_an_epoch(blocks):
    run = run_of(blocks, batch_size=16)
    with Waits() as waits:
        run._pass(1, lambda: False)
    assert waits.seen == ["_local_scalar_dense"]
    with Waits() as waits:
        run._valid_loss()
    assert waits.seen == ["_local_scalar_dense"]


def test_waits_are_seen():
    """Negative control of the test above."""
    with Waits() as waits:
        numbers = torch.ones(3)
        float(numbers[0])
        torch.nonzero(numbers)
        torch.bincount(numbers.int())
    assert waits.seen == ["_local_scalar_dense", "nonzero", "bincount"]


@pytest.fixture
def meta_run(blocks, monkeypatch):
    """A run on a device that has shapes and types but no numbers: reading one raises."""
    monkeypatch.setattr(AdamRun, "_begin", lambda run: None)
    monkeypatch.setattr(adam.torch, "Generator", lambda device="cpu": torch._C.Generator("cpu" if device == "meta" else device))
    config = TrainConfig.preset("balanced", method="adam", weight_decay=0.01, batch_size=100)
    return AdamRun(*blocks.split(), config, "meta")


def test_a_whole_epoch_runs_without_any_number_known(meta_run):
    """No step may look at the device, nor mix tensors of the host with the device's."""
    total = meta_run._learn(1, lambda: False)
    assert (total.device.type, total.dtype, total.shape) == ("meta", torch.float32, ())
    with pytest.raises(RuntimeError, match="meta"):
        meta_run._pass(1, lambda: False)  # the one place that reads


def test_everything_is_on_the_device_in_single_precision(meta_run):
    """Apple's GPUs have no double precision."""
    seen = []

    class Types(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            result = func(*args, **(kwargs or {}))
            seen.extend(t for t in (result if isinstance(result, tuple | list) else [result]) if isinstance(t, torch.Tensor))
            return result

    with Types():
        meta_run._learn(1, lambda: False)
    assert len(seen) > 100
    assert {t.device.type for t in seen} == {"meta"}
    assert torch.float64 not in {t.dtype for t in seen}


def test_a_stop_is_heeded_before_each_batch(blocks):
    run, asked = run_of(blocks, batch_size=16), []
    assert run._pass(1, lambda: asked.append(0) or len(asked) == 4) is None
    assert run.adam.steps[0].item() == 3


@pytest.mark.parametrize(
    ("n_ratings", "batch_size", "rate", "size", "wanted"),
    [
        (300_000, 512, 0.01, 512, 0.01),  # not large
        (409_600, 1_024, 0.005, 4_096, 0.01),  # four times the batch, twice the rate
        (409_601, 1_024, 0.005, 4_097, 0.005 * (4_097 / 1_024) ** 0.5),  # a hundred steps
        (10_000_000, 512, 0.01, 100_000, 0.02),  # no faster than this
        (10_000_000, 512, 0.05, 100_000, 0.05),  # nor slower than asked for
        (10_000_000, 200_000, 0.01, 200_000, 0.01),  # large enough
        (10**9, 512, 0.01, 1_000_000, 0.02),  # the largest that can be set
    ],
)
def test_batches_of_large_data_by_hand(n_ratings, batch_size, rate, size, wanted):
    config = TrainConfig(method="adam", batch_size=batch_size, learning_rate=rate)
    large = in_large_batches(config, n_ratings)
    assert (large.batch_size, large.learning_rate) == (size, pytest.approx(wanted))
    assert replace(large, batch_size=batch_size, learning_rate=rate) == config


def test_the_post_s_recipe_keeps_its_batches_whatever_the_data():
    seed = TrainConfig.preset("seed")
    assert in_large_batches(seed, 10_000_000) == seed


def test_a_run_on_large_data_takes_large_batches_and_faster_steps(blocks, monkeypatch):
    monkeypatch.setattr(adam, "_LARGE", 100)
    run = run_of(blocks, batch_size=1, learning_rate=0.005, schedule="constant", epochs=1)
    size = math.ceil(len(run.ratings) / 100)
    run.fit(lambda _: None, Event(), Event())
    assert run.adam.steps[0].item() == math.ceil(len(run.ratings) / size) < 101
    assert run.history[0].learning_rate == pytest.approx(min(0.005 * size**0.5, 0.02))
    assert run.config.batch_size == 1  # what was asked for is what is stored


@pytest.mark.parametrize("n_threads", [1, 2])
def test_large_batches_give_the_same_bits_again(n_threads):
    random = np.random.default_rng(0)
    pairs = np.unravel_index(random.choice(300 * 200, 20_000, replace=False), (300, 200))
    ratings = build_ratings(pairs[0], pairs[1], random.integers(1, 6, 20_000).astype(float))
    runs = [run_of(ratings, batch_size=8_000, n_threads=n_threads) for _ in range(2)]
    for run in runs:
        run.fit(lambda _: None, Event(), Event())
    assert all(torch.equal(a, b) for a, b in zip(*(run._weights().values() for run in runs), strict=True))


def test_the_penalty_of_each_row_by_hand():
    # users rate 3, 1 and 2 times: mean 2; movies 4 and 2 times: mean 3
    users, movies = [0, 0, 0, 1, 2, 2], [0, 1, 0, 0, 0, 1]
    ratings = build_ratings(np.array(users), np.array(movies) + 10, np.ones(6), timestamp=None)
    assert len(ratings) == 5  # user 0 rated movie 0 twice
    run = AdamRun(ratings, ratings, TrainConfig(user_l2=0.3, movie_l2=0.2, l2_exponent=0.5, n_factors=2), "cpu")
    counts_user, counts_movie = np.array([2, 1, 2]), np.array([3, 2])
    assert run.user_rows.l2.numpy() == pytest.approx(0.3 * np.sqrt(counts_user.mean() / counts_user))
    assert run.movie_rows.l2.numpy() == pytest.approx(0.2 * np.sqrt(counts_movie.mean() / counts_movie))


def test_zero_weights_predict_the_mean_at_the_start(blocks):
    run = run_of(blocks, factor_std=0.0)
    assert run.net(run.users[:1], run.movies[:1]).item() == pytest.approx(float(run.ratings.rating.mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        ("constant", {0: 1, 0.5: 1, 1: 1}),
        ("linear", {0: 1, 0.25: 0.75, 1: 0}),
        ("one_cycle", {0: 0.04, 0.25: 1, 0.625: 0.52, 1: 0.04}),
    ],
)
def test_learning_rate_schedules(blocks, schedule, at):
    run = run_of(blocks, schedule=schedule, learning_rate=0.01)
    for progress, share in at.items():
        assert run.learning_rate(progress) == pytest.approx(0.01 * share), progress


def test_a_stop_before_the_first_step_leaves_the_start(blocks):
    stop = Event()
    stop.set()
    run = run_of(blocks)
    before = run._weights()
    assert run.fit(lambda _: None, stop, Event()) == ("stopped", "")
    assert run.history == []
    assert all(torch.equal(before[name], weight) for name, weight in run._weights().items())


def test_an_epoch_that_explodes_is_told_from_one_that_learns(blocks):
    run = run_of(blocks)
    guessing = float(run.ratings.rating.var())
    assert run._divergence(1, guessing / 4, 1.0) == ""
    assert run._divergence(2, guessing * 0.9, 1.0) == ""  # worse than before, but no worse than guessing the mean
    assert "smaller learning rate, such as 0.0018" in run._divergence(2, guessing * 1.5, 1.0)
    assert "diverged in epoch 3" in run._divergence(3, math.nan, 1.0)
    assert run._divergence(3, guessing / 4, math.nan)


def test_rows_without_training_ratings_are_zero(blocks):
    train, valid = blocks.split()
    seen = train.take(np.flatnonzero((train.movie_idx != 3) & (train.user_idx != 5)))
    run = AdamRun(seen, valid, TrainConfig.preset("quick", method="adam", epochs=1), "cpu")
    run.fit(lambda _: None, Event(), Event())
    weights = run.best_weights()
    assert not weights["movie_factors"][3].any()
    assert weights["movie_bias"][3] == 0
    assert not weights["user_factors"][5].any()
    assert weights["movie_factors"][4].any()


def test_a_constant_set_of_ratings_trains(blocks):
    run = run_of(replace(blocks, rating=np.full_like(blocks.rating, 4.0), scale=(4.0, 4.0, 1.0)))
    outcome, _ = run.fit(lambda _: None, Event(), Event())
    assert outcome == "completed"
    assert run.history[-1].valid_loss < 1e-6
