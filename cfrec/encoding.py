"""A TrainedModel as the bytes of its files, and back. Nothing is believed before it is checked; no pickle anywhere.

`manifest.json` holds the SHA-256 of itself and of each other file: a damaged weights file often parses without an error.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.config import TrainConfig
from cfrec.errors import CfrecError, ModelError
from cfrec.ratings import Ids, Source
from cfrec.trained import EpochMetrics, TrainedModel, TrainState

FORMAT_VERSION = 1
MANIFEST, WEIGHTS, MOVIES, USERS, STATE = "manifest.json", "weights.safetensors", "movies.csv", "users.csv", "state.safetensors"
ALWAYS = {WEIGHTS, MOVIES, USERS}  # the files beside the manifest
LARGEST_MANIFEST = 4 << 20  # bytes
_LARGEST_HEADER = 64 << 10  # bytes: a giant safetensors header can take minutes and gigabytes to parse
_LARGEST_ROW = 4 << 10  # bytes of CSV
_PLAIN = {  # fields of TrainedModel that the manifest holds as they are
    **dict.fromkeys(("best_epoch", "n_train", "n_valid", "fingerprint"), int),
    **dict.fromkeys(("fit_seconds", "offset"), float),
    **dict.fromkeys(("outcome", "advice", "device", "created"), str),
}


def encode(trained: TrainedModel, *, resumable: bool = False) -> dict[str, bytes]:
    """The files of a model by name; with the state that resuming needs if asked for and there is one."""
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(array) for name, array in trained.weights().items()}
    n_likeness = 0 if trained.movie_likeness is None else trained.movie_likeness.shape[1]
    files = {WEIGHTS: save(weights), MOVIES: _to_csv(trained.movies), USERS: _to_csv(pd.DataFrame({"user_id": trained.user_ids}))}
    state = trained.state if resumable else None
    if state:
        files[STATE] = save({name: np.asarray(array, order="C") for name, array in state.arrays.items()})
    manifest = {
        "format_version": FORMAT_VERSION,
        "dataset": asdict(trained.source),
        "shapes": {"n_users": trained.n_users, "n_movies": trained.n_movies, "n_factors": trained.n_factors, "n_likeness": n_likeness},
        "id_types": {"user_id": _id_type(trained.user_ids), "movie_id": _id_type(trained.movies["movie_id"].to_numpy())},
        "y_range": list(trained.y_range),
        "scale": list(trained.scale),
        "split": list(trained.split) if trained.split else None,
        "config": trained.config.to_dict(),
        "metrics": dict(trained.metrics),
        "history": [asdict(m) for m in trained.history],
        **{name: getattr(trained, name) for name in _PLAIN},
        "state": {"epoch": state.epoch, "best_epoch": state.best_epoch} if state else None,
        "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()},
    }
    return files | {MANIFEST: json.dumps(manifest | {"sha256": _manifest_hash(manifest)}, indent=1, allow_nan=False).encode()}


def _manifest_hash(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _to_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").encode()


def _id_type(ids: Ids) -> str:
    return "integer" if np.issubdtype(ids.dtype, np.integer) else "text"


def read_manifest(data: bytes) -> dict[str, Any]:
    """Parse a manifest and check it by itself. Raises ModelError, which says what is wrong."""
    try:
        manifest = json.loads(data, parse_constant=_refuse_constant)
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError("its manifest cannot be read") from error
    if version != FORMAT_VERSION:
        raise ModelError(f"it has format version {version!r:.20} and this cfrec reads {FORMAT_VERSION}: another version of cfrec is needed")
    try:
        if manifest["sha256"] != _manifest_hash(manifest):
            raise ModelError("its manifest does not have its SHA-256")
        _check_files(manifest)
        _head(manifest)
    except (CfrecError, KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError, RecursionError) as error:
        raise ModelError(str(error) if isinstance(error, ModelError) else f"its manifest is not a model's ({error})") from error
    return dict(manifest)


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check_files(manifest: Mapping[str, Any]) -> None:
    """Which files there are, and none larger than its contents can be: checked before any is opened."""
    shapes, files = manifest["shapes"], manifest["files"]
    n_users, n_movies, n_factors, n_likeness = (_whole(shapes.get(name, 0)) for name in ("n_users", "n_movies", "n_factors", "n_likeness"))
    weights = 4 * (n_users + n_movies) * (n_factors + 1) + _LARGEST_HEADER
    limits = {
        WEIGHTS: weights + 4 * n_movies * n_likeness,
        STATE: 4 * weights,
        MOVIES: _LARGEST_ROW * (n_movies + 1),
        USERS: _LARGEST_ROW * (n_users + 1),
    }
    if not ALWAYS <= files.keys() <= limits.keys() or (STATE in files) != (manifest["state"] is not None):
        raise ModelError("its manifest does not list the files of a model")
    for name, entry in files.items():
        if _whole(entry["bytes"]) > limits[name] or not isinstance(entry["sha256"], str):
            raise ModelError(f"{name} is larger than a model of its shape can be")


def check_file(manifest: Mapping[str, Any], name: str, data: bytes) -> None:
    """Raise ModelError unless the manifest vouches for these bytes."""
    if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]:
        raise ModelError(f"{name} does not have its SHA-256")


def decode(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> TrainedModel:
    """A model from a manifest and files that passed their checks. Raises ModelError, which says what is wrong."""
    try:
        return _decode(manifest, files)
    except (CfrecError, KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError) as error:
        raise ModelError(str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}") from error


def _decode(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> TrainedModel:
    shapes, types = manifest["shapes"], manifest["id_types"]
    n_users, n_movies, n_factors = shapes["n_users"], shapes["n_movies"], shapes["n_factors"]
    wanted = {
        "user_factors": (n_users, n_factors),
        "user_bias": (n_users,),
        "movie_factors": (n_movies, n_factors),
        "movie_bias": (n_movies,),
    }
    if n_likeness := shapes.get("n_likeness", 0):  # the first models had none
        wanted["movie_likeness"] = (n_movies, n_likeness)
    weights = _read_tensors(files[WEIGHTS])
    if {name: array.shape for name, array in weights.items()} != wanted or any(a.dtype != np.float32 for a in weights.values()):
        raise ModelError("its weights are not float32 arrays of the shapes that its manifest says")
    movies = _read_csv(files[MOVIES], {"movie_id": types["movie_id"]}, n_movies)
    users = _read_csv(files[USERS], {"user_id": types["user_id"]}, n_users)
    state = manifest["state"]
    return TrainedModel(
        user_factors=weights["user_factors"],
        user_bias=weights["user_bias"],
        movie_factors=weights["movie_factors"],
        movie_bias=weights["movie_bias"],
        movie_likeness=weights.get("movie_likeness"),
        user_ids=users["user_id"].to_numpy(),
        movies=movies,
        state=TrainState(_whole(state["epoch"]), _whole(state["best_epoch"]), _read_tensors(files[STATE])) if state else None,
        **_head(manifest),
    )


def _head(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a TrainedModel has besides arrays and tables, each of its type and finite."""
    low, high = map(_number, manifest["y_range"])
    lowest, highest, step = map(_number, manifest["scale"])
    if not (low < high and lowest <= highest and step > 0):
        raise ModelError("its ranges of stars are not ranges")
    fraction, seed = manifest["split"] or (None, None)
    checks = {int: _whole, float: _number, str: _text}
    return {
        "y_range": (low, high),
        "scale": (lowest, highest, step),
        "source": Source(**{name: _text(value) for name, value in manifest["dataset"].items()}),
        "config": TrainConfig.from_dict({"method": "adam", "n_likeness": 0} | manifest["config"]),  # as the first models were trained
        "history": [_epoch(entry) for entry in manifest["history"]],
        "metrics": {name: _number(manifest["metrics"][name]) for name in ("mse", "rmse", "mae")},
        "split": None if fraction is None else (_number(fraction), _whole(seed)),
        **{name: checks[kind](manifest[name]) for name, kind in _PLAIN.items()},
    }


