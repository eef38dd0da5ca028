"""What a model has learned, in files for other programs: CSV, the Embedding Projector's TSV, or a map as one HTML page."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cfrec.errors import CfrecError, ConfigError
from cfrec.explore import movie_map
from cfrec.maps import Look, factor_map
from cfrec.ratings import FloatArray, Ids
from cfrec.trained import TrainedModel

# What makes a spreadsheet run a cell: a sign at its beginning, even behind spaces, quotation marks and what is not seen; and behind what
# may be taken for the end of a cell: in half of Europe that is a semicolon. Programs in East Asia take the wide signs for the plain ones.
_SIGNS = "[=+@＝﹦＋﹢－﹣＠﹫-]"
_PASSED_OVER = r"""[;\s"\u200b-\u200f\u2060\ufeff]"""
_RISK = re.compile(rf"(^{_PASSED_OVER}*+|{_PASSED_OVER}++)({_SIGNS}?)")
_CELL_ENDS = ";\t\n"
_N_ON_MAP = 500  # of the most rated movies: more would hide one another


def export_model(trained: TrainedModel, file_format: str, folder: str | Path) -> list[Path]:
    """Write a model for other programs.

    Parameters
    ----------
    file_format : str
        ``csv``: movies.csv, movie_factors.csv, users.csv, user_factors.csv.
        ``projector``: vectors.tsv (the movie factors) and metadata.tsv for the Embedding Projector (https://projector.tensorflow.org).
        ``html``: map.html, a 3D map of movies that needs no network.
    folder : path
        Is created; files of those names in it are replaced.

    Returns
    -------
    list of Path
        The files written.

    Raises
    ------
    ConfigError
        An unknown format.
    CfrecError
        The folder cannot be written.
    """
    if file_format not in _WRITERS:
        raise ConfigError(f"There is no export format {file_format!r}. Known: {', '.join(_WRITERS)}.")
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return _WRITERS[file_format](trained, folder)
    except OSError as error:
        raise CfrecError(f"Could not write to {folder}: {error.strerror or error}. Choose another folder.") from error


def spreadsheet_safe(table: pd.DataFrame | Sequence[Mapping[str, object]]) -> pd.DataFrame:
    """A table, or its rows, with an apostrophe before any text that a spreadsheet would run as a formula; CR becomes LF."""
    safe = pd.DataFrame(table).copy()
    for column in safe.select_dtypes(exclude=["number", "bool", "datetime"]):
        safe[column] = safe[column].map(lambda cell: _defuse(cell) if isinstance(cell, str) else cell)
    return safe


def _defuse(cell: str) -> str:
    return _RISK.sub(_add_apostrophe, re.sub("\r\n?", "\n", cell))  # a writer of CSV puts LF in quotation marks, and CR not always


def _add_apostrophe(found: re.Match[str]) -> str:
    run, sign = found.groups()
    begins_cell = found.start() == 0
    end = max(run.rfind(mark) for mark in _CELL_ENDS) + 1
    if sign and (begins_cell or end):
        run = f"{run[:end]}'{run[end:]}"
    if begins_cell and run.startswith(tuple(_CELL_ENDS)):
        run = f"'{run}"
    return run + sign


def _movies(trained: TrainedModel) -> pd.DataFrame:
    return trained.movies.drop(columns="raw_title").assign(bias=trained.movie_bias)


def _write_csv(trained: TrainedModel, folder: Path) -> list[Path]:
    tables = {
        "movies.csv": _movies(trained),
        "movie_factors.csv": _numbered(trained.movie_factors, "movie_id", trained.movies["movie_id"].to_numpy()),
        "users.csv": pd.DataFrame({"user_id": trained.user_ids, "bias": trained.user_bias}),
        "user_factors.csv": _numbered(trained.user_factors, "user_id", trained.user_ids),
    }
    for name, table in tables.items():
        spreadsheet_safe(table).to_csv(folder / name, index=False)
    return [folder / name for name in tables]


def _numbered(rows: FloatArray, id_name: str, ids: Ids) -> pd.DataFrame:
    """Columns of factors behind a column of ids: a line that began with a minus could be taken for a formula up to its end."""
    table = pd.DataFrame(rows, columns=[f"factor_{k}" for k in range(1, rows.shape[1] + 1)])
    table.insert(0, id_name, ids)
    return table


def _write_projector(trained: TrainedModel, folder: Path) -> list[Path]:
    vectors, metadata = folder / "vectors.tsv", folder / "metadata.tsv"
    pd.DataFrame(trained.movie_factors).to_csv(vectors, sep="\t", header=False, index=False)
    # The Embedding Projector takes quotation marks for part of a title, and has no way to write a tab or line end.
    table = _movies(trained)[["title", "movie_id", "year", "genres", "n_ratings", "mean_rating", "bias"]]
    spreadsheet_safe(table).replace(r"[\t\r\n]", " ", regex=True).to_csv(metadata, sep="\t", index=False, quoting=csv.QUOTE_NONE)
    return [vectors, metadata]


def _write_html(trained: TrainedModel, folder: Path) -> list[Path]:
    path = folder / "map.html"
    path.write_text(map_page(movie_map(trained, 3).head(_N_ON_MAP), Look()), encoding="utf-8")
    return [path]


def map_page(places: pd.DataFrame, look: Look) -> str:
    """A map, as ``factor_map`` draws it, as one HTML page that needs no network."""
    page: str = factor_map(places, look).to_html(include_plotlyjs=True, full_html=True)
    return page


_WRITERS: dict[str, Callable[[TrainedModel, Path], list[Path]]] = {"csv": _write_csv, "projector": _write_projector, "html": _write_html}
