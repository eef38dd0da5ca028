import gc
import logging
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import FrozenInstanceError, replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cfrec
from cfrec import datasets, jobs
from cfrec.errors import DataError
from cfrec.evaluation import guesses
from cfrec.jobs import DONE, FAILED, READING, TRAINING, JobBoard, JobResult, JobSnapshot, TrainingJob
from cfrec.trained import EpochMetrics

WEIGHTS = ("user_factors", "user_bias", "movie_factors", "movie_bias")
SOON = 20  # seconds: what happens at once has gone wrong if it has not by then


class WatchedJob(TrainingJob):
    """Keeps everything it publishes, and does to itself what ``at`` says for the end of an epoch."""

    def __init__(self, *args, at=None, **kwargs):
        super().__init__(*args, **kwargs)
        self.seen, self.at = [self.snapshot], at or {}

    def _publish(self, **changes):
        super()._publish(**changes)
        self.seen.append(self.snapshot)

    def _add_epoch(self, metrics):
        super()._add_epoch(metrics)
        if action := self.at.get(metrics.epoch):
            action(self)


class InstantJob(TrainingJob):
    """Is done as soon as it starts, with a model of so many numbers."""

    def __init__(self, n_parameters=1_000):
        super().__init__(None, cfrec.TrainConfig(), "Nothing")
        self.n_parameters = n_parameters

    def start(self):
        self._snapshot = JobSnapshot(DONE, result=JobResult(SimpleNamespace(n_parameters=self.n_parameters), None, {}, None))


@pytest.fixture
def gate():
    """What a job may wait for; open at the end of the test, so that no thread is left behind."""
    event = threading.Event()
    yield event
    event.set()


@pytest.fixture(scope="module")
def short(block_config):
    """Settings of a run whose result does not matter."""
    return replace(block_config, epochs=1)


@pytest.fixture(scope="module")
def done(blocks, block_config):
    """A job that has run to its end."""

    def load(report):
        report(3, 10)
        report(10, 10)
        return blocks

    job = WatchedJob(load, block_config, "Blocks")
    job.start()
    assert job.wait(SOON).phase == DONE, job.snapshot.error
    return job


def finish(job):
    job.start()
    assert job.wait(SOON).finished
    return job.snapshot


