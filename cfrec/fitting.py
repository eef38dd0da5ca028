"""One run of training, whatever does the arithmetic: its epochs, history, best weights, and how it stops, pauses and goes on.

A way of fitting the network is a subclass of ``Run``: it goes through the ratings once, and measures the loss.

Loss of one rating r of user u for movie m, with predicted stars s and n_u, n_m the numbers of training ratings:

    (s - r)^2 + user_l2 * (mean n_u / n_u)^e * |p_u|^2 + movie_l2 * (mean n_m / n_m)^e * |q_m|^2 + bias_l2 * (b_u^2 + b_m^2)

with e = l2_exponent. At e = 0 this is the usual weighted-lambda regularisation (Zhou et al. 2008, "Large-scale parallel
collaborative filtering"); at e = 1 a plain ridge on each row. Between the two, rows with few ratings are held
closer to zero than at e = 0, and rows with many closer than at e = 1.

Where ``choice_weight`` is not 0, the network also learns from who rated what, whatever the stars (implicit feedback: Hu, Koren & Volinsky
2008): user u chooses movie m by the score t = s_u . (q_m, f_m), f_m being the movie's traits, and choice_weight times this is added:

    sum over ratings (1 - t)^2 + unseen_weight * sum over all pairs t^2
        + user_choice_l2 * sum_u (n_u + unseen_weight * M) |s_u|^2 + movie_choice_l2 * sum_m (n_m + unseen_weight * U) |q_m|^2

(Rendle et al. 2021, "Revisiting the performance of iALS on item recommendation benchmarks", for penalties by frequency). M and U are the
effective numbers of movies and users (``effective_number``): those that hardly anybody rates weigh little on the others.

s and r count in a unit of stars in which the scale is about 4 wide, as MovieLens' are: there the unit is 1, on a scale from 0 to 100 it
is 32. So the same settings suit every scale. A unit is a power of two, by which numbers are divided exactly.
"""

from __future__ import annotations

import logging
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import asdict
from threading import Event
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.config import TrainConfig
from cfrec.errors import ConfigError, DataError
from cfrec.ratings import FloatArray, IntArray, Ratings
from cfrec.trained import EpochMetrics, TrainedModel, TrainState

logger = logging.getLogger(__name__)
OnEpoch = Callable[[EpochMetrics], object]
MustStop = Callable[[], bool]  # waits while the run is paused
Weights = dict[str, Any]  # arrays or tensors by name: user_factors, user_bias, movie_factors, movie_bias

_ERAS = 5  # quantiles of the years
_WARM_UP = 0.25  # share of the steps in which one_cycle rises
_WORTHLESS = 1.2  # a run's loss is of no use if it is this many times that of guessing the mean
_DIVERGED = 2.0  # an epoch has diverged if its training loss is this many times the lowest so far, and worse than guessing the mean


