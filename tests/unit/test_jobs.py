import gc
import logging
import threading
import time
import weakref
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

import cfrec
from cfrec import datasets, jobs, training
from cfrec.checkpoints import unfinished_runs
from cfrec.errors import DataError
from cfrec.evaluation import guesses
from cfrec.jobs import DONE, FAILED, READING, TRAINING, WAITING, JobSnapshot, TrainingJob
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
    assert [s.phase for s in done.seen] == [WAITING] + [READING] * 3 + [TRAINING] * 13 + [DONE]
    assert [s.fetched for s in done.seen[1:5]] == [(0, 0), (3, 10), (10, 10), (10, 10)]
    assert [[m.epoch for m in s.history] for s in done.seen[4:]] == [list(range(1, n + 1)) for n in [*range(13), 12]]
    assert [s.finished for s in done.seen] == [False] * 17 + [True]
    assert {s.n_train for s in done.seen[:4]} == {0}
    assert {s.n_train for s in done.seen[4:]} == {len(blocks) - 395}
    assert all(done.created <= s.training_since <= time.time() for s in done.seen[4:])
    assert {s.result for s in done.seen[:-1]} == {None}
    assert {s.error for s in done.seen} == {""}


def test_the_baselines_are_there_from_the_first_step(done, blocks):
    part, valid = blocks.split()
    stars = pd.Series(part.rating.astype(float))
    movie_means = stars.groupby(part.movie_idx).mean()[valid.movie_idx].to_numpy()
    wanted = {"mean": np.mean((stars.mean() - valid.rating) ** 2), "movie_mean": np.mean((movie_means - valid.rating) ** 2)}
    assert done.seen[4].baselines == pytest.approx(wanted)
    assert done.snapshot.baselines == done.seen[4].baselines
    assert done.seen[3].baselines == {}


def test_the_result_is_that_of_plain_training_bit_for_bit(done, trained, blocks, block_config):
    result = done.snapshot.result.trained
    assert same_weights(result, trained)
    assert not same_weights(result, cfrec.train(*blocks.split(), replace(block_config, seed=43)))  # negative control
    assert result.metrics == trained.metrics
    assert result.best_epoch == trained.best_epoch
    assert tuple(result.history) == done.snapshot.history
    assert result.split == (0.2, 42)
    assert result.state is None
    assert trained.state is not None


def test_the_split_is_the_one_asked_for(blocks, short):
    snapshot = finish(TrainingJob(lambda _: blocks, short, "Blocks", split=(0.5, 7)))
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
    assert snapshot.result.trained.metrics["mse"] == pytest.approx(snapshot.history[-1].valid_loss, rel=1e-3)


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
    early = done.seen[6]
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


@pytest.fixture
def often(monkeypatch):
    """A checkpoint after every epoch."""
    monkeypatch.setattr(jobs, "CHECKPOINT_SECONDS", 0.0)
    monkeypatch.setattr(training, "_SHARE", 0)


def leave_after(n):
    return {n: TrainingJob.leave}


def test_a_run_that_is_left_goes_on_under_its_id_to_the_same_bits(blocks, block_config, trained, tmp_path, often):
    left = WatchedJob(lambda _: blocks, block_config, "Blocks", models=tmp_path, at=leave_after(5))
    assert finish(left).error == "The server stopped. What was learned until then is kept: the run can be resumed."
    [checkpoint] = unfinished_runs(tmp_path)
    assert checkpoint.run == left.id
    unfinished = cfrec.load_model(checkpoint.folder)
    assert ([m.epoch for m in unfinished.history], unfinished.outcome) == ([1, 2, 3, 4, 5], "unfinished")
    assert unfinished.metrics["mse"] == pytest.approx(unfinished.history[-1].valid_loss, rel=1e-3)
    resumed = TrainingJob.resuming(checkpoint, unfinished, lambda _: blocks)
    assert resumed.id == left.id
    assert [m.epoch for m in resumed.snapshot.history] == [1, 2, 3, 4, 5]
    assert finish(resumed).phase == DONE
    assert [m.epoch for m in resumed.snapshot.history] == list(range(1, 13))
    assert same_weights(resumed.snapshot.result.trained, trained)
    assert unfinished_runs(tmp_path) == []
    assert [p.name for p in (tmp_path / ".unfinished").iterdir()] == [".cfrec.lock"]


