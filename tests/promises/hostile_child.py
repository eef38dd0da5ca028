"""The process that loads hostile models, with little memory and every door watched: ``python -m tests.promises.hostile_child LOADER LIST``.

It writes a line of JSON for each case: what came of it, in how many seconds, and what it did that a reader must not.
"""

from __future__ import annotations

import faulthandler
import hashlib
import io
import json
import os
import pickle
import resource
import signal
import sys
import time
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
from safetensors.numpy import load

import cfrec
from cfrec import comparison, storage
from cfrec.config import free_memory
from cfrec.manifest import PLAIN
from cfrec.packing import unpack_model
from cfrec.storage import StoredModel
from tests.promises.hostile import Case

MEMORY = 400 << 20  # bytes beyond what the process takes once all is imported
DOORS = ("os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.system", "subprocess", "socket", "pickle", "ctypes", "exec")
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod", "os.chown", "os.truncate", "shutil")
MAY_READ = (*{str(Path(path).resolve()) for path in (sys.prefix, sys.base_prefix)}, str(Path.cwd() / "cfrec"), "/proc/", "/sys/")


class Slow(BaseException):
    """A case that takes too long; no reader's ``except Exception`` may catch it."""


class Watch:
    """Notes what a reader must not do: run, connect, unpickle, write, or read anything but the model."""

    def __init__(self) -> None:
        self.inside, self.seen = "", []
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[object, ...]) -> None:
        if not self.inside:
            return
        is_import = event == "exec" and args[0].co_filename.startswith((*MAY_READ, "<frozen "))  # some modules are imported late
        if event.startswith((*DOORS, *CHANGES)) and not is_import:
            self.seen.append(event)
        elif event == "open" and isinstance(args[0], str):
            path, mode, flags = args
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND) or set(mode or "") & set("wax+")
            if writes or not path.startswith((self.inside, *MAY_READ)):
                self.seen.append(f"open {path}")


def digest(model: cfrec.TrainedModel, *, facts: bool = True) -> str:
    """Differs for any other bit in arrays or tables, and in what the manifest says besides."""
    told = [getattr(model, name) for name in (*PLAIN, "y_range", "scale", "split", "source", "config", "history")] if facts else []
    value = hashlib.sha256(repr((told, sorted(model.metrics.items()) if facts else "")).encode())
    state = model.state.arrays if model.state else {}
    for name, array in sorted({**model.weights(), **state}.items()):
        value.update(f"{name} {array.dtype} {array.shape}".encode() + np.ascontiguousarray(array).tobytes())
    for table in (model.movies, pd.DataFrame({"user_id": model.user_ids})):
        value.update(repr((table.dtypes.tolist(), table.to_dict("list"))).encode())
    return value.hexdigest()


def safe(path: Path) -> cfrec.TrainedModel:
    return cfrec.load_model(path) if path.is_dir() else unpack_model(path.read_bytes())


def unsafe(path: Path) -> object:
    """Negative control: what such code often looks like. It believes what it reads, and unpickles what looks like a pickle."""
    if path.is_dir():
        files = {name: (path / name).read_bytes() for name in ("manifest.json", "weights.safetensors", "movies.csv", "users.csv")}
    else:
        with zipfile.ZipFile(io.BytesIO(path.read_bytes())) as archive:
            files = {Path(name).name: archive.read(name) for name in archive.namelist()}
    for data in files.values():
        if data[:1] in (b"\x80", b"c", b"("):
            pickle.loads(data)
    json.loads(files["manifest.json"])
    weights = load(files["weights.safetensors"])
    tables = [pd.read_csv(io.BytesIO(files[name])).to_dict("list") for name in ("movies.csv", "users.csv")]
    return hashlib.sha256(repr([sorted((n, a.tobytes()) for n, a in weights.items()), tables]).encode()).hexdigest()


def use(model: cfrec.TrainedModel, path: Path) -> None:
    """What pages do with a model that could be loaded: none of it may fail."""
    first = model.movies["movie_id"].iloc[0]
    cfrec.movie_biases(model)
    cfrec.similar_movies(model, first, k=3)
    cfrec.search_movies(model, "dor")
    cfrec.recommend(model, {first: model.scale[1]}, k=3)
    model.predict_rows(np.array([0]), np.array([0]))
    if path.is_dir():
        listed = listed_as(path)
        for view in (comparison.overview, comparison.groups_by_test, comparison.miss_by_round, comparison.differing_settings):
            view([listed, replace(listed, name="other")])


def listed_as(path: Path) -> StoredModel:
    """The entry of a model in the list of a folder, without the others there."""
    return storage._entry(path)


def look(case: Case, originals: dict[tuple[str, str], object]) -> str:
    """Load a model and use it; whether it is the original. Raises whatever it raises."""
    path = Path(case.path)
    try:
        model = safe(path)
    except cfrec.CfrecError:
        if path.is_dir() and not listed_as(path).problem.startswith(("damaged: ", "cannot be read now: ")):
            return "listed as whole"
        raise
    if digest(model) == originals["safe", case.seed]:
        return "same"
    use(model, path)
    if case.seed.endswith("1-first") and digest(model, facts=False) == originals["tables", case.seed]:
        return "unsealed"  # the first models' manifests had no checksum: only what is beside them is known to be whole
    return "vouched" if case.vouched else "different"


def judge(case: Case, loader: str, originals: dict[tuple[str, str], object]) -> tuple[str, str]:
    """What came of a case, and the reason where it was refused; hung and crashed are what must not be."""
    try:
        if loader == "unsafe":
            return ("same" if unsafe(Path(case.path)) == originals["unsafe", case.seed] else "different"), ""
        return look(case, originals), ""
    except cfrec.CfrecError as error:
        return "refused", str(error)
    except Slow:
        return "hung", ""
    except Exception as error:  # noqa: BLE001  # any other error is the failure that is looked for
        return "crashed", repr(error)[:300]


def on_alarm(*_: object) -> None:
    raise Slow


def main() -> None:
    loader, cases = sys.argv[1], [Case(*case) for case in json.loads(Path(sys.argv[2]).read_text())]
    patience = 5.0 if loader == "safe" else 0.15
    originals: dict[tuple[str, str], object] = {}
    for seed in {case.seed for case in cases}:
        model = safe(Path(seed))
        originals |= {("safe", seed): digest(model), ("tables", seed): digest(model, facts=False), ("unsafe", seed): unsafe(Path(seed))}
        use(model, Path(seed))
    free_memory()  # imports psutil
    signal.signal(signal.SIGALRM, on_alarm)
    taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (taken + MEMORY, taken + MEMORY))
    watch = Watch()
    for case in cases:
        faulthandler.dump_traceback_later(20, exit=True)  # where even a signal does not get through
        signal.setitimer(signal.ITIMER_REAL, patience)
        start, watch.seen, watch.inside = time.perf_counter(), [], case.path
        outcome, why = judge(case, loader, originals)
        watch.inside = ""
        seconds = time.perf_counter() - start
        signal.setitimer(signal.ITIMER_REAL, 0)
        sys.stdout.write(json.dumps([case.path, outcome, why, seconds, watch.seen]) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
