"""Fitting by Adam in plain torch: the reference, and the path for GPUs.

For a batch of B ratings, with z = p_u . q_m + b_u + b_m + offset, s = low + (high - low) * sigmoid(z) and

    e = 2 / B * (s - r) * (high - low) * sigmoid(z) * (1 - sigmoid(z))

the gradient of the mean loss (see ``fitting``), of a user u with n_u ratings r of movies m in the batch, is

    d p_u = sum e * q_m + 2 / B * n_u * l2_u * p_u        d b_u = sum e + 2 / B * n_u * bias_l2 * b_u

and likewise for movies. A user's row is [p_u, b_u, 1] and a movie's [q_m, 1, b_m]: their dot product is the score, and one sum of
weighted rows (torch's embedding_bag, over the batch sorted by row) gives the gradients of factors and biases. Nothing is added by
atomic operations: the result is the same to the bit at the same number of threads.

All stays on the device: the ratings, an epoch's order, the sums. The host waits for it once an epoch, for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from cfrec.config import TrainConfig
from cfrec.fitting import MustStop, Weights, penalties
from cfrec.model import EmbeddingNet
from cfrec.ratings import FloatArray, Ratings
from cfrec.torchrun import TorchRun

_CHUNK = 1 << 16  # ratings whose loss is measured at a time
_LARGE = 300_000  # ratings from which on batches grow
_MOST_STEPS = 100  # an epoch of large data, where batches may grow
_FASTEST = 0.02  # learning rate to which larger batches may raise it


def in_large_batches(config: TrainConfig, n_ratings: int) -> TrainConfig:
    """The settings with which Adam goes through so many ratings.

    Each step goes through all weights, so that small batches of large data take much longer and learn no more. Above 300,000
    ratings a batch is at least a hundredth of them, and the learning rate grows with the square root of the batch, up to 0.02
    (Malladi et al. 2022, "On the SDEs and scaling rules for adaptive gradient algorithms"). Settings with ``weight_decay`` stay as
    they are: it acts in each step, and the post's recipe keeps its steps.

    Parameters
    ----------
    n_ratings : int
        Of the training ratings.
    """
    size = -(-n_ratings // _MOST_STEPS)
    if n_ratings <= _LARGE or size <= config.batch_size or config.weight_decay:
        return config
    rate = min(config.learning_rate * math.sqrt(size / config.batch_size), max(config.learning_rate, _FASTEST))
    return replace(config, batch_size=min(size, 1_000_000), learning_rate=rate)


class _Adam:
    """Adam (Kingma & Ba 2015) by torch's own fused kernel.

    ``torch.optim.Adam`` makes the same call, but takes a second to import torch's compiler when it is first created.
    """

    def __init__(self, weights: dict[str, Tensor], beta2: float, weight_decay: float) -> None:
        self.names, self.weights = list(weights), list(weights.values())
        self.beta2, self.weight_decay = beta2, weight_decay
        self.means = [torch.zeros_like(weight) for weight in self.weights]
        self.squares = [torch.zeros_like(weight) for weight in self.weights]
        self.steps = [torch.zeros((), device=weight.device) for weight in self.weights]

    def step(self, gradients: tuple[Tensor, ...], learning_rate: float) -> None:
        with torch.no_grad():
            torch._foreach_add_(self.steps, 1)
            torch._fused_adam_(
                self.weights,
                gradients,
                self.means,
                self.squares,
                [],
                self.steps,
                lr=learning_rate,
                beta1=0.9,
                beta2=self.beta2,
                weight_decay=self.weight_decay,
                eps=1e-8,
                amsgrad=False,
                maximize=False,
            )

    def state(self) -> dict[str, Tensor]:
        """Its tensors by name."""
        kinds = {"mean": self.means, "square": self.squares, "step": self.steps}
        return {f"{name}.{kind}": t for kind, tensors in kinds.items() for name, t in zip(self.names, tensors, strict=True)}


@dataclass(frozen=True)
class _Rows:
    """The rows of all users or of all movies: factors, a bias, and a 1 that the other side's bias is multiplied by."""

    table: Tensor  # (n_rows, n_factors + 2)
    l2: Tensor  # (n_rows,): what each rating adds for its row
    bias: int  # column of the biases, counted from the end
    one: int  # column of the ones

    @classmethod
    def of(cls, factors: nn.Embedding, bias: nn.Embedding, l2: FloatArray, column: int, device: str) -> _Rows:
        """Rows with the weights of two layers, which become views of them."""
        n_rows, n_factors = factors.weight.shape
        rows = cls(torch.ones(n_rows, n_factors + 2, device=device), torch.as_tensor(l2, device=device), column, -3 - column)
        for layer, view in ((factors, rows.factors), (bias, rows.biases[:, None])):
            view.copy_(layer.weight.detach())
            layer.weight = nn.Parameter(view)
        return rows

    @property
    def factors(self) -> Tensor:
        return self.table[:, :-2]  # (n_rows, n_factors)

    @property
    def biases(self) -> Tensor:
        return self.table[:, self.bias]  # (n_rows,)

    def sums(self, rows: Tensor, others: Tensor, other_rows: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
        """For each row, the sum of the other side's rows times the slopes of their ratings, and how many; ``rows`` are sorted."""
        counts = torch.zeros(len(self.table), dtype=torch.int32, device=rows.device).index_add_(0, rows, torch.ones_like(rows))
        starts = counts.cumsum(0, dtype=torch.int32) - counts
        return torch.embedding_bag(others, other_rows, starts, False, 0, False, slopes)[0], counts

    def penalise(self, gradient: Tensor, shares: Tensor, bias_l2: float) -> None:
        """Add the penalties' gradient, where each row has such a share of the batch, counted twice."""
        pull = shares * self.l2
        gradient.addcmul_(self.table, pull[:, None])
        gradient[:, self.bias].addcmul_(self.biases, shares * bias_l2 - pull)


class AdamRun(TorchRun):
    """One run: the ratings and the network's rows on the device, and Adam."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        super().__init__(train, valid, config, device)
        large = in_large_batches(config, len(train))
        self.batch_size, self.faster = large.batch_size, large.learning_rate / config.learning_rate
        self.users, self.movies, self.stars = self._tensors(train)
        self.valid = self._tensors(valid)
        self.net = self._start_net()
        user_l2 = penalties(train.user_idx, train.n_users, config.user_l2, config.l2_exponent)
        movie_l2 = penalties(train.movie_idx, train.n_movies, config.movie_l2, config.l2_exponent)
        self.user_rows = _Rows.of(self.net.user_factors, self.net.user_bias, user_l2, -2, device)
        self.movie_rows = _Rows.of(self.net.movie_factors, self.net.movie_bias, movie_l2, -1, device)
        self.adam = _Adam({"users": self.user_rows.table, "movies": self.movie_rows.table}, config.beta2, config.weight_decay)
        self.penalised = max(config.user_l2, config.movie_l2, config.bias_l2) > 0
        self._begin()

    def _start_net(self) -> EmbeddingNet:
        """The network at its start: drawn on the host, so that it is the same for every device."""
        config, random = self.config, torch.Generator().manual_seed(self.config.seed)
        net = EmbeddingNet(self.ratings.n_users, self.ratings.n_movies, config.n_factors, self.y_range, generator=random)
        for name, weight in net.named_parameters():
            weight.data.mul_(config.factor_std if "factors" in name else config.bias_std)
        net.offset.fill_(self.offset)
        return net.to(self.device)

    def _tensors(self, ratings: Ratings) -> tuple[Tensor, Tensor, Tensor]:
        arrays = ratings.user_idx, ratings.movie_idx, self._in_units(ratings.rating)
        return tuple(torch.as_tensor(a, device=self.device) for a in arrays)  # type: ignore[return-value]

    def learning_rate(self, progress: float) -> float:
        """The learning rate when this share of the run is done, as it is in batches of this size."""
        return self.faster * super().learning_rate(progress)

    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        total = self._learn(epoch, must_stop)
        return None if total is None else float(total) * self.unit**2 / len(self.stars)

    def _learn(self, epoch: int, must_stop: MustStop) -> Tensor | None:
        """Go through all ratings once; the sum of squared errors, or None when stopped. Does not wait for the device."""
        users, movies, stars = self._shuffled(epoch)
        size, n_steps = self.batch_size, math.ceil(len(stars) / self.batch_size)
        total = torch.zeros((), device=self.device)
        for step in range(n_steps):
            if must_stop():
                return None
            part = slice(step * size, (step + 1) * size)
            rate = self.learning_rate((epoch - 1 + step / n_steps) / self.config.epochs)
            total += self._step(users[part], movies[part], stars[part], rate)
        return total

    def _shuffled(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """The ratings in the epoch's order, which is drawn on the device."""
        random = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.stars), generator=random, device=self.device, dtype=torch.int32)
        return self.users.index_select(0, order), self.movies.index_select(0, order), self.stars.index_select(0, order)

    def _step(self, users: Tensor, movies: Tensor, stars: Tensor, learning_rate: float) -> Tensor:
        """One step of Adam; returns the summed squared error of the batch."""
        squared, gradients = self._gradients(users, movies, stars)
        self.adam.step(gradients, learning_rate)
        return squared

    def _gradients(self, users: Tensor, movies: Tensor, stars: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Summed squared error of a batch, and the gradients of the mean loss with respect to the users' and movies' rows."""
        users, order = users.sort(stable=True)  # neighbours share a row: the cache has it
        movies, stars = movies.index_select(0, order), stars.index_select(0, order)
        errors, slopes = self._errors(users, movies, stars)
        sorted_movies, order = movies.sort(stable=True)
        sides = (
            (self.user_rows, users, self.movie_rows, movies, slopes),
            (self.movie_rows, sorted_movies, self.user_rows, users.index_select(0, order), slopes.index_select(0, order)),
        )
        gradients = []
        for side, rows, others, other_rows, weights in sides:
            gradient, counts = side.sums(rows, others.table, other_rows, weights)
            if self.penalised:
                side.penalise(gradient, counts * (2 / len(stars)), self.config.bias_l2)
            gradient[:, side.one].fill_(-self.config.weight_decay)  # with Adam's decay of it, none in all: it stays 1
            gradients.append(gradient)
        return errors.square_().sum(), (gradients[0], gradients[1])

    def _errors(self, users: Tensor, movies: Tensor, stars: Tensor) -> tuple[Tensor, Tensor]:
        """How far each guess is from its stars, and the slope of the batch's mean squared error along each score."""
        low, high = (stars / self.unit for stars in self.y_range)
        share = self._scores(users, movies).sigmoid_()  # (batch,)
        errors = torch.add(low - stars, share, alpha=high - low)
        return errors, errors * (share - share.square()) * (2 * (high - low) / len(stars))

    def _scores(self, users: Tensor, movies: Tensor) -> Tensor:
        p, q = self.user_rows.table.index_select(0, users), self.movie_rows.table.index_select(0, movies)  # (batch, n_factors + 2)
        scores: Tensor = torch.linalg.vecdot(p, q)  # (batch,)
        return scores.add_(self.offset)

    def _loss(self, users: Tensor, movies: Tensor, stars: Tensor, *, clip: bool) -> float:
        """Mean squared error, in stars squared; of predictions clipped to the ratings' scale, or as the network gives them."""
        low, high = (end / self.unit for end in self.y_range)
        lowest, highest = (end / self.unit for end in (self.ratings.scale[:2] if clip else self.y_range))
        total = torch.zeros((), device=self.device)
        for start in range(0, len(stars), _CHUNK):
            part = slice(start, start + _CHUNK)
            guesses = self._scores(users[part], movies[part]).sigmoid_().mul_(high - low).add_(low)
            total += guesses.clamp_(lowest, highest).sub_(stars[part]).square_().sum()
        return float(total) * self.unit**2 / len(stars)

    def _start_loss(self) -> float:
        part = slice(0, 4 * _CHUNK)
        return self._loss(self.users[part], self.movies[part], self.stars[part], clip=False)

    def _valid_loss(self) -> float:
        return self._loss(*self.valid, clip=True)

    def _layers(self) -> Weights:
        """Views of the weights."""
        sides = {"user": self.user_rows, "movie": self.movie_rows}
        return {f"{name}_factors": rows.factors for name, rows in sides.items()} | {f"{name}_bias": r.biases for name, r in sides.items()}

    def _weights(self) -> Weights:
        return {name: view.clone(memory_format=torch.contiguous_format) for name, view in self._layers().items()}

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        for name, view in self._layers().items():
            view.copy_(torch.tensor(weights[name]))

    def _memory(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.adam.state().items()}

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        for name, tensor in self.adam.state().items():
            tensor.copy_(torch.tensor(memory[name]))

    @staticmethod
    def _to_array(weight: Any) -> FloatArray:
        array: FloatArray = weight.cpu().numpy()
        return array
