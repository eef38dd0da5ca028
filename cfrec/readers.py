"""Files -> Ratings: MovieLens releases of every format, a user's own CSV, TSV or zip, from a folder or straight from an archive."""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from cfrec import datasets
from cfrec.errors import DataError
from cfrec.ratings import Ratings, Source, build_ratings
from cfrec.tables import as_ids, catalogue_entry, decode, find_roles, find_separator, numbered_rows, read_columns

Catalogue = dict[object, tuple[str, str]]  # movie_id -> (raw title, genres joined by |)

# In each release: the file of ratings and the file of movies. The last is the form inside the wheel.
_RELEASES = (("u.data", "u.item"), ("ratings.dat", "movies.dat"), ("ratings.csv", "movies.csv"), ("ml-100k.inter", "ml-100k.item"))
_TABLE_SUFFIXES = {".csv", ".tsv", ".txt", ".dat", ".data", ".inter"}
_LARGEST_FILE = 4 << 30  # bytes; the ratings of the largest release take 0.9 GB
_ML_100K_GENRES = (  # in the order of u.item's flags
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


class _Files:
    """The files of a folder or a zip archive, found by their last name and read one at a time."""

    def __init__(self, names: list[str], read: Callable[[str], bytes]) -> None:
        self.names, self._read = names, read

    def find(self, last_name: str) -> str | None:
        matches = [n for n in self.names if PurePosixPath(n).name.lower() == last_name]
        return min(matches, key=len, default=None)

    def read(self, name: str) -> str:
        return decode(self._read(name), PurePosixPath(name).name)


@contextmanager
def _open_files(path: Path) -> Iterator[_Files]:
    if path.is_dir():
        yield _Files([p.name for p in sorted(path.iterdir()) if p.is_file()], lambda name: (path / name).read_bytes())
        return
    try:
        with zipfile.ZipFile(path) as archive:
            names = [i.filename for i in archive.infolist() if not i.is_dir() and "__MACOSX" not in i.filename]
            yield _Files(names, lambda name: _read_member(archive, name))
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError) as error:
        raise DataError(f"{path.name} is not a whole zip archive ({error}). Download or make it again.") from error


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    if archive.getinfo(name).file_size > _LARGEST_FILE:
        raise DataError(f"{name} would take more than {_LARGEST_FILE >> 30} GB unpacked.")
    with archive.open(name) as stream:
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
    return read_ratings(path, source=Source(name, dataset.title, dataset.licence, dataset.citation))


