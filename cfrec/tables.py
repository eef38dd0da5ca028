"""Rows of delimited text -> columns of distinct texts: quotation marks, rows that cannot be cut, and the line that each stands on.

pyarrow cuts the rows, in threads. Cells come out as dictionaries of distinct texts, since what a column holds is judged
once for each distinct text. Files whose quotation marks break the rules of CSV are cut line by line, which is slower.
"""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from cfrec.errors import DataError
from cfrec.layouts import COMMENT, Layout, csv_reader
from cfrec.memory import check_fits
from cfrec.pieces import for_each, slices

if TYPE_CHECKING:
    import pyarrow as pa

_BLOCK = 4 << 20  # bytes that a thread cuts in one go
_PIECE = 16 << 20  # bytes
_SLOW_TEXT, _SLOW_ROW, _SLOW_CELL = 6, 180, 100  # bytes of memory for a byte, a row and a cell that is cut slowly: upper estimates
_MOST_SKIPPED = 10_000  # rows that are kept in mind
_MOST_LINES = 500  # that a quoted cell may span where the file breaks the rules of CSV elsewhere
_UNITS = "\x1f\x1e\x1d\x1c\x02\x01"  # one that is not in the text stands for "::", which pyarrow cannot cut at


class RowError(DataError):
    """One row breaks a rule."""

    def __init__(self, file: str, line: int, column: str, value: str, rule: str, *, unit: str = "line") -> None:
        where = f"{file}, {unit} {line}" + (f", column {column}" if column else "")
        super().__init__(f"{where}: {value[:60]!r} {rule}. Correct the row, or leave out bad rows.")
        self.line, self.column, self.value, self.rule = line, column, value, rule


@dataclass(frozen=True)
class Grid:
    """Columns of text, dictionary-encoded (or integers, of times), of equal length; rows that could not be cut are in ``reasons``."""

    name: str
    columns: Mapping[int, Any]
    n_rows: int
    reasons: Counter[str]  # rule -> rows
    line_of: Callable[[int], int]  # the line that a row stands on
    first_invalid: Callable[[], RowError] | None = None  # the first row that could not be cut
    unit: str = "line"
    decimal_comma: bool = False  # whether a comma can only be a decimal point

    def error(self, row: int, column: str, value: str, rule: str) -> RowError:
        """The error for this row, which names its line."""
        return RowError(self.name, self.line_of(row), column, value, rule, unit=self.unit)


@dataclass(frozen=True)
class _Rows:
    """The rows of a text, below its header; ``separator`` is one byte, whatever the file's own is."""

    data: bytes | memoryview
    name: str
    layout: Layout
    separator: str
    quoted: bool  # whether there are quotation marks that enclose cells

    def shown(self, text: str) -> str:
        """The beginning of a row as it stands in the file."""
        return text[:200].replace(self.separator, self.layout.separator)


def read_grid(data: bytes, name: str, layout: Layout, used: list[int], times: int | None = None) -> Grid:
    """Cut the rows and keep these columns, that of times as integers if it holds nothing else; rows that cannot be cut are counted."""
    body: bytes | memoryview = memoryview(data)[layout.begin :]  # a copy would take as long as a third of cutting it
    separator, quoted = layout.separator, layout.quoting and data.find(b'"', layout.begin) >= 0
    if separator == "::":
        separator = next((unit for unit in _UNITS if data.find(unit.encode()) < 0), _UNITS[0])
        body = bytes(body).replace(b"::", separator.encode())
    if separator == " " and data.find(b'"', layout.begin) < 0:
        body = re.sub(rb"\A +|(?<=[\r\n]) +| +(?=[\r\n]|\Z)", b"", re.sub(rb" {2,}", b" ", body))
    regular = not quoted or quotes_are_regular(body, separator)
    if not regular and quotes_are_regular(plain := bytes(body).replace(b'\\"', b'""'), separator):
        body, regular = plain, True  # marks that a backslash takes out of their meaning, as MySQL writes them
    rows = _Rows(body, name, layout, separator, quoted)
    if not regular or (separator == " " and re.search(rb"\A |[\r\n ] ", body)):
        return _cut_slowly(rows, used)
    return _cut(rows, used, times)


def quotes_are_regular(body: bytes | memoryview, separator: str) -> bool:
    """Whether each quotation mark begins or ends a cell, or is doubled within one; by pieces."""
    codes, n_before = np.frombuffer(body, np.uint8), 0
    ends = np.zeros(256, bool)
    ends[[ord(separator), 10, 13, 34]] = True
    for part in slices(len(codes), _PIECE):
        marks = np.flatnonzero(codes[part] == 34) + part.start
        opening, closing = marks[n_before % 2 :: 2], marks[1 - n_before % 2 :: 2]
        n_before += len(marks)
        if not (ends[codes[opening[opening > 0] - 1]].all() and ends[codes[closing[closing < len(codes) - 1] + 1]].all()):
            return False
    return n_before % 2 == 0


