import itertools
import math
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from cfrec import adam
from cfrec.adam import AdamRun, Loss, in_large_batches, row_pulls
from cfrec.config import TrainConfig
from cfrec.model import EmbeddingNet
from cfrec.ratings import build_ratings


def config_of(preset="quick", **changes):
    settings = {"n_factors": 4, "epochs": 4, "device": "cpu", "batch_size": 64, "learning_rate": 0.0065} | changes
    return replace(TrainConfig.preset(preset).for_adam(), **settings)


def run_of(ratings, **changes):
    return AdamRun(*ratings.split(), config_of(**changes), "cpu")


def finished(run):
    run.fit(lambda _: None, Event(), Event())
    return run


# The loss on 2 users x 3 movies: user 0 gave 5 stars to movie 0 and 1 star to movie 1, user 1 gave 3 stars to movie 2

L = math.log(3)  # sigmoid(L) = 3/4, sigmoid(-L) = 1/4
SETTINGS = {"n_factors": 1, "user_l2": 0.3, "movie_l2": 0.2, "bias_l2": 0.1, "l2_exponent": 1.0, "margin_below": 0.5, "margin_above": 0.5}
CHOICE = {"choice_weight": 2.0, "unseen_weight": 0.5, "user_choice_l2": 0.1, "movie_choice_l2": 0.2}


def by_hand(**changes):
    """Ratings, settings, network and batch; scores L, -L and L, so 4.25, 1.75 and 4.25 stars."""
    ratings = build_ratings(np.array([0, 0, 1]), np.array([0, 1, 2]), np.array([5.0, 1.0, 3.0]))
    config = TrainConfig(method="adam", **SETTINGS | CHOICE | changes)
    traits = torch.tensor([[1.0], [2.0], [0.0]])
    net = EmbeddingNet(2, 3, 1, (0.5, 5.5), traits=traits if config.choice_weight else None)
    rows = {"user_factors": [[0], [L]], "movie_factors": [[0], [0], [1]], "user_bias": [[L], [0]], "movie_bias": [[0], [-2 * L], [0]]}
    rows |= {"user_choice": [[0.5, 0.25], [2, -1]]} if config.choice_weight else {}
    net.load_state_dict({f"{name}.weight": torch.tensor(row) for name, row in rows.items()}, strict=False)
    return ratings, config, net, tuple(torch.tensor(a) for a in (ratings.user_idx, ratings.movie_idx, ratings.rating))


STARS = 0.75**2 + 0.75**2 + 1.25**2  # squared errors
# user 1 has 1 rating, the mean is 1.5: 0.3 * 1.5 * L^2;  movie 2: 0.2 * 1^2;  b_0 pays for 2 ratings, c_1 = -2 L for one
STARS_L2 = 0.3 * 1.5 * L**2 + 0.2 + 0.1 * (2 * L**2 + (2 * L) ** 2)
# features are [0, 1], [0, 2], [1, 0]: t = 0.25, 0.5, 0.5 of user 0 and -1, -2, 2 of user 1
CHOSEN, ALL_PAIRS = 0.75**2 + 0.5**2 + 1**2, 0.25**2 + 0.5**2 + 0.5**2 + 1 + 4 + 4
# |s_0|^2 = 0.3125, weight 2 + 0.5 * 3;  |s_1|^2 = 5, weight 1 + 0.5 * 3;  |q_2|^2 = 1, weight 1 + 0.5 * 3^2 / (2^2 + 1^2)
CHOICE_L2 = 0.1 * (3.5 * 0.3125 + 2.5 * 5) + 0.2 * 1.9


def test_the_loss_of_stars_by_hand():
    ratings, config, net, batch = by_hand(choice_weight=0.0)
    loss, error = Loss(ratings, config, "cpu")(net, *batch)
    assert loss.item() == pytest.approx((STARS + STARS_L2) / 3, rel=1e-6)
    assert error.item() == pytest.approx(STARS / 3, rel=1e-6)
    assert not error.requires_grad


