"""Models that were damaged, forged or booby-trapped, made from those in tests/fixtures; the process that loads them is hostile_child.py."""

from __future__ import annotations

import copy
import gzip
import io
import os
import pickle
import random
import shutil
import socket
import stat
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.forgery import forged, with_file, zipped

SEEDS = sorted(path for path in Path("tests/fixtures/models").iterdir() if path.is_dir())
NAMES = ("manifest.json", "weights.safetensors", "movies.csv", "users.csv", "state.safetensors")
Files = dict[str, bytes]


class Case(NamedTuple):
    """A folder or zip to be loaded."""

    path: str
    kind: str
    seed: str  # the folder that it was made from
    vouched: bool  # whether its own manifest vouches for what is different: it may load, as what it says it is


class _Trap:
    """What a pickle does when it is loaded: runs a command, opens a socket, or writes a file."""

    def __init__(self, how: tuple[Callable[..., object], tuple[object, ...]]) -> None:
        self.how = how

    def __reduce__(self):
        return self.how


def trap(rng: random.Random) -> bytes:
    ways = [(os.system, ("true",)), (socket.socket, ()), (open, (os.devnull, "w")), (eval, ("__import__('subprocess').call(['true'])",))]
    return pickle.dumps(_Trap(rng.choice(ways)), protocol=rng.randrange(6))


# Bytes of one file, changed


def flip(rng, data):
    changed = bytearray(data)
    for _ in range(rng.randint(1, 8)):
        changed[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def overwrite(rng, data):
    changed = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        changed[rng.randrange(len(data))] = rng.choice([0, 10, 13, 34, 44, 45, 46, 48, 57, 91, 123, 255, rng.randrange(256)])
    return bytes(changed)


def cut(rng, data):
    return data[: rng.randrange(len(data))]


def grow(rng, data):
    return data + rng.randbytes(rng.randint(1, 200))


def hole(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 64) :]


def double(rng, data):
    at, n = rng.randrange(len(data)), rng.randint(1, 64)
    return data[:at] + data[at : at + n] + data[at:]


def blank(rng, data):
    at, n = rng.randrange(len(data)), rng.randint(1, 200)
    return (data[:at] + bytes(n) + data[at + n :])[: len(data)]


def splice(rng, data):
    other = (rng.choice(SEEDS) / rng.choice(NAMES)).read_bytes()
    at, start, n = rng.randrange(len(data)), rng.randrange(len(other)), rng.randint(1, 300)
    return data[:at] + other[start : start + n] + data[at + n :]


BYTES = [flip, overwrite, cut, grow, hole, double, blank, splice]


def foreign(rng, data):
    """Something else under a name of ours; before, behind or instead of what was there."""
    npy, torch_like = io.BytesIO(), zipped({"archive/data.pkl": trap(rng), "archive/version": b"3\n"})
    np.save(npy, np.array([_Trap((os.system, ("true",)))], object), allow_pickle=True)
    traps = [trap(rng), trap(rng), trap(rng), torch_like, npy.getvalue()]
    others = [gzip.compress(data), b"<!DOCTYPE html><title>404</title>" * 20, b"#!/bin/sh\ntrue\n", b"", bytes(4096)]
    heads = [b"\x7fELF\2\1\1" + bytes(50), b"\x89PNG\r\n\x1a\n" + bytes(50), b"PK\5\6" + bytes(18)]
    thing = rng.choice([*traps, *others, *heads])
    return rng.choice([thing, thing, thing + data, data + thing])


# Manifests that vouch for themselves


VALUES = [None, True, False, -1, 0, 1, 0.5, -0.0, 1e308, -1e308, 1e-320, 10**30, 2**39, 2**40, 2**63, "", "1", "x" * 9_999, "x" * 20_000]
VALUES += ["../../evil", "/etc/passwd", "a\0b", "\ud800", "\u202e", "<script>alert(1)</script>", "=1+1", [], [[]], [0], [1, 5], {}]
VALUES += [{"a": {}}, {"": 0}, [None], [1, 2, 3], ["x"] * 500, "inf", "nan", "pickle", "text", "integer"]


