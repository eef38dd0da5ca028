"""Fitting by averaging many plausible networks: Bayesian matrix factorisation by Gibbs sampling, in torch.

With the ratings centred and scaled to variance 1, users u, movies m, rows P_u = (p_u, b_u) and Q_m = (q_m, c_m):

    r_um ~ N(p_u . q_m + b_u + c_m, 1 / (alpha a_u))         a_u ~ Gamma(h/2, h/2): some people rate more evenly than others
    P_u  ~ N(mu + B' x_u, L^-1)                               Q_m likewise, with a mu, B and L of its own
    mu   ~ N(0, (beta L)^-1)    B ~ N(0, I / lambda, L^-1)    L ~ Wishart(k, I / w)    lambda ~ Gamma(1, 1)

x_u tells *who rated what*, whatever the stars: the truncated singular value decomposition of the matrix that has
(n_u n_m)^(-1/4) where u rated m, and else 0. So whoever has rated little, or is rated little, is expected to be like those with the
same company. Each sweep draws everything anew, given the rest: rows by their normal equations, x_u's columns being orthogonal.
The mean of what the sweeps predict (taken over a row's distribution rather than its draw) is a single network of higher rank; its
singular value decomposition gives the rows of the model.

Sources: Salakhutdinov & Mnih (2008), "Bayesian probabilistic matrix factorization using Markov chain Monte Carlo"; Simm et al. (2015),
"Macau: scalable Bayesian multi-relational factorization with side information".
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cfrec.config import TrainConfig
from cfrec.fitting import MustStop, Weights
from cfrec.footprint import BURN_IN, DENSE, DRAWN_AT_ONCE, KEPT_SAMPLES
from cfrec.incidence import Entries, Product, orthogonal, sorted_entries, truncated_svd, who_rated_what
from cfrec.ratings import FloatArray, Ratings
from cfrec.torchrun import TorchRun
from cfrec.trained import TrainState

_PRECISION, _EVENNESS = 1.65, 20.0  # alpha, in one over the variance of the ratings; h
_BETA, _WISHART = 2.0, 2.7  # beta, w
_PER_FACTOR = 2  # columns of x, and factors of the model, for each factor that is sampled
_RANGE = 5.0  # the model's sigmoid reaches so many times the ratings' range to either side: within the scale it is nearly straight
_SAMPLE = 200_000  # training ratings by which the training loss is told


@dataclass
class _Side:
    """The users, or the movies: their ratings in order, what is known of them, and what was drawn of them last."""

    ratings: Entries  # the columns are rows of the other side
    stars: Tensor  # (n_ratings,): centred and scaled
    directions: Tensor  # (n, k): x = directions * lengths, the directions orthonormal
    lengths: Tensor  # (k,)
    rows: Tensor  # (n, d + 1): factors and bias
    means: Tensor  # (n, d + 1): of the distribution that the rows were drawn from
    link: Tensor | None = None  # B (k, d + 1)
    decay: float = 1.0  # lambda


class GibbsRun(TorchRun):
    """One run: an epoch is a sweep. It cannot be resumed."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        super().__init__(train, valid, config, device)
        self.mean, self.scale = float(train.rating.mean(dtype=np.float64)), float(train.rating.std(dtype=np.float64)) or 1.0
        low, high, _ = train.scale
        reach = _RANGE * max(high - low, 1.0)
        self.y_range, self.offset = (self.mean - reach, self.mean + reach), 0.0
        self.random = torch.Generator(device).manual_seed(config.seed)
        self.d, self.n_averaged = config.n_factors, 0
        self.users, self.movies = self._sides(train)
        self.noise = torch.ones(train.n_users, device=device)  # a
        dense = train.n_users * train.n_movies <= DENSE
        self.product = torch.zeros(train.n_users, train.n_movies, device=device) if dense else None
        self.samples: list[tuple[Tensor, Tensor]] = []
        self.biases = [torch.zeros(n, device=device) for n in (train.n_users, train.n_movies)]
        some = np.random.default_rng(0).permutation(len(train))[:_SAMPLE]
        self.watched = [_Watched(part, device) for part in (train.take(some), valid)]
        self._begin()

    def _sides(self, train: Ratings) -> tuple[_Side, _Side]:
        users, movies = (torch.as_tensor(a, device=self.device).long() for a in (train.user_idx, train.movie_idx))
        stars = (torch.as_tensor(train.rating, device=self.device) - self.mean) / self.scale
        n, m = train.n_users, train.n_movies
        (by_user, user_entries), (by_movie, movie_entries) = sorted_entries(users, movies, (n, m)), sorted_entries(movies, users, (m, n))
        known = who_rated_what(user_entries, movie_entries, self._rank((n, m)), self.random)
        starts = self._start(n), self._start(m)
        return (
            _Side(user_entries, stars[by_user], *orthogonal(known[0]), starts[0], starts[0].clone()),
            _Side(movie_entries, stars[by_movie], *orthogonal(known[1]), starts[1], starts[1].clone()),
        )

    def _rank(self, sizes: tuple[int, int]) -> int:
        return max(min(_PER_FACTOR * self.config.n_factors, min(sizes) - 1), 1)

    def _start(self, n: int) -> Tensor:
        rows = 0.1 * self._normal(n, self.d + 1)
        rows[:, self.d] = 0
        return rows

    def _normal(self, *size: int) -> Tensor:
        return torch.randn(*size, generator=self.random, device=self.device)

    def _gamma(self, shape: Tensor, rate: Tensor) -> Tensor:
        return torch._standard_gamma(shape, generator=self.random) / rate

    @torch.no_grad()
    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        burn_in = int(BURN_IN * self.config.epochs)
        users, movies, averages = self.users, self.movies, epoch > burn_in
        if must_stop():
            return None
        self._draw(users, movies)
        if averages:
            self._average(users.means, movies.rows)
        if must_stop():
            return None
        self._draw(movies, users)
        if averages:
            self._average(users.rows, movies.means)
            if self.product is None and (epoch - burn_in - 1) % max((self.config.epochs - burn_in) // KEPT_SAMPLES, 1) == 0:
                self.samples.append((users.rows[:, : self.d].half(), movies.means[:, : self.d].half()))
        for watched in self.watched:
            watched.add(users.rows, movies.means, fresh=epoch <= burn_in + 1)
        return self._watched_loss(0)

    def _draw(self, side: _Side, other: _Side) -> None:
        """Draw one side's prior, rows, and noise, given the other side."""
        expected, precision = self._draw_prior(side)
        design = torch.cat([other.rows[:, : self.d], torch.ones_like(other.rows[:, :1])], 1)  # (n_other, d + 1)
        squares = _lower_products(design)
        is_users = side is self.users
        for start in range(0, len(side.rows), DRAWN_AT_ONCE):
            block = slice(start, min(start + DRAWN_AT_ONCE, len(side.rows)))
            part = side.ratings.part(block)
            stars = side.stars[int(side.ratings.starts[block.start]) : int(side.ratings.starts[block.stop])]
            residual = stars - other.rows[part.columns, self.d]
            weight = _PRECISION * (self.noise[block].repeat_interleave(part.counts) if is_users else self.noise[part.columns])
            gram, pull = part.times(weight, squares), part.times(weight * residual, design)
            self._draw_rows(side, block, gram, pull + expected[block] @ precision, precision)
            if is_users:
                rows = side.rows[block]
                missed = part.row_sums(weight * residual.square()) - 2 * (rows * pull).sum(1)
                missed += 2 * (gram * _lower_products(rows)).sum(1) - (gram[:, _diagonal(self.d + 1)] * rows.square()).sum(1)
                rate = _EVENNESS + missed.clamp(min=0) / self.noise[block]
                self.noise[block] = self._gamma((_EVENNESS + part.counts) / 2, rate / 2)

    def _draw_prior(self, side: _Side) -> tuple[Tensor, Tensor]:
        """Draw mu, B, L and lambda given the rows; returns the rows' expected values (n, d + 1), and L."""
        n, k = side.rows.shape
        eye = torch.eye(k, device=self.device)
        known = side.directions * side.lengths
        rest, scatter, freedom = side.rows, _WISHART * eye, k + n
        if side.link is not None:
            rest = side.rows - known @ side.link
            scatter = scatter + side.decay * side.link.T @ side.link
            freedom += len(side.lengths)
        mean = rest.mean(0)
        scatter = scatter + rest.T @ rest - n * n / (n + _BETA) * torch.outer(mean, mean)
        chi = torch._standard_gamma((freedom - torch.arange(k, device=self.device)) / 2, generator=self.random)
        triangle = torch.tril(self._normal(k, k), -1) + torch.diag((2 * chi).sqrt())
        root = torch.linalg.cholesky(torch.linalg.inv(scatter)) @ triangle
        precision = root @ root.T
        factor = torch.linalg.cholesky(precision)
        mean = n * mean / (n + _BETA) + _solve_upper(factor, self._normal(k, 1)).squeeze(1) / math.sqrt(n + _BETA)
        held = side.lengths.square() + side.decay
        side.link = (side.directions.T @ (side.rows - mean)) * (side.lengths / held)[:, None]
        side.link = side.link + _solve_upper(factor, self._normal(k, len(held))).T / held.sqrt()[:, None]
        spread = ((side.link @ precision) * side.link).sum()
        side.decay = float(self._gamma(torch.tensor(1 + side.link.numel() / 2, device=self.device), 1 + spread / 2))
        return mean + known @ side.link, precision

    def _draw_rows(self, side: _Side, block: slice, gram: Tensor, pull: Tensor, precision: Tensor) -> None:
        """Draw rows from N(M^-1 pull, M^-1), M being the prior's precision and the lower triangle in ``gram``."""
        k = len(precision)
        whole = precision.repeat(len(gram), 1, 1)
        for j in range(k):
            whole[:, j, : j + 1] += gram[:, j * (j + 1) // 2 : (j + 1) * (j + 2) // 2]  # Cholesky reads no more
        factor = torch.linalg.cholesky(whole)
        half = torch.linalg.solve_triangular(factor, pull.unsqueeze(2), upper=False)
        both = _solve_upper(factor, torch.cat([half, self._normal(*half.shape)], 2))
        side.means[block], side.rows[block] = both[:, :, 0], both.sum(2)

    def _average(self, users: Tensor, movies: Tensor) -> None:
        """Add a prediction, by the rows that were drawn of one side and the means of the other's."""
        self.n_averaged += 1
        self.biases = [total + rows[:, self.d] for total, rows in zip(self.biases, (users, movies), strict=True)]
        if self.product is not None:
            self.product.addmm_(users[:, : self.d], movies[:, : self.d].T)

    def _watched_loss(self, which: int) -> float:
        watched = self.watched[which]
        return watched.loss(self.mean, self.scale, self.ratings.scale)

    def _start_loss(self) -> float:
        return self.guessing

    def _valid_loss(self) -> float:
        return self._watched_loss(1)

    def _advice(self) -> str:
        return "Try fewer factors, or another recipe."

    def _keep_if_best(self, epoch: int, valid_loss: float, weights: Weights) -> None:
        """The mean so far is the result: no sweep is chosen."""
        self.best_epoch, self.best_loss, self.best = min(epoch, len(self.history)), valid_loss, weights

    def _weights(self) -> Weights:
        return {}

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        raise NotImplementedError  # restore refuses before

    def _memory(self) -> Weights:
        return {}

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        raise NotImplementedError

    def _snapshot(self, epoch: int) -> TrainState | None:  # noqa: ARG002  # what a sweep leaves is too much to store
        return None

    @torch.no_grad()
    def best_weights(self) -> dict[str, FloatArray]:
        """The mean of what the sweeps predicted, as one network. Rows without a training rating have the bias that is expected of them."""
        d, sides = self.d, (self.users, self.movies)
        if not self.n_averaged or (self.product is None and not self.samples):  # stopped before a sweep was averaged: the last draw
            self.biases = [side.rows[:, d].clone() for side in sides]
            self.product, self.samples, self.n_averaged = None, [(self.users.rows[:, :d], self.movies.rows[:, :d])], 1
        weights = [(side.ratings.counts + 1).float().pow(0.25) for side in sides]  # rows with more ratings are to be kept more exactly
        rank = self._rank((len(weights[0]), len(weights[1])))
        left, lengths, right = truncated_svd(*self._mean_product(weights), (len(weights[0]), len(weights[1])), rank, self.random)
        slope = (self.y_range[1] - self.y_range[0]) / 4 / self.scale  # of the sigmoid in its middle, in units of the scaled ratings
        arrays: dict[str, Any] = {}
        for name, side, rows, weight, bias in zip(("user", "movie"), sides, (left, right), weights, self.biases, strict=True):
            factors = rows * (lengths / slope).sqrt() / weight[:, None] * (side.ratings.counts > 0)[:, None]
            arrays |= {f"{name}_factors": factors, f"{name}_bias": bias / self.n_averaged / slope}
        return {name: np.ascontiguousarray(array.cpu().numpy(), np.float32) for name, array in arrays.items()}

    def _mean_product(self, weights: list[Tensor]) -> tuple[Product, Product]:
        """Products with the mean of the factors' products, its rows and columns weighted, and with its transpose."""
        a, b = (weight[:, None] for weight in weights)
        if self.product is not None:
            whole = self.product / self.n_averaged * a * b.T
            return lambda x: whole @ x, lambda x: whole.T @ x
        share = 1 / len(self.samples)
        samples = [(p.float() * share, q.float()) for p, q in self.samples]
        return (
            lambda x: a * torch.stack([p @ (q.T @ (b * x)) for p, q in samples]).sum(0),
            lambda x: b * torch.stack([q @ (p.T @ (a * x)) for p, q in samples]).sum(0),
        )


class _Watched:
    """Ratings whose mean prediction is followed from sweep to sweep."""

    def __init__(self, ratings: Ratings, device: str) -> None:
        self.users, self.movies = (torch.as_tensor(a, device=device).long() for a in (ratings.user_idx, ratings.movie_idx))
        self.stars = torch.as_tensor(ratings.rating, device=device)
        self.total, self.n = torch.zeros_like(self.stars), 1

    def add(self, users: Tensor, movies: Tensor, *, fresh: bool) -> None:
        """Take a sweep's rows into the mean; or begin afresh with them."""
        p, q = users[self.users], movies[self.movies]
        predicted = (p[:, :-1] * q[:, :-1]).sum(1) + p[:, -1] + q[:, -1]
        self.total, self.n = (predicted, 1) if fresh else (self.total + predicted, self.n + 1)

    def loss(self, mean: float, scale: float, limits: tuple[float, float, float]) -> float:
        """Mean squared error, in stars squared."""
        stars = (mean + scale * self.total / self.n).clamp(*limits[:2])
        return float((stars - self.stars).square().mean())


def _lower_products(rows: Tensor) -> Tensor:
    """The lower triangle of each row's outer product with itself, row by row of the triangle."""
    return torch.cat([rows[:, j : j + 1] * rows[:, : j + 1] for j in range(rows.shape[1])], 1)


def _diagonal(k: int) -> list[int]:
    """Where the diagonal is in such a triangle."""
    return [j * (j + 1) // 2 + j for j in range(k)]


def _solve_upper(factor: Tensor, right: Tensor) -> Tensor:
    solved: Tensor = torch.linalg.solve_triangular(factor.mT, right, upper=True)
    return solved
