"""The table of movies beside the ratings: what each is called, and how it was rated."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.pieces import slices
from cfrec.titles import parse_title

IntArray = npt.NDArray[np.int32]
FloatArray = npt.NDArray[np.float32]
Ids = npt.NDArray[np.signedinteger] | npt.NDArray[np.object_]

_PIECE = 1 << 18  # rows
_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")
_INT64 = range(-(2**63), 2**63)


def typed(texts: Sequence[str]) -> Ids:
    """Distinct ids in ascending order: int64 if all of them are integers written plainly, text otherwise."""
    if all(_INTEGER.fullmatch(text) and int(text) in _INT64 for text in texts):
        return np.array(sorted(map(int, texts)), np.int64)
    return np.array(sorted(texts), object)


def name_movies(movie_ids: Ids, catalogue: Mapping[str, tuple[str, str]]) -> dict[str, list[Any]]:
    """What the catalogue says of these movies: title, raw_title, year, genres; those it does not know are named after their id."""
    found = [catalogue.get(i, (i, "")) for i in map(str, movie_ids.tolist())]
    titles = [parse_title(raw) for raw, _ in found]
    return {
        "title": [title for title, _ in titles],
        "raw_title": [raw for raw, _ in found],
        "year": [year for _, year in titles],
        "genres": [genres for _, genres in found],
    }


def count_ratings(movie_idx: IntArray, rating: FloatArray, n_movies: int) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """How many ratings each movie has, and their mean; by pieces, since NumPy makes wider copies of what it counts."""
    parts = slices(len(rating), _PIECE)
    counts = np.sum([np.bincount(movie_idx[part], minlength=n_movies) for part in parts], axis=0)
    sums = np.sum([np.bincount(movie_idx[part], rating[part], n_movies) for part in parts], axis=0)
    return counts, (sums / counts).astype(np.float32)


def movies_table(
    movie_id: Ids,
    *,
    title: Sequence[str],
    raw_title: Sequence[str],
    year: Sequence[int | None],
    genres: Sequence[str],
    n_ratings: npt.NDArray[np.int64],
    mean_rating: FloatArray,
) -> pd.DataFrame:
    """The table of movies as ``Ratings.movies`` has it."""
    return pd.DataFrame(
        {
            "movie_id": movie_id,
            "title": title,
            "raw_title": raw_title,
            "year": pd.array(year, dtype="Int64"),
            "genres": genres,
            "n_ratings": n_ratings,
            "mean_rating": mean_rating,
        }
    )
