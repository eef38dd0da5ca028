import subprocess
import sys
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
from cfrec.gibbs import GibbsRun
from cfrec.training import estimate_seconds

CONFIGS = {
    "gibbs": cfrec.TrainConfig.preset("quick", n_factors=4, choice_weight=0.0, epochs=12, device="cpu"),
    "choice": cfrec.TrainConfig.preset("quick", n_factors=4, choice_weight=5.0, epochs=12, device="cpu"),  # by gibbs too
    "adam": cfrec.TrainConfig.preset(
        "quick", n_factors=4, choice_weight=0.0, epochs=12, learning_rate=0.03, batch_size=64, device="cpu"
    ).for_adam(),
}


@pytest.fixture(scope="module", params=CONFIGS)
def block_config(request):
    return CONFIGS[request.param]


@pytest.fixture(scope="module")
def adam_config():
    """For what depends on a learning rate."""
    return CONFIGS["adam"]


@pytest.fixture(scope="module")
def trained(blocks, block_config):
    return cfrec.train(*blocks.split(), block_config)


def same_weights(a, b):
    return a.weights().keys() == b.weights().keys() and all(np.array_equal(array, b.weights()[name]) for name, array in a.weights().items())


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
    kept = seen[-1] if block_config.method == "gibbs" else min(seen, key=lambda m: m.valid_loss)  # the mean of gibbs is never gone back on
    assert trained.best_epoch == kept.epoch
    assert trained.metrics["mse"] == pytest.approx(kept.valid_loss, rel=1e-3)
    assert trained.metrics["rmse"] == pytest.approx(trained.metrics["mse"] ** 0.5)


def test_same_seed_same_bits_other_seed_other_weights(blocks, block_config, trained):
    again = cfrec.train(*blocks.split(), block_config)
    other = cfrec.train(*blocks.split(), replace(block_config, seed=43))
    assert same_weights(again, trained)
    assert not same_weights(other, trained)


FOR_ADAM_ALONE = {
    "batch_size",
    "learning_rate",
    "schedule",
    "beta2",
    "weight_decay",
    "user_l2",
    "movie_l2",
    "bias_l2",
    "l2_exponent",
    "factor_std",
    "bias_std",
    "start_at_mean",
}
OF_CHOICE = {"unseen_weight", "user_choice_l2", "movie_choice_l2"}


@pytest.mark.parametrize(
    "change",
    [
        {"n_factors": 5},
        {"epochs": 11},
        {"batch_size": 65},
        {"learning_rate": 0.02},
        {"schedule": "linear"},
        {"beta2": 0.95},
        {"weight_decay": 0.01},
        {"user_l2": 0.2},
        {"movie_l2": 0.2},
        {"bias_l2": 0.1},
        {"l2_exponent": 0.0},
        {"factor_std": 0.1},
        {"bias_std": 0.1},
        {"start_at_mean": False},
        {"margin_below": 30.0},
        {"margin_above": 30.0},
        {"choice_weight": 1.0},
        {"unseen_weight": 0.1},
        {"user_choice_l2": 0.1},
        {"movie_choice_l2": 0.1},
    ],
)
def test_each_setting_changes_the_result(blocks, block_config, trained, change):
    is_for_others = (
        (block_config.method == "gibbs" and change.keys() <= FOR_ADAM_ALONE)
        or (not block_config.choice_weight and change.keys() <= OF_CHOICE)
        or (
            block_config.method == "gibbs" and block_config.choice_weight > 0 and "choice_weight" in change
        )  # either with choice or without
    )
    assert same_weights(cfrec.train(*blocks.split(), replace(block_config, **change)), trained) == is_for_others


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
    assert trained.metrics["mse"] == pytest.approx(trained.history[trained.best_epoch - 1].valid_loss, rel=1e-3)


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
    """Gibbs asks four times an epoch, adam 25 times; what is kept is what a stop at the end of the epoch before keeps."""
    late = LateStop(after if block_config.method == "adam" else after // 4)
    trained = cfrec.train(*blocks.split(), block_config, stop=late)
    n, stop = len(trained.history), threading.Event()
    assert 1 < n < 12
    assert trained.best_epoch <= n
    whole = cfrec.train(*blocks.split(), block_config, stop=stop, on_epoch=lambda m: m.epoch == n and stop.set())
    assert len(whole.history) == n
    assert same_weights(trained, whole)
    assert all(np.array_equal(array, whole.state.arrays[name]) for name, array in trained.state.arrays.items())


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


def test_patience_stops_early(blocks, adam_config):
    config = replace(
        adam_config,
        epochs=200,
        patience=2,
        user_l2=0.0,
        movie_l2=0.0,
        bias_l2=0.0,
        learning_rate=3 * adam_config.learning_rate,
        schedule="constant",
    )
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))  # nothing to learn: it soon overfits
    trained = cfrec.train(*dealt.split(), config)
    assert trained.outcome == "early_stopped"
    assert len(trained.history) == trained.best_epoch + 2


