"""A model's folder as one zip, to take it away and bring it back."""

from __future__ import annotations

import io
import zipfile
from pathlib import PurePosixPath

from cfrec.archives import ZIP_ERRORS
from cfrec.encoding import decode, encode
from cfrec.errors import ModelError
from cfrec.manifest import LARGEST_MANIFEST, MANIFEST, check_file, read_manifest, reason
from cfrec.trained import TrainedModel

_LARGEST = 2 << 30  # bytes that a model may unpack to
_SMALL = 64 << 20  # bytes that it may unpack to, however small the zip is
_LARGEST_RATIO = 20  # of unpacked to packed bytes beyond that: weights hardly shrink, and only a bomb's shrink a thousandfold
_MOST_MEMBERS = 100  # a model has five files; some programs add a folder and notes of their own
_UNLIKE = f"it should hold one {MANIFEST} and the files beside it"
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}  # zipfile unpacks the others in steps of any size: 400 bytes become a gigabyte


def pack_model(trained: TrainedModel) -> bytes:
    """The files of a model as the bytes of a zip."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in encode(trained).items():
            archive.writestr(name, data)
    return packed.getvalue()


def unpack_model(data: bytes) -> TrainedModel:
    """A model from the bytes of a zip, checked as ``load_model`` checks a folder; nothing is written.

    Raises
    ------
    ModelError
        It is no zip, holds no model, or a damaged one: says which and why.
    """
    try:
        if data.count(b"PK\1\2") > 2 * _MOST_MEMBERS:  # before zipfile reads a list of millions
            raise ModelError(_UNLIKE)
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return _unpack(archive, min(_LARGEST, max(_SMALL, _LARGEST_RATIO * len(data))))
    except MemoryError as error:
        raise ModelError("This model does not fit into the memory that is free. Choose a smaller one.") from error
    except ModelError as error:
        raise ModelError(f"This is not a whole model: {error}. Choose a zip that was downloaded from cfrec.") from error
    except ZIP_ERRORS as error:
        raise ModelError(f"This is not a whole zip archive ({reason(error)}). Choose a zip that was downloaded from cfrec.") from error


def _unpack(archive: zipfile.ZipFile, most: int) -> TrainedModel:
    members = archive.infolist()
    manifests = [m.filename for m in members[:_MOST_MEMBERS] if PurePosixPath(m.filename).name == MANIFEST and "__MACOSX" not in m.filename]
    if len(members) > _MOST_MEMBERS or len(manifests) != 1:
        raise ModelError(_UNLIKE)
    manifest = read_manifest(_read(archive, manifests[0], LARGEST_MANIFEST))
    if sum(entry["bytes"] for entry in manifest["files"].values()) > most:
        raise ModelError(f"it would unpack to more than {most >> 20:,} MB")
    files = {}
    for name, entry in manifest["files"].items():
        files[name] = _read(archive, str(PurePosixPath(manifests[0]).with_name(name)), entry["bytes"])
        check_file(manifest, name, files[name])
    return decode(manifest, files)


def _read(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
    try:
        if archive.getinfo(name).compress_type not in _METHODS:
            raise ModelError(f"{PurePosixPath(name).name} is packed in an unusual way")
        stream = archive.open(name)
    except KeyError as error:
        raise ModelError(f"{PurePosixPath(name).name} is missing") from error
    with stream:
        data = stream.read(most + 1)
    if len(data) > most:
        raise ModelError(f"{PurePosixPath(name).name} is larger than it may be")
    return data
