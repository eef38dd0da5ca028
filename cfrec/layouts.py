"""The beginning of a text -> how it is laid out: encoding, separator, header, and where the rows begin."""

from __future__ import annotations

import csv
import io
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice, pairwise
from typing import Any

from cfrec.errors import DataError
from cfrec.roles import MISSING, names_known

UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
COMMENT = re.compile(r"\s*(?:#|%|//)")
_HEAD = 1 << 18  # bytes in which separator, header and first rows are looked for
_SAMPLE = 1_000  # rows
_LONGEST = 8 << 20  # characters in which a first row is looked for
_SEPARATORS = ("::", "\t", ";", ",", "|", " ")
_WEB_PAGE = ("<!doctype", "<html", "<?xml")


@dataclass(frozen=True)
class Layout:
    """Where the rows of a text begin and how they are cut; ``header`` is None where the first row is data already."""

    separator: str
    header: tuple[str, ...] | None
    n_fields: int
    begin: int  # byte
    line: int  # of the first row, from 1
    quoting: bool
    sample: list[list[str]]
    passed_over: int = 0  # lines of text above the table


def to_utf8(data: bytes, name: str) -> tuple[bytes, str]:
    """A text file as UTF-8, and what to say of how it was encoded: UTF-16 with a mark, or Windows' or ISO's Latin. Marks are left out.

    Raises
    ------
    DataError
        The file is empty, is binary, is a web page, or mixes encodings.
    """
    remark = ""
    if not data.isascii():
        text, remark = _decode(data, name)
        data = text.replace("\ufeff", "").encode("utf-8", "replace")  # files that were joined have one in the middle
    data = data.removesuffix(b"\x1a")  # how old programs end a text
    if not data or data.isspace():
        raise DataError(f"{name} is empty. It needs rows of user, movie and rating.")
    if b"\0" in data:
        raise DataError(f"{name} is not a text file (it holds NUL bytes). Save it as CSV and try again.")
    if data.lstrip()[:15].lower().startswith(tuple(mark.encode() for mark in _WEB_PAGE)):
        raise DataError(f"{name} is a web page, not a table. The download probably went wrong: fetch the file itself.")
    return data, remark


def _decode(data: bytes, name: str) -> tuple[str, str]:
    if data.startswith(UTF_16_MARKS):
        try:
            return data.decode("utf-16"), ""
        except UnicodeDecodeError as error:
            line = data[: error.start].decode("utf-16", errors="replace").count("\n") + 1
            raise DataError(
                f"{name}, line {line}: the file begins as UTF-16, but is damaged here. Save it as UTF-8 and try again."
            ) from error
    try:
        return data.decode(), ""
    except UnicodeDecodeError as error:
        if re.search(rb"[\xc2-\xdf][\x80-\xbf](?![\x80-\xbf])|[\xe0-\xef][\x80-\xbf]{2}", data):
            line = data.count(b"\n", 0, error.start) + 1
            raise DataError(
                f"{name}, line {line}: the file is UTF-8 but for a byte here. Save the whole file as UTF-8 and try again."
            ) from error
    remark = f"{name} is not UTF-8 and was read as Windows' Latin: if titles look wrong, save it as UTF-8."
    try:
        return data.decode("cp1252"), remark
    except UnicodeDecodeError:
        return data.decode("latin-1"), remark