def test_gibbs_goes_on_whatever_the_validation_loss(blocks):
    """Its mean over all sweeps is the result: none is the best."""
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))
    trained = cfrec.train(*dealt.split(), replace(CONFIGS["gibbs"], patience=1))
    losses = [m.valid_loss for m in trained.history]
    assert losses.index(min(losses)) < 11
    assert (trained.outcome, trained.best_epoch, len(losses)) == ("completed", 12, 12)


@pytest.mark.parametrize("recipe", ["quick", "seed"])
def test_divergence_ends_the_run_with_the_last_good_weights_and_advice(blocks, recipe):
    changes = {"learning_rate": 10.0, "schedule": "constant", "start_at_mean": True, "bias_std": 0.0, "factor_std": 0.1}
    config = cfrec.TrainConfig.preset(recipe, choice_weight=0.0, device="cpu", **changes)
    trained = cfrec.train(*blocks.split(), config if config.method == "adam" else config.for_adam())
    assert trained.outcome == "diverged"
    assert "Try a smaller learning rate, such as 0.0065" in trained.advice
    assert all(np.isfinite(array).all() for array in trained.weights().values())
    assert trained.metrics["mse"] < 1.1 * np.var(blocks.rating)


@pytest.mark.parametrize("step", ["_choose", "_place", "_draw"])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_sweep_that_comes_to_no_numbers_ends_the_run_of_gibbs_with_the_sweeps_before(blocks, monkeypatch, step, bad):
    original = getattr(GibbsRun, step)

    def fail(run, random):
        original(run, random)
        if len(run.history) == 3:
            for rows in (*run.choice.values(), *run.drawn.values()):
                rows[:, 0] = bad

    stop = threading.Event()
    config = CONFIGS["choice"]
    good = cfrec.train(*blocks.split(), config, stop=stop, on_epoch=lambda m: m.epoch == 3 and stop.set())
    monkeypatch.setattr(GibbsRun, step, fail)
    trained = cfrec.train(*blocks.split(), config)
    assert (trained.outcome, len(trained.history), trained.best_epoch) == ("diverged", 3, 3)
    assert "diverged in epoch 4" in trained.advice
    assert "Try fewer factors" in trained.advice
    assert same_weights(trained, good)


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


def test_a_run_that_ended_early_does_not_go_on_when_resumed(blocks, adam_config):
    config = replace(
        adam_config, epochs=200, patience=2, user_l2=0.0, movie_l2=0.0, learning_rate=3 * adam_config.learning_rate, schedule="constant"
    )
    dealt = replace(blocks, rating=np.random.default_rng(0).permutation(blocks.rating))
    ended = cfrec.train(*dealt.split(), config)
    again = cfrec.train(*dealt.split(), config, resume=ended)
    assert (again.outcome, again.history) == ("early_stopped", ended.history)
    assert same_weights(again, ended)


def test_more_epochs_only_where_no_schedule_spans_them(blocks, block_config):
    """By gibbs they are the same bits but for the mean, where the first run had begun to average."""
    constant = replace(block_config, schedule="constant", epochs=1 if block_config.method == "gibbs" else 3)
    first = cfrec.train(*blocks.split(), constant)
    more = cfrec.train(*blocks.split(), replace(constant, epochs=5), resume=first)
    assert len(more.history) == 5
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


def test_a_run_that_learns_nothing_says_so(blocks, adam_config):
    hopeless = replace(adam_config, learning_rate=1e-6, schedule="constant", epochs=1, weight_decay=1.0)
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
    broken = {name: array for name, array in trained.state.arrays.items() if name not in ("last.user_bias", "memory.mean.user")}
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


