"""Large files of plain numbers -> columns, straight from the bytes; whatever is not provably plain is left to the careful reader."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from types import ModuleType

import numpy as np

from cfrec.archives import Bytes
from cfrec.columns import HEAD, Columns, Layout, find_layout
from cfrec.compiled import load_kernels
from cfrec.errors import DataError
from cfrec.memory import check_fits
from cfrec.pieces import LARGE_FILE, for_each, pays_to_compile
from cfrec.tables import decode

_PIECE = 2 << 20  # bytes that a thread parses in one go: they and their numbers stay in the processor's cache
_LONGEST_LINE = 1 << 17  # bytes
_ROW, _WIDE_ROW = 75, 115  # bytes of memory that a row takes until the ratings are built, with ids of 32 and of 64 bits: upper estimates
_MARK = b"\xef\xbb\xbf"  # in front of UTF-8 as Windows writes it


@dataclass(frozen=True)
class _Piece:
    """Whole lines of a file, and where their rows go."""

    data: Bytes
    rows: slice


class _NotPlainError(Exception):
    """Something in the file is not provably a plain number."""


def read_plain(data: bytes | Bytes, name: str) -> Columns | None:
    """Read a large file of ratings if it's digits and separators in equally many fields a line.

    Parameters
    ----------
    data : bytes or uint8 array, read-only
        The file, not decoded. Lines end in LF or CRLF; fields of no use may hold any printable ASCII but quotation marks.
    name : str
        What to call it in messages.

    Returns
    -------
    Columns or None
        The same as ``read_columns`` gives for it, with ids in int32 where they fit, and ratings in float32.
        None where it's small, not provably plain, or no compiled code can be loaded.

    Raises
    ------
    DataError
        It would not fit into memory.
    """
    if not pays_to_compile(len(data), LARGE_FILE):
        return None
    codes = np.frombuffer(data, np.uint8)
    start = _find_start(codes, name)
    kernels = load_kernels("parsing") if start else None
    if start is None or kernels is None:
        return None
    layout, begin = start
    try:
        pieces = _cut(codes[begin : _end_of_content(codes)])
        n_rows = pieces[-1].rows.stop
        check_fits(_ROW * n_rows, name)
        try:
            return _parse(kernels, pieces, layout, np.int32)
        except OverflowError:
            check_fits(_WIDE_ROW * n_rows, name)
            return _parse(kernels, pieces, layout, np.int64)
    except _NotPlainError:
        return None


def _find_start(codes: Bytes, name: str) -> tuple[Layout, int] | None:
    """The layout, and the byte at which the ratings begin; None where these are not plain."""
    head = codes[:HEAD].tobytes()
    head = head[: head.rfind(b"\n") + 1]
    try:
        layout = find_layout(decode(head, name), name)
    except DataError:  # which the careful reader raises too
        return None
    if layout.separator == " " or {"title", "genres"} & layout.roles.keys():
        return None
    if not layout.header:
        return layout, len(_MARK) * head.startswith(_MARK)
    first = head[: head.find(b"\n") + 1]
    return None if b'"' in first or b"\r" in first.removesuffix(b"\r\n") else (layout, len(first))


def _end_of_content(codes: Bytes) -> int:
    end = len(codes)
    while end and codes[end - 1] in (10, 13):
        end -= 1
    return end


def _cut(body: Bytes) -> list[_Piece]:
    """Cut at ends of lines. Raises _NotPlainError where there is no line, or one is too long."""
    cuts = [0]
    while len(body) - cuts[-1] > _PIECE:
        near = cuts[-1] + _PIECE
        ends = np.flatnonzero(body[near : near + _LONGEST_LINE] == 10)
        if not len(ends):
            break
        cuts.append(near + int(ends[0]) + 1)
    parts = [body[a:b] for a, b in pairwise([*cuts, len(body)])]
    if not len(parts[-1]) or len(parts[-1]) > _PIECE + _LONGEST_LINE:
        raise _NotPlainError
    counts = for_each(lambda part: int(np.count_nonzero(part == 10)), parts)
    counts[-1] += 1  # the last line lost its end
    return [_Piece(part, slice(a, b)) for part, (a, b) in zip(parts, pairwise(accumulate(counts, initial=0)), strict=True)]


def _parse(kernels: ModuleType, pieces: list[_Piece], layout: Layout, id_type: type[np.signedinteger]) -> Columns:
    """Parse all pieces. Raises _NotPlainError, or OverflowError where an id is too large for the type."""
    n_rows = pieces[-1].rows.stop
    user, movie = np.empty(n_rows, id_type), np.empty(n_rows, id_type)
    rating, timestamp = np.empty(n_rows, np.float32), np.empty(n_rows if "timestamp" in layout.roles else 0, np.int64)
    known = {"user": kernels.USER, "movie": kernels.MOVIE, "rating": kernels.RATING, "timestamp": kernels.TIMESTAMP}
    roles = np.full(layout.n_fields, kernels.UNUSED, np.int64)
    for role in known.keys() & layout.roles.keys():
        roles[layout.roles[role]] = known[role]

    def parse(piece: _Piece) -> None:
        found = np.empty((4, piece.rows.stop - piece.rows.start), np.int64)
        if not kernels.parse_rows(piece.data, ord(layout.separator[0]), len(layout.separator), roles, found):
            raise _NotPlainError
        if np.abs(found[:2]).max() > np.iinfo(id_type).max:
            raise OverflowError
        user[piece.rows], movie[piece.rows] = found[:2]
        rating[piece.rows] = found[2] / 10.0**kernels.DECIMALS
        if len(timestamp):
            timestamp[piece.rows] = found[3]

    for_each(parse, pieces)
    return Columns(user, movie, rating, timestamp if len(timestamp) else None)
