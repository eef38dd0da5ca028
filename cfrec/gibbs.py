"""Fitting by averaging many plausible networks, drawn one after the other: the fast path on a CPU.

Users u, movies m; p_u, b_u, q_m, c_m in stars, r_um centred; s_u what u chooses by; f_m the movie's traits (see ``fitting``):

    stars    r_um ~ N(p_u . q_m + b_u + c_m, 1 / (alpha a_u))          a_u ~ Gamma(h/2, h/2): some people rate more evenly than others
             P_u = (p_u, b_u) ~ N(W'(1, s_u), L^-1)                    L ~ Wishart    W ~ N(0, I / lambda, L^-1)    lambda ~ Gamma(1, 1)
             c_m ~ N(v . f_m, 1 / l)                                   q_m ~ N(0, I / prior)
    choice   the loss of choice of ``fitting``, times alpha / 2, is minus the logarithm of a likelihood

One sweep is an epoch: each row is the solution of a ridge regression given the rows of the other side, and a draw around it. So someone
who has rated little is expected to like what people of the same choices like, and how strongly each row is held follows from the ratings,
on any data. s_u is solved for and not drawn. The network is the mean of what the sweeps found: since choice holds the movies' factors in
place, they do not turn from one sweep to the next, and rows can be averaged as they are.

The sigmoid reaches far beyond the scale (the margins of the settings), so that within it it is nearly straight: factors and biases in
stars become the network's when divided by its slope.

Sources: Salakhutdinov & Mnih (2008), "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo"; Simm et al. (2015),
"Macau: scalable Bayesian multi-relational factorization with side information"; Hu, Koren & Volinsky (2008), "Collaborative filtering
for implicit feedback datasets"; Rendle et al. (2021), "Revisiting the performance of iALS on item recommendation benchmarks".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from cfrec.config import TrainConfig
from cfrec.fitting import MustStop, Run, Weights
from cfrec.kernels import LANES, Observed, Regression, Solution, solve_rows, subtract_dot_products
from cfrec.ratings import FloatArray, Ratings

_PRECISION, _EVENNESS = 1.65, 20.0  # alpha, in one over the variance of the ratings; h
_SCATTER, _PRIOR, _TRAIT_L2 = 10.0, 0.3, 30.0  # of the Wishart; of q; of v
_LEAST_VARIANCE = 1e-3  # of ratings that are all the same
_START_STD = 0.1
_FLATTENED = 0.18  # power of the spread of choices by which axes are shrunk
_FORGOTTEN, _MOST_FORGOTTEN = 0.4, 8  # share of the sweeps, and number, before averaging begins
_SAMPLE = 200_000  # training ratings by which the training loss is told
_CHUNK = 1 << 14  # ratings whose loss is measured at a time
_ROW_COST, _CHUNKS = 30, 64  # a row costs as much as 30 ratings; parts that the threads share

Floats = npt.NDArray[np.float64]


class GibbsRun(Run):
    """One run: an epoch is a sweep."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str = "cpu") -> None:
        super().__init__(train, valid, config, device)
        self.n_threads = min(config.n_threads or os.cpu_count() or 1, os.cpu_count() or 1)
        self.pool = ThreadPoolExecutor(self.n_threads)
        self.n, self.m, self.d = train.n_users, train.n_movies, config.n_factors
        self.features = np.zeros((self.m, 0), np.float32) if self.traits is None else self.traits
        stars = self._in_units(train.rating)
        self.mean = float(stars.mean(dtype=np.float64))
        self.alpha = _PRECISION / max(float(stars.var(dtype=np.float64)), _LEAST_VARIANCE)
        self._arrange(train, stars - np.float32(self.mean))
        low, high = (end / self.unit for end in self.y_range)
        share = (self.mean - low) / (high - low)
        self.offset, self.slope = math.log(share / (1 - share)), (high - low) * share * (1 - share)
        some = np.random.default_rng(0).permutation(len(train))[:_SAMPLE]
        self.watched = train.take(some), valid
        self._start()
        self._begin()

    def _arrange(self, train: Ratings, stars: FloatArray) -> None:
        """The ratings of each user, and of each movie."""
        from scipy.sparse import csr_array

        table = csr_array((np.arange(len(stars)), (train.user_idx, train.movie_idx)), shape=(self.n, self.m))
        self.by_user = Observed(table.indptr.astype(np.int64), table.indices.astype(np.int32), stars[table.data])
        table = table.tocsc()
        self.by_movie = Observed(table.indptr.astype(np.int64), table.indices.astype(np.int32), stars[table.data])
        self.counts = np.diff(self.by_user.starts), np.diff(self.by_movie.starts)
        columns, starts = self.by_movie.columns, self.by_movie.starts
        self.twice = starts  # where each movie's entries begin in regressions on stars and choice
        if self.config.choice_weight:  # first the movie's stars, then who chose it
            places = np.arange(len(columns)) + np.repeat(starts[:-1], self.counts[1])
            self.star_places, self.choice_places = places, places + np.repeat(self.counts[1], self.counts[1])
            self.twice, both = 2 * starts, np.empty(2 * len(columns), np.int32)
            both[self.star_places], both[self.choice_places] = columns, columns + self.n
            columns = both
        self.both_columns = columns

    def _start(self) -> None:
        random, d, k = np.random.default_rng(self.config.seed), self.d, self.d + 1
        self.draws = {"user": np.zeros((self.n, k), np.float32), "movie": np.zeros((self.m, k), np.float32)}
        self.draws["movie"][:, :d] = _START_STD * random.standard_normal((self.m, d), np.float32)
        self.sums = {name: rows.copy() for name, rows in self.draws.items()}
        self.sums["choice"] = np.zeros((self.n, d + self.features.shape[1] if self.traits is not None else 0), np.float32)
        self.latest = {name: rows.copy() for name, rows in self.sums.items()}  # means given the draws of the other side
        self.prior: dict[str, npt.NDArray[Any]] = {
            "precision": _SCATTER * np.eye(k),
            "expected": np.zeros((self.n, k), np.float32),
            "decay": np.ones(()),
            "evenness": np.ones(self.n),
            "expected_bias": np.zeros(self.m),
            "bias_precision": np.ones(()),
            "averaged": np.zeros(()),
        }

    def _in_parts(self, kernel: Callable[..., None], observed: Observed, *arguments: Any) -> None:
        """Have the threads call a kernel for parts of the rows, each with about as much to do."""
        cost = observed.starts + _ROW_COST * np.arange(len(observed.starts))
        cuts = np.unique(np.searchsorted(cost, np.linspace(0, cost[-1], _CHUNKS + 1)))
        self._for_each(lambda part: kernel(part, observed, *arguments), list(zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)))

    def _for_each(self, call: Callable[[Any], Any], parts: Sequence[Any]) -> list[Any]:
        """What a call gives for each part; by this thread alone once the interpreter shuts down and the others take no more work."""
        try:
            return list(self.pool.map(call, parts))
        except RuntimeError:
            return [call(part) for part in parts]

    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        random, forgotten = np.random.default_rng([self.config.seed, epoch]), min(_FORGOTTEN * self.config.epochs, _MOST_FORGOTTEN)
        for step in (self._choose, self._draw_users, self._draw_tastes, self._draw_movies):
            if must_stop():
                return None
            try:
                step(random)
            except np.linalg.LinAlgError:  # of infinities
                return math.nan
        n = float(self.prior["averaged"]) + 1 if epoch > forgotten + 1 else 1.0
        self.prior["averaged"] = np.array(n)
        for name, rows in self.latest.items():
            total = self.sums[name]
            total += (rows - total) / np.float32(n)
            if not np.isfinite(total).all():
                return math.nan
        return self._loss(0)

    def _choose(self, _: np.random.Generator) -> None:
        """Solve for what each user chooses by."""
        config = self.config
        if self.traits is None:
            return
        design = _padded(
            np.hstack([self.latest["movie"][:, : self.d] if self.history else self.draws["movie"][:, : self.d], self.features])
        )
        size = self.d + self.features.shape[1]
        held = config.user_choice_l2 * (self.counts[0] + config.unseen_weight * self.m)
        base = config.unseen_weight * (design.T @ design)
        nothing, ones = np.zeros((self.n, size), np.float32), np.ones(self.n, np.float32)
        observed = Observed(self.by_user.starts, self.by_user.columns, np.ones(len(self.by_user.values), np.float32))
        regression = Regression(design, base, ones, held.astype(np.float32), nothing, nothing, size)
        self._in_parts(solve_rows, observed, regression, Solution(self.latest["choice"], np.empty_like(nothing)))

    def _draw_users(self, random: np.random.Generator) -> None:
        k, movies, prior = self.d + 1, self.draws["movie"], self.prior
        design = _padded(movies)
        design[:, self.d] = 1
        residual = self.by_user.values - movies[self.by_user.columns, self.d]
        observed = Observed(self.by_user.starts, self.by_user.columns, residual)
        precision = prior["precision"]
        regression = Regression(
            design,
            precision.astype(np.float32),
            (self.alpha * prior["evenness"]).astype(np.float32),
            np.zeros(self.n, np.float32),
            (prior["expected"] @ precision).astype(np.float32),
            random.standard_normal((self.n, k), np.float32),
            0,
        )
        self._in_parts(solve_rows, observed, regression, Solution(self.latest["user"], self.draws["user"]))
        missed = np.empty_like(residual)
        self._in_parts(subtract_dot_products, observed, self.draws["user"], np.ascontiguousarray(design[:, :k]), missed)
        squared = np.bincount(np.repeat(np.arange(self.n), self.counts[0]), np.square(missed), self.n)
        shape, rate = (_EVENNESS + self.counts[0]) / 2, (_EVENNESS + self.alpha * squared) / 2
        prior["evenness"] = random.gamma(shape) / rate

    def _draw_tastes(self, random: np.random.Generator) -> None:
        """Draw what is expected of users who choose alike, and how far they differ from it: W, lambda and L."""
        rows, prior = self.draws["user"].astype(np.float64), self.prior
        known = np.column_stack([np.ones(self.n), self.latest["choice"]]).astype(np.float64)
        known /= np.sqrt(np.square(known).mean(axis=0)).clip(1e-9)
        spread = np.linalg.inv(known.T @ known + float(prior["decay"]) * np.eye(known.shape[1]))
        taste = spread @ (known.T @ rows)
        noise = random.standard_normal(taste.shape)
        taste += np.linalg.cholesky(spread) @ noise @ np.linalg.cholesky(np.linalg.inv(prior["precision"])).T
        weight = float(((taste @ prior["precision"]) * taste).sum())
        prior["decay"] = np.array(random.gamma(1 + taste.size / 2) / (1 + weight / 2)).clip(1e-3, 1e5)
        expected = known @ taste
        prior["expected"] = expected.astype(np.float32)
        rest = rows - expected
        k = self.d + 1
        prior["precision"] = (self.n + k) * np.linalg.inv(_SCATTER * np.eye(k) + rest.T @ rest)

    def _draw_movies(self, random: np.random.Generator) -> None:
        d, prior, config, users = self.d, self.prior, self.config, self.draws["user"]
        trust = np.sqrt(self.alpha * prior["evenness"]).astype(np.float32)
        columns = self.by_movie.columns
        star_values = (self.by_movie.values - users[columns, d]) * trust[columns]
        design, values = np.column_stack([users[:, :d] * trust[:, None], trust]), star_values
        base = np.diag(np.append(np.full(d, _PRIOR), float(prior["bias_precision"])))
        pull = np.zeros((self.m, d + 1), np.float32)
        pull[:, d] = prior["bias_precision"] * prior["expected_bias"]
        held = np.zeros(self.m)
        if self.traits is not None:
            choice, weight = self.latest["choice"], config.choice_weight * self.alpha
            chosen, appetite = choice[:, :d], np.ascontiguousarray(choice[:, d:])
            unexplained = np.empty_like(star_values)
            ones = Observed(self.by_movie.starts, columns, np.ones_like(star_values))
            self._in_parts(subtract_dot_products, ones, self.features, appetite, unexplained)
            values = np.empty(2 * len(star_values), np.float32)
            values[self.star_places], values[self.choice_places] = star_values, np.float32(math.sqrt(weight)) * unexplained
            design = np.vstack([design, np.column_stack([math.sqrt(weight) * chosen, np.zeros(self.n)])])
            base[:d, :d] += weight * config.unseen_weight * (chosen.T @ chosen)
            pull[:, :d] -= weight * config.unseen_weight * (self.features @ (appetite.T @ chosen))
            held = weight * config.movie_choice_l2 * (self.counts[1] + config.unseen_weight * self.n)
        regression = Regression(
            _padded(design),
            base.astype(np.float32),
            np.ones(self.m, np.float32),
            held.astype(np.float32),
            pull,
            random.standard_normal((self.m, d + 1), np.float32),
            d,
        )
        observed = Observed(self.twice, self.both_columns, values)
        self._in_parts(solve_rows, observed, regression, Solution(self.latest["movie"], self.draws["movie"]))
        self._expect_biases()

    def _expect_biases(self) -> None:
        """What is expected of a movie's bias by its traits, and how far biases differ from it."""
        known, biases = np.column_stack([np.ones(self.m), self.features[:, 1:]]).astype(np.float64), self.draws["movie"][:, self.d]
        weights = np.linalg.solve(known.T @ known + _TRAIT_L2 * np.eye(known.shape[1]), known.T @ biases)
        self.prior["expected_bias"] = known @ weights
        self.prior["bias_precision"] = np.array(1 / max(float(np.square(biases - known @ weights).mean()), _LEAST_VARIANCE))

    def _loss(self, which: int) -> float:
        """Mean squared error, in stars squared, of what the mean network predicts of (some) training ratings, or of the others."""
        ratings, lowest, highest = self.watched[which], *(end / self.unit for end in self.ratings.scale[:2])
        users, movies, d = self.sums["user"], self.sums["movie"], self.d

        def squared(start: int) -> float:
            part = slice(start, start + _CHUNK)
            p, q = users[ratings.user_idx[part]], movies[ratings.movie_idx[part]]
            stars = np.einsum("nk,nk->n", p[:, :d], q[:, :d]) + p[:, d] + q[:, d] + np.float32(self.mean)
            return float(np.square(stars.clip(lowest, highest) - self._in_units(ratings.rating[part])).sum(dtype=np.float64))

        return float(sum(self._for_each(squared, range(0, len(ratings), _CHUNK)))) * self.unit**2 / len(ratings)

    def _start_loss(self) -> float:
        return self.guessing

    def _valid_loss(self) -> float:
        return self._loss(1)

    def _advice(self) -> str:
        return "Try fewer factors, or another recipe."

    def _divergence(self, epoch: int, train_loss: float, valid_loss: float) -> str:
        return "" if math.isfinite(train_loss + valid_loss) else super()._divergence(epoch, train_loss, valid_loss)  # draws go up and down

    def _keep_if_best(self, epoch: int, valid_loss: float, weights: Weights) -> None:
        """The mean so far is the result: no sweep is chosen."""
        self.best_epoch, self.best_loss, self.best = min(epoch, len(self.history)), valid_loss, weights

    def best_weights(self) -> dict[str, FloatArray]:
        """The best weights. Rows that no training rating touched keep the bias that is expected of them, and no factors."""
        weights = {name: weight.copy() for name, weight in self.best.items()}
        for name, counts in zip(("user", "movie"), self.counts, strict=True):
            weights[f"{name}_factors"][counts == 0] = 0
        return weights

    def _weights(self) -> Weights:
        """The mean so far, in the network's scores: the biases and one side's factors are divided by the sigmoid's slope.

        Factors can be turned and stretched along any axes, as long as the users' are shrunk along them, and nothing that the network
        predicts changes. Here the axes along which users choose most differently are shrunk a little: else films that many have seen
        would be alike in little but that.
        """
        users, movies, choice, d = self.sums["user"], self.sums["movie"], self.sums["choice"], self.d
        slope = np.float32(self.slope)
        biases = {"user_bias": users[:, d] / slope, "movie_bias": movies[:, d] / slope}
        factors = {"user_factors": users[:, :d] / slope, "movie_factors": movies[:, :d].copy()}
        if self.traits is None:
            return factors | biases
        squares, axes = np.linalg.eigh(choice[:, :d].T.astype(np.float64) @ choice[:, :d] / self.n)
        stretch = (squares / max(float(squares.mean()), 1e-12)).clip(1e-3) ** -_FLATTENED
        factors["user_factors"] = (factors["user_factors"] @ (axes / stretch)).astype(np.float32)
        factors["movie_factors"] = (factors["movie_factors"] @ (axes * stretch)).astype(np.float32)
        chosen = np.hstack([choice[:, :d] @ (axes / stretch), choice[:, d:]]).astype(np.float32)
        return factors | biases | {"user_choice": chosen}

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        """Nothing to do: the mean so far is part of what ``_memory`` gives."""

    def _kinds(self) -> dict[str, dict[str, Any]]:
        """All that changes from sweep to sweep."""
        return {"draw": self.draws, "latest": self.latest, "sum": self.sums, "prior": self.prior}

    def _memory(self) -> Weights:
        return {f"{kind}.{name}": np.array(array) for kind, arrays in self._kinds().items() for name, array in arrays.items()}

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        kinds = self._kinds()
        for name, array in memory.items():
            kind, own = name.split(".", 1)
            kinds[kind][own] = np.array(array)
        self.last = self.best = self._weights()


def _padded(rows: npt.NDArray[Any]) -> FloatArray:
    """The rows with zeros up to a whole number of lanes."""
    padded = np.zeros((len(rows), -(-rows.shape[1] // LANES) * LANES), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded


@cache
def prepare() -> None:
    """Have all kernels compiled, or fetched from where an earlier process kept them, by solving for one row."""
    one, design = np.ones(1, np.float32), np.ones((1, LANES), np.float32)
    observed = Observed(np.array([0, 1]), np.zeros(1, np.int32), one)
    rows = [np.ones((1, 1), np.float32) for _ in range(5)]
    solve_rows((0, 1), observed, Regression(design, rows[0], one, one, rows[1], rows[2], 1), Solution(rows[3], rows[4]))
    subtract_dot_products((0, 1), observed, rows[0], rows[1], one.copy())