def places(node: object) -> list[tuple[object, object]]:
    """Each (container, key) in a JSON document."""
    pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    return [place for key, value in pairs for place in [(node, key), *places(value)]]


def surgery(rng: random.Random, manifest: dict[str, object]) -> None:
    """Change, remove or add values anywhere in a manifest."""
    for _ in range(rng.randint(1, 3)):
        container, key = rng.choice(places(manifest))
        value = copy.deepcopy(rng.choice(VALUES))
        if isinstance(container, list) or rng.random() < 0.7:
            container[key] = value
        elif rng.random() < 0.5:
            del container[key]
        else:
            container[rng.choice(["evil", "__class__", "py/object", "../evil", "\ud800", "n_traits", "user_choice"])] = value


def forge_manifest(rng, files):
    try:
        return forged(files, lambda manifest: surgery(rng, manifest))
    except ValueError:  # a number that is not finite
        return files | {"manifest.json": b'{"format_version": 1, "offset": Infinity}'}


def forge_file(rng, files):
    """A damaged or foreign file for which the manifest vouches: past all checksums, only its own sense is left."""
    name = rng.choice([name for name in files if name != "manifest.json"])
    data = rng.choice([*BYTES, *BYTES, foreign])(rng, files[name])
    return with_file(files, name, data)


def forge_version(rng, files):
    return forged(files, lambda m: m.update(format_version=rng.choice([3, 0, -1, 10**9, "1", "2", None, [1], {"major": 1}, 1.5])))


def odd_json(rng, files):
    """A manifest that is trouble for a parser."""
    text = files["manifest.json"].decode()
    ways = [
        "[" * 100_000,
        '{"a":' * 50_000,
        '{"format_version": 1, "files": ' + "[" * 900 + "]" * 900 + "}",
        '{"format_version": 1, "history": [' + "[]," * 1_300_000 + "[]]}",
        '{"format_version": 1, "history": [' + "[]," * 100_000 + "[]]}",
        '{"format_version": ' + "9" * 5_000 + "}",
        text.replace("1", "1" * 400, 1),
        "\ufeff" + text,
        text + text,
        text.replace("{", '{"__proto__": {}, ', 1),
        text.replace(":", ": NaN, :", 1),
        text.replace("null", "-Infinity"),
    ]
    data = rng.choice([*(way.encode() for way in ways), text.encode("utf-16"), text.encode("utf-32"), b"\xff" + text.encode()])
    return files | {"manifest.json": data}


FORGERIES = [forge_manifest, forge_manifest, forge_file, forge_file, forge_version, odd_json]


# Folders, changed in place


def damage(rng, folder):
    path = folder / rng.choice([*NAMES, "manifest.json"])
    path.write_bytes(rng.choice(BYTES)(rng, path.read_bytes()))


def swap(rng, folder):
    a, b = rng.sample(NAMES, 2)
    first, second = (folder / a).read_bytes(), (folder / b).read_bytes()
    (folder / a).write_bytes(second)
    (folder / b).write_bytes(first)


def exchange(rng, folder):
    """A file of another model."""
    name = rng.choice(NAMES)
    shutil.copy(rng.choice(SEEDS) / name, folder / name)


def disguise(rng, folder):
    path = folder / rng.choice(NAMES)
    path.write_bytes(foreign(rng, path.read_bytes()))


def _pipe(rng, path):
    os.mkfifo(path)


def _device(rng, path):
    if os.geteuid() == 0:
        os.mknod(path, stat.S_IFCHR | 0o644, os.makedev(1, rng.choice([3, 5, 8])))  # null, zero, random
    else:
        path.symlink_to("/dev/zero")


def _socket(rng, path):
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(path.parent)  # a socket's name may have a hundred characters
        listener.bind(path.name)
        os.chdir(before)


def _link(rng, path):
    target = rng.choice(["/dev/zero", "/dev/stdin", "/etc/passwd", path.name, "nowhere", "..", SEEDS[0].absolute() / path.name])
    path.symlink_to(target)


def _folder(rng, path):
    path.mkdir()
    (path / "x").write_bytes(b"x")