@pytest.mark.parametrize("change", [{}, {"choice_weight": 0.0}, {"n_factors": 1}, {"epochs": 1}])
@pytest.mark.parametrize(("n_users", "n_movies"), [(4, 1), (2, 1), (2, 2), (3, 3)])
def test_the_smallest_data_trains(n_users, n_movies, change):
    users, movies = (a.ravel() for a in np.meshgrid(np.arange(n_users), np.arange(n_movies)))
    ratings = cfrec.ratings.build_ratings(users, movies, 1.0 + (users + movies) % 5)
    trained = cfrec.train(*ratings.split(0.5), cfrec.TrainConfig.preset("quick", **({"batch_size": 1, "device": "cpu"} | change)))
    assert trained.outcome == "completed"
    assert np.isfinite(trained.metrics["mse"])


def test_one_person_s_ratings_are_refused_with_the_reason_and_what_to_do():
    ratings = cfrec.ratings.build_ratings(np.zeros(9, np.int64), np.arange(9), np.arange(9) % 5.0)
    with pytest.raises(DataError, match=r"All ratings are by one person.*cfrec recommend --rate"):
        cfrec.train(*ratings.split(0.5))


def test_one_rating_is_refused_with_the_reason_where_nothing_can_be_held_out(blocks, block_config):
    with pytest.raises(DataError, match="two are the least"):
        blocks.take(np.array([0])).split()
    one, rest = blocks.take(np.array([0])), blocks.take(np.arange(1, len(blocks)))  # but it can be trained on
    assert np.isfinite(cfrec.train(one, rest, block_config).metrics["mse"])


@pytest.mark.parametrize("choice_weight", [0.0, 5.0])
@pytest.mark.parametrize("preset", ["quick", "balanced", "accurate"])
def test_of_stars_that_are_all_alike_each_guess_is_that_star(blocks, preset, choice_weight):
    """And choice is learned none the less: with it, those who rated a movie score higher than those who did not."""
    alike = replace(blocks, rating=np.full_like(blocks.rating, 4.0), scale=(4.0, 4.0, 1.0))
    config = cfrec.TrainConfig.preset(preset, choice_weight=choice_weight, n_factors=8, epochs=5, device="cpu")
    trained = cfrec.train(*alike.split(), config)
    assert trained.outcome == "completed"
    assert trained.predict_rows(blocks.user_idx, blocks.movie_idx) == pytest.approx(4.0, abs=1e-3)
    assert (trained.user_choice is not None) == bool(choice_weight)
    if choice_weight:
        scores = trained.user_choice @ np.hstack([trained.movie_factors, trained.movie_traits]).T
        rated = np.zeros(scores.shape, bool)
        rated[alike.split()[0].user_idx, alike.split()[0].movie_idx] = True
        assert np.isfinite(scores).all()
        assert scores[rated].mean() > scores[~rated].mean() + 0.1


@pytest.mark.parametrize(
    "extreme",
    [
        {"unseen_weight": 0.0, "user_choice_l2": 0.0, "movie_choice_l2": 0.0},
        {"unseen_weight": 10.0, "user_choice_l2": 10.0, "movie_choice_l2": 10.0},
        {"choice_weight": 1_000.0},
        {"choice_weight": 1e-300},
        {"choice_weight": 1_000.0, "unseen_weight": 0.0, "user_choice_l2": 0.0, "movie_choice_l2": 0.0, "n_factors": 60},
        {"margin_below": 0.05, "margin_above": 0.05},
        {"n_factors": 100, "epochs": 1},
    ],
)
def test_gibbs_comes_to_numbers_at_any_settings_or_says_that_it_diverged(blocks, extreme):
    trained = cfrec.train(*blocks.split(), cfrec.TrainConfig.preset("quick", **({"n_factors": 4, "epochs": 4, "device": "cpu"} | extreme)))
    assert trained.outcome == "completed" or (trained.outcome == "diverged" and trained.advice)
    assert all(np.isfinite(array).all() for array in trained.weights().values())
    if trained.history:
        assert trained.metrics["mse"] == pytest.approx(trained.history[-1].valid_loss, rel=0.02)


def test_by_gibbs_any_number_of_threads_gives_the_same_bits(blocks, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 5)
    config = replace(CONFIGS["choice"], epochs=6)
    first, *others = (cfrec.train(*blocks.split(), replace(config, n_threads=n)) for n in (1, 2, 3, 5))
    assert all(same_weights(first, other) for other in others)
    assert [(m.train_loss, m.valid_loss) for m in first.history] == [(m.train_loss, m.valid_loss) for m in others[-1].history]
    assert not same_weights(first, cfrec.train(*blocks.split(), replace(config, n_threads=5, seed=1)))  # negative control


