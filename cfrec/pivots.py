"""Pivot tables: a row for each user and a column for each movie, or the other way round."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from cfrec.errors import DataError
from cfrec.movies import FloatArray
from cfrec.roles import LOOKS, MISSING, TABLE, Roles, by_name, mostly, names_known, numbers_rows, plain

NOT_RATED = (0.0, 99.0, -1.0, 999.0, -99.0)  # what stands for "not rated" in people's files
_SCORE = re.compile(r"-?\d{1,3}(?:[.,]\d+)?%?")
_PEOPLE = (*TABLE["user"], "name", "fullname", "firstname", "email", "emailaddress", "participant")
_MOVIES = (*TABLE["movie"], *(name for name in TABLE["title"] if name != "name"), "films", "movies")
_NUMBERS = ("", "unnamed0", "index", "x", "rownumber")  # names of columns that number the rows
SUMS = ("total", "totals", "sum", "average", "avg", "mean", "count", "all", "grandtotal")  # names of rows and columns that add up others
_OTHERS = (*SUMS, *_NUMBERS, "age", "gender", "sex", "zip", "zipcode", "rank", "timestamp", "date", "year", "id")
_FEW, _SEVERAL, _MANY = 3, 10, 12  # columns of movies


@dataclass(frozen=True)
class Pivot:
    """Which columns are movies (or users), and which one, if any, names the rows."""

    rows: str  # what the rows are: "users" or "movies"
    label: int | None
    cells: tuple[int, ...]
    names: tuple[str, ...]  # of the columns in ``cells``
    mark: str = ""  # a text that stands for "not rated", in lower case
    sure: bool = True  # whether names say what the rows are

    def roles(self, names: Sequence[str]) -> Roles:
        """The column that names the rows, among the table's ``names`` of columns."""
        role = "user" if self.rows == "users" else "movie"
        return Roles({} if self.label is None else {role: self.label}, {role: "name"}, tuple(names))


def find_pivot(
    header: Sequence[str] | None, sample: list[list[str]], n_fields: int, given: Mapping[str, str | int | None] | None = None
) -> Pivot | None:
    """Whether a table is a pivot table, and how it is laid out.

    Parameters
    ----------
    header : names, or None
    sample : list of rows of text
        The first rows.
    n_fields : int
    given : mapping role -> name or number of a column (from 1)
        A user alone, or a movie alone, says what the rows are.

    Raises
    ------
    DataError
        Two of its columns have one name.
    """
    rows = [row for row in sample if len(row) == n_fields and not any(plain(cell) in SUMS for cell in row[:2])]
    asked = {role for role, column in (given or {}).items() if column is not None}
    if len(rows) < 2 or n_fields <= _FEW or not (asked <= {"user"} or asked <= {"movie"} or asked <= {"title"}):
        return None
    columns = list(zip(*rows, strict=True))
    mark = _find_mark(columns)
    scores = [k for k in range(n_fields) if _holds_scores(columns[k], mark)]
    names = [plain(name) for name in header] if header is not None else [""] * n_fields
    label: int | None = _given_label(given or {}, header) if asked else _find_label(names, columns, scores, header is not None)
    if label is not None and label >= n_fields:
        return None
    cells = [k for k in scores if k != label and (header is None or names[k] not in _OTHERS)]
    cells = [k for k in cells if not _adds_up(k, cells, columns, mark)]
    if not _is_pivot(header, columns, cells, label, mark, asked=bool(asked)):
        return None
    titles = _titles(header, cells)
    if twice := [name for name, n in Counter(titles).items() if n > 1]:
        raise DataError(f"Two columns of the table are called {twice[0][:40]!r}. Give each its own name, the year for example.")
    kind, sure = _find_kind(names, columns, label, titles, asked)
    return Pivot(kind, label, tuple(cells), titles, mark, sure)


