"""Folders of trained models: the only code that touches `models/`.

A model is written to a hidden folder beside its place, synced, and renamed into it, by one writer at a time.
Reading never writes: where a writer was killed between two renames, the model is read from its hidden name.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cfrec.encoding import ALWAYS, LARGEST_MANIFEST, MANIFEST, STATE, WEIGHTS, check_file, decode, encode, read_manifest
from cfrec.errors import ModelError
from cfrec.trained import TrainedModel

_LOCK = ".cfrec.lock"
_NEW, _OLD, _GONE = ".new-", ".old", ".gone-"  # what follows a model's name in its hidden names
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}  # on Windows, in front of a dot
_WAIT = 30.0  # seconds that a writer waits for another
_PATIENCE = 5.0  # seconds that a reader tries again while the model is replaced under its hands


@dataclass(frozen=True)
class StoredModel:
    """An entry of a folder of models; ``problem`` says why it cannot be loaded (empty where it can)."""

    name: str
    path: Path
    manifest: Mapping[str, Any]
    problem: str = ""


class _MissingError(ModelError):
    """There is no manifest where a model should be."""


def save_model(trained: TrainedModel, folder: str | Path, *, resumable: bool = False, overwrite: bool = True) -> Path:
    """Write a model to a folder, replacing the model that is there unless told not to.

    Parameters
    ----------
    folder : path
        ``models/NAME``; its parent is created.
    resumable : bool
        Store Adam's state too (about four times the size), so that the run can be resumed.

    Raises
    ------
    ModelError
        The folder holds something else than a model, may not be overwritten, or cannot be written: what is there is left as it was.
    """
    folder = check_folder(folder)
    with _one_writer(folder):
        if not overwrite and folder.exists():
            raise ModelError(f"There is already a model {folder.name!r}. Choose another name.")
        new = Path(tempfile.mkdtemp(prefix=f".{folder.name}{_NEW}", dir=folder.parent))
        try:
            for name, data in encode(trained, resumable=resumable).items():
                _write_synced(new / name, data)
            new.chmod(0o755)
            replaces = folder.exists()
            if replaces:
                folder.rename(_hidden_old(folder))
            new.rename(folder)
            _sync_folder(folder.parent)
        finally:
            shutil.rmtree(new, ignore_errors=True)
        if replaces:
            shutil.rmtree(_hidden_old(folder), ignore_errors=True)
    return folder


def check_folder(folder: str | Path) -> Path:
    """The folder, with links followed, if a model can be stored there; nothing is written. Raises ModelError."""
    try:
        place = Path(folder).expanduser().resolve()
        if place.exists() and not _is_ours(place) and not (place.is_dir() and not any(place.iterdir())):
            raise ModelError(f"{folder} exists and is not a model. Choose another name, or move it away.")
        parent = next(p for p in place.parents if p.exists())
    except (OSError, ValueError) as error:
        raise ModelError(f"A model cannot be stored in {str(folder)[:100]!r}: {error}. Choose another name.") from error
    if not (parent.is_dir() and os.access(parent, os.W_OK)) or not place.name:
        raise ModelError(f"A model cannot be stored in {folder}: {parent} cannot be written to. Choose another folder.")
    return place


def model_folder(models: str | Path, name: str) -> Path:
    """Where a model of this name is stored in a folder of models. Raises ModelError for a name that could lead elsewhere."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?", name) or name.partition(".")[0].rstrip().upper() in _RESERVED:
        raise ModelError(
            f"{name[:70]!r} cannot be a model's name. Use up to 64 plain letters, digits, spaces, dots, dashes and underscores, "
            "beginning with a letter or digit."
        )
    return Path(models) / name


def model_stamp(folder: str | Path) -> tuple[object, ...] | None:
    """Changes whenever the stored model does; None where there is none. Cheap: no file is read."""
    return _stamp(Path(folder))


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds the files of a model, whole or not, and nothing else."""
    try:
        names = {p.name for p in folder.iterdir()}
        if not names <= {MANIFEST, STATE, *ALWAYS}:
            return False
        return WEIGHTS in names or (MANIFEST in names and b'"format_version"' in (folder / MANIFEST).read_bytes()[:LARGEST_MANIFEST])
    except OSError:  # it is no folder, or may not be looked into
        return False


def _is_stored(place: Path) -> bool:
    """Whether there is a model at this very place, not a link to one."""
    try:
        return not place.is_symlink() and _is_ours(_where(place))
    except OSError:  # what it lies in may not be looked into
        return False


@contextmanager
def _one_writer(folder: Path) -> Iterator[None]:
    """Let one process or thread at a time change a folder of models; first finish what a killed one had begun."""
    from filelock import FileLock, Timeout

    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / _LOCK, timeout=_WAIT):
            _sweep(folder)
            yield
    except Timeout as error:
        raise ModelError(f"Another program has been writing to {folder.parent} for {_WAIT:.0f} seconds. Try again later.") from error
    except OSError as error:
        raise ModelError(f"{folder} could not be written: {error.strerror or error}. Free some space, or choose another folder.") from error


def _sweep(folder: Path) -> None:
    """Under the lock: remove what dead writers left, and bring back a model whose successor never took its place."""
    for kind in (_NEW, _GONE):
        for path in folder.parent.glob(f".{glob.escape(folder.name)}{kind}*"):
            if not path.name.endswith(_OLD):  # else it is a model whose name begins so, as "mine.new-2" does
                shutil.rmtree(path)
    old = _hidden_old(folder)
    if old.is_dir() and _is_ours(old):
        if folder.exists():
            shutil.rmtree(old)
        else:
            old.rename(folder)


def _hidden_old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}{_OLD}")


def _write_synced(path: Path, data: bytes) -> None:
    with path.open("xb") as stream:
        stream.write(data)
        stream.flush()
        os.fsync(stream.fileno())


def _sync_folder(folder: Path) -> None:
    """Make renames last; Windows does so by itself and cannot open folders."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _where(folder: Path) -> Path:
    """A model's place: its name, or its hidden one while it is being replaced or since that was interrupted."""
    old = _hidden_old(folder)
    return old if not folder.exists() and old.exists() else folder


