"""Train: check what is asked for, fit the network, and give a TrainedModel."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from threading import Event, Lock

import numpy as np
import pandas as pd

from cfrec.arguments import checked
from cfrec.compiled import load_kernels
from cfrec.config import TrainConfig
from cfrec.devices import choose_device, failures_named
from cfrec.errors import DataError
from cfrec.fitting import OnEpoch, Run
from cfrec.metrics import prediction_errors
from cfrec.ratings import FloatArray, Ratings, ReadReport, Source
from cfrec.trained import EpochMetrics, TrainedModel

logger = logging.getLogger(__name__)

OnCheckpoint = Callable[[TrainedModel], object]


@dataclass(frozen=True, eq=False)
class Snapshot:
    """The movies as a run sees them after an epoch, to be drawn meanwhile: read-only arrays (n_movies, n_factors) and (n_movies,)."""

    epoch: int
    movie_factors: FloatArray
    movie_bias: FloatArray


OnSnapshot = Callable[[Snapshot], object]

_ONE_USER = (
    "All ratings are by one person: from one person's ratings a network cannot learn what goes with what. Use ratings by many people. "
    'For recommendations from your own: python -m cfrec recommend --rate "Fargo=4.5".'
)

_SHARE = 20  # the time between two checkpoints is at least this many times what one takes
_TIMED_STEPS, _TIMED_RATINGS = 20, 200_000  # what an estimate of the time is made from, at most
_TIMED_ROWS, _TIMED_NUMBERS, _TIMED_SQUARES = 1_000_000, 8_000_000, 20_000_000  # of the network; of gibbs' rows
_ONE_AT_A_TIME = Lock()  # estimates disturb each other's time, and many at once would fill the memory


@checked
def train(
    train: Ratings,
    valid: Ratings,
    config: TrainConfig | None = None,
    *,
    on_epoch: OnEpoch | None = None,
    stop: Event | None = None,
    pause: Event | None = None,
    resume: TrainedModel | None = None,
    on_checkpoint: OnCheckpoint | None = None,
    checkpoint_seconds: float = 5.0,
    on_snapshot: OnSnapshot | None = None,
    snapshot_seconds: float = 0.2,
) -> TrainedModel:
    """Train an EmbeddingNet and keep the weights of its best epoch on ``valid``.

    Parameters
    ----------
    train, valid : Ratings
        Two parts of one set of ratings, as ``Ratings.split`` gives.
    config : TrainConfig, optional
        The default preset where left out.
    on_epoch : callable, optional
        Called with an EpochMetrics after each epoch.
    stop, pause : threading.Event, optional
        Heeded before each batch, and by ``gibbs`` before each of an epoch's four steps. A stopped run returns the best so far.
    resume : TrainedModel, optional
        A run with a ``state``, from the same ratings, to go on with; only epochs, patience and device may differ.
    on_checkpoint : callable, optional
        Called after an epoch with the run as it stands, to ``resume`` from: once ``checkpoint_seconds`` have gone by, and twenty times
        as long as the last call took; and when the run is stopped.
    on_snapshot : callable, optional
        Called after an epoch with a Snapshot, at most every ``snapshot_seconds``.

    Returns
    -------
    TrainedModel
        ``outcome`` says how the run ended. A run that diverges ends with its last good weights, and advice.

    Raises
    ------
    ConfigError, DeviceError, DataError
        Too little memory, or a ``resume`` that does not fit; no such device; parts of different data sets, or one user's ratings only.
    """
    config = config or TrainConfig()
    _check_parts(train, valid)
    config = config.fitted_to(len(train))
    config.check_memory(train.n_users, train.n_movies, len(train) + len(valid))
    make_run = load_method(config)
    started = time.perf_counter()
    run = make_run(train, valid)
    if resume:
        run.restore(resume)
    checkpoints = _Checkpoints(run, on_checkpoint or _ignore, checkpoint_seconds if on_checkpoint else math.inf)
    snapshots = _Snapshots(run, on_snapshot or _ignore, snapshot_seconds if on_snapshot else math.inf)

    def after_epoch(metrics: EpochMetrics) -> None:
        (on_epoch or _ignore)(metrics)
        checkpoints.after_epoch()
        snapshots.after_epoch(metrics.epoch)

    outcome, advice = run.fit(after_epoch, stop or Event(), pause or Event())
    trained = _trained_model(run, outcome, advice, time.perf_counter() - started)
    if outcome == "stopped" and on_checkpoint:
        checkpoints.hand_over()
    errors = prediction_errors(trained.predict_rows(valid.user_idx, valid.movie_idx), valid.rating)
    return replace(trained, metrics=errors)


def _check_parts(train: Ratings, valid: Ratings) -> None:
    """Raise DataError for ratings that nothing can be learned from, or measured by."""
    if train.n_users != valid.n_users or train.n_movies != valid.n_movies:
        raise DataError("The training and validation ratings are not parts of one data set: their users or movies differ.")
    if not len(train) or not len(valid):
        raise DataError("There are no ratings to train on, or none to validate on.")
    if train.n_users == 1:
        raise DataError(_ONE_USER)


class _Checkpoints:
    """Hands over a run as it stands, at most once in a number of seconds; less often where that takes long."""

    def __init__(self, run: Run, keep: OnCheckpoint, seconds: float) -> None:
        self.run, self.keep, self.seconds = run, keep, seconds
        self.began = time.monotonic()
        self.due = self.began + seconds

    def after_epoch(self) -> None:
        if time.monotonic() >= self.due:
            self.hand_over()

    def hand_over(self) -> None:
        if self.run.state is None or not self.run.history:
            return
        now, valid = time.monotonic(), self.run.valid_ratings
        trained = _trained_model(self.run, "unfinished", "", now - self.began)
        self.keep(replace(trained, metrics=prediction_errors(trained.predict_rows(valid.user_idx, valid.movie_idx), valid.rating)))
        took = time.monotonic() - now
        self.due = time.monotonic() + max(self.seconds, _SHARE * took)


def _ignore(_: object) -> None:
    """What is called where nobody wants to know."""


def prepare() -> None:
    """Import and compile what training on a CPU needs, so that the first run need not wait for it."""
    load_method(TrainConfig(device="cpu"))


def load_method(config: TrainConfig) -> Callable[[Ratings, Ratings], Run]:
    """Import and compile what a method needs; returns what makes a run of it. Raises DeviceError for a device that is not there."""
    fitted = _as_fitted(config)
    if fitted.method == "gibbs" and (gibbs := load_kernels("gibbs")):
        gibbs.prepare()
        return lambda train, valid: gibbs.GibbsRun(train, valid, fitted)
    from cfrec.adam import AdamRun

    device = choose_device(fitted.device).name
    if config.method == "gibbs":
        logger.info("on %s the recipe %s is trained by Adam", device, config.recipe)

    def make_run(train: Ratings, valid: Ratings) -> Run:
        with failures_named(device):
            return AdamRun(train, valid, fitted, device)

    return make_run


def _as_fitted(config: TrainConfig) -> TrainConfig:
    """The settings as they can be fitted: compiled code needs Numba and a CPU."""
    if config.method == "adam" or (config.device in ("auto", "cpu") and load_kernels("gibbs")):
        return config
    return config.for_adam()


class _Snapshots:
    """Hands over the movies as a run sees them, at most every given number of seconds."""

    def __init__(self, run: Run, show: OnSnapshot, seconds: float) -> None:
        self.run, self.show, self.seconds = run, show, seconds
        self.due = math.inf if seconds == math.inf else 0.0

    def after_epoch(self, epoch: int) -> None:
        if time.monotonic() < self.due:
            return
        self.due = time.monotonic() + self.seconds
        network = self.run.network()
        arrays = [self.run.to_array(network[name]).view() for name in ("movie_factors", "movie_bias")]
        for array in arrays:
            array.flags.writeable = False
        self.show(Snapshot(epoch, *arrays))


def _trained_model(run: Run, outcome: str, advice: str, fit_seconds: float) -> TrainedModel:
    """The run's best weights with all that is known of them, but for the metrics."""
    weights, train = run.best_weights(), run.ratings
    return TrainedModel(
        user_factors=weights["user_factors"],
        user_bias=weights["user_bias"],
        movie_factors=weights["movie_factors"],
        movie_bias=weights["movie_bias"],
        user_choice=weights.get("user_choice"),
        movie_traits=run.traits,
        offset=run.offset,
        y_range=run.y_range,
        scale=train.scale,
        user_ids=train.user_ids,
        movies=train.movies,
        source=train.source,
        config=run.config,
        history=list(run.history),
        metrics={},
        best_epoch=run.best_epoch,
        outcome=outcome,
        device=run.device,
        fit_seconds=fit_seconds,
        n_train=len(train),
        n_valid=len(run.valid_ratings),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        fingerprint=train.fingerprint(),
        advice=advice,
        split=train.split_by,
        state=run.state,
    )


