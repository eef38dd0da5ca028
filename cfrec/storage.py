"""Folders of trained models: the only code that changes `models/`.

A model is written to a hidden folder beside its place, synced, and renamed into it, by one writer at a time.
Reading never writes: where a writer was killed between two renames, the model is read from its hidden name.
"""

from __future__ import annotations

import errno
import logging
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

from cfrec.arguments import checked
from cfrec.encoding import decode, encode
from cfrec.errors import ModelError, ShortageError
from cfrec.folders import (
    MissingError,
    actual_place,
    gone_place,
    is_model,
    leftovers,
    model_places,
    new_folder,
    old_place,
    read_folder,
    stamp,
    sweep_up,
)
from cfrec.trained import TrainedModel

logger = logging.getLogger(__name__)

_LOCK = ".cfrec.lock"
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{n}" for port in ("COM", "LPT") for n in range(1, 10))}  # on Windows, in front of a dot
_WAIT = 30.0  # seconds that a writer waits for another
_PATIENCE = 5.0  # seconds that a reader tries again while the model is replaced under its hands
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@dataclass(frozen=True)
class StoredModel:
    """An entry of a folder of models; ``problem`` says why it cannot be loaded (empty where it can)."""

    name: str  # fit to be shown: what is no text in the folder's name is escaped
    path: Path
    manifest: Mapping[str, Any]
    problem: str = ""


@checked
def save_model(trained: TrainedModel, folder: str | Path, *, resumable: bool = False, overwrite: bool = True) -> Path:
    """Write a model to a folder, replacing the model that is there unless told not to.

    Parameters
    ----------
    folder : path
        ``models/NAME``; its parent is created. Where it is a link, what it leads to is replaced.
    resumable : bool
        Store Adam's state too (about four times the size), so that the run can be resumed.
    overwrite : bool
        Where False, there must be nothing of this name, not even a link.

    Raises
    ------
    ModelError
        The folder holds something else than a model, may not be overwritten, or cannot be written: what is there is left as it was.
    """
    if not overwrite:
        _check_free(folder)  # before a lock is made where a link leads
    place = check_folder(folder)
    files = encode(trained, resumable=resumable)
    with _one_writer(place, "saved"):
        if not overwrite:
            _check_free(folder)
        try:
            new = new_folder(place)
            for name, data in files.items():
                _write_synced(new / name, data)
            new.chmod(0o755)
            _sync_folder(new)
            if is_model(place):
                place.rename(old_place(place))
            elif place.exists():
                place.rmdir()  # it is empty
            new.rename(place)
            _sync_folder(place.parent)
        finally:
            sweep_up(place.parent, place.name)
    return place


def _check_free(folder: str | Path) -> None:
    if os.path.lexists(folder) or old_place(Path(folder)).exists():
        raise ModelError(f"There is already a model {_shown(Path(folder).name)!r}. Choose another name.")


def check_folder(folder: str | Path) -> Path:
    """The folder, with links followed, if a model can be stored there; nothing is left behind. Raises ModelError."""
    shown = _shown(folder)
    try:
        place = _resolve(folder)
        if place.exists() and not is_model(place) and not (place.is_dir() and not any(place.iterdir())):
            raise ModelError(f"{shown} exists and is not a model. Choose another name, or move it away.")
        parent = next(p for p in place.parents if p.exists())
    except OSError as error:
        raise ModelError(f"A model cannot be stored in {shown}: {error.strerror}. Choose another name.") from error
    if not parent.is_dir() or not place.name:
        raise ModelError(f"A model cannot be stored in {shown}: {_shown(parent)} cannot be written to. Choose another folder.")
    try:  # permissions do not tell all: /proc and network drives promise more than they allow, and a lock there is waited for in vain
        with tempfile.TemporaryFile(dir=parent, prefix=".cfrec."):
            pass
    except OSError as error:
        raise ModelError(
            f"A model cannot be stored in {shown}: {_shown(parent)} cannot be written to: {error.strerror or error}. {_way_out(error)}."
        ) from error
    return place


def _resolve(folder: str | Path) -> Path:
    """The folder with links followed. Raises ModelError where that cannot be a folder."""
    try:
        return Path(folder).expanduser().resolve()
    except (OSError, ValueError, RuntimeError) as error:  # a RuntimeError: a link that leads to itself, or a home that nobody has
        raise ModelError(f"A model cannot be stored in {_shown(folder)!r}. Choose another name.") from error


def _shown(folder: str | Path) -> str:
    """A folder as messages call it: strangers read them, and need not know where it lies."""
    path = Path(folder)
    name = path.name or path.anchor if path.is_absolute() else str(folder)
    return name[:100].encode(errors="backslashreplace").decode()


def shipped_model(name: str) -> Path:
    """The folder of a model that ships with cfrec: in the package where a wheel was installed, beside it in a checkout."""
    package = Path(__file__).parent
    return next((models for models in [package / "models"] if models.is_dir()), package.parent / "models") / name


def model_folder(models: str | Path, name: str) -> Path:
    """Where a model of this name is stored in a folder of models. Raises ModelError for a name that could lead elsewhere."""
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9 ._-]{0,62}[A-Za-z0-9_-])?", name) or name.partition(".")[0].rstrip().upper() in _RESERVED:
        raise ModelError(
            f"{name[:70]!r} cannot be a model's name. Use up to 64 plain letters, digits, spaces, dots, dashes and underscores, "
            "beginning with a letter or digit."
        )
    return Path(models) / name


