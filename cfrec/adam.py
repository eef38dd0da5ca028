"""Training by PyTorch: batches of ratings through EmbeddingNet, autograd, and ``torch.optim.Adam``. It runs on any device.

The loss of ``fitting`` divided by the number of ratings n. A batch gives an unbiased estimate: the terms of single ratings are averaged
over the batch, those of rows and of all pairs are exact. With t = ``net.choose``, S = user_choice and X = [movie_factors, traits]:

    stars   mean (s - r)^2
    choice  mean (1 - t)^2 + unseen_weight / n * sum over all pairs of t^2, times choice_weight
    rows    sum |row|^2 * (its pull), see ``row_pulls``

The sum over all pairs equals sum((S^T S) * (X^T X)) (Hu, Koren & Volinsky 2008, "Collaborative filtering for implicit feedback datasets").

The ratings and an epoch's order stay on the device. The host waits for it once an epoch, for the loss.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss

from cfrec.config import TrainConfig
from cfrec.fitting import MustStop, Weights, effective_number, penalties
from cfrec.model import EmbeddingNet
from cfrec.ratings import FloatArray, Ratings
from cfrec.torchrun import TorchRun

Batch = tuple[Tensor, Tensor, Tensor]  # users, movies (int32), stars (float32)

_CHUNK = 1 << 16  # ratings predicted at a time to measure the error
_LARGE = 300_000  # ratings above which batches grow
_MOST_STEPS = 100  # an epoch, above that
_CHOICE_BATCH, _CHOICE_STEPS = 4_096, 20  # least ratings in a batch with choice, as long as an epoch keeps 20 steps
_FASTEST = 0.02  # learning rate that larger batches may raise it to
_STATE = ("step", "exp_avg", "exp_avg_sq")  # what torch.optim.Adam keeps for each weight


def in_large_batches(config: TrainConfig, n_ratings: int) -> TrainConfig:
    """The settings with the batch size and the learning rate that Adam uses for ``n_ratings`` training ratings.

    Each step updates all weights, so small batches of large data take longer and learn no more. Above 300,000 ratings a batch is at
    least a hundredth of them. With ``choice_weight``, whose sum over all pairs each step computes, it is at least 4,096, or a twentieth
    of smaller data. The learning rate grows with the square root of the batch, up to 0.02 (Malladi et al. 2022, "On the SDEs and
    scaling rules for adaptive gradient algorithms"). Settings with ``weight_decay``, which acts in each step, stay unchanged.
    """
    size = math.ceil(n_ratings / _MOST_STEPS) if n_ratings > _LARGE else 0
    if config.choice_weight:
        size = max(size, min(_CHOICE_BATCH, n_ratings // _CHOICE_STEPS))
    if size <= config.batch_size or config.weight_decay:
        return config
    rate = min(config.learning_rate * math.sqrt(size / config.batch_size), max(config.learning_rate, _FASTEST))
    return replace(config, batch_size=min(size, 1_000_000), learning_rate=rate)


def row_pulls(train: Ratings, config: TrainConfig) -> dict[str, FloatArray]:
    """The penalty on each row's squared weights in the mean loss: for each layer that has one, an array of shape (n_rows,)."""
    n_u = np.bincount(train.user_idx, minlength=train.n_users)
    n_m = np.bincount(train.movie_idx, minlength=train.n_movies)
    unseen, choice = config.unseen_weight, config.choice_weight
    pulls = {
        "user_factors": n_u * penalties(train.user_idx, train.n_users, config.user_l2, config.l2_exponent),
        "movie_factors": n_m * penalties(train.movie_idx, train.n_movies, config.movie_l2, config.l2_exponent)
        + choice * config.movie_choice_l2 * (n_m + unseen * effective_number(n_u)),
        "user_bias": n_u * config.bias_l2,
        "movie_bias": n_m * config.bias_l2,
        "user_choice": choice * config.user_choice_l2 * (n_u + unseen * effective_number(n_m)),
    }
    return {name: (pull / len(train)).astype(np.float32) for name, pull in pulls.items() if pull.any()}


class Loss:
    """The loss of a batch, as the head of this module defines it.

    Parameters
    ----------
    train : Ratings
        All training ratings: their number and those of each row weigh the terms.
    """

    def __init__(self, train: Ratings, config: TrainConfig, device: str) -> None:
        self.squared_unit, self.choice_weight = train.unit**2, config.choice_weight
        self.unseen_weight = config.unseen_weight / len(train)
        self.pulls = {name: torch.as_tensor(pull, device=device) for name, pull in row_pulls(train, config).items()}

    def __call__(self, net: EmbeddingNet, users: Tensor, movies: Tensor, stars: Tensor) -> tuple[Tensor, Tensor]:
        """The loss, to be differentiated, and the mean squared error (stars squared) of the same batch: two scalars."""
        error = mse_loss(net(users, movies), stars)
        loss = error / self.squared_unit
        for name, pull in self.pulls.items():
            loss = loss + pull @ net.get_parameter(f"{name}.weight").square().sum(1)
        if self.choice_weight:
            loss = loss + self.choice_weight * self.of_choice(net, users, movies)
        return loss, error.detach()

    def of_choice(self, net: EmbeddingNet, users: Tensor, movies: Tensor) -> Tensor:
        """The loss of who rated what, without its penalties: a scalar."""
        chosen, s, x = net.choose(users, movies), net.user_choice.weight, net.movie_features()
        all_pairs = ((s.T @ s) * (x.T @ x)).sum()
        return (1 - chosen).square().mean() + self.unseen_weight * all_pairs


class AdamRun(TorchRun):
    """One run by Adam: the ratings, the network and the optimiser on the device."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        super().__init__(train, valid, config, device)
        large = in_large_batches(config, len(train))
        self.batch_size, self.faster = large.batch_size, large.learning_rate / config.learning_rate
        self.train, self.valid = self._tensors(train), self._tensors(valid)
        self.net, self.loss = self._start_net(), Loss(train, config, device)
        fused = True if torch.device(device).type in ("cpu", "cuda", "mps") else None  # None: what torch thinks best
        self.optimizer = torch.optim.Adam(
            self.net.parameters(), lr=config.learning_rate, betas=(0.9, config.beta2), weight_decay=config.weight_decay, fused=fused
        )
        self._begin()

    def _start_net(self) -> EmbeddingNet:
        """The network with its initial weights, drawn on the host: the same for every device."""
        config, train, random = self.config, self.ratings, torch.Generator().manual_seed(self.config.seed)
        traits = None if self.traits is None else torch.as_tensor(self.traits)
        net = EmbeddingNet(train.n_users, train.n_movies, config.n_factors, self.y_range, traits=traits, generator=random)
        with torch.no_grad():
            for name, weight in net.named_parameters():
                weight.mul_(config.bias_std if "bias" in name else config.factor_std)
        net.offset.fill_(self.offset)
        return net.to(self.device)

    def _tensors(self, ratings: Ratings) -> Batch:
        users, movies, stars = (torch.as_tensor(a, device=self.device) for a in (ratings.user_idx, ratings.movie_idx, ratings.rating))
        return users, movies, stars

    def learning_rate(self, progress: float) -> float:
        """The learning rate when this share of the run is done, for batches of the size in use."""
        return self.faster * super().learning_rate(progress)

    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        total = self._learn(epoch, must_stop)
        return None if total is None else float(total) / len(self.ratings)

    def _learn(self, epoch: int, must_stop: MustStop) -> Tensor | None:
        """Train on all ratings once; the sum of squared errors, or None if stopped. Does not wait for the device."""
        total, n_steps = torch.zeros((), device=self.device), math.ceil(len(self.ratings) / self.batch_size)
        for step, (users, movies, stars) in enumerate(self._batches(epoch)):
            if must_stop():
                return None
            self.optimizer.param_groups[0]["lr"] = self.learning_rate((epoch - 1 + step / n_steps) / self.config.epochs)
            self.optimizer.zero_grad()
            loss, error = self.loss(self.net, users, movies, stars)
            loss.backward()  # type: ignore[no-untyped-call]  # torch gives it no types
            self.optimizer.step()
            total += error * len(stars)
        return total

    def _batches(self, epoch: int) -> Iterator[Batch]:
        """The training ratings in the epoch's random order, which is drawn on the device, a batch at a time."""
        random = torch.Generator(self.device).manual_seed(self.config.seed * 1_000_003 + epoch)
        order = torch.randperm(len(self.ratings), generator=random, device=self.device, dtype=torch.int32)
        yield from zip(*(torch.split(part[order], self.batch_size) for part in self.train), strict=True)

    @torch.no_grad()
    def _mean_error(self, ratings: Batch, scale: tuple[float, float]) -> float:
        """Mean squared error (stars squared) of predictions clipped to a scale."""
        total = torch.zeros((), device=self.device)
        for users, movies, stars in zip(*(torch.split(part, _CHUNK) for part in ratings), strict=True):
            total += (self.net(users, movies).clamp(*scale) - stars).square().sum()
        return float(total) / len(ratings[0])

    def _start_loss(self) -> float:
        users, movies, stars = (part[: 4 * _CHUNK] for part in self.train)
        return self._mean_error((users, movies, stars), self.y_range)

    def _valid_loss(self) -> float:
        return self._mean_error(self.valid, self.ratings.scale[:2])

    def _layers(self) -> Weights:
        """Views of the weights; biases as vectors."""
        layers = {name.removesuffix(".weight"): weight.detach() for name, weight in self.net.named_parameters()}
        return {name: weight.squeeze(1) if "bias" in name else weight for name, weight in layers.items()}

    def _weights(self) -> Weights:
        return {name: view.clone() for name, view in self._layers().items()}

    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        for name, view in self._layers().items():
            view.copy_(torch.tensor(weights[name]))

    def _memory(self) -> Weights:
        """Adam's state, zero before the first step, as ``adam.<layer>.<kind>``."""
        memory: Weights = {}
        for layer, weight in zip(self._layers(), self.net.parameters(), strict=True):
            state = self.optimizer.state.get(weight, {"step": torch.zeros(())})
            memory |= {f"adam.{layer}.{kind}": state[kind].clone() if kind in state else torch.zeros_like(weight) for kind in _STATE}
        return memory

    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        states = [{kind: torch.tensor(memory[f"adam.{layer}.{kind}"]) for kind in _STATE} for layer in self._layers()]
        self.optimizer.load_state_dict(self.optimizer.state_dict() | {"state": dict(enumerate(states))})

    @staticmethod
    def to_array(weight: Any) -> FloatArray:
        """A tensor on any device as an array."""
        array: FloatArray = weight.cpu().numpy()
        return array
