"""Made-up files of ratings, and what may become of them on their way: the corpus of D2."""

from __future__ import annotations

import csv
import io
import random

SEPARATORS = [",", ",", ",", ";", "\t", "|", "::", " "]
HEADERS = [
    ["userId", "movieId", "rating"],
    ["user_id", "item_id", "score"],
    ["User ID", "Film", "Stars"],
    ["user:token", "item", "rating:float"],
]
PLAIN_CELLS = """
    0 1 -1 -0 00 -3 10 2147483647 2147483648 -2147483647 -2147483648 999999999999999999 1000000000000000000 9223372036854775807
    9223372036854775808 -9223372036854775808 1000 1000.000000000000 1000.000000000001 -1000 1001 2.675 0.1 0.7 4.35 3.33 3.333333333333
    3.3333333333333 0.000000000001 -0.5 -0.0 5. .5 -.5 . - 0.30000000000000004 1.0000000596046447 1.000000059604644775390625
    1.00000017881393432617187500000001 16.00000095367431640625
"""
STRANGE_CELLS = """
    0 -0 00 007 -7 +7 7.0 7. .5 -.5 1e2 1e5 1e400 -1e400 1e-400 1_000 nan inf 0x10 ٣ １２ 1² 2147483648 9223372036854775807
    9223372036854775808 -9223372036854775808 -9223372036854775809 1000 1000.0000000000001 -1000 1001 4,5 1.000,5 3.3333333333333333333
    1998-04-22 1998-04-22T01:00:00+02:00 20200101 0001-01-01 9999-12-31T23:59:59.999999-23:59 881250949.0 881250949.5
    ann é ' NULL None true =1+1 # //
"""
STRANGE_TEXT = """, ; | :: : " "" ' 0 - . e5 + _ é ٣ 🎬 99999999999999999999 <html>"""
PLAIN_CELLS, STRANGE_CELLS, STRANGE_TEXT = (words.split() for words in (PLAIN_CELLS, STRANGE_CELLS, STRANGE_TEXT))
STRANGE_CELLS += ["", " ", "a b", "3 000", "\xa05", "5\u200b", "\ufeff5", "\x1a", "\x0b7", "5\x85"]
STRANGE_CELLS += ["9" * 30, "0" * 40 + "5", "0" * 5_000, "x" * 300]
STRANGE_TEXT += ["\t", " ", "\n", "\r", "\r\n", "\n\n", "\0", "\ufeff", "\x1a", "\u2028", "\n,,\n", "\n \n", "\x85", "\x0c"]
STRANGE_STARTS = ["\n", "\n" * 25, " " * 21_000, "\n" * 21_000, "\ufeff", "sep=,\n", "# ratings\n", '"', ",,\n", "\t\n", "\r"]
STRANGE_STARTS += ["x" * 25_000 + "\n", "userId,movieId,rating\n", "user\titem\trating\n", "<?xml?>", "<!DOCTYPE html><html><p>404</p>\n"]


def make(seed: int) -> bytes:
    """A file of ratings, clean or with a few mutations; two of five are plain numbers: what compiled code reads."""
    rng = random.Random(seed)
    plain = rng.random() < 0.4
    separator = rng.choice(SEPARATORS[:-1] if plain else SEPARATORS)
    rows = _rows(rng, separator, plain=plain)
    for _ in range(rng.choice([0, 0, 0, 1, 1, 2])):
        _change_a_row(rng, rows, PLAIN_CELLS if plain and rng.random() < 0.8 else STRANGE_CELLS)
    if plain:
        end = rng.choice(["\n", "\r\n"])
        text = end.join(separator.join(row) for row in rows) + rng.choice(["", end, end * 2])
    else:
        text = _write(rng, rows, separator)
    for _ in range(rng.choice([0, 0, 0, 0, 1, 1, 2])):
        at = rng.randrange(len(text) + 1)
        text = text[:at] + rng.choice([*STRANGE_TEXT, separator]) + text[at + rng.randint(0, 2) :]
    if rng.random() < 0.06:
        text = rng.choice(STRANGE_STARTS) + text
    data = bytearray(text.encode() if plain else _encode(rng, text))
    for _ in range(rng.choice([0] * 8 + [1, 2])):
        _change_a_byte(rng, data)
    return bytes(data)


