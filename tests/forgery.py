"""Models that someone made by hand: their manifests vouch for whatever was put there."""

import hashlib
import io
import json
import zipfile

from cfrec.encoding import decode
from cfrec.manifest import check_file, read_manifest, seal


def load(files):
    """As storage does it: the manifest first, then each file against it."""
    manifest = read_manifest(files["manifest.json"])
    for name in manifest["files"]:
        check_file(manifest, name, files[name])
    return decode(manifest, files)


def forged(files, change):
    """The files with a changed manifest that vouches for itself."""
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    return files | {"manifest.json": seal(manifest)}


def with_file(files, name, data):
    """The files with another in place of one, for which the manifest vouches."""
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return forged(files, lambda m: m["files"].update({name: entry})) | {name: data}


def zipped(files, folder="", method=zipfile.ZIP_DEFLATED):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, data in files.items():
            archive.writestr(folder + name, data)
    return buffer.getvalue()