def _epoch(entry: Mapping[str, Any]) -> EpochMetrics:
    epoch, *rest = (entry[field.name] for field in fields(EpochMetrics))
    return EpochMetrics(_whole(epoch), *map(_number, rest))


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # the first test sees to it
        raise ModelError(f"{value!r:.40} stands where a number should")
    return value  # type: ignore[return-value]


def _integer(value: object) -> int:
    if type(value) is not int:
        raise ModelError(f"{value!r:.40} stands where a whole number should")
    return value


def _whole(value: object) -> int:
    if not 0 <= _integer(value) < 2**40:
        raise ModelError(f"{value!r:.40} stands where a count should")
    return _integer(value)


def _text(value: object) -> str:
    if type(value) is not str:
        raise ModelError(f"{value!r:.40} stands where text should")
    return value


def _read_tensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(data) < 8 or struct.unpack("<Q", data[:8])[0] > _LARGEST_HEADER:
        raise ModelError("its weights have no sensible header")
    try:
        tensors = load(data)
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"its weights cannot be read ({error})") from error
    if not all(np.isfinite(tensor).all() for tensor in tensors.values()):
        raise ModelError("its weights are not all finite")
    return tensors


def _read_csv(data: bytes, id_types: Mapping[str, str], n_rows: int) -> pd.DataFrame:
    types: dict[str, Any] = {
        "title": "str",
        "raw_title": "str",
        "genres": "str",
        "year": "Int64",
        "n_ratings": np.int64,
        "mean_rating": np.float32,
    }
    types |= {column: {"integer": np.int64, "text": "str"}[kind] for column, kind in id_types.items()}
    table = pd.read_csv(io.BytesIO(data), dtype=types, keep_default_na=False, na_values={"year": [""]})
    if len(table) != n_rows or not id_types.keys() <= set(table.columns):
        raise ModelError(f"a table has {len(table)} rows where {n_rows} are expected, or not the columns it should")
    return table
