"""A prediction, and the parts that it adds up from, in stars."""

from __future__ import annotations

import numpy as np
import pandas as pd

from cfrec.arguments import checked
from cfrec.ratings import FloatArray
from cfrec.trained import TrainedModel


def star_levels(trained: TrainedModel, user_bias: float, taste: FloatArray, movie_bias: FloatArray) -> FloatArray:
    """The stars reached as each part of a guess joins those before it.

    The parts are what anybody gives anything (the offset with the mean biases: a movie's counts as often as it is rated),
    the movie's bias beside that mean, the user's beside theirs, and the match of their tastes (the dot product of the factors).
    After the second, the stars are the movie's popularity score, as in ``movie_biases``.

    Parameters
    ----------
    user_bias : float
    taste, movie_bias : float array (n,)
        Of one user's n movies.

    Returns
    -------
    float64 array (4, n)
        Stars; the last row is the guess.
    """
    usual_user = float(trained.user_bias.mean(dtype=np.float64))
    usual_movie = float(np.average(trained.movie_bias, weights=trained.movies["n_ratings"].clip(lower=1)))
    average = np.full(len(taste), trained.offset + usual_user + usual_movie)
    user = np.full(len(taste), user_bias - usual_user)
    return trained.to_stars(np.cumsum([average, movie_bias - usual_movie, user, taste], axis=0))


@checked
def explain_prediction(trained: TrainedModel, user_id: object, movie_id: object, *, decimals: int | None = None) -> pd.DataFrame:
    """The parts that a prediction adds up from, in stars.

    Parameters
    ----------
    user_id, movie_id
        The data set's own ids.
    decimals : int, optional
        Round the stars after each part to this many decimals, so that what is read adds up as well.

    Returns
    -------
    DataFrame
        part (``average``: what anybody gives anything, ``movie``: how good it is in itself, ``user``: how generous the user is,
        ``taste``: how the two match, and ``prediction``: their sum, as in ``predict_ratings``), stars, start and end (the stars
        before and after it).

    Raises
    ------
    NotFoundError
        No such user or movie.
    """
    u, m = trained.user_row(user_id), trained.movie_row(movie_id)
    prediction = trained.predict_rows(np.array([u], np.int32), np.array([m], np.int32))[0]
    taste = trained.movie_factors[m : m + 1] @ trained.user_factors[u]
    levels = star_levels(trained, float(trained.user_bias[u]), taste, trained.movie_bias[m : m + 1])[:, 0]
    levels[-1] = prediction  # the same but for the last bits: single precision
    end = levels if decimals is None else levels.round(decimals)
    start = np.append(0.0, end[:-1])
    table = pd.DataFrame({"part": ["average", "movie", "user", "taste"], "stars": end - start, "start": start, "end": end})
    table.loc[len(table)] = ["prediction", end[-1], 0.0, end[-1]]
    return table
