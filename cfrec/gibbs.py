"""Fitting by solving for what people choose, and by averaging many plausible networks for what they like: the fast path on a CPU.

A movie's factors are of two kinds: x_m, by which it is chosen, and t_m, by which it is liked. Users u have s_u and z_u to match; b_u and
c_m are biases, r_um the centred stars in standard deviations, f_m the movie's traits, n_u a user's number of ratings:

    choice   s_u . (x_m, f_m), at the minimum of the loss of choice of ``fitting``
    stars    r_um ~ N(z_u . t_m + b_u + c_m, 1 / (alpha a_u))         a_u ~ Gamma(h/2, h/2): some people rate more evenly than others
             Z_u = (z_u, b_u) ~ N(mu + B' g_u, L^-1)                  T_m = (t_m, c_m) likewise, with a mu, B and L of its own
             mu ~ N(0, (beta L)^-1)    B ~ N(0, I / lambda, L^-1)     L ~ Wishart(k + f, I / w)   lambda ~ Gamma(1, 1)

g_u tells what u chooses (s_u / sqrt(n_u)), g_m by whom m is chosen (x_m, and f_m), in axes in which those are near one another who are
predicted to choose, or to be chosen, alike. So rows with few ratings are expected to be like those with the same
company; and how strongly each row is held follows from the ratings, on any data.

An epoch solves for choice by one round of alternating least squares, and then draws everything about stars a few times, each row from a
ridge regression given the rows of the other side. What predicts stars is the mean of what the draws predict, cut down to the factors of
a single network. The network that results (``_network``) has both kinds of factors in one row for each movie.

The sigmoid reaches far beyond the scale (the margins of the settings), so that within it it is nearly straight: factors and biases in
standard deviations become the network's when divided by its slope.

Sources: Hu, Koren & Volinsky (2008), "Collaborative filtering for implicit feedback datasets"; Rendle et al. (2021), "Revisiting the
performance of iALS on item recommendation benchmarks"; Salakhutdinov & Mnih (2008), "Bayesian probabilistic matrix factorization using
Markov chain Monte Carlo"; Simm et al. (2015), "Macau: scalable Bayesian multi-relational factorization with side information".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import cache
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

from cfrec.config import TrainConfig
from cfrec.fitting import MustStop, Run, Weights, effective_number
from cfrec.kernels import Observed, Regression, Solution, solve_rows
from cfrec.ratings import FloatArray, Ratings
from cfrec.trained import TrainState

_BY_STARS = 15  # numbers of a movie by which it is liked, at most; with the bias they fill a whole number of lanes
_DRAWS = 3  # of all that stars tell of, in each epoch
_PRECISION, _EVENNESS = 1.5, 40.0  # alpha, in one over the variance of the ratings; h
_BETA, _WISHART, _FREEDOM = 2.0, 1.0, 10  # beta, w, f
_LEAST_VARIANCE = 1e-6  # of ratings that are all the same
_START_STD = 0.3
_FLATTENED = 0.35  # power of the spread of choices by which axes are shrunk
_LIKED = 0.75  # length of what a movie is liked by, beside what it is chosen by, where both explain an equal share of their variance
_FEW_MOVIES = 10  # of so few, biases and traits could tell everything
_NOTHING = 1e-6  # lengths, and shares of variance, below this tell nothing
_FORGOTTEN, _MOST_FORGOTTEN = 0.4, 8  # share of the epochs, and number, before averaging begins
_SAMPLE = 200_000  # training ratings by which the training loss is told
_CHUNK = 1 << 14  # ratings whose loss is measured at a time
_ROW_COST, _CHUNKS = 30, 16  # a row costs as much as 30 ratings; parts that the threads share

Floats = npt.NDArray[np.float64]
Rows = dict[str, npt.NDArray[Any]]


class GibbsRun(Run):
    """One run. Sides are named "user" and "movie"."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str = "cpu") -> None:
        super().__init__(train, valid, config, device)
        self.n_threads = min(config.n_threads or os.cpu_count() or 1, os.cpu_count() or 1)
        self.pool = ThreadPoolExecutor(self.n_threads)
        self.sizes = {"user": train.n_users, "movie": train.n_movies}
        self.features = np.zeros((train.n_movies, 0), np.float32) if self.traits is None else self.traits
        self.k = min(_BY_STARS, (config.n_factors + 1) // 2) if config.choice_weight else config.n_factors
        self.d = config.n_factors - self.k
        stars = self._in_units(train.rating)
        self.mean, self.std = float(stars.mean(dtype=np.float64)), max(float(stars.std(dtype=np.float64)), _LEAST_VARIANCE**0.5)
        self._arrange(train, (stars - np.float32(self.mean)) / np.float32(self.std))
        low, high = (end / self.unit for end in self.y_range)
        share = (self.mean - low) / (high - low)
        self.offset, self.slope = math.log(share / (1 - share)), (high - low) * share * (1 - share) / self.std
        some = np.random.default_rng(0).permutation(len(train))[:_SAMPLE]
        self.watched = train.take(some), valid
        self._start()
        self._begin()

    def _arrange(self, train: Ratings, stars: FloatArray) -> None:
        """The ratings of each user, and of each movie."""
        from scipy.sparse import csr_array

        table = csr_array((np.arange(len(stars)), (train.user_idx, train.movie_idx)), shape=tuple(self.sizes.values()))
        self.rated: dict[str, Observed] = {}
        for side, own in (("user", table), ("movie", table.tocsc())):
            self.rated[side] = Observed(own.indptr.astype(np.int64), own.indices.astype(np.int32), stars[own.data])
        self.counts = {side: np.diff(rated.starts) for side, rated in self.rated.items()}

    def _start(self) -> None:
        random, k, d = np.random.default_rng(self.config.seed), self.k, self.d
        self.choice: Rows = {  # s and x
            "user": np.zeros((self.sizes["user"], d + self.features.shape[1]), np.float32),
            "movie": _START_STD * random.standard_normal((self.sizes["movie"], d), np.float32),
        }
        self.known: dict[str, tuple[FloatArray, Floats, Floats]] = {}  # what rows are expected by
        self.drawn: Rows = {}  # Z and T
        self.mean_rows: Rows = {}  # k factors and a bias: their products are the mean of the draws'
        self.prior: Rows = {"evenness": np.ones(self.sizes["user"]), "averaged": np.zeros(())}
        for side, n in self.sizes.items():
            self.drawn[side] = np.zeros((n, k + 1), np.float32)
            self.drawn[side][:, :k] = _START_STD * random.standard_normal((n, k), np.float32)
            self.mean_rows[side] = np.zeros((n, k + 1), np.float32)
            self.prior |= {f"{side}_link": np.zeros((self._expected_by(side).shape[1], k + 1)), f"{side}_decay": np.ones(())}

    def _in_parts(self, kernel: Callable[..., None], observed: Observed, *arguments: Any) -> None:
        """Have the threads call a kernel for parts of the rows, each with about as much to do."""
        cost = observed.starts + _ROW_COST * np.arange(len(observed.starts))
        cuts = np.unique(np.searchsorted(cost, np.linspace(0, cost[-1], _CHUNKS + 1)))
        self._for_each(lambda part: kernel(part, observed, *arguments), list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)))

    def _for_each(self, call: Callable[[Any], None], parts: Sequence[Any]) -> None:
        """Call for each part; by this thread alone once the interpreter shuts down and the others take no more work."""
        left = iter(parts)

        def work(_: int) -> None:
            for part in left:
                call(part)

        try:
            list(self.pool.map(work, range(self.n_threads)))
        except RuntimeError:
            work(0)

    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        random, forgotten = np.random.default_rng([self.config.seed, epoch]), min(_FORGOTTEN * self.config.epochs, _MOST_FORGOTTEN)
        if epoch <= forgotten + 1:
            self.prior["averaged"] = np.zeros(())
        with one_blas_thread, np.errstate(over="ignore", invalid="ignore"):
            for step in (self._choose, self._place, *(self._draw,) * _DRAWS):
                if must_stop():
                    return None
                try:
                    step(random)
                except np.linalg.LinAlgError:  # of infinities
                    return math.nan
        return self._loss(0)

    def _choose(self, _: np.random.Generator) -> None:
        """Solve for what each user chooses by."""
        if self.traits is not None:
            self.choice["user"] = self._solve_choice("user", np.hstack([self.choice["movie"], self.features]))

    def _place(self, _: np.random.Generator) -> None:
        """Solve for what each movie is chosen by, given the users' appetite for its traits."""
        if self.d:
            self.choice["movie"] = self._solve_choice("movie", self.choice["user"], self.features)
        self.known = {side: _orthogonal(self._expected_by(side)) for side in self.sizes}

    def _solve_choice(self, side: str, design: FloatArray, given: FloatArray | None = None) -> FloatArray:
        """One side's rows at the minimum of the loss of choice, the last coefficients being ``given``."""
        config, rated, n = self.config, self.rated[side], self.sizes[side]
        if given is None:
            given = np.zeros((n, 0), np.float32)
        size, products = design.shape[1] - given.shape[1], config.unseen_weight * (design.T @ design)
        l2 = config.user_choice_l2 if side == "user" else config.movie_choice_l2
        held = l2 * (self.counts[side] + config.unseen_weight * effective_number(self.counts["movie" if side == "user" else "user"]))
        regression = Regression(
            design,
            np.ones(len(design), np.float32),
            np.ascontiguousarray(products[:size, :size]),
            np.ones(n, np.float32),
            held.astype(np.float32),
            -given @ products[size:, :size],
            given,
        )
        rows = np.empty((n, size), np.float32)
        nothing = Solution(rows, np.empty((0, size), np.float32), np.empty(0, np.float32))
        self._in_parts(solve_rows, rated._replace(values=np.ones_like(rated.values)), regression, nothing)
        return rows

    def _draw(self, random: np.random.Generator) -> None:
        """Draw all that stars tell of anew, and take what it predicts into the mean."""
        for side, other in (("user", "movie"), ("movie", "user")):
            rows, means = self._draw_side(side, other, random)
            self._average({side: means, other: self.drawn[other]})
            self.drawn[side] = rows

    def _expected_by(self, side: str) -> Floats:
        """What a side's rows are expected by (n, k): near one another where the two are predicted to be chosen alike."""
        chosen = {"user": self.choice["user"], "movie": np.hstack([self.choice["movie"], self.features])}
        if side == "user":
            rows = chosen["user"] @ _root(chosen["movie"]).T
            return _of_length_one(_centred(rows / np.sqrt(np.maximum(self.counts[side], 1))[:, None]))
        rows = self.choice["movie"] @ _root(chosen["user"][:, : self.d]).T
        return _centred(np.hstack([_of_length_one(_centred(rows)), self.features[:, 1:]]))

    def _draw_side(self, side: str, other: str, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
        """Draw one side's prior and rows given the other's rows; returns the rows and the means of what they were drawn from."""
        expected, precision = self._draw_prior(side, random)
        k, others, (n, size) = self.k, self.drawn[other], self.drawn[side].shape
        evenness, ones = (_PRECISION * self.prior["evenness"]).astype(np.float32), np.ones((max(self.sizes.values()), 1), np.float32)
        weight, trust = (evenness, ones[: len(others), 0]) if side == "user" else (ones[:n, 0], np.sqrt(evenness))
        design = np.hstack([others[:, :k], ones[: len(others)], others[:, k:]]) * trust[:, None]
        pull = (expected @ precision).astype(np.float32)
        regression = Regression(design, trust, precision.astype(np.float32), weight, np.zeros(n, np.float32), pull, ones[:n])
        solution = Solution(np.empty_like(pull), random.standard_normal((n, size), np.float32), np.empty(n, np.float32))
        self._in_parts(solve_rows, self.rated[side], regression, solution)
        if side == "user":
            rate = (_EVENNESS + _PRECISION * solution.missed.astype(np.float64)) / 2
            self.prior["evenness"] = random.gamma((_EVENNESS + self.counts[side]) / 2) / rate
        return solution.draw, solution.mean

    def _draw_prior(self, side: str, random: np.random.Generator) -> tuple[Floats, Floats]:
        """Draw mu, B, L and lambda given the rows; returns the rows' expected values, and L.

        What rows are expected by is turned here so that its columns are orthogonal, and B's rows can be drawn one by one.
        """
        known, squares, axes = self.known[side]
        rows, link, decay = self.drawn[side], axes.T @ self.prior[f"{side}_link"], float(self.prior[f"{side}_decay"])
        n, k = rows.shape
        total, known_rows = rows.sum(axis=0, dtype=np.float64), (known.T @ rows).astype(np.float64)
        products = (rows.T @ rows).astype(np.float64) - link.T @ known_rows - known_rows.T @ link + link.T @ (squares[:, None] * link)
        scatter = _WISHART * np.eye(k) + decay * link.T @ link + products - np.outer(total, total) / (n + _BETA)
        chi = random.chisquare(n + k + _FREEDOM + len(link) - np.arange(k))
        root = np.linalg.cholesky(np.linalg.inv(scatter)) @ (np.tril(random.standard_normal((k, k)), -1) + np.diag(np.sqrt(chi)))
        precision = root @ root.T
        spread = np.linalg.inv(np.linalg.cholesky(precision))  # spread' spread = precision^-1
        mean = total / (n + _BETA) + random.standard_normal(k) @ spread / math.sqrt(n + _BETA)
        held = (squares + decay)[:, None]
        link = known_rows / held + random.standard_normal(link.shape) @ spread / np.sqrt(held)
        weight = float(((link @ precision) * link).sum())
        self.prior[f"{side}_link"] = axes @ link
        self.prior[f"{side}_decay"] = np.array(random.gamma(1 + link.size / 2) / (1 + weight / 2))
        return mean + known @ link.astype(np.float32), precision

    def _average(self, rows: Rows) -> None:
        """Take what these rows predict into the mean: of the factors' products, the best approximation by as many factors."""
        n, k, means = float(self.prior["averaged"]) + 1, self.k, self.mean_rows
        both = {side: np.hstack([math.sqrt(1 - 1 / n) * means[side][:, :k], math.sqrt(1 / n) * rows[side][:, :k]]) for side in rows}
        roots = {side: _root(part) for side, part in both.items()}
        left, lengths, right = np.linalg.svd(roots["user"] @ roots["movie"].T)
        lengths = np.sqrt(lengths[:k].clip(1e-12))
        turns = {"user": roots["movie"].T @ right[:k].T / lengths, "movie": roots["user"].T @ left[:, :k] / lengths}
        for side, part in both.items():
            means[side][:, :k] = part @ turns[side].astype(np.float32)
            means[side][:, k] += (rows[side][:, k] - means[side][:, k]) / np.float32(n)
        self.prior["averaged"] = np.array(n)

    def _loss(self, which: int) -> float:
        """Mean squared error, in stars squared, of what the mean network predicts of (some) training ratings, or of the others."""
        ratings, lowest, highest = self.watched[which], *(end / self.unit for end in self.ratings.scale[:2])
        users, movies, k = self.mean_rows["user"], self.mean_rows["movie"], self.k

        starts = range(0, len(ratings), _CHUNK)
        squares = np.zeros(len(starts))

        def measure(chunk: int) -> None:
            part = slice(starts[chunk], starts[chunk] + _CHUNK)
            p, q = users[ratings.user_idx[part]], movies[ratings.movie_idx[part]]
            stars = np.float32(self.std) * (np.einsum("nk,nk->n", p[:, :k], q[:, :k]) + p[:, k] + q[:, k]) + np.float32(self.mean)
            missed = stars.clip(lowest, highest) - self._in_units(ratings.rating[part])
            squares[chunk] = np.square(missed).sum(dtype=np.float64)

        self._for_each(measure, range(len(starts)))
        return float(squares.sum()) * self.unit**2 / len(ratings)

    def _start_loss(self) -> float:
        return self.guessing

    def _valid_loss(self) -> float:
        return self._loss(1)

    def _advice(self) -> str:
        return "Try fewer factors, or another recipe."

    def _divergence(self, epoch: int, train_loss: float, valid_loss: float) -> str:
        return "" if math.isfinite(train_loss + valid_loss) else super()._divergence(epoch, train_loss, valid_loss)  # draws go up and down

    def _keep_if_best(self, epoch: int, valid_loss: float, weights: Weights) -> None:
        """The mean so far is the result: no epoch is chosen."""
        self.best_epoch, self.best_loss, self.best = min(epoch, len(self.history)), valid_loss, weights

    def best_weights(self) -> dict[str, FloatArray]:
        """The network. Rows that no training rating touched keep the bias that is expected of them, and no factors."""
        weights = self._network(self.best)
        for side, counts in self.counts.items():
            weights[f"{side}_factors"][counts == 0] = 0
        return weights

    def network(self) -> Weights:
        """The weights after the last whole epoch."""
        with one_blas_thread:
            return self._network(self.last)

    def _network(self, memory: Weights) -> Weights:
        """The mean so far as one network, in its scores.

        What a network predicts leaves its axes open, and what factors hold that biases or traits could tell as well. So that movies are
        alike by what tells them apart: biases and traits tell what they can; the axes along which users choose most differently are shrunk
        a little, since films that many have seen would else be alike in little but that; what a movie is liked by is the longer, beside
        what it is chosen by, the more it explains; and all is turned to the movies' principal axes.
        """
        k, d, slope, rated = self.k, self.d, np.float32(self.slope), self.counts["movie"] > 0
        users, movies = memory["mean.user"], memory["mean.movie"]
        liked, likes = movies[:, :k].astype(np.float64), users[:, :k].astype(np.float64) / self.slope
        common, usual = likes.mean(axis=0), liked[rated].sum(axis=0) / (rated.sum() + _FEW_MOVIES)
        movie_bias, likes = movies[:, k] / slope + liked @ common, likes - common
        user_bias, liked = users[:, k] / slope + likes @ usual, liked - usual
        biases = {"user_bias": user_bias.astype(np.float32), "movie_bias": movie_bias.astype(np.float32)}
        if self.traits is None:
            return biases | {"user_factors": likes.astype(np.float32), "movie_factors": liked.astype(np.float32)}
        chosen, (chooses, appetite) = memory["choice.movie"].astype(np.float64), np.hsplit(memory["choice.user"].astype(np.float64), [d])
        known = self.features[rated].astype(np.float64)
        told = np.linalg.solve(known.T @ known + _FEW_MOVIES * np.eye(known.shape[1]), known.T @ chosen[rated])
        chosen, appetite = chosen - self.features @ told, appetite + chooses @ told.T
        squares, axes = np.linalg.eigh(chooses.T @ chooses / len(chooses))
        stretch = (squares / max(float(squares.mean() if d else 1.0), 1e-12)).clip(1e-3) ** -_FLATTENED
        chosen, chooses = chosen @ (axes * stretch), chooses @ (axes / stretch)
        lengths = _length(chosen), _length(liked)
        told_of = _mean_square(chooses, chosen) / self._choices_variance(), _mean_square(likes * self.slope, liked)
        worth = _LIKED * math.sqrt(told_of[1] / told_of[0]) if min(told_of) > _NOTHING else 1.0
        scale = worth * lengths[0] / lengths[1] if min(lengths) > _NOTHING else 1.0
        rows = {
            "movie_factors": np.hstack([chosen, liked * scale]),
            "user_factors": np.hstack([np.zeros_like(chooses), likes / scale]),
            "user_choice": np.hstack([chooses, np.zeros_like(likes)]),
        }
        turn = np.linalg.eigh(rows["movie_factors"].T @ rows["movie_factors"])[1][:, ::-1]
        rows = {name: part @ turn for name, part in rows.items()}
        rows["user_choice"] = np.hstack([rows["user_choice"], appetite])
        return biases | {name: np.ascontiguousarray(part, np.float32) for name, part in rows.items()}

    def _choices_variance(self) -> float:
        """Of 1 for each pair of user and movie that is a rating, and 0 for all others."""
        share = len(self.ratings) / self.sizes["user"] / self.sizes["movie"]
        return max(share * (1 - share), _NOTHING)

    def _weights(self) -> Weights:
        """All that a network can be made of."""
        return self._memory()

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        """Nothing to do: the mean so far is part of what ``_memory`` gives."""

    def _snapshot(self, epoch: int) -> TrainState:
        return TrainState(epoch, self.best_epoch, {f"memory.{name}": array for name, array in self.last.items()})

    def _kinds(self) -> dict[str, Rows]:
        """All that changes from epoch to epoch."""
        return {"choice": self.choice, "drawn": self.drawn, "mean": self.mean_rows, "prior": self.prior}

    def _memory(self) -> Weights:
        return {f"{kind}.{name}": np.array(array) for kind, arrays in self._kinds().items() for name, array in arrays.items()}

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        kinds = self._kinds()
        for name, array in memory.items():
            kind, own = name.split(".", 1)
            kinds[kind][own] = np.array(array)
        self.last = self.best = self._weights()


def _length(rows: npt.NDArray[Any]) -> float:
    """The root of the rows' mean square length."""
    return math.sqrt(float(np.square(rows).sum(axis=1).mean()))


def _centred(rows: Floats) -> Floats:
    centred: Floats = rows - rows.mean(axis=0)
    return centred


def _orthogonal(rows: Floats) -> tuple[FloatArray, Floats, Floats]:
    """The rows turned so that their columns are orthogonal, the columns' squared lengths, and the axes by which they were turned."""
    squares, axes = np.linalg.eigh(rows.T @ rows)
    return (rows @ axes).astype(np.float32), squares.clip(0), axes


def _mean_square(users: Floats, movies: Floats) -> float:
    """Of the dot products of all pairs."""
    return float(((users.T @ users) * (movies.T @ movies)).sum()) / len(users) / len(movies)


def _of_length_one(rows: Floats) -> Floats:
    scaled: Floats = rows / max(_length(rows), 1e-9)
    return scaled


def _root(rows: npt.NDArray[Any]) -> Floats:
    """R with R'R = rows' rows, but for rounding."""
    exact = rows.astype(np.float64)
    products = exact.T @ exact
    rounding = max(1e-12 * float(products.trace()), 1e-24)
    return np.asarray(np.linalg.cholesky(products + rounding * np.eye(len(products))).T, np.float64)


class _OneBlasThread:
    """A context in which BLAS uses one thread for each of ours: its own threads spin while they wait, and take the processors from ours.

    The limit is the whole process's, and is lifted when the last of several overlapping runs leaves.
    """

    def __init__(self) -> None:
        self.lock, self.n_inside, self.limit = Lock(), 0, ExitStack()

    def __enter__(self) -> None:
        with self.lock:
            if not self.n_inside:
                self.limit.enter_context(_blas().limit(limits=1))
            self.n_inside += 1

    def __exit__(self, *_: object) -> None:
        with self.lock:
            self.n_inside -= 1
            if not self.n_inside:
                self.limit.close()


one_blas_thread = _OneBlasThread()


@cache
def _blas() -> ThreadpoolController:
    import scipy.linalg.cython_blas  # noqa: F401  # the BLAS that compiled code calls: a controller knows only what is loaded

    return ThreadpoolController()


@cache
def prepare() -> None:
    """Have the kernel compiled, or fetched from where an earlier process kept it, by solving for one row."""
    one, row = np.ones(1, np.float32), np.ones((1, 1), np.float32)
    observed = Observed(np.array([0, 1]), np.zeros(1, np.int32), one)
    solve_rows((0, 1), observed, Regression(row, one, row, one, one, row, row[:, :0]), Solution(row.copy(), row.copy(), one.copy()))