def until(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def same_weights(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in WEIGHTS)


def epoch(number, *, valid_loss=1.0, seconds=1.0):
    return EpochMetrics(number, 1.0, valid_loss, 0.01, seconds, 100.0)


def test_a_run_publishes_each_step_once_and_in_order(done, blocks):
    assert [s.phase for s in done.seen] == [READING] * 3 + [TRAINING] * 13 + [DONE]
    assert [s.fetched for s in done.seen[:4]] == [(0, 0), (3, 10), (10, 10), (10, 10)]
    assert [[m.epoch for m in s.history] for s in done.seen[3:]] == [list(range(1, n + 1)) for n in [*range(13), 12]]
    assert [s.finished for s in done.seen] == [False] * 16 + [True]
    assert {s.n_train for s in done.seen[:3]} == {0}
    assert {s.n_train for s in done.seen[3:]} == {len(blocks) - 395}
    assert all(done.created <= s.training_since <= time.time() for s in done.seen[3:])
    assert {s.result for s in done.seen[:-1]} == {None}
    assert {s.error for s in done.seen} == {""}


def test_the_baselines_are_there_from_the_first_step(done, blocks):
    part, valid = blocks.split()
    stars = pd.Series(part.rating.astype(float))
    movie_means = stars.groupby(part.movie_idx).mean()[valid.movie_idx].to_numpy()
    wanted = {"mean": np.mean((stars.mean() - valid.rating) ** 2), "movie_mean": np.mean((movie_means - valid.rating) ** 2)}
    assert done.seen[3].baselines == pytest.approx(wanted)
    assert done.snapshot.baselines == done.seen[3].baselines
    assert done.seen[2].baselines == {}


def test_the_result_is_that_of_plain_training_bit_for_bit(done, trained, blocks, block_config):
    result = done.snapshot.result.trained
    assert same_weights(result, trained)
    assert not same_weights(result, cfrec.train(*blocks.split(), replace(block_config, seed=43)))  # negative control
    assert result.metrics == trained.metrics
    assert (result.best_epoch, done.snapshot.best_epoch) == (trained.best_epoch, trained.best_epoch)
    assert tuple(result.history) == done.snapshot.history
    assert result.split == (0.2, 42)
    assert result.state is None
    assert trained.state is not None


def test_the_split_is_the_one_asked_for(blocks, short):
    snapshot = finish(TrainingJob(lambda _: blocks, short, "Blocks", valid_fraction=0.5, split_seed=7))
    assert same_weights(snapshot.result.trained, cfrec.train(*blocks.split(0.5, 7), short))
    assert snapshot.result.trained.split == (0.5, 7)


def test_the_guesses_are_of_the_held_out_ratings(done, trained, blocks):
    _, valid = blocks.split()
    pd.testing.assert_frame_equal(done.snapshot.result.guesses, guesses(trained, valid))


def test_calibration_has_ten_groups_of_all_held_out_ratings(done):
    """Known answer: a user loves (5) one block of three and dislikes (2) the others, and the model has found out."""
    groups = done.snapshot.result.calibration
    assert list(groups) == ["predicted", "actual", "n_ratings"]
    assert groups["n_ratings"].tolist() == [40] * 5 + [39] * 5
    assert groups["actual"].tolist()[:6] == [2.0] * 6
    assert groups["actual"].tolist()[-3:] == [5.0] * 3
    assert groups["predicted"].is_monotonic_increasing


def test_only_the_first_guesses_are_kept_and_all_count_for_the_calibration(blocks, block_config, trained, monkeypatch):
    """They were a view once, which kept the table of all held-out ratings in memory."""
    monkeypatch.setattr(jobs, "_KEPT_GUESSES", 4)
    result = finish(TrainingJob(lambda _: blocks, block_config, "Blocks")).result
    wanted = guesses(trained, blocks.split()[1])
    pd.testing.assert_frame_equal(result.guesses, wanted.head(4))
    assert result.calibration["n_ratings"].sum() == len(wanted)
    one_title = len(wanted["title"][0])
    assert pa.array(result.guesses["title"]).get_total_buffer_size() < 20 * one_title
    assert pa.array(wanted["title"].head(4)).get_total_buffer_size() > 300 * one_title  # negative control: such a view


@pytest.mark.parametrize(("n_ratings", "phase"), [(500, DONE), (1, FAILED), (0, FAILED)])
def test_a_finished_run_holds_on_to_neither_the_ratings_nor_what_loads_them(blocks, short, caplog, n_ratings, phase):
    """What loads them may hold an uploaded file, and twelve runs are kept."""

    class Upload:
        def __call__(self, _):
            if not n_ratings:
                raise DataError("nothing in it")
            ratings = blocks.take(np.arange(n_ratings))
            held.append(weakref.ref(ratings))
            return ratings

    caplog.set_level(logging.CRITICAL, "cfrec.jobs")  # pytest keeps what is logged, errors and all
    upload = Upload()
    held = [weakref.ref(upload)]
    job = TrainingJob(upload, short, "Blocks")
    del upload
    assert held[0]() is not None  # negative control
    assert finish(job).phase == phase
    gc.collect()
    assert {ref() for ref in held} == {None}


def test_what_cfrec_says_is_wrong_is_passed_on(block_config, caplog):
    def load(_):
        raise DataError("line 7: six stars. Mend the file.")

    snapshot = finish(TrainingJob(load, block_config, "Blocks"))
    assert (snapshot.phase, snapshot.error, snapshot.result) == (FAILED, "line 7: six stars. Mend the file.", None)
    assert [r.levelname for r in caplog.records if r.name == "cfrec.jobs"] == ["WARNING"]


def test_ratings_that_cannot_be_split_fail_in_words(blocks, block_config):
    snapshot = finish(TrainingJob(lambda _: blocks.take(np.arange(1)), block_config, "One rating"))
    assert snapshot.phase == FAILED
    assert "1 ratings are too few" in snapshot.error


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ValueError("/home/ann/secret.csv"), "Something in cfrec went wrong; the server's log says what. Try again with a preset."),
        (KeyError("/home/ann/secret.csv"), "Something in cfrec went wrong; the server's log says what. Try again with a preset."),
        (MemoryError("/home/ann/secret.csv"), "The memory of this machine is used up. Use fewer factors, or a smaller data set."),
    ],
)
def test_other_errors_are_logged_and_never_shown(block_config, caplog, error, said):
    def load(_):
        raise error

    job = TrainingJob(load, block_config, "Blocks")
    snapshot = finish(job)
    assert (snapshot.phase, snapshot.error) == (FAILED, said)
    [record] = [r for r in caplog.records if r.levelname == "ERROR"]
    assert job.id in record.getMessage()
    assert record.exc_info[1] is error  # with the traceback that names the cause