def estimate_seconds(config: TrainConfig, n_users: int, n_movies: int, n_ratings: int) -> float:
    """About how long a run would take on the device it is set to, from a few timed steps on synthetic ratings.

    Parameters
    ----------
    n_users, n_movies, n_ratings : int
        Of the training ratings.

    Raises
    ------
    ConfigError, DeviceError
        Too little memory; no such device.
    """
    config = config.fitted_to(n_ratings)
    config.check_memory(n_users, n_movies, n_ratings)
    config = _as_fitted(config)
    with _ONE_AT_A_TIME:
        epoch = (_time_sweep if config.method == "gibbs" else _time_epoch)(config, n_users, n_movies, n_ratings)
    return epoch * config.epochs


def _time_epoch(config: TrainConfig, n_users: int, n_movies: int, n_ratings: int) -> float:
    """Seconds an epoch, from some of the ratings, and of many numbers a row from some of those: time grows with both."""
    rows, n_timed = min(n_users + n_movies, _TIMED_ROWS), min(n_ratings, _TIMED_RATINGS)
    share = rows / (n_users + n_movies)
    timed = replace(config, n_factors=max(min(config.n_factors, _TIMED_NUMBERS // rows), 1))
    if config.method == "adam":
        from cfrec.adam import in_large_batches

        timed = in_large_batches(timed, n_ratings)
        n_steps = _TIMED_STEPS * 1_000_000 // max(rows * timed.n_factors, 1_000_000)
        n_timed = min(n_timed, n_steps * timed.batch_size)
    sample = _made_up(math.ceil(share * n_users), math.ceil(share * n_movies), n_timed)
    return _time_run(timed, sample) * n_ratings / len(sample) * config.n_factors / timed.n_factors


def _time_sweep(config: TrainConfig, n_users: int, n_movies: int, n_ratings: int) -> float:
    """Seconds a sweep of gibbs, from a share of users, movies and ratings alike: its time grows with all of them."""
    squares = (n_users + n_movies) * (config.n_factors + 1) ** 2
    share = min(_TIMED_RATINGS / n_ratings, _TIMED_SQUARES / squares, 1.0)
    sizes = (max(math.ceil(share * n), 2) for n in (n_users, n_movies, n_ratings))
    return _time_run(config, _made_up(*sizes)) / share


def _time_run(config: TrainConfig, sample: Ratings) -> float:
    run = load_method(config)(sample, sample.take(np.arange(min(len(sample), config.batch_size))))
    return min([run.time_epoch(epoch) for epoch in (1, 2, 3)][1:])


def _made_up(n_users: int, n_movies: int, n_ratings: int) -> Ratings:
    """About as many ratings, no pair of user and movie twice."""
    random = np.random.default_rng(0)
    pairs = np.unique(random.integers(n_users * n_movies, size=n_ratings))
    return Ratings(
        user_idx=(pairs // n_movies).astype(np.int32),
        movie_idx=(pairs % n_movies).astype(np.int32),
        rating=random.integers(1, 6, size=len(pairs)).astype(np.float32),
        user_ids=np.arange(n_users),
        movies=pd.DataFrame(index=range(n_movies)),
        timestamp=None,
        scale=(1.0, 5.0, 1.0),
        source=Source("synthetic", "Synthetic ratings"),
        report=ReadReport(len(pairs), len(pairs)),
    )
