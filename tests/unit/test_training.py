import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch

import cfrec
from cfrec import training
from cfrec.adam import AdamRun
from cfrec.errors import ConfigError, DataError, DeviceError
from cfrec.training import estimate_seconds

WEIGHTS = ("user_factors", "user_bias", "movie_factors", "movie_bias")


@pytest.fixture(scope="module", params=["sgd", "adam"])
def block_config(request):
    rate = {"sgd": 0.018, "adam": 0.03}[request.param]
    return cfrec.TrainConfig.preset("quick", method=request.param, learning_rate=rate, n_factors=4, epochs=12, batch_size=64, device="cpu")


@pytest.fixture(scope="module")
def trained(blocks, block_config):
    return cfrec.train(*blocks.split(), block_config)


def same_weights(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in WEIGHTS)


def test_it_finds_the_blocks(trained, blocks):
    """Known answer: everyone loves one block of three, so held-out stars are all but certain."""
    naive = float(np.var(blocks.rating))
    assert naive > 1.9
    assert trained.metrics["mse"] < 0.05 * naive
    for row in range(trained.n_movies):
        neighbours = cfrec.similar_movies(trained, 100 + row, k=5)["movie_id"] - 100
        assert set(neighbours // 12) == {row // 12}


def test_shuffled_stars_teach_nothing(blocks, block_config):
    """Negative control of the test above: with the stars dealt out at random there is nothing to find."""
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))
    trained = cfrec.train(*dealt.split(), block_config)
    assert trained.metrics["mse"] > 0.9 * np.var(blocks.rating)


def test_history_and_on_epoch_tell_the_same(blocks, block_config):
    seen = []
    trained = cfrec.train(*blocks.split(), block_config, on_epoch=seen.append)
    assert seen == trained.history
    assert [m.epoch for m in seen] == list(range(1, 13))
    assert all(m.seconds > 0 and m.ratings_per_second > 0 for m in seen)
    best = min(seen, key=lambda m: m.valid_loss)
    assert trained.best_epoch == best.epoch
    assert trained.metrics["mse"] == pytest.approx(best.valid_loss, rel=1e-4)
    assert trained.metrics["rmse"] == pytest.approx(trained.metrics["mse"] ** 0.5)


def test_same_seed_same_bits_other_seed_other_weights(blocks, block_config, trained):
    again = cfrec.train(*blocks.split(), block_config)
    other = cfrec.train(*blocks.split(), replace(block_config, seed=43))
    assert same_weights(again, trained)
    assert not same_weights(other, trained)


@pytest.mark.parametrize(
    "change",
    [
        {"n_factors": 5},
        {"epochs": 11},
        {"batch_size": 65},
        {"learning_rate": 0.02},
        {"schedule": "linear"},
        {"beta2": 0.99},
        {"weight_decay": 0.01},
        {"user_l2": 0.2},
        {"movie_l2": 0.2},
        {"bias_l2": 0.1},
        {"l2_exponent": 0.0},
        {"factor_std": 0.1},
        {"bias_std": 0.1},
        {"start_at_mean": False},
        {"margin_below": 1.0},
        {"margin_above": 1.0},
    ],
)
def test_each_setting_changes_the_result(blocks, block_config, trained, change):
    is_for_adam_alone = change.keys() <= {"batch_size", "weight_decay"}
    unchanged = same_weights_or_shape(cfrec.train(*blocks.split(), replace(block_config, **change)), trained)
    assert unchanged == (is_for_adam_alone and block_config.method == "sgd")


def same_weights_or_shape(a, b):
    return a.movie_factors.shape == b.movie_factors.shape and same_weights(a, b)


def test_torch_is_left_as_it_was(blocks, block_config):
    torch.manual_seed(7)
    wanted = torch.rand(3)
    torch.manual_seed(7)
    threads = torch.get_num_threads()
    cfrec.train(*blocks.split(), replace(block_config, epochs=1))
    assert torch.equal(torch.rand(3), wanted)
    assert torch.get_num_threads() == threads