def test_the_loss_of_choice_by_hand():
    ratings, config, net, batch = by_hand()
    loss, error = Loss(ratings, config, "cpu")(net, *batch)
    assert loss.item() == pytest.approx((STARS + STARS_L2 + 2 * (CHOSEN + 0.5 * ALL_PAIRS + CHOICE_L2)) / 3, rel=1e-6)
    assert error.item() == pytest.approx(STARS / 3, rel=1e-6)


def test_the_same_settings_suit_every_scale():
    """Stars count in units: on a scale 32 times as wide the loss is the same, and the error is in stars squared."""
    ratings, config, net, (users, movies, stars) = by_hand()
    wide = build_ratings(ratings.user_idx, ratings.movie_idx, ratings.rating * 32)
    loss, error = Loss(ratings, config, "cpu")(net, users, movies, stars)
    net.y_range = (0.5 * 32, 5.5 * 32)
    assert wide.unit == 32
    wide_loss, wide_error = Loss(wide, config, "cpu")(net, users, movies, stars * 32)
    assert wide_loss.item() == pytest.approx(loss.item(), rel=1e-6)
    assert wide_error.item() == pytest.approx(1024 * error.item(), rel=1e-6)


@pytest.fixture
def problem(blocks):
    """Some ratings, and a network in double precision with traits, an offset and large weights; settings with every penalty."""
    few = blocks.take(np.flatnonzero((blocks.user_idx < 7) & (blocks.movie_idx % 7 == 0)))
    config = TrainConfig(**SETTINGS | CHOICE | {"n_factors": 2, "l2_exponent": 0.4})
    random = torch.Generator().manual_seed(0)
    net = EmbeddingNet(few.n_users, few.n_movies, 2, (0.5, 5.5), traits=torch.randn(few.n_movies, 3, generator=random), generator=random)
    net.offset.fill_(0.3)
    loss = Loss(few, config, "cpu")
    loss.pulls = {name: pull.double() for name, pull in loss.pulls.items()}
    return few, config, net.double(), loss


def batch_of(ratings, part=slice(None)):
    return tuple(torch.tensor(a[part]) for a in (ratings.user_idx, ratings.movie_idx, ratings.rating.astype(float)))


def plain_loss(ratings, config, weights, traits):
    """The loss as the head of ``fitting`` and of ``adam`` write it, in loops over ratings and over all pairs."""
    p, b, q, c, s = (weights[f"{name}.weight"] for name in ("user_factors", "user_bias", "movie_factors", "movie_bias", "user_choice"))
    x, total = np.hstack([q, traits]), 0.0
    n_u, n_m = np.bincount(ratings.user_idx, minlength=len(p)), np.bincount(ratings.movie_idx, minlength=len(q))
    mean_u, mean_m = n_u.clip(min=1).mean(), n_m.clip(min=1).mean()  # rows without ratings count as one, as in ``penalties``
    for u, m, stars in zip(ratings.user_idx, ratings.movie_idx, ratings.rating.tolist(), strict=True):
        predicted = 0.5 + 5 / (1 + math.exp(-(p[u] @ q[m] + b[u, 0] + c[m, 0] + 0.3)))
        total += (predicted - stars) ** 2 + config.bias_l2 * (b[u, 0] ** 2 + c[m, 0] ** 2)
        total += config.user_l2 * (mean_u / n_u[u]) ** 0.4 * p[u] @ p[u] + config.movie_l2 * (mean_m / n_m[m]) ** 0.4 * q[m] @ q[m]
        total += config.choice_weight * (1 - s[u] @ x[m]) ** 2
    for u, m in itertools.product(range(len(p)), range(len(q))):
        total += config.choice_weight * config.unseen_weight * (s[u] @ x[m]) ** 2
    total += config.choice_weight * config.user_choice_l2 * (n_u + config.unseen_weight * n_m.sum() ** 2 / (n_m**2).sum()) @ (s**2).sum(1)
    total += config.choice_weight * config.movie_choice_l2 * (n_m + config.unseen_weight * n_u.sum() ** 2 / (n_u**2).sum()) @ (q**2).sum(1)
    return total / len(ratings)


