"""The runs of a process: one is under way at a time, some wait for their turn, and the latest finished ones are kept."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import UTC, datetime

import pandas as pd

from cfrec.config import TrainConfig
from cfrec.errors import BusyError
from cfrec.jobs import TrainingJob

logger = logging.getLogger(__name__)

MOST_WAITING = 3
_KEPT_RUNS = 12
_KEPT_BYTES = 500_000_000  # of weights, in all runs but the last
_PARTING = 10.0  # seconds that the end of the process waits for a run to be kept


class JobBoard:
    """The runs of this process. Safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._jobs: dict[str, TrainingJob] = {}  # under way or over, the latest last
        self._waiting: list[TrainingJob] = []
        self._closed = False

    def submit(self, job: TrainingJob) -> TrainingJob:
        """Start a job, or let it wait for its turn. If one like it runs or waits already, that one is returned and the other dropped.

        Raises
        ------
        BusyError
            As many wait as may, the process is about to end, or it can start no more threads.
        """
        with self._lock:
            try:
                return self._take(job)
            except BusyError as error:
                job.withdraw(str(error))
                raise

    def _take(self, job: TrainingJob) -> TrainingJob:
        if self._closed:
            raise BusyError("The server is about to stop. Try again when it is back.")
        running = self.running()
        if alike := next((other for other in [running, *self._waiting] if other and not other.stopping and other.is_like(job)), None):
            job.withdraw("The same run is under way already.")
            return alike
        job.on_end = self._start_next
        if running is None and not self._waiting:
            self._start(job)
        elif len(self._waiting) < MOST_WAITING:
            self._waiting.append(job)
        else:
            raise BusyError(f"{MOST_WAITING} runs wait already. Try again when one of them has begun.")
        return job

    def is_full(self) -> bool:
        """Whether no other run can wait."""
        return len(self._waiting) >= MOST_WAITING

    def running(self) -> TrainingJob | None:
        """The run that is under way."""
        return next((job for job in list(self._jobs.values()) if not job.snapshot.finished), None)

    def waiting(self) -> list[TrainingJob]:
        """The runs that wait, the next one first."""
        return list(self._waiting)

    def get(self, job_id: str) -> TrainingJob | None:
        """The run of this id, if it waits or is still kept."""
        return next((job for job in self.waiting() if job.id == job_id), None) or self._jobs.get(job_id)

    def all(self) -> list[TrainingJob]:
        """The runs that are under way or kept, the latest first."""
        return list(self._jobs.values())[::-1]

    def withdraw(self, job: TrainingJob) -> None:
        """Take a run out of the queue; one that has begun meanwhile is stopped."""
        with self._lock:
            if job not in self._waiting:
                job.stop()
                return
            self._waiting.remove(job)
            job.withdraw("It was taken out of the queue.")

    def close(self) -> None:
        """The process is about to end: drop what waits, and stop what runs so that it can be resumed."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, []
        for job in waiting:
            job.withdraw("The server stopped.")
        if running := self.running():
            logger.warning("run %s: the server stops; it can be resumed from where it is", running.id)
            running.leave()
            running.wait(_PARTING)

    def close_at_exit(self) -> None:
        """Have ``close`` called when the main thread ends, while worker threads still live: what ``atexit`` calls comes too late."""
        threading._register_atexit(self.close)  # type: ignore[attr-defined]  # not public, but what concurrent.futures uses

    def _start(self, job: TrainingJob) -> None:
        try:
            job.start()
        except RuntimeError as error:  # no more threads
            logger.warning("run %s: %s", job.id, error)
            raise BusyError("This machine cannot begin another run now. Try again later.") from error
        self._jobs.pop(job.id, None)  # the run that it resumes
        self._forget_old()
        self._jobs[job.id] = job

    def _start_next(self) -> None:
        with self._lock:
            while self._waiting and self.running() is None:
                job = self._waiting.pop(0)
                try:
                    self._start(job)
                except BusyError as error:
                    job.withdraw(str(error))

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


def runs_table(jobs: Sequence[TrainingJob]) -> pd.DataFrame:
    """Runs in the order given: run (its id), started (UTC), data, recipe, changed (settings -> values), rmse (stars), best_epoch, epochs,
    device, seconds, outcome.

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
        "changed": changed,
        "rmse": trained.metrics["rmse"] if trained else None,
        "best_epoch": trained.best_epoch if trained else None,
        "epochs": len(now.history),
        "device": trained.device if trained else None,
        "seconds": trained.fit_seconds if trained else None,
        "outcome": trained.outcome if trained else now.phase,
    }