def read_ratings(
    path: str | Path | BinaryIO,
    movies: str | Path | None = None,
    *,
    drop_bad: bool = False,
    source: Source | None = None,
) -> Ratings:
    """Read ratings from a CSV or TSV file, a zip or a folder.

    Parameters
    ----------
    path : path or binary file
        A table with or without a header, any separator; or a zip or folder that holds a MovieLens release, or one table.
        Columns are found under their usual names (userId/user_id/user, movieId/item_id/movie/item, rating/score,
        timestamp, title, genres), else taken as user, movie, rating, timestamp.
    movies : path, optional
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
    catalogue = _read_movies_file(Path(movies)) if movies else {}
    if not isinstance(path, (str, Path)):
        name = Path(getattr(path, "name", "upload")).name
        if name.lower().endswith((".zip", ".whl")):
            raise DataError(f"{name}: give an archive by its path.")
        return _build(decode(path.read(), name), name, catalogue, drop_bad, source)
    path = Path(path)
    if not path.exists():
        raise DataError(f"There is no file {path}. Check the spelling, or give the full path.")
    if path.is_dir() or zipfile.is_zipfile(path) or path.suffix.lower() in (".zip", ".whl"):
        with _open_files(path) as files:
            return _read_collection(files, path.name, catalogue, drop_bad, source)
    return _build(decode(path.read_bytes(), path.name), path.name, catalogue, drop_bad, source)


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
    tables = [n for n in files.names if PurePosixPath(n).suffix.lower() in _TABLE_SUFFIXES]
    likely = [n for n in tables if "rating" in PurePosixPath(n).name.lower()] or tables
    if len(likely) != 1:
        found_names = ", ".join(PurePosixPath(n).name for n in tables[:6]) or "no table at all"
        raise DataError(f"{name} should hold one file of ratings, such as ratings.csv or u.data; found {found_names}.")
    return likely[0], next((n for n in tables if n != likely[0] and "movie" in PurePosixPath(n).name.lower()), None)


def _own(name: str) -> Source:
    return Source(Path(name).stem, f"{name} (your own ratings)")


def _build(text: str, name: str, catalogue: Catalogue, drop_bad: bool, source: Source | None) -> Ratings:
    columns = read_columns(text, name, drop_bad=drop_bad)
    if columns.movie_id.dtype == object:
        catalogue = {str(key): value for key, value in catalogue.items()}
    return build_ratings(
        columns.user_id,
        columns.movie_id,
        columns.rating,
        timestamp=columns.timestamp,
        movies=columns.catalogue | catalogue,
        source=source or _own(name),
        n_dropped=columns.n_dropped,
        reasons=columns.reasons,
    )


def _read_movies_file(path: Path) -> Catalogue:
    if not path.is_file():
        raise DataError(f"There is no file {path}. Check the spelling, or give the full path.")
    return _read_movies(decode(path.read_bytes(), path.name), path.name)


def _read_movies(text: str, name: str) -> Catalogue:
    """A table of movies in any of the releases' forms, or one with a header that names a movie id and a title."""
    if name.lower() == "u.item":
        entries = _read_u_item(text, name)
    elif name.lower() == "movies.dat":
        entries = _read_movies_dat(text, name)
    else:
        entries = _read_headed_movies(text, name)
    ids, _ = as_ids(list(entries))
    return dict(zip(ids.tolist(), entries.values(), strict=True))


def _read_u_item(text: str, name: str) -> dict[str, tuple[str, str]]:
    entries = {}
    for line, row in enumerate(text.split("\n"), 1):
        cells = row.split("|")
        if not row.strip():
            continue
        if len(cells) != 5 + len(_ML_100K_GENRES):
            raise DataError(f"{name}, line {line}: has {len(cells)} fields where {5 + len(_ML_100K_GENRES)} are expected.")
        genres = [genre for genre, flag in zip(_ML_100K_GENRES, cells[5:], strict=True) if flag == "1"]
        entries[cells[0]] = cells[1].strip(), "|".join(genres)
    return entries


def _read_movies_dat(text: str, name: str) -> dict[str, tuple[str, str]]:
    entries = {}
    for line, cells in numbered_rows(text, "::"):
        if len(cells) != 3:
            raise DataError(f"{name}, line {line}: has {len(cells)} fields where 3 are expected.")
        entries[cells[0]] = catalogue_entry({"title": cells[1].strip(), "genres": cells[2].strip()})
    return entries


def _read_headed_movies(text: str, name: str) -> dict[str, tuple[str, str]]:
    rows = numbered_rows(text, find_separator(text))
    _, header = next(rows)
    roles = find_roles(header)
    if not {"movie", "title"} <= roles.keys():
        raise DataError(f"{name} needs a header that names a movie id and a title; its first row is {header[:6]}.")
    from_wheel = any(cell.endswith(":token_seq") for cell in header)
    entries = {}
    for line, row in rows:
        if len(row) != len(header):
            raise DataError(f"{name}, line {line}: has {len(row)} fields where {len(header)} are expected.")
        cells = {role: row[k].strip() for role, k in roles.items()}
        if from_wheel:
            cells["genres"] = cells.get("genres", "").replace(" ", "|")
            if cells["title"] == "unkonwn":  # how the wheel spells ml-100k's movie 267
                cells |= {"title": "unknown", "year": ""}
        entries[cells["movie"]] = catalogue_entry(cells)
    return entries
