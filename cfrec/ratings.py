"""Ratings: who rated what how, in compact arrays, with the table of movies beside them."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from math import log2
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.errors import DataError
from cfrec.memory import check_fits
from cfrec.movies import FloatArray, Ids, IntArray, count_ratings, movies_table, name_movies, typed
from cfrec.pieces import for_each
from cfrec.report import ReadReport

__all__ = ["FloatArray", "Ids", "IntArray", "Ratings", "ReadReport", "Source", "build_ratings"]

First = TypeVar("First")
Second = TypeVar("Second")

_PIECE = 1 << 18  # rows
_EMPTY = "There is no rating in the data. It needs rows of user, movie and rating."
_MOVIE = 500  # bytes of memory that a movie takes beside its ratings: an upper estimate


@dataclass(frozen=True)
class Source:
    """Where ratings come from: what a model trained on them must say about its data."""

    name: str
    title: str
    licence: str = ""
    citation: str = ""


@dataclass(frozen=True, eq=False)
class Ratings:
    """Who rated what how. Immutable; parts of it share the tables.

    Attributes
    ----------
    user_idx, movie_idx : int32 array (n_ratings,)
        Rows of ``user_ids`` and of ``movies``.
    rating : float32 array (n_ratings,)
        In stars.
    user_ids : int64 or object array (n_users,)
        The data set's own ids.
    movies : DataFrame (n_movies rows, row = movie_idx)
        movie_id, title, raw_title, year, genres (joined by ``|``), n_ratings, mean_rating.
    timestamp : int64 array (n_ratings,) or None
        Seconds since 1970.
    scale : (lowest, highest, step)
        Found from the data, in stars.
    split_by : (valid_fraction, seed) or None
        How ``split`` made this part.
    """

    user_idx: IntArray
    movie_idx: IntArray
    rating: FloatArray
    user_ids: Ids
    movies: pd.DataFrame
    timestamp: npt.NDArray[np.int64] | None
    scale: tuple[float, float, float]
    source: Source
    report: ReadReport
    split_by: tuple[float, int] | None = None

    def __len__(self) -> int:
        return len(self.rating)

    @property
    def n_users(self) -> int:
        """Number of distinct users."""
        return len(self.user_ids)

    @property
    def n_movies(self) -> int:
        """Number of distinct movies."""
        return len(self.movies)

    @property
    def unit(self) -> float:
        """The power of two by which stars are divided where arithmetic expects a scale that is about 4 wide: 1 for MovieLens' scales."""
        lowest, highest, _ = self.scale
        return 2.0 ** round(log2((highest - lowest) / 4)) if highest > lowest else 1.0

    def most_rated(self, k: int = 20) -> pd.DataFrame:
        """The k movies with the most ratings, most first."""
        return self.movies.nlargest(k, "n_ratings", keep="first").reset_index(drop=True)

    def histogram(self) -> pd.DataFrame:
        """How often each number of stars is given: stars, n_ratings; lowest first."""
        stars, counts = np.unique(self.rating, return_counts=True)
        return pd.DataFrame({"stars": stars, "n_ratings": counts})

    def head(self, k: int = 5) -> pd.DataFrame:
        """The first k ratings: user_id, title, rating (stars)."""
        first = slice(0, k)
        titles = self.movies["title"].to_numpy()[self.movie_idx[first]]
        return pd.DataFrame({"user_id": self.user_ids[self.user_idx[first]], "title": titles, "rating": self.rating[first]})

    def common_raters(self, movie_row: int) -> npt.NDArray[np.intp]:
        """How many users rated both this movie and each movie: (n_movies,)."""
        raters = np.zeros(self.n_users, bool)
        raters[self.user_idx[self.movie_idx == movie_row]] = True
        return np.bincount(self.movie_idx[raters[self.user_idx]], minlength=self.n_movies)

    def split(self, valid_fraction: float = 0.2, seed: int = 42) -> tuple[Ratings, Ratings]:
        """Split at random into a training and a validation part.

        Equal to scikit-learn's ``train_test_split(rows, test_size=valid_fraction, random_state=seed)``
        over the rows in file order.

        Raises
        ------
        DataError
            A part would be empty.
        """
        if not 0 < valid_fraction < 1:
            raise DataError(f"The share of ratings held out must lie between 0 and 1, not be {valid_fraction}.")
        if not 0 <= seed < 2**32:
            raise DataError(f"The seed of the split must lie between 0 and {2**32 - 1}, not be {seed}.")
        n_valid = int(np.ceil(valid_fraction * len(self)))
        if not 0 < n_valid < len(self):
            raise DataError(f"{len(self)} ratings are too few to set {valid_fraction:.0%} of them aside; two are the least.")
        rows = np.random.RandomState(seed).permutation(len(self))
        train, valid = (replace(self.take(part), split_by=(float(valid_fraction), seed)) for part in (rows[n_valid:], rows[:n_valid]))
        return train, valid

    def folds(self, n_folds: int = 5, seed: int = 42) -> Iterator[tuple[Ratings, Ratings]]:
        """Yield ``n_folds`` pairs (train, valid); each rating is in exactly one validation part."""
        if not 2 <= n_folds <= len(self):
            raise DataError(f"The number of folds must lie between 2 and the {len(self)} ratings, not be {n_folds}.")
        parts = np.array_split(np.random.RandomState(seed).permutation(len(self)), n_folds)
        for k, part in enumerate(parts):
            yield self.take(np.concatenate(parts[:k] + parts[k + 1 :])), self.take(part)

    def fingerprint(self) -> int:
        """A checksum of the ratings in their order: tells whether two sets of ratings are the same."""
        value = 0
        for array in (self.user_idx, self.movie_idx, self.rating):
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
        return value

    def take(self, rows: npt.NDArray[np.intp]) -> Ratings:
        """The ratings in these rows, over the same users and movies."""
        return replace(
            self,
            user_idx=self.user_idx[rows],
            movie_idx=self.movie_idx[rows],
            rating=self.rating[rows],
            timestamp=None if self.timestamp is None else self.timestamp[rows],
            split_by=None,
        )


