"""Fitting by Adam in plain torch: the reference, and the path for GPUs.

Whole tensors are shuffled and sliced; a DataLoader would fetch rating by rating.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from threading import Event
from typing import Any

import torch
from torch import Tensor

from cfrec.config import TrainConfig
from cfrec.devices import cpu_threads
from cfrec.fitting import MustStop, OnEpoch, Run, Weights, penalties
from cfrec.model import EmbeddingNet
from cfrec.ratings import FloatArray, Ratings

_CHUNK = 1 << 18  # ratings whose loss is measured at a time


@contextmanager
def use_threads(n: int) -> Iterator[None]:
    """Let torch use n CPU threads in this thread for a while."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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


class AdamRun(Run):
    """One run: tensors on the device, the network, and Adam."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        super().__init__(train, valid, config, device)
        self.n_threads = cpu_threads(config.n_threads, len(train))
        self.users, self.movies, self.stars = self._tensors(train)
        self.valid = self._tensors(valid)
        random = torch.Generator().manual_seed(config.seed)
        self.net = EmbeddingNet(train.n_users, train.n_movies, config.n_factors, self.y_range, generator=random)
        for name, weight in self.net.named_parameters():
            weight.data.mul_(config.factor_std if "factors" in name else config.bias_std)
        self.net.offset.fill_(self.offset)
        self.net.to(device)
        self.adam = _Adam(dict(self.net.named_parameters()), config.beta2, config.weight_decay)
        self.user_l2, self.movie_l2 = (
            torch.as_tensor(penalties(rows, n_rows, l2, config.l2_exponent), device=device)
            for rows, n_rows, l2 in (
                (train.user_idx, train.n_users, config.user_l2),
                (train.movie_idx, train.n_movies, config.movie_l2),
            )
        )
        self.penalised = max(config.user_l2, config.movie_l2, config.bias_l2) > 0
        self._begin()

    def _tensors(self, ratings: Ratings) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(torch.as_tensor(a, device=self.device) for a in (ratings.user_idx, ratings.movie_idx, ratings.rating))  # type: ignore[return-value]

    def fit(self, on_epoch: OnEpoch, stop: Event, pause: Event) -> tuple[str, str]:
        """Run the epochs with so many threads as are set; returns (outcome, advice)."""
        with use_threads(self.n_threads):
            return super().fit(on_epoch, stop, pause)

    def time_epoch(self, epoch: int) -> float:
        """Go through the ratings once and wait until the device has done so; returns the seconds."""
        with use_threads(self.n_threads):
            return super().time_epoch(epoch)

    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        order = torch.randperm(len(self.stars), generator=torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch))
        order = order.to(self.device)
        users, movies, stars = self.users[order], self.movies[order], self.stars[order]
        size = self.config.batch_size
        n_steps = math.ceil(len(stars) / size)
        total = torch.zeros((), device=self.device)
        for step in range(n_steps):
            if must_stop():
                return None
            part = slice(step * size, (step + 1) * size)
            rate = self.learning_rate((epoch - 1 + step / n_steps) / self.config.epochs)
            total += self._step(users[part], movies[part], stars[part], rate)
        return float(total) / len(stars)

    def _step(self, users: Tensor, movies: Tensor, stars: Tensor, learning_rate: float) -> Tensor:
        """One step of Adam; returns the summed squared error of the batch."""
        p, user_bias, q, movie_bias = self.net.look_up(users, movies)
        squared = (self.net.rate(p, user_bias, q, movie_bias) - stars).square().sum()
        loss = squared
        if self.penalised:
            loss = loss + self.user_l2[users] @ p.square().sum(1) + self.movie_l2[movies] @ q.square().sum(1)
            loss = loss + self.config.bias_l2 * (user_bias.square().sum() + movie_bias.square().sum())
        self.adam.step(torch.autograd.grad(loss / len(stars), self.adam.weights), learning_rate)
        return squared.detach()

    def _loss(self, users: Tensor, movies: Tensor, stars: Tensor, *, clip: bool) -> float:
        """Mean squared error; of predictions clipped to the ratings' scale, or as the network gives them."""
        low, high = self.ratings.scale[:2] if clip else self.net.y_range
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(stars), _CHUNK):
                part = slice(start, start + _CHUNK)
                total += float((self.net(users[part], movies[part]).clamp(low, high) - stars[part]).square().sum())
        return total / len(stars)

    def _start_loss(self) -> float:
        part = slice(0, _CHUNK)
        return self._loss(self.users[part], self.movies[part], self.stars[part], clip=False)

    def _valid_loss(self) -> float:
        return self._loss(*self.valid, clip=True)

    def _weights(self) -> Weights:
        weights = {name.removesuffix(".weight"): weight.detach().clone() for name, weight in self.net.named_parameters()}
        return {name: weight.squeeze(1) if name.endswith("bias") else weight for name, weight in weights.items()}

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        for name, weight in self.net.named_parameters():
            weight.data.copy_(torch.tensor(weights[name.removesuffix(".weight")]).reshape(weight.shape))

    def _memory(self) -> Weights:
        return {name: tensor.clone() for name, tensor in self.adam.state().items()}

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        for name, tensor in self.adam.state().items():
            tensor.copy_(torch.tensor(memory[name]))

    @staticmethod
    def _to_array(weight: Any) -> FloatArray:
        array: FloatArray = weight.cpu().numpy()
        return array
