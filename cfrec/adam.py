"""Fitting by Adam in plain torch: the reference, and the path for GPUs.

Loss of one rating r of user u for movie m, with predicted stars s and n_u, n_m the numbers of training ratings:

    (s - r)^2 + user_l2 * (mean n_u / n_u)^e * |p_u|^2 + movie_l2 * (mean n_m / n_m)^e * |q_m|^2 + bias_l2 * (b_u^2 + b_m^2)

with e = l2_exponent. At e = 0 this is the usual weighted-lambda regularisation (Zhou et al. 2008, "Large-scale parallel
collaborative filtering"); at e = 1 a plain ridge on each row. Between the two, rows with few ratings are held
closer to zero than at e = 0, and rows with many closer than at e = 1.

Whole tensors are shuffled and sliced; a DataLoader would fetch rating by rating.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from threading import Event

import numpy as np
import torch
from torch import Tensor

from cfrec.config import TrainConfig
from cfrec.errors import ConfigError, DataError
from cfrec.model import EmbeddingNet
from cfrec.ratings import FloatArray, Ratings
from cfrec.trained import EpochMetrics, TrainedModel, TrainState

logger = logging.getLogger(__name__)
OnEpoch = Callable[[EpochMetrics], object]

_CHUNK = 1 << 18  # ratings whose loss is measured at a time
_WARM_UP = 0.25  # share of the steps in which one_cycle rises
_DIVERGED = 2.0  # an epoch has diverged if its training loss is this many times the lowest so far, and worse than guessing the mean


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
        return {f"adam.{name}.{kind}": t for kind, tensors in kinds.items() for name, t in zip(self.names, tensors, strict=True)}


class AdamRun:
    """One run: tensors on the device, the network, Adam, and the best weights so far."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        self.ratings, self.valid_ratings, self.config, self.device = train, valid, config, device
        self.users, self.movies, self.stars = self._tensors(train)
        self.valid = self._tensors(valid)
        random, y_range = torch.Generator().manual_seed(config.seed), config.y_range(train.scale)
        self.net = EmbeddingNet(train.n_users, train.n_movies, config.n_factors, y_range, generator=random)
        self._scale_start()
        self.net.to(device)
        self.adam = _Adam(dict(self.net.named_parameters()), config.beta2, config.weight_decay)
        self.user_l2 = self._penalties(self.users, train.n_users, config.user_l2)
        self.movie_l2 = self._penalties(self.movies, train.n_movies, config.movie_l2)
        self.penalised = max(config.user_l2, config.movie_l2, config.bias_l2) > 0
        self.history: list[EpochMetrics] = []
        self.best_epoch, self.best_loss, self.best = 0, self._valid_loss(), self._weights()
        part = slice(0, _CHUNK)
        self.lowest_train_loss = self._loss(self.users[part], self.movies[part], self.stars[part], clip=False)
        self.paused = 0.0  # seconds of this epoch
        self.state = self._snapshot(0)

    def _tensors(self, ratings: Ratings) -> tuple[Tensor, Tensor, Tensor]:
        return tuple(torch.as_tensor(a, device=self.device) for a in (ratings.user_idx, ratings.movie_idx, ratings.rating))  # type: ignore[return-value]

    def _scale_start(self) -> None:
        for name, weight in self.net.named_parameters():
            weight.data.mul_(self.config.factor_std if "factors" in name else self.config.bias_std)
        low, high = self.net.y_range
        share = (float(self.ratings.rating.mean()) - low) / (high - low)
        self.net.offset.fill_(math.log(share / (1 - share)) if self.config.start_at_mean else 0.0)

    def _penalties(self, rows: Tensor, n_rows: int, l2: float) -> Tensor:
        """What a rating adds for each of its rows' squared weights: (n_rows,)."""
        counts = rows.bincount(minlength=n_rows).clamp(min=1).float()
        return l2 * (counts.mean() / counts) ** self.config.l2_exponent

    def fit(self, on_epoch: OnEpoch, stop: Event, pause: Event) -> tuple[str, str]:
        """Run the epochs; returns (outcome, advice)."""
        for epoch in range(len(self.history) + 1, self.config.epochs + 1):
            if 0 < self.config.patience <= len(self.history) - self.best_epoch:
                return "early_stopped", ""
            started, self.paused = time.perf_counter(), 0.0
            train_loss = self._epoch(epoch, stop, pause)
            if train_loss is None:
                self._keep_if_best(epoch, self._valid_loss())
                return "stopped", ""
            valid_loss = self._valid_loss()
            if advice := self._divergence(epoch, train_loss, valid_loss):
                logger.warning("%s", advice)
                return "diverged", advice
            seconds = time.perf_counter() - started - self.paused
            rate, speed = self._learning_rate(epoch / self.config.epochs), len(self.ratings) / seconds
            self.history.append(EpochMetrics(epoch, train_loss, valid_loss, rate, seconds, speed))
            self._keep_if_best(epoch, valid_loss)
            self.state = self._snapshot(epoch)
            on_epoch(self.history[-1])
        if self.best_epoch == 0 and self.best_loss > 0.01 * self.ratings.scale[2] ** 2:
            return "completed", f"Nothing was learned: no epoch was better than the random start. {self._advice()}"
        return "completed", ""

    def _advice(self) -> str:
        return f"Try a smaller learning rate, such as {self.config.gentler().learning_rate:g}."

    def _epoch(self, epoch: int, stop: Event, pause: Event) -> float | None:
        """Go through all ratings once in a new order; mean squared error, or None when stopped."""
        order = torch.randperm(len(self.stars), generator=torch.Generator().manual_seed(self.config.seed * 1_000_003 + epoch))
        order = order.to(self.device)
        users, movies, stars = self.users[order], self.movies[order], self.stars[order]
        size = self.config.batch_size
        n_steps = math.ceil(len(stars) / size)
        total = torch.zeros((), device=self.device)
        for step in range(n_steps):
            if pause.is_set():
                self._wait(pause, stop)
            if stop.is_set():
                return None
            part = slice(step * size, (step + 1) * size)
            rate = self._learning_rate((epoch - 1 + step / n_steps) / self.config.epochs)
            total += self._step(users[part], movies[part], stars[part], rate)
        return float(total) / len(stars)

    def time_epoch(self, epoch: int) -> None:
        """Go through the ratings once and wait until the device has done so."""
        self._epoch(epoch, Event(), Event())

    def _wait(self, pause: Event, stop: Event) -> None:
        began = time.perf_counter()
        while pause.is_set() and not stop.is_set():
            time.sleep(0.02)
        self.paused += time.perf_counter() - began

    def _learning_rate(self, progress: float) -> float:
        peak = self.config.learning_rate
        if self.config.schedule == "linear":
            return peak * (1 - progress)
        if self.config.schedule == "one_cycle":
            rising = progress < _WARM_UP
            angle = progress / _WARM_UP - 1 if rising else (progress - _WARM_UP) / (1 - _WARM_UP)
            return peak * (0.04 + 0.96 * (1 + math.cos(math.pi * angle)) / 2)
        return peak

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

    def _valid_loss(self) -> float:
        return self._loss(*self.valid, clip=True)

    def _divergence(self, epoch: int, train_loss: float, valid_loss: float) -> str:
        """Advice if the epoch has diverged, else nothing."""
        guessing = float(self.ratings.rating.var()) + 0.01 * self.ratings.scale[2] ** 2
        limit = max(_DIVERGED * self.lowest_train_loss, guessing)
        if math.isfinite(train_loss) and math.isfinite(valid_loss) and train_loss <= limit:
            self.lowest_train_loss = min(self.lowest_train_loss, train_loss)
            return ""
        return (
            f"Training diverged in epoch {epoch}: its loss went to {train_loss:.3g} from {self.lowest_train_loss:.3g}. "
            f"The weights of epoch {self.best_epoch} are kept. {self._advice()}"
        )

    def _keep_if_best(self, epoch: int, valid_loss: float) -> None:
        if valid_loss < self.best_loss:
            self.best_epoch, self.best_loss, self.best = epoch, valid_loss, self._weights()

    def _weights(self) -> dict[str, Tensor]:
        return {name: weight.detach().clone() for name, weight in self.net.named_parameters()}

    def _snapshot(self, epoch: int) -> TrainState:
        arrays = {f"last.{name}": weight for name, weight in self._weights().items()}
        arrays |= {f"best.{name}": weight for name, weight in self.best.items()}
        arrays |= {name: tensor.clone() for name, tensor in self.adam.state().items()}
        return TrainState(epoch, self.best_epoch, {k: v.cpu().numpy() for k, v in arrays.items()})

    def restore(self, trained: TrainedModel) -> None:
        """Go back to where a run stood after its last whole epoch."""
        state = trained.state
        if state is None:
            raise ConfigError("This model was stored without the state that resuming needs. Train it again, or start a new run.")
        free = ("epochs", "patience", "device", "recipe")
        mine, theirs = ({k: v for k, v in asdict(c).items() if k not in free} for c in (self.config, trained.config))
        if changed := [name for name in mine if mine[name] != theirs[name]]:
            raise ConfigError(f"A run can only be resumed with its own settings; changed: {', '.join(changed)}.")
        if self.config.schedule != "constant" and self.config.epochs != trained.config.epochs:
            raise ConfigError(f"The schedule {self.config.schedule} spans the whole run: its epochs cannot be changed. Start a new run.")
        if trained.fingerprint != self.ratings.fingerprint():
            raise DataError("The run to resume was trained on other ratings, or on another split of them.")
        self._take_state(state)
        self.history = list(trained.history)
        self.best_loss = min([self.best_loss, *(m.valid_loss for m in self.history)])
        self.lowest_train_loss = min([self.lowest_train_loss, *(m.train_loss for m in self.history)])

    def _take_state(self, state: TrainState) -> None:
        mine = self.state.arrays
        if {name: a.shape for name, a in state.arrays.items()} != {name: a.shape for name, a in mine.items()}:
            raise ConfigError("The stored state does not fit this network. Start a new run.")
        tensors = {name: torch.tensor(array, device=self.device) for name, array in state.arrays.items()}
        for name, weight in self.net.named_parameters():
            weight.data.copy_(tensors[f"last.{name}"])
        for name, tensor in self.adam.state().items():
            tensor.copy_(tensors[name])
        self.best = {name: tensors[f"best.{name}"] for name, _ in self.net.named_parameters()}
        self.best_epoch, self.state = state.best_epoch, state

    def best_weights(self) -> dict[str, FloatArray]:
        """The best weights as arrays. Rows that no training rating touched are zero: nothing was learned of them."""
        arrays = {name.removesuffix(".weight"): weight.cpu().numpy().copy() for name, weight in self.best.items()}
        for kind, rows in (("user", self.ratings.user_idx), ("movie", self.ratings.movie_idx)):
            untouched = np.bincount(rows, minlength=len(arrays[f"{kind}_bias"])) == 0
            arrays[f"{kind}_factors"][untouched] = 0
            arrays[f"{kind}_bias"][untouched] = 0
            arrays[f"{kind}_bias"] = arrays[f"{kind}_bias"][:, 0]
        return arrays