def _sparse(rng, path):
    with path.open("wb") as stream:
        stream.truncate(10 << 30)


def _locked(rng, path):
    path.touch()
    path.chmod(0)


def replace(rng, folder):
    """Something that is no plain file of the right size in place of one."""
    path = folder / rng.choice(NAMES)
    path.unlink()
    rng.choice([_pipe, _pipe, _device, _socket, _link, _link, _folder, _sparse, _locked, lambda *_: None])(rng, path)


def forge(rng, folder):
    files = {name: (folder / name).read_bytes() for name in NAMES}
    for name, data in rng.choice(FORGERIES)(rng, files).items():
        if "/" not in name:
            (folder / name).write_bytes(data)


def giant_vouched(rng, folder):
    """Files of many gigabytes that take no space, of the sizes that their manifest says."""
    n_users, n_factors = rng.choice([(10**9, 64), (10_000_000, 1_000), (1_000_000, 1_024)])
    files = {name: (folder / name).read_bytes() for name in NAMES}
    sizes = {"weights.safetensors": 4 * (n_users + 14) * (n_factors + 1), "users.csv": 4 * n_users}

    def announce(manifest):
        manifest["shapes"] |= {"n_users": n_users, "n_factors": n_factors, "n_likeness": 0}
        manifest["config"] |= {"n_likeness": 0, "method": "sgd"}
        for name, size in sizes.items():
            manifest["files"][name]["bytes"] = size

    (folder / "manifest.json").write_bytes(forged(files, announce)["manifest.json"])
    for name, size in sizes.items():
        os.truncate(folder / name, size)


def crowd(rng, folder):
    """A few hundred other things beside the model, or around it."""
    for k in range(300):
        (folder / f"{k}").touch()


def nothing(rng, folder):
    for path in folder.iterdir():
        path.unlink()


FOLDERS = [*[damage] * 8, *[forge] * 5, *[replace] * 5, disguise, disguise, swap, exchange, giant_vouched, crowd, nothing]


# Zips


def pack(rng, files):
    method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_DEFLATED, zipfile.ZIP_STORED])
    return zipped(files, rng.choice(["", "mine/", "../evil/", "/abs/", "C:\\x\\"]), method)


def damage_zip(rng, files):
    data = pack(rng, files)
    for _ in range(rng.randint(1, 2)):
        data = rng.choice(BYTES)(rng, data) or b"PK"
    return data


def damage_directory(rng, files):
    """Bytes of the headers and of the directory, where sizes, offsets and methods stand."""
    data = bytearray(pack(rng, files))
    starts = [k for k in range(len(data) - 4) if data[k : k + 4] in (b"PK\1\2", b"PK\3\4", b"PK\5\6")]
    for _ in range(rng.randint(1, 4)):
        at = min(rng.choice(starts) + rng.randrange(46), len(data) - 1)
        data[at] = rng.choice([0, 1, 8, 9, 12, 14, 97, 127, 128, 255, rng.randrange(256)])
    return bytes(data)


def damage_member(rng, files):
    name = rng.choice(list(files))
    return pack(rng, files | {name: rng.choice([*BYTES, foreign])(rng, files[name])})