def test_the_loss_and_its_gradient_are_those_of_plain_loops(problem):
    """The gradient against central differences of the loops."""
    ratings, config, net, loss = problem
    total, _ = loss(net, *batch_of(ratings))
    total.backward()
    weights = {name: weight.detach().numpy() for name, weight in net.named_parameters()}
    assert total.item() == pytest.approx(plain_loss(ratings, config, weights, net.traits.numpy()), rel=1e-6)
    random, h = np.random.default_rng(0), 1e-4
    for name, weight in weights.items():
        rated = {"user": ratings.user_idx, "movie": ratings.movie_idx}[name.partition("_")[0]]
        for row in (*random.choice(rated, 3), -1):  # and one that nobody rated
            column, values = random.integers(weight.shape[1]), []
            for change in (h, -2 * h):
                weight[row, column] += change
                values.append(plain_loss(ratings, config, weights, net.traits.numpy()))
            weight[row, column] += h
            slope = (values[0] - values[1]) / (2 * h)
            assert net.get_parameter(name).grad[row, column].item() == pytest.approx(slope, rel=1e-4, abs=1e-7), (name, row)


def test_the_sum_over_all_pairs_is_that_of_a_double_loop(problem):
    ratings, _, net, loss = problem
    users, movies, _ = batch_of(ratings)
    missed = (1 - net.choose(users, movies)).square().mean()
    all_pairs = 0.0
    for user, movie in itertools.product(range(ratings.n_users), range(ratings.n_movies)):
        all_pairs += net.choose(torch.tensor([user]), torch.tensor([movie])).item() ** 2
    wanted = missed.item() + 0.5 / len(ratings) * all_pairs
    assert loss.of_choice(net, users, movies).item() == pytest.approx(wanted, rel=1e-9)


def test_batches_estimate_the_loss_without_bias(problem):
    """The mean over an epoch's batches, weighted by their size, is the loss of all ratings."""
    ratings, _, net, loss = problem
    cuts = [slice(start, start + 5) for start in range(0, len(ratings), 5)]
    sizes = [len(ratings.rating[cut]) for cut in cuts]
    assert sizes[-1] not in (0, 5)
    parts = [loss(net, *batch_of(ratings, cut))[0].item() for cut in cuts]
    assert np.average(parts, weights=sizes) == pytest.approx(loss(net, *batch_of(ratings))[0].item(), rel=1e-9)


def test_settings_without_penalties_have_no_pulls(blocks):
    assert row_pulls(blocks, TrainConfig.preset("seed")) == {}


def test_the_seed_recipe_is_the_post_s_loop(blocks):
    """Step for step against plain PyTorch as the post writes it, from the same start and in the same order."""
    config = TrainConfig.preset("seed", epochs=2, n_factors=4, device="cpu")
    train, valid = blocks.split()
    run, steps = AdamRun(train, valid, config, "cpu"), []
    loss_of = run.loss
    run.loss = lambda *batch: steps.append(loss_of(*batch)) or steps[-1]
    sizes = {"p": (90, 4), "b": (90, 1), "q": (36, 4), "c": (36, 1)}
    tables = nn.ModuleDict({name: nn.Embedding(*size) for name, size in sizes.items()})
    for mine, theirs in zip(tables.parameters(), run.net.parameters(), strict=True):
        mine.data.copy_(theirs)
    low, high = run.y_range
    optimizer, criterion, losses = torch.optim.Adam(tables.parameters(), lr=1.5e-3, weight_decay=3e-4), nn.MSELoss(), []
    users, movies, stars = (torch.tensor(a) for a in (train.user_idx, train.movie_idx, train.rating))
    for epoch in (1, 2):
        order = torch.randperm(len(stars), generator=torch.Generator().manual_seed(config.seed * 1_000_003 + epoch))
        for batch in order.split(100):
            u, m = users[batch], movies[batch]
            score = (tables["p"](u) * tables["q"](m)).sum(1, keepdim=True) + tables["b"](u) + tables["c"](m)
            loss = criterion(torch.sigmoid(score) * (high - low) + low, stars[batch][:, None])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    finished(run)
    assert [error.item() for _, error in steps] == pytest.approx(losses, rel=1e-5)
    for mine, theirs in zip(tables.parameters(), run.net.parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-5)


