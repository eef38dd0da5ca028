"""Rows -> columns of user, movie and rating; every row is used, or named with the rule it breaks.

Clean files of numbers go through pandas' C parser; whatever is not provably clean goes row by row,
which is slower, gives the same columns, and can say where a problem is.
"""

from __future__ import annotations

import io
import math
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.errors import DataError
from cfrec.tables import find_roles, find_separator, numbered_rows

Catalogue = dict[str, tuple[str, str]]  # movie id as text -> (raw title, genres joined by |)
Roles = Mapping[str, int]  # what a column holds -> its place

_LARGEST_RATING = 1_000.0
_INT64 = range(-(2**63), 2**63)
_DIGITS = np.frombuffer(b"0123456789", np.uint8)
_CHUNK = 1 << 24  # bytes looked at in one go
_GLANCE = 1 << 16  # characters
HEAD = 1 << 20  # characters in which the first row is looked for
_NAMES_WANTED = "userId (or user_id, user), movieId (or movie_id, item_id, movie, item) and rating (or score, stars)"


@dataclass
class Columns:
    """The columns of a ratings file as read; ids are int64 where all of them are integers, text otherwise."""

    user_id: npt.NDArray[np.int64] | npt.NDArray[np.object_]
    movie_id: npt.NDArray[np.int64] | npt.NDArray[np.object_]
    rating: npt.NDArray[np.float64]
    timestamp: npt.NDArray[np.int64] | None
    catalogue: Catalogue = field(default_factory=dict)
    n_dropped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Layout:
    """What stands where in a file of ratings."""

    separator: str
    roles: Roles
    header: bool
    n_fields: int


class RowError(DataError):
    """One row breaks a rule."""

    def __init__(self, file: str, line: int, column: str, value: str, rule: str) -> None:
        where = f"{file}, line {line}" + (f", column {column}" if column else "")
        super().__init__(f"{where}: {value[:60]!r} {rule}. Correct the row, or leave out bad rows.")
        self.line, self.column, self.value, self.rule = line, column, value, rule


def read_columns(text: str, name: str, *, drop_bad: bool = False) -> Columns:
    """Read a file of ratings, with or without a header, whatever its separator.

    Parameters
    ----------
    text : str
        The decoded file.
    name : str
        What to call it in messages.
    drop_bad : bool
        Drop and count bad rows instead of stopping at the first.

    Raises
    ------
    DataError
        No columns of user, movie and rating; or a bad row (a RowError), with line, column, value and rule.
    """
    layout = find_layout(text, name)
    if not {"title", "genres"} & layout.roles.keys() and (
        fast := _read_numbers(text, layout.separator, layout.header, layout.roles, layout.n_fields)
    ):
        return fast
    rows = numbered_rows(text, layout.separator, name)
    if layout.header:
        next(rows)
    return _RowReader(name, layout.roles, layout.n_fields, decimal_comma=layout.separator == ";").read(rows, drop_bad=drop_bad)


def find_layout(text: str, name: str) -> Layout:
    """How a file of ratings is laid out, from its opening lines. Raises DataError where a column is missing."""
    separator = find_separator(text)
    _, first = next(numbered_rows(text[:HEAD], separator, name), (0, [""]))
    looks_like_data = len(first) >= 3 and _is_number(first[2])
    roles = {} if looks_like_data else find_roles(first)
    header = bool(roles)
    if not header:
        roles = _roles_by_position(first, name)
    elif "movie" not in roles and "title" in roles:
        roles["movie"] = roles["title"]
    if missing := [role for role in ("user", "movie", "rating") if role not in roles]:
        raise DataError(f"{name} has no column for {' and '.join(missing)}; its header is {shown(first)}. It needs {_NAMES_WANTED}.")
    return Layout(separator, roles, header, len(first))


def shown(row: list[str]) -> list[str]:
    """The beginning of a row, for a message: cells may hold a whole web page."""
    return [cell[:40] for cell in row[:8]]


def _roles_by_position(first: list[str], name: str) -> dict[str, int]:
    if len(first) < 3 or not _is_number(first[2]):
        raise DataError(f"{name} does not look like ratings: its first row is {shown(first)}. It needs columns {_NAMES_WANTED}.")
    n_used = 4 if len(first) > 3 and first[3].strip() else 3
    return {role: k for k, role in enumerate(("user", "movie", "rating", "timestamp")[:n_used])}


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell.strip().replace(",", ".")))
    except ValueError:
        return False


def _read_numbers(text: str, separator: str, header: bool, roles: Roles, n_fields: int) -> Columns | None:
    """The fast way, for plain digits in equally many fields a line without leading zeros; None where it is not provably right."""
    first, _, rest = text.partition("\n")
    body = rest if header else text
    if (header and '"' in first) or separator == " " or (separator == "::" and "\t" in body):
        return None
    known = set(f"0123456789.-\n{separator}")
    if not set(body[:_GLANCE]) <= known:  # so that what is not plain is not copied several times before that is seen
        return None
    if separator == "::":
        body, separator = body.replace("::", "\t"), "\t"
    raw = body.strip("\n").encode()
    plain = not raw.translate(None, b"0123456789.-\n" + separator.encode()) and b"\n\n" not in raw and b"-0" not in raw
    if not plain or not _is_regular(raw, separator, n_fields, roles["rating"]):
        return None
    used = {role: roles[role] for role in ("user", "movie", "rating", "timestamp") if role in roles}
    types = {k: np.float64 if role == "rating" else np.int64 for role, k in used.items()}
    try:
        table = pd.read_csv(io.BytesIO(raw), sep=separator, header=None, usecols=list(types), dtype=types, engine="c", na_filter=False)
    except (ValueError, OverflowError):  # the row-by-row reader says where and why
        return None
    rating = table[used["rating"]].to_numpy()
    if not (np.abs(rating) <= _LARGEST_RATING).all():
        return None
    timestamp = table[used["timestamp"]].to_numpy() if "timestamp" in used else None
    return Columns(table[used["user"]].to_numpy(), table[used["movie"]].to_numpy(), rating, timestamp)


