"""How good a model or a recipe is, on ratings it was not trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from cfrec.arguments import checked
from cfrec.config import TrainConfig
from cfrec.errors import ConfigError, DataError
from cfrec.metrics import prediction_errors, shares_within
from cfrec.ratings import Ratings
from cfrec.trained import TrainedModel
from cfrec.training import train


@checked
def evaluate(trained: TrainedModel, ratings: Ratings) -> dict[str, float]:
    """Errors on the part of ``ratings`` that was held out when the model was trained: mse, rmse, mae, within_half, within_one.

    Raises
    ------
    DataError
        The model does not say what was held out, or these are not the ratings it was trained on.
    """
    if trained.split is None:
        raise DataError("This model does not say which ratings were held out. Use --folds to train its recipe afresh on folds.")
    if list(ratings.user_ids) != list(trained.user_ids) or list(ratings.movies["movie_id"]) != list(trained.movies["movie_id"]):
        raise DataError("These ratings have other users or movies than the model's. Use --folds to train its recipe on them.")
    part, valid = ratings.split(*trained.split)
    if part.fingerprint() != trained.fingerprint:
        raise DataError(
            "These are not the ratings, in the order, that the model was trained on: some that it learned from would be held out."
        )
    predicted = trained.predict_rows(valid.user_idx, valid.movie_idx)
    return prediction_errors(predicted, valid.rating) | shares_within(predicted, valid.rating)


def baseline_losses(train: Ratings, valid: Ratings) -> dict[str, float]:
    """Mean squared errors, in stars squared, of two ways to guess without learning: what a model must beat.

    Returns
    -------
    dict
        ``mean``: always the mean of the training ratings; ``movie_mean``: each movie's mean there, or that mean for movies without one.
    """
    mean = float(train.rating.mean(dtype=np.float64))
    counts = np.bincount(train.movie_idx, minlength=train.n_movies)
    sums = np.bincount(train.movie_idx, train.rating, train.n_movies)
    movie_means = np.where(counts > 0, sums / np.maximum(counts, 1), mean)
    guesses = {"mean": np.full(len(valid), mean), "movie_mean": movie_means[valid.movie_idx]}
    return {name: prediction_errors(guess, valid.rating)["mse"] for name, guess in guesses.items()}


def guesses(trained: TrainedModel, valid: Ratings) -> pd.DataFrame:
    """Each held-out rating beside the model's guess: user_id, movie_id, title, actual, predicted (stars), miss; in file order."""
    predicted = trained.predict_rows(valid.user_idx, valid.movie_idx)
    return pd.DataFrame(
        {
            "user_id": valid.user_ids[valid.user_idx],
            "movie_id": valid.movies["movie_id"].to_numpy()[valid.movie_idx],
            "title": valid.movies["title"].to_numpy()[valid.movie_idx],
            "actual": valid.rating,
            "predicted": predicted,
            "miss": predicted - valid.rating,
        }
    )


@checked
def cross_validate(
    ratings: Ratings,
    config: TrainConfig,
    n_folds: int = 5,
    *,
    on_fold: Callable[[int, Mapping[str, float]], object] | None = None,
) -> list[Mapping[str, float]]:
    """Train a recipe once per fold, each time without the fold it is tested on.

    The last epoch is tested, not the best one: a fold must not choose its own model.

    Returns
    -------
    list of dict
        mse (stars squared) and rmse (stars) of each fold.
    """
    folds: list[Mapping[str, float]] = []
    for number, (part, held_out) in enumerate(ratings.folds(n_folds), 1):
        trained = train(part, held_out, config)
        if trained.outcome == "diverged":
            raise ConfigError(f"Fold {number}: {trained.advice}")
        mse = trained.history[-1].valid_loss
        errors = {"mse": mse, "rmse": math.sqrt(mse)}
        folds.append(errors)
        if on_fold:
            on_fold(number, errors)
    return folds
