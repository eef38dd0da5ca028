import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace

import pytest

import cfrec
from cfrec.board import MOST_WAITING, JobBoard, runs_table
from cfrec.checkpoints import unfinished_runs
from cfrec.errors import BusyError, DataError
from cfrec.jobs import DONE, FAILED, WAITING, JobResult, JobSnapshot, TrainingJob

SOON = 20  # seconds: what happens at once has gone wrong if it has not by then


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
    job = TrainingJob(lambda _: blocks, block_config, "Blocks")
    job.start()
    assert job.wait(SOON).phase == DONE, job.snapshot.error
    return job


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
        job = TrainingJob(load, config, "Blocks", data="blocks")
        barrier.wait(SOON)
        return job, board.submit(job)

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
    assert len({got for _, got in pairs}) == 20  # at once, though one at a time is promised
    gate.set()
    for _, got in pairs:
        got.wait(SOON)


def held(gate, blocks, config, title="Blocks", **more):
    """A job that waits for the gate."""
    return TrainingJob(lambda _: gate.wait(SOON) and blocks, config, title, **more)


def until(condition):
    end = time.monotonic() + SOON
    while not condition():
        assert time.monotonic() < end, "it never came"
        time.sleep(0.002)


def test_the_next_run_starts_by_itself_when_the_last_is_done(blocks, short, gate):
    board = JobBoard()
    first, second, third = (held(gate, blocks, short) for _ in range(3))
    assert board.running() is None
    assert [board.submit(job) for job in (first, second, third)] == [first, second, third]
    assert (board.running(), board.waiting()) == (first, [second, third])
    assert [job.snapshot.phase for job in (second, third)] == [WAITING, WAITING]
    assert second.wait(0) == second.snapshot  # which is no error, though it has no thread yet
    gate.set()
    until(lambda: third.snapshot.finished)
    assert [job.wait(SOON).phase for job in (first, second, third)] == [DONE] * 3
    assert first.snapshot.result.trained.created <= second.snapshot.result.trained.created
    assert (board.running(), board.waiting(), board.all()) == (None, [], [third, second, first])
    assert (board.get(first.id), board.get(third.id), board.get("nothing")) == (first, third, None)


def test_three_wait_and_a_fourth_is_refused(blocks, short, gate):
    board = JobBoard()
    first, *others, last = (held(gate, blocks, short) for _ in range(2 + MOST_WAITING))
    for job in (first, *others):
        board.submit(job)
    with pytest.raises(BusyError, match=r"3 runs wait already\. Try again when one of them has begun"):
        board.submit(last)
    assert board.waiting() == others
    assert board.get(others[1].id) is others[1]
    assert board.get(last.id) is None


def test_who_asks_for_the_same_run_gets_the_one_that_is_there(blocks, short, gate):
    board = JobBoard()
    running = board.submit(held(gate, blocks, short, data="blocks"))
    waiting = board.submit(held(gate, blocks, replace(short, seed=7), data="blocks"))
    assert board.submit(held(gate, blocks, short, data="blocks")) is running
    assert board.submit(held(gate, blocks, replace(short, seed=7), data="blocks")) is waiting
    others = [held(gate, blocks, short, data="others"), held(gate, blocks, short, data="blocks", split=(0.5, 42))]
    assert [board.submit(job) for job in others] == others  # negative control: other data, or another split
    assert board.waiting() == [waiting, *others]


def test_files_of_two_people_are_never_taken_for_one(blocks, short, gate):
    """They may have the same name: only what is known to be the same data is."""
    board = JobBoard()
    first, second = (held(gate, blocks, short, "ratings.csv") for _ in range(2))
    board.submit(first)
    assert board.submit(second) is second


def test_a_run_taken_out_of_the_queue_never_begins(blocks, short, gate):
    board = JobBoard()
    first, second, third = (held(gate, blocks, short) for _ in range(3))
    for job in (first, second, third):
        board.submit(job)
    board.withdraw(second)
    assert board.waiting() == [third]
    assert (second.snapshot.phase, second.snapshot.error) == (FAILED, "It was taken out of the queue.")
    gate.set()
    until(lambda: third.snapshot.finished)
    assert second._thread.ident is None
    board.withdraw(third)  # too late, and harmless


def test_a_run_that_began_before_it_was_taken_out_is_stopped(blocks, short, gate):
    board = JobBoard()
    job = board.submit(held(gate, blocks, short))
    board.withdraw(job)
    assert job.stopping


