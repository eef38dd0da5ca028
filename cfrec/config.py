"""Training settings: what each means, its limits, and the presets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from cfrec.errors import ConfigError

LIMITS: dict[str, tuple[float, float]] = {
    "n_factors": (1, 1_024),
    "epochs": (1, 1_000),
    "batch_size": (1, 1 << 20),
    "learning_rate": (1e-6, 10.0),
    "beta2": (0.5, 0.99999),
    "weight_decay": (0.0, 1.0),
    "user_l2": (0.0, 10.0),
    "movie_l2": (0.0, 10.0),
    "bias_l2": (0.0, 10.0),
    "l2_exponent": (0.0, 1.0),
    "factor_std": (0.0, 2.0),
    "bias_std": (0.0, 2.0),
    "margin_below": (0.05, 2.0),
    "margin_above": (0.05, 2.0),
    "patience": (0, 1_000),
    "seed": (0, 2**31 - 1),
    "n_threads": (1, 256),
}
SCHEDULES = ("constant", "linear", "one_cycle")
DEFAULT_PRESET = "balanced"
_TYPES: dict[str, tuple[type, ...]] = {"int": (int,), "float": (int, float), "str": (str,), "bool": (bool,)}


@dataclass(frozen=True)
class TrainConfig:
    """How to train. Validated on creation; the defaults are the preset ``balanced``.

    Attributes
    ----------
    recipe : str
        Name of the preset these settings started from.
    n_factors : int
        Numbers learned for each user and each movie, besides a bias.
    epochs : int
        Times to go through all training ratings.
    batch_size : int
        Ratings learned from in one step.
    learning_rate : float
        Largest step size of Adam.
    schedule : str
        ``constant``; ``linear``: falls to 0; ``one_cycle``: rises for a quarter of the steps, then falls to 0.
    beta2 : float
        Adam's memory for squared gradients.
    weight_decay : float
        Adam's coupled decay of all weights, as the post uses it.
    user_l2, movie_l2, bias_l2 : float
        Penalty on the squares of the weights that a rating involves, added to its squared error.
    l2_exponent : float
        Shares the penalty among rows: a row with n ratings pays ``(mean n / n) ** l2_exponent`` as much for each of them.
        0: every rating pays alike; 1: every row pays alike in all.
    factor_std, bias_std : float
        Standard deviation of the random start.
    start_at_mean : bool
        Fix the network's offset so that zero weights predict the mean rating.
    margin_below, margin_above : float
        How far the sigmoid reaches past the lowest and highest rating, in steps of the rating scale.
    patience : int
        Stop after this many epochs without a better validation loss; 0: never.
    seed : int
        Of the random start and the order of ratings.
    device : str
        ``auto``, ``cpu``, ``cuda``, ``cuda:1`` … or ``mps``.
    n_threads : int
        CPU threads; results are bit-identical at a fixed number.
    """

    recipe: str = DEFAULT_PRESET
    n_factors: int = 50
    epochs: int = 12
    batch_size: int = 512
    learning_rate: float = 0.007
    schedule: str = "one_cycle"
    beta2: float = 0.95
    weight_decay: float = 0.0
    user_l2: float = 0.2
    movie_l2: float = 0.12
    bias_l2: float = 0.005
    l2_exponent: float = 0.7
    factor_std: float = 0.01
    bias_std: float = 0.0
    start_at_mean: bool = True
    margin_below: float = 0.5
    margin_above: float = 0.5
    patience: int = 0
    seed: int = 42
    device: str = "auto"
    n_threads: int = 1

    def __post_init__(self) -> None:
        """Raise ConfigError for a field of the wrong type or out of range."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if type(value) not in _TYPES[str(field.type)]:
                raise ConfigError(f"{field.name} must be of type {field.type}, not {value!r}.")
            if field.name in LIMITS:
                low, high = LIMITS[field.name]
                if not (math.isfinite(value) and low <= value <= high):
                    raise ConfigError(f"{field.name} must lie between {low:g} and {high:g}, not be {value!r}.")
        if self.schedule not in SCHEDULES:
            raise ConfigError(f"schedule must be one of {', '.join(SCHEDULES)}, not {self.schedule!r}.")

    @classmethod
    def preset_names(cls) -> tuple[str, ...]:
        """Names of the presets, the default first."""
        return tuple(_PRESETS)

    @classmethod
    def preset(cls, name: str = DEFAULT_PRESET, **changes: Any) -> TrainConfig:
        """A preset with some fields changed. Raises ConfigError for an unknown preset or field."""
        if name not in _PRESETS:
            raise ConfigError(f"There is no preset {name!r}. Known: {', '.join(_PRESETS)}.")
        return cls.from_dict({"recipe": name} | _PRESETS[name] | changes)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Settings from a mapping, as ``to_dict`` makes it. Raises ConfigError for an unknown field."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(values) - known):
            raise ConfigError(f"There is no setting {', '.join(unknown)}. Known: {', '.join(sorted(known))}.")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)

    def y_range(self, scale: tuple[float, float, float]) -> tuple[float, float]:
        """The sigmoid's range for ratings on a (lowest, highest, step) scale, in stars."""
        low, high, step = scale
        return low - self.margin_below * step, high + self.margin_above * step

    def bytes_needed(self, n_users: int, n_movies: int, n_ratings: int) -> int:
        """Memory that training takes beyond the ratings themselves: an upper estimate."""
        weights = 4 * (n_users + n_movies) * (self.n_factors + 1)
        batch = 4 * 12 * min(self.batch_size, n_ratings) * (self.n_factors + 1)
        return 10 * weights + batch + 48 * n_ratings  # weights, gradient, Adam's two, and copies of the best and the last

    def check_memory(self, n_users: int, n_movies: int, n_ratings: int) -> None:
        """Raise ConfigError if training would need more memory than is free."""
        needed, free = self.bytes_needed(n_users, n_movies, n_ratings), free_memory()
        if needed > free:
            raise ConfigError(
                f"Training would need about {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free. "
                f"Use fewer factors than {self.n_factors}, or a smaller data set."
            )


_PRESETS: dict[str, dict[str, Any]] = {
    "balanced": {},
    "quick": {
        "n_factors": 20,
        "epochs": 3,
        "batch_size": 2048,
        "learning_rate": 0.03,
        "beta2": 0.9,
        "user_l2": 0.12,
        "movie_l2": 0.08,
        "bias_l2": 0.01,
        "l2_exponent": 0.6,
        "factor_std": 0.02,
    },
    # The post's recipe to the letter: its scheduler is never stepped, so its nominal 3e-3 stays halved.
    "seed": {
        "n_factors": 50,
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
}


def free_memory() -> int:
    """Bytes that can still be used on this machine, or in this container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    limit, used = Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")
    try:
        return min(free, int(limit.read_text()) - int(used.read_text()))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return free