def test_runs_at_once_give_what_each_gives_alone(blocks, block_config):
    """And leave torch's threads and random numbers as they were."""
    configs = [replace(block_config, seed=seed, epochs=3) for seed in range(4)]
    alone = [cfrec.train(*blocks.split(), config) for config in configs]
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda config: cfrec.train(*blocks.split(), config), configs * 5))
    assert all(same_weights(a, b) for a, b in zip(alone * 5, together, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_stop_keeps_the_best_so_far(blocks, block_config):
    stop = threading.Event()
    trained = cfrec.train(*blocks.split(), block_config, stop=stop, on_epoch=lambda m: m.epoch == 3 and stop.set())
    assert trained.outcome == "stopped"
    assert [m.epoch for m in trained.history] == [1, 2, 3]
    assert trained.metrics["mse"] == pytest.approx(min(m.valid_loss for m in trained.history), rel=1e-4)


class LateStop(threading.Event):
    """A stop that is set once it has been asked for so many times: in the midst of an epoch."""

    def __init__(self, after):
        super().__init__()
        self.left = after

    def is_set(self):
        self.left -= 1
        return self.left < 0


@pytest.mark.parametrize("after", range(60, 140, 9))
def test_what_a_stop_in_the_midst_of_an_epoch_keeps_is_of_a_whole_one(blocks, block_config, after):
    trained = cfrec.train(*blocks.split(), block_config, stop=LateStop(after))  # sgd asks once an epoch, and may get to its end
    assert len(trained.history) > 1
    assert trained.best_epoch <= len(trained.history)


def test_pause_holds_and_the_result_is_the_same(blocks, block_config, trained):
    pause, reached, result = threading.Event(), threading.Event(), []

    def on_epoch(metrics):
        if metrics.epoch == 2:
            pause.set()
            reached.set()

    run = threading.Thread(target=lambda: result.append(cfrec.train(*blocks.split(), block_config, on_epoch=on_epoch, pause=pause)))
    run.start()
    assert reached.wait(20)
    time.sleep(0.2)
    assert run.is_alive()
    assert not result
    pause.clear()
    run.join(20)
    assert same_weights(result[0], trained)


def test_a_paused_run_can_be_stopped(blocks, block_config):
    pause, stop = threading.Event(), threading.Event()
    pause.set()
    threading.Timer(0.1, stop.set).start()
    assert cfrec.train(*blocks.split(), block_config, pause=pause, stop=stop).outcome == "stopped"


def test_patience_stops_early(blocks, block_config):
    config = replace(
        block_config,
        epochs=200,
        patience=2,
        user_l2=0.0,
        movie_l2=0.0,
        bias_l2=0.0,
        learning_rate=3 * block_config.learning_rate,
        schedule="constant",
    )
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))  # nothing to learn: it soon overfits
    trained = cfrec.train(*dealt.split(), config)
    assert trained.outcome == "early_stopped"
    assert len(trained.history) == trained.best_epoch + 2


@pytest.mark.parametrize("recipe", ["quick", "seed"])
def test_divergence_ends_the_run_with_the_last_good_weights_and_advice(blocks, block_config, recipe):
    config = cfrec.TrainConfig.preset(recipe, learning_rate=10.0, schedule="constant", start_at_mean=True, bias_std=0.0, factor_std=0.1)
    trained = cfrec.train(*blocks.split(), config)
    assert trained.outcome == "diverged"
    assert "Try a smaller learning rate, such as 0.0065" in trained.advice
    assert all(np.isfinite(getattr(trained, name)).all() for name in WEIGHTS)
    assert trained.metrics["mse"] < 1.1 * np.var(blocks.rating)


@pytest.mark.parametrize("at", [1, 5, 11])
def test_a_resumed_run_is_bit_identical_to_one_never_stopped(blocks, block_config, trained, at):
    stop = threading.Event()
    first = cfrec.train(*blocks.split(), block_config, stop=stop, on_epoch=lambda m: m.epoch == at and stop.set())
    resumed = cfrec.train(*blocks.split(), block_config, resume=first)
    assert same_weights(resumed, trained)
    assert [(m.epoch, m.train_loss, m.valid_loss) for m in resumed.history] == [
        (m.epoch, m.train_loss, m.valid_loss) for m in trained.history
    ]
    assert resumed.best_epoch == trained.best_epoch


def test_a_run_stopped_in_its_first_epoch_resumes_too(blocks, block_config, trained):
    stop = threading.Event()
    stop.set()
    first = cfrec.train(*blocks.split(), block_config, stop=stop)
    assert first.best_epoch == 0
    assert same_weights(cfrec.train(*blocks.split(), block_config, resume=first), trained)