def build_ratings(
    user_id: Ids,
    movie_id: Ids,
    rating: npt.NDArray[np.floating],
    *,
    timestamp: npt.NDArray[np.int64] | None = None,
    movies: Mapping[str, tuple[str, str]] | None = None,
    source: Source | None = None,
) -> Ratings:
    """Index ratings given by ids, in their order.

    Parameters
    ----------
    user_id, movie_id : integer or object array (n_rows,)
    rating : float array (n_rows,)
        In stars; finite.
    timestamp : int64 array (n_rows,), optional
    movies : mapping movie_id as text -> (raw title, genres joined by ``|``), optional
        Movies without an entry are named after their id.

    Raises
    ------
    DataError
        There are no ratings, the columns differ in length, or there is no memory for as many movies.
    """
    if not len(rating) == len(user_id) == len(movie_id):
        raise DataError("The columns user, movie and rating differ in length.")
    if not len(rating):
        raise DataError(_EMPTY)
    (user_ids, user_idx), (movie_ids, movie_idx) = for_each(_index, (user_id, movie_id))
    return index_ratings(user_ids, movie_ids, user_idx, movie_idx, rating, timestamp=timestamp, movies=movies, source=source)


def index_ratings(
    user_ids: Ids,
    movie_ids: Ids,
    user_idx: IntArray,
    movie_idx: IntArray,
    rating: npt.NDArray[np.floating],
    *,
    timestamp: npt.NDArray[np.int64] | None = None,
    movies: Mapping[str, tuple[str, str]] | None = None,
    source: Source | None = None,
    reasons: Mapping[str, int] | None = None,
) -> Ratings:
    """Ratings over tables of distinct ids in ascending order; of a user's several ratings of a movie the latest is kept.

    Parameters
    ----------
    user_ids, movie_ids : int64 or object array (n_users,), (n_movies,)
        Those that nobody rates by, or nobody rated, are left out.
    user_idx, movie_idx : int32 array (n_rows,)
        Places in them.
    rating : float array (n_rows,)
        In stars; finite.
    timestamp : int64 array (n_rows,), optional
    movies : mapping movie_id as text -> (raw title, genres joined by ``|``), optional
        Movies without an entry are named after their id.
    reasons : mapping rule -> rows that were left out for it, optional

    Raises
    ------
    DataError
        There are no ratings, or there is no memory for as many movies.
    """
    n_rows, n_dropped = len(rating), sum((reasons or {}).values())
    if n_rows == 0:
        why = f" All {n_dropped:,} rows are bad; most often: {max(reasons, key=reasons.__getitem__)}." if reasons else ""
        raise DataError(f"{_EMPTY}{why}")
    check_fits(_MOVIE * len(movie_ids), f"A table of {len(movie_ids):,} movies")
    (user_ids, user_idx), (movie_ids, movie_idx) = for_each(lambda side: _used(*side), ((user_ids, user_idx), (movie_ids, movie_idx)))
    kept, names = _at_once(partial(_latest, user_idx, movie_idx, len(movie_ids), timestamp), partial(name_movies, movie_ids, movies or {}))
    user_idx, movie_idx, stars = user_idx[kept], movie_idx[kept], rating[kept].astype(np.float32, copy=False)
    (n_ratings, mean_rating), scale = _at_once(partial(count_ratings, movie_idx, stars, len(movie_ids)), partial(_scale, stars))
    return Ratings(
        user_idx=user_idx,
        movie_idx=movie_idx,
        rating=stars,
        user_ids=user_ids,
        movies=movies_table(movie_ids, **names, n_ratings=n_ratings, mean_rating=mean_rating),
        timestamp=None if timestamp is None else timestamp[kept],
        scale=scale,
        source=source or Source("ratings", "Ratings"),
        report=ReadReport(n_rows + n_dropped, len(stars), n_dropped, n_rows - len(stars), reasons or {}),
    )