@pytest.mark.parametrize("preset", ["seed", "quick"])
def test_a_resumed_run_goes_on_to_the_same_bits(blocks, preset):
    config = config_of(preset, schedule="constant", batch_size=100)
    whole = finished(AdamRun(*blocks.split(), config, "cpu"))
    half = finished(AdamRun(*blocks.split(), replace(config, epochs=2), "cpu"))
    ends = []
    for with_memory in (True, False):
        again = AdamRun(*blocks.split(), config, "cpu")
        assert {name: a.shape for name, a in again.state.arrays.items()} == {name: a.shape for name, a in half.state.arrays.items()}
        blank = again._memory()
        again._take_state(half.state)
        if not with_memory:
            again._set_memory({name: np.asarray(tensor) for name, tensor in blank.items()})
        again.history = list(half.history)
        ends.append(finished(again).state.arrays)
    assert all(np.array_equal(array, ends[0][name]) for name, array in whole.state.arrays.items())
    assert not np.array_equal(whole.state.arrays["last.user_factors"], ends[1]["last.user_factors"])  # negative control


def test_what_adam_remembers_by_name(blocks):
    run = run_of(blocks)
    layers = ("user_factors", "user_bias", "movie_factors", "movie_bias", "user_choice")
    names = {f"adam.{layer}.{kind}" for layer in layers for kind in ("step", "exp_avg", "exp_avg_sq")}
    assert set(run._memory()) == names
    assert not any(tensor.any() for tensor in run._memory().values())
    memory = finished(run)._memory()
    assert set(memory) == names
    assert memory["adam.user_choice.step"] == 4 * math.ceil(len(run.ratings) / run.batch_size)


def test_the_weights_are_those_of_the_network(blocks):
    run = finished(run_of(blocks))
    layers = {name: weight.detach() for name, weight in run.net.named_parameters()}
    assert {f"{name}.weight" for name in run._weights()} == set(layers)
    for name, weight in run._weights().items():
        assert torch.equal(weight, layers[f"{name}.weight"].reshape(weight.shape)), name
        assert weight.ndim == (1 if "bias" in name else 2)
    stars = run.net(*run.valid[:2]).detach().clamp(2, 5)
    assert run._valid_loss() == pytest.approx((stars - run.valid[2]).square().mean().item(), rel=1e-5)


def test_choice_is_learned_where_it_has_a_weight(blocks):
    run = finished(run_of(blocks, epochs=20, learning_rate=0.03))
    assert run.net.user_choice.weight.shape == (90, 4 + run.traits.shape[1])
    assert np.array_equal(run.net.traits, run.traits)
    users, movies = (torch.tensor(a) for a in np.indices((90, 36)).reshape(2, -1))
    rated = torch.zeros(90, 36, dtype=torch.bool)
    rated[run.train[0], run.train[1]] = True
    chosen = run.net.choose(users, movies).detach().reshape(90, 36)
    assert chosen[rated].mean() > chosen[~rated].mean() + 0.02
    plain = run_of(blocks, choice_weight=0.0)
    assert set(plain._weights()) == {"user_factors", "user_bias", "movie_factors", "movie_bias"}


def steps_of(run):
    return run._memory()["adam.user_bias.step"].item()


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
    generator = torch.Generator
    monkeypatch.setattr(torch, "Generator", lambda device="cpu": generator("cpu" if device == "meta" else device))
    config = config_of(weight_decay=0.01, batch_size=100)
    return AdamRun(*blocks.split(), config, "meta")


def test_a_whole_epoch_runs_without_any_number_known(meta_run):
    """No step may look at the device, nor mix tensors of the host with the device's."""
    total = meta_run._learn(1, lambda: False)
    assert (total.device.type, total.dtype, total.shape) == ("meta", torch.float32, ())
    with pytest.raises(RuntimeError, match="meta"):
        meta_run._pass(1, lambda: False)  # the one place that reads