def make_movies(seed: int, movie_ids: range) -> bytes:
    """A table of these movies, clean or with a few mutations."""
    rng = random.Random(seed)
    separator, header = rng.choice(SEPARATORS[:-1]), rng.choice([["movieId", "title", "genres"], ["id", "name", "year"]])
    rows = [header, *([str(k), f"Film {k}, The", "Drama, War" if "genres" in header else "1999"] for k in movie_ids)]
    for _ in range(rng.choice([0, 1, 1, 2])):
        _change_a_row(rng, rows, STRANGE_CELLS)
    data = bytearray(_encode(rng, _write(rng, rows, separator)))
    for _ in range(rng.choice([0, 0, 1])):
        _change_a_byte(rng, data)
    return bytes(data)


def _rows(rng: random.Random, separator: str, *, plain: bool) -> list[list[str]]:
    with_time, with_title, texts = rng.random() < 0.5, not plain and rng.random() < 0.4, not plain and rng.random() < 0.2
    small = rng.random() < 0.7
    stars = rng.choice([["1", "2", "3", "4", "5"], ["0.5", "2.5", "4.0", "5"], ["1", "3.25", "-2", "0", "99.999"]])
    if separator == ";" and rng.random() < 0.5:
        stars = [star.replace(".", ",") for star in stars]
    rows = []
    for _ in range(rng.choice([1, 2, 8, 8, 30])):
        user, movie = rng.randint(1, 9 if small else 10**7), rng.randint(1, 9 if small else 10**12)
        row = [f"u{user}" if texts else str(user), str(movie), rng.choice(stars)]
        if with_time:
            row.append(str(rng.choice([rng.randint(0, 9), rng.randint(8 * 10**8, 2 * 10**9)])))
        if with_title:
            row += [f"Film {movie}, The (19{movie % 90 + 10})", rng.choice(["Drama|War", "Crime, Thriller", "(no genres listed)", ""])]
        rows.append(row)
    if rng.random() < 0.8 or with_title:
        header = rng.choice(HEADERS) + (["timestamp"] if with_time else []) + (["title", "genres"] if with_title else [])
        order = rng.sample(range(len(header)), len(header)) if rng.random() < 0.2 else range(len(header))
        rows = [[row[k] for k in order] for row in [header, *rows]]
    return rows


def _change_a_row(rng: random.Random, rows: list[list[str]], cells: list[str]) -> None:
    k = rng.randrange(len(rows))
    row = rows[k] = list(rows[k])
    kind = rng.choice(["cell", "cell", "cell", "cell", "again", "again", "longer", "shorter", "blank", "gone", "header"])
    if kind == "cell" and row:
        row[rng.randrange(len(row))] = rng.choice(cells)
    elif kind == "again":
        rows.insert(rng.randrange(len(rows)), list(row))
    elif kind == "longer":
        row.insert(rng.randrange(len(row) + 1), rng.choice(["", "9"]))
    elif kind == "shorter" and row:
        row.pop()
    elif kind == "blank":
        rows.insert(k, [])
    elif kind == "gone" and len(rows) > 1:
        rows.pop(k)
    elif kind == "header":
        rows.insert(k, list(rows[0]))


def _write(rng: random.Random, rows: list[list[str]], separator: str) -> str:
    end = rng.choice(["\n", "\n", "\n", "\r\n", "\r\n", "\r"])
    if separator == "::" or rng.random() < 0.2:  # as programs do that know of no quotation marks
        text = end.join(separator.join(row) for row in rows)
    else:
        buffer = io.StringIO()
        quoting = rng.choice([csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC])
        csv.writer(buffer, delimiter=separator, lineterminator=end, quoting=quoting).writerows(rows)
        text = buffer.getvalue().removesuffix(end)
    return text + rng.choice(["", end, end, end * 2])


def _encode(rng: random.Random, text: str) -> bytes:
    encoding = rng.choice(["utf-8"] * 12 + ["utf-8-sig", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "cp1252", "cp1252", "latin-1"])
    mark = {"utf-16-le": b"\xff\xfe", "utf-16-be": b"\xfe\xff"}.get(encoding, b"")
    return (mark if rng.random() < 0.8 else b"") + text.encode(encoding, errors="replace")


def _change_a_byte(rng: random.Random, data: bytearray) -> None:
    if not data:
        return
    at = rng.randrange(len(data))
    kind = rng.choice(["flip", "set", "out", "in", "cut"])
    if kind == "flip":
        data[at] ^= 1 << rng.randrange(8)
    elif kind == "set":
        data[at] = rng.randrange(256)
    elif kind == "out":
        del data[at]
    elif kind == "in":
        data.insert(at, rng.randrange(256))
    else:
        del data[at:]