def _is_regular(raw: bytes, separator: str, n_fields: int, rating: int) -> bool:
    """Whether each line has as many fields, no leading zeros, and decimal points only in ratings; by chunks of lines."""
    start = 0
    while start < len(raw):
        end = len(raw) if start + _CHUNK >= len(raw) else raw.rfind(b"\n", start, start + _CHUNK)
        if end <= start:
            return False
        codes = np.frombuffer(raw, np.uint8, end - start, start)
        line_ends = codes == ord("\n")
        cuts = np.flatnonzero((codes == ord(separator)) | line_ends)
        n_lines = (len(cuts) + 1) // n_fields
        if len(cuts) + 1 != n_lines * n_fields or not line_ends[cuts[n_fields - 1 :: n_fields]].all() or line_ends.sum() != n_lines - 1:
            return False
        zeros = np.append(0, cuts + 1)
        zeros = zeros[zeros < len(codes) - 1]
        zeros = zeros[codes[zeros] == ord("0")]  # fields that begin with one
        if np.isin(codes[zeros + 1], _DIGITS).any():
            return False
        if (np.searchsorted(cuts, np.flatnonzero(codes == ord("."))) % n_fields != rating).any():
            return False
        start = end + 1
    return True


class _RowReader:
    """Reads ratings row by row and says exactly what is wrong with a row."""

    def __init__(self, name: str, roles: Roles, n_fields: int, *, decimal_comma: bool) -> None:
        self.name, self.roles, self.n_fields, self.decimal_comma = name, roles, n_fields, decimal_comma
        self.users: list[str] = []
        self.movies: list[str] = []
        self.ratings: list[float] = []
        self.times: list[int] = []
        self.catalogue: Catalogue = {}
        self.reasons: Counter[str] = Counter()

    def read(self, rows: Iterator[tuple[int, list[str]]], *, drop_bad: bool) -> Columns:
        for line, row in rows:
            try:
                self._add(line, row)
            except RowError as error:
                if not drop_bad:
                    raise
                self.reasons[f"{error.column or 'row'} {error.rule}"] += 1
        times = np.array(self.times, np.int64) if "timestamp" in self.roles else None
        ratings, dropped = np.array(self.ratings, np.float64), dict(self.reasons)
        return Columns(as_ids(self.users), as_ids(self.movies), ratings, times, self.catalogue, sum(dropped.values()), dropped)

    def _add(self, line: int, row: list[str]) -> None:
        if len(row) == 1 and '"' in row[0]:
            raise RowError(self.name, line, "", row[0], "has a quotation mark inside a field")
        if len(row) != self.n_fields:
            raise RowError(self.name, line, "", " ".join(row), f"has {len(row)} fields where {self.n_fields} are expected")
        cells = {role: row[k].strip() for role, k in self.roles.items()}
        for role in ("user", "movie"):
            if not cells[role]:
                raise RowError(self.name, line, role, cells[role], "is empty")
        rating = self._rating(line, cells["rating"])
        if "timestamp" in cells:
            self.times.append(self._time(line, cells["timestamp"]))
        self.users.append(cells["user"])
        self.movies.append(cells["movie"])
        self.ratings.append(rating)
        if cells["movie"] not in self.catalogue and cells.get("title"):
            self.catalogue[cells["movie"]] = catalogue_entry(cells)

    def _rating(self, line: int, cell: str) -> float:
        try:
            value = float(cell.replace(",", ".") if self.decimal_comma else cell)
        except ValueError:
            value = math.nan
        if "_" in cell or not abs(value) <= _LARGEST_RATING:
            raise RowError(self.name, line, "rating", cell, "is not a number between -1000 and 1000")
        return value

    def _time(self, line: int, cell: str) -> int:
        if (whole := re.fullmatch(r"(-?)0*([0-9]{1,19})(?:\.0*)?", cell)) and (seconds := int(whole[1] + whole[2])) in _INT64:
            return seconds
        try:
            moment = datetime.fromisoformat(cell)
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except ValueError:
            raise RowError(self.name, line, "timestamp", cell, "is neither whole seconds since 1970 nor a date like 1998-04-22") from None


def catalogue_entry(cells: Mapping[str, str]) -> tuple[str, str]:
    """(raw title with its year, genres joined by ``|``) from a movie's cells."""
    title, year = cells["title"], re.sub(r"\.0*$", "", cells.get("year", ""))
    raw = f"{title} ({year})" if year and not title.endswith(f"({year})") else title
    genres = [] if cells.get("genres", "").startswith("(no ") else re.split(r"\s*[|,;/]\s*", cells.get("genres", ""))
    return raw, "|".join(genre for genre in genres if genre)


def as_ids(cells: Iterable[str]) -> npt.NDArray[np.int64] | npt.NDArray[np.object_]:
    """Ids as int64, where every one of them is an integer written plainly; as text otherwise."""
    cells = list(cells)
    if all(re.fullmatch(r"0|-?[1-9][0-9]{0,18}", cell) and int(cell) in _INT64 for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64)
    return np.array(cells, object)
