"""Columns of text -> Ratings: bad rows are named, or left out and counted; pivot tables are unrolled."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from cfrec.catalogue import Catalogue, Catalogues, match
from cfrec.columns import Parsed, codes_of, id_text, in_seconds, movie_entry, parse_ids, parse_stars, parse_times, texts_of
from cfrec.errors import DataError
from cfrec.memory import check_fits
from cfrec.movies import FloatArray, Ids, IntArray, typed
from cfrec.oddities import notes_on, refuse_impossible
from cfrec.pieces import for_each
from cfrec.pivots import SUMS, Pivot, find_pivot, is_not_rated
from cfrec.ratings import Ratings, Source, index_ratings
from cfrec.report import Note
from cfrec.roles import MISSING, Roles, find_roles, plain
from cfrec.sheets import Sheet
from cfrec.tables import Grid

Bools = npt.NDArray[np.bool_]

_CELL = 48  # bytes of memory that a cell of a pivot table takes until the ratings are built: an upper estimate
_ADDS_UP = -2  # place of a row that is no user's and no movie's
_MOST_OTHER, _FEW_ROWS = 0.5, 20  # share of rows whose title is not their movie's first one, beyond which it is no title


@dataclass(frozen=True)
class How:
    """How the caller of ``read_ratings`` wants a table to be read."""

    columns: Mapping[str, str | int | None] | None = None
    drop_bad: bool = False
    not_rated: float | None = None


@dataclass(frozen=True)
class _Work:
    """What a table is made into ratings from."""

    sheet: Sheet
    catalogues: Catalogues
    how: How
    source: Source
    notes: list[Note]


@dataclass(frozen=True)
class _Bad:
    """Rows without a user, a movie or stars, by role; ``blank`` rows have none of these, and say nothing."""

    masks: Mapping[str, Bools]
    blank: Bools | None
    stars: Parsed
    codes: IntArray  # row -> place in ``stars``


def assemble(sheet: Sheet, catalogues: Catalogues, how: How, source: Source, notes: list[Note]) -> Ratings:
    """Ratings from a sheet.

    Parameters
    ----------
    sheet : Sheet
    catalogues : list of mappings movie id as text -> (raw title, genres)
        From a table of movies, by each kind of id that it has; empty without one.
    how : How
    source : Source
    notes : list of Note
        What is known already, to which the report adds.

    Raises
    ------
    DataError
        There is no column for users, movies or stars, the guess cannot be, or a row is bad: says line, column, value and rule.
    """
    notes += [Note("file", text, odd=False) for text in sheet.remarks]
    work = _Work(sheet, catalogues, how, source, notes)
    pivot = find_pivot(sheet.header, sheet.sample, sheet.n_fields, how.columns)
    if pivot:
        ratings, roles = _assemble_pivot(work, pivot), pivot.roles(sheet.names)
    else:
        roles = find_roles(sheet.header, sheet.sample, sheet.n_fields, sheet.name, how.columns)
        ratings = _assemble_rows(work, roles)
        refuse_impossible(ratings, roles, sheet.name)
    report = replace(ratings.report, columns=roles.report(), notes=(*notes, *notes_on(ratings, roles)))
    return replace(ratings, report=report)


def _assemble_rows(work: _Work, roles: Roles) -> Ratings:
    sheet, how, notes = work.sheet, work.how, work.notes
    places = roles.places
    grid = sheet.read(sorted(set(places.values())), places.get("timestamp"))
    column = {role: grid.columns[place] for role, place in places.items()}
    ids = (partial(parse_ids, column["user"]), partial(_parse_movies, grid, roles))
    (user_ids, user_idx), (movie_ids, movie_idx) = for_each(lambda parse: parse(), ids)
    stars, codes = _stars(grid, roles, notes)
    values = stars.values.astype(np.float32)[codes]
    masks = {"user": user_idx < 0, "movie": movie_idx < 0, "rating": np.isnan(values)}
    bad = _Bad(masks, _blank(masks, column.get("rating"), codes), stars, codes)
    if not how.drop_bad:
        _raise_first(grid, roles, bad)
    keep, reasons = _sort_out(bad, grid.reasons)
    mark = 0.0 if "count" in places else how.not_rated  # what was played no times was not chosen
    if mark is not None:
        unrated = values == np.float32(mark)
        if n_unrated := int((unrated if keep is None else unrated & keep).sum()):
            reasons[f"{'count is 0' if 'count' in places else f'rating is {mark:g}: not rated'}"] = n_unrated
            keep = ~unrated if keep is None else keep & ~unrated
    timestamp = _times(grid, roles, keep, notes)
    known = _own_titles(grid, roles, (movie_ids, movie_idx), keep, notes) | match(work.catalogues, movie_ids.tolist(), notes)
    if keep is not None:
        user_idx, movie_idx, values = user_idx[keep], movie_idx[keep], values[keep]
    return index_ratings(
        user_ids, movie_ids, user_idx, movie_idx, values, timestamp=timestamp, movies=known, source=work.source, reasons=dict(reasons)
    )


def _stars(grid: Grid, roles: Roles, notes: list[Note]) -> tuple[Parsed, IntArray]:
    """The stars of each distinct text, and each row's place among them; all alike where the table holds choices only."""
    role = "rating" if "rating" in roles.places else "count"
    if role not in roles.places:
        notes.append(Note("choices", "There is no column of ratings: each row counts as a choice, and there are no stars to learn."))
        return Parsed(np.ones(1), {}), np.zeros(grid.n_rows, np.int32)
    column = grid.columns[roles.places[role]]
    stars = parse_stars(column, decimal_comma=grid.decimal_comma, counts=role == "count")
    if role == "count":
        name = roles.names[roles.places[role]]
        notes.append(
            Note("counts", f"{name} counts choices, and holds no opinions: each row with a count counts once, and there are no stars.")
        )
    if stars.read_as:
        shown = ", ".join(f"{word!r} as {value:g}" for word, value in list(stars.read_as.items())[:8])
        notes.append(Note("words", f"Ratings in words were read as numbers: {shown}."))
    return stars, codes_of(column)


