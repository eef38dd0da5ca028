"""A TrainedModel as the bytes of its files, and back. Nothing is believed before it is checked; no pickle anywhere."""

from __future__ import annotations

import csv
import hashlib
import io
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.errors import CfrecError, ModelError
from cfrec.manifest import (
    FORMAT_VERSION,
    LARGEST_HEADER,
    MANIFEST,
    MOVIES,
    PLAIN,
    STATE,
    USERS,
    WEIGHTS,
    as_count,
    read_facts,
    read_manifest,
    reason,
    seal,
    weight_shapes,
)
from cfrec.ratings import Ids
from cfrec.trained import TrainedModel, TrainState

HEAD = 8 + LARGEST_HEADER  # bytes that show whether a file begins as it should
_COLUMNS = {MOVIES: ("movie_id", "title", "raw_title", "year", "genres", "n_ratings", "mean_rating"), USERS: ("user_id",)}
_TYPES: dict[str, Any] = {
    "title": "str",
    "raw_title": "str",
    "genres": "str",
    "year": "Int64",
    "n_ratings": np.int64,
    "mean_rating": np.float32,
}


def encode(trained: TrainedModel, *, resumable: bool = False) -> dict[str, bytes]:
    """The files of a model by name; with the state that resuming needs if asked for and there is one.

    Raises
    ------
    ModelError
        It could not be read again: a number is not finite, or a table too large.
    """
    try:
        files = _encode(trained, resumable=resumable)
        read_manifest(files[MANIFEST])
    except (ModelError, ValueError) as error:  # a ValueError: of JSON, of a number that is not finite; of text, that it cannot be encoded
        raise ModelError(
            f"This model could not be read again, so it is not stored: {reason(error)}. "
            "Train it again with other settings, or with shorter titles and ids."
        ) from error
    return files


def _encode(trained: TrainedModel, *, resumable: bool) -> dict[str, bytes]:
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(array) for name, array in trained.weights().items()}
    state = trained.state if resumable else None
    sizes = ("n_users", "n_movies", "n_factors", *(() if trained.user_choice is None else ("n_traits",)))
    shapes = {name: getattr(trained, name) for name in sizes}
    _check_weights(weights, shapes)
    _check_finite(weights | dict(state.arrays if state else {}))
    files = {WEIGHTS: save(weights), MOVIES: _to_csv(trained.movies), USERS: _to_csv(pd.DataFrame({"user_id": trained.user_ids}))}
    if state:
        files[STATE] = save({name: np.asarray(array, order="C") for name, array in state.arrays.items()})
    manifest = {
        "format_version": FORMAT_VERSION,
        "dataset": asdict(trained.source),
        "shapes": shapes,
        "id_types": {"user_id": _id_type(trained.user_ids), "movie_id": _id_type(trained.movies["movie_id"].to_numpy())},
        "y_range": list(trained.y_range),
        "scale": list(trained.scale),
        "split": list(trained.split) if trained.split else None,
        "config": trained.config.to_dict(),
        "metrics": dict(trained.metrics),
        "history": [asdict(m) for m in trained.history],
        **{name: getattr(trained, name) for name in PLAIN},
        "state": {"epoch": state.epoch, "best_epoch": state.best_epoch} if state else None,
        "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()},
    }
    return files | {MANIFEST: seal(manifest)}


def _to_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").encode()


def _id_type(ids: Ids) -> str:
    return "integer" if np.issubdtype(ids.dtype, np.integer) else "text"


def check_head(name: str, head: bytes) -> None:
    """Raise ModelError unless a file of this name can begin with these HEAD bytes: what follows in a bomb is then never read.

    A giant header of weights takes minutes and gigabytes to parse; pandas takes 90 seconds for a table of 100,000 columns.
    """
    if name in _COLUMNS:
        if not head.startswith(",".join(f'"{column}"' for column in _COLUMNS[name]).encode() + b"\n"):
            raise ModelError(f"{name} does not begin with its columns")
    elif len(head) < 8 or struct.unpack("<Q", head[:8])[0] > LARGEST_HEADER:
        raise ModelError(f"{name} has no sensible header")


def decode(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> TrainedModel:
    """A model from a manifest and files that passed their checks. Raises ModelError, which says what is wrong."""
    try:
        return _decode(manifest, files)
    except (CfrecError, KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise ModelError(str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {reason(error)}") from error


def _decode(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> TrainedModel:
    for name in manifest["files"]:
        check_head(name, files[name][:HEAD])
    weights = _read_tensors(files[WEIGHTS])
    shapes, types, state = manifest["shapes"], manifest["id_types"], manifest["state"]
    _check_weights(weights, shapes)
    movies = _read_table(MOVIES, files[MOVIES], types["movie_id"], shapes["n_movies"])
    users = _read_table(USERS, files[USERS], types["user_id"], shapes["n_users"])
    if not (movies["n_ratings"].min() >= 0 and np.isfinite(movies["mean_rating"]).all()):
        raise ModelError(f"{MOVIES} has numbers that cannot be")
    return TrainedModel(
        user_factors=weights["user_factors"],
        user_bias=weights["user_bias"],
        movie_factors=weights["movie_factors"],
        movie_bias=weights["movie_bias"],
        user_choice=weights.get("user_choice"),
        movie_traits=weights.get("movie_traits"),
        user_ids=users["user_id"].to_numpy(),
        movies=movies,
        state=TrainState(as_count(state["epoch"]), as_count(state["best_epoch"]), _read_tensors(files[STATE])) if state else None,
        **read_facts(manifest),
    )


def _check_weights(weights: Mapping[str, npt.NDArray[Any]], shapes: Mapping[str, Any]) -> None:
    found = {name: array.shape for name, array in weights.items()}
    if found != weight_shapes(shapes) or any(array.dtype != np.float32 for array in weights.values()):
        raise ModelError("its weights are not float32 arrays of the shapes that its manifest says")


def _read_tensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"its weights cannot be read ({reason(error)})") from error
    _check_finite(tensors)
    return tensors


def _check_finite(arrays: Mapping[str, npt.NDArray[Any]]) -> None:
    if not all(np.isfinite(array).all() for array in arrays.values()):
        raise ModelError("its weights are not all finite")


def _read_table(name: str, data: bytes, id_type: str, n_rows: int) -> pd.DataFrame:
    column, *_ = columns = _COLUMNS[name]
    types = _TYPES | {column: {"integer": np.int64, "text": "str"}[id_type]}
    table = pd.read_csv(
        io.BytesIO(data), dtype=types, keep_default_na=False, na_values={"year": [""]}, usecols=list(columns), index_col=False
    )
    if len(table) != n_rows or not table[column].is_unique:
        raise ModelError(f"{name} has {len(table)} rows where {n_rows} are expected, or an id twice")
    return table