def test_a_board_that_is_closed_keeps_what_runs_and_drops_what_waits(blocks, block_config, tmp_path, gate):
    board, trained_some = JobBoard(), threading.Event()
    job = TrainingJob(lambda _: blocks, replace(block_config, epochs=1_000), "Blocks", models=tmp_path)
    add = job._add_epoch
    job._add_epoch = lambda m: (add(m), m.epoch == 3 and trained_some.set())
    board.submit(job)
    waiting = board.submit(held(gate, blocks, block_config))
    assert trained_some.wait(SOON)
    board.close()
    assert job.snapshot.phase == FAILED
    [checkpoint] = unfinished_runs(tmp_path)
    assert len(cfrec.load_model(checkpoint.folder).history) == len(job.snapshot.history) >= 3
    assert (waiting.snapshot.phase, waiting.snapshot.error, board.waiting()) == (FAILED, "The server stopped.", [])
    with pytest.raises(BusyError, match="about to stop"):
        board.submit(held(gate, blocks, block_config))


def test_a_failed_run_makes_way_as_well(blocks, block_config):
    board = JobBoard()
    failed = board.submit(TrainingJob(lambda _: 1 / 0, block_config, "Blocks"))
    assert failed.wait(SOON).phase == FAILED
    assert board.running() is None
    assert board.submit(InstantJob()) is not failed


def test_a_run_whose_thread_cannot_start_blocks_nobody():
    """It stood on the board as the run under way for ever."""

    class Unstartable(TrainingJob):
        def start(self):
            raise RuntimeError("can't start new thread")

    board, old, following = JobBoard(), InstantJob(), InstantJob()
    board.submit(old)
    with pytest.raises(BusyError, match="cannot begin another run now"):
        board.submit(Unstartable(None, cfrec.TrainConfig(), "Nothing"))
    assert board.running() is None
    assert board.all() == [old]
    assert board.submit(following) is following


def test_a_waiting_run_whose_thread_cannot_start_makes_way(blocks, short, gate):
    class Unstartable(TrainingJob):
        def start(self):
            raise RuntimeError("can't start new thread")

    board = JobBoard()
    first, last = held(gate, blocks, short), held(gate, blocks, short)
    bad = Unstartable(None, cfrec.TrainConfig(), "Nothing")
    for job in (first, bad, last):
        board.submit(job)
    gate.set()
    until(lambda: last.snapshot.finished)
    assert (bad.snapshot.phase, last.wait(SOON).phase) == (FAILED, DONE)


def test_the_latest_twelve_runs_are_kept():
    board, runs = JobBoard(), [InstantJob() for _ in range(15)]
    for n, run in enumerate(runs, 1):
        board.submit(run)
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
        assert board.submit(run) is run
        assert board.all()[0] is run
    assert board.all()[::-1] == [runs[k] for k in kept]


def test_failed_runs_weigh_nothing(blocks, block_config):
    board, failed = JobBoard(), [TrainingJob(lambda _: 1 / 0, block_config, "Blocks") for _ in range(3)]
    for job in failed:
        board.submit(job).wait(SOON)
        until(lambda: board.running() is None)
    last = board.submit(InstantJob())
    assert board.all() == [last, *failed[::-1]]


def test_the_table_of_runs(done, blocks, short):
    waiting = TrainingJob(lambda _: blocks, replace(short, seed=7), "Others")
    table = runs_table([waiting, done])
    trained = done.snapshot.result.trained
    assert table["run"].tolist() == [waiting.id, done.id]
    assert table["data"].tolist() == ["Others", "Blocks"]
    assert table["recipe"].tolist() == ["quick", "quick"]
    assert table.loc[0, "changed"] == {"n_factors": 4, "choice_weight": 0.0, "epochs": 1, "batch_size": 64, "seed": 7}
    assert table.loc[1, ["rmse", "best_epoch", "epochs", "outcome"]].tolist() == [
        trained.metrics["rmse"],
        trained.best_epoch,
        12,
        "completed",
    ]
    assert table.loc[0, ["best_epoch", "device", "seconds"]].isna().all()
    assert table.loc[0, "outcome"] == WAITING


def test_a_run_that_stops_is_followed_by_the_same_again(blocks, short, gate):
    board = JobBoard()
    first, again = (TrainingJob(lambda _: gate.wait(SOON) and blocks, short, "Blocks", data="blocks") for _ in range(2))
    board.submit(first)
    first.stop()
    assert board.submit(again) is again
    gate.set()
    until(lambda: again.snapshot.finished)
    assert again.snapshot.phase == DONE


def test_a_resumed_run_that_waits_is_found_rather_than_the_one_that_failed(blocks, short, gate):
    board = JobBoard()
    failed = TrainingJob(lambda _: 1 / 0, short, "Blocks")
    assert board.submit(failed).wait(SOON).phase == FAILED
    board.submit(TrainingJob(lambda _: gate.wait(SOON) and blocks, short, "Blocks"))
    again = TrainingJob(lambda _: blocks, short, "Blocks")
    again.id = failed.id
    board.submit(again)
    assert board.get(failed.id) is again
    gate.set()
    until(lambda: again.snapshot.finished)
    assert board.get(failed.id) is again
    assert board.all()[0] is again  # the latest
