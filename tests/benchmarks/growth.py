"""How training grows from 100,000 ratings to 100 million: seconds an epoch and memory, and a drawing of them.

    pip install vl-convert-python && python tests/benchmarks/growth.py [--draw FILE]

Each size runs ``python -m cfrec bench`` in a process of its own, so that each has its own peak of memory.
"""

from __future__ import annotations

import argparse
import json
import math
import subprocess
import sys

import altair as alt
import pandas as pd

SIZES = (
    "1e5",
    "3e5",
    "1e6",
    "3e6",
    "1e7",
    "3e7",
    "1.35e8",
)  # of which about three quarters remain: a pair is kept once, and a tenth is held out


def measure(size: str, epochs: int) -> dict[str, float]:
    command = [sys.executable, "-m", "cfrec", "bench", size, "--epochs", str(epochs), "--json"]
    [speed] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return {**speed, "seconds": speed["nanoseconds"] * speed["n_ratings"] / 1e9}


def powers(values: pd.Series[float]) -> alt.Scale:
    """An axis from power of ten to power of ten."""
    return alt.Scale(type="log", domain=[10 ** math.floor(math.log10(values.min())), 10 ** math.ceil(math.log10(values.max()))])


def draw(speeds: pd.DataFrame, path: str) -> None:
    """Seconds an epoch beside what they would be if they grew as the ratings do."""
    first = speeds.iloc[0]
    linear = speeds.assign(seconds=first["seconds"] / first["n_ratings"] * speeds["n_ratings"])
    named = pd.concat([speeds.assign(what="measured"), linear.assign(what="in proportion to the smallest")])
    chart = (
        alt.Chart(named, width=560, height=340, title="Seconds an epoch as ratings grow: 50 factors, two CPU cores")
        .mark_line(point=True)
        .encode(
            alt.X("n_ratings:Q", title="ratings learned from", scale=powers(speeds["n_ratings"]), axis=alt.Axis(format="~s", tickCount=4)),
            alt.Y("seconds:Q", title="seconds an epoch", scale=powers(speeds["seconds"]), axis=alt.Axis(format="~g", tickCount=4)),
            alt.Color(
                "what:N",
                title=None,
                scale=alt.Scale(range=["#9aa0a6", "#1f77b4"]),
                legend=alt.Legend(orient="top-left", symbolType="stroke"),
            ),
            alt.StrokeDash("what:N", scale=alt.Scale(range=[[5, 4], [1, 0]]), legend=None),
        )
    )
    chart.save(path, scale_factor=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("sizes", nargs="*", default=SIZES, help="numbers of made-up ratings")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--draw", help="where to put the drawing")
    args = parser.parse_args()
    rows = []
    print(f"| learned from | s an epoch | ns a rating | set-up, s | MSE after {args.epochs} epochs | peak GB |\n|---|---|---|---|---|---|")
    for size in args.sizes:
        speed = measure(size, args.epochs)
        rows.append(speed)
        figures = [f"{speed['seconds']:.4f}", f"{speed['nanoseconds']:.1f}", f"{speed['setup_seconds']:.2f}", f"{speed['mse']:.4f}"]
        print("|", " | ".join([f"{speed['n_ratings']:,}", *figures, f"{speed['peak_gigabytes']:.1f}"]), "|", flush=True)
    speeds = pd.DataFrame(rows)
    print(f"\nnanoseconds a rating grow by {speeds['nanoseconds'].max() / speeds['nanoseconds'].min():.2f} x from the least to the most")
    if args.draw:
        draw(speeds, args.draw)


if __name__ == "__main__":
    main()
