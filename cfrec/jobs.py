"""Training in the background: a run goes on in a thread of its own, no matter who looks at it.

It publishes what it knows as immutable snapshots, keeps a checkpoint on disk while it is long, and ends by itself after a time limit.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock, Thread, Timer

import numpy as np
import pandas as pd

from cfrec.checkpoints import Checkpoint
from cfrec.config import TrainConfig
from cfrec.datasets import Progress
from cfrec.errors import CfrecError
from cfrec.evaluation import baseline_losses, guesses
from cfrec.metrics import calibration, shares_within
from cfrec.ratings import Ratings
from cfrec.trained import EpochMetrics, TrainedModel
from cfrec.training import train

logger = logging.getLogger(__name__)

Load = Callable[[Progress], Ratings]

WAITING, READING, TRAINING, DONE, FAILED = "waiting", "reading", "training", "done", "failed"
LONGEST = 2 * 3600.0  # seconds that a run may take, pauses included
CHECKPOINT_SECONDS = 5.0  # between two checkpoints, at least
_NICE = 10  # how far behind other threads a run stands, as nice(1) counts
_KEPT_GUESSES = 5_000  # held-out ratings shown beside their guesses


@dataclass(frozen=True)
class JobResult:
    """What a finished run leaves: the model, and what the result page shows of it."""

    trained: TrainedModel
    guesses: pd.DataFrame  # the first held-out ratings, as evaluation.guesses gives
    within: dict[str, float]  # shares of all held-out ratings, as metrics.shares_within gives
    calibration: pd.DataFrame  # predicted, actual (stars), n_ratings: ten groups of all held-out ratings


@dataclass(frozen=True)
class JobSnapshot:
    """What is known of a run at one moment."""

    phase: str = WAITING  # then READING, TRAINING, and DONE or FAILED
    fetched: tuple[int, int] = (0, 0)  # bytes so far, bytes in all; (0, 0) where nothing is downloaded
    n_train: int = 0
    baselines: dict[str, float] = field(default_factory=dict)  # as evaluation.baseline_losses gives
    history: tuple[EpochMetrics, ...] = ()
    kept_epoch: int = 0  # the last epoch that is on disk, to resume from
    training_since: float = 0.0  # time.time() of the first step
    error: str = ""
    result: JobResult | None = None

    @property
    def finished(self) -> bool:
        """Whether nothing more will come."""
        return self.phase in (DONE, FAILED)

    @property
    def best_epoch(self) -> int:
        """The epoch with the lowest validation loss; 0 before the first."""
        return min(self.history, key=lambda m: m.valid_loss).epoch if self.history else 0


class TrainingJob:
    """One run. ``start`` it once; read ``snapshot`` at any time, from any thread.

    Parameters
    ----------
    load : callable
        Gives the ratings; is handed a function to report the progress of a download to. Runs in the job's thread.
    config : TrainConfig
    title : str
        What people call the data.
    data : hashable, optional
        What tells these ratings from others: runs of the same data and settings are the same. Where left out, each run is another.
    split : (valid_fraction, seed)
        As in ``Ratings.split``.
    models : path, optional
        The folder of models, in which checkpoints are kept. Where left out, there are none.
    longest : float
        Seconds after which the run is stopped.
    """

    def __init__(
        self,
        load: Load,
        config: TrainConfig,
        title: str,
        *,
        data: Hashable = None,
        split: tuple[float, int] = (0.2, 42),
        models: Path | None = None,
        longest: float = LONGEST,
    ) -> None:
        self.id = secrets.token_hex(4)
        self.config, self.title, self.data = config, title, data
        self.created = time.time()
        self.on_end: Callable[[], object] = lambda: None  # called when the run is over, in its thread
        self._load, self._split, self._longest = load, split, longest
        self._resume: TrainedModel | None = None
        self._checkpoint = Checkpoint(models, self.id) if models else None
        self._stop, self._pause, self._leave, self._late = Event(), Event(), Event(), Event()
        self._lock = Lock()
        self._snapshot = JobSnapshot()
        self._thread = Thread(target=self._run, name=f"cfrec-job-{self.id}", daemon=True)

    @classmethod
    def resuming(cls, checkpoint: Checkpoint, unfinished: TrainedModel, load: Load, data: Hashable = None) -> TrainingJob:
        """The job that goes on with a run from its checkpoint, under the same id. Raises CfrecError where another does already."""
        if not checkpoint.claim():
            raise CfrecError("Someone else goes on with this run already. Reload the page to watch it.")
        job = cls(load, unfinished.config, unfinished.source.title, data=data, split=unfinished.split or (0.2, 42))
        job.id, job._resume, job._checkpoint = checkpoint.run, unfinished, checkpoint
        job._snapshot = JobSnapshot(history=tuple(unfinished.history), kept_epoch=len(unfinished.history))
        return job

    @property
    def snapshot(self) -> JobSnapshot:
        """The latest."""
        return self._snapshot

    @property
    def paused(self) -> bool:
        """Whether the run waits to go on."""
        return self._pause.is_set() and not self.stopping and not self._snapshot.finished

    @property
    def stopping(self) -> bool:
        """Whether it has been asked to stop."""
        return self._stop.is_set()

    def is_like(self, other: TrainingJob) -> bool:
        """Whether both learn from the same ratings with the same settings."""
        return self.data is not None and (self.data, self.config, self._split) == (other.data, other.config, other._split)

    def start(self) -> None:
        """Begin; returns at once. Raises RuntimeError where no thread can be started."""
        self._publish(phase=READING)
        self._thread.start()

    def pause(self) -> None:
        """Hold the run before its next step."""
        self._pause.set()

    def go_on(self) -> None:
        """End a pause."""
        self._pause.clear()

    def stop(self) -> None:
        """End the run soon; what was best so far is its result."""
        self._stop.set()

    def leave(self) -> None:
        """End the run soon, and keep its checkpoint so that it can be resumed: the process is about to end."""
        self._leave.set()
        self._stop.set()

    def withdraw(self, why: str) -> None:
        """Give up a run that was never started."""
        self._publish(phase=FAILED, error=why)
        self._load = _gone
        if self._checkpoint:
            self._checkpoint.release()

    def wait(self, seconds: float | None = None) -> JobSnapshot:
        """Wait for the end, at most so long; returns the snapshot of then."""
        if self._thread.ident is not None:
            self._thread.join(seconds)
        return self._snapshot

    def seconds_left(self) -> float | None:
        """About how long the epochs that remain will take; None before the first is done."""
        now = self._snapshot
        if not now.history or now.finished:
            return None
        recent = sorted(m.seconds for m in now.history[-5:])
        return (self.config.epochs - len(now.history)) * recent[len(recent) // 2]

    def _publish(self, **changes: object) -> None:
        with self._lock:
            self._snapshot = replace(self._snapshot, **changes)  # type: ignore[arg-type]  # its own fields

    def _run(self) -> None:
        logger.info("run %s: %s on %s", self.id, self.config.recipe, self.title)
        limit = Timer(self._longest, self._end_late)
        limit.daemon = True
        try:
            _give_way()
            limit.start()
            self._publish(phase=DONE, result=self._train())
            logger.info("run %s: done", self.id)
        except CfrecError as error:
            logger.warning("run %s: %s", self.id, error)
            self._publish(phase=FAILED, error=str(error))
        except MemoryError:
            logger.exception("run %s", self.id)
            self._publish(phase=FAILED, error="The memory of this machine is used up. Use fewer factors, or a smaller data set.")
        except Exception:  # a thread's last chance to say that it failed
            logger.exception("run %s", self.id)
            self._publish(phase=FAILED, error="Something in cfrec went wrong; the server's log says what. Try again with a preset.")
        finally:
            limit.cancel()
            self._close_checkpoint()
            self.on_end()

    def _end_late(self) -> None:
        self._late.set()
        self.stop()

    def _close_checkpoint(self) -> None:
        """What a whole run leaves is its result; one that failed or was left behind can be resumed."""
        if self._checkpoint and self._snapshot.phase == DONE:
            self._checkpoint.drop()
        elif self._checkpoint:
            self._checkpoint.release()

    def _train(self) -> JobResult:
        try:
            ratings = self._load(self._report_fetched)
        finally:
            self._load = _gone  # it may hold a whole data set
        if self.stopping:
            raise CfrecError("The run was stopped before training began: there is nothing to keep.")
        part, valid = ratings.split(*self._split)
        self._publish(phase=TRAINING, n_train=len(part), baselines=baseline_losses(part, valid), training_since=time.time())
        resume, self._resume = self._resume, None
        trained = train(
            part,
            valid,
            self.config,
            on_epoch=self._add_epoch,
            stop=self._stop,
            pause=self._pause,
            resume=resume,
            on_checkpoint=self._keep if self._checkpoint else None,
            checkpoint_seconds=CHECKPOINT_SECONDS,
        )
        if trained.outcome == "stopped" and self._late.is_set():
            trained = replace(trained, advice=f"A run may take {self._longest / 60:,.0f} minutes here: this one was ended then.")
        predicted = trained.predict_rows(valid.user_idx, valid.movie_idx)
        groups = pd.DataFrame(calibration(predicted, valid.rating), columns=["predicted", "actual", "n_ratings"])
        first = valid.take(np.arange(min(len(valid), _KEPT_GUESSES)))  # the head of all guesses would keep their table in memory
        return JobResult(replace(trained, state=None), guesses(trained, first), shares_within(predicted, valid.rating), groups)

    def _report_fetched(self, done: int, total: int) -> None:
        if self.stopping:
            raise CfrecError("The download was stopped.")
        self._publish(fetched=(done, total))

    def _add_epoch(self, metrics: EpochMetrics) -> None:
        self._publish(history=(*self._snapshot.history, metrics))

    def _keep(self, unfinished: TrainedModel) -> None:
        leaving = self._leave.is_set()
        if self._checkpoint and (leaving or not self.stopping) and self._checkpoint.keep(unfinished):
            self._publish(kept_epoch=len(unfinished.history))
        if leaving:
            raise CfrecError("The server stopped. What was learned until then is kept: the run can be resumed.")


def _give_way() -> None:
    """Let those who look at pages come first: on Linux, where a thread can be given less than others."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def _gone(_: Progress) -> Ratings:
    raise CfrecError("This run is over. Start another one.")
