"""Compiled kernels for large files of ratings: rows of plain numbers, and a user's several ratings of a movie.

Load it with ``load_kernels("parsing")``: importing it needs Numba.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from cfrec.compiled import compiled, compiled_within

UNUSED, USER, MOVIE, RATING, TIMESTAMP = range(5)  # what a field holds
DECIMALS = 12  # ratings come out as whole numbers of 10^-12 stars: exact, so that one division rounds them as float() does
_POWERS = 10 ** np.arange(DECIMALS + 1, dtype=np.int64)
_MOST_DIGITS = 18  # of a number; more may not fit into 64 bits
_LARGEST_RATING = 1_000
_LONGEST_UNUSED = 100_000  # bytes; the csv module takes 131,072
_NOT_PLAIN = -1

Bytes = npt.NDArray[np.uint8]
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]


@compiled
def parse_rows(data: Bytes, separator: int, width: int, roles: Int64s, columns: Int64s) -> bool:
    """Parse lines of plain numbers; False as soon as something is not provably plain.

    Parameters
    ----------
    data : uint8 array
        Whole lines that end in LF or CRLF; the last may lack it.
    separator, width : int
        The byte between fields, and how many of it stand there: 1, or 2 for ``::``.
    roles : int64 array (n_fields,)
        What each field holds.
    columns : int64 array (4, n_rows)
        Is filled with user, movie, rating in units of 10^-12 stars, and timestamp: a column for each line.

    Returns
    -------
    bool
        Whether all lines are plain: ``n_fields`` fields; integers of up to 18 digits without leading zeros, ``+`` and ``-0``;
        ratings of up to 12 decimals between -1000 and 1000; printable ASCII without quotation marks in fields of no use.
    """
    at, size, n_rows, n_fields = 0, len(data), columns.shape[1], len(roles)
    for row in range(n_rows):
        for field in range(n_fields):
            role = roles[field]
            if role == UNUSED:
                at = _skip_field(data, at, separator, width)
            else:
                negative = at < size and data[at] == 45
                at += negative
                first, last, value = at, min(size, at + _MOST_DIGITS + 1), 0
                while at < last and 48 <= data[at] <= 57:
                    value = 10 * value + (data[at] - 48)
                    at += 1
                n_digits = at - first
                if n_digits > _MOST_DIGITS or (n_digits > 1 and data[first] == 48):
                    return False
                if role == RATING:
                    at, value = _parse_decimals(data, at, value, n_digits, separator)
                if (n_digits == 0 and role != RATING) or (negative and value == 0):
                    return False
                columns[role - 1, row] = -value if negative else value
            if at >= 0:
                at = _skip_separator(data, at, separator, width) if field < n_fields - 1 else _skip_line_end(data, at)
            if at < 0:
                return False
    return at == size


@compiled_within
def _parse_decimals(data: Bytes, at: int, value: int, n_digits: int, separator: int) -> tuple[int, int]:
    """Where a rating ends, and ``value`` continued by its decimals, in units of 10^-12; between semicolons a comma is a point too."""
    n_decimals = 0
    if at < len(data) and (data[at] == 46 or (data[at] == 44 and separator == 59)):
        at += 1
        while at < len(data) and 48 <= data[at] <= 57 and n_decimals <= DECIMALS:
            value = 10 * value + (data[at] - 48)
            n_decimals += 1
            at += 1
    n_digits += n_decimals
    if n_digits == 0 or n_digits > _MOST_DIGITS or n_decimals > DECIMALS or value > _LARGEST_RATING * _POWERS[n_decimals]:
        return _NOT_PLAIN, 0
    return at, value * _POWERS[DECIMALS - n_decimals]


@compiled_within
def _skip_field(data: Bytes, at: int, separator: int, width: int) -> int:
    last = min(len(data), at + _LONGEST_UNUSED)
    while at < last and (32 <= data[at] < 127 or data[at] == 9):
        if data[at] == separator and (width == 1 or (at + 1 < last and data[at + 1] == separator)):
            break
        if data[at] == 34:
            return _NOT_PLAIN
        at += 1
    return at


@compiled_within
def _skip_separator(data: Bytes, at: int, separator: int, width: int) -> int:
    for k in range(at, at + width):
        if k >= len(data) or data[k] != separator:
            return _NOT_PLAIN
    return at + width


@compiled_within
def _skip_line_end(data: Bytes, at: int) -> int:
    if at == len(data):
        return at
    at += data[at] == 13
    return at + 1 if at < len(data) and data[at] == 10 else _NOT_PLAIN


@compiled
def sort_by_user(user_idx: Int32s, movie_idx: Int32s, n_users: int) -> tuple[Int32s, Int32s, Int32s]:
    """Where each user's rows begin, and the last's end; the rows by user, in file order within each; and their movies."""
    begin = np.zeros(n_users + 1, np.int32)
    for row in range(len(user_idx)):
        begin[user_idx[row] + 1] += 1
    for user in range(n_users):
        begin[user + 1] += begin[user]
    place = begin.copy()
    rows, movies = np.empty(len(user_idx), np.int32), np.empty(len(user_idx), np.int32)
    for row in range(len(user_idx)):
        user = user_idx[row]
        rows[place[user]] = row
        movies[place[user]] = movie_idx[row]
        place[user] += 1
    return begin, rows, movies


@compiled
def mark_earlier(begin: Int32s, rows: Int32s, movies: Int32s, timestamp: Int64s, earlier: npt.NDArray[np.bool_]) -> int:
    """Mark all but the latest of a user's several ratings of a movie, by time, then by row.

    Parameters
    ----------
    begin, rows, movies : int32 array (n_users + 1,), (n_rows,), (n_rows,)
        As from `sort_by_user`; part of ``begin`` for part of the users.
    timestamp : int64 array (n_rows,) or (0,)
        Empty where there are no times.
    earlier : bool array (n_rows,)
        All False; becomes True where the same user rated the movie again later.

    Returns
    -------
    int
        How many are marked.
    """
    latest = np.full(movies.max() + 1, -1, np.int32)  # place in ``rows`` of the latest; before the user's begin it is another user's
    n_earlier = 0
    for user in range(len(begin) - 1):
        for place in range(begin[user], begin[user + 1]):
            movie = movies[place]
            other = latest[movie]
            if other < begin[user]:
                latest[movie] = place
                continue
            n_earlier += 1
            if len(timestamp) == 0 or timestamp[rows[place]] >= timestamp[rows[other]]:
                earlier[rows[other]] = True
                latest[movie] = place
            else:
                earlier[rows[place]] = True
    return n_earlier


def prepare() -> None:
    """Have all kernels compiled, or fetched from where an earlier process kept them, by reading one row."""
    data, roles, columns = np.frombuffer(b"1,1,1", np.uint8), np.array([USER, MOVIE, RATING]), np.empty((4, 1), np.int64)
    parse_rows(data, ord(","), 1, roles, columns)
    begin, rows, movies = sort_by_user(np.zeros(1, np.int32), np.zeros(1, np.int32), 1)
    mark_earlier(begin, rows, movies, np.zeros(0, np.int64), np.zeros(1, bool))