def find_layout(data: bytes, name: str, header: bool | None = None) -> Layout:
    """Separator, header and beginning of the rows, from the first lines.

    Parameters
    ----------
    data : bytes
        As from ``to_utf8``.
    name : str
        What to call the file in messages.
    header : bool, optional
        Whether the first row names the columns; found out where left out.
    """
    top = _Top(data)
    if re.match(r"\d+:\s*$", top.first_line()):
        how = "Write the film's number in front of each line: film,user,rating,date"
        raise DataError(f"{name} is in the Netflix Prize's own form, a film's number above its ratings. {how}.")
    told = top.drop_comments()
    separator = told if told in _SEPARATORS else _find_separator(top.text)
    quoting = _has_quotes(data, separator)
    rows = _sample(top.text, separator, quoting=quoting)
    if not rows:
        raise DataError(f"{name} has no rows. It needs rows of user, movie and rating.")
    n_fields, passed_over = _usual([len(row) for row in rows]), 0
    while len(rows) > 2 and sum(cell.strip() != "" for cell in rows[0]) < min(n_fields, 3) and not names_known(rows[0]):
        top.drop(top.first_line())  # a line of text above the table
        rows, passed_over = _sample(top.text, separator, quoting=quoting), passed_over + 1
    names = _header(rows, n_fields) if header is None else rows[0] if header else None
    if names is not None:
        top.drop(_first_record(top.text, quoting=quoting))
        rows = rows[1:]
        names = _fitted(names, rows, n_fields) if rows else names
        n_fields = len(names)
    return Layout(separator, None if names is None else tuple(names), n_fields, top.begin, top.line, quoting, rows[:_SAMPLE], passed_over)


class _Top:
    """The first lines of a text, from which what stands above the rows is taken away; and where in the file the rest begins."""

    def __init__(self, data: bytes) -> None:
        blank = len(data) - len(data.lstrip(b"\r\n \t"))
        self.begin = max(data.rfind(b"\n", 0, blank), data.rfind(b"\r", 0, blank)) + 1  # a line may begin with a separator
        self.line = 1 + _n_lines(data[: self.begin])
        self.text = _whole_lines(data, self.begin)

    def first_line(self) -> str:
        """The first line with its end."""
        return _first_line(self.text)

    def drop(self, text: str) -> None:
        """Take this away, with which the text begins."""
        self.begin, self.line = self.begin + len(text.encode()), self.line + _n_lines(text.encode())
        self.text = self.text[len(text) :]

    def drop_comments(self) -> str | None:
        """Take away comments, and what tells how large a matrix is; returns the separator that Excel's first line names."""
        told, is_matrix = None, self.text.startswith("%%MatrixMarket")
        while (first := self.first_line()) and (COMMENT.match(first) or re.fullmatch(r'"?sep=.+', first.strip()) or not first.strip()):
            told = first.strip().strip('"')[4:] if first.startswith(("sep=", '"sep=')) else told
            self.drop(first)
        if is_matrix:
            self.drop(self.first_line())
        return told


def _whole_lines(data: bytes, begin: int) -> str:
    """The first lines as text; a longer one than the head is taken whole."""
    head = data[begin : begin + _HEAD]
    if begin + _HEAD < len(data):
        end = max(head.rfind(b"\n"), head.rfind(b"\r"))
        if end < 0:
            end = data.find(b"\n", begin)
            return data[begin : end + 1 if end >= 0 else len(data)].decode("utf-8", "replace")
        head = head[: end + 1]
    return head.decode("utf-8", "replace")


def _n_lines(data: bytes) -> int:
    return len(re.findall(rb"\r\n|\r|\n", data))


def _first_line(text: str) -> str:
    found = re.match(r"[^\r\n]*(?:\r\n|\r|\n|$)", text)
    return found[0] if found else ""


def _find_separator(text: str) -> str:
    """The separator that gives known names of columns, or cuts most rows into equally many fields, three or more; else most fields.

    A blank is one where no other cuts the rows: names and titles hold blanks.
    """

    def quality(separator: str) -> tuple[int, bool, float]:
        rows = _sample(text, separator, quoting=True, most=100)
        counts = [len(row) for row in rows]
        usual = _usual(counts) if counts else 0
        share = counts.count(usual) / len(counts) if counts else 0.0
        consistent = usual >= 3 and share >= 0.75
        return names_known(rows[0]) if rows and usual > 1 else 0, consistent, share if consistent else float(usual)

    best = max(_SEPARATORS[:-1], key=quality)
    return best if quality(best)[1] else max(_SEPARATORS, key=quality)


def _usual(counts: list[int]) -> int:
    return Counter(counts).most_common(1)[0][0]


