"""Trained models on disk: `models/NAME/` with manifest.json, weights.safetensors, movies.csv and users.csv, without pickle.

The manifest names the size and SHA-256 of every other file; both are checked before a byte is parsed.
A model is written to a temporary folder beside its place, synced, and renamed into it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.config import TrainConfig
from cfrec.errors import CfrecError, ModelError
from cfrec.ratings import Ids, Source
from cfrec.trained import EpochMetrics, TrainedModel, TrainState

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_WEIGHTS, _MOVIES, _USERS, _STATE = "weights.safetensors", "movies.csv", "users.csv", "state.safetensors"
_FILES = {_WEIGHTS, _MOVIES, _USERS, _STATE}
_LARGEST_MANIFEST = 4 << 20  # bytes
_LARGEST_HEADER = 64 << 10  # bytes: a giant safetensors header can take minutes and gigabytes to parse
_PLAIN = ("best_epoch", "outcome", "advice", "device", "fit_seconds", "n_train", "n_valid", "created", "offset")


@dataclass(frozen=True)
class StoredModel:
    """An entry of a folder of models; ``problem`` says why it cannot be loaded (empty where it can)."""

    name: str
    path: Path
    manifest: Mapping[str, Any]
    problem: str = ""


def save_model(trained: TrainedModel, folder: str | Path, *, resumable: bool = False) -> Path:
    """Write a model to a folder, replacing the model that is there.

    Parameters
    ----------
    folder : path
        ``models/NAME``; its parent is created.
    resumable : bool
        Store Adam's state too (about four times the size), so that the run can be resumed.

    Raises
    ------
    ModelError
        The folder holds something else than a model, or cannot be written: the old model is left as it was.
    """
    folder = Path(folder)
    if folder.exists() and not (folder / MANIFEST).is_file():
        raise ModelError(f"{folder} exists and is not a model. Choose another name, or move it away.")
    files = _encode(trained, resumable)
    manifest = json.dumps(_manifest(trained, files), indent=1).encode()
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _restore_interrupted(folder)
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
        try:
            for name, data in (files | {MANIFEST: manifest}).items():
                _write_synced(new / name, data)
            new.chmod(0o755)
            _swap(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"The model could not be saved to {folder}: {error.strerror or error}. Free some space, or choose another folder."
        ) from error
    return folder


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _swap(new: Path, folder: Path) -> None:
    """Put ``new`` in the place of ``folder``. Between two renames only the old one's hidden name exists: see _restore_interrupted."""
    old = _hidden_old(folder)
    if folder.exists():
        folder.rename(old)
    new.rename(folder)
    shutil.rmtree(old, ignore_errors=True)


def _hidden_old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _restore_interrupted(folder: Path) -> None:
    """Finish what a save that was killed had begun: bring the old model back if no new one took its place."""
    old = _hidden_old(folder)
    if old.exists():
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def _encode(trained: TrainedModel, resumable: bool) -> dict[str, bytes]:
    from safetensors.numpy import save

    weights = {name: np.ascontiguousarray(getattr(trained, name)) for name in ("user_factors", "user_bias", "movie_factors", "movie_bias")}
    files = {_WEIGHTS: save(weights), _MOVIES: _to_csv(trained.movies), _USERS: _to_csv(pd.DataFrame({"user_id": trained.user_ids}))}
    if resumable and trained.state:
        files[_STATE] = save({name: np.asarray(array, order="C") for name, array in trained.state.arrays.items()})
    return files


def _to_csv(table: pd.DataFrame) -> bytes:
    return table.to_csv(index=False, quoting=csv.QUOTE_NONNUMERIC, lineterminator="\n").encode()