def test_everything_is_on_the_device_in_single_precision(meta_run, monkeypatch):
    """Apple's GPUs have no double precision."""
    seen = []
    monkeypatch.setattr(meta_run.optimizer, "step", lambda: None)  # which is fused on real devices only: else it counts on the host

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
    assert steps_of(run) == 3


STARS_ONLY = [
    (300_000, 512, 0.01, 512, 0.01),  # not large
    (409_600, 1_024, 0.005, 4_096, 0.01),  # four times the batch, twice the rate
    (409_601, 1_024, 0.005, 4_097, 0.005 * (4_097 / 1_024) ** 0.5),  # a hundred steps
    (10_000_000, 512, 0.01, 100_000, 0.02),  # no faster than this
    (10_000_000, 512, 0.05, 100_000, 0.05),  # nor slower than asked for
    (10_000_000, 200_000, 0.01, 200_000, 0.01),  # large enough
    (10**9, 512, 0.01, 1_000_000, 0.02),  # the largest that can be set
]
WITH_CHOICE = [
    (81_920, 1_024, 0.005, 4_096, 0.01),  # twenty steps
    (300_000, 1_024, 0.005, 4_096, 0.01),  # or more, where each has 4,096
    (1_200, 60, 0.005, 60, 0.005),  # twenty steps already
    (1_000_000, 512, 0.01, 10_000, 0.02),  # a hundred steps
]


@pytest.mark.parametrize(("choice_weight", "case"), [(0.0, case) for case in STARS_ONLY] + [(5.0, case) for case in WITH_CHOICE])
def test_batch_sizes_and_learning_rates_by_hand(choice_weight, case):
    n_ratings, batch_size, rate, size, wanted = case
    config = TrainConfig(method="adam", batch_size=batch_size, learning_rate=rate, choice_weight=choice_weight)
    large = in_large_batches(config, n_ratings)
    assert (large.batch_size, large.learning_rate) == (size, pytest.approx(wanted))
    assert replace(large, batch_size=batch_size, learning_rate=rate) == config


def test_the_post_s_recipe_keeps_its_batches_whatever_the_data():
    seed = TrainConfig.preset("seed")
    assert in_large_batches(seed, 10_000_000) == seed


def test_a_run_on_large_data_takes_large_batches_and_faster_steps(blocks, monkeypatch):
    monkeypatch.setattr(adam, "_LARGE", 100)
    run = run_of(blocks, batch_size=1, learning_rate=0.005, schedule="constant", epochs=1, choice_weight=0.0)
    size = math.ceil(len(run.ratings) / 100)
    run.fit(lambda _: None, Event(), Event())
    assert steps_of(run) == math.ceil(len(run.ratings) / size) < 101
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


def test_zero_weights_predict_the_mean_at_the_start(blocks):
    run = run_of(blocks, factor_std=0.0)
    assert run.net(*(part[:1] for part in run.train[:2])).item() == pytest.approx(float(run.ratings.rating.mean()), abs=1e-5)


@pytest.mark.parametrize(
    ("schedule", "at"),
    [
        ("constant", {0: 1, 0.5: 1, 1: 1}),
        ("linear", {0: 1, 0.25: 0.75, 1: 0}),
        ("one_cycle", {0: 0.04, 0.25: 1, 0.625: 0.52, 1: 0.04}),
    ],
)
def test_learning_rate_schedules(blocks, schedule, at):
    run = run_of(blocks, schedule=schedule, learning_rate=0.01, batch_size=100)
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
    assert "smaller learning rate, such as 0.00065" in run._divergence(2, guessing * 1.5, 1.0)
    assert "diverged in epoch 3" in run._divergence(3, math.nan, 1.0)
    assert run._divergence(3, guessing / 4, math.nan)


def test_rows_without_training_ratings_are_zero(blocks):
    train, valid = blocks.split()
    seen = train.take(np.flatnonzero((train.movie_idx != 3) & (train.user_idx != 5)))
    run = AdamRun(seen, valid, config_of(epochs=1), "cpu")
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