def _is_blank(text: str, separator: str) -> bool:
    """Whether a row says nothing: it is empty but for separators, or a comment."""
    return not text.replace(separator, "").strip() or COMMENT.match(text) is not None


def _cut(rows: _Rows, used: list[int], times: int | None) -> Grid:
    """Cut the rows by pyarrow, in threads."""
    import pyarrow as pa

    cut = _Cut(rows, used, times)
    try:
        table = cut.read_first()
    except pa.ArrowInvalid:  # a row is longer than a block
        return _cut_slowly(rows, used)
    columns = dict(zip(used, for_each(lambda k: combined(table.column(str(k))), used), strict=True))
    reasons = Counter(cut.reasons)
    first = cut.first_invalid if reasons else None
    return Grid(rows.name, columns, table.num_rows, reasons, cut.line_of, first, decimal_comma=rows.layout.separator == ";")


class _Cut:
    """pyarrow's reader, and what it did not read: rows of too few or too many fields."""

    def __init__(self, rows: _Rows, used: list[int], times: int | None) -> None:
        import pyarrow as pa

        self.rows, self.times = rows, None if times is None else str(times)
        self.types = {str(k): pa.dictionary(pa.int32(), pa.string()) for k in used}
        sample = [row[times].strip() for row in rows.layout.sample if len(row) > times] if times is not None else []
        if times is not None and all(re.fullmatch(r"-?\d{1,18}", cell) for cell in sample):
            self.types[str(times)] = pa.int64()  # there are about as many times as rows: too many to look at each text
        self.skipped: list[tuple[int, int, str]] = []  # number of the row where it is known, fields, text
        self.reasons: Counter[str] = Counter()

    def read_first(self) -> pa.Table:
        """The table; times are text if they are not all integers. Raises ArrowInvalid where a row is too long."""
        import pyarrow as pa

        try:
            table = self._read(threads=True)
            if self.times is None or self.types[self.times] != pa.int64() or not table.column(self.times).null_count:
                return table
        except pa.ArrowInvalid:
            if self.times is None or self.types[self.times] != pa.int64():
                raise
        self.types[self.times] = pa.dictionary(pa.int32(), pa.string())
        return self._read(threads=True)

    def _read(self, *, threads: bool) -> pa.Table:
        import pyarrow as pa
        import pyarrow.csv as arrow_csv

        self.skipped.clear()
        self.reasons.clear()
        layout = self.rows.layout
        names = [str(k) for k in range(layout.n_fields)]
        return arrow_csv.read_csv(
            pa.BufferReader(self.rows.data),
            arrow_csv.ReadOptions(column_names=names, use_threads=threads, block_size=_BLOCK),
            arrow_csv.ParseOptions(
                delimiter=self.rows.separator,
                quote_char='"' if layout.quoting else False,
                newlines_in_values=layout.quoting,
                invalid_row_handler=self._skip,
            ),
            arrow_csv.ConvertOptions(column_types=self.types, include_columns=list(self.types)),
            memory_pool=pa.system_memory_pool(),  # Arrow's own gives memory back and asks for it anew: half a second of 8 million rows
        )

    def _skip(self, row: Any) -> str:
        if not _is_blank(row.text, self.rows.separator):
            self.reasons[f"row {_wrong_fields(row.actual_columns, self.rows.layout.n_fields)}"] += 1
        if len(self.skipped) < _MOST_SKIPPED or row.number is not None:  # threads do not know the numbers
            self.skipped.append((row.number or 0, row.actual_columns, self.rows.shown(row.text)))
        return "skip"

    @cached_property
    def numbered(self) -> list[tuple[int, int, str]]:
        """What was skipped, with the numbers of the rows: they are counted by reading all once more."""
        self._read(threads=False)
        return list(self.skipped)

    def line_of(self, row: int) -> int:
        """The line on which a row of the table stands."""
        for number, _, _ in self.numbered if self.skipped else []:
            row += number - 1 <= row
        return _line_of(self.rows, row)

    def first_invalid(self) -> RowError:
        """The error for the first row that was skipped, and is not blank."""
        number, n_found, text = next(entry for entry in self.numbered if not _is_blank(entry[2], self.rows.separator))
        return RowError(self.rows.name, _line_of(self.rows, number - 1), "", text, _wrong_fields(n_found, self.rows.layout.n_fields))


