"""A model's folder as it lies on disk: read with suspicion, and what killed writers left beside it.

A model is written to a hidden folder `.NAME.new-…`; the one it replaces is moved aside to `.NAME.old`, a deleted one to `.NAME.gone-…`.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from cfrec.encoding import HEAD, check_head
from cfrec.errors import ModelError, ShortageError
from cfrec.manifest import ALWAYS, LARGEST_MANIFEST, MANIFEST, STATE, WEIGHTS, check_file, read_manifest
from cfrec.memory import free_memory, installed_memory

logger = logging.getLogger(__name__)

_HIDDEN = re.compile(r"\.(.+)\.(?:new-[^.]*|gone-[^.]*|(old))", re.DOTALL)
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
_SMALL = 64 << 20  # bytes: a model that is read whatever memory is free


class MissingError(ModelError):
    """There is no manifest where a model should be."""


class Leftover(NamedTuple):
    """A hidden folder that a writer made."""

    hidden: Path
    place: Path  # of its model
    is_old: bool  # whether the model itself was moved there


def new_folder(folder: Path) -> Path:
    """Make a hidden folder in which a model's next version can be written. Raises OSError."""
    return Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))


def old_place(folder: Path) -> Path:
    """Where a model is while it is replaced."""
    return folder.parent / f".{folder.name}.old"


def gone_place(folder: Path) -> Path:
    """Where a model is moved before it is deleted: that takes no space, so that a full disk can be freed."""
    return folder.parent / f".{folder.name}.gone-{secrets.token_hex(4)}"


def actual_place(folder: Path) -> Path:
    """A model's place: its name, or its hidden one while it is being replaced or since that was interrupted."""
    old = old_place(folder)
    return old if not _exists(folder) and _exists(old) else folder


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # what it lies in may not be looked into, or its name is too long
        return False


def stamp(folder: Path) -> tuple[str, int, int] | None:
    """What tells a model from the one that takes its place, and that it has been moved aside; None if there is no model."""
    try:
        place = actual_place(folder)
        state = place.stat()
    except (OSError, ValueError):  # a ValueError: this cannot be a path
        return None
    return place.name, state.st_ino, state.st_mtime_ns


def is_model(folder: Path) -> bool:
    """Whether a folder holds the files of a model, whole or not, and nothing else."""
    try:
        names = _names(folder)
        return WEIGHTS in names or (MANIFEST in names and b'"format_version"' in _read_manifest(folder))
    except (OSError, ValueError, ModelError):  # it is no folder, may not be looked into, or holds something else
        return False


def _names(folder: Path) -> set[str]:
    """What is in a folder. Raises ModelError at the first thing that is not named like a file of a model, OSError where it is no folder."""
    names = set()
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name not in {MANIFEST, STATE, *ALWAYS}:
                raise ModelError("it holds other things than a model")
            names.add(entry.name)
    return names


def leftovers(models: Path, name: str | None = None) -> list[Leftover]:
    """What writers have in a folder of models now or left there; of one model, or of all. Raises OSError."""
    found = []
    with os.scandir(models) as entries:
        for entry in entries:
            match = _HIDDEN.fullmatch(entry.name)
            if match and name in (None, match[1]) and entry.is_dir(follow_symlinks=False) and _is_ours(Path(entry), match[1]):
                found.append(Leftover(Path(entry), models / match[1], bool(match[2])))
    return found


def _is_ours(hidden: Path, name: str) -> bool:
    """Whether a hidden folder holds files of a model alone, or, as earlier versions deleted, a folder with them."""
    try:
        _names(hidden / name if (hidden / name).is_dir() else hidden)
    except (OSError, ModelError) as error:
        logger.info("a hidden folder of the model %r is left as it is: %s", name, getattr(error, "strerror", error))
        return False
    return True


def model_places(models: Path) -> list[Path]:
    """Where the models of a folder are or belong, by name: also one that was moved aside and whose successor never took its place."""
    try:
        paths = [path for path in models.iterdir() if _may_be_folder(path)]
        moved = [leftover.place for leftover in leftovers(models) if leftover.is_old]
    except OSError:
        return []
    return sorted({path for path in paths if not path.name.startswith(".")}.union(moved))


def sweep_up(models: Path, name: str | None = None) -> None:
    """Remove what dead writers left, and bring back a model whose successor never took its place. Raises OSError.

    To be called where no other writer can be at work: under the lock of the folder of models.
    """
    for hidden, place, is_old in leftovers(models, name):
        try:
            if not is_old or is_model(place):
                shutil.rmtree(hidden)
            elif not os.path.lexists(place):
                hidden.rename(place)
        except OSError as error:
            logger.info("what was left of the model %r stays: %s", place.name, error.strerror)


def _may_be_folder(path: Path) -> bool:
    """Whether it is a folder, or a link that leads nowhere or where nobody may look: what was meant to be a model is not hidden."""
    try:
        return path.is_dir() or (path.is_symlink() and not path.exists())
    except OSError:
        return True


def read_folder(place: Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the files of a model, checked against each other. Raises ModelError, which says what is wrong with which file."""
    manifest = read_manifest(_read_manifest(place))
    needed = 2 * sum(entry["bytes"] for entry in manifest["files"].values())  # as bytes, and as arrays
    if needed > _SMALL and needed > (free := free_memory()):
        kind = ModelError if needed > installed_memory() else ShortageError
        raise kind(f"it needs {needed / 1e9:.1f} GB of memory, and {free / 1e9:.1f} GB are free")
    files = {}
    for name, entry in sorted(manifest["files"].items(), key=lambda file: int(file[1]["bytes"])):  # the large ones are read last
        files[name] = _read_file(place / name, entry["bytes"])
        check_file(manifest, name, files[name])
    return manifest, files


def _read_manifest(place: Path) -> bytes:
    with _opened(place / MANIFEST) as (stream, size):
        if size > LARGEST_MANIFEST:
            raise ModelError("its manifest is too large")
        return stream.read(LARGEST_MANIFEST + 1)


def _read_file(path: Path, n_bytes: int) -> bytes:
    with _opened(path) as (stream, size):
        if size != n_bytes:
            raise ModelError(f"{path.name} is not {n_bytes} bytes long")
        check_head(path.name, stream.read(HEAD))
        stream.seek(0)
        return stream.read(n_bytes)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """A plain file and its size: no link is followed, no pipe waited for, no device touched. Raises ModelError."""
    try:
        _check_plain(path.lstat(), path.name)
        with open(path, "rb", opener=_open_at_once) as stream:
            status = os.fstat(stream.fileno())
            _check_plain(status, path.name)  # again: it may have been exchanged since
            yield stream, status.st_size
    except OSError as error:
        missing = isinstance(error, FileNotFoundError) and path.name == MANIFEST
        kind = MissingError if missing else ShortageError if error.errno in _SHORTAGES else ModelError
        raise kind(f"{path.name} cannot be read ({error.strerror or error})") from error


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))


def _check_plain(status: os.stat_result, name: str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise ModelError(f"{name} is a link, or no file")
