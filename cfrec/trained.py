"""What training gives: a TrainedModel of plain arrays, with its history and all that is known of it."""

from __future__ import annotations

import hashlib
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.config import TrainConfig
from cfrec.errors import NotFoundError
from cfrec.ratings import FloatArray, Ids, IntArray, Source

_CHUNK = 1 << 14  # predictions at a time: their rows stay in the processor's cache


@dataclass(frozen=True)
class EpochMetrics:
    """What one epoch did. Losses are mean squared errors, in stars squared."""

    epoch: int  # from 1
    train_loss: float
    valid_loss: float
    learning_rate: float  # at the end of the epoch
    seconds: float
    ratings_per_second: float


@dataclass(frozen=True)
class TrainState:
    """Where a run stood after its last whole epoch: enough to go on exactly as if it had never stopped."""

    epoch: int
    best_epoch: int
    arrays: Mapping[str, npt.NDArray[Any]]  # the weights last.* and best.*, and Adam's adam.*


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """A trained network as read-only arrays. Shared by everyone who looks at it; replaced, never changed.

    Attributes
    ----------
    user_factors, movie_factors : float32 array (n_users or n_movies, n_factors)
    user_bias, movie_bias : float32 array (n_users or n_movies,)
    offset : float
        Constant added to every score before the sigmoid.
    y_range, scale : stars
        The sigmoid's (low, high); the ratings' (lowest, highest, step). Predictions are clipped to the ratings' scale.
    user_ids, movies
        As in Ratings; rows match the arrays.
    outcome : str
        ``completed``, ``early_stopped``, ``stopped``, ``diverged``, or ``unfinished`` (a checkpoint);
        ``advice`` says in words what to do after a run that diverged or learned nothing.
    fit_seconds : float
        The fit alone: data in memory to best weights.
    fingerprint : int
        Of the training ratings: see Ratings.fingerprint.
    split : (valid_fraction, seed) or None
        How the held-out ratings were set apart: see Ratings.split_by.
    user_choice : float32 array (n_users, n_factors + n_traits) or None
        Which movies a user chooses to rate (implicit feedback): ``user_choice[u] . [movie_factors[m], movie_traits[m]]`` is near 1 for
        those that user u rated and near 0 for others. None where the model learned from the stars alone.
    movie_traits : float32 array (n_movies, n_traits) or None
        Fixed columns beside the factors (a constant, popularity, release years), so that ``movie_factors`` need not hold which movies
        were on show when. Known beforehand, not learned; None exactly where ``user_choice`` is.
    """

    user_factors: FloatArray
    user_bias: FloatArray
    movie_factors: FloatArray
    movie_bias: FloatArray
    offset: float
    y_range: tuple[float, float]
    scale: tuple[float, float, float]
    user_ids: Ids
    movies: pd.DataFrame
    source: Source
    config: TrainConfig
    history: list[EpochMetrics]
    metrics: Mapping[str, float]
    best_epoch: int
    outcome: str
    device: str
    fit_seconds: float
    n_train: int
    n_valid: int
    created: str
    fingerprint: int
    advice: str = ""
    split: tuple[float, int] | None = None
    state: TrainState | None = field(default=None, repr=False)
    user_choice: FloatArray | None = None
    movie_traits: FloatArray | None = None

    def __post_init__(self) -> None:
        """Make the arrays read-only."""
        for array in self.weights().values():
            array.flags.writeable = False

    def weights(self) -> dict[str, FloatArray]:
        """The network's arrays by name: all that was learned, and the fixed ``movie_traits``."""
        names = ("user_factors", "user_bias", "movie_factors", "movie_bias", "user_choice", "movie_traits")
        return {name: array for name in names if (array := getattr(self, name)) is not None}

    @property
    def n_users(self) -> int:
        """Number of users."""
        return len(self.user_bias)

    @property
    def n_movies(self) -> int:
        """Number of movies."""
        return len(self.movie_bias)

    @property
    def n_factors(self) -> int:
        """Numbers learned for each user and movie besides the bias."""
        return int(self.movie_factors.shape[1])

    @property
    def n_traits(self) -> int:
        """Fixed numbers of each movie that users have an appetite for; 0 where the model learned from the stars alone."""
        return 0 if self.movie_traits is None else int(self.movie_traits.shape[1])

    @property
    def n_parameters(self) -> int:
        """Numbers learned in all."""
        return sum(array.size for name, array in self.weights().items() if name != "movie_traits")

    @cached_property
    def version(self) -> str:
        """Tells this model from every other: a hash of what was learned, from what, and what it is called.

        What is worked out from a model is kept under this name for all who use it: a copy with other titles is another model.
        """
        names = ("source", "config", "created", "fit_seconds", "fingerprint", "split", "n_train", "n_valid", "offset", "y_range", "scale")
        told = [getattr(self, name) for name in (*names, "history", "best_epoch", "outcome")]
        value = hashlib.sha256(repr((told, sorted(self.metrics.items()))).encode())
        for name in self.movies:
            value.update(repr((name, self.movies[name].tolist())).encode())
        value.update(repr(self.user_ids.tolist()).encode())
        for array in self.weights().values():
            value.update(np.ascontiguousarray(array).data)
        return value.hexdigest()[:16]

    @cached_property
    def _row_of_user(self) -> dict[object, int]:
        return {user: row for row, user in enumerate(self.user_ids.tolist())}

    @cached_property
    def _row_of_movie(self) -> dict[object, int]:
        return {movie: row for row, movie in enumerate(self.movies["movie_id"].tolist())}

    def user_row(self, user_id: object) -> int:
        """Row of a user id. Raises NotFoundError."""
        return _find(self._row_of_user, user_id, "user")

    def movie_row(self, movie_id: object) -> int:
        """Row of a movie id. Raises NotFoundError."""
        return _find(self._row_of_movie, movie_id, "movie")

    def to_stars(self, score: FloatArray) -> FloatArray:
        """Stars for scores (dot product plus biases plus offset), clipped to the ratings' scale."""
        low, high = self.y_range
        with np.errstate(over="ignore"):  # of a score far below 0 the sigmoid is 0
            stars: FloatArray = np.float32(low) + np.float32(high - low) / (np.float32(1) + np.exp(-score))
        return stars.clip(self.scale[0], self.scale[1])

    def predict_rows(self, user_idx: IntArray, movie_idx: IntArray) -> FloatArray:
        """Stars for pairs of rows; both int arrays (n,), returns float32 (n,)."""
        stars = np.empty(len(user_idx), np.float32)
        for start in range(0, len(user_idx), _CHUNK):
            part = slice(start, start + _CHUNK)
            u, m = user_idx[part], movie_idx[part]
            dot = np.einsum("nk,nk->n", self.user_factors[u], self.movie_factors[m])
            stars[part] = self.to_stars(dot + self.user_bias[u] + self.movie_bias[m] + np.float32(self.offset))
        return stars


def _find(rows: Mapping[object, int], wanted: object, kind: str) -> int:
    key: object = wanted.item() if isinstance(wanted, np.generic) else wanted
    try:
        return rows[key]
    except (KeyError, TypeError):  # a TypeError: a list, which is no id
        said = " ".join(reprlib.repr(key).split())
        raise NotFoundError(f"There is no {kind} with the id {said} in this model. It knows {len(rows):,} {kind}s.") from None
