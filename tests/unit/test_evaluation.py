from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec.errors import ConfigError, DataError
from cfrec.evaluation import baseline_losses, guesses
from cfrec.ratings import build_ratings


def test_evaluate_gives_the_figures_of_the_training(trained, blocks):
    figures = cfrec.evaluate(trained, blocks)
    assert {name: figures[name] for name in trained.metrics} == pytest.approx(trained.metrics)
    _, valid = blocks.split()
    misses = np.abs(trained.predict_rows(valid.user_idx, valid.movie_idx) - valid.rating)
    assert figures["within_half"] == np.count_nonzero(misses <= 0.5) / len(valid)
    assert figures["within_one"] == (misses <= 1).mean()


def test_evaluate_needs_to_know_what_was_held_out(trained, blocks):
    with pytest.raises(DataError, match="held out"):
        cfrec.evaluate(replace(trained, split=None), blocks)
    with pytest.raises(DataError, match="other users or movies"):
        cfrec.evaluate(replace(trained, split=(0.2, 42), user_ids=trained.user_ids[:-1]), blocks)


def test_the_same_ratings_in_another_order_are_refused(trained, blocks):
    """Their held-out part would hold ratings the model learned from, and flatter it."""
    turned = blocks.take(np.arange(len(blocks))[::-1])
    with pytest.raises(DataError, match="not the ratings, in the order"):
        cfrec.evaluate(trained, turned)


def test_constant_ratings_can_be_cross_validated(blocks, block_config):
    constant = replace(blocks, rating=np.full_like(blocks.rating, 5.0), scale=(5.0, 5.0, 1.0))
    assert all(fold["mse"] < 1e-3 for fold in cfrec.cross_validate(constant, block_config, 2))


def test_a_fold_that_diverges_is_named(blocks, block_config):
    with pytest.raises(ConfigError, match="Fold 1: Training diverged"):
        cfrec.cross_validate(blocks, replace(block_config.for_adam(), learning_rate=10.0, schedule="constant"), 2)


def test_each_fold_is_trained_without_what_it_is_tested_on(blocks, block_config):
    seen = []
    folds = cfrec.cross_validate(blocks, block_config, 3, on_fold=lambda number, errors: seen.append((number, errors)))
    assert [number for number, _ in seen] == [1, 2, 3]
    assert [errors for _, errors in seen] == folds
    for (part, held_out), errors in zip(blocks.folds(3), folds, strict=True):
        assert errors["mse"] == pytest.approx(cfrec.train(part, held_out, block_config).history[-1].valid_loss)
        assert errors["rmse"] == pytest.approx(errors["mse"] ** 0.5)


@pytest.fixture
def five():
    """Ann and Bob rated films a and b to learn from, and a and c to test with: a 4, a 2, b 5 | a 5, c 3."""
    users = np.array(["ann", "bob", "ann", "cid", "bob"], object)
    films = np.array(["a", "a", "b", "a", "c"], object)
    catalogue = {"a": ("Alien (1979)", ""), "b": ("Brazil (1985)", ""), "c": ("Crash (1996)", "")}
    ratings = build_ratings(users, films, np.array([4.0, 2, 5, 5, 3]), movies=catalogue)
    return ratings.take(np.arange(3)), ratings.take(np.array([3, 4]))


def test_baselines_by_hand(five):
    """The mean is 11/3, misses 4/3 and 2/3. Film a has the mean 3 and misses 2; film c was never seen: 11/3 misses 2/3."""
    losses = baseline_losses(*five)
    assert losses == pytest.approx({"mean": (16 / 9 + 4 / 9) / 2, "movie_mean": (4 + 4 / 9) / 2})
    assert list(losses) == ["mean", "movie_mean"]
    assert {type(value) for value in losses.values()} == {float}


def test_baselines_do_not_look_at_what_was_held_out(five):
    """Negative control: the table of movies has means over all ratings, film c's held-out 3 among them."""
    train, valid = five
    assert valid.movies.set_index("movie_id")["mean_rating"]["c"] == 3
    peeking = np.mean((valid.movies["mean_rating"].to_numpy()[valid.movie_idx] - valid.rating) ** 2)
    assert baseline_losses(train, valid)["movie_mean"] > peeking + 1
    other = replace(valid, rating=np.array([3.0, 11 / 3], np.float32))
    assert baseline_losses(train, other)["movie_mean"] == pytest.approx(0, abs=1e-12)


def test_a_trained_model_beats_both_baselines_and_on_shuffled_stars_neither(trained, blocks, block_config):
    losses = baseline_losses(*blocks.split())
    assert trained.metrics["mse"] < 0.05 * min(losses.values())
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))
    blind = cfrec.train(*dealt.split(), replace(block_config, epochs=3))
    assert blind.metrics["mse"] > 0.95 * baseline_losses(*dealt.split())["mean"]


def test_guesses_by_hand(trained, five):
    """Scores are dot product and biases: cid and a make 0, so 3 stars; bob and c make log 2, so 4 stars."""
    train, valid = five
    model = replace(
        trained,
        user_factors=np.array([[9, 9], [0, 1], [1, 0]], np.float32),  # ann, bob, cid
        movie_factors=np.array([[1, 7], [9, 9], [5, np.log(2)]], np.float32),
        user_bias=np.array([9, 0.25, -0.5], np.float32),
        movie_bias=np.array([-0.5, 9, -0.25], np.float32),
        offset=0.0,
        y_range=(0.0, 6.0),
        scale=(1.0, 5.0, 1.0),
        user_ids=train.user_ids,
        movies=train.movies,
    )
    table = guesses(model, valid)
    assert list(table) == ["user_id", "movie_id", "title", "actual", "predicted", "miss"]
    assert table[["user_id", "movie_id", "title"]].to_numpy().tolist() == [["cid", "a", "Alien (1979)"], ["bob", "c", "Crash (1996)"]]
    assert table["actual"].tolist() == [5, 3]
    assert table["predicted"].tolist() == pytest.approx([3, 4], abs=1e-6)
    assert table["miss"].tolist() == pytest.approx([-2, 1], abs=1e-6)
    assert guesses(model, valid.take(np.array([1, 0])))["user_id"].tolist() == ["bob", "cid"]  # in the order of the file


def test_guesses_miss_by_as_much_as_the_metrics_say(trained, blocks):
    _, valid = blocks.split()
    table = guesses(trained, valid)
    assert len(table) == len(valid) == 395
    assert (table["miss"].astype(float) ** 2).mean() == pytest.approx(trained.metrics["mse"])
    assert table["miss"].abs().mean() == pytest.approx(trained.metrics["mae"])
    first = valid.user_ids[valid.user_idx[0]], valid.movies["movie_id"][valid.movie_idx[0]]
    assert (table["user_id"][0], table["movie_id"][0], table["actual"][0]) == (*first, valid.rating[0])
    assert table["predicted"][0] == cfrec.predict_ratings(trained, [first[0]], [first[1]])[0]
