"""Delimited text -> columns of user, movie and rating; every row is used, or named with the rule it breaks.

Clean files of numbers go through pandas' C parser; whatever is not provably clean goes row by row through `csv`,
which is slower, gives the same columns, and can say where a problem is.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.errors import DataError

ROLES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid"),
    "movie": ("movieid", "itemid", "movie", "item", "iid", "filmid", "film", "asin"),
    "rating": ("rating", "score", "stars", "ratings", "userrating"),
    "timestamp": ("timestamp", "time", "date", "unixtime", "ratedat"),
    "title": ("title", "movietitle", "name", "itemname"),
    "genres": ("genres", "genre", "class", "category", "categories"),
    "year": ("year", "releaseyear"),
}
_LARGEST_RATING = 1_000.0
_CHUNK = 1 << 24  # bytes looked at in one go
_NAMES_WANTED = "userId (or user_id, user), movieId (or movie_id, item_id, movie, item) and rating (or score, stars)"


@dataclass
class Columns:
    """The columns of a ratings file as read; ids are int64 where all of them are integers, text otherwise."""

    user_id: npt.NDArray[np.int64] | npt.NDArray[np.object_]
    movie_id: npt.NDArray[np.int64] | npt.NDArray[np.object_]
    rating: npt.NDArray[np.float64]
    timestamp: npt.NDArray[np.int64] | None
    catalogue: dict[object, tuple[str, str]] = field(default_factory=dict)  # movie_id -> (raw title, genres)
    n_dropped: int = 0
    reasons: dict[str, int] = field(default_factory=dict)


class RowError(DataError):
    """One row breaks a rule."""

    def __init__(self, file: str, line: int, column: str, value: str, rule: str) -> None:
        where = f"{file}, line {line}" + (f", column {column}" if column else "")
        super().__init__(f"{where}: {value[:60]!r} {rule}. Correct the row, or ask for bad rows to be dropped.")
        self.line, self.column, self.value, self.rule = line, column, value, rule


def decode(data: bytes, name: str) -> str:
    """Bytes of a text file as text: UTF-8 or UTF-16 with or without a mark, else Latin-1.

    Raises
    ------
    DataError
        The file is empty, is binary, or is a web page.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        text = data.decode("utf-16", errors="replace")
    else:
        try:
            text = data.decode("utf-8-sig")
        except UnicodeDecodeError:
            text = data.decode("latin-1")
    if not text.strip():
        raise DataError(f"{name} is empty. It needs rows of user, movie and rating.")
    if "\0" in text:
        raise DataError(f"{name} is not a text file (it holds NUL bytes). Save it as CSV and try again.")
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html", "<?xml")):
        raise DataError(f"{name} is a web page, not a table. The download probably went wrong: fetch the file itself.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def find_separator(text: str) -> str:
    """The first separator to cut the opening lines into equally many fields, three or more; else the one that cuts most."""
    lines = [line for line in text[:20_000].split("\n")[:20] if line.strip()]
    whole = lines[:-1] if len(lines) > 1 and len(text) > 20_000 else lines

    def quality(separator: str) -> tuple[bool, int]:
        counts = [len(row) for _, row in numbered_rows("\n".join(whole), separator)]
        consistent = min(counts) >= 3 and len(set(counts)) == 1
        return consistent, 0 if consistent else Counter(counts).most_common(1)[0][0]

    return max(("::", "\t", ";", ",", "|", " "), key=quality)


def numbered_rows(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each ends on, counted from 1; blank lines are passed over."""
    if len(separator) > 1:
        for line, content in enumerate(text.split("\n"), 1):
            if content.strip():
                yield line, content.split(separator)
        return
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=separator == " ", strict=False)
    try:
        for row in reader:
            if len(row) > 1 or (row and row[0].strip()):
                yield reader.line_num, row
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} cannot be read as a table: {error}. Is a quotation mark left open?") from error


def find_roles(header: list[str]) -> dict[str, int]:
    """Which column holds what, from the names in a header; empty where it has no name that is known."""
    plain = [re.sub(r"[^a-z]", "", cell.split(":")[0].casefold()) for cell in header]
    return {role: plain.index(name) for role, names in ROLES.items() for name in names[::-1] if name in plain}


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
    separator = find_separator(text)
    first = next(numbered_rows(text, separator))
    roles = find_roles(first[1])
    header = bool(roles)
    if not header:
        roles = _roles_by_position(first[1], name)
    elif "movie" not in roles and "title" in roles:
        roles["movie"] = roles["title"]
    if missing := [role for role in ("user", "movie", "rating") if role not in roles]:
        raise DataError(f"{name} has no column for {' and '.join(missing)}; its header is {first[1][:8]}. It needs {_NAMES_WANTED}.")
    if not {"title", "genres"} & roles.keys() and (fast := _read_numbers(text, separator, header, roles, len(first[1]))):
        return fast
    rows = numbered_rows(text, separator)
    if header:
        next(rows)
    return _RowReader(name, roles, len(first[1]), decimal_comma=separator == ";").read(rows, drop_bad=drop_bad)


def _roles_by_position(first: list[str], name: str) -> dict[str, int]:
    if len(first) < 3 or not _is_number(first[2]):
        raise DataError(f"{name} does not look like ratings: its first row is {first[:8]}. It needs columns {_NAMES_WANTED}.")
    return {role: k for k, role in enumerate(("user", "movie", "rating", "timestamp")[: len(first)])}


def _is_number(cell: str) -> bool:
    try:
        return math.isfinite(float(cell.strip().replace(",", ".")))
    except ValueError:
        return False


def _read_numbers(text: str, separator: str, header: bool, roles: dict[str, int], n_fields: int) -> Columns | None:
    """The fast way: only for plain digits in equally many fields a line without leading zeros; None where that fails."""
    body = text.partition("\n")[2] if header else text
    if separator == "::":
        body, separator = body.replace("::", "\t"), "\t"
    raw = body.strip("\n").encode()
    sep = re.escape(separator.encode())
    if re.search(rb"[^0-9.\-\n" + sep + rb"]|\n\n|-0|(?:^|[\n" + sep + rb"])0\d", raw) or not _is_regular(
        raw, separator, n_fields, roles["rating"]
    ):
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
    """Whether each line has as many fields, and only ratings have a decimal point; looks at a chunk of lines at a time."""
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
        if (np.searchsorted(cuts, np.flatnonzero(codes == ord("."))) % n_fields != rating).any():
            return False
        start = end + 1
    return True


class _RowReader:
    """Reads ratings row by row and says exactly what is wrong with a row."""

    def __init__(self, name: str, roles: dict[str, int], n_fields: int, *, decimal_comma: bool) -> None:
        self.name, self.roles, self.n_fields, self.decimal_comma = name, roles, n_fields, decimal_comma
        self.users: list[str] = []
        self.movies: list[str] = []
        self.ratings: list[float] = []
        self.times: list[int] = []
        self.catalogue: dict[str, tuple[str, str]] = {}
        self.reasons: Counter[str] = Counter()

    def read(self, rows: Iterator[tuple[int, list[str]]], *, drop_bad: bool) -> Columns:
        for line, row in rows:
            try:
                self._add(line, row)
            except RowError as error:
                if not drop_bad:
                    raise
                self.reasons[f"{error.column or 'row'} {error.rule}"] += 1
        users, _ = as_ids(self.users)
        movies, integers = as_ids(self.movies)
        catalogue: dict[object, tuple[str, str]] = {int(key) if integers else key: value for key, value in self.catalogue.items()}
        times = np.array(self.times, np.int64) if "timestamp" in self.roles else None
        dropped = dict(self.reasons)
        return Columns(users, movies, np.array(self.ratings, np.float64), times, catalogue, sum(dropped.values()), dropped)

    def _add(self, line: int, row: list[str]) -> None:
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
        if re.fullmatch(r"-?\d{1,18}", cell):
            return int(cell)
        try:
            moment = datetime.fromisoformat(cell)
            return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
        except ValueError:
            raise RowError(self.name, line, "timestamp", cell, "is neither whole seconds since 1970 nor a date like 1998-04-22") from None


def catalogue_entry(cells: dict[str, str]) -> tuple[str, str]:
    """(raw title with its year, genres joined by ``|``) from a movie's cells."""
    title, year = cells["title"], cells.get("year", "")
    raw = f"{title} ({year})" if year and not title.endswith(f"({year})") else title
    genres = [] if cells.get("genres", "").startswith("(no ") else re.split(r"\s*[|,;/]\s*", cells.get("genres", ""))
    return raw, "|".join(genre for genre in genres if genre)


def as_ids(cells: list[str]) -> tuple[npt.NDArray[np.int64] | npt.NDArray[np.object_], bool]:
    """Ids as int64, where every one of them is an integer written plainly; as text otherwise."""
    if all(re.fullmatch(r"0|-?[1-9]\d{0,17}", cell) for cell in cells):
        return np.array([int(cell) for cell in cells], np.int64), True
    return np.array(cells, object), False