def test_a_run_that_ended_early_does_not_go_on_when_resumed(blocks, block_config):
    config = replace(
        block_config, epochs=200, patience=2, user_l2=0.0, movie_l2=0.0, learning_rate=3 * block_config.learning_rate, schedule="constant"
    )
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))
    ended = cfrec.train(*dealt.split(), config)
    again = cfrec.train(*dealt.split(), config, resume=ended)
    assert (again.outcome, again.history) == ("early_stopped", ended.history)
    assert same_weights(again, ended)


def test_more_epochs_only_where_no_schedule_spans_them(blocks, block_config):
    constant = replace(block_config, schedule="constant", epochs=3)
    first = cfrec.train(*blocks.split(), constant)
    more = cfrec.train(*blocks.split(), replace(constant, epochs=5), resume=first)
    assert same_weights(more, cfrec.train(*blocks.split(), replace(constant, epochs=5)))
    with pytest.raises(ConfigError, match="one_cycle spans the whole run"):
        cfrec.train(*blocks.split(), replace(block_config, epochs=20), resume=cfrec.train(*blocks.split(), block_config))


def test_paused_time_does_not_count(blocks, block_config):
    pause = threading.Event()

    def on_epoch(metrics):
        if metrics.epoch == 1:
            pause.set()
            threading.Timer(0.5, pause.clear).start()

    trained = cfrec.train(*blocks.split(), replace(block_config, epochs=3), on_epoch=on_epoch, pause=pause)
    assert trained.history[1].seconds < 0.4


def test_a_run_that_learns_nothing_says_so(blocks, block_config):
    hopeless = replace(block_config, learning_rate=1e-6, schedule="constant", epochs=1, weight_decay=1.0)
    dealt = replace(blocks, rating=np.random.default_rng(1).permutation(blocks.rating))
    trained = cfrec.train(*dealt.split(), replace(hopeless, learning_rate=0.5, schedule="constant"))
    assert trained.best_epoch == 0
    assert trained.advice


def test_empty_parts_are_refused(blocks):
    nothing = blocks.take(np.array([], int))
    for parts in ((nothing, blocks), (blocks, nothing)):
        with pytest.raises(DataError, match="no ratings to train on"):
            cfrec.train(*parts)


def test_only_what_fits_is_resumed(blocks, block_config, trained):
    train, valid = blocks.split()
    with pytest.raises(ConfigError, match="changed: batch_size"):
        cfrec.train(train, valid, replace(block_config, batch_size=32), resume=trained)
    with pytest.raises(ConfigError, match="without the state"):
        cfrec.train(train, valid, block_config, resume=replace(trained, state=None))
    broken = {name: array for name, array in trained.state.arrays.items() if name != "last.user_bias"}
    with pytest.raises(ConfigError, match="state does not fit"):
        cfrec.train(train, valid, block_config, resume=replace(trained, state=replace(trained.state, arrays=broken)))
    with pytest.raises(DataError, match="other ratings"):
        cfrec.train(*blocks.split(seed=1), block_config, resume=trained)


def test_parts_of_other_data_are_refused(blocks):
    fewer_movies = replace(blocks, movies=blocks.movies.iloc[:5])
    with pytest.raises(DataError, match="not parts of one data set"):
        cfrec.train(blocks, fewer_movies)


def test_missing_devices_and_too_little_memory_are_refused(blocks, monkeypatch):
    with pytest.raises(DeviceError, match="cuda"):
        cfrec.train(*blocks.split(), cfrec.TrainConfig(device="cuda:99"))
    monkeypatch.setattr("cfrec.config.free_memory", lambda: 1000)
    with pytest.raises(ConfigError, match="memory"):
        cfrec.train(*blocks.split())


@pytest.mark.parametrize(("n_users", "n_movies"), [(1, 4), (4, 1), (2, 1)])
def test_the_smallest_data_trains(n_users, n_movies):
    users, movies = (a.ravel() for a in np.meshgrid(np.arange(n_users), np.arange(n_movies)))
    ratings = cfrec.ratings.build_ratings(users, movies, 1.0 + (users + movies) % 5)
    trained = cfrec.train(*ratings.split(0.5), cfrec.TrainConfig.preset("quick", batch_size=1))
    assert trained.outcome == "completed"
    assert np.isfinite(trained.metrics["mse"])