def test_there_are_no_more_threads_than_processors(blocks, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    assert [GibbsRun(*blocks.split(), replace(CONFIGS["gibbs"], n_threads=n)).n_threads for n in (0, 1, 2, 64)] == [2, 1, 2, 2]


def test_the_ratings_stay_as_they_are_and_need_not_be_writable(blocks, block_config, trained):
    parts = blocks.split()
    before = [part.fingerprint() for part in parts]
    frozen = [replace(part, user_idx=part.user_idx.copy(), movie_idx=part.movie_idx.copy(), rating=part.rating.copy()) for part in parts]
    for part in frozen:
        for column in (part.user_idx, part.movie_idx, part.rating):
            column.flags.writeable = False
    assert same_weights(cfrec.train(*frozen, block_config), trained)
    assert [part.fingerprint() for part in parts] == before


def test_without_compiled_code_adam_does_it_and_the_log_says_so(blocks, monkeypatch, caplog):
    monkeypatch.setattr(training, "load_kernels", lambda _: None)
    with caplog.at_level("INFO"):
        config = cfrec.TrainConfig.preset("quick", n_factors=4, choice_weight=0.0, learning_rate=0.03, batch_size=64, device="cpu")
        trained = cfrec.train(*blocks.split(), config)
    assert trained.config == config.for_adam()
    assert "the recipe quick is trained by Adam" in caplog.text
    assert trained.metrics["mse"] < 0.5 * blocks.rating.var()


def test_torch_is_not_needed():
    """Nor imported: it takes a second, and the fastest recipe a fiftieth of that."""
    code = """
import sys
import numpy as np
import cfrec
from cfrec.ratings import build_ratings
users, movies = (a.ravel() for a in np.meshgrid(np.arange(20), np.arange(10)))
cfrec.train(*build_ratings(users, movies, 1.0 + (users + movies) % 5).split(), cfrec.TrainConfig.preset("quick"))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


@pytest.fixture
def followed(blocks, block_config, monkeypatch):
    """Train with a snapshot at most every so many seconds, an epoch taking 30 ms or more; times, snapshots, and weights by epoch."""
    monkeypatch.setattr(training, "_SHARE", 0)

    def follow(seconds):
        times, snapshots, epochs = [], [], {}

        def on_checkpoint(unfinished):
            last = {name.removeprefix("last."): array for name, array in unfinished.state.arrays.items()}
            epochs[len(unfinished.history)] = {**unfinished.weights(), **last}  # by gibbs the last epoch's are the model's

        def on_snapshot(snapshot):
            times.append(time.monotonic())
            snapshots.append((snapshot, snapshot.movie_factors.copy(), snapshot.movie_bias.copy()))

        cfrec.train(
            *blocks.split(),
            block_config,
            on_epoch=lambda _: time.sleep(0.03),
            on_checkpoint=on_checkpoint,
            checkpoint_seconds=0,
            on_snapshot=on_snapshot,
            snapshot_seconds=seconds,
        )
        return times, snapshots, epochs

    return follow


def test_snapshots_are_the_weights_of_their_epoch_and_read_only(followed, blocks):
    _, snapshots, epochs = followed(0)
    assert [snapshot.epoch for snapshot, *_ in snapshots] == list(range(1, 13))  # none too many to be had
    for snapshot, factors, bias in snapshots:
        arrays = epochs[snapshot.epoch]
        assert np.array_equal(snapshot.movie_factors, arrays["movie_factors"])
        assert np.array_equal(snapshot.movie_bias, arrays["movie_bias"])
        assert snapshot.movie_factors.shape == (blocks.n_movies, 4)
        assert np.array_equal(snapshot.movie_factors, factors)  # later epochs leave it alone
        assert np.array_equal(snapshot.movie_bias, bias)
        for array in (snapshot.movie_factors, snapshot.movie_bias):
            with pytest.raises(ValueError, match="read-only"):
                array[0] = 1
    assert not np.array_equal(snapshots[0][1], snapshots[-1][1])  # negative control


def test_snapshots_come_at_most_every_so_many_seconds(followed):
    times, snapshots, _ = followed(0.1)
    assert snapshots[0][0].epoch == 1
    assert 2 <= len(snapshots) <= 6
    assert min(np.diff(times)) > 0.095
    assert len(followed(60)[1]) == 1


def test_to_be_watched_changes_nothing(blocks, block_config, trained):
    watched = cfrec.train(*blocks.split(), block_config, on_snapshot=lambda _: None, snapshot_seconds=0)
    assert same_weights(watched, trained)


@pytest.fixture
def clock(monkeypatch):
    """The first timed epoch takes 1 second, the second 3 and the third 2; and what was timed."""
    timed = []

    def time_epoch(run, epoch):
        timed.append((epoch, len(run.ratings)))
        return [1.0, 3.0, 2.0][epoch - 1]

    for run in ("adam.AdamRun", "gibbs.GibbsRun"):
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
    config = replace(block_config, batch_size=batch_size)
    if config.method == "gibbs":
        n_timed = min(n_ratings, 200_000)
    seconds = estimate_seconds(config, 9_000, 3_600, n_ratings)
    share = n_timed / n_ratings
    n_timed = max(n_timed, 2 if config.method == "gibbs" else 1)  # a sweep of one rating is timed with two
    sizes = {n for _, n in clock}
    assert [epoch for epoch, _ in clock] == [1, 2, 3]
    assert len(sizes) == 1
    assert 0.9 * n_timed <= max(sizes) <= n_timed  # about so many: no pair of user and movie twice
    if config.method == "adam":
        share = max(sizes) / n_ratings
    assert seconds == pytest.approx(2 / share * 12)


def test_twice_the_epochs_and_twice_the_ratings_take_twice_as_long(clock, block_config):
    n = {"gibbs": 400_000, "adam": 10_000}[block_config.method]  # more than what is timed, and not so many that batches grow
    once = estimate_seconds(block_config, 9_000, 3_600, n)
    assert estimate_seconds(replace(block_config, epochs=24), 9_000, 3_600, n) == pytest.approx(2 * once)
    assert estimate_seconds(block_config, 9_000, 3_600, 2 * n) == pytest.approx(2 * once)


@pytest.mark.parametrize("method", ["adam", "gibbs"])
def test_an_estimate_is_made_with_the_batches_of_the_whole(clock, monkeypatch, method):
    """Of a million ratings a batch has ten thousand: timed in steps of 64, an epoch would seem many times as long."""
    monkeypatch.setattr(training, "load_kernels", lambda _: None)  # so that gibbs is Adam's too
    sizes, time_epoch = [], AdamRun.time_epoch
    monkeypatch.setattr(AdamRun, "time_epoch", lambda run, epoch: sizes.append(run.batch_size) or time_epoch(run, epoch))
    config = cfrec.TrainConfig.preset("quick", method=method, n_factors=4, batch_size=64, device="cpu")
    estimate_seconds(config, 9_000, 3_600, 1_000_000)
    assert clock[0][0] == 1
    assert 190_000 < clock[0][1] <= 200_000
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
    # of so many ratings the recipe has 26 factors and 3 epochs
    assert estimate_seconds(preset("balanced"), 200_000, 100_000, 25_000_000) == pytest.approx(125 * 2.0 * 3)
    squares = 300_000 * 65**2 / 20_000_000
    assert estimate_seconds(preset("balanced", n_factors=64), 200_000, 100_000, 9_000_000) == pytest.approx(squares * 2.0 * 7)
    by_adam = preset("seed", weight_decay=0.0, batch_size=400_000)
    assert estimate_seconds(by_adam, 200_000, 100_000, 25_000_000) == pytest.approx(125 * 2.0 * 30 * 50 / 26, rel=1e-3)
    steps = 25_000_000 / 200 * 2.0 * 30 * 50 / 26
    assert estimate_seconds(preset("seed"), 200_000, 100_000, 25_000_000) == pytest.approx(steps)
    wanted = [(26, 1_600, 800, 200_000), (64, 3_156, 1_578, 142_012), (26, 200_000, 100_000, 200_000), (26, 200_000, 100_000, 200)]
    assert [shape for *shape, _ in timed] == [shape for *shape, _ in wanted]
    assert [n for *_, n in timed] == pytest.approx([n for *_, n in wanted], rel=0.1)  # no pair of user and movie twice


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
    for run in ("adam.AdamRun", "gibbs.GibbsRun"):
        monkeypatch.setattr(f"cfrec.{run}.time_epoch", lambda run, _: seen.append(run) or 1.0)
    estimate_seconds(block_config, 7, 5, 1_000)
    run = seen[0]
    assert (run.ratings.n_users, run.ratings.n_movies, len(run.ratings)) == (7, 5, 35)  # no more pairs than there are
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
