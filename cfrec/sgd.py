"""Fitting by stochastic gradient descent, rating by rating, in compiled code: the fast path on a CPU.

For each rating r of user u for movie m, with z = p_u . q_m + b_u + b_m + offset, s = low + (high - low) * sigmoid(z) and
g = (r - s) * (high - low) * sigmoid(z) * (1 - sigmoid(z)), all four of its weights go down half the gradient of its loss (see
``fitting``). Factors divide their step by the root mean square of the row's latest gradients:

    d = g * q_m - l2_u * p_u        v_u = beta2 * v_u + (1 - beta2) * |d|^2 / n_factors        p_u += rate * d / sqrt(v_u)

and likewise q_m, with p_u and l2_m; biases don't: b += rate * (g - bias_l2 * b). l2_u = user_l2 * (mean n_u / n_u)^e, and l2_m likewise.
This is the gradient descent of Funk (2006) and of Koren, Bell & Volinsky (2009), "Matrix factorization techniques for recommender
systems", with RMSprop's step (Tieleman & Hinton 2012), of which one number is kept for a row, as LIBMF does for Adagrad's (Chin et
al. 2015): |d|^2 follows from p_u . q_m and the rows' lengths. It predicts better than plain steps.

Users and movies are cut into ``n_blocks`` groups with about equally many ratings each, and the ratings into n_blocks^2 cells.
Cells that share neither users nor movies are learned from at once, without locks (Gemulla et al. 2011, "Large-scale matrix
factorization with distributed stochastic gradient descent"): whatever the number of threads, the result is the same to the bit.
A thread waits for no round to end, but only for the cells whose rows it needs: so a busy machine, or pages that hold Python's lock,
slow down one thread and not all. A cell's rows stay in the processor's cache. Its ratings are shuffled once, and their batches taken in
a new order in every epoch.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cfrec.config import TrainConfig
from cfrec.devices import cpu_threads
from cfrec.fitting import MustStop, Run, Weights, penalties
from cfrec.kernels import (
    BATCH,
    BIAS,
    L2,
    LANES,
    N_COLUMNS,
    SQUARE,
    Cells,
    Int64s,
    Link,
    Rows,
    Rule,
    Triples,
    Turns,
    add_squared_errors,
    arrange,
    learn,
    shuffle,
)
from cfrec.ratings import FloatArray, IntArray, Ratings

_ALIGNMENT = 64  # bytes: a cache line
_CELL = 20_000  # ratings, about: fewer are not worth a thread's while
_ONE_CELL = 120_000  # ratings: up to so many are one cell, for cells cost a little in what is learned from few ratings
_MOST_BLOCKS = 64
_AT_ONCE = 10_000_000  # ratings, about, from which the threads learn without a look at whether to stop
_CHUNK = 1 << 14  # ratings whose loss a thread measures at a time
_SAMPLE = 1 << 18  # training ratings from which the loss at the start is measured


class SgdRun(Run):
    """One run: the ratings by cells, and the network's rows."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str = "cpu") -> None:
        super().__init__(train, valid, config, device)
        self.n_threads = min(cpu_threads(config.n_threads, len(train)), os.cpu_count() or 1)  # they wait busily: more get in the way
        self.pool = ThreadPoolExecutor(max(self.n_threads - 1, 1))
        random = np.random.default_rng(config.seed)
        self.rows = Rows(_random_rows(random, train.n_users, config), _random_rows(random, train.n_movies, config))
        self._column("user", L2)[:] = penalties(train.user_idx, train.n_users, config.user_l2, config.l2_exponent)
        self._column("movie", L2)[:] = penalties(train.movie_idx, train.n_movies, config.movie_l2, config.l2_exponent)
        low, high = (stars / self.unit for stars in self.y_range)
        self.link = Link(*_floats(self.offset, low, high - low))
        self.valid_stars = self._in_units(valid.rating)
        self._arrange(train)
        self._begin()

    def _arrange(self, train: Ratings) -> None:
        """Copy the ratings, cell by cell."""
        self.n_blocks, n = _count_blocks(len(train)), len(train)
        user_block = _even_blocks(np.bincount(train.user_idx, minlength=train.n_users), self.n_blocks)
        movie_block = _even_blocks(np.bincount(train.movie_idx, minlength=train.n_movies), self.n_blocks)
        self.triples = Triples(np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.float32))
        self.starts = np.zeros(self.n_blocks**2 + 1, np.int64)
        stars = self._in_units(train.rating)
        arrange(_read_only(Triples(train.user_idx, train.movie_idx, stars)), user_block, movie_block, self.triples, self.starts)
        seeds = np.random.default_rng(self.config.seed).integers(1, 2**62, self.n_blocks**2).tolist()
        for start, stop, seed in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), seeds, strict=True):
            shuffle(self.triples, (start, stop), seed)

    def _plan(self, epoch: int) -> Cells:
        """What to learn from in an epoch: round by round, in each of which no two cells share users or movies."""
        random, config, n = np.random.default_rng([self.config.seed, epoch]), self.config, self.n_blocks
        places, blocks, rates = np.empty((n, n, 3), np.int64), np.empty((n, n, 2), np.int64), np.empty((n, n, 2), np.float32)
        user_blocks = random.permutation(n)
        for done, shift in enumerate(random.permutation(n)):
            movie_blocks = (np.arange(n) + shift) % n
            cells = user_blocks * n + movie_blocks
            blocks[done] = np.column_stack([user_blocks, n + movie_blocks])
            places[done] = np.column_stack([self.starts[cells], self.starts[cells + 1], np.ones(n, np.int64)])
            for place in places[done]:
                place[2] = _stride(random, -(-(place[1] - place[0]) // BATCH))
            rates[done] = [self.learning_rate((epoch - 1 + (done + k) / n) / config.epochs) for k in (0, 1)]
        return Cells(places.reshape(-1, 3), blocks.reshape(-1, 2), np.repeat(np.arange(n), n), rates.reshape(-1, 2))

    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        plan, done, config = self._plan(epoch), np.zeros(2 * self.n_blocks, np.int64), self.config
        rule = Rule(self.link, *_floats(config.bias_l2, config.beta2, 1 / config.n_factors))
        n_cells, total = max(_AT_ONCE * self.n_blocks // len(self.ratings), 1) * self.n_blocks, 0.0
        for first in range(0, self.n_blocks**2, n_cells):
            if must_stop():
                return None
            some = slice(first, first + n_cells)
            cells = Cells(plan.places[some], plan.blocks[some], plan.rounds[some], plan.rates[some])
            total += self._together(learn, self.triples, cells, done, rule)
        return total * self.unit**2 / len(self.ratings)

    def _together(self, kernel: Callable[..., None], triples: Triples, parts: Any, done: Int64s, rule: Any) -> float:
        """Have all threads call a kernel, which shares the work between them; returns the sum of the squared errors.

        A thread that is held up elsewhere holds up no other but where that one needs its rows.
        """
        n_parts = len(parts.places if isinstance(parts, Cells) else parts)
        turns = Turns(np.zeros(1, np.int64), done, np.zeros(n_parts))
        others = [self.pool.submit(kernel, triples, parts, turns, self.rows, rule) for _ in range(min(self.n_threads, n_parts) - 1)]
        kernel(triples, parts, turns, self.rows, rule)
        for other in others:
            other.result()
        return float(turns.squared.sum())

    def _start_loss(self) -> float:
        users, movies, stars = self.triples
        return self._loss(Triples(users[:_SAMPLE], movies[:_SAMPLE], stars[:_SAMPLE]), *self.y_range)

    def _valid_loss(self) -> float:
        valid = self.valid_ratings
        return self._loss(Triples(valid.user_idx, valid.movie_idx, self.valid_stars), *self.ratings.scale[:2])

    def _loss(self, ratings: Triples, lowest: float, highest: float) -> float:
        """Mean squared error, in stars squared, of predictions that are clipped to a range, in stars."""
        n, rule = len(ratings.stars), (self.link, *_floats(lowest / self.unit, highest / self.unit))
        starts = np.arange(0, n, _CHUNK)
        parts = np.column_stack([starts, np.minimum(starts + _CHUNK, n)])
        return self._together(add_squared_errors, _read_only(ratings), parts, np.zeros(0, np.int64), rule) * self.unit**2 / n

    def _column(self, side: str, column: int) -> FloatArray:
        """A column at the end of the users' or movies' rows."""
        rows = self.rows.users if side == "user" else self.rows.movies
        return rows[:, -column]

    def _layers(self) -> Weights:
        """Views of the weights."""
        factors = {f"{side}_factors": rows[:, : self.config.n_factors] for side, rows in zip(("user", "movie"), self.rows, strict=True)}
        return factors | {f"{side}_bias": self._column(side, BIAS) for side in ("user", "movie")}

    def _remembered(self) -> Weights:
        """Views of the mean squares of the latest gradients."""
        return {side: self._column(side, SQUARE) for side in ("user", "movie")}

    def _weights(self) -> Weights:
        return {name: view.copy() for name, view in self._layers().items()}

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        for name, view in self._layers().items():
            view[:] = weights[name]

    def _memory(self) -> Weights:
        return {name: view.copy() for name, view in self._remembered().items()}

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        for name, view in self._remembered().items():
            view[:] = memory[name]


@cache
def prepare() -> None:
    """Have all kernels compiled, or fetched from where an earlier process kept them, by learning from a made-up rating."""
    random, config, turns = np.random.default_rng(0), TrainConfig(), Turns(np.zeros(1, np.int64), np.zeros(2, np.int64), np.zeros(1))
    rows, link = Rows(_random_rows(random, 1, config), _random_rows(random, 1, config)), Link(*_floats(0, 0, 1))
    triples = Triples(np.zeros(1, np.int32), np.zeros(1, np.int32), np.ones(1, np.float32))
    arrange(_read_only(triples), triples.users, triples.movies, triples, np.zeros(2, np.int64))
    shuffle(triples, (0, 1), 1)
    cells = Cells(np.array([[0, 1, 1]]), np.array([[0, 1]]), np.zeros(1, np.int64), np.zeros((1, 2), np.float32))
    learn(triples, cells, turns, rows, Rule(link, *_floats(0, 0, 1)))
    add_squared_errors(_read_only(triples), np.array([[0, 1]]), turns, rows, (link, np.float32(0), np.float32(1)))


def _floats(*values: float) -> list[np.float32]:
    return [np.float32(value) for value in values]


def _read_only(triples: Triples) -> Triples:
    """Views that cannot be written to: code is compiled for each kind of array, and ratings may be of both."""
    users, movies, stars = (np.ascontiguousarray(column).view() for column in triples)
    for view in (users, movies, stars):
        view.flags.writeable = False
    return Triples(users, movies, stars)  # type: ignore[arg-type]  # the loop above makes one type of the three


def _random_rows(random: np.random.Generator, n_rows: int, config: TrainConfig) -> FloatArray:
    """Rows of factors and biases as they are at the start, each beginning on a cache line."""
    n_lanes, spare = -(-(config.n_factors + N_COLUMNS) // LANES) * LANES, _ALIGNMENT // 4
    memory = np.zeros(n_rows * n_lanes + spare, np.float32)
    first = -memory.ctypes.data % _ALIGNMENT // 4
    rows: FloatArray = memory[first : first + n_rows * n_lanes].reshape(n_rows, n_lanes)
    rows[:, : config.n_factors] = config.factor_std * random.standard_normal((n_rows, config.n_factors), np.float32)
    rows[:, -BIAS] = config.bias_std * random.standard_normal(n_rows, np.float32)
    return rows


def _count_blocks(n_ratings: int) -> int:
    return 1 if n_ratings <= _ONE_CELL else min(int((n_ratings / _CELL) ** 0.5), _MOST_BLOCKS)


def _stride(random: np.random.Generator, n_batches: int) -> int:
    """How far apart to take batches, so that each has its turn."""
    while math.gcd(stride := int(random.integers(1, max(n_batches, 2))), n_batches) > 1:
        pass
    return stride


def _even_blocks(counts: npt.NDArray[np.intp], n_blocks: int) -> IntArray:
    """Cut rows with so many ratings into groups of neighbouring rows with about equally many ratings: each row's group."""
    middles = np.cumsum(counts) - counts / 2
    blocks: IntArray = np.minimum(middles * n_blocks / max(counts.sum(), 1), n_blocks - 1).astype(np.int32)
    return blocks
