"""Train: check what is asked for, fit the network, and give a TrainedModel."""

from __future__ import annotations

import time
from dataclasses import replace
from datetime import UTC, datetime
from threading import Event
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from cfrec.config import TrainConfig
from cfrec.devices import choose_device
from cfrec.errors import DataError
from cfrec.metrics import prediction_errors
from cfrec.ratings import Ratings, ReadReport, Source
from cfrec.trained import TrainedModel

if TYPE_CHECKING:
    from cfrec.adam import AdamRun, OnEpoch

_TIMED_STEPS, _TIMED_RATINGS = 20, 200_000  # what an estimate of the time is made from


def train(
    train: Ratings,
    valid: Ratings,
    config: TrainConfig | None = None,
    *,
    on_epoch: OnEpoch | None = None,
    stop: Event | None = None,
    pause: Event | None = None,
    resume: TrainedModel | None = None,
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
        Heeded before each batch. A stopped run returns the best so far, the unfinished epoch included.
    resume : TrainedModel, optional
        A run with a ``state``, from the same ratings, to go on with; only epochs, patience and device may differ.

    Returns
    -------
    TrainedModel
        ``outcome`` says how the run ended. A run that diverges ends with its last good weights, and advice.

    Raises
    ------
    ConfigError, DeviceError, DataError
        Too little memory, or a ``resume`` that does not fit; no such device; parts of different data sets.
    """
    config = config or TrainConfig()
    if train.n_users != valid.n_users or train.n_movies != valid.n_movies:
        raise DataError("The training and validation ratings are not parts of one data set: their users or movies differ.")
    if not len(train) or not len(valid):
        raise DataError("There are no ratings to train on, or none to validate on.")
    config.check_memory(train.n_users, train.n_movies, len(train) + len(valid))
    device = choose_device(config.device)
    from cfrec.adam import AdamRun, use_threads

    with use_threads(config.n_threads):
        started = time.perf_counter()
        run = AdamRun(train, valid, config, device.name)
        if resume:
            run.restore(resume)
        outcome, advice = run.fit(on_epoch or (lambda _: None), stop or Event(), pause or Event())
        trained = _trained_model(run, outcome, advice, time.perf_counter() - started)
    return replace(trained, metrics=prediction_errors(trained.predict_rows(valid.user_idx, valid.movie_idx), valid.rating))


def _trained_model(run: AdamRun, outcome: str, advice: str, fit_seconds: float) -> TrainedModel:
    """The run's best weights with all that is known of them, but for the metrics."""
    weights, train = run.best_weights(), run.ratings
    return TrainedModel(
        user_factors=weights["user_factors"],
        user_bias=weights["user_bias"],
        movie_factors=weights["movie_factors"],
        movie_bias=weights["movie_bias"],
        offset=float(run.net.offset),
        y_range=run.net.y_range,
        scale=train.scale,
        user_ids=train.user_ids,
        movies=train.movies,
        source=train.source,
        config=run.config,
        history=run.history,
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
    """About how long a run would take on the device it is set to, from a few timed steps on made-up ratings.

    Parameters
    ----------
    n_users, n_movies, n_ratings : int
        Of the training ratings.

    Raises
    ------
    ConfigError, DeviceError
        Too little memory; no such device.
    """
    config.check_memory(n_users, n_movies, n_ratings)
    device = choose_device(config.device)
    from cfrec.adam import AdamRun, use_threads

    n_timed = min(n_ratings, _TIMED_STEPS * config.batch_size, _TIMED_RATINGS)
    sample = _made_up(n_users, n_movies, n_timed)
    with use_threads(config.n_threads):
        run = AdamRun(sample, sample.take(np.arange(min(n_timed, config.batch_size))), config, device.name)
        epochs = []
        for epoch in (1, 2, 3):
            started = time.perf_counter()
            run.time_epoch(epoch)
            epochs.append(time.perf_counter() - started)
    return min(epochs[1:]) * n_ratings / n_timed * config.epochs


def _made_up(n_users: int, n_movies: int, n_ratings: int) -> Ratings:
    random = np.random.default_rng(0)
    return Ratings(
        user_idx=random.integers(n_users, size=n_ratings, dtype=np.int32),
        movie_idx=random.integers(n_movies, size=n_ratings, dtype=np.int32),
        rating=random.integers(1, 6, size=n_ratings).astype(np.float32),
        user_ids=np.arange(n_users),
        movies=pd.DataFrame(index=range(n_movies)),
        timestamp=None,
        scale=(1.0, 5.0, 1.0),
        source=Source("made up", "Made-up ratings"),
        report=ReadReport(n_ratings, n_ratings),
    )
