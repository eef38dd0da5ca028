"""Data of any format that is read -> columns of text: delimited text, JSON lines, Parquet, and tables in memory."""

from __future__ import annotations

import ast
import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cfrec.errors import DataError
from cfrec.formats import is_arrow, is_json, is_parquet, refuse_unreadable, unpack
from cfrec.layouts import find_layout, to_utf8
from cfrec.memory import check_fits
from cfrec.tables import Grid, RowError, combined, read_grid

if TYPE_CHECKING:
    import pyarrow as pa

_SAMPLE, _FEWEST, _MOST_CELLS = 1_000, 20, 200_000  # rows, and cells, that are looked at to tell what a table in memory is
_HEAD = 1 << 20  # bytes in which rows are counted
_TEXT = 4  # times its bytes: what decoding and cutting a text takes at most; an upper estimate
_OBJECTS = 20  # times its bytes: what Python's own objects of JSON take at most
_LARGEST_EXACT = 2.0**53  # integers beyond it are not all floats
_ROW = 160  # bytes of memory that a row takes beside it


@dataclass(frozen=True)
class Sheet:
    """A table before its rows are read: what its columns are called, how it begins, and how to read those that are used."""

    name: str
    header: tuple[str, ...] | None
    sample: list[list[str]]
    n_fields: int
    read: Callable[[list[int], int | None], Grid]  # columns, and which of them holds times
    remarks: tuple[str, ...] = ()  # what was noticed on the way

    @property
    def names(self) -> tuple[str, ...]:
        """What to call the columns."""
        return tuple(f"column {k + 1}" for k in range(self.n_fields)) if self.header is None else self.header


def open_sheet(data: Any, name: str, *, header: bool | None = None) -> Sheet:
    """Find out what a table is.

    Parameters
    ----------
    data : bytes, or Arrow table
    name : str
        The file's, for messages.
    header : bool, optional
        Whether the first row of a text names the columns; found out where left out.

    Raises
    ------
    DataError
        It is no table: says what it is and what to do.
    """
    if not isinstance(data, bytes):
        return _table_sheet(data, name, "row")
    data, name = unpack(data, name)
    refuse_unreadable(data, name)
    if is_parquet(data) or is_arrow(data):
        return _table_sheet(_read_binary(data, name), name, "row")
    head = data[:_HEAD]
    n_rows = len(data) * max(head.count(b"\n"), head.count(b"\r"), 1) // max(len(head), 1)
    check_fits(_TEXT * len(data) + _ROW * n_rows, name)
    if is_json(data):
        return _json_sheet(data, name)
    text, remark = to_utf8(data, name)
    layout = find_layout(text, name, header)
    above = f"The first {layout.passed_over} lines are no rows of the table, and were passed over." if layout.passed_over else ""

    def read(used: list[int], times: int | None) -> Grid:
        return read_grid(text, name, layout, used, times)

    return Sheet(name, layout.header, layout.sample, layout.n_fields, read, tuple(filter(None, (remark, above))))


def _read_binary(data: bytes, name: str) -> pa.Table:
    import pyarrow as pa
    import pyarrow.feather
    import pyarrow.parquet

    buffer = pa.BufferReader(pa.py_buffer(data))
    try:
        if is_parquet(data):
            file = pyarrow.parquet.ParquetFile(buffer)
            check_fits(sum(file.metadata.row_group(k).total_byte_size for k in range(file.num_row_groups)), name)
            return file.read()
        return pyarrow.feather.read_table(buffer)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{name} is damaged ({str(error)[:100]}). Download or make it again.") from error


def _json_sheet(data: bytes, name: str) -> Sheet:
    """JSON: an object on each line, or one list of objects."""
    import pyarrow as pa
    import pyarrow.json

    if data.lstrip()[:1] == b"{":
        try:
            table = pyarrow.json.read_json(pa.BufferReader(data), read_options=pyarrow.json.ReadOptions(block_size=16 << 20))
            if not any(map(_is_altered, table.columns)):
                return _table_sheet(table, name, "line", line_of=lambda row: _line_of_row(data, row))
        except pa.ArrowException:  # a line is damaged, or a column holds values of several kinds
            pass
    check_fits(_OBJECTS * len(data), name)
    rows: list[dict[str, Any]] = []
    lines: list[int] = []
    errors: list[RowError] = []
    reasons: Counter[str] = Counter()
    for line, row, text in _json_rows(to_utf8(data, name)[0], name):
        if isinstance(row, dict):
            rows.append(row)
            lines.append(line)
        else:
            errors = errors or [RowError(name, line, "", text, "is not an object of JSON")]
            reasons["row is not an object of JSON"] += 1
    if not rows:
        raise DataError(f"{name} is JSON of another shape: it needs a list of objects, or one on each line, with user, movie and rating.")
    keys = list(dict.fromkeys(key for row in rows for key in row))
    table = pa.table({key: pa.array([_text(row.get(key)) for row in rows], pa.string()) for key in keys})
    return _table_sheet(table, name, "line", reasons=reasons, line_of=lines.__getitem__, errors=errors)


