"""What a trained model has learned: biases, a map by PCA, similar movies, predictions. NumPy in, DataFrames out; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.arguments import checked
from cfrec.errors import ConfigError
from cfrec.ratings import FloatArray
from cfrec.trained import TrainedModel

Mask = npt.NDArray[np.bool_]


@checked
def movie_biases(
    trained: TrainedModel, *, min_ratings: int = 0, genre: str | None = None, years: tuple[int, int] | None = None
) -> pd.DataFrame:
    """Movies by learned bias, best first: how good each is in itself, no matter who rates it.

    Parameters
    ----------
    min_ratings, genre, years
        Only movies with at least as many ratings, of that genre, from the first to the last of two years inclusive.

    Returns
    -------
    DataFrame
        movie_id, title, bias (in units of the score before the sigmoid), mean_rating (stars), n_ratings, genres,
        stars (the bias in stars: what a user of average generosity and no particular taste is predicted to give), year.
    """
    table = trained.movies[["movie_id", "title"]].assign(bias=trained.movie_bias, **trained.movies[["mean_rating", "n_ratings", "genres"]])
    anybody = np.float32(trained.offset) + trained.user_bias.mean()
    table = table.assign(stars=trained.to_stars(anybody + trained.movie_bias), year=trained.movies["year"])
    table = table[_filter(trained.movies, min_ratings, genre, years)]
    return table.sort_values("bias", ascending=False, kind="stable").reset_index(drop=True)


@checked
def mean_rating_histogram(trained: TrainedModel, step: float = 0.5) -> pd.DataFrame:
    """How many movies have which mean rating: stars (``1.0–1.5``), films; lowest first."""
    low, high, _ = trained.scale
    n_groups = max(round((high - low) / step), 1)
    counts, edges = np.histogram(trained.movies["mean_rating"], n_groups, (low, max(high, low + step)))
    return pd.DataFrame({"stars": [f"{a:.1f}–{b:.1f}" for a, b in pairwise(edges)], "films": counts})


@checked
def project_factors(trained: TrainedModel, n_components: int = 3, *, min_ratings: int = 0) -> pd.DataFrame:
    """Movie factors on their principal components: a map of movies.

    Parameters
    ----------
    n_components : int
        At most the number of factors, and of movies.
    min_ratings : int
        Fit and show only movies with at least as many ratings.

    Returns
    -------
    DataFrame
        movie_id, title, n_ratings, then x, y, z, pc4, … in the order of the variation they explain; ``.attrs["explained_variance_ratio"]``
        is the list of their shares. In each component the factor with the largest weight counts positive, so that
        the same model always gives the same map.

    Raises
    ------
    ConfigError
        More components than factors or movies.
    """
    from sklearn.decomposition import PCA

    shown = (trained.movies["n_ratings"] >= min_ratings).to_numpy()
    factors = trained.movie_factors[shown].astype(np.float64)
    if not 1 <= n_components <= min(factors.shape):
        raise ConfigError(f"{n_components} components cannot be computed from {factors.shape[0]} movies with {factors.shape[1]} factors.")
    if np.ptp(factors, axis=0).any():
        pca = PCA(n_components, svd_solver="full")
        places = pca.fit_transform(factors)
        largest = np.abs(pca.components_).argmax(axis=1)
        places = places * np.sign(pca.components_[np.arange(n_components), largest])
        shares = pca.explained_variance_ratio_.tolist()
    else:  # all movies alike: nothing to explain
        places, shares = np.zeros((len(factors), n_components)), [0.0] * n_components
    names = ["x", "y", "z", *(f"pc{k}" for k in range(4, n_components + 1))][:n_components]
    table = trained.movies.loc[shown, ["movie_id", "title", "n_ratings"]].reset_index(drop=True)
    table[names] = places
    table.attrs["explained_variance_ratio"] = shares
    return table


@checked
def similar_movies(
    trained: TrainedModel,
    movie_id: object,
    k: int = 5,
    min_ratings: int = 0,
    *,
    genre: str | None = None,
    years: tuple[int, int] | None = None,
) -> pd.DataFrame:
    """The movies whose factors point most nearly the same way.

    ``similarity = q_a . q_b / (|q_a| |q_b|)``

    Parameters
    ----------
    movie_id
        The data set's own id.
    k : int
        How many, at most.
    min_ratings, genre, years
        Only movies with at least as many ratings, of that genre, from the first to the last of two years inclusive.

    Returns
    -------
    DataFrame
        movie_id, title, similarity (cosine, -1 to 1), n_ratings; most similar first, without the movie itself.
        Empty if nothing was learned of the movie (no training ratings: its factors are zero).

    Raises
    ------
    NotFoundError
        No such movie.
    """
    row = trained.movie_row(movie_id)
    similarity, known = _cosine(trained.movie_factors, row)
    allowed = known & _filter(trained.movies, min_ratings, genre, years)
    allowed[row] = False
    rows = np.flatnonzero(allowed)
    rows = rows[np.argsort(-similarity[rows], kind="stable")[:k]]
    table = trained.movies.loc[rows, ["movie_id", "title", "n_ratings"]].reset_index(drop=True)
    table.insert(2, "similarity", similarity[rows])
    return table


def movie_map(trained: TrainedModel, n_components: int = 5, *, min_ratings: int = 0, n_genres: int = 6) -> pd.DataFrame:
    """``project_factors`` with what a map shows beside: year, genres, genre, stars (see ``movie_biases``); most rated first.

    Parameters
    ----------
    n_components : int
        At most; fewer where there are fewer movies or factors.
    min_ratings : int
        Leave out movies with fewer, unless too few movies would be left to span the components.
    n_genres : int
        ``genre`` is the rarest of a movie's genres among the most frequent ones, which ``.attrs["genres"]`` lists, else "other".
    """
    enough = int((trained.movies["n_ratings"] >= min_ratings).sum())
    least = min_ratings if enough > n_components else 0
    n_components = min(n_components, trained.n_factors, trained.n_movies)
    places = project_factors(trained, n_components, min_ratings=least)
    about = movie_biases(trained)[["movie_id", "year", "genres", "stars"]]
    table = places.merge(about, on="movie_id", how="left").sort_values("n_ratings", ascending=False, kind="stable").reset_index(drop=True)
    counts = trained.movies["genres"].str.split("|").explode().value_counts().drop("", errors="ignore").head(n_genres)
    rarest_first = list(counts.index[::-1])
    table["genre"] = [next((g for g in rarest_first if g in genres.split("|")), "other") for genres in table["genres"]]
    table.attrs = places.attrs | {"genres": list(counts.index)}
    return table


def axis_ends(places: pd.DataFrame, axis: str, k: int = 5, *, most_rated: int = 300) -> tuple[list[str], list[str]]:
    """Titles of the k movies at the low and at the high end of an axis, the outermost first; of the most rated movies only."""
    ordered = places.nlargest(most_rated, "n_ratings").sort_values(axis, kind="stable")["title"]
    return ordered.head(k).tolist(), ordered.tail(k)[::-1].tolist()


def kept_on_map(places: pd.DataFrame, axes: Sequence[str], movie_id: object, neighbours: Sequence[object], near: int) -> int:
    """How many of a movie's true neighbours are among its ``near`` nearest on a map: how far to trust the picture there.

    Parameters
    ----------
    places : DataFrame
        Movies on a map, as ``project_factors`` gives; ``axes`` names the columns that are drawn.
    movie_id, neighbours
        A movie of the map, and the ids of those most similar to it in all factors; those not on the map count as far.
    """
    points = places[list(axes)].to_numpy()
    ids = places["movie_id"].to_numpy()
    here = int(np.flatnonzero(ids == movie_id)[0])
    distance = np.linalg.norm(points - points[here], axis=1)
    distance[here] = np.inf
    nearest = set(ids[np.argsort(distance, kind="stable")[:near]].tolist())
    return sum(neighbour in nearest for neighbour in neighbours)


def _cosine(factors: FloatArray, row: int) -> tuple[FloatArray, Mask]:
    """Cosine of each row with one of them, and where both are not zero."""
    lengths = np.linalg.norm(factors, axis=1)
    known = (lengths > 0) & (lengths[row] > 0)
    similarity = factors @ factors[row] / np.where(known, lengths * lengths[row], 1)
    return similarity.clip(-1, 1), known


def _filter(movies: pd.DataFrame, min_ratings: int, genre: str | None, years: tuple[int, int] | None) -> Mask:
    allowed = (movies["n_ratings"] >= min_ratings).to_numpy(copy=True)
    if genre:
        wanted = genre.casefold()
        allowed &= np.array([wanted in genres.casefold().split("|") for genres in movies["genres"]], bool)
    if years:
        allowed &= movies["year"].between(*years).fillna(False).to_numpy(bool)
    return allowed


@checked
def predict_ratings(trained: TrainedModel, user_ids: Sequence[object], movie_ids: Sequence[object]) -> FloatArray:
    """Predicted stars for pairs of ids.

    Parameters
    ----------
    user_ids, movie_ids : sequences of one length (n,)
        The data set's own ids.

    Returns
    -------
    float32 array (n,)
        On the ratings' scale.

    Raises
    ------
    ConfigError
        The sequences differ in length.
    NotFoundError
        No such user or movie.
    """
    if len(user_ids) != len(movie_ids):
        raise ConfigError(f"{len(user_ids)} users and {len(movie_ids)} movies do not make pairs.")
    users = np.array([trained.user_row(u) for u in user_ids], np.int32)
    movies = np.array([trained.movie_row(m) for m in movie_ids], np.int32)
    return trained.predict_rows(users, movies)