def _parse_movies(grid: Grid, roles: Roles) -> tuple[Ids, IntArray]:
    """Movies by their ids; without ids, by title and year together."""
    if "movie" in roles.places:
        return parse_ids(grid.columns[roles.places["movie"]])
    titles = grid.columns[roles.places["title"]]
    years = grid.columns[roles.places["year"]] if "year" in roles.places else None
    title_texts = [id_text(text) and text for text in texts_of(titles)] + [""]
    year_texts = [*texts_of(years), ""] if years is not None else [""]
    pair = codes_of(titles).astype(np.int64) * len(year_texts) + (codes_of(years) if years is not None else 0)
    known, place = np.unique(pair, return_inverse=True)
    names = []
    for title, year in (divmod(key, len(year_texts)) for key in known.tolist()):
        names.append(title_texts[title] and movie_entry(title_texts[title], "", year_texts[year])[0])
    distinct = typed(list({name for name in names if name}))
    rank = {str(name): k for k, name in enumerate(distinct.tolist())} | {"": -1}
    return distinct, np.array([rank[name] for name in names], np.int32)[place]


def _blank(masks: Mapping[str, Bools], ratings: Any, codes: IntArray) -> Bools | None:
    """Rows in which user, movie and rating are blank; None without such rows."""
    if not all(mask.any() for mask in masks.values()):
        return None
    nothing = np.array([text == "" for text in [*texts_of(ratings), ""]]) if ratings is not None else np.ones(1, bool)
    blank: Bools = masks["user"] & masks["movie"] & masks["rating"] & nothing[codes]
    return blank


def _raise_first(grid: Grid, roles: Roles, bad: _Bad) -> None:
    """Raise for the first bad row, in file order, of whatever kind."""
    firsts = {}
    for role, mask in bad.masks.items():
        found = mask if bad.blank is None else mask & ~bad.blank
        if found.any():
            firsts[role] = int(found.argmax())
    error = None
    if firsts:
        role = min(firsts, key=lambda role: (firsts[role], list(bad.masks).index(role)))
        row = firsts[role]
        column = grid.columns[roles.places.get(role, roles.places.get("title" if role == "movie" else "count", 0))]
        cell, rule = (
            [*texts_of(column), ""][codes_of(column)[row]],
            bad.stars.rules[int(bad.codes[row])] if role == "rating" else "is missing",
        )
        if role == "rating" and re.fullmatch(r"[0-9]{4,}", cell):
            rule += " (counts, of plays for example, are told by --columns count=COLUMN)"
        error = grid.error(row, role, cell, rule)
    if grid.first_invalid:
        other = grid.first_invalid()
        error = other if error is None or other.line < error.line else error
    if error:
        raise error