def _wrong_fields(n_found: int, n_expected: int) -> str:
    return f"has {n_found} fields where {n_expected} are expected"


def combined(column: pa.ChunkedArray) -> pa.Array:
    """A column in one piece."""
    import pyarrow as pa

    pool = pa.system_memory_pool()
    chunks = column.unify_dictionaries(memory_pool=pool).combine_chunks(memory_pool=pool)
    if isinstance(chunks, pa.ChunkedArray):
        chunks = chunks.chunk(0) if chunks.num_chunks else pa.array([], column.type)
    return chunks


def _line_of(rows: _Rows, row: int) -> int:
    """The line on which the k-th row stands; blank lines are no rows."""
    body, layout = rows.data, rows.layout
    if not rows.quoted and not re.search(rb"\A[\r\n]|\n[\r\n]|\r\r", body):
        return layout.line + row
    codes = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero((codes == 10) | ((codes == 13) & (np.append(codes[1:], 0) != 10)))
    starts = np.append(0, ends + 1)
    starts = starts[starts < len(codes)]
    if rows.quoted:  # an end of line within a cell begins no row
        marks = np.flatnonzero(codes == 34)
        within = np.searchsorted(marks, starts) % 2 == 1
    else:
        within = np.zeros(len(starts), bool)
    blank = np.isin(codes[starts], (10, 13)) & ~within
    return layout.line + int(np.flatnonzero(~within & ~blank)[row])


def _cut_slowly(rows: _Rows, used: list[int]) -> Grid:
    """Cut row by row: for files whose quotation marks break the rules, so that no row is taken for part of another."""
    import pyarrow as pa

    layout, name = rows.layout, rows.name
    body = bytes(rows.data)
    check_fits(_SLOW_TEXT * len(body) + (_SLOW_ROW + _SLOW_CELL * len(used)) * max(body.count(b"\n"), body.count(b"\r")), name)
    cells: list[list[str]] = [[] for _ in used]
    lines: list[int] = []
    errors: list[RowError] = []
    reasons: Counter[str] = Counter()
    for line, text, row in _records(body.decode("utf-8", "replace"), rows.separator, quoting=layout.quoting):
        if isinstance(row, str) or len(row) != layout.n_fields:
            if _is_blank(text, rows.separator):
                continue
            rule = row if isinstance(row, str) else _wrong_fields(len(row), layout.n_fields)
            errors = errors or [RowError(name, layout.line + line, "", rows.shown(text), rule)]
            reasons[f"row {rule}"] += 1
            continue
        lines.append(layout.line + line)
        for column, k in zip(cells, used, strict=True):
            column.append(row[k])
    columns = {k: pa.array(column, pa.string()).dictionary_encode() for k, column in zip(used, cells, strict=True)}
    first = (lambda: errors[0]) if errors else None
    return Grid(name, columns, len(lines), reasons, lines.__getitem__, first, decimal_comma=layout.separator == ";")


def _records(text: str, separator: str, *, quoting: bool) -> Iterator[tuple[int, str, list[str] | str]]:
    """Line (from 0), text, and cells of each row, or the rule that it breaks."""
    lines = re.split(r"\r\n|\r|\n", text)
    s = re.escape(separator)
    field = rf'(?:"[^"]*(?:""[^"]*)*"|[^"{s}][^{s}]*)?'
    gap = " +" if separator == " " else s
    well_formed = re.compile(rf"(?:{' *' if separator == ' ' else ''}){field}(?:{gap}{field})*")
    at = 0
    while at < len(lines):
        record, n = lines[at], 1
        whole = '"' not in record or not quoting or well_formed.fullmatch(record) is not None
        if not whole and record.count('"') % 2:  # perhaps a cell goes on in the next line
            record, n, whole = _joined(lines, at, well_formed)
        if whole:
            try:
                yield at, record, next(csv_reader(iter([record]), separator, quoting=quoting), []) if record else []
            except csv.Error:
                yield at, record, "has a field that is too long"
        else:
            is_open = lines[at].count('"') % 2
            yield at, lines[at], "opens a quotation mark and does not close it" if is_open else "has a quotation mark inside a field"
        at += n


def _joined(lines: list[str], at: int, well_formed: re.Pattern[str]) -> tuple[str, int, bool]:
    """The lines from ``at`` on as one row, if they are one by the rules of CSV; how many they are."""
    record = lines[at]
    for n in range(1, min(_MOST_LINES, len(lines) - at)):
        record += "\n" + lines[at + n]
        if record.count('"') % 2 == 0:
            return (record, n + 1, True) if well_formed.fullmatch(record) else (lines[at], 1, False)
    return lines[at], 1, False