def _has_quotes(data: bytes, separator: str) -> bool:
    """Whether quotation marks enclose cells. Tables with tabs or bars seldom quote theirs, and their titles hold marks of their own."""
    if separator == "::" or b'"' not in data:
        return False
    s = re.escape(separator.encode())
    return separator not in "\t|" or re.search(rb'(?:^|%s|\r)"[^"%s\r\n]*"(?:%s|\r|$)' % (s, s, s), data, re.MULTILINE) is not None


def csv_reader(lines: Iterator[str], separator: str, *, quoting: bool) -> Any:
    """Python's own reader, which stops at nothing."""
    style = csv.QUOTE_MINIMAL if quoting else csv.QUOTE_NONE
    return csv.reader(lines, delimiter=separator, quoting=style, skipinitialspace=separator == " ")  # type: ignore[arg-type]


def _sample(text: str, separator: str, *, quoting: bool, most: int = _SAMPLE + 1) -> list[list[str]]:
    """The first rows that are not blank."""
    lines: Any = io.StringIO(text, newline=None)
    if separator == " " and '"' not in text:
        lines = (line.strip(" \n") for line in lines)
    if separator == "::":
        rows: Any = (line.rstrip("\n").split("::") for line in lines)
    else:
        rows = csv_reader(lines, separator, quoting=quoting)
    try:
        return list(islice((row for row in rows if any(cell.strip() for cell in row)), most))
    except csv.Error:  # a field of more than 131,072 characters: the rows above it are enough to tell
        return _sample(text[: text.find("\n", len(text) // 2) + 1], separator, quoting=quoting, most=most) if len(text) > _LONGEST else []


def _first_record(text: str, *, quoting: bool) -> str:
    """The first row that is not blank, with what is above it; a quoted name may hold a line end."""
    size = 0
    while (first := _first_line(text[size:])) and not first.strip():
        size += len(first)
    while first := _first_line(text[size:]):
        size += len(first)
        if not quoting or text[:size].count('"') % 2 == 0:
            break
    return text[:size]


def is_number(cell: str) -> bool:
    """Whether this is a number, also with a decimal comma."""
    return re.fullmatch(r"\s*[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?\s*", cell) is not None


def _header(rows: list[list[str]], n_fields: int) -> list[str] | None:
    """The names in the first row; None where it is data."""
    first = rows[0]
    known = names_known(first)
    if known >= 3 or (known and not any(is_number(cell) for cell in first)):  # a person may be called "user", and a film "Film"
        return first
    below = rows[1:]
    numbers = [cell for cell in first[1:] if is_number(cell)]
    if len(numbers) >= max(8, len(first) - 3) and _ascends(numbers) and not any(_ascends(row[1:]) for row in below[:5]):
        return first  # a pivot table's films or users, by number; and perhaps their sum
    numeric = [
        k
        for k in range(min(n_fields, len(first)))
        if below and all(len(row) <= k or not row[k].strip() or is_number(row[k]) or row[k].strip().casefold() in MISSING for row in below)
    ]
    if numeric and len(first) >= 3 and not any(is_number(first[k]) or (k and not first[k].strip()) for k in numeric):
        return first
    return None


def _ascends(cells: list[str]) -> bool:
    """Whether these are whole numbers, each above the last."""
    if not all(cell.strip().isdecimal() for cell in cells):
        return False
    numbers = [int(cell) for cell in cells]
    return all(a < b for a, b in pairwise(numbers))


def _fitted(names: list[str], rows: list[list[str]], n_fields: int) -> list[str]:
    """The names for rows of ``n_fields``: R leaves out the name of its row numbers; some programs end rows with a separator."""
    if len(names) == n_fields - 1:
        firsts = [row[0] for row in rows if len(row) == n_fields]
        if len(set(firsts)) == len(firsts) > 1:
            return ["", *names]
        if all(not row[-1].strip() for row in rows if len(row) == n_fields):
            return [*names, ""]
    return names
