"""Training in the background: one run at a time, seen by everyone who asks.

A run goes on in a thread of its own, whoever looks at it, and publishes what it knows as immutable snapshots.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from threading import Event, Lock, Thread

import numpy as np
import pandas as pd

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

READING, TRAINING, DONE, FAILED = "reading", "training", "done", "failed"
_KEPT_RUNS = 12
_KEPT_BYTES = 500_000_000  # of weights, in all runs but the last
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

    phase: str = READING  # then TRAINING, and DONE or FAILED
    fetched: tuple[int, int] = (0, 0)  # bytes so far, bytes in all; (0, 0) where nothing is downloaded
    n_train: int = 0
    baselines: dict[str, float] = field(default_factory=dict)  # as evaluation.baseline_losses gives
    history: tuple[EpochMetrics, ...] = ()
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
    valid_fraction, split_seed
        As in ``Ratings.split``.
    """

    def __init__(self, load: Load, config: TrainConfig, title: str, *, valid_fraction: float = 0.2, split_seed: int = 42) -> None:
        self.id = secrets.token_hex(4)
        self.config, self.title = config, title
        self.created = time.time()
        self._load, self._split = load, (valid_fraction, split_seed)
        self._stop, self._pause = Event(), Event()
        self._lock = Lock()
        self._snapshot = JobSnapshot()
        self._thread = Thread(target=self._run, name=f"cfrec-job-{self.id}", daemon=True)

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

    def start(self) -> None:
        """Begin; returns at once."""
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

    def wait(self, seconds: float | None = None) -> JobSnapshot:
        """Wait for the end, at most so long; returns the snapshot of then."""
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
        try:
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

    def _train(self) -> JobResult:
        try:
            ratings = self._load(self._report_fetched)
        finally:
            del self._load  # it may hold a whole data set
        if self.stopping:
            raise CfrecError("The run was stopped before training began: there is nothing to keep.")
        part, valid = ratings.split(*self._split)
        self._publish(phase=TRAINING, n_train=len(part), baselines=baseline_losses(part, valid), training_since=time.time())
        trained = train(part, valid, self.config, on_epoch=self._add_epoch, stop=self._stop, pause=self._pause)
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


def runs_table(jobs: Sequence[TrainingJob]) -> pd.DataFrame:
    """Runs in the order given: run (its id), started (UTC), data, recipe, changed (settings), rmse (stars), best_epoch, epochs, device,
    seconds, outcome.

    What is not known yet is None; of a run that failed, outcome says so.
    """
    return pd.DataFrame([_run_row(job) for job in jobs])


def _run_row(job: TrainingJob) -> dict[str, object]:
    now = job.snapshot
    trained = now.result.trained if now.result else None
    recipe = TrainConfig.preset(job.config.recipe).to_dict() if job.config.recipe in TrainConfig.preset_names() else {}
    changed = {name: value for name, value in job.config.to_dict().items() if name != "device" and recipe.get(name, value) != value}
    return {
        "run": job.id,
        "started": datetime.fromtimestamp(job.created, UTC),
        "data": job.title,
        "recipe": job.config.recipe,
        "changed": ", ".join(f"{name} {value}" for name, value in changed.items()),
        "rmse": trained.metrics["rmse"] if trained else None,
        "best_epoch": trained.best_epoch if trained else None,
        "epochs": len(now.history),
        "device": trained.device if trained else None,
        "seconds": trained.fit_seconds if trained else None,
        "outcome": trained.outcome if trained else now.phase,
    }


class JobBoard:
    """The runs of this process, the latest last: one is under way at most, and the latest finished ones are kept."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._jobs: dict[str, TrainingJob] = {}

    def start(self, job: TrainingJob) -> TrainingJob:
        """Start a job, unless one is under way: then that one is returned, and the other dropped."""
        with self._lock:
            if running := self.running():
                return running
            job.start()
            self._forget_old()
            self._jobs[job.id] = job
            return job

    def running(self) -> TrainingJob | None:
        """The run that is under way."""
        return next((job for job in list(self._jobs.values()) if not job.snapshot.finished), None)

    def get(self, job_id: str) -> TrainingJob | None:
        """The run of this id, if it is still kept."""
        return self._jobs.get(job_id)

    def all(self) -> list[TrainingJob]:
        """The kept runs, the latest first."""
        return list(self._jobs.values())[::-1]

    def _forget_old(self) -> None:
        """Make room for one more run."""
        weights = {}
        for job in self._jobs.values():
            result = job.snapshot.result
            weights[job.id] = 4 * result.trained.n_parameters if result else 0
        for job_id in list(self._jobs):
            if len(self._jobs) < _KEPT_RUNS and sum(weights.values()) <= _KEPT_BYTES:
                break
            del self._jobs[job_id]
            del weights[job_id]