def _manifest(trained: TrainedModel, files: Mapping[str, bytes]) -> dict[str, Any]:
    state = trained.state if _STATE in files else None
    return {
        "format_version": FORMAT_VERSION,
        "dataset": asdict(trained.source),
        "shapes": {"n_users": trained.n_users, "n_movies": trained.n_movies, "n_factors": trained.n_factors},
        "id_types": {"user_id": _id_type(trained.user_ids), "movie_id": _id_type(trained.movies["movie_id"].to_numpy())},
        "y_range": list(trained.y_range),
        "scale": list(trained.scale),
        "split": list(trained.split) if trained.split else None,
        "config": trained.config.to_dict(),
        "metrics": dict(trained.metrics),
        "history": [asdict(m) for m in trained.history],
        **{name: getattr(trained, name) for name in _PLAIN},
        "state": {"epoch": state.epoch, "best_epoch": state.best_epoch, "fingerprint": state.fingerprint} if state else None,
        "files": {name: {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in files.items()},
    }


def _id_type(ids: Ids) -> str:
    return "integer" if np.issubdtype(ids.dtype, np.integer) else "text"


def load_model(folder: str | Path) -> TrainedModel:
    """Read a model; every file's size and SHA-256 are checked before it is parsed.

    Raises
    ------
    ModelError
        There is no model, or it is damaged, or from a later version: says which and why.
    """
    folder = Path(folder)
    _restore_interrupted(folder)
    manifest = _read_manifest(folder)
    try:
        files = {name: _read_checked(folder, name, entry) for name, entry in manifest["files"].items()}
        return _decode(manifest, files)
    except ModelError:
        raise
    except (CfrecError, KeyError, TypeError, ValueError, AttributeError, OSError) as error:
        raise ModelError(f"The model {folder} is damaged: {type(error).__name__}: {error}. Train it again, or restore a copy.") from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise ModelError(f"There is no model in {folder}. Train one: python -m cfrec train --out {folder}")
    if path.stat().st_size > _LARGEST_MANIFEST:
        raise ModelError(f"The model {folder} is damaged: its manifest is too large.")
    try:
        manifest = json.loads(path.read_bytes())
        version, files = manifest["format_version"], manifest["files"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError(f"The model {folder} is damaged: its manifest cannot be read. Train it again, or restore a copy.") from error
    if version != FORMAT_VERSION:
        raise ModelError(
            f"The model {folder} has format version {version!r}; this cfrec reads {FORMAT_VERSION}. Update cfrec, or train it again."
        )
    if not isinstance(files, dict) or not {_WEIGHTS, _MOVIES, _USERS} <= files.keys() <= _FILES:
        raise ModelError(f"The model {folder} is damaged: its manifest does not list the files of a model.")
    return dict(manifest)


def _read_checked(folder: Path, name: str, entry: Mapping[str, Any]) -> bytes:
    path = folder / name
    if not path.is_file() or path.is_symlink() or path.stat().st_size != entry["bytes"]:
        raise ModelError(
            f"The model {folder} is damaged: {name} is missing or not {entry['bytes']} bytes long. Restore a copy, or train it again."
        )
    data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        raise ModelError(f"The model {folder} is damaged: {name} does not have its SHA-256. Restore a copy, or train it again.")
    return data


def _decode(manifest: Mapping[str, Any], files: Mapping[str, bytes]) -> TrainedModel:
    shapes, types = manifest["shapes"], manifest["id_types"]
    n_users, n_movies, n_factors = shapes["n_users"], shapes["n_movies"], shapes["n_factors"]
    weights = _read_tensors(files[_WEIGHTS])
    wanted = {
        "user_factors": (n_users, n_factors),
        "user_bias": (n_users,),
        "movie_factors": (n_movies, n_factors),
        "movie_bias": (n_movies,),
    }
    found = {name: array.shape for name, array in weights.items()}
    if found != wanted or not all(a.dtype == np.float32 and np.isfinite(a).all() for a in weights.values()):
        raise ModelError(f"The model is damaged: its weights are not finite float32 arrays of the shapes {wanted}, but {found}.")
    movies = _read_csv(files[_MOVIES], {"movie_id": types["movie_id"]}, n_movies)
    users = _read_csv(files[_USERS], {"user_id": types["user_id"]}, n_users)
    low, high = map(float, manifest["y_range"])
    lowest, highest, step = map(float, manifest["scale"])
    state = manifest["state"]
    return TrainedModel(
        user_factors=weights["user_factors"],
        user_bias=weights["user_bias"],
        movie_factors=weights["movie_factors"],
        movie_bias=weights["movie_bias"],
        y_range=(low, high),
        scale=(lowest, highest, step),
        user_ids=users["user_id"].to_numpy(),
        movies=movies,
        source=Source(**manifest["dataset"]),
        config=TrainConfig.from_dict(manifest["config"]),
        history=[EpochMetrics(**m) for m in manifest["history"]],
        metrics=manifest["metrics"],
        split=(float(manifest["split"][0]), int(manifest["split"][1])) if manifest["split"] else None,
        state=TrainState(**state, arrays=_read_tensors(files[_STATE])) if state else None,
        **{name: manifest[name] for name in _PLAIN},
    )


def _read_tensors(data: bytes) -> dict[str, npt.NDArray[Any]]:
    from safetensors import SafetensorError
    from safetensors.numpy import load

    if len(data) < 8 or struct.unpack("<Q", data[:8])[0] > _LARGEST_HEADER:
        raise ModelError("The model is damaged: its weights have no sensible header.")
    try:
        return load(data)
    except (SafetensorError, KeyError) as error:
        raise ModelError(f"The model is damaged: its weights cannot be read ({error}).") from error


def _read_csv(data: bytes, id_types: Mapping[str, str], n_rows: int) -> pd.DataFrame:
    types: dict[str, Any] = {
        "title": "str",
        "raw_title": "str",
        "genres": "str",
        "year": "Int64",
        "n_ratings": np.int64,
        "mean_rating": np.float32,
    }
    types |= {column: np.int64 if kind == "integer" else "str" for column, kind in id_types.items()}
    table = pd.read_csv(io.BytesIO(data), dtype=types, keep_default_na=False, na_values={"year": [""]})
    if len(table) != n_rows:
        raise ModelError(f"The model is damaged: a table has {len(table)} rows where {n_rows} are expected.")
    return table


def list_models(folder: str | Path = "models") -> list[StoredModel]:
    """All models in a folder, by name. Those that cannot be loaded are listed too, with the reason."""
    folder = Path(folder)
    entries = []
    for path in sorted(folder.iterdir() if folder.is_dir() else ()):
        if path.is_dir() and not path.name.startswith("."):
            try:
                manifest = _read_manifest(path)
                for name, entry in manifest["files"].items():
                    _read_checked(path, name, entry)
                entries.append(StoredModel(path.name, path, manifest))
            except (ModelError, KeyError, TypeError) as error:
                entries.append(StoredModel(path.name, path, {}, str(error)))
    return entries


def delete_model(folder: str | Path) -> None:
    """Remove a model from disk. Raises ModelError where there is none."""
    folder = Path(folder)
    if not (folder / MANIFEST).is_file():
        raise ModelError(f"There is no model in {folder}.")
    shutil.rmtree(folder)
