"""A slow reader of ratings that is right for plain reasons: one row after the other, plain Python, dictionaries.

Separator, header and columns are found by cfrec; everything after that is done here anew, and differently: decoding, cutting lines into
fields, numbers, kinds of ids, duplicates, indices, titles. What it returns is compared with what ``cfrec.read_ratings`` returns.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any

import numpy as np

from cfrec.columns import WORDS
from cfrec.layouts import find_layout
from cfrec.pivots import find_pivot
from cfrec.roles import find_movie_roles, find_roles, guess_movie_roles
from cfrec.titles import parse_title

LINE_END = re.compile(r"\r\n|\r|\n")
MISSING = ("", "nan", "null", "none", "na", "n/a", "#n/a", "<na>", "\\n")
LARGEST_INT, SMALLEST_INT = 9223372036854775807, -9223372036854775808


class RefusedError(Exception):
    """The file as a whole, or its first bad row, is refused."""

    def __init__(self, why: str, line: int | None = None, column: str | None = None) -> None:
        super().__init__(why)
        self.line, self.column = line, column


@dataclass
class Table:
    """What a file of ratings says."""

    ratings: list[tuple[Any, Any, float, int | None]] = field(default_factory=list)  # user, movie, float32 stars, time; in file order
    titles: dict[Any, tuple[str, str]] = field(default_factory=dict)
    n_rows: int = 0
    n_duplicates: int = 0
    dropped: Counter[str] = field(default_factory=Counter)  # column (or "row") -> rows dropped for it


@dataclass
class Place:
    """Where a table begins and what its columns are, as cfrec found them."""

    text: str
    line: int
    separator: str
    n_fields: int
    roles: dict[str, int]
    quoting: bool
    guessed: frozenset[str] = frozenset()


def place(data: bytes) -> Place:
    text = decode(data).encode("utf-8", "replace")
    layout = find_layout(text, "oracle")
    assert not find_pivot(layout.header, layout.sample, layout.n_fields)
    roles = find_roles(layout.header, layout.sample, layout.n_fields, "oracle")
    guessed = frozenset(role for role, how in roles.found.items() if how == "guess")
    return Place(text[layout.begin :].decode(), layout.line, layout.separator, layout.n_fields, dict(roles.places), layout.quoting, guessed)


def read(data: bytes, *, drop_bad: bool) -> Table:
    """Raises RefusedError, or whatever error of cfrec says that there is no layout."""
    where = place(data)
    rows, table = [], Table()
    for line, text, cells in cut(where):
        if says_nothing(text, cells, where):
            continue
        table.n_rows += 1
        try:
            rows.append(parse(cells, where, line))
        except RefusedError as error:
            if not drop_bad:
                raise
            table.dropped[error.column or "row"] += 1
    if any(row.get("timestamp", 0) is None for row in rows):  # a time never costs a rating
        for row in rows:
            del row["timestamp"]
    times = [row["timestamp"] for row in rows if "timestamp" in row]
    for digits in (3, 6, 9):  # milli-, micro- and nanoseconds, of 1973 and later
        if times and all(10 ** (8 + digits) <= time < 10 ** (11 + digits) for time in times):
            for row in rows:
                row["timestamp"] //= 10**digits
    fill(table, rows)
    if "user" in where.guessed and len(table.ratings) >= 20 and len({row[0] for row in table.ratings}) == len(table.ratings):
        raise RefusedError("a guess that cannot be")
    return table


def says_nothing(text: str, cells: list[str] | None, where: Place) -> bool:
    """A row that is blank, or a comment."""
    if cells is None or len(cells) != where.n_fields:
        return not text.replace(where.separator, "").strip() or text.lstrip()[:1] in ("#", "%") or text.lstrip()[:2] == "//"
    wanted = (where.roles["user"], where.roles.get("movie", where.roles.get("title")), where.roles.get("rating"))
    return all(k is None or not cells[k].strip() for k in wanted)


def decode(data: bytes) -> str:
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        try:
            text = data.decode("utf-16")
        except UnicodeDecodeError as error:
            raise RefusedError("not UTF-16") from error
    else:
        try:
            text = data.decode("utf-8")
        except UnicodeDecodeError as error:
            if mixes_encodings(data):
                raise RefusedError("neither UTF-8 nor Latin") from error
            undefined = {0x81, 0x8D, 0x8F, 0x90, 0x9D}
            text = data.decode("latin-1" if undefined & set(data) else "cp1252")
    text = text.replace("\ufeff", "").removesuffix("\x1a")  # marks of files that were joined, and of an old end
    if not text.strip() or "\0" in text or re.match(r"\s*<(!doctype|html|\?xml)", text, re.IGNORECASE):
        raise RefusedError("no table")
    return text


def mixes_encodings(data: bytes) -> bool:
    """Whether there is a letter of two or three bytes that is well-formed UTF-8, and not the beginning of something longer."""

    def is_follower(at: int) -> bool:
        return at < len(data) and 0x80 <= data[at] <= 0xBF

    for at, byte in enumerate(data):
        if 0xC2 <= byte <= 0xDF and is_follower(at + 1) and not is_follower(at + 2):
            return True
        if 0xE0 <= byte <= 0xEF and is_follower(at + 1) and is_follower(at + 2):
            return True
    return False


def cut(where: Place) -> Iterator[tuple[int, str, list[str] | None]]:
    """Line, text and cells of each row; None for cells where the rules of CSV are broken."""
    lines, at = LINE_END.split(where.text), 0
    while at < len(lines):
        record, n = lines[at], 1
        cells = cut_line(record, where)
        if cells is None and record.count('"') % 2:  # a cell that may go on in the next lines
            rest = range(1, min(500, len(lines) - at))
            n = next((k + 1 for k in rest if "\n".join(lines[at : at + k + 1]).count('"') % 2 == 0), 1)
            cells = cut_line("\n".join(lines[at : at + n]), where) if n > 1 else None
            n = n if cells is not None else 1
        if record or n > 1:
            yield at + where.line, record, cells
        at += n


def cut_line(line: str, where: Place) -> list[str] | None:
    """The rules of CSV: a field in quotation marks may hold separators, ends of lines, and quotation marks that are doubled.

    None if a quotation mark is left open, or a field goes on behind its closing quotation mark.
    """
    separator = where.separator
    if separator == " " and '"' not in where.text:
        line = line.strip(" ")
    if not where.quoting and separator != " ":
        return line.split(separator)
    cells, at = [], 0
    while True:
        while separator == " " and line[at : at + 1] == " ":
            at += 1
        if where.quoting and line[at : at + 1] == '"':
            cell, at = "", at + 1
            while True:
                end = line.find('"', at)
                if end < 0:
                    return None
                cell += line[at:end]
                at = end + 1
                if line[at : at + 1] != '"':
                    break
                cell, at = cell + '"', at + 1
            if line[at : at + 1] not in ("", separator):
                return None
        else:
            end = line.find(separator, at)
            end = len(line) if end < 0 else end
            cell, at = line[at:end], end
        cells.append(cell)
        if at == len(line):
            return cells
        at += len(separator)


def parse(cells: list[str] | None, where: Place, line: int) -> dict[str, Any]:
    if cells is None or len(cells) != where.n_fields:
        raise RefusedError("fields", line, "row")
    row: dict[str, Any] = {role: cells[k].strip() for role, k in where.roles.items()}
    row["user"] = one_id(row["user"], line, "user")
    if "movie" in row:
        row["movie"] = one_id(row["movie"], line, "movie")
    elif row["title"].casefold() in MISSING:
        raise RefusedError("no title", line, "movie")
    else:
        row["movie"] = name({key: row[key] for key in ("title", "year") if key in row})[0]
    row["rating"] = number(row["rating"], line, decimal_comma=where.separator == ";") if "rating" in row else 1.0
    if "timestamp" in row:
        row["timestamp"] = moment(row["timestamp"])
    return row


def one_id(cell: str, line: int, role: str) -> str:
    """``24.0`` is 24, and what stands for a missing value is none."""
    if cell.casefold() in MISSING:
        raise RefusedError("missing", line, role)
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?[eE]\+?[0-9][0-9]?", cell) and Decimal(cell) == Decimal(cell).to_integral_value():
        return str(int(Decimal(cell)))
    whole, point, zeros = cell.partition(".")
    digits = whole.removeprefix("-").removeprefix("+") if whole[:2] not in ("+-", "-+") else "?"
    return whole if point and not zeros.strip("0") and digits.isascii() and digits.isdecimal() else cell


def number(cell: str, line: int, *, decimal_comma: bool) -> float:
    has_comma = decimal_comma or re.fullmatch("[+-]?[0-9]{0,3},[0-9][0-9]?", cell)
    plain = cell.replace(",", ".") if has_comma else cell
    try:
        value = Decimal(plain)
    except InvalidOperation:
        value = Decimal("nan")
    if "_" not in cell and value.is_finite() and abs(value) <= 1000:
        return float(np.float32(float(value)))
    if cell.casefold() in MISSING:
        raise RefusedError("no number", line, "rating")
    if set(cell) <= set("★☆½") and "★" in cell:
        return cell.count("★") + cell.count("½") / 2
    if re.fullmatch("[0-9]+(?:[.,][0-9]+)? *(?:/ *(?:5|10|100)|%)", cell):
        return float(np.float32(float(cell.rstrip("%").partition("/")[0].replace(",", "."))))
    word = "".join(letter for letter in cell.casefold() if letter.isalnum()) or cell
    if word in WORDS:
        return WORDS[word]
    raise RefusedError("no number", line, "rating")


def moment(cell: str) -> int | None:
    digits = cell.partition(".")
    if re.fullmatch("-?[0-9]+", digits[0]) and not digits[2].strip("0") and len(digits[0].lstrip("-0")) < 20:
        value = int(digits[0].lstrip("-").lstrip("0") or "0") * (-1 if digits[0][0] == "-" else 1)
        if SMALLEST_INT <= value <= LARGEST_INT:
            return value
    try:
        when = datetime.fromisoformat(cell)
    except ValueError:
        return None
    since = (when if when.tzinfo else when.replace(tzinfo=UTC)) - datetime(1970, 1, 1, tzinfo=UTC)
    return math.trunc(since / timedelta(seconds=1))


def typed(cells: list[str]) -> list[Any]:
    """Integers if every cell is one, written as Python would write it, in 64 bits; else text."""

    def is_integer(cell: str) -> bool:
        return len(cell) <= 20 and cell.isascii() and cell.removeprefix("-").isdigit() and str(int(cell)) == cell and fits(int(cell))

    def fits(value: int) -> bool:
        return SMALLEST_INT <= value <= LARGEST_INT

    return [int(cell) for cell in cells] if all(is_integer(cell) for cell in cells) else cells


def fill(table: Table, rows: list[dict[str, Any]]) -> None:
    if not rows:
        raise RefusedError("no rating")
    users, movies = typed([row["user"] for row in rows]), typed([row["movie"] for row in rows])
    latest: dict[tuple[Any, Any], int] = {}
    for k, (user, movie) in enumerate(zip(users, movies, strict=True)):
        before = latest.get((user, movie))
        if before is not None:
            table.n_duplicates += 1
        if before is None or rows[k].get("timestamp", 0) >= rows[before].get("timestamp", 0):
            latest[user, movie] = k
    for k in sorted(latest.values()):
        table.ratings.append((users[k], movies[k], rows[k]["rating"], rows[k].get("timestamp")))
    for movie, row in zip(movies, rows, strict=True):
        if row.get("title", "").casefold() not in MISSING and movie not in table.titles:
            table.titles[movie] = name(row)


def read_titles(data: bytes) -> dict[int, tuple[str, str]]:
    """A table of movies with a header: integer id -> (title with year, genres). Raises as ``read`` does."""
    text = decode(data).encode("utf-8", "replace")
    layout = find_layout(text, "oracle")
    roles, ids = guess_movie_roles(layout.sample, layout.n_fields) if layout.header is None else find_movie_roles(layout.header)
    if "title" not in roles or not ids:
        raise RefusedError("no columns")
    where = Place(text[layout.begin :].decode(), layout.line, layout.separator, layout.n_fields, roles, layout.quoting)
    titles = {}
    for line, record, cells in cut(where):
        if cells is None or len(cells) != where.n_fields:
            if not record.replace(where.separator, "").strip() or record.lstrip()[:1] in ("#", "%") or record.lstrip()[:2] == "//":
                continue
            raise RefusedError("fields", line, "row")
        row, movie = {role: cells[k].strip() for role, k in roles.items()}, cells[ids[0]].strip()
        whole, _, zeros = movie.partition(".")
        if whole.isascii() and whole.isdigit() and not zeros.strip("0"):
            titles[int(whole.lstrip("0") or "0")] = name(row | {"title": row["title"] or movie})
    return titles


def name(row: dict[str, str]) -> tuple[str, str]:
    title, year = row["title"], row.get("year", "")
    found = [year[k : k + 4] for k in range(len(year)) if re.fullmatch("(?:1[89]|20)[0-9][0-9]", year[k : k + 4])]
    if found and not year.isdecimal():
        year = found[0]
    elif "." in year and not year.rpartition(".")[2].strip("0"):
        year = year.rpartition(".")[0]
    if year.casefold() not in MISSING and not title.endswith(f"({year})"):
        title += f" ({year})"
    genres = row.get("genres", "")
    if genres.casefold() in MISSING or genres.startswith("(no "):
        return title, ""
    parts = [part.strip() for part in re.sub("[,;/]", "|", genres).split("|")]
    return title, "|".join(part for part in parts if part)


def differences(found: Any, table: Table) -> list[str]:
    """Where cfrec's Ratings are not what the oracle's table says; empty if they agree in everything."""
    users, movies = (sorted({row[k] for row in table.ratings}) for k in (0, 1))
    if {len(row) for row in table.ratings} != {4}:
        return ["the oracle is broken"]
    stars = [row[2] for row in table.ratings]
    names = [table.titles.get(movie, (str(movie), "")) for movie in movies]
    by_movie: dict[Any, list[float]] = {movie: [] for movie in movies}
    for row in table.ratings:
        by_movie[row[1]].append(row[2])
    values = sorted(set(stars))
    steps = [b - a for a, b in pairwise(values)]
    step = max(min(steps), (values[-1] - values[0]) / 10) if steps else 1.0
    report, dropped = found.report, Counter(rule_column(rule) for rule, count in found.report.reasons.items() for _ in range(count))
    pairs = {
        "user_ids": (found.user_ids.tolist(), users),
        "movie_id": (found.movies["movie_id"].tolist(), movies),
        "users": (found.user_ids[found.user_idx].tolist(), [row[0] for row in table.ratings]),
        "movies": (found.movies["movie_id"].to_numpy()[found.movie_idx].tolist(), [row[1] for row in table.ratings]),
        "rating": (found.rating.tolist(), stars),
        "timestamp": (found.timestamp is not None and found.timestamp.tolist(), [r[3] for r in table.ratings if r[3] is not None] or False),
        "raw_title": (found.movies["raw_title"].tolist(), [raw for raw, _ in names]),
        "title": (found.movies["title"].tolist(), [parse_title(raw)[0] for raw, _ in names]),
        "genres": (found.movies["genres"].tolist(), [genres for _, genres in names]),
        "n_ratings": (found.movies["n_ratings"].tolist(), [len(by_movie[movie]) for movie in movies]),
        "types": ([str(a.dtype) for a in (found.user_idx, found.movie_idx, found.rating)], ["int32", "int32", "float32"]),
        "rows": (report.n_rows, table.n_rows),
        "used": (report.n_used, len(table.ratings)),
        "duplicates": (report.n_duplicates, table.n_duplicates),
        "dropped": (report.n_dropped, sum(table.dropped.values())),
        "reasons": (dropped, table.dropped),
        "sum of rows": (report.n_used + report.n_dropped + report.n_duplicates, table.n_rows),
        "scale": (found.scale[:2], (values[0], values[-1])),
    }
    wrong = [f"{what}: {a!r:.300} instead of {b!r:.300}" for what, (a, b) in pairs.items() if a != b]
    if wrong:
        return wrong
    means = [math.fsum(by_movie[movie]) / len(by_movie[movie]) for movie in movies]
    if not np.allclose(found.movies["mean_rating"], means, rtol=1e-5, atol=1e-6):
        wrong.append("mean_rating")
    if not math.isclose(found.scale[2], step, rel_tol=1e-6):
        wrong.append(f"step: {found.scale[2]} instead of {step}")
    return wrong


def rule_column(rule: str) -> str:
    """The column that a reason in a report is about."""
    return rule.split(" ", 1)[0]