def _sort_out(bad: _Bad, reasons: Mapping[str, int]) -> tuple[Bools | None, Counter[str]]:
    """Which rows to keep, None for all; and how many are dropped for which rule: the first that a row breaks."""
    counts, out = Counter(reasons), bad.blank
    for role, mask in bad.masks.items():
        if not mask.any():
            continue
        fresh = mask if out is None else mask & ~out
        if role == "rating":
            for code, n in Counter(bad.codes[fresh].tolist()).items():
                counts[f"rating {bad.stars.rules[code]}"] += n
        elif n_fresh := int(fresh.sum()):
            counts[f"{role} is missing"] += n_fresh
        out = mask if out is None else out | mask
    return (None if out is None else ~out), counts


def _times(grid: Grid, roles: Roles, keep: Bools | None, notes: list[Note]) -> npt.NDArray[np.int64] | None:
    """Seconds since 1970; None where some row has none: a time never costs a rating."""
    if "timestamp" not in roles.places:
        return None
    column = grid.columns[roles.places["timestamp"]]
    if not hasattr(column, "dictionary"):
        whole: npt.NDArray[np.int64] = column.to_numpy() if keep is None else column.to_numpy()[keep]
        return in_seconds(whole)
    times = parse_times(column)
    codes = codes_of(column) if keep is None else codes_of(column)[keep]
    if times.rules:
        wrong = np.zeros(len(times.values), bool)
        wrong[list(times.rules)] = True
        if n_wrong := int(wrong[codes].sum()):
            first = int(codes[wrong[codes].argmax()])
            text = [*texts_of(column), ""][first]
            why = f"{n_wrong:,} of {len(codes):,} times cannot be used ({text[:40]!r} {times.rules[first]})"
            notes.append(Note("times", f"{why}, so the times are left out; the ratings are kept.", odd=False))
            return None
    return in_seconds(times.values[codes])


def _own_titles(grid: Grid, roles: Roles, movies: tuple[Ids, IntArray], keep: Bools | None, notes: list[Note]) -> Catalogue:
    """Titles and genres beside the ratings: of each movie from its first row that has a title."""
    if "title" not in roles.places:
        return {}
    movie_ids, movie_idx = movies
    texts = {role: [*texts_of(grid.columns[place]), ""] for role, place in roles.places.items() if role in ("title", "genres", "year")}
    codes = {role: codes_of(grid.columns[roles.places[role]]) for role in texts}
    has_title = np.array([text.casefold() not in MISSING for text in texts["title"]])[codes["title"]] & (movie_idx >= 0)
    rows = np.flatnonzero(has_title if keep is None else has_title & keep)[::-1]
    first = np.full(len(movie_ids), -1, np.int64)
    first[movie_idx[rows]] = rows  # of several the last that is written, which is the first of the file
    n_other = int((codes["title"][rows] != codes["title"][first[movie_idx[rows]]]).sum())
    if n_other > _MOST_OTHER * len(rows) and n_other >= _FEW_ROWS:
        name = roles.names[roles.places["title"]]
        notes.append(
            Note("titles", f"{name} differs from row to row of one movie, as a review's heading does: it is not taken for its title.")
        )
        return {}
    entries = {}
    for movie_id, row in zip(movie_ids.tolist(), first.tolist(), strict=True):
        if row >= 0:
            cells = {role: texts[role][codes[role][row]] for role in texts}
            entries[str(movie_id)] = movie_entry(cells["title"], cells.get("genres", ""), cells.get("year", ""))
    return entries


# --- pivot tables -------------------------------------------------------------------------------------------------------------------


def _assemble_pivot(work: _Work, pivot: Pivot) -> Ratings:
    """A row for each user and a column for each movie, or the other way round."""
    sheet, how, notes = work.sheet, work.how, work.notes
    grid = sheet.read(sorted({*pivot.cells, *([] if pivot.label is None else [pivot.label])}), None)
    if grid.first_invalid and not how.drop_bad:
        raise grid.first_invalid()
    reasons = Counter(grid.reasons)
    check_fits(_CELL * grid.n_rows * len(pivot.cells), sheet.name)
    row_ids, row_idx = _row_ids(grid, pivot, notes)
    table = np.stack([_scores(grid, place, pivot, reasons, drop_bad=how.drop_bad) for place in pivot.cells], axis=1)
    table[row_idx == _ADDS_UP] = np.nan
    unrated = is_not_rated(table) if how.not_rated is None else how.not_rated
    rated = ~np.isnan(table) & (table != np.float32(np.nan if unrated is None else unrated))
    nameless = rated[row_idx < 0].any(axis=1)
    if nameless.any():
        role = "user" if pivot.rows == "users" else "movie"
        if not how.drop_bad:
            raise grid.error(int(np.flatnonzero(row_idx < 0)[nameless.argmax()]), role, "", "is missing")
        reasons[f"{role} is missing"] += int(rated[row_idx < 0].sum())
    rows, columns = np.nonzero(rated & (row_idx >= 0)[:, None])
    column_ids, column_idx = _name_ids(pivot.names)
    sides = (row_ids, row_idx[rows]), (column_ids, column_idx[columns])
    (user_ids, user_idx), (movie_ids, movie_idx) = sides if pivot.rows == "users" else sides[::-1]
    notes += _pivot_notes(work, pivot, f"{len(row_ids):,} × {len(column_ids):,} cells, of which {len(rows):,} hold a rating", unrated)
    known = match(work.catalogues, movie_ids.tolist(), notes)
    stars = table[rows, columns]
    return index_ratings(user_ids, movie_ids, user_idx, movie_idx, stars, movies=known, source=work.source, reasons=dict(reasons))