class Run(ABC):
    """One run: the epochs so far, the best weights, and what is needed to go on. A subclass calls ``_begin`` once its weights are there."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        self.ratings, self.valid_ratings, self.config, self.device = train, valid, config, device
        self.y_range = config.y_range(train.scale)
        self.unit = train.unit
        low, high = self.y_range
        share = (float(train.rating.mean(dtype=np.float64)) - low) / (high - low)
        self.offset = math.log(share / (1 - share)) if config.start_at_mean else 0.0
        self.traits = movie_traits(train) if config.choice_weight else None
        self.guessing = float(train.rating.var())  # mean squared error of always guessing the mean
        self.history: list[EpochMetrics] = []
        self.paused = 0.0  # seconds of this epoch

    def _in_units(self, stars: FloatArray) -> FloatArray:
        scaled: FloatArray = stars if self.unit == 1 else stars / np.float32(self.unit)
        return scaled

    def _begin(self) -> None:
        self.best_epoch, self.best_loss = 0, self._valid_loss()
        self.last = self.best = self._weights()
        self.state: TrainState | None = self._snapshot(0)
        self.lowest_train_loss = self._start_loss()

    @abstractmethod
    def _pass(self, epoch: int, must_stop: MustStop) -> float | None:
        """Go through all ratings once; mean squared error of the guesses on the way, or None when stopped."""

    @abstractmethod
    def _start_loss(self) -> float:
        """Mean squared error on training ratings, or some of them, before anything is learned."""

    @abstractmethod
    def _valid_loss(self) -> float:
        """Mean squared error on the validation ratings of predictions clipped to the ratings' scale."""

    @abstractmethod
    def _weights(self) -> Weights:
        """A copy of the weights as they are."""

    @abstractmethod
    def _set_weights(self, weights: Mapping[str, FloatArray]) -> None:
        """Go on from these."""

    @abstractmethod
    def _memory(self) -> Weights:
        """A copy of what the optimiser remembers, by name."""

    @abstractmethod
    def _set_memory(self, memory: Mapping[str, FloatArray]) -> None:
        """Go on from this."""

    def network(self) -> Weights:
        """The weights after the last whole epoch."""
        return self.last

    @staticmethod
    def to_array(weight: Any) -> FloatArray:
        """A weight as an array."""
        array: FloatArray = weight
        return array

    def fit(self, on_epoch: OnEpoch, stop: Event, pause: Event) -> tuple[str, str]:
        """Run the epochs; returns (outcome, advice)."""

        def must_stop() -> bool:
            if pause.is_set():
                self._wait(pause, stop)
            return stop.is_set()

        for epoch in range(len(self.history) + 1, self.config.epochs + 1):
            if 0 < self.config.patience <= len(self.history) - self.best_epoch:
                return "early_stopped", ""
            started, self.paused = time.perf_counter(), 0.0
            train_loss = self._pass(epoch, must_stop)
            if train_loss is None:
                if not self.history:  # else what is kept is that of a whole epoch, as the history tells it
                    self._keep_if_best(epoch, self._valid_loss(), self._weights())
                return "stopped", ""
            valid_loss = self._valid_loss()
            if advice := self._divergence(epoch, train_loss, valid_loss):
                logger.warning("%s", advice)
                return "diverged", advice
            seconds = time.perf_counter() - started - self.paused
            rate, speed = self.learning_rate(epoch / self.config.epochs), len(self.ratings) / seconds
            self.history.append(EpochMetrics(epoch, train_loss, valid_loss, rate, seconds, speed))
            self.last = self._weights()
            self._keep_if_best(epoch, valid_loss, self.last)
            self.state = self._snapshot(epoch)
            on_epoch(self.history[-1])
        return "completed", self._disappointment()

    def time_epoch(self, epoch: int) -> float:
        """Go through the ratings once and wait until the device has done so; returns the seconds."""
        started = time.perf_counter()
        self._pass(epoch, lambda: False)
        return time.perf_counter() - started

    def _wait(self, pause: Event, stop: Event) -> None:
        began = time.perf_counter()
        while pause.is_set() and not stop.is_set():
            time.sleep(0.02)
        self.paused += time.perf_counter() - began

    def learning_rate(self, progress: float) -> float:
        """The learning rate when this share of the run is done."""
        peak = self.config.learning_rate
        if self.config.schedule == "linear":
            return peak * (1 - progress)
        if self.config.schedule == "one_cycle":
            rising = progress < _WARM_UP
            angle = progress / _WARM_UP - 1 if rising else (progress - _WARM_UP) / (1 - _WARM_UP)
            return peak * (0.04 + 0.96 * (1 + math.cos(math.pi * angle)) / 2)
        return peak

    def _advice(self) -> str:
        return f"Try a smaller learning rate, such as {self.config.gentler().learning_rate:g}."

    def _disappointment(self) -> str:
        """Advice if a whole run came to nothing, else nothing."""
        nothing = 0.01 * self.ratings.scale[2] ** 2
        if self.best_epoch == 0 and self.best_loss > nothing:
            return f"Nothing was learned: no epoch was better than the random start. {self._advice()}"
        if self.best_loss > _WORTHLESS * self.guessing + nothing:
            return f"It learned too little: always guessing the average rating misses by less. Train for more epochs. {self._advice()}"
        return ""

    def _divergence(self, epoch: int, train_loss: float, valid_loss: float) -> str:
        """Advice if the epoch has diverged, else nothing."""
        limit = max(_DIVERGED * self.lowest_train_loss, self.guessing + 0.01 * self.ratings.scale[2] ** 2)
        if math.isfinite(train_loss) and math.isfinite(valid_loss) and train_loss <= limit:
            self.lowest_train_loss = min(self.lowest_train_loss, train_loss)
            return ""
        went = f"to {train_loss:.3g}" if math.isfinite(train_loss + valid_loss) else "beyond all numbers"
        return (
            f"Training diverged in epoch {epoch}: its loss went {went} from {self.lowest_train_loss:.3g}. "
            f"The weights of epoch {self.best_epoch} are kept. {self._advice()}"
        )

    def _keep_if_best(self, epoch: int, valid_loss: float, weights: Weights) -> None:
        if valid_loss < self.best_loss:
            self.best_epoch, self.best_loss, self.best = epoch, valid_loss, weights

    def _snapshot(self, epoch: int) -> TrainState | None:
        """Where the run stands after a whole epoch."""
        kinds = {"last": self.last, "best": self.best, "memory": self._memory()}
        arrays = {f"{kind}.{name}": self.to_array(a) for kind, named in kinds.items() for name, a in named.items()}
        return TrainState(epoch, self.best_epoch, arrays)

    def restore(self, trained: TrainedModel) -> None:
        """Go back to where a run stood after its last whole epoch."""
        state = trained.state
        if state is None or self.state is None:
            raise ConfigError("This model was stored without the state that resuming needs. Train it again, or start a new run.")
        free = ("epochs", "patience", "device", "n_threads", "recipe")
        mine, theirs = ({k: v for k, v in asdict(c).items() if k not in free} for c in (self.config, trained.config))
        if changed := [name for name in mine if mine[name] != theirs[name]]:
            raise ConfigError(f"A run can only be resumed with its own settings; changed: {', '.join(changed)}.")
        if self.config.schedule != "constant" and self.config.epochs != trained.config.epochs:
            raise ConfigError(f"The schedule {self.config.schedule} spans the whole run: its epochs cannot be changed. Start a new run.")
        if trained.fingerprint != self.ratings.fingerprint():
            raise DataError("The run to resume was trained on other ratings, or on another split of them.")
        if {name: a.shape for name, a in state.arrays.items()} != {name: a.shape for name, a in self.state.arrays.items()}:
            raise ConfigError("The stored state does not fit this network. Start a new run.")
        self._take_state(state)
        self.history = list(trained.history)
        self.best_loss = min([self.best_loss, *(m.valid_loss for m in self.history)])
        self.lowest_train_loss = min([self.lowest_train_loss, *(m.train_loss for m in self.history)])

    def _take_state(self, state: TrainState) -> None:
        def part(kind: str) -> Weights:
            return {name.removeprefix(f"{kind}."): array for name, array in state.arrays.items() if name.startswith(f"{kind}.")}

        self._set_weights(part("best"))
        self.best = self._weights()
        self._set_weights(part("last"))
        self.last = self._weights()
        self._set_memory(part("memory"))
        self.best_epoch, self.state = state.best_epoch, state

    def best_weights(self) -> dict[str, FloatArray]:
        """The best weights as arrays. Rows that no training rating touched are zero: nothing was learned of them."""
        arrays = {name: self.to_array(weight).copy() for name, weight in self.best.items()}
        for kind, rows in (("user", self.ratings.user_idx), ("movie", self.ratings.movie_idx)):
            untouched = np.ones(len(arrays[f"{kind}_bias"]), bool)
            untouched[rows] = False
            arrays[f"{kind}_factors"][untouched] = 0
            arrays[f"{kind}_bias"][untouched] = 0
            if kind == "user" and "user_choice" in arrays:
                arrays["user_choice"][untouched] = 0
        return arrays


