"""A new visitor's stars -> user vector -> ranked movies, each with the parts its prediction adds up from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.errors import ConfigError
from cfrec.parts import star_levels
from cfrec.ratings import FloatArray
from cfrec.trained import TrainedModel

_STEPS = 8  # Gauss-Newton converges in three or four
_LEAST_L2 = 0.05  # for models trained without a penalty per rating: a few stars must not fix fifty numbers
_LEAST_ERROR = 1e-8  # mean squared, of predictions between 0 and 1: ratings that are all the same leave none, and then nothing is a penalty
_LEAST_VARIANCE = 1e-6  # of the users' biases


def fold_in(trained: TrainedModel, stars: Mapping[object, float]) -> tuple[FloatArray, float]:
    """Factors and bias for a user the model was not trained on.

    Minimises the training loss of the ratings with the movies held fixed, by Gauss-Newton steps, each a ridge
    regression in closed form: with s the predicted stars, s' its slope and x = (q_m, 1),
    ``(sum s'^2 x x^T + penalty) step = sum s' (r - s) x - penalty * ((p, b) - expected)``.

    Parameters
    ----------
    stars : mapping movie_id -> stars

    Returns
    -------
    (factors, bias) : float32 array (n_factors,), float

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
    expected, penalty = _prior(trained, len(rows))
    bottom, top = trained.y_range
    weights = expected.copy()
    for _ in range(_STEPS):
        share = 1 / (1 + np.exp(-(fixed + x @ weights)))
        slope = (top - bottom) * share * (1 - share)
        design = slope[:, None] * x
        miss = wanted - (bottom + (top - bottom) * share)
        weights += np.linalg.solve(design.T @ design + np.diag(penalty), design.T @ miss - penalty * (weights - expected))
    return weights[:-1].astype(np.float32), float(weights[-1])


def _prior(trained: TrainedModel, n: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """What is expected of a user with n ratings, and the penalty on what differs from it: one number a factor, and one for the bias.

    The bias is held as the users' own biases are spread: with the weak penalty of training, it alone would explain a few stars.
    So are the factors, where the model is a mean of many networks, which training does not penalise.
    """
    low, high = trained.y_range
    config, mse = trained.config, max(trained.metrics["mse"], _LEAST_ERROR * (high - low) ** 2)
    bias_penalty = mse / max(float(trained.user_bias.var()), _LEAST_VARIANCE)
    expected = np.zeros(trained.n_factors + 1)
    if config.method == "gibbs":
        expected[:-1], expected[-1] = trained.user_factors.mean(0), trained.user_bias.mean()
        spread = trained.user_factors.var(0, dtype=np.float64).clip(_LEAST_VARIANCE)
        return expected, np.append(mse / spread, bias_penalty)
    per_rating = max(config.user_l2, _LEAST_L2) * (trained.n_train / trained.n_users / n) ** config.l2_exponent
    return expected, np.append(np.full(trained.n_factors, n * per_rating), max(n * config.bias_l2, bias_penalty))


def recommend(trained: TrainedModel, stars: Mapping[object, float], k: int = 10, *, min_ratings: int = 0) -> pd.DataFrame:
    """Movies a visitor would probably like, from a few stars.

    Parameters
    ----------
    stars : mapping movie_id -> stars
        The visitor's own ratings; these movies are not recommended again.
    k : int
        How many.
    min_ratings : int
        Only movies with at least as many ratings.

    Returns
    -------
    DataFrame
        movie_id, title, predicted (stars), and the parts that add up to it exactly, in stars: average (what anybody gives
        anything), movie (how good it is in itself), visitor (how generous the visitor is), taste (how the two match).

    Raises
    ------
    ConfigError, NotFoundError
        As ``fold_in``.
    """
    factors, bias = fold_in(trained, stars)
    taste = trained.movie_factors @ factors
    levels = star_levels(trained, bias, taste, trained.movie_bias)  # (4, n_movies): stars as each part joins
    parts = np.diff(levels, axis=0, prepend=0)
    table = trained.movies[["movie_id", "title", "n_ratings"]].assign(
        predicted=levels[-1],
        average=parts[0],
        movie=parts[1],
        visitor=parts[2],
        taste=parts[3],
        score=taste + trained.movie_bias.astype(np.float64),
    )
    table = table[(table["n_ratings"] >= min_ratings) & ~table["movie_id"].isin(list(stars))]
    return table.sort_values("score", ascending=False, kind="stable").head(k).drop(columns=["score", "n_ratings"]).reset_index(drop=True)
