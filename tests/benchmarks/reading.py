"""Reading a large CSV of ratings in a new process, beside pandas with its C engine; peak memory of each.

    python tests/benchmarks/reading.py [ROWS]

The file comes plain, with its header quoted as pyarrow's own writer does, and with one bad row at its end. Ours also checks every row,
numbers users and movies, finds who rated twice, and keeps a copy for the next time (``again``). Each is in a process of its own, whose
imports (0.3 to 0.4 s) are left out.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd

from cfrec.benchmark import made_up_ratings

ROUNDS = 5
PANDAS = 'pandas.read_csv({path!r}, engine="c")'
OURS = "cfrec.read_ratings({path!r})"
REFUSED = "with contextlib.suppress(cfrec.CfrecError):\n    cfrec.read_ratings({path!r})"
FIGURES = "print(time.perf_counter() - t, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, flush=True)"


def measure(code: str, path: Path, home: Path, *, leave: bool = True) -> tuple[float, float]:
    """Seconds, and GB at the peak; with ``leave`` the process does not wait until a copy is written."""
    lines = [
        "import contextlib, os, resource, time",
        f"import {'pandas' if code == PANDAS else 'cfrec'}",
        "t = time.perf_counter()",
        code.format(path=str(path)),
        FIGURES,
    ]
    program = "\n".join(lines + ["os._exit(0)"] * leave)
    environment = os.environ | {"CFREC_HOME": str(home)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    seconds, gigabytes = map(float, run.stdout.split())
    return seconds, gigabytes


def write_files(folder: Path, n: int) -> dict[str, Path]:
    ratings = made_up_ratings(n * 5 // 4)
    table = pd.DataFrame({"userId": ratings.user_idx, "movieId": ratings.movie_idx, "rating": ratings.rating})[:n]
    table["timestamp"] = np.random.default_rng(0).integers(8e8, 9e8, len(table))
    files = {name: folder / f"{name}.csv" for name in ("plain", "quoted", "bad")}
    table.to_csv(files["plain"], index=False)
    text = files["plain"].read_bytes()
    header, _, rows = text.partition(b"\n")
    files["quoted"].write_bytes(b'"' + header.replace(b",", b'","') + b'"\n' + rows)
    files["bad"].write_bytes(text + b"1,2,x,3\n")
    print(f"{len(table):,} rows, {len(text) / 1e6:.0f} MB")
    return files


def main() -> None:
    n = int(float(sys.argv[1])) if len(sys.argv) > 1 else 8_000_000
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files, found = write_files(folder, n), {}
        measure(OURS, files["plain"], folder / "home", leave=False)  # which keeps a copy
        for turn in range(ROUNDS):
            runs = {
                "pandas": (PANDAS, files["plain"], folder),
                "plain": (OURS, files["plain"], folder / str(turn)),
                "quoted header": (OURS, files["quoted"], folder / str(turn)),
                "bad last row": (REFUSED, files["bad"], folder / str(turn)),
                "again": (OURS, files["plain"], folder / "home"),
            }
            for kind, run in runs.items():
                found.setdefault(kind, []).append(measure(*run))
        for kind, measured in found.items():
            times = statistics.median(a[0] / b[0] for a, b in zip(measured, found["pandas"], strict=True))
            seconds, peak = (statistics.median(values) for values in zip(*measured, strict=True))
            print(f"{kind:14} {seconds:.2f} s   {times:.2f} x pandas   {peak:.2f} GB")


if __name__ == "__main__":
    main()
