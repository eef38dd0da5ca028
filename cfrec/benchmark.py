"""How fast training is on this machine: on synthetic ratings of MovieLens' shape, at any size."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, replace
from threading import Event

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.config import TrainConfig
from cfrec.ratings import FloatArray, IntArray, Ratings, ReadReport, Source
from cfrec.training import load_method

_CHUNK = 1 << 20  # ratings made at a time
_N_TASTES = 12  # numbers that a synthetic user's taste has
_TIMED_EPOCHS = 3
_VALID_SHARE = 10  # one rating in this many is held out


@dataclass(frozen=True)
class Speed:
    """What training on a number of ratings takes."""

    n_ratings: int  # trained on
    n_users: int
    n_movies: int
    method: str
    device: str
    nanoseconds: float  # a rating, in an epoch without its validation: the median of three
    setup_seconds: float  # from ratings in memory to the first step
    mse: float  # on held-out ratings, after the run's epochs
    guessing_mse: float  # of always guessing the mean
    peak_gigabytes: float  # of this process so far


def made_up_ratings(n_ratings: int, *, seed: int = 0) -> Ratings:
    """About as many ratings as asked for, in half stars, of popularity, activity and tastes as people have; no pair twice.

    Users and movies are drawn by power laws of their rank, and grow with the number of ratings as they do from one MovieLens release
    to the next: n / 160 users and 12 sqrt(n) movies. Ratings are drawn from user and movie biases, a product of 12 tastes, and noise.
    """
    random = np.random.default_rng(seed)
    n_users, n_movies = max(600, n_ratings // 160), max(1_000, int(12 * n_ratings**0.5))
    user_idx, movie_idx = _draw_pairs(random, n_ratings, n_users, n_movies)
    return Ratings(
        user_idx=user_idx,
        movie_idx=movie_idx,
        rating=_draw_stars(random, user_idx, movie_idx, n_users, n_movies),
        user_ids=np.arange(n_users),
        movies=pd.DataFrame({"movie_id": np.arange(n_movies)}),
        timestamp=None,
        scale=(0.5, 5.0, 0.5),
        source=Source("synthetic", "Synthetic ratings"),
        report=ReadReport(len(user_idx), len(user_idx)),
    )


def _draw_pairs(random: np.random.Generator, n: int, n_users: int, n_movies: int) -> tuple[IntArray, IntArray]:
    pairs: npt.NDArray[np.int64] = _draw(random, n, 1 / np.arange(20, n_users + 20) ** 0.65).astype(np.int64)
    pairs *= n_movies
    pairs += _draw(random, n, 1 / np.arange(5, n_movies + 5) ** 0.95)
    pairs.sort()
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])]
    random.shuffle(pairs)
    return (pairs // n_movies).astype(np.int32), (pairs % n_movies).astype(np.int32)


def _draw(random: np.random.Generator, n: int, weights: npt.NDArray[np.float64]) -> IntArray:
    """Numbers drawn with these weights, by parts: a draw needs a float64 for each."""
    ends = np.cumsum(weights / weights.sum())
    parts = [np.searchsorted(ends[:-1], random.random(min(_CHUNK, n - start))).astype(np.int32) for start in range(0, n, _CHUNK)]
    return np.concatenate(parts)


def _draw_stars(random: np.random.Generator, user_idx: IntArray, movie_idx: IntArray, n_users: int, n_movies: int) -> FloatArray:
    users, movies = (random.standard_normal((n, _N_TASTES), np.float32) for n in (n_users, n_movies))
    user_bias, movie_bias = 0.4 * random.standard_normal(n_users, np.float32), 0.45 * random.standard_normal(n_movies, np.float32)
    stars = np.empty(len(user_idx), np.float32)
    for start in range(0, len(stars), _CHUNK):
        u, m = user_idx[start : start + _CHUNK], movie_idx[start : start + _CHUNK]
        taste = np.einsum("nk,nk->n", users[u], movies[m]) * (0.45 / _N_TASTES**0.5)
        mean = 3.53 + user_bias[u] + movie_bias[m] + taste
        stars[start : start + _CHUNK] = (np.round(2 * (mean + 0.75 * random.standard_normal(len(u), np.float32))) / 2).clip(0.5, 5)
    return stars


def measure_speed(config: TrainConfig, ratings: Ratings) -> Speed:
    """Train on nine tenths of the ratings, in the order they are in; then time three more epochs.

    Raises
    ------
    ConfigError, DeviceError
        Too little memory; no such device.
    """
    n_valid = max(len(ratings) // _VALID_SHARE, 1)
    valid, train = (
        replace(ratings, user_idx=ratings.user_idx[part], movie_idx=ratings.movie_idx[part], rating=ratings.rating[part])
        for part in (slice(n_valid), slice(n_valid, None))
    )
    config = config.fitted_to(len(train))
    config.check_memory(train.n_users, train.n_movies, len(train))
    make_run = load_method(config)
    started = time.perf_counter()
    run = make_run(train, valid)
    setup = time.perf_counter() - started
    run.fit(lambda _: None, Event(), Event())
    seconds = [run.time_epoch(epoch) for epoch in range(1, _TIMED_EPOCHS + 1)]
    return Speed(
        n_ratings=len(train),
        n_users=train.n_users,
        n_movies=train.n_movies,
        method=run.config.method,
        device=run.device,
        nanoseconds=1e9 * statistics.median(seconds) / len(train),
        setup_seconds=setup,
        mse=run.history[-1].valid_loss,
        guessing_mse=float(np.square(valid.rating - train.rating.mean(dtype=np.float64)).mean()),
        peak_gigabytes=peak_gigabytes(),
    )


def peak_gigabytes() -> float:
    """The most memory that this process has had so far."""
    try:
        import resource
    except ImportError:  # Windows
        import psutil

        return float(psutil.Process().memory_info()._asdict()["peak_wset"]) / 1e9
    import sys

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e9
