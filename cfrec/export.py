"""What a model has learned, in files for other programs: CSV, the Embedding Projector's TSV, or a map as one HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from cfrec.errors import CfrecError, ConfigError
from cfrec.explore import movie_map
from cfrec.maps import Look, factor_map
from cfrec.trained import TrainedModel

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r")
_N_ON_MAP = 500  # of the most rated movies: more would hide one another


def export_model(trained: TrainedModel, file_format: str, folder: str | Path) -> list[Path]:
    """Write a model for other programs.

    Parameters
    ----------
    file_format : str
        ``csv``: movies.csv, movie_factors.csv, users.csv, user_factors.csv; movie_likeness.csv where the model has likeness of its own.
        ``projector``: vectors.tsv (``TrainedModel.likeness``) and metadata.tsv for the Embedding Projector (https://projector.tensorflow.org).
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
    """A table, or its rows, with an apostrophe before any text that a spreadsheet would run as a formula."""
    safe = pd.DataFrame(table).copy()
    for column in safe.select_dtypes(["object", "string"]):
        text = safe[column].astype(str)
        safe[column] = text.where(~text.str.startswith(_FORMULA_STARTS), "'" + text)
    return safe


def _movies(trained: TrainedModel) -> pd.DataFrame:
    return trained.movies.drop(columns="raw_title").assign(bias=trained.movie_bias)


def _write_csv(trained: TrainedModel, folder: Path) -> list[Path]:
    users = pd.DataFrame({"user_id": trained.user_ids, "bias": trained.user_bias})
    factor_names = [f"factor_{k}" for k in range(1, trained.n_factors + 1)]
    tables = {
        "movies.csv": _movies(trained),
        "movie_factors.csv": pd.DataFrame(trained.movie_factors, columns=factor_names).assign(movie_id=trained.movies["movie_id"]),
        "users.csv": users,
        "user_factors.csv": pd.DataFrame(trained.user_factors, columns=factor_names).assign(user_id=trained.user_ids),
    }
    if trained.movie_likeness is not None:
        names = [f"likeness_{k}" for k in range(1, trained.movie_likeness.shape[1] + 1)]
        tables["movie_likeness.csv"] = pd.DataFrame(trained.movie_likeness, columns=names).assign(movie_id=trained.movies["movie_id"])
    for name, table in tables.items():
        spreadsheet_safe(table).to_csv(folder / name, index=False)
    return [folder / name for name in tables]


def _write_projector(trained: TrainedModel, folder: Path) -> list[Path]:
    vectors, metadata = folder / "vectors.tsv", folder / "metadata.tsv"
    pd.DataFrame(trained.likeness).to_csv(vectors, sep="\t", header=False, index=False)
    table = _movies(trained)[["title", "movie_id", "year", "genres", "n_ratings", "mean_rating", "bias"]]
    spreadsheet_safe(table).replace(r"[\t\r\n]", " ", regex=True).to_csv(metadata, sep="\t", index=False)
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
