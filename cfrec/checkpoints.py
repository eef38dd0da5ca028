"""Runs that are under way, as they stood a few seconds ago: what is left of them if their process ends.

`models/.unfinished/RUN` is a resumable model as ``storage`` writes it; `RUN.lock` beside it is locked as long as its run's process lives.
"""

from __future__ import annotations

import contextlib
import logging
from pathlib import Path

from cfrec.errors import CfrecError
from cfrec.folders import actual_place, model_places
from cfrec.storage import delete_model, model_stamp, save_model, sweep
from cfrec.trained import TrainedModel

logger = logging.getLogger(__name__)

FOLDER = ".unfinished"
_MOST = 3  # runs that are kept to be resumed, the latest


class Checkpoint:
    """Where one run's checkpoints are stored, one replacing the other.

    Parameters
    ----------
    models : path
        The folder of models.
    run : str
        The run's id.
    """

    def __init__(self, models: str | Path, run: str) -> None:
        from filelock import FileLock

        self.run, self.folder = run, Path(models) / FOLDER / run
        self._lock = FileLock(self.folder.with_suffix(".lock"), thread_local=False)  # the thread that lets go may be another

    def claim(self) -> bool:
        """Make this checkpoint the run's; False where the run is another's, in this process or elsewhere, or this one's already."""
        from filelock import Timeout

        if self._lock.is_locked:
            return False
        try:
            self.folder.parent.mkdir(parents=True, exist_ok=True)
            self._lock.acquire(timeout=0)
        except Timeout:
            return False
        return True

    def keep(self, trained: TrainedModel) -> bool:
        """Store the run as it stands; whether that was possible. Where not, a line in the log says why: training goes on."""
        try:
            if not self._lock.is_locked and not self.claim():
                raise CfrecError("Another process goes on with this run.")
            save_model(trained, self.folder, resumable=True)
        except (CfrecError, OSError) as error:
            logger.warning("run %s: no checkpoint: %s", self.run, error)
            return False
        return True

    def drop(self) -> None:
        """Delete what is stored: the run is over. Where another goes on with it, nothing is done."""
        try:
            if not self._lock.is_locked and (model_stamp(self.folder) is None or not self.claim()):
                return
            if model_stamp(self.folder) is not None:
                delete_model(self.folder)
        except (CfrecError, OSError) as error:
            logger.warning("run %s: its checkpoint stays: %s", self.run, error)
        if self._lock.is_locked:
            with contextlib.suppress(OSError):  # a lock that stays is harmless
                Path(self._lock.lock_file).unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Let go of the run, so that another may go on with it."""
        self._lock.release(force=True)


def unfinished_runs(models: str | Path) -> list[Checkpoint]:
    """The runs that no process goes on with, the latest first. Cheap: no model is read."""
    places = sorted(model_places(Path(models) / FOLDER), key=_last_change, reverse=True)
    found = [Checkpoint(models, place.name) for place in places]
    return [checkpoint for checkpoint in found if _is_abandoned(checkpoint)]


def sweep_checkpoints(models: str | Path) -> None:
    """Remove what writers left that were killed, and all but the latest few runs that no process goes on with."""
    if (Path(models) / FOLDER).is_dir():
        sweep(Path(models) / FOLDER)
    for checkpoint in unfinished_runs(models)[_MOST:]:
        checkpoint.drop()


def _last_change(path: Path) -> float:
    try:
        return actual_place(path).stat().st_mtime
    except OSError:  # dropped meanwhile
        return 0.0


def _is_abandoned(checkpoint: Checkpoint) -> bool:
    try:
        abandoned = checkpoint.claim()
    except OSError as error:  # a folder that cannot be written to
        logger.info("run %s: %s", checkpoint.run, error.strerror)
        return False
    checkpoint.release()
    return abandoned
