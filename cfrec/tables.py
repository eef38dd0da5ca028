"""Delimited text -> rows: encodings, separators, quotation marks and headers."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Iterator, Mapping

from cfrec.errors import DataError

ROLES = {
    "user": ("userid", "user", "uid", "reviewerid", "customerid"),
    "movie": ("movieid", "itemid", "movie", "item", "iid", "filmid", "film", "asin"),
    "rating": ("rating", "score", "stars", "ratings", "userrating"),
    "timestamp": ("timestamp", "time", "date", "unixtime", "ratedat"),
    "title": ("title", "movietitle", "moviename", "itemname", "filmname"),
    "genres": ("genres", "genre", "class", "category", "categories"),
    "year": ("year", "releaseyear"),
}
UTF_16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_SAMPLE = 20_000  # characters in which the separator is looked for
MOVIE_TABLE_ROLES = ROLES | {"movie": (*ROLES["movie"], "id"), "title": (*ROLES["title"], "name")}


def decode(data: bytes, name: str) -> str:
    """Bytes of a text file as text: UTF-8, or UTF-16 with a mark, else Windows' or ISO's Latin. Marks are left out, wherever they are.

    Raises
    ------
    DataError
        The file is empty, is binary, is a web page, or mixes encodings.
    """
    if data.startswith(UTF_16_MARKS):
        text = _decode_utf_16(data, name)
    else:
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            text = _decode_latin(data, name, error.start)
    text = text.replace("\ufeff", "")  # files that were joined have one in the middle
    if not text or text.isspace():
        raise DataError(f"{name} is empty. It needs rows of user, movie and rating.")
    if "\0" in text:
        raise DataError(f"{name} is not a text file (it holds NUL bytes). Save it as CSV and try again.")
    if text.lstrip()[:15].lower().startswith(("<!doctype", "<html", "<?xml")):
        raise DataError(f"{name} is a web page, not a table. The download probably went wrong: fetch the file itself.")
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _decode_utf_16(data: bytes, name: str) -> str:
    try:
        return data.decode("utf-16")
    except UnicodeDecodeError as error:
        line = data[: error.start].decode("utf-16", errors="replace").count("\n") + 1
        raise DataError(f"{name}, line {line}: the file begins as UTF-16, but is damaged here. Save it as UTF-8 and try again.") from error


def _decode_latin(data: bytes, name: str, bad: int) -> str:
    if re.search(rb"[\xc2-\xdf][\x80-\xbf](?![\x80-\xbf])|[\xe0-\xef][\x80-\xbf]{2}", data):
        line = data.count(b"\n", 0, bad) + 1
        raise DataError(f"{name}, line {line}: the file is UTF-8 but for a byte here. Save the whole file as UTF-8 and try again.")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def find_separator(text: str) -> str:
    """The first separator to cut the opening lines into equally many fields, three or more; else the one that cuts most."""
    first = len(text) - len(text.lstrip())
    begin = text.rfind("\n", 0, first) + 1
    lines = [line for line in text[begin : first + _SAMPLE].split("\n")[:20] if line.strip()]
    whole = lines[:-1] if len(lines) > 1 and len(text) > first + _SAMPLE else lines

    def quality(separator: str) -> tuple[bool, int]:
        splits = [next(csv.reader([line], delimiter=separator)) if len(separator) == 1 else line.split(separator) for line in whole]
        counts = [len(row) for row in splits]
        consistent = min(counts) >= 3 and len(set(counts)) == 1
        return consistent, 0 if consistent else Counter(counts).most_common(1)[0][0]

    return max(("::", "\t", ";", ",", "|", " "), key=quality)


def numbered_rows(text: str, separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows with the line each stands on, counted from 1; lines without content are passed over.

    Raises
    ------
    DataError
        A quotation mark is left open: whatever follows it cannot be told apart, so such a file is never read in part.
    """
    for line, row in _split_rows(text, separator, name):
        if _spans_lines(row):
            raise DataError(f"{name}, line {line}: a quotation mark is opened and not closed on this line. Close it, or remove it.")
        if any(cell.strip() for cell in row):
            yield line, row


def _split_rows(text: str, separator: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """Rows of each line; one in which a field goes on behind its closing quotation mark is left whole: no table has a single field."""
    if len(separator) > 1:
        yield from enumerate((content.split(separator) for content in _lines(text)), 1)
        return
    s = re.escape(separator)
    # Tables with tabs or bars seldom quote their fields, and their titles hold quotation marks of their own.
    quotes = separator not in "\t|" or re.search(rf'(?:^|{s})"[^"{s}\n]*"(?:{s}|$)', text, re.MULTILINE)
    field = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{s}][^{s}]*)?'
    well_formed = re.compile(rf"{field}(?:{s}{field})*")
    style = {"delimiter": separator, "quoting": csv.QUOTE_MINIMAL if quotes else csv.QUOTE_NONE, "skipinitialspace": separator == " "}
    content = ""

    def feed() -> Iterator[str]:
        nonlocal content
        for content in _lines(text):
            yield f"{content}\n"

    reader = csv.reader(feed(), **style)  # type: ignore[arg-type]  # mypy takes the style for one type
    line = 1
    try:
        for row in reader:
            is_whole = not quotes or '"' not in content or _spans_lines(row) or well_formed.fullmatch(content)
            yield line, row if is_whole else [content]
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{name}, line {line}: cannot be read as a table ({error}). Is a quotation mark left open?") from error


def _spans_lines(row: list[str]) -> bool:
    return any("\n" in cell for cell in row)


def _lines(text: str) -> Iterator[str]:
    """The lines one by one: together they would take several times the file's memory."""
    start = 0
    while (end := text.find("\n", start)) >= 0:
        yield text[start:end]
        start = end + 1
    yield text[start:]


def find_roles(header: list[str], known: Mapping[str, tuple[str, ...]] = ROLES) -> dict[str, int]:
    """Which column holds what, from the names in a header; empty where it has no name that is known."""
    names = [re.sub(r":(?:token|token_seq|float|float_seq)$", "", cell.strip().casefold()) for cell in header]
    plain = [re.sub(r"[\W_]", "", name) for name in names]
    return {role: plain.index(name) for role, names in known.items() for name in names[::-1] if name in plain}
