"""Which movies are alike: a second block of movie factors, learned from who rated what and how.

What people give stars to says more about which movies are alike than the stars they give. So likeness has factors of its own, beside
those that predict; similar movies and the map are read from them. No genre, title or year is looked at.

1. Of each rating r, z = r - mean - b_u - b_m is what its user and its movie, taken alone, don't explain. The rating weighs
   w = (1 + 0.17 (r - mean) + 0.57 z) / n_u^0.21: having rated a movie counts, having liked it counts more, and less with the busiest.
   Ratings count in the unit in which their scale is about 4 wide.
2. Each movie's weights are divided by (the sum of their squares + that of 7 ordinary ratings)^0.515: a cosine, held back by few ratings.
3. The singular value decomposition U S V' of that sparse matrix gives the movies' rows V S^0.97, cut to unit length.
4. Each row moves towards the mean of the 11 well-supported rows that are most like it: few ratings are noisy company.

Source of 1 to 3: the spectral methods for implicit feedback, after Cremonesi, Koren & Turrin (2010), "Performance of recommender
algorithms on top-n recommendation tasks" (PureSVD). The rows are learned from the ratings alone, but the constants above were chosen by the
very figures of tests/benchmarks/similar_quality.py on MovieLens 100K, its latest 20 % and its genres included: they flatter it somewhat.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from cfrec.footprint import COMPARED_AT_ONCE, EXACT, EXTRA_VALUES, LEAST_RATINGS, MOST_COMPANY
from cfrec.pieces import for_each, slices
from cfrec.ratings import FloatArray, Ratings

if TYPE_CHECKING:
    from scipy.sparse import csr_array

_OF_RATING, _OF_REST, _OF_BUSY = 0.17, 0.57, 0.21
_SUPPORT, _COSINE, _SPECTRUM = 7.0, 0.515, 0.97
_DAMPING = 3.0  # ratings at the mean, added to each user and movie when biases are found
_NEAREST, _HALF_TRUST = 11, 35.0  # a row with so many ratings is trusted by half
_CLOSENESS, _PULL = 6, 0.95  # nearer rows count by this power of their likeness; how far a row moves
_ITERATIONS, _PARTS = 8, 8  # of the random decomposition; parts of a sparse matrix


def learn_likeness(ratings: Ratings, n_likeness: int, *, seed: int = 42) -> FloatArray:
    """Likeness factors of movies.

    Parameters
    ----------
    ratings : Ratings
        Those that are trained on.
    n_likeness : int
        Columns; where there are fewer users or movies than that, the rest are zero.
    seed : int
        Of the random start on large data; small data need none.

    Returns
    -------
    float32 array (n_movies, n_likeness)
        Rows of length 1; zero for movies without a rating.
    """
    counts = np.bincount(ratings.movie_idx, minlength=ratings.n_movies)
    values, directions = _decompose(_weigh(ratings), n_likeness + EXTRA_VALUES, np.random.default_rng(seed))
    rows = (directions * values**_SPECTRUM).astype(np.float32)
    rows[counts == 0] = 0
    smooth = _move_to_company(_unit(rows), _unit(rows[:, :n_likeness]), counts)
    padded = np.zeros((ratings.n_movies, n_likeness), np.float32)
    padded[:, : smooth.shape[1]] = smooth
    return padded


def _weigh(ratings: Ratings) -> csr_array:
    """The sparse matrix of users and movies that is decomposed."""
    from scipy.sparse import csr_array

    u, m, stars = ratings.user_idx, ratings.movie_idx, ratings.rating.astype(np.float64) / ratings.unit
    centred = stars - stars.mean()
    n_u, n_m = np.bincount(u, minlength=ratings.n_users), np.bincount(m, minlength=ratings.n_movies)
    user_bias, movie_bias = np.zeros(ratings.n_users), np.zeros(ratings.n_movies)
    for _ in range(10):
        movie_bias = np.bincount(m, centred - user_bias[u], ratings.n_movies) / (n_m + _DAMPING)
        user_bias = np.bincount(u, centred - movie_bias[m], ratings.n_users) / (n_u + _DAMPING)
    weights = (1 + _OF_RATING * centred + _OF_REST * (centred - user_bias[u] - movie_bias[m])) / n_u[u] ** _OF_BUSY
    squares = np.bincount(m, weights**2, ratings.n_movies)
    ordinary = np.median(squares[n_m > 0] / n_m[n_m > 0])
    weights /= (squares[m] + _SUPPORT * ordinary) ** _COSINE
    return csr_array((weights.astype(np.float32), (u, m)), (ratings.n_users, ratings.n_movies))


def _decompose(matrix: csr_array, rank: int, random: np.random.Generator) -> tuple[FloatArray, FloatArray]:
    """The largest singular values (rank,) and the right singular vectors (n_movies, rank), or as many as there are."""
    smaller = min(matrix.shape)
    if smaller <= EXACT:
        by_user = matrix.shape[0] == smaller
        gram = (matrix @ matrix.T if by_user else matrix.T @ matrix).toarray()
        squares, vectors = (a[..., ::-1][..., :rank] for a in np.linalg.eigh(gram))
        values = np.sqrt(squares.clip(1e-12))
        return values, matrix.T @ vectors / values if by_user else vectors
    by_user, by_movie = _product(matrix), _product(matrix.T.tocsr())
    basis = random.standard_normal((matrix.shape[1], min(rank, smaller)), np.float32)
    for _ in range(_ITERATIONS):
        basis = np.linalg.qr(by_movie(by_user(basis)))[0]
    image = by_user(basis)
    squares, turn = (a[..., ::-1] for a in np.linalg.eigh(image.T @ image))  # Rayleigh and Ritz
    return np.sqrt(squares.clip(1e-12)), basis @ turn


def _product(matrix: csr_array) -> Callable[[FloatArray], FloatArray]:
    """Products of a sparse matrix with dense ones, in threads."""
    parts = [matrix[rows] for rows in slices(matrix.shape[0], -(-matrix.shape[0] // _PARTS))]
    return lambda right: np.concatenate(for_each(lambda part: part @ right, parts))


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-12)
    return unit


def _move_to_company(rows: FloatArray, kept: FloatArray, counts: npt.NDArray[np.intp]) -> FloatArray:
    """Move each of the kept rows towards those whose whole rows are most like its own."""
    from scipy.sparse import csr_array

    known = np.argsort(-counts, kind="stable")[:MOST_COMPANY]
    known = known[counts[known] >= LEAST_RATINGS]
    k = min(_NEAREST, len(known) - 1)
    if k < 1:
        return kept
    trust = (counts / (counts + _HALF_TRUST)).astype(np.float32)
    trusted, company = rows[known] * trust[known, None], kept[known]
    moved, place = kept.copy(), np.full(len(rows), -1)
    place[known] = np.arange(len(known))

    def move(block: slice) -> None:
        alike = rows[block] @ trusted.T
        own = np.flatnonzero(place[block] >= 0)
        alike[own, place[block][own]] = 0
        least = np.partition(alike, -k, axis=1)[:, -k].clip(1e-6)
        alike[alike < least[:, None]] = 0
        shares = csr_array(alike).power(_CLOSENESS)
        weights = _PULL * trust[block] / (shares.sum(axis=1) + 1e-12)
        moved[block] += weights[:, None] * (shares @ company)

    for_each(move, slices(len(rows), COMPARED_AT_ONCE))
    return _unit(moved)