def _is_altered(column: pa.ChunkedArray) -> bool:
    """Whether Arrow has taken texts for times, or large integers for floats, which cannot tell them apart."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if pa.types.is_floating(column.type):
        return bool(pc.any(pc.greater(pc.abs(column), _LARGEST_EXACT)).as_py())
    return bool(pa.types.is_timestamp(column.type))


def _line_of_row(data: bytes, row: int) -> int:
    """The line of the k-th row that is not blank."""
    return [line for line, text in enumerate(data.splitlines(), 1) if text.strip()][row]


def _json_rows(data: bytes, name: str) -> Any:
    """Line, value and text of each row."""
    text = data.decode()
    if text.lstrip().startswith("["):
        try:
            for k, row in enumerate(json.loads(text), 1):
                yield k, row, _text(row)
        except (ValueError, RecursionError) as error:
            raise DataError(f"{name} is damaged JSON ({error}). Download or make it again.") from error
        return
    for line, content in enumerate(re.split(r"\r\n|\r|\n", text), 1):
        if content.strip():
            yield line, _parse_row(content), content


def _parse_row(text: str) -> Any:
    """An object as JSON or Python writes it, perhaps with a comma behind; None if it is none."""
    text = text.strip().removesuffix(",")
    for parse in (json.loads, ast.literal_eval):
        try:
            return parse(text)
        except (ValueError, SyntaxError, RecursionError, MemoryError):
            continue
    return None


def _text(value: Any) -> str | None:
    """A value as a file of text would have it."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, default=str)


def _table_sheet(
    table: pa.Table,
    name: str,
    unit: str,
    *,
    reasons: Counter[str] | None = None,
    line_of: Callable[[int], int] | None = None,
    errors: list[RowError] | None = None,
) -> Sheet:
    """A table whose columns have types of their own; they become text when they are read."""
    if not table.num_columns or not table.num_rows:
        raise DataError(f"{name} has no rows. It needs rows of user, movie and rating.")
    check_fits(2 * table.nbytes, name)
    header = tuple(table.column_names)
    n_first = max(_FEWEST, min(_SAMPLE, _MOST_CELLS // table.num_columns))
    first = [_texts(table.slice(0, n_first).column(k)).to_pylist() for k in range(table.num_columns)]
    sample = [[cell or "" for cell in row] for row in zip(*first, strict=True)]

    def read(used: list[int], times: int | None) -> Grid:
        columns = {k: combined(_texts(table.column(k)).dictionary_encode()) for k in used if k != times or not _is_whole(table.column(k))}
        columns |= {k: combined(table.column(k).cast("int64")) for k in used if k not in columns}
        line = line_of or (lambda row: row + 1)
        return Grid(name, columns, table.num_rows, reasons or Counter(), line, (lambda: errors[0]) if errors else None, unit=unit)

    return Sheet(name, header, sample, len(header), read)


def _is_whole(column: pa.ChunkedArray) -> bool:
    import pyarrow as pa

    return pa.types.is_integer(column.type) and not column.null_count


def _texts(column: pa.ChunkedArray) -> pa.ChunkedArray:
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = column.type
    if pa.types.is_dictionary(kind):
        column, kind = column.cast(kind.value_type), kind.value_type
    if pa.types.is_timestamp(kind) or pa.types.is_date(kind):
        return column.cast(pa.timestamp("s"), safe=False).cast(pa.int64()).cast(pa.string())
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_finite(column), column, None)
    if pa.types.is_nested(kind) or pa.types.is_binary(kind):
        return pa.chunked_array([pa.array([_text(value) for value in column.to_pylist()], pa.string())])
    return column.cast(pa.string())