def test_an_error_in_the_midst_of_training_is_caught_too(blocks, block_config, caplog):
    def trip(_):
        raise ZeroDivisionError("secret")

    snapshot = finish(WatchedJob(lambda _: blocks, block_config, "Blocks", at={3: trip}))
    assert snapshot.phase == FAILED
    assert "the server's log" in snapshot.error
    assert [m.epoch for m in snapshot.history] == [1, 2, 3]


def test_stopped_while_reading_there_is_nothing_to_keep(blocks, block_config, gate):
    reading = threading.Event()

    def load(_):
        reading.set()
        gate.wait(SOON)
        return blocks

    job = WatchedJob(load, block_config, "Blocks")
    job.start()
    assert reading.wait(SOON)
    assert (job.snapshot.phase, job.stopping) == (READING, False)
    job.stop()
    assert job.stopping
    gate.set()
    snapshot = job.wait(SOON)
    assert (snapshot.phase, snapshot.result) == (FAILED, None)
    assert snapshot.error == "The run was stopped before training began: there is nothing to keep."
    assert TRAINING not in {s.phase for s in job.seen}


def test_a_stopped_download_ends_at_its_next_report(blocks, block_config):
    reports = []

    def load(report):
        for n in range(1, 11):
            reports.append(n)
            report(n, 10)
            if n == 3:
                job.stop()
        return blocks

    job = TrainingJob(load, block_config, "Blocks")
    snapshot = finish(job)
    assert (snapshot.phase, snapshot.error) == (FAILED, "The download was stopped.")
    assert snapshot.fetched == (3, 10)
    assert reports == [1, 2, 3, 4]


def test_a_stopped_download_is_not_tried_at_the_second_source(cache, block_config, monkeypatch):
    tried = []

    def source(dataset, on_progress):
        tried.append(dataset.name)
        job.stop()
        on_progress(1, 2)

    monkeypatch.setattr(datasets, "_from_grouplens", source)
    monkeypatch.setattr(datasets, "_from_wheel", source)
    job = TrainingJob(lambda report: cfrec.load_dataset("ml-100k", on_progress=report), block_config, "MovieLens 100K")
    assert finish(job).error == "The download was stopped."
    assert tried == ["ml-100k"]


def test_stopped_in_the_midst_of_training_the_best_so_far_is_the_result(blocks, block_config):
    snapshot = finish(WatchedJob(lambda _: blocks, block_config, "Blocks", at={3: TrainingJob.stop}))
    stop = threading.Event()
    wanted = cfrec.train(*blocks.split(), block_config, stop=stop, on_epoch=lambda m: m.epoch == 3 and stop.set())
    assert snapshot.phase == DONE
    assert snapshot.result.trained.outcome == "stopped"
    assert [m.epoch for m in snapshot.history] == [1, 2, 3]
    assert same_weights(snapshot.result.trained, wanted)
    assert snapshot.result.trained.metrics["mse"] == pytest.approx(min(m.valid_loss for m in snapshot.history), rel=1e-4)


