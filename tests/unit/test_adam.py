import math
from dataclasses import replace
from threading import Event

import numpy as np
import pytest
import torch
from torch import nn

from cfrec.adam import AdamRun, _Adam
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


def test_the_penalty_of_each_row_by_hand():
    # users rate 3, 1 and 2 times: mean 2; movies 4 and 2 times: mean 3
    users, movies = [0, 0, 0, 1, 2, 2], [0, 1, 0, 0, 0, 1]
    ratings = build_ratings(np.array(users), np.array(movies) + 10, np.ones(6), timestamp=None)
    assert len(ratings) == 5  # user 0 rated movie 0 twice
    run = AdamRun(ratings, ratings, TrainConfig(user_l2=0.3, movie_l2=0.2, l2_exponent=0.5, n_factors=2), "cpu")
    counts_user, counts_movie = np.array([2, 1, 2]), np.array([3, 2])
    assert run.user_l2.numpy() == pytest.approx(0.3 * np.sqrt(counts_user.mean() / counts_user))
    assert run.movie_l2.numpy() == pytest.approx(0.2 * np.sqrt(counts_movie.mean() / counts_movie))


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