def test_a_run_is_resumed_once(blocks, block_config, tmp_path, often, gate):
    finish(WatchedJob(lambda _: blocks, block_config, "Blocks", models=tmp_path, at=leave_after(2)))
    [first], [second] = unfinished_runs(tmp_path), unfinished_runs(tmp_path)
    unfinished = cfrec.load_model(first.folder)
    job = TrainingJob.resuming(first, unfinished, lambda _: gate.wait(SOON) and blocks)
    assert unfinished_runs(tmp_path) == []  # nobody is offered what someone goes on with
    with pytest.raises(cfrec.CfrecError, match="Someone else goes on with this run already"):
        TrainingJob.resuming(second, unfinished, lambda _: blocks)
    gate.set()
    assert finish(job).phase == DONE


def test_a_run_resumed_with_other_ratings_fails_in_words_and_can_be_resumed_again(blocks, block_config, trained, tmp_path, often):
    finish(WatchedJob(lambda _: blocks, block_config, "Blocks", models=tmp_path, at=leave_after(2)))
    [checkpoint] = unfinished_runs(tmp_path)
    unfinished = cfrec.load_model(checkpoint.folder)
    others = blocks.take(np.arange(len(blocks))[::-1])
    assert "trained on other ratings" in finish(TrainingJob.resuming(checkpoint, unfinished, lambda _: others)).error
    [checkpoint] = unfinished_runs(tmp_path)
    again = TrainingJob.resuming(checkpoint, unfinished, lambda _: blocks)
    assert same_weights(finish(again).result.trained, trained)


def test_a_run_that_ends_leaves_no_checkpoint(blocks, block_config, tmp_path, often):
    job = WatchedJob(lambda _: blocks, block_config, "Blocks", models=tmp_path)
    assert finish(job).kept_epoch == 12
    assert [s.kept_epoch for s in job.seen[-2:]] == [12, 12]
    stopped = WatchedJob(lambda _: blocks, block_config, "Blocks", models=tmp_path, at={3: TrainingJob.stop})
    assert finish(stopped).result.trained.outcome == "stopped"
    assert [p.name for p in (tmp_path / ".unfinished").iterdir()] == [".cfrec.lock"]


def test_short_runs_write_nothing(blocks, block_config, tmp_path):
    assert finish(TrainingJob(lambda _: blocks, block_config, "Blocks", models=tmp_path)).kept_epoch == 0
    assert list(tmp_path.rglob("*")) == []


def test_a_checkpoint_that_cannot_be_written_does_not_end_the_run(blocks, block_config, tmp_path, often, caplog):
    (tmp_path / ".unfinished").write_text("a file where a folder should be")
    snapshot = finish(TrainingJob(lambda _: blocks, block_config, "Blocks", models=tmp_path))
    assert (snapshot.phase, snapshot.kept_epoch) == (DONE, 0)
    assert "no checkpoint" in caplog.text


def test_a_run_ends_at_its_time_limit_with_the_best_so_far(blocks, block_config):
    job = TrainingJob(lambda _: blocks, replace(block_config, epochs=1_000), "Blocks", longest=0.2)
    job.pause()  # a pause does not stop the clock
    trained = finish(job).result.trained
    assert (trained.outcome, trained.advice) == ("stopped", "A run may take 0 minutes here: this one was ended then.")


def test_a_run_that_is_stopped_in_time_has_no_such_advice(blocks, block_config):
    stopped = WatchedJob(lambda _: blocks, block_config, "Blocks", at={3: TrainingJob.stop})
    assert finish(stopped).result.trained.advice == ""


def test_a_run_whose_clock_cannot_start_fails_in_words_and_makes_way(blocks, short, monkeypatch):
    job, ended = TrainingJob(lambda _: blocks, short, "Blocks"), threading.Event()
    job.on_end = ended.set

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(jobs.Timer, "start", start)
    job.start()
    assert job.wait(SOON).phase == FAILED
    assert "Something in cfrec went wrong" in job.snapshot.error
    assert ended.is_set()