def bomb(rng, files):
    method = rng.choice([zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    name, size = rng.choice(list(files)), rng.choice([1 << 20, 32 << 20])
    return zipped(files | {name: bytes(size)}, method=method)


def odd_zip(rng, files):
    data = pack(rng, files)
    ways = [
        lambda: b"\x7fELF\2\1\1" + bytes(50) + data,
        lambda: trap(rng) + data,
        lambda: data + trap(rng),
        lambda: data + data,
        lambda: zipped({"model.zip": data}),
        lambda: zipped(files | {"a/manifest.json": files["manifest.json"]}),
        lambda: zipped(files | {f"{k}": b"" for k in range(150)}),
        lambda: zipped(files | {f"{k}": b"" for k in range(2_000)}),
        lambda: zipped(files | {"x" * 60_000: b"", "../../evil": b"x", "/etc/evil": b"x", "evil.pkl": trap(rng)}),
        lambda: zipped({name: data for name, data in files.items() if name != rng.choice(NAMES)}),
        lambda: gzip.compress(data),
        lambda: b"".join(files.values()),
    ]
    return rng.choice(ways)()


def forge_zip(rng, files):
    return pack(rng, rng.choice(FORGERIES)(rng, files))


ZIPS = [*[damage_zip] * 4, *[damage_directory] * 4, damage_member, damage_member, bomb, odd_zip, odd_zip, *[forge_zip] * 4]
MAY_VOUCH = {forge.__name__, forge_zip.__name__, odd_zip.__name__}


def build(number: int, where: Path) -> Case:
    """The case of this number, always the same; three of five are folders."""
    rng = random.Random(number)
    seed, path = rng.choice(SEEDS), where / f"case-{number}"
    if number % 5 < 3:
        change = rng.choice(FOLDERS)
        shutil.copytree(seed, path)
        change(rng, path)
    else:
        change = rng.choice(ZIPS)
        path.write_bytes(change(rng, {name: (seed / name).read_bytes() for name in NAMES}))
    return Case(str(path), change.__name__, str(seed), change.__name__ in MAY_VOUCH)


# What was found: each of these once hung, crashed, filled the memory, or could not be shown


def _folder_with(change: Callable[[Path], object]) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        shutil.copytree(SEEDS[-1], path)
        change(path)

    return make


def _vouch(name: str, data: bytes) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        for file, content in with_file({n: (path / n).read_bytes() for n in NAMES}, name, data).items():
            (path / file).write_bytes(content)

    return _folder_with(change)


def _say(change: Callable[[dict[str, object]], object]) -> Callable[[Path], None]:
    def say(path: Path) -> None:
        files = {name: (path / name).read_bytes() for name in NAMES}
        (path / "manifest.json").write_bytes(forged(files, change)["manifest.json"])

    return _folder_with(say)


def _instead(make: Callable[[random.Random, Path], object], name: str = "manifest.json") -> Callable[[Path], None]:
    return _folder_with(lambda path: ((path / name).unlink(), make(random.Random(0), path / name)))


def _zip(files: Callable[[Files], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(files({name: (SEEDS[-1] / name).read_bytes() for name in NAMES}))


FOUND: dict[str, Callable[[Path], object]] = {
    "a pipe for a manifest": _instead(_pipe),
    "a link to an endless device for a manifest": _instead(lambda _, path: path.symlink_to("/dev/zero")),
    "a table of many columns": _vouch("users.csv", b'"user_id"' + b",a" * 35_000 + b"\n" + b"1\n" * 20),
    "a manifest of small lists": _folder_with(
        lambda path: (path / "manifest.json").write_bytes(b'{"format_version": 1, "history": [' + b"[]," * 1_300_000 + b"[]]}")
    ),
    "half a character in a title": _say(lambda m: m["dataset"].update(title="\ud800")),
    "half a character in a recipe": _say(lambda m: m["config"].update(recipe="\ud800")),
    "half a character in a name": _say(lambda m: m["dataset"].update({"\ud800": "x"})),
    "giant files that take no space": _folder_with(lambda path: giant_vouched(random.Random(0), path)),
    "a mean of infinity": _vouch(
        "movies.csv", (SEEDS[-1] / "movies.csv").read_bytes().replace(b"3.4285715", b"inf").replace(b",14,3.428571", b",14,inf")
    ),
    "a zip of half a gigabyte at one blow": _zip(
        lambda files: zipped(files | {"manifest.json": bytes(64 << 20)}, method=zipfile.ZIP_BZIP2)
    ),
    "a zip of ten thousand members": _zip(lambda files: zipped(files | {f"{k}": b"" for k in range(10_000)})),
}


def build_found(where: Path, kinds: Iterable[str]) -> list[Case]:
    cases = []
    for number, kind in enumerate(kinds):
        path = where / f"found-{number}"
        FOUND[kind](path)
        cases.append(Case(str(path), kind, str(SEEDS[-1]), vouched=False))
    return cases


def remove(case: Case) -> None:
    path = Path(case.path)
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
