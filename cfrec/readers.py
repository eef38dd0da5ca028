"""Files -> Ratings: MovieLens releases of every format, a user's own CSV, TSV or zip, from a folder or straight from an archive."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pandas as pd

from cfrec import copies, datasets
from cfrec.archives import Bytes, Files, is_archive, listed, open_archive, open_folder, read_path
from cfrec.columns import Catalogue, Columns, catalogue_entry, read_columns, shown
from cfrec.errors import DataError
from cfrec.memory import check_fits
from cfrec.pieces import LARGE_FILE, slices
from cfrec.plain import read_plain
from cfrec.ratings import Ratings, Source, build_ratings
from cfrec.tables import MOVIE_TABLE_ROLES, UTF_16_MARKS, decode, find_roles, find_separator, numbered_rows

logger = logging.getLogger(__name__)

File = str | Path | IO[bytes]

# In each release: the file of ratings and the file of movies. The last is the form inside the wheel.
_RELEASES = (("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv"), ("ml-100k.inter", "ml-100k.item"))
_TABLE_SUFFIXES = {".csv", ".tsv", ".txt", ".dat", ".data", ".inter"}
_ROW = 380  # bytes of memory that reading row by row takes for each: an upper estimate
_BLOCK = 1 << 20  # bytes
_ML_100K_GENRES = (  # in the order of u.item's flags
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


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


def read_ratings(path: File, movies: File | None = None, *, drop_bad: bool = False, source: Source | None = None) -> Ratings:
    """Read ratings from a CSV or TSV file, a zip or a folder.

    Parameters
    ----------
    path : path or binary file
        A table with or without a header, any separator; or a zip or folder that holds a MovieLens release, or one table.
        Columns are found under their usual names (userId/user_id/user, movieId/item_id/movie/item, rating/score,
        timestamp, title, genres), else taken as user, movie, rating, timestamp. A binary file is a table or a zip.
    movies : path or binary file, optional
        A second table with movie ids, titles and genres.
    drop_bad : bool
        Drop bad rows and count them in ``Ratings.report`` instead of stopping at the first.

    Returns
    -------
    Ratings
        Ids are int64 where all of them are integers, text otherwise. Of several ratings of one movie by one user
        the latest is kept.

    Raises
    ------
    DataError
        The file cannot be read, or a row is bad: says file, line, column, value and rule.
    """
    try:
        file = Path(path).expanduser() if isinstance(path, (str, Path)) else path
        movies = Path(movies).expanduser() if isinstance(movies, (str, Path)) else movies
        original = _find_original(file, movies, drop_bad)
        if original and (known := copies.find_copy(original, source or _own(_name_of(file)))):
            return known
        ratings = _read(file, movies, drop_bad, source)
        if original:
            copies.keep_copy(original, ratings)
        return ratings
    except FileNotFoundError as error:
        raise DataError(f"There is no file {error.filename}. Check the spelling, or give the full path.") from error
    except OSError as error:
        raise DataError(f"{error.filename or path} cannot be read: {error.strerror or error}.") from error
    except MemoryError as error:
        raise DataError("The file does not fit into memory. Use a smaller one.") from error


def _find_original(file: Path | IO[bytes], movies: Path | IO[bytes] | None, drop_bad: bool) -> copies.Original | None:
    """What a copy is kept of: large files. None for binary files, since an upload stays in memory."""
    if not isinstance(file, Path) or not (movies is None or isinstance(movies, Path)):
        return None
    paths = [file]
    if file.is_dir():
        names = _find_tables(open_folder(file), file.name)
        paths = [file / name for name in names if name]
    if paths[0].stat().st_size < LARGE_FILE:
        return None
    return copies.Original([*paths, *([movies] if movies else [])], drop_bad=drop_bad)


def _read(file: Path | IO[bytes], movies: Path | IO[bytes] | None, drop_bad: bool, source: Source | None) -> Ratings:
    catalogue = _read_movies(*_read_data(movies)) if movies is not None else {}
    if isinstance(file, Path) and file.is_dir():
        return _read_collection(open_folder(file), file.name, catalogue, drop_bad, source)
    if is_archive(file):
        with open_archive(file, _name_of(file)) as files:
            return _read_collection(files, _name_of(file), catalogue, drop_bad, source)
    return _build(*_read_data(file), catalogue, drop_bad, source)


def _name_of(file: Path | IO[bytes]) -> str:
    return file.name if isinstance(file, Path) else PurePosixPath(str(getattr(file, "name", "upload"))).name


def _read_data(file: Path | IO[bytes]) -> tuple[bytes | Bytes, str]:
    """The bytes of a table, and what to call it."""
    data: bytes | Bytes | str = read_path(file) if isinstance(file, Path) else file.read()
    return data.encode() if isinstance(data, str) else data, _name_of(file)


def _read_collection(files: Files, name: str, catalogue: Catalogue, drop_bad: bool, source: Source | None) -> Ratings:
    ratings_file, movies_file = _find_tables(files, name)
    if movies_file and not catalogue:
        catalogue = _read_movies(files.read(movies_file), PurePosixPath(movies_file).name)
    return _build(files.read(ratings_file), PurePosixPath(ratings_file).name, catalogue, drop_bad, source or _own(name))


def _find_tables(files: Files, name: str) -> tuple[str, str | None]:
    """The file of ratings, and the file of movies or None."""
    for ratings_name, movies_name in _RELEASES:
        if found := files.find(ratings_name):
            return found, files.find(movies_name)
    last_names = {n: PurePosixPath(n).name.lower() for n in files.names}
    tables = [n for n, last in last_names.items() if PurePosixPath(last).suffix in _TABLE_SUFFIXES and "readme" not in last]
    likely = [n for n in tables if "rating" in last_names[n]] or tables
    if len(likely) != 1:
        found_names = listed(tables[:6]) or "no table at all"
        raise DataError(f"{name} should hold one file of ratings, such as ratings.csv or u.data; found {found_names}.")
    return likely[0], next((n for n in tables if n != likely[0] and "movie" in last_names[n]), None)


def _own(name: str) -> Source:
    return Source(Path(name).stem, f"{name} (your own ratings)")


def _build(data: bytes | Bytes, name: str, catalogue: Catalogue, drop_bad: bool, source: Source | None) -> Ratings:
    columns = read_plain(data, name) or _read_carefully(data, name, drop_bad)
    del data  # it may be large
    return build_ratings(
        columns.user_id,
        columns.movie_id,
        columns.rating,
        timestamp=columns.timestamp,
        movies=_matched(columns, catalogue) | columns.catalogue,
        source=source or _own(name),
        n_dropped=columns.n_dropped,
        reasons=columns.reasons,
        overwrite=True,
    )


def _read_carefully(data: bytes | Bytes, name: str, drop_bad: bool) -> Columns:
    check_fits(_bytes_needed(data), name)
    return read_columns(decode(bytes(data), name), name, drop_bad=drop_bad)


def _bytes_needed(data: bytes | Bytes) -> int:
    """Memory that decoding a table and reading it row by row takes beyond its bytes: an upper estimate.

    Python keeps one, two or four bytes for each character of a text, by the widest of them; there are two texts at a time.
    """
    n_lines, widest = 1, 0
    for part in slices(len(data), _BLOCK):
        codes = np.frombuffer(data, np.uint8)[part]
        n_lines += int(max(np.count_nonzero(codes == 10), np.count_nonzero(codes == 13)))
        widest = max(widest, int(codes.max(initial=0)))
    width = 1 if widest < 0xC4 else 2 if widest < 0xF0 or bytes(data[:2]) in UTF_16_MARKS else 4
    n_texts = 2 * width + (not isinstance(data, bytes))
    return n_texts * len(data) + _ROW * n_lines


def _matched(columns: Columns, catalogue: Catalogue) -> Catalogue:
    """The catalogue under the ids as the ratings write them. Raises DataError if it knows none of the rated movies."""
    if not catalogue:
        return catalogue
    if columns.movie_id.dtype != object:  # 0296 and 296.0 are 296
        catalogue = {re.sub(r"^0+(?=[0-9])|\.0*$", "", key): entry for key, entry in catalogue.items()}
    rated = [str(movie_id) for movie_id in np.sort(pd.unique(columns.movie_id)).tolist()]
    untitled = [movie_id for movie_id in rated if movie_id not in catalogue]
    if len(untitled) == len(rated) and rated:
        raise DataError(
            f"The table of movies knows none of the rated ones: ratings have ids like {rated[0]!r}, it has {next(iter(catalogue))!r}."
        )
    if untitled:
        logger.warning("%d of %d rated movies have no title in the table of movies", len(untitled), len(rated))
    return catalogue


def _read_movies(data: bytes | Bytes, name: str) -> Catalogue:
    """A table of movies in any of the releases' forms, or one with a header that names a movie id and a title."""
    text = decode(bytes(data), name)
    if name.lower() == "u.item":
        return _read_u_item(text, name)
    if name.lower() == "movies.dat":
        return {cells[0]: catalogue_entry({"title": cells[1], "genres": cells[2]}) for cells in _even_rows(text, "::", name, 3)}
    return _read_headed_movies(text, name)


