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

from cfrec.columns import Layout, find_layout
from cfrec.tables import MOVIE_TABLE_ROLES, find_roles, find_separator
from cfrec.titles import parse_title

LINE_END = re.compile(r"\r\n|\r|\n")
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


def read(data: bytes, *, drop_bad: bool) -> Table:
    """Raises RefusedError, or whatever error of cfrec says that there is no layout."""
    text = decode(data)
    layout = find_layout("\n".join(LINE_END.split(text)), "oracle")
    rows, table = [], Table()
    skip_header = layout.header
    for line, cells in cut(text, layout.separator):
        if all(not cell.strip() for cell in cells):
            continue
        if skip_header:
            skip_header = False
            continue
        table.n_rows += 1
        try:
            rows.append(parse(cells, layout, line))
        except RefusedError as error:
            if error.column is None or not drop_bad:
                raise
            table.dropped[error.column] += 1
    fill(table, rows)
    return table


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
    text = text.replace("\ufeff", "")  # marks of files that were joined
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


def cut(text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    lines = LINE_END.split(text)
    quoting = separator not in ("::", "\t", "|") or (
        separator != "::"
        and any(len(cell) >= 2 and cell[0] == cell[-1] == '"' and '"' not in cell[1:-1] for line in lines for cell in line.split(separator))
    )
    for number, line in enumerate(lines, 1):
        yield number, cut_line(line, separator, number) if quoting else line.split(separator)


def cut_line(line: str, separator: str, number: int) -> list[str]:
    """The rules of CSV: a field in quotation marks may hold separators, and quotation marks that are doubled; no field spans lines.

    A line in which a field goes on behind its closing quotation mark is returned whole: it has too few fields then.
    """
    cells, at, stray = [], 0, False
    while True:
        while separator == " " and line[at : at + 1] == " ":
            at += 1
        if line[at : at + 1] == '"':
            cell, at = "", at + 1
            while True:
                end = line.find('"', at)
                if end < 0:
                    raise RefusedError("a quotation mark is left open", number)
                cell += line[at:end]
                at = end + 1
                if line[at : at + 1] != '"':
                    break
                cell, at = cell + '"', at + 1
            if line[at : at + 1] not in ("", separator):
                stray = True
                end = line.find(separator, at)
                at = len(line) if end < 0 else end
        else:
            end = line.find(separator, at)
            end = len(line) if end < 0 else end
            cell, at = line[at:end], end
        cells.append(cell)
        if at == len(line):
            return [line] if stray else cells
        at += len(separator)


def parse(cells: list[str], layout: Layout, line: int) -> dict[str, Any]:
    if len(cells) != layout.n_fields:
        raise RefusedError("fields", line, "row")
    row: dict[str, Any] = {role: cells[k].strip() for role, k in layout.roles.items()}
    for role in ("user", "movie"):
        if row[role] == "":
            raise RefusedError("empty", line, role)
    row["rating"] = number(row["rating"].replace(",", ".") if layout.separator == ";" else row["rating"], line)
    if "timestamp" in row:
        row["timestamp"] = moment(row["timestamp"], line)
    return row


def number(cell: str, line: int) -> float:
    try:
        value = Decimal(cell)
    except InvalidOperation:
        value = Decimal("nan")
    if "_" in cell or not value.is_finite() or abs(value) > 1000:
        raise RefusedError("no number", line, "rating")
    return float(np.float32(float(value)))


def moment(cell: str, line: int) -> int:
    digits = cell.partition(".")
    if re.fullmatch("-?[0-9]+", digits[0]) and not digits[2].strip("0") and len(digits[0].lstrip("-0")) < 20:
        value = int(digits[0].lstrip("-").lstrip("0") or "0") * (-1 if digits[0][0] == "-" else 1)
        if SMALLEST_INT <= value <= LARGEST_INT:
            return value
    try:
        when = datetime.fromisoformat(cell)
    except ValueError as error:
        raise RefusedError("no time", line, "timestamp") from error
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
        if row.get("title") and movie not in table.titles:
            table.titles[movie] = name(row)


def read_titles(data: bytes) -> dict[int, tuple[str, str]]:
    """A table of movies with a header: integer id -> (title with year, genres). Raises as ``read`` does."""
    text = decode(data)
    separator = find_separator("\n".join(LINE_END.split(text)))
    rows = ((line, [cell.strip() for cell in cells]) for line, cells in cut(text, separator) if any(cell.strip() for cell in cells))
    _, header = next(rows)
    roles = find_roles(header, MOVIE_TABLE_ROLES)
    if not {"movie", "title"} <= roles.keys():
        raise RefusedError("no columns")
    titles = {}
    for line, cells in rows:
        if len(cells) != len(header):
            raise RefusedError("fields", line)
        row = {role: cells[k] for role, k in roles.items()}
        whole, _, zeros = row["movie"].partition(".")
        if whole.isascii() and whole.isdigit() and not zeros.strip("0"):
            titles[int(whole.lstrip("0") or "0")] = name(row | {"title": row["title"] or row["movie"]})
    return titles


def name(row: dict[str, str]) -> tuple[str, str]:
    title, year = row["title"], row.get("year", "")
    if "." in year and not year.rpartition(".")[2].strip("0"):
        year = year.rpartition(".")[0]
    if year and not title.endswith(f"({year})"):
        title += f" ({year})"
    genres = row.get("genres", "")
    parts = [] if genres.startswith("(no ") else [part.strip() for part in re.sub("[,;/]", "|", genres).split("|")]
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
