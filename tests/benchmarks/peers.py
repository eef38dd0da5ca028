"""Ours beside each peer that is installed: how good, how long, and how that grows. Each in a process of its own, in turns.

    python -m venv peers && peers/bin/pip install -r tests/benchmarks/requirements.txt
    python tests/benchmarks/peers.py --python peers/bin/python               # MovieLens 100K, the split of README
    python tests/benchmarks/peers.py --python peers/bin/python 1e6 1e7       # seconds an epoch, on made-up ratings

The peers have an environment of their own, for they need other versions of pandas. Times are medians of rounds in which all take turns;
ratios are medians of the rounds' ratios to the first line. What takes more than 20 seconds runs once. What is not installed is left out,
and said so.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

import cfrec
from cfrec.benchmark import made_up_ratings
from cfrec.ratings import Ratings

HERE = Path(__file__).parent
QUALITY = {  # what is shown -> contestant, epochs (0: as the recipe says)
    "cfrec quick": ("cfrec:quick", 0),
    "cornac MF, until 0.829": ("cornac", 23),
    "cornac MF": ("cornac", 25),
    "cfrec balanced": ("cfrec:balanced", 0),
    "LensKit BiasedMF": ("lenskit", 10),
    "Surprise SVD": ("surprise_svd", 20),
    "cfrec accurate": ("cfrec:accurate", 0),
    "myFM, 200 samples": ("myfm", 200),
    "Surprise SVD++": ("surprise_svdpp", 20),
    "cfrec seed": ("cfrec:seed", 0),
    "the post's loop": ("post", 30),
}
SPEED = {
    "cfrec balanced": ("cfrec:balanced", 10),
    "cornac MF": ("cornac", 10),
    "LensKit BiasedMF": ("lenskit", 2),
    "implicit ALS": ("implicit", 2),
    "cfrec torch": ("cfrec:torch", 2),
    "torch, autograd": ("autograd", 2),
}


def write(path: Path, train: Ratings, held_out: Ratings) -> None:
    joined = {
        name: np.concatenate([getattr(part, field) for part in (train, held_out)])
        for name, field in {"users": "user_idx", "movies": "movie_idx", "stars": "rating"}.items()
    }
    np.savez(path, n_train=len(train), n_users=train.n_users, n_movies=train.n_movies, **joined)


def run(interpreter: str, contestant: str, path: Path, epochs: int) -> dict[str, Any] | None:
    """What a contestant prints; None where it is not installed."""
    script = [str(HERE / "contestants.py"), contestant, str(path), str(epochs)]
    done = subprocess.run([interpreter, *script], capture_output=True, text=True, check=False)
    if done.returncode == 3:
        return None
    if done.returncode:
        raise SystemExit(f"{contestant} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def compare(table: dict[str, tuple[str, int]], path: Path, peers: str, rounds: int) -> dict[str, list[dict[str, Any]]]:
    """Each contestant's figures, a list with one entry a round."""
    results: dict[str, list[dict[str, Any]]] = {}
    run(sys.executable, "cfrec:quick", path, 1)  # compiles what is not compiled yet
    for turn in range(rounds):
        for name, (contestant, epochs) in table.items():
            if turn and (name not in results or results[name][0]["seconds"] > 20):
                continue
            own = contestant.startswith("cfrec") or contestant in ("post", "autograd")
            figures = run(sys.executable if own else peers, contestant, path, epochs)
            if figures is None:
                print(f"{name}: not installed", file=sys.stderr)
                continue
            results.setdefault(name, []).append(figures)
            print(f"\r{turn + 1}/{rounds} {name:20}", end="", file=sys.stderr)
    print(file=sys.stderr)
    return results


def ratio(results: list[dict[str, Any]], first: list[dict[str, Any]], figure: str) -> float:
    return statistics.median(a[figure] / b[figure] for a, b in zip(results, first, strict=False))


def print_quality(results: dict[str, list[dict[str, Any]]]) -> None:
    first = next(iter(results.values()))
    print("| system | epochs | MSE | fit, s | fit, × the first | import and prepare, s |\n|---|---|---|---|---|---|")
    for name, rounds in results.items():
        fit, before = (statistics.median(r[figure] for r in rounds) for figure in ("seconds", "before"))
        times = ratio(rounds, first, "seconds")
        print(f"| {name} | {rounds[0]['epochs']} | {rounds[0]['mse']:.4f} | {fit:.3f} | {times:.1f} | {before:.2f} |")


def print_speed(results: dict[str, list[dict[str, Any]]], n_train: int) -> None:
    first = next(iter(results.values()))
    print(f"\n{n_train:,} ratings to train on\n")
    print("| system | s an epoch | ns a rating | × the first | whole run, s | MSE (epochs) | peak GB |\n|---|---|---|---|---|---|---|")
    for name, rounds in results.items():
        epoch, mse = statistics.median(r["epoch"] for r in rounds), rounds[0]["mse"]
        quality = "–" if mse is None else f"{mse:.4f}"
        figures = f"{epoch:.3f} | {1e9 * epoch / n_train:.0f} | {ratio(rounds, first, 'epoch'):.1f}"
        whole = statistics.median(r["seconds"] for r in rounds)
        print(f"| {name} | {figures} | {whole:.2f} | {quality} ({rounds[0]['epochs']}) | {rounds[0]['gigabytes']:.1f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", type=float, help="numbers of made-up ratings; left out: MovieLens 100K")
    parser.add_argument("--python", default=sys.executable, help="the interpreter of the environment that has the peers")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ratings.npz"
        if not args.sizes:
            write(path, *cfrec.load_dataset("ml-100k").split())
            print_quality(compare(QUALITY, path, args.python, args.rounds))
        for size in args.sizes:
            ratings = made_up_ratings(int(size))
            cut = len(ratings) * 9 // 10
            write(path, ratings.take(np.arange(cut)), ratings.take(np.arange(cut, len(ratings))))
            del ratings
            print_speed(compare(SPEED, path, args.python, args.rounds), cut)


if __name__ == "__main__":
    main()