def test_a_pause_holds_the_run_and_changes_nothing(blocks, block_config, trained):
    job = WatchedJob(lambda _: blocks, block_config, "Blocks", at={2: TrainingJob.pause})
    assert not job.paused
    job.start()
    until(lambda: job.paused)
    held = job.snapshot
    assert job.wait(0.15) is held  # all ten epochs that remain would take less
    assert (held.phase, [m.epoch for m in held.history]) == (TRAINING, [1, 2])
    job.go_on()
    assert not job.paused
    assert job.wait(SOON).phase == DONE
    assert [m.epoch for m in job.snapshot.history] == list(range(1, 13))
    assert same_weights(job.snapshot.result.trained, trained)


def test_a_paused_run_can_be_stopped(blocks, block_config):
    job = WatchedJob(lambda _: blocks, block_config, "Blocks", at={2: TrainingJob.pause})
    job.start()
    until(lambda: job.paused)
    job.stop()
    assert not job.paused
    assert job.wait(SOON).result.trained.outcome == "stopped"
    assert [m.epoch for m in job.snapshot.history] == [1, 2]


def test_what_is_finished_is_not_paused(done):
    done.pause()
    assert not done.paused
    done.go_on()


def test_a_snapshot_stays_as_it_was(done):
    early = done.seen[5]
    assert [m.epoch for m in early.history] == [1, 2]  # though ten more epochs followed
    for change in ({"phase": DONE}, {"history": ()}, {"result": None}):
        with pytest.raises(FrozenInstanceError):
            setattr(early, *next(iter(change.items())))
    with pytest.raises(FrozenInstanceError):
        early.history[0].valid_loss = 0.0
    with pytest.raises(ValueError, match="read-only"):
        done.snapshot.result.trained.movie_bias[0] = 1


def test_the_best_epoch_by_hand():
    assert JobSnapshot().best_epoch == 0
    assert JobSnapshot(history=tuple(epoch(n, valid_loss=v) for n, v in ((1, 3.0), (2, 0.5), (3, 2.0)))).best_epoch == 2


def test_the_time_left_by_hand(block_config):
    job = TrainingJob(None, replace(block_config, epochs=12), "Blocks")
    assert job.seconds_left() is None
    history = tuple(epoch(n, seconds=s) for n, s in enumerate((9.0, 1.0, 5.0, 2.0, 4.0, 3.0), 1))
    job._snapshot = JobSnapshot(TRAINING, history=history)
    assert job.seconds_left() == 6 * 3.0  # six epochs remain; the median of the last five took 3 seconds
    job._snapshot = JobSnapshot(TRAINING, history=history[:1])
    assert job.seconds_left() == 11 * 9.0
    job._snapshot = JobSnapshot(DONE, history=history)
    assert job.seconds_left() is None


class SlowBoard(JobBoard):
    """Takes its time between looking for a run and starting one: what a race needs."""

    def running(self):
        found = super().running()
        time.sleep(0.001)
        return found


def start_at_once(board, n, load, config):
    """n jobs started from n threads in the same moment: pairs of the job brought and the job got."""
    barrier = threading.Barrier(n)

    def start(_):
        job = TrainingJob(load, config, "Blocks")
        barrier.wait(SOON)
        return job, board.start(job)

    with ThreadPoolExecutor(n) as pool:
        return list(pool.map(start, range(n)))


def test_of_a_hundred_who_start_at_once_one_runs_and_all_get_it(blocks, short, gate):
    board, reads = SlowBoard(), []

    def load(_):
        reads.append(1)
        gate.wait(SOON)
        return blocks

    pairs = start_at_once(board, 100, load, short)
    running = board.running()
    assert {got for _, got in pairs} == {running}
    assert [brought for brought, _ in pairs if brought._thread.ident is not None] == [running]
    assert board.all() == [running]
    gate.set()
    assert running.wait(SOON).phase == DONE
    assert len(reads) == 1


def test_without_its_lock_the_board_would_start_several(block_config, gate):
    """Negative control of the test above: here all have looked before the first one starts."""
    all_have_looked = threading.Barrier(20)

    class OpenBoard(JobBoard):
        def running(self):
            found = super().running()
            all_have_looked.wait(SOON)
            return found

    board = OpenBoard()
    board._lock = nullcontext()

    def load(_):
        gate.wait(SOON)
        raise DataError("enough")

    pairs = start_at_once(board, 20, load, block_config)
    assert len({got for _, got in pairs}) == 20
    gate.set()
    for _, got in pairs:
        got.wait(SOON)


