"""A table of movies -> what each is called, under the id by which ratings name it."""

from __future__ import annotations

from typing import Any

import numpy as np

from cfrec.columns import codes_of, id_text, movie_entry, texts_of
from cfrec.errors import DataError
from cfrec.report import Note
from cfrec.roles import find_movie_roles, guess_movie_roles
from cfrec.sheets import open_sheet
from cfrec.tables import Grid

Catalogue = dict[str, tuple[str, str]]  # movie id as text -> (raw title, genres joined by |)
Catalogues = list[Catalogue]  # the same movies by each kind of id that a table has

_HEADLESS = ("u.item", "movies.dat")
_ML_100K_GENRES = (  # in the order of u.item's flags
    *("unknown", "Action", "Adventure", "Animation", "Children's", "Comedy", "Crime", "Documentary", "Drama", "Fantasy"),
    *("Film-Noir", "Horror", "Musical", "Mystery", "Romance", "Sci-Fi", "Thriller", "War", "Western"),
)


def read_catalogue(data: Any, name: str, notes: list[Note], *, drop_bad: bool = False) -> Catalogues:
    """Read a table of movies: a release's, or any table of a movie id and a title.

    Parameters
    ----------
    data : bytes, or Arrow table
    name : str
        The file's, for messages.
    notes : list of Note
        Is told which rows were left out.
    drop_bad : bool
        Leave out rows that cannot be cut instead of stopping at the first.

    Raises
    ------
    DataError
        There is no movie in it, or a row is bad: says file, line and rule.
    """
    sheet = open_sheet(data, name, header=False if name.lower() in _HEADLESS else None)
    flags = range(5, 5 + len(_ML_100K_GENRES)) if name.lower() == "u.item" and sheet.n_fields == 5 + len(_ML_100K_GENRES) else ()
    roles, ids = guess_movie_roles(sheet.sample, sheet.n_fields) if sheet.header is None else find_movie_roles(sheet.header)
    if flags:
        roles, ids = {"title": 1}, [0]
    if "title" not in roles or not ids:
        first = [cell[:40] for cell in (sheet.header or sheet.sample[0])[:8]]
        raise DataError(f"{name} needs a header that names a movie id and a title; its first row is {first}.")
    grid = sheet.read(sorted({*roles.values(), *ids, *flags}), None)
    if grid.first_invalid and not drop_bad:
        raise grid.first_invalid()
    if grid.reasons:
        rules = "; ".join(f"{count:,} × {rule}" for rule, count in grid.reasons.items())
        notes.append(Note("movies", f"Left out of {name}: {rules}.", odd=False))
    cells = {role: _cells(grid, place) for role, place in roles.items()}
    if flags:
        marks = [_cells(grid, place) for place in flags]
        cells["genres"] = ["|".join(g for g, m in zip(_ML_100K_GENRES, row, strict=True) if m == "1") for row in zip(*marks, strict=True)]
    elif any(column.endswith(":token_seq") for column in sheet.names):
        _mend_wheel(cells)
    catalogues = [entries for place in ids if (entries := _entries(_cells(grid, place), cells))]
    if not catalogues:
        raise DataError(f"{name} holds no movie below its header. Is it whole? It can be left out: movies are named after their ids then.")
    return catalogues


def _cells(grid: Grid, place: int) -> list[str]:
    column = grid.columns[place]
    texts = np.array([*texts_of(column), ""], object)
    cells: list[str] = texts[codes_of(column)].tolist()
    return cells


def _entries(ids: list[str], cells: dict[str, list[str]]) -> Catalogue:
    """Of several rows for a movie the last counts."""
    blank = [""] * len(ids)
    rows = zip(ids, cells["title"], cells.get("genres", blank), cells.get("year", blank), strict=True)
    return {key: movie_entry(title or movie, genres, year) for movie, title, genres, year in rows if (key := id_text(movie))}


def _mend_wheel(cells: dict[str, list[str]]) -> None:
    """The wheel separates genres by blanks, and spells ml-100k's movie 267 ``unkonwn``."""
    cells["genres"] = [genres.replace(" ", "|") for genres in cells.get("genres", [])]
    for k, title in enumerate(cells["title"]):
        if title == "unkonwn":
            cells["title"][k], cells["year"][k] = "unknown", ""


def match(catalogues: Catalogues, movie_ids: list[Any], notes: list[Note]) -> Catalogue:
    """The movies under the ids as ratings write them, by the kind of id that finds most; zeros in front make no difference.

    Raises
    ------
    DataError
        The rated movies are not among them.
    """
    if not catalogues or not movie_ids:
        return {}
    rated = list(map(str, movie_ids))
    known = [_found(catalogue, rated) for catalogue in catalogues]
    found = max(known, key=len)
    if not found:
        others = " or ".join(repr(next(iter(catalogue))) for catalogue in catalogues)
        raise DataError(f"The table of movies knows none of the rated ones: ratings have ids like {rated[0]!r}, it has {others}.")
    if len(found) < len(rated):
        notes.append(Note("titles", f"{len(rated) - len(found):,} of {len(rated):,} rated movies have no title in the table of movies."))
    return found


def _found(catalogue: Catalogue, rated: list[str]) -> Catalogue:
    bare = {key.lstrip("0") or "0": entry for key, entry in catalogue.items()}
    return {key: entry for key in rated if (entry := catalogue.get(key) or bare.get(key.lstrip("0") or "0"))}