def movie_traits(ratings: Ratings) -> FloatArray:
    """Traits of the movies for which a user can have an appetite: float32 (n_movies, n_traits), each of mean square 1.

    A constant (how much somebody watches at all), popularity (the logarithm of the number of ratings), and, where years are known, the
    era: how near the year a film came out is to each of some quantiles of the years, alone and times popularity. ``movie_factors`` then
    need not hold what was on show when.
    """
    popularity = np.log1p(np.bincount(ratings.movie_idx, minlength=ratings.n_movies))
    popularity = (popularity - popularity.mean()) / max(float(popularity.std()), 1e-9)
    columns = [np.ones(ratings.n_movies), popularity]
    years = (
        pd.to_numeric(ratings.movies["year"], errors="coerce").to_numpy(np.float64, na_value=np.nan) if "year" in ratings.movies else None
    )
    if years is not None and np.isfinite(years).any():
        years = np.where(np.isfinite(years), years, np.nanmedian(years))
        knots = np.unique(np.quantile(years, np.linspace(0, 1, _ERAS)))
        eras = [np.interp(years, knots, near) for near in np.eye(len(knots))[1:]]
        columns += eras + [era * popularity for era in eras]
    table = np.column_stack(columns)
    traits: FloatArray = (table / np.sqrt(np.square(table).mean(axis=0)).clip(1e-6)).astype(np.float32)
    return traits


def effective_number(counts: npt.NDArray[Any]) -> float:
    """How many rows share the ratings, a row with few of them counting little: the inverse of the mean share of a rating's row."""
    counts = counts.astype(np.float64)
    return float(counts.sum() ** 2 / max(float(np.square(counts).sum()), 1.0))


def penalties(rows: IntArray, n_rows: int, l2: float, exponent: float) -> FloatArray:
    """What each rating adds for its row's squared weights, one number a row: ``l2 * (mean n / n) ** exponent``."""
    counts = np.bincount(rows, minlength=n_rows).clip(min=1)
    shares: FloatArray = (l2 * (counts.mean() / counts) ** exponent).astype(np.float32)
    return shares