def _even_rows(text: str, separator: str, name: str, n_fields: int) -> Iterator[list[str]]:
    for line, row in numbered_rows(text, separator, name):
        if len(row) != n_fields:
            raise DataError(f"{name}, line {line}: has {len(row)} fields where {n_fields} are expected.")
        yield [cell.strip() for cell in row]


def _read_u_item(text: str, name: str) -> Catalogue:
    entries = {}
    for cells in _even_rows(text, "|", name, 5 + len(_ML_100K_GENRES)):
        genres = [genre for genre, flag in zip(_ML_100K_GENRES, cells[5:], strict=True) if flag == "1"]
        entries[cells[0]] = cells[1], "|".join(genres)
    return entries


def _read_headed_movies(text: str, name: str) -> Catalogue:
    separator = find_separator(text)
    _, header = next(numbered_rows(text, separator, name), (0, [""]))
    roles = find_roles(header, MOVIE_TABLE_ROLES)
    if not {"movie", "title"} <= roles.keys():
        raise DataError(f"{name} needs a header that names a movie id and a title; its first row is {shown(header)}.")
    from_wheel = any(cell.endswith(":token_seq") for cell in header)
    rows = _even_rows(text, separator, name, len(header))
    next(rows)
    entries = {}
    for row in rows:
        cells = {role: row[k] for role, k in roles.items()}
        cells["title"] = cells["title"] or cells["movie"]
        if from_wheel:
            cells["genres"] = cells.get("genres", "").replace(" ", "|")
            if cells["title"] == "unkonwn":  # how the wheel spells ml-100k's movie 267
                cells |= {"title": "unknown", "year": ""}
        entries[cells["movie"]] = catalogue_entry(cells)
    if not entries:
        raise DataError(f"{name} holds no movie below its header. Is it whole? It can be left out: movies are named after their ids then.")
    return entries
