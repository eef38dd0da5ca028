"""Training settings: what each means, its limits, and the presets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from cfrec.errors import ConfigError
from cfrec.footprint import Sizes, bytes_needed
from cfrec.memory import free_memory

METHODS = ("gibbs", "adam")
SCHEDULES = ("constant", "linear", "one_cycle")
DEFAULT_PRESET = "balanced"
_MANY_RATINGS, _LEAST_SWEEPS, _FACTORS_OF_MANY = 2_000_000, 3, 26
_LEAST_MARGIN = 25.0  # steps, for gibbs, which takes the sigmoid for straight within the scale
_LEAST_BY_ADAM = 12  # epochs: gradient descent needs more than sweeps that solve
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


def _setting(default: Any, explanation: str, low: float | None = None, high: float | None = None, options: tuple[str, ...] = ()) -> Any:
    """A field of TrainConfig with what it means, and its limits or the options it has."""
    return field(default=default, metadata={"help": explanation, "low": low, "high": high, "options": options})


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Validated on creation; the defaults are the preset ``balanced``.

    What each field means, and its limits, stand beside it, and are in the metadata of ``dataclasses.fields(TrainConfig)``.
    """

    recipe: str = _setting(DEFAULT_PRESET, "name of the preset these settings started from")
    method: str = _setting(
        "gibbs",
        "gibbs: the mean of many networks, drawn one after the other, in compiled code; adam: gradient descent in batches, by PyTorch",
        options=METHODS,
    )
    n_factors: int = _setting(69, "numbers learned for each user and each movie, besides a bias", 1, 1_024)
    epochs: int = _setting(7, "times to go through all training ratings", 1, 1_000)
    batch_size: int = _setting(
        512,
        "ratings that adam learns from in one step; more for large data and for choice, but not with weight_decay",
        1,
        1_000_000,
    )
    learning_rate: float = _setting(0.0065, "size of the largest step", 1e-6, 10.0)
    schedule: str = _setting(
        "one_cycle",
        "constant; linear: falls to 0; one_cycle: rises for a quarter of the run, then falls, both from and to 4 %",
        options=SCHEDULES,
    )
    beta2: float = _setting(0.9, "memory for squared gradients, by which each step is divided", 0.5, 0.99999)
    weight_decay: float = _setting(0.0, "coupled decay of all weights by adam, as the post uses it", 0.0, 1.0)
    user_l2: float = _setting(0.15, "penalty on a user's squared factors, added to each rating's squared error", 0.0, 10.0)
    movie_l2: float = _setting(0.115, "penalty on a movie's squared factors, added to each rating's squared error", 0.0, 10.0)
    bias_l2: float = _setting(0.012, "penalty on both squared biases, added to each rating's squared error", 0.0, 10.0)
    l2_exponent: float = _setting(
        0.5, "a row with n ratings pays (mean n / n) ** this for each; 0: every rating pays alike, 1: every row in all", 0.0, 1.0
    )
    choice_weight: float = _setting(
        5.0, "weight of the loss of choice (who rated what) beside that of the stars by adam; 0: learn from the stars alone", 0.0, 1_000.0
    )
    unseen_weight: float = _setting(
        0.66, "weight of each pair of user and movie in the loss of choice, where a rating weighs 1 more", 0.0, 10.0
    )
    user_choice_l2: float = _setting(0.01, "penalty on a user's choice factors, for each weight in the loss of choice", 0.0, 10.0)
    movie_choice_l2: float = _setting(0.02, "penalty on a movie's factors, for each weight in the loss of choice", 0.0, 10.0)
    factor_std: float = _setting(0.006, "standard deviation of the factors at the start", 0.0, 2.0)
    bias_std: float = _setting(0.0, "standard deviation of the biases at the start", 0.0, 2.0)
    start_at_mean: bool = _setting(True, "fix the network's offset so that zero weights predict the mean rating")
    margin_below: float = _setting(
        50.0, "how far the sigmoid reaches below the lowest rating, in steps of the rating scale; by gibbs at least 25", 0.05, 100.0
    )
    margin_above: float = _setting(
        50.0, "how far the sigmoid reaches above the highest rating, in steps of the rating scale; by gibbs at least 25", 0.05, 100.0
    )
    patience: int = _setting(0, "stop adam after this many epochs without a better validation loss; 0: never", 0, 1_000)
    seed: int = _setting(42, "of the random start and the order of ratings", 0, 2**31 - 1)
    device: str = _setting("auto", "auto, cpu, cuda, cuda:1 or mps")
    n_threads: int = _setting(
        0, "CPU threads; 0: all where there is enough to do. By gibbs the result is the same to the bit at any number", 0, 256
    )

    def __post_init__(self) -> None:
        """Raise ConfigError for a field of the wrong type or out of range."""
        for setting in fields(self):
            value: Any = getattr(self, setting.name)
            if type(value) not in _TYPES[str(setting.type)]:
                raise ConfigError(f"{setting.name} must be of type {setting.type}, not {value!r}.")
            low, high = setting.metadata["low"], setting.metadata["high"]
            if low is not None and not low <= value <= high:
                raise ConfigError(f"{setting.name} must lie between {low} and {high}, not be {value!r}.")
            if (options := setting.metadata["options"]) and value not in options:
                raise ConfigError(f"{setting.name} must be one of {', '.join(options)}, not {value!r}.")
        if not re.fullmatch(r"auto|cpu|mps|cuda(:[0-9]{1,3})?", self.device):
            raise ConfigError(f"device must be auto, cpu, cuda, cuda:1 or the like, or mps, not {self.device!r}.")

    @classmethod
    def preset_names(cls) -> tuple[str, ...]:
        """Names of the presets, the default first."""
        return tuple(_PRESETS)

    @classmethod
    def preset(cls, name: str = DEFAULT_PRESET, **changes: Any) -> TrainConfig:
        """A preset with some fields changed. Raises ConfigError for an unknown preset or field."""
        if name not in _PRESETS:
            raise ConfigError(f"There is no preset {name!r}. Known: {', '.join(_PRESETS)}.")
        return cls.from_dict({"recipe": name} | _PRESETS[name][1] | changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings from a mapping, as ``to_dict`` makes it. Raises ConfigError for an unknown field."""
        known = {setting.name for setting in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"There is no setting {', '.join(unknown)}. Known: {', '.join(sorted(known))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    def gentler(self) -> TrainConfig:
        """The same with a smaller learning rate: what to try after a run that diverged or learned nothing."""
        lowest = next(setting.metadata["low"] for setting in fields(self) if setting.name == "learning_rate")
        rate = float(f"{min(self.learning_rate / 10, TrainConfig().learning_rate):.2g}")
        return replace(self, learning_rate=max(lowest, rate))

    def for_adam(self) -> TrainConfig:
        """The same for batches by Adam: what a GPU is good at, and what is left where nothing can be compiled."""
        return replace(self, epochs=max(self.epochs, _LEAST_BY_ADAM), **_BY_ADAM)

    def fitted_to(self, n_ratings: int) -> TrainConfig:
        """The settings for a data set: above two million ratings, a recipe's sweeps are fewer and its factors at most 26.

        Numbers that differ from the recipe's were chosen by somebody, and stay.
        """
        recipe = TrainConfig.preset(self.recipe) if self.recipe in _PRESETS else self
        if self.method != "gibbs" or n_ratings <= _MANY_RATINGS or (self.n_factors, self.epochs) != (recipe.n_factors, recipe.epochs):
            return self
        epochs = max(_LEAST_SWEEPS, round(self.epochs * _MANY_RATINGS / n_ratings))
        return replace(self, n_factors=min(self.n_factors, _FACTORS_OF_MANY), epochs=min(self.epochs, epochs))

    def y_range(self, scale: tuple[float, float, float]) -> tuple[float, float]:
        """The sigmoid's range for ratings on a (lowest, highest, step) scale, in stars."""
        low, high, step = scale
        least = _LEAST_MARGIN if self.method == "gibbs" else 0.0
        return low - max(self.margin_below, least) * step, high + max(self.margin_above, least) * step

    def bytes_needed(self, n_users: int, n_movies: int, n_ratings: int) -> int:
        """Memory that training takes beyond the ratings themselves: an upper estimate."""
        return bytes_needed(self, Sizes(n_users, n_movies, n_ratings))

    def check_memory(self, n_users: int, n_movies: int, n_ratings: int) -> None:
        """Raise ConfigError if training would need more memory than is free."""
        needed, free = self.bytes_needed(n_users, n_movies, n_ratings), free_memory()
        if needed > free:
            raise ConfigError(
                f"Training would need about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. "
                f"Use fewer factors than {self.n_factors}, or a smaller data set."
            )


_BY_ADAM: dict[str, Any] = {  # what gradient descent needs beside a recipe made for sweeps
    "method": "adam",
    "margin_below": 0.5,
    "margin_above": 0.5,
    "user_l2": 0.09,
    "movie_l2": 0.01,
    "l2_exponent": 0.7,
    "beta2": 0.99,
}

_PRESETS: dict[str, tuple[str, dict[str, Any]]] = {  # what each is for, and how it differs from the defaults
    DEFAULT_PRESET: ("good predictions, neighbours and recommendations in half a second", {}),
    "quick": ("good predictions in the least time", {"n_factors": 31, "epochs": 4}),
    "accurate": ("the best predictions and neighbours", {"n_factors": 73, "epochs": 50}),
    # The post's recipe to the letter: its scheduler is never stepped, so its nominal 3e-3 stays halved.
    "seed": (
        "the recipe of the post this project implements, to the letter",
        {
            "method": "adam",
            "n_factors": 50,
            "choice_weight": 0.0,
            "epochs": 30,
            "batch_size": 100,
            "learning_rate": 1.5e-3,
            "schedule": "constant",
            "beta2": 0.999,
            "weight_decay": 3e-4,
            "user_l2": 0.0,
            "movie_l2": 0.0,
            "bias_l2": 0.0,
            "factor_std": 1.0,
            "bias_std": 1.0,
            "start_at_mean": False,
            "margin_below": 1.0,
            "margin_above": 0.5,
        },
    ),
}

PRESETS_EXPLAINED = {name: text for name, (text, _) in _PRESETS.items()}
