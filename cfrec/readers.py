"""Files -> Ratings: MovieLens releases of every format, a user's own CSV, TSV or zip, from a folder or straight from an archive."""

from __future__ import annotations

import logging
import re
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

import numpy as np
import pandas as pd

from cfrec import copies, datasets
from cfrec.columns import Catalogue, Columns, catalogue_entry, read_columns, shown
from cfrec.errors import DataError
from cfrec.pieces import LARGE_FILE, map_file
from cfrec.plain import Bytes, read_plain
from cfrec.ratings import Ratings, Source, build_ratings
from cfrec.tables import MOVIE_TABLE_ROLES, decode, find_roles, find_separator, numbered_rows

logger = logging.getLogger(__name__)

File = str | Path | IO[bytes]

# In each release: the file of ratings and the file of movies. The last is the form inside the wheel.
_RELEASES = (("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv"), ("ml-100k.inter", "ml-100k.item"))
_TABLE_SUFFIXES = {".csv", ".tsv", ".txt", ".dat", ".data", ".inter"}
_LARGEST_FILE = 4 << 30  # bytes; the ratings of the largest release take 0.9 GB
_LARGEST_RATIO = 50  # unpacked to packed size; the releases' is about 4, and only a bomb's is hundreds
_ML_100K_GENRES = (  # in the order of u.item's flags
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


class _Files:
    """The files of a folder or a zip archive, found by their last name and read one at a time."""

    def __init__(self, names: list[str], read: Callable[[str], bytes | Bytes]) -> None:
        self.names, self._read = names, read

    def find(self, last_name: str) -> str | None:
        matches = [n for n in self.names if PurePosixPath(n).name.lower() == last_name]
        if len(matches) > 1:
            raise DataError(f"There is more than one {last_name}: {', '.join(matches[:4])}. Keep the one that is meant.")
        return matches[0] if matches else None

    def read(self, name: str) -> bytes | Bytes:
        return self._read(name)


def _open_folder(folder: Path) -> _Files:
    files = [p for pattern in ("*", "*/*") for p in sorted(folder.glob(pattern)) if p.is_file()]
    return _Files([p.relative_to(folder).as_posix() for p in files], lambda name: _read_path(folder / name))


@contextmanager
def _open_archive(file: Path | IO[bytes], archive_name: str) -> Iterator[_Files]:
    with _whole_zip(archive_name):
        archive = zipfile.ZipFile(file)
    with archive:
        names = [i.filename for i in archive.infolist() if not i.is_dir() and "__MACOSX" not in i.filename]
        yield _Files(names, lambda name: _read_member(archive, name, archive_name))


@contextmanager
def _whole_zip(name: str) -> Iterator[None]:
    """Say in one way whatever zipfile finds wrong with an archive."""
    try:
        yield
    except datasets.ZIP_ERRORS as error:
        raise DataError(f"{name} is not a whole zip archive ({error}). Download or make it again.") from error


def _read_member(archive: zipfile.ZipFile, name: str, archive_name: str) -> bytes:
    info = archive.getinfo(name)
    if info.flag_bits & 1:
        raise DataError(f"{archive_name} is locked with a password. Unpack it, and give the file inside.")
    if info.file_size > min(_LARGEST_FILE, _LARGEST_RATIO * info.compress_size + (10 << 20)):
        raise DataError(f"{archive_name}: {name} would unpack to {info.file_size / 1e6:,.0f} MB from {info.compress_size / 1e6:,.1f} MB.")
    with _whole_zip(archive_name), archive.open(info) as stream:
        return stream.read(_LARGEST_FILE)


def load_dataset(name: str = "ml-100k", *, on_progress: datasets.Progress | None = None) -> Ratings:
    """A MovieLens release as Ratings; downloaded once, then read from the cache.

    Raises
    ------
    DataError, DownloadError
        There is no such data set; it could not be had, or is damaged.
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
        names = _find_tables(_open_folder(file), file.name)
        paths = [file / name for name in names if name]
    if paths[0].stat().st_size < LARGE_FILE:
        return None
    return copies.Original([*paths, *([movies] if movies else [])], drop_bad=drop_bad)


def _read(file: Path | IO[bytes], movies: Path | IO[bytes] | None, drop_bad: bool, source: Source | None) -> Ratings:
    catalogue = _read_movies(*_read_data(movies)) if movies is not None else {}
    if isinstance(file, Path) and file.is_dir():
        return _read_collection(_open_folder(file), file.name, catalogue, drop_bad, source)
    if _is_archive(file):
        with _open_archive(file, _name_of(file)) as files:
            return _read_collection(files, _name_of(file), catalogue, drop_bad, source)
    return _build(*_read_data(file), catalogue, drop_bad, source)


def _is_archive(file: Path | IO[bytes]) -> bool:
    if isinstance(file, Path):
        return file.suffix.lower() in (".zip", ".whl") or (file.is_file() and zipfile.is_zipfile(file))
    if not file.seekable():
        return False
    start = file.tell()
    found = file.read(4) == b"PK\x03\x04"
    file.seek(start)
    return found


def _name_of(file: Path | IO[bytes]) -> str:
    return file.name if isinstance(file, Path) else PurePosixPath(str(getattr(file, "name", "upload"))).name


def _read_data(file: Path | IO[bytes]) -> tuple[bytes | Bytes, str]:
    """The bytes of a table, and what to call it."""
    data: bytes | Bytes | str = _read_path(file) if isinstance(file, Path) else file.read()
    return data.encode() if isinstance(data, str) else data, _name_of(file)


def _read_path(path: Path) -> bytes | Bytes:
    return map_file(path) if path.stat().st_size >= LARGE_FILE else path.read_bytes()


def _read_collection(files: _Files, name: str, catalogue: Catalogue, drop_bad: bool, source: Source | None) -> Ratings:
    ratings_file, movies_file = _find_tables(files, name)
    if movies_file and not catalogue:
        catalogue = _read_movies(files.read(movies_file), PurePosixPath(movies_file).name)
    return _build(files.read(ratings_file), PurePosixPath(ratings_file).name, catalogue, drop_bad, source or _own(name))


def _find_tables(files: _Files, name: str) -> tuple[str, str | None]:
    """The file of ratings, and the file of movies or None."""
    for ratings_name, movies_name in _RELEASES:
        if found := files.find(ratings_name):
            return found, files.find(movies_name)
    last_names = {n: PurePosixPath(n).name.lower() for n in files.names}
    tables = [n for n, last in last_names.items() if PurePosixPath(last).suffix in _TABLE_SUFFIXES and "readme" not in last]
    likely = [n for n in tables if "rating" in last_names[n]] or tables
    if len(likely) != 1:
        found_names = ", ".join(tables[:6]) or "no table at all"
        raise DataError(f"{name} should hold one file of ratings, such as ratings.csv or u.data; found {found_names}.")
    return likely[0], next((n for n in tables if n != likely[0] and "movie" in last_names[n]), None)


def _own(name: str) -> Source:
    return Source(Path(name).stem, f"{name} (your own ratings)")


def _build(data: bytes | Bytes, name: str, catalogue: Catalogue, drop_bad: bool, source: Source | None) -> Ratings:
    columns = read_plain(data, name) or read_columns(decode(bytes(data), name), name, drop_bad=drop_bad)
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