def test_the_next_run_starts_when_the_last_is_done(blocks, short, gate):
    board = JobBoard()
    first, second = (TrainingJob(lambda _: gate.wait(SOON) and blocks, short, "Blocks") for _ in range(2))
    assert board.running() is None
    assert board.start(first) is board.start(second) is board.running() is first
    assert board.get(second.id) is None
    gate.set()
    first.wait(SOON)
    assert board.running() is None
    assert board.start(second) is second
    assert second.wait(SOON).phase == DONE
    assert board.all() == [second, first]
    assert (board.get(first.id), board.get(second.id), board.get("nothing")) == (first, second, None)


def test_a_failed_run_makes_way_as_well(blocks, block_config):
    board = JobBoard()
    failed = board.start(TrainingJob(lambda _: 1 / 0, block_config, "Blocks"))
    assert failed.wait(SOON).phase == FAILED
    assert board.running() is None
    assert board.start(InstantJob()) is not failed


def test_a_run_whose_thread_cannot_start_blocks_nobody():
    """It stood on the board as the run under way for ever."""

    class Unstartable(TrainingJob):
        def start(self):
            raise RuntimeError("can't start new thread")

    board, old, following = JobBoard(), InstantJob(), InstantJob()
    board.start(old)
    with pytest.raises(RuntimeError, match="new thread"):
        board.start(Unstartable(None, cfrec.TrainConfig(), "Nothing"))
    assert board.running() is None
    assert board.all() == [old]
    assert board.start(following) is following


def test_the_latest_twelve_runs_are_kept():
    board, runs = JobBoard(), [InstantJob() for _ in range(15)]
    for n, run in enumerate(runs, 1):
        board.start(run)
        assert board.all() == runs[max(0, n - 12) : n][::-1]
    assert board.get(runs[2].id) is None
    assert board.get(runs[3].id) is runs[3]


@pytest.mark.parametrize(
    ("megabytes", "kept"),
    [
        ([200, 200, 200, 200], [1, 2, 3]),  # before the last 400 MB; one more would make 600
        ([250, 250, 250], [0, 1, 2]),  # 500 MB are just allowed
        ([251, 250, 250], [1, 2]),
        ([10, 900], [0, 1]),  # the newest is never dropped, however large
        ([10, 900, 1], [2]),
        ([900, 10, 20], [1, 2]),
        ([40] * 12, list(range(12))),  # negative control: many small ones
    ],
)
def test_kept_runs_are_bounded_in_bytes(megabytes, kept):
    board, runs = JobBoard(), [InstantJob(mb * 1_000_000 // 4) for mb in megabytes]
    for run in runs:
        assert board.start(run) is run
        assert board.all()[0] is run
    assert board.all()[::-1] == [runs[k] for k in kept]


def test_failed_runs_weigh_nothing(blocks, block_config):
    board, failed = JobBoard(), [TrainingJob(lambda _: 1 / 0, block_config, "Blocks") for _ in range(3)]
    for job in failed:
        board.start(job).wait(SOON)
    last = board.start(InstantJob())
    assert board.all() == [last, *failed[::-1]]


def test_the_table_of_runs(done, blocks, short):
    waiting = TrainingJob(lambda _: blocks, replace(short, seed=7), "Others")
    table = jobs.runs_table([waiting, done])
    trained = done.snapshot.result.trained
    assert table["run"].tolist() == [waiting.id, done.id]
    assert table["data"].tolist() == ["Others", "Blocks"]
    assert table["recipe"].tolist() == ["quick", "quick"]
    assert table.loc[0, "changed"] == "n_factors 4, n_likeness 0, epochs 1, batch_size 64, seed 7"
    assert table.loc[1, ["rmse", "best_epoch", "epochs", "outcome"]].tolist() == [
        trained.metrics["rmse"],
        trained.best_epoch,
        12,
        "completed",
    ]
    assert table.loc[0, ["best_epoch", "device", "seconds"]].isna().all()
    assert table.loc[0, "outcome"] == READING