def _at_once(first: Callable[[], First], second: Callable[[], Second]) -> tuple[First, Second]:
    """The results of two calls that run side by side."""
    with ThreadPoolExecutor(1) as thread:
        other = thread.submit(second)
        return first(), other.result()


def _index(ids: Ids) -> tuple[Ids, IntArray]:
    """Distinct ids in ascending order, as int64 or text, and the row of each rating's id among them."""
    codes, found = pd.factorize(ids)  # by hashing: sorting all the ids, rather than the distinct ones, takes thirty times as long
    distinct: Ids = np.asarray(found) if ids.dtype == object else np.asarray(found, np.int64)
    order = np.argsort(distinct, kind="stable")
    rank = np.empty(len(order), np.int32)
    rank[order] = np.arange(len(order), dtype=np.int32)
    return distinct[order], rank[codes]


def _used(ids: Ids, idx: IntArray) -> tuple[Ids, IntArray]:
    """The ids that are used, and the places among them."""
    used = np.bincount(idx, minlength=len(ids)) > 0
    if used.all():
        return ids, idx
    idx, ids = (np.cumsum(used, dtype=np.int32) - 1)[idx], ids[used]
    if ids.dtype == object and (again := typed(ids.tolist())).dtype != object:  # what was no integer is among those left out
        rank = {str(key): k for k, key in enumerate(again.tolist())}
        return again, np.array([rank[text] for text in ids.tolist()], np.int32)[idx]
    return ids, idx


def _latest(
    user_idx: IntArray, movie_idx: IntArray, n_movies: int, timestamp: npt.NDArray[np.int64] | None
) -> slice | npt.NDArray[np.intp]:
    """Rows to keep, in file order: of a user's several ratings of a movie the latest, by time, then by row."""
    pair = user_idx.astype(np.int64)
    pair *= n_movies
    pair += movie_idx
    rows, pairs = _twins(pair)
    if not len(rows):
        return slice(None)
    times = np.zeros(len(rows), np.int64) if timestamp is None else timestamp[rows]
    order = np.lexsort((rows, times, pairs))
    keep = np.ones(len(user_idx), bool)
    keep[rows[order[:-1][np.diff(pairs[order]) == 0]]] = False
    return np.flatnonzero(keep)


def _twins(pairs: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """The rows whose number comes twice or more, and that number; ``pairs`` is overwritten.

    Number and row are sorted as one number: NumPy sorts numbers several times as fast as it finds their order.
    """
    n = len(pairs)
    if int(pairs.max()) >= 2**63 // n - 1:
        rows = np.flatnonzero(pd.Series(pairs).duplicated(keep=False).to_numpy())
        return rows, pairs[rows]
    keys = pairs
    keys *= n
    keys += np.arange(n)
    for_each(np.ndarray.sort, (keys[: n // 2], keys[n // 2 :]))
    keys.sort(kind="stable")  # which merges the halves
    numbers = keys // n
    same = numbers[1:] == numbers[:-1]
    found = np.append(same, False) | np.append(False, same)
    return keys[found] % n, numbers[found]


def _scale(rating: FloatArray) -> tuple[float, float, float]:
    """Lowest, highest and step of the scale; a continuous scale counts as ten steps, a single value as steps of one."""
    values = np.sort(pd.unique(rating))
    low, high = float(values[0]), float(values[-1])
    if low == high:
        return low, high, 1.0
    return low, high, max(float(np.diff(values).min()), (high - low) / 10)