def _find_mark(columns: list[tuple[str, ...]]) -> str:
    """The text that is in many cells of many columns beside numbers; empty without one."""
    counts: Counter[str] = Counter()
    n_columns: Counter[str] = Counter()
    for column in columns:
        texts = Counter(cell.strip().casefold() for cell in column if not _SCORE.fullmatch(cell.strip()))
        if len(texts) < len(column) and sum(texts.values()) < len(column):  # there are numbers too
            counts.update(texts)
            n_columns.update(texts.keys())
    for text, _ in counts.most_common(3):
        if text not in MISSING and n_columns[text] >= max(2, len(columns) // 2):
            return text
    return ""


def _is_nothing(cell: str, mark: str) -> bool:
    return cell.strip().casefold() in MISSING or (mark != "" and cell.strip().casefold() == mark)


def _holds_scores(column: Sequence[str], mark: str) -> bool:
    cells = [cell for cell in column if not _is_nothing(cell, mark)]
    return not cells or mostly(cells, _SCORE)


def _given_label(given: Mapping[str, str | int | None], header: Sequence[str] | None) -> int | None:
    wanted = next(str(column) for column in given.values() if column is not None)
    if header is not None and wanted in header:
        return header.index(wanted)
    return int(wanted) - 1 if wanted.isdecimal() and int(wanted) >= 1 else None


def _find_label(names: list[str], columns: list[tuple[str, ...]], scores: list[int], has_header: bool) -> int | None:
    """The column that names the rows, by its name, or by what is in it."""
    for known in (TABLE["user"], _MOVIES, _PEOPLE):
        places: list[int] = [*range(min(4, len(names))), len(names) - 1]  # pandas stores an index last
        for k in places:
            if has_header and names[k] in known and _is_distinct(columns[k]):
                return k
    texts = [k for k in range(len(columns)) if k not in scores and _is_distinct(columns[k]) and names[k] not in ("timestamp", "date")]
    if texts:
        return texts[0]
    if numbers_rows(columns[0]) or (has_header and _is_distinct(columns[0]) and all(cell.strip().isdecimal() for cell in columns[0])):
        return 0
    return None


def _is_distinct(column: Sequence[str]) -> bool:
    return len(set(column)) >= 0.95 * len(column) and "" not in {cell.strip() for cell in column}


def _adds_up(k: int, cells: list[int], columns: list[tuple[str, ...]], mark: str) -> bool:
    """Whether a column at an end holds each row's sum, mean, or number of ratings."""
    if k not in (cells[0], cells[-1]) or len(cells) <= _FEW:
        return False
    table = np.array([[_number(cell, mark) for cell in columns[j]] for j in cells if j != k]).T
    own = np.array([_number(cell, mark) for cell in columns[k]])
    unrated = is_not_rated(table)
    rated = np.where(table == (np.nan if unrated is None else unrated), np.nan, table)
    n_rated = (~np.isnan(rated)).sum(axis=1)
    sums = np.nansum(rated, axis=1)
    means = sums / np.maximum(n_rated, 1)
    if len(set(own.tolist())) == 1:
        return bool((own == n_rated).all()) and unrated is not None
    return any(bool((np.abs(own - other) <= 0.051).all()) for other in (sums, means, n_rated))


def _number(cell: str, mark: str) -> float:
    try:
        return float("nan") if _is_nothing(cell, mark) else float(cell.strip().rstrip("%").replace(",", "."))
    except ValueError:
        return float("nan")


def _is_pivot(
    header: Sequence[str] | None, columns: list[tuple[str, ...]], cells: list[int], label: int | None, mark: str, *, asked: bool
) -> bool:
    """Whether columns of numbers are one of ratings each, rather than the columns of a long table."""
    if len(cells) < (_FEW if label is not None and header is not None else _SEVERAL) or (
        label is not None and not _is_distinct(columns[label])
    ):
        return False
    named = by_name(header or [], TABLE)
    if {"rating", "count"} & named.keys() or ({"user", "movie"} <= named.keys()):
        return len(cells) >= _MANY and len(columns[0]) >= _MANY and label is not None  # of many films one may be called "Rating"
    values = [_number(columns[k][row], mark) for k in cells for row in range(len(columns[k]))]
    nothing = sum(np.isnan(value) or value in NOT_RATED for value in values)
    named_label = label is not None and header is not None and plain(header[label]) in (*_PEOPLE, *_MOVIES)
    return asked or nothing >= 0.1 * len(values) or (named_label and names_known([header[k] for k in cells if header]) == 0)


def _titles(header: Sequence[str] | None, cells: list[int]) -> tuple[str, ...]:
    """What the columns are called; of questions like ``How was it? [Heat]`` what is in brackets."""
    if header is None:
        return tuple(str(k + 1) for k in range(len(cells)))
    found = [re.fullmatch(r".*\[(.+)\]\s*", header[k]) for k in cells]
    inner = [match[1] for match in found if match]
    return tuple(inner if len(inner) == len(cells) else [header[k] for k in cells])


def _find_kind(
    names: list[str], columns: list[tuple[str, ...]], label: int | None, titles: Sequence[str], asked: set[str]
) -> tuple[str, bool]:
    """What the rows are, and whether that is sure."""
    if asked:
        return "users" if "user" in asked else "movies", True
    if label is None:
        return "users", False
    if names[label] in (*_PEOPLE, *_MOVIES):
        return "movies" if names[label] in _MOVIES else "users", True
    if mostly(columns[label], LOOKS["movie"]) or mostly(titles, LOOKS["user"]):
        return "movies", False
    return "users", mostly(columns[label], LOOKS["user"]) or mostly(titles, LOOKS["movie"])


def is_not_rated(table: FloatArray) -> float | None:
    """The number that stands for "not rated" in a table of ratings, None without one."""
    values, counts = np.unique(table[~np.isnan(table)], return_counts=True)
    for mark in NOT_RATED:
        if mark in values and len(values) > 2 and counts[values == mark][0] >= counts.sum() / 10 and is_apart(values, mark):
            return mark
    return None


def is_apart(values: FloatArray, mark: float) -> bool:
    """Whether a number lies beside all others: below the lowest, or far above the highest."""
    others = values[values != mark]
    return bool(mark < others.min() or mark > 2 * others.max())