def model_stamp(folder: str | Path) -> tuple[object, ...] | None:
    """Changes whenever the stored model does; None if nothing is stored. Cheap: no file is read."""
    return stamp(Path(folder))


def sweep(models: str | Path) -> None:
    """Finish what killed writers had begun in a folder of models, whatever the name; for a program's start.

    What they left is removed, and a model whose successor never took its place is back under its name. A folder that is not there
    or cannot be written is left as it is: its models can be read all the same.
    """
    from filelock import FileLock, Timeout

    models = Path(models)
    try:
        if leftovers(models):
            with FileLock(models / _LOCK, timeout=_PATIENCE):
                sweep_up(models)
    except (OSError, Timeout) as error:
        logger.info("the folder %s was not swept: %s", models.name, getattr(error, "strerror", None) or "another program writes to it")


def _way_out(error: OSError) -> str:
    return "Free some space, and try again" if error.errno in _FULL else "See that its folder can be written to, or choose another"


@contextmanager
def _one_writer(place: Path, what: str) -> Iterator[None]:
    """Let one process or thread at a time change a folder of models; first finish what a killed one had begun."""
    from filelock import FileLock, Timeout

    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(place.parent / _LOCK, timeout=_WAIT):
            sweep_up(place.parent, place.name)
            yield
    except Timeout as error:
        raise ModelError(f"Another program has been writing to {place.parent.name} for {_WAIT:.0f} seconds. Try again later.") from error
    except OSError as error:
        raise ModelError(f"The model {place.name!r} could not be {what}: {error.strerror or error}. {_way_out(error)}.") from error


@contextmanager
def _changing(folder: str | Path, what: str) -> Iterator[Path]:
    """The place of a stored model that is to be changed, under the lock. Raises ModelError if no model is stored at this very place."""
    place = Path(folder)
    if not _is_stored(place):
        raise ModelError(f"There is no model in {_shown(folder)}.")
    with _one_writer(place, what):
        if not _is_stored(place):  # another was quicker
            raise ModelError(f"There is no model in {_shown(folder)} any more.")
        yield place


def _is_stored(place: Path) -> bool:
    """Whether there is a model at this very place, not a link to one."""
    try:
        return not place.is_symlink() and is_model(actual_place(place))
    except OSError:  # what it lies in may not be looked into
        return False


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


@checked
def load_model(folder: str | Path) -> TrainedModel:
    """Read a model; the manifest's and every file's SHA-256 are checked before it is parsed.

    Raises
    ------
    ModelError
        There is no model, or it is damaged, from another version, or cannot be read now (ShortageError): says which and why.
    """
    place = _resolve(folder)
    try:
        return _read(place)[1]
    except MissingError as error:
        raise ModelError(f"There is no model in {_shown(folder)}. Train one: python -m cfrec train --out models/NAME") from error
    except ShortageError as error:
        raise ShortageError(
            f"The model {_shown(folder)} cannot be read now: {error}. Try again later, or with fewer programs open."
        ) from error
    except ModelError as error:
        raise ModelError(f"The model {_shown(folder)} is damaged: {error}. Restore a copy, or train it again.") from error


def _read(place: Path) -> tuple[Mapping[str, Any], TrainedModel]:
    """A model and its manifest; again while it is replaced under our hands. Raises ModelError."""
    until = time.monotonic() + _PATIENCE
    while True:
        before = stamp(place)
        try:
            manifest, files = read_folder(actual_place(place))
            return manifest, decode(manifest, files)
        except MemoryError as error:
            raise ShortageError("it does not fit into the memory that is free") from error
        except ModelError:
            if stamp(place) == before or time.monotonic() > until:
                raise
            time.sleep(0.001)


@checked
def list_models(folder: str | Path = "models") -> list[StoredModel]:
    """All models in a folder, by name. Those that cannot be loaded are listed too, with the reason."""
    return [entry for path in model_places(Path(folder)) if (entry := _entry(path))]


def _entry(path: Path) -> StoredModel | None:
    """A model as it is listed; None where it was deleted meanwhile."""
    name = path.name.encode(errors="backslashreplace").decode()
    try:
        return StoredModel(name, path, _read(_resolve(path))[0])
    except ModelError as error:
        if not os.path.lexists(actual_place(path)):
            return None
        what = "cannot be read now" if isinstance(error, ShortageError) else "damaged"
        return StoredModel(name, path, {}, f"{what}: {error}")


@checked
def delete_model(folder: str | Path) -> None:
    """Remove a model from disk. Raises ModelError if no model is there, or it cannot be removed: then it is left whole."""
    with _changing(folder, "deleted") as place:
        gone = gone_place(place)
        place.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)


def rename_model(folder: str | Path, name: str) -> Path:
    """Give a stored model another name beside it; returns its new place. Raises ModelError: no model is there, or the name is taken."""
    new = model_folder(Path(folder).parent, name)
    with _changing(folder, "renamed") as place:
        _check_free(new)
        place.rename(new)
        _sync_folder(new.parent)
    return new
