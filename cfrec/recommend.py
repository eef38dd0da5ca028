"""A new visitor's stars -> what the visitor chooses and likes -> ranked movies, each with the parts its score adds up from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.arguments import checked
from cfrec.errors import ConfigError
from cfrec.parts import star_levels
from cfrec.ratings import FloatArray
from cfrec.trained import TrainedModel

_STEPS = 8  # Gauss-Newton converges in three or four
_LEAST_L2 = 0.05  # for models trained without a penalty per rating: a few stars must not fix fifty numbers
_LEAST_ERROR = 1e-8  # mean squared, of predictions between 0 and 1: ratings that are all the same leave none, and then nothing is a penalty
_LEAST_VARIANCE = 1e-6  # of the users' rows
_LOVED, _FEW = 0.1, 10  # weight of predicted stars beside the likelihood to be chosen; of n ratings it is n / (n + 10) of that
_LIKED_WEIGHT, _WEIGHTS = 0.6, (0.3, 1.9)  # a choice counts so much more for each star above the usual; at least and at most
_CHOICE_L2, _LEAST_SHARE = 0.04, 1e-6  # of the inverse of the mean products of users' choices; what is added to their mean square
_TASTE_L2 = 100.0  # of what is expected of people who choose alike, in users

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class _Choice:
    """What the users of a model tell of someone new who chooses in some way.

    design (n_movies, k): factors and traits; held (k, k): its products, weighted as what is not seen, and what holds someone new to the
    choices that users make; taste (k + 1, n_factors + 1): factors and bias that are expected, by (1, choice); precision
    (n_factors + 1, n_factors + 1): of what differs from them.
    """

    design: FloatArray
    held: Floats
    taste: Floats
    precision: Floats

    @classmethod
    def of(cls, trained: TrainedModel) -> _Choice | None:
        """Those of a model; None where it learned from stars alone. Kept for as long as the model is."""
        if trained.user_choice is None or trained.movie_traits is None:
            return None
        if trained not in _KNOWN:
            design = np.hstack([trained.movie_factors, trained.movie_traits])
            learned = trained.user_choice.any(axis=1)
            known = np.column_stack([np.ones(int(learned.sum())), trained.user_choice[learned]]).astype(np.float64)
            rows = np.column_stack([trained.user_factors, trained.user_bias])[learned].astype(np.float64)
            held = _TASTE_L2 * np.diag(np.square(known).mean(axis=0)) + _LEAST_VARIANCE * np.eye(known.shape[1])
            taste = np.asarray(np.linalg.solve(known.T @ known + held, known.T @ rows), np.float64)
            rest = rows - known @ taste
            spread: Floats = (rest.T @ rest) / max(len(rows), 1) + _LEAST_VARIANCE * np.eye(rows.shape[1])
            choices = known[:, 1:]
            products = choices.T @ choices / max(len(choices), 1) + _LEAST_SHARE * np.square(choices).mean() * np.eye(choices.shape[1])
            unseen = trained.config.unseen_weight * (design.T @ design).astype(np.float64)
            held = unseen + _CHOICE_L2 * np.linalg.inv(products)
            _KNOWN[trained] = cls(design, held, taste, np.asarray(np.linalg.inv(spread), np.float64))
        return _KNOWN[trained]

    def fold_in(self, trained: TrainedModel, rows: list[int], stars: Floats) -> Floats:
        """What someone chooses by, who gave these stars: where the loss of choice is least, movies liked counting more; (k,).

        It is held as users' choices are spread, whatever the axes: ``_CHOICE_L2 s' (mean of s s')^-1 s``.
        """
        low, high, _ = trained.scale
        unit = max(high - low, 1e-9) / 4
        usual = float(trained.to_stars(np.zeros(1, np.float32) + np.float32(trained.offset))[0])
        weights = (1 + _LIKED_WEIGHT * (stars - usual) / unit).clip(*_WEIGHTS)
        x = self.design[rows].astype(np.float64)
        choice: Floats = np.linalg.solve((x.T * weights) @ x + self.held, x.T @ weights)
        return choice


_KNOWN: WeakKeyDictionary[TrainedModel, _Choice] = WeakKeyDictionary()


@dataclass(frozen=True, eq=False)
class Newcomer:
    """What a model makes of someone it was not trained on: factors (n_factors,), bias, and choice (n_factors + n_traits,) or None."""

    factors: FloatArray
    bias: float
    choice: FloatArray | None


def fold_in(trained: TrainedModel, stars: Mapping[object, float]) -> Newcomer:
    """Factors, bias and choice for a user the model was not trained on.

    Minimises the training loss of the ratings with the movies held fixed, by Gauss-Newton steps, each a ridge
    regression in closed form: with s the predicted stars, s' its slope and x = (q_m, 1),
    ``(sum s'^2 x x^T + penalty) step = sum s' (r - s) x - penalty ((p, b) - expected)``. What is expected follows from what the
    visitor chose to watch, where the model learned from that too.

    Parameters
    ----------
    stars : mapping movie_id -> stars

    Returns
    -------
    Newcomer

    Raises
    ------
    ConfigError
        No stars, or some outside the model's scale.
    NotFoundError
        No such movie.
    """
    low, high, _ = trained.scale
    if not stars:
        raise ConfigError("Give at least one movie a rating.")
    if bad := [value for value in stars.values() if not low <= value <= high]:
        raise ConfigError(f"Stars must lie between {low:g} and {high:g}, not be {bad[0]:g}.")
    rows = [trained.movie_row(movie_id) for movie_id in stars]
    wanted = np.array(list(stars.values()), np.float64)
    x = np.column_stack([trained.movie_factors[rows], np.ones(len(rows))]).astype(np.float64)
    fixed = trained.movie_bias[rows].astype(np.float64) + trained.offset
    known = _Choice.of(trained)
    choice = None if known is None else known.fold_in(trained, rows, wanted)
    expected, penalty = _prior(trained, len(rows), known, choice)
    bottom, top = trained.y_range
    weights = expected.copy()
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-(fixed + x @ weights)))
        slope = (top - bottom) * share * (1 - share)
        design = slope[:, None] * x
        miss = wanted - (bottom + (top - bottom) * share)
        weights += np.linalg.solve(design.T @ design + penalty, design.T @ miss - penalty @ (weights - expected))
    return Newcomer(weights[:-1].astype(np.float32), float(weights[-1]), None if choice is None else choice.astype(np.float32))


def _prior(trained: TrainedModel, n: int, known: _Choice | None = None, choice: Floats | None = None) -> tuple[Floats, Floats]:
    """What is expected of a user with n ratings (n_factors + 1,), and the penalty on what differs from it, a matrix.

    Where the model knows what people who choose alike like, both follow from its users. Else nothing is expected, factors are held as
    in training, and the bias as the users' own biases are spread: with the weak penalty of training, it alone would explain a few stars.
    """
    low, high = trained.y_range
    config, mse = trained.config, max(trained.metrics["mse"], _LEAST_ERROR * (high - low) ** 2)
    if known is not None and choice is not None:
        return np.append(1, choice) @ known.taste, mse * known.precision
    bias_penalty = mse / max(float(trained.user_bias.var()), _LEAST_VARIANCE)
    per_rating = max(config.user_l2, _LEAST_L2) * (trained.n_train / trained.n_users / n) ** config.l2_exponent
    penalties = np.append(np.full(trained.n_factors, n * per_rating), max(n * config.bias_l2, bias_penalty))
    return np.zeros(trained.n_factors + 1), np.diag(penalties)


@checked
def recommend(
    trained: TrainedModel, stars: Mapping[object, float], k: int = 10, *, min_ratings: int = 0, loved: float = _LOVED
) -> pd.DataFrame:
    """Movies a visitor would probably watch and like, from a few stars.

    Parameters
    ----------
    stars : mapping movie_id -> stars
        The visitor's own ratings; these movies are not recommended again.
    k : int
        How many.
    min_ratings : int
        Only movies with at least as many ratings.
    loved : float
        Weight of a predicted star beside the likelihood to be chosen: 0 suits the visitor's choices alone, 1 ranks by what is loved best.
        With few stars the weight is less, since they tell less of what somebody likes than of what somebody chooses.
        Models that learned from stars alone rank by predicted stars.

    Returns
    -------
    DataFrame
        Best first: movie_id, title, predicted (stars); the parts that add up to ``predicted`` exactly, in stars: average (what anybody
        gives anything), movie (how good it is in itself), visitor (how generous the visitor is), taste (how the two match); and those
        that add up to the ``score`` it is ranked by: chosen (how likely the visitor chooses it, about 0 to 1) and liked (the
        predicted stars on a scale 4 wide, times ``loved * n / (n + 10)`` with n stars given).

    Raises
    ------
    ConfigError, NotFoundError
        As ``fold_in``.
    """
    newcomer, known = fold_in(trained, stars), _Choice.of(trained)
    taste = trained.movie_factors @ newcomer.factors
    if known is not None and newcomer.choice is not None:
        low, high, _ = trained.scale
        weight = loved * len(stars) / (len(stars) + _FEW)
        summed: npt.NDArray[Any] = taste.astype(np.float64) + trained.movie_bias + (newcomer.bias + trained.offset)
        predicted = trained.to_stars(summed)
        chosen, liked = known.design @ newcomer.choice, weight * (predicted - low) / (max(high - low, 1e-9) / 4)
    else:
        chosen, liked = np.zeros(trained.n_movies), taste + trained.movie_bias.astype(np.float64)
    allowed = (trained.movies["n_ratings"].to_numpy() >= min_ratings) & ~trained.movies["movie_id"].isin(list(stars)).to_numpy()
    score = chosen + liked
    rows = _highest(score, np.flatnonzero(allowed), k)
    levels = star_levels(trained, newcomer.bias, taste[rows], trained.movie_bias[rows])  # (4, k): stars as each part joins
    parts = zip(("average", "movie", "visitor", "taste"), np.diff(levels, axis=0, prepend=0), strict=True)
    table = trained.movies.iloc[rows][["movie_id", "title"]].reset_index(drop=True)
    return table.assign(predicted=levels[-1], **dict(parts), chosen=chosen[rows], liked=liked[rows], score=score[rows])


def _highest(score: Floats, rows: npt.NDArray[np.intp], k: int) -> npt.NDArray[np.intp]:
    """The k rows of the highest scores, the highest first; of equal ones the first first."""
    if 0 < k < len(rows):
        least = np.partition(score[rows], len(rows) - k)[len(rows) - k]
        rows = rows[score[rows] >= least]
    return rows[np.argsort(-score[rows], kind="stable")[:k]]