def _stamp(folder: Path) -> tuple[str, int, int] | None:
    """What tells a model from the one that takes its place, and that it has been moved aside; None where there is none."""
    try:
        place = _where(folder)
        state = place.stat()
    except OSError:
        return None
    return place.name, state.st_ino, state.st_mtime_ns


def load_model(folder: str | Path) -> TrainedModel:
    """Read a model; the manifest's and every file's SHA-256 are checked before it is parsed.

    Raises
    ------
    ModelError
        There is no model, or it is damaged, or from another version: says which and why.
    """
    until = time.monotonic() + _PATIENCE
    while True:
        place = Path(folder).expanduser().resolve()
        before = _stamp(place)
        try:
            manifest, files = _read_checked(place)
            return decode(manifest, files)
        except ModelError as error:
            if _stamp(place) != before and time.monotonic() < until:  # it was replaced while it was read
                time.sleep(0.001)
                continue
            if isinstance(error, _MissingError):
                raise ModelError(f"There is no model in {folder}. Train one: python -m cfrec train --out models/NAME") from error
            raise ModelError(f"The model {folder} is damaged: {error}. Restore a copy, or train it again.") from error


def _read_checked(place: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    try:
        place = _where(place)
        if (place / MANIFEST).stat().st_size > LARGEST_MANIFEST:
            raise ModelError("its manifest is too large")
        manifest = read_manifest((place / MANIFEST).read_bytes())
        files = {}
        for name, entry in manifest["files"].items():
            path = place / name
            if path.is_symlink() or path.stat().st_size != entry["bytes"]:
                raise ModelError(f"{name} is a link, or not {entry['bytes']} bytes long")
            files[name] = path.read_bytes()
            check_file(manifest, name, files[name])
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and error.filename == str(place / MANIFEST)
        kind = _MissingError if missing else ModelError
        raise kind(f"{Path(error.filename or place).name} cannot be read ({error.strerror or error})") from error
    return manifest, files


def list_models(folder: str | Path = "models") -> list[StoredModel]:
    """All models in a folder, by name. Those that cannot be loaded are listed too, with the reason."""
    folder = Path(folder)
    try:
        paths = list(folder.iterdir())
    except OSError:
        return []
    interrupted = {p.name[1:].removesuffix(_OLD) for p in paths if p.name.startswith(".") and p.name.endswith(_OLD)}
    names = {p.name for p in paths if p.is_dir() and not p.name.startswith(".")} | interrupted
    return [_entry(folder / name) for name in sorted(names)]


def _entry(path: Path) -> StoredModel:
    try:
        manifest, files = _read_checked(path)
        decode(manifest, files)
    except ModelError as error:
        return StoredModel(path.name, path, {}, f"damaged: {error}")
    return StoredModel(path.name, path, manifest)


def delete_model(folder: str | Path) -> None:
    """Remove a model from disk. Raises ModelError where there is none, or it cannot be removed: then it is left whole."""
    place = Path(folder)
    if not _is_stored(place):
        raise ModelError(f"There is no model in {folder}.")
    with _one_writer(place):
        gone = Path(tempfile.mkdtemp(prefix=f".{place.name}{_GONE}", dir=place.parent))
        place.rename(gone / place.name)
        shutil.rmtree(gone, ignore_errors=True)


def rename_model(folder: str | Path, name: str) -> Path:
    """Give a stored model another name beside it; returns its new place. Raises ModelError: there is none, or the name is taken."""
    place = Path(folder)
    new = model_folder(place.parent, name)
    if not _is_stored(place):
        raise ModelError(f"There is no model in {folder}.")
    with _one_writer(place):
        if new.exists() or _hidden_old(new).exists():
            raise ModelError(f"There is already a model {name!r}. Choose another name.")
        place.rename(new)
        _sync_folder(new.parent)
    return new
