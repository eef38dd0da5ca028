"""Reading a large CSV of ratings, the first time and again, beside pandas with its C engine.

    python tests/benchmarks/reading.py [ROWS]

Ours also checks every row, numbers users and movies, and keeps a copy for the next time. Each reading is in a process of its own;
``loaded`` has Numba ready before the clock starts, as in an app that has been running for some seconds.
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
PANDAS = 'import pandas, time; t = time.perf_counter(); pandas.read_csv({path!r}, engine="c"); print(time.perf_counter() - t)'
OURS = "import cfrec, time; {more}; t = time.perf_counter(); cfrec.read_ratings({path!r}); print(time.perf_counter() - t)"
LOADED = "from cfrec import warm; warm.warm_up(0).join()"


def seconds(code: str, home: Path) -> float:
    environment = os.environ | {"CFREC_HOME": str(home)}
    return float(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    n = int(float(sys.argv[1])) if len(sys.argv) > 1 else 8_000_000
    with tempfile.TemporaryDirectory() as folder:
        path, home = Path(folder) / "ratings.csv", Path(folder) / "home"
        ratings = made_up_ratings(n * 5 // 4)
        table = pd.DataFrame({"userId": ratings.user_idx, "movieId": ratings.movie_idx, "rating": ratings.rating})[:n]
        table["timestamp"] = np.random.default_rng(0).integers(8e8, 9e8, len(table))
        table.to_csv(path, index=False)
        print(f"{len(table):,} rows, {path.stat().st_size / 1e6:.0f} MB")
        readings: dict[str, list[float]] = {"pandas": [], "first": [], "first, loaded": [], "again": []}
        seconds(OURS.format(path=str(path), more="pass"), home / "compiled")  # compiles what is not compiled yet
        for turn in range(ROUNDS):
            readings["pandas"].append(seconds(PANDAS.format(path=str(path)), home))
            readings["first"].append(seconds(OURS.format(path=str(path), more="pass"), home / str(turn)))
            readings["first, loaded"].append(seconds(OURS.format(path=str(path), more=LOADED), home / f"loaded {turn}"))
            readings["again"].append(seconds(OURS.format(path=str(path), more="pass"), home / str(turn)))
        for name, taken in readings.items():
            times = statistics.median(a / b for a, b in zip(taken, readings["pandas"], strict=True))
            print(f"{name:14} {statistics.median(taken):.3f} s   {times:.2f} x pandas")


if __name__ == "__main__":
    main()