@pytest.fixture
def clock(monkeypatch):
    """The first timed epoch takes 1 second, the second 3 and the third 2; and what was timed."""
    timed = []

    def time_epoch(run, epoch):
        timed.append((epoch, len(run.ratings)))
        return [1.0, 3.0, 2.0][epoch - 1]

    for run in ("adam.AdamRun", "sgd.SgdRun"):
        monkeypatch.setattr(f"cfrec.{run}.time_epoch", time_epoch)
    return timed


@pytest.mark.parametrize(
    ("batch_size", "n_ratings", "n_timed"),
    [
        (64, 80_000, 20 * 64),  # twenty steps
        (64, 1_000, 1_000),  # all there is
        (64, 1, 1),
        (100_000, 1_000_000, 200_000),  # no more than this, however large a step
    ],
)
def test_the_estimate_by_hand(clock, block_config, batch_size, n_ratings, n_timed):
    """The quicker of the two epochs after the first takes 2 seconds for so many ratings; twelve epochs of all of them take …"""
    config = replace(block_config, batch_size=batch_size, n_likeness=0)
    if config.method == "sgd":
        n_timed = min(n_ratings, 200_000)
    training = 2 * n_ratings / n_timed * 12
    assert estimate_seconds(config, 90, 36, n_ratings) == pytest.approx(training)
    assert clock == [(1, n_timed), (2, n_timed), (3, n_timed)]
    with_likeness = estimate_seconds(replace(config, n_likeness=8), 90, 36, n_ratings)
    assert with_likeness == pytest.approx(training + 2.5e-6 * n_ratings)


def test_twice_the_epochs_and_twice_the_ratings_take_twice_as_long(clock, block_config):
    n = {"sgd": 400_000, "adam": 10_000}[block_config.method]  # more than what is timed, and not so many that batches grow
    config = replace(block_config, n_likeness=0)
    once = estimate_seconds(config, 90, 36, n)
    assert estimate_seconds(replace(config, epochs=24), 90, 36, n) == pytest.approx(2 * once)
    assert estimate_seconds(config, 90, 36, 2 * n) == pytest.approx(2 * once)


@pytest.mark.parametrize("method", ["adam", "sgd"])
def test_an_estimate_is_made_with_the_batches_of_the_whole(clock, monkeypatch, method):
    """Of a million ratings a batch has ten thousand: timed in steps of 64, an epoch would seem many times as long."""
    monkeypatch.setattr(training, "load_kernels", lambda _: None)  # so that sgd is Adam's too
    sizes, time_epoch = [], AdamRun.time_epoch
    monkeypatch.setattr(AdamRun, "time_epoch", lambda run, epoch: sizes.append(run.batch_size) or time_epoch(run, epoch))
    config = cfrec.TrainConfig.preset("quick", method=method, n_factors=4, batch_size=64, device="cpu")
    estimate_seconds(config, 90, 36, 1_000_000)
    assert clock[0] == (1, 200_000)
    assert sizes == [10_000] * 3


@pytest.fixture
def timed(monkeypatch):
    """What estimates are made from: the settings, users, movies and ratings. Each is said to take two seconds."""
    seen = []

    def time_run(config, sample):
        seen.append((config.n_factors, sample.n_users, sample.n_movies, len(sample)))
        return 2.0

    monkeypatch.setattr(training, "_time_run", time_run)
    return seen


def test_an_estimate_of_a_huge_run_is_made_from_a_part_of_it(timed, monkeypatch):
    """It took 87 seconds and 4 GB, for each visitor who moved a slider: that of a sweep went through all users and all movies."""
    monkeypatch.setattr("cfrec.config.TrainConfig.check_memory", lambda *_: None)
    preset = cfrec.TrainConfig.preset
    n_epochs = 25_000_000 / 200_000 * 2.0 * 14
    assert estimate_seconds(preset("balanced", n_likeness=0), 200_000, 100_000, 25_000_000) == pytest.approx(n_epochs * 50 / 26)
    assert estimate_seconds(preset("accurate", n_likeness=0), 200_000, 100_000, 25_000_000) == pytest.approx(125 * 2.0 * 100)
    squares = 300_000 * 65**2 / 20_000_000
    assert estimate_seconds(preset("accurate", n_factors=64, n_likeness=0), 200_000, 100_000, 9_000_000) == pytest.approx(squares * 200)
    steps = 25_000_000 / 200 * 2.0 * 30 * 50 / 26
    assert estimate_seconds(preset("seed"), 200_000, 100_000, 25_000_000) == pytest.approx(steps)
    assert timed == [(26, 200_000, 100_000, 200_000), (16, 1_600, 800, 200_000), (64, 3_156, 1_578, 142_012), (26, 200_000, 100_000, 200)]


