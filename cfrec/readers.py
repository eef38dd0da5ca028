"""Files and tables -> Ratings: MovieLens releases, files of other tools, compressed or not, and tables of pandas, polars and Arrow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any

import numpy as np
import pandas as pd

from cfrec import copies, datasets
from cfrec.archives import Files, is_archive, listed, open_archive, open_folder
from cfrec.arguments import checked
from cfrec.assembly import How, assemble
from cfrec.catalogue import Catalogues, read_catalogue
from cfrec.errors import ColumnsError, DataError
from cfrec.pieces import LARGE_FILE
from cfrec.pivots import find_pivot
from cfrec.ratings import Ratings, Source
from cfrec.report import ColumnUse, Note
from cfrec.roles import Roles, find_roles
from cfrec.sheets import open_sheet

File = str | Path | IO[bytes]
Columns = Mapping[str, str | int | None]

# In each release: the file of ratings and the file of movies. The last is the form inside the wheel.
_RELEASES = (("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv"), ("ml-100k.inter", "ml-100k.item"))
_PACKED = {".gz", ".bz2", ".xz"}
_TABLES = _PACKED | {".csv", ".tsv", ".txt", ".dat", ".data", ".inter", ".asc"}
_TABLES |= {".parquet", ".feather", ".arrow", ".jsonl", ".ndjson", ".json"}
_TEXTS = {"readme", "license", "licence", "changelog", "notes"}  # files that are no tables
_THINGS = ("movie", "film", "book", "item", "anime", "title", "product", "game", "meta")  # in the name of a table of what was rated


@checked
def load_dataset(name: str = "ml-100k", *, on_progress: datasets.Progress | None = None) -> Ratings:
    """A MovieLens release as Ratings; downloaded once, then read from the cache.

    Raises
    ------
    DataError, DownloadError
        There is no such data set; it could not be downloaded, or is damaged.
    """
    dataset = datasets.get_dataset(name)
    path = datasets.fetch(name, on_progress=on_progress)
    try:
        return read_ratings(path, source=Source(name, dataset.title, dataset.licence, dataset.citation))
    except DataError as error:
        raise DataError(f"{error} To fetch it afresh, delete {path}") from error


def read_ratings(
    path: File | Any,
    columns: Columns | None = None,
    movies: File | Any | None = None,
    *,
    drop_bad: bool = False,
    not_rated: float | None = None,
    source: Source | None = None,
) -> Ratings:
    """Read ratings from a file, a folder, or a table in memory.

    Parameters
    ----------
    path : path, binary file, or table
        CSV or TSV with or without a header and with any separator, JSON lines, Parquet or Arrow, also compressed by gzip, bz2 or xz; a zip
        or folder that holds a MovieLens release or one table; a table of pandas, polars or Arrow. A row for each rating, or a pivot
        table: a row for each user and a column for each movie, or the other way round.
    columns : mapping role -> column, optional
        Which column holds ``user``, ``movie``, ``rating``, ``count`` (of plays, say: a choice without stars), ``timestamp``, ``title``,
        ``genres`` and ``year``: its name or its number, counted from 1; None where a role is not to be used. Roles that are left out are
        found by the names that people's files have, and where these do not help by the values, which ``Ratings.report`` tells. Of a pivot
        table, a user or a movie alone says what its rows are.
    movies : path, binary file, or table, optional
        A second table with movie ids, titles and genres.
    drop_bad : bool
        Drop bad rows and count them in ``Ratings.report`` instead of stopping at the first.
    not_rated : float, optional
        The rating that stands for "not rated"; rows with it are dropped and counted. Found out for pivot tables; NaN: no rating does.

    Returns
    -------
    Ratings
        Ids are int64 where all of them are integers, text otherwise; ``24.0`` is 24. Of several ratings of one movie by one user
        the latest is kept. ``report`` tells what each column was taken for, what was left out and why, and what looks odd.

    Raises
    ------
    DataError
        The file cannot be read, or a row is bad: says file, line, column, value and rule.
    """
    how = How(None if columns is None else dict(_as_mapping(columns)), drop_bad=drop_bad, not_rated=not_rated)
    if not isinstance(drop_bad, bool) or not (not_rated is None or type(not_rated) in (int, float)):
        raise DataError("drop_bad should be True or False, and not_rated a number.")
    try:
        file, movies = _known_kind(path, "ratings"), movies if movies is None else _known_kind(movies, "movies")
        original = _find_original(file, movies, how)
        if original and (known := copies.find_copy(original, source or _own(_name_of(file)))):
            return known
        ratings = _read(file, movies, how, source)
        if original:
            copies.keep_copy(original, ratings)
        return ratings
    except FileNotFoundError as error:
        raise DataError(f"There is no file {error.filename}. Check the spelling, or give the full path.") from error
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise DataError("The file does not fit into memory. Use a smaller one.") from error


@dataclass(frozen=True)
class Preview:
    """The columns of a file with what they would be taken for, and its first rows of text."""

    columns: tuple[ColumnUse, ...]
    rows: list[list[str]]


def peek(path: File | Any, columns: Columns | None = None) -> Preview:
    """The columns and the first rows of what ``read_ratings`` would read. Raises DataError where there is no table at all."""
    with _opened(_known_kind(path, "ratings")) as opened:
        sheet = open_sheet(opened.data, opened.name)
    try:
        pivot = find_pivot(sheet.header, sheet.sample, sheet.n_fields, columns)
        roles = pivot.roles(sheet.names) if pivot else find_roles(sheet.header, sheet.sample, sheet.n_fields, sheet.name, columns)
    except ColumnsError as error:  # what is missing is said when the file is read
        roles = Roles(error.found, {}, sheet.names)
    return Preview(roles.report(), sheet.sample[:5])


def _as_mapping(columns: Any) -> Columns:
    if isinstance(columns, Mapping):
        return columns
    raise DataError(f'columns should map roles to columns, such as {{"user": "reviewer", "movie": 2}}; this is {type(columns).__name__}.')


def _known_kind(thing: Any, what: str) -> Any:
    """A path, an open file, or an Arrow table."""
    if isinstance(thing, (str, Path)):
        if "://" in str(thing) or "\0" in str(thing) or not str(thing):
            raise DataError(f"{str(thing)[:80]!r} is no path of a file. Download what is at an address first.")
        return Path(thing).expanduser()
    if hasattr(thing, "read"):
        return thing
    if isinstance(thing, (pd.DataFrame, pd.Series)):
        thing = _plain_frame(thing)
    if hasattr(thing, "__arrow_c_stream__"):
        import pyarrow as pa

        try:
            return pa.table(thing)
        except (pa.ArrowException, TypeError, ValueError) as error:
            raise DataError(f"The table of {what} holds what Arrow cannot: {error}") from error
    wanted = "a path, a binary file, or a table of pandas, polars or Arrow"
    raise DataError(f"The {what} should be {wanted}; this is {type(thing).__name__}.")


def _plain_frame(frame: pd.DataFrame | pd.Series[Any]) -> pd.DataFrame:
    """A table of pandas with its index as columns, names of one level, and objects as text."""
    frame = frame.to_frame() if isinstance(frame, pd.Series) else frame
    frame = frame if isinstance(frame.index, pd.RangeIndex) else frame.reset_index()
    if isinstance(frame.columns, pd.MultiIndex):
        names = [[str(level) for level in levels if str(level)] for levels in frame.columns]
        frame = frame.set_axis([levels[-1] if levels else "" for levels in names], axis=1)
    frame = frame.set_axis([str(name) for name in frame.columns], axis=1)
    odd = [k for k, kind in enumerate(frame.dtypes) if kind.kind == "O"]
    return frame if not odd else frame.assign(**{frame.columns[k]: _as_text(frame.iloc[:, k]) for k in odd})


def _as_text(column: pd.Series[Any]) -> pd.Series[Any]:
    """Objects as text, but for lists, which have a form of their own."""
    return column.astype(object).map(
        lambda value: value if isinstance(value, (str, list, dict, np.ndarray)) else str(value), na_action="ignore"
    )


def _find_original(file: Any, movies: Any, how: How) -> copies.Original | None:
    """What a copy is kept of: large files. None for binary files and tables, since these stay in memory."""
    if not isinstance(file, Path) or not (movies is None or isinstance(movies, Path)):
        return None
    paths = [file]
    if file.is_dir():
        names = _find_tables(open_folder(file), file.name)
        paths = [file / name for name in names if name]
    if paths[0].stat().st_size < LARGE_FILE:
        return None
    return copies.Original([*paths, *([movies] if movies else [])], repr(how))


@dataclass(frozen=True)
class _Opened:
    """The table of ratings, as bytes or in memory, and its name; the archive or folder that it is in, and the file of movies there."""

    data: Any
    name: str
    files: Files | None = None
    movies_file: str | None = None


@contextmanager
def _opened(file: Any) -> Iterator[_Opened]:
    with ExitStack() as stack:
        files = None
        if isinstance(file, Path) and file.is_dir():
            files = open_folder(file)
        elif (isinstance(file, Path) or hasattr(file, "read")) and is_archive(file):
            files = stack.enter_context(open_archive(file, _name_of(file)))
        if files is None:
            yield _Opened(*_read_data(file))
        else:
            ratings_file, movies_file = _find_tables(files, _name_of(file))
            yield _Opened(files.read(ratings_file), PurePosixPath(ratings_file).name, files, movies_file)


def _read(file: Any, movies: Any, how: How, source: Source | None) -> Ratings:
    notes: list[Note] = []
    catalogues: Catalogues = []
    if movies is not None:
        catalogues = read_catalogue(*_read_data(movies), notes, drop_bad=how.drop_bad)
    with _opened(file) as opened:
        if opened.movies_file and opened.files and not catalogues:
            name = PurePosixPath(opened.movies_file).name
            catalogues = read_catalogue(opened.files.read(opened.movies_file), name, notes, drop_bad=how.drop_bad)
        sheet = open_sheet(opened.data, opened.name)
        source = source or _own(_name_of(file) if opened.files else opened.name)
    return assemble(sheet, catalogues, how, source, notes)


def _name_of(file: Any) -> str:
    if isinstance(file, Path):
        return file.name
    return PurePosixPath(str(getattr(file, "name", "upload"))).name if hasattr(file, "read") else "The table"


def _read_data(file: Any) -> tuple[Any, str]:
    """The bytes of a table, and what to call it; a table in memory as it is."""
    if not isinstance(file, Path) and not hasattr(file, "read"):
        return file, _name_of(file)
    data: bytes | str = file.read_bytes() if isinstance(file, Path) else file.read()
    return data.encode() if isinstance(data, str) else data, _name_of(file)


def _find_tables(files: Files, name: str) -> tuple[str, str | None]:
    """The file of ratings, and the file of movies or None."""
    for ratings_name, movies_name in _RELEASES:
        if found := files.find(ratings_name):
            return found, files.find(movies_name)
    last_names = {n: PurePosixPath(n).name.lower() for n in files.names}
    tables = [n for n, last in last_names.items() if PurePosixPath(last).suffix in _TABLES and PurePosixPath(last).stem not in _TEXTS]
    likely = [n for n in tables if "rating" in last_names[n]] or tables
    if len(likely) != 1:
        found_names = listed(tables[:6]) or "no table at all"
        raise DataError(f"{name} should hold one file of ratings, such as ratings.csv or u.data; found {found_names}.")
    return likely[0], next((n for n in tables if n != likely[0] and any(word in last_names[n] for word in _THINGS)), None)


def _own(name: str) -> Source:
    return Source(Path(name).stem, f"{name} (your own ratings)")