def _pivot_notes(work: _Work, pivot: Pivot, shape: str, unrated: float | None) -> list[Note]:
    """What the table was taken for, and how to say otherwise."""
    marks = [f"“{pivot.mark}”"] if pivot.mark else []
    marks += [] if unrated is None or unrated != unrated else [f"{unrated:g}"]  # noqa: PLR0124  # NaN: there is no mark
    what = "movie and a column for each user" if pivot.rows == "movies" else "user and a column for each movie"
    left = f"; {' and '.join(marks)} {'stands' if len(marks) == 1 else 'stand'} for “not rated”" if marks else ""
    change = {} if unrated is None or work.how.not_rated is not None else {"not_rated": float("nan")}
    hint = 'If it is a rating: not_rated=float("nan"), or --not-rated nan.' if change else ""
    notes = [Note("pivot", f"This is a table with a row for each {what}: {shape}{left}.", change, odd=False, hint=hint)]
    if not pivot.sure and pivot.label is not None:
        other, place = "user" if pivot.rows == "movies" else "movie", pivot.label + 1
        text = f"Nothing says whether the rows are users or movies: they were taken for {pivot.rows}."
        hint = f'The other way round: columns={{"{other}": {place}}}, or --columns {other}={place}.'
        notes.append(Note("turned", text, {"columns": {other: place}}, hint=hint))
    if left_out := [name for k, name in enumerate(work.sheet.names) if k not in pivot.cells and k != pivot.label and name]:
        notes.append(Note("left_out", f"Columns that hold no ratings were left out: {', '.join(left_out[:8])}.", odd=False))
    return notes


def _row_ids(grid: Grid, pivot: Pivot, notes: list[Note]) -> tuple[Ids, IntArray]:
    """Ids of the rows: their numbers where no column names them; rows that add up others have none."""
    if pivot.label is None:
        return np.arange(1, grid.n_rows + 1), np.arange(grid.n_rows, dtype=np.int32)
    ids, idx = parse_ids(grid.columns[pivot.label])
    sums = [k for k, key in enumerate(ids.tolist()) if plain(str(key)) in SUMS]
    if sums and grid.n_rows and idx[-1] in sums:
        notes.append(Note("sums", f"The row {ids[idx[-1]]!r} adds up the others, and is left out.", odd=False))
        return ids, np.where(idx == idx[-1], _ADDS_UP, idx).astype(np.int32)
    return ids, idx


def _scores(grid: Grid, place: int, pivot: Pivot, reasons: Counter[str], *, drop_bad: bool) -> FloatArray:
    """The numbers of a column; NaN where a cell is blank, or bad and dropped."""
    column = grid.columns[place]
    parsed, codes, texts = parse_stars(column, decimal_comma=grid.decimal_comma), codes_of(column), [*texts_of(column), ""]
    bad = [code for code in parsed.rules if texts[code].casefold() not in (*MISSING, pivot.mark)]
    if bad:
        found = np.isin(codes, bad)
        if n_bad := int(found.sum()):
            row = int(found.argmax())
            if not drop_bad:
                name = pivot.names[pivot.cells.index(place)]
                raise grid.error(row, name, texts[codes[row]], parsed.rules[int(codes[row])])
            reasons["rating is not a number between -1000 and 1000"] += n_bad
    scores: FloatArray = parsed.values.astype(np.float32)[codes]
    return scores


def _name_ids(names: Sequence[str]) -> tuple[Ids, IntArray]:
    import pyarrow as pa

    ids, idx = parse_ids(pa.array(names, pa.string()).dictionary_encode())
    if (idx < 0).any():
        raise DataError("A column of the pivot table has no name. Name each after its movie.")
    return ids, idx