def test_estimates_wait_for_each_other(monkeypatch):
    """Each takes memory: of many visitors at once, all of it."""
    at_once, most = [], []

    def time_run(*_):
        at_once.append(1)
        most.append(len(at_once))
        time.sleep(0.01)
        at_once.pop()
        return 1.0

    monkeypatch.setattr(training, "_time_run", time_run)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda seed: estimate_seconds(cfrec.TrainConfig(seed=seed), 90, 36, 1_000), range(8)))
    assert most == [1] * 8


@pytest.mark.parametrize("change", [{}, {"schedule": "linear", "epochs": 1}, {"learning_rate": 10.0}, {"n_factors": 1, "batch_size": 1}])
def test_an_estimate_is_a_positive_number_of_seconds(block_config, change):
    seconds = estimate_seconds(replace(block_config, **change), 90, 36, 1_578)
    assert 0 < seconds < 600
    assert type(seconds) is float


def test_an_estimate_leaves_torch_as_it_was(block_config):
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    estimate_seconds(replace(block_config, n_threads=threads + 1), 90, 36, 100)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


def test_the_made_up_ratings_are_of_the_size_asked_for(block_config, monkeypatch):
    seen = []
    for run in ("adam.AdamRun", "sgd.SgdRun"):
        monkeypatch.setattr(f"cfrec.{run}.time_epoch", lambda run, _: seen.append(run) or 1.0)
    estimate_seconds(block_config, 7, 5, 1_000)
    run = seen[0]
    assert (run.ratings.n_users, run.ratings.n_movies, len(run.ratings)) == (7, 5, 1_000)
    assert set(run.ratings.user_idx.tolist()) == set(range(7))
    assert set(run.ratings.movie_idx.tolist()) == set(range(5))
    assert set(run.ratings.rating.tolist()) == {1, 2, 3, 4, 5}
    assert run.best_weights()["movie_factors"].shape == (5, 4)


def test_no_estimate_for_what_cannot_run(block_config, monkeypatch):
    with pytest.raises(DeviceError, match="cuda:99"):
        estimate_seconds(replace(block_config, device="cuda:99"), 90, 36, 1_000)
    with pytest.raises(ConfigError, match=r"GB of memory.*fewer factors"):
        estimate_seconds(replace(block_config, n_factors=1_024), 10**9, 10**6, 1_000)
    wanted = []
    monkeypatch.setattr("cfrec.config.TrainConfig.check_memory", lambda _, *sizes: wanted.append(sizes))
    estimate_seconds(block_config, 90, 36, 1_000)
    assert wanted == [(90, 36, 1_000)]


def test_checkpoints_come_no_sooner_than_asked_for_and_at_a_stop(blocks, block_config):
    kept = []
    cfrec.train(*blocks.split(), block_config, on_checkpoint=kept.append, checkpoint_seconds=60)
    assert kept == []
    stop = threading.Event()
    cfrec.train(
        *blocks.split(),
        block_config,
        on_checkpoint=kept.append,
        checkpoint_seconds=60,
        stop=stop,
        on_epoch=lambda m: m.epoch == 4 and stop.set(),
    )
    assert [[m.epoch for m in checkpoint.history] for checkpoint in kept] == [[1, 2, 3, 4]]


def test_a_slow_checkpoint_is_taken_less_often(blocks, block_config):
    """Each takes as long as many epochs: hardly any time may go into them."""
    kept = []

    def keep(checkpoint):
        kept.append(checkpoint)
        time.sleep(0.2)

    cfrec.train(*blocks.split(), block_config, on_checkpoint=keep, checkpoint_seconds=0)
    assert len(kept) == 1


def test_taking_checkpoints_changes_nothing(blocks, block_config, trained):
    watched = cfrec.train(*blocks.split(), block_config, on_checkpoint=lambda _: None, checkpoint_seconds=0)
    assert watched.movie_factors.tolist() == trained.movie_factors.tolist()
