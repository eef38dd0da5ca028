"""How quick the app stays with many visitors and a training, and what they take of the machine.

    python tests/benchmarks/load.py [--sessions 50] [--seconds 120] [--no-training] [--ratings 6000000]
    python tests/benchmarks/load.py --churn 2000

A third of the visitors watches the run; the others wander over all pages and search. The time of an epoch is measured with nobody there,
then with all of them. With ``--churn`` visitors come, look at two pages, and vanish without closing their connection. What else is given
goes to ``streamlit run``, as ``--server.maxMessageSize 50``. Server and visitors share the machine.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd

sys.path.insert(0, str(Path(__file__).parents[2]))
from cfrec.benchmark import made_up_ratings
from tests.crowd import Measured, come_and_vanish, crowd
from tests.server import Server, Usage, serve
from tests.wire import Visitor

UPLOADER = "A table of ratings"
ROUND = re.compile(r"round ([\d,]+) of")
ALONE = 15.0  # seconds for which a run is left alone
AFTER = 130.0  # seconds until Streamlit has given up those who left
GOALS = {"page switch": 0.3, "live chart": 0.25}


def made_up_table(n: int) -> bytes:
    """A CSV of about so many ratings."""
    ratings = made_up_ratings(n)
    table = pd.DataFrame({"user": ratings.user_idx, "movie": ratings.movie_idx, "rating": ratings.rating})
    return table.to_csv(index=False).encode()


async def start_training(url: str, n_ratings: int) -> None:
    """Start a long run as a visitor does."""
    async with Visitor(url, keep=False) as visitor:
        await visitor.open("/train?data=A+file+of+your+own&recipe=Quick&epochs_quick=1000")
        await visitor.see(UPLOADER)
        await visitor.upload(UPLOADER, "made up.csv", made_up_table(n_ratings))
        await visitor.see("ratings by")
        await visitor.click("Train")
        await visitor.see(" ratings a second")


async def round_now(url: str) -> tuple[float, int]:
    """The moment, and the round that the run is in. Raises LookupError where there is none."""
    async with Visitor(url, keep=False) as visitor:
        await visitor.open("/train")
        found = ROUND.search(visitor.page.text())
        if found is None:
            raise LookupError("the run is over: give it more --ratings")
        return time.perf_counter(), int(found[1].replace(",", ""))


def seconds_a_round(begin: tuple[float, int], end: tuple[float, int]) -> float:
    return (end[0] - begin[0]) / (end[1] - begin[1])


async def peak_usage(server: Server, peak: list[Usage]) -> None:
    """Keep in ``peak`` the most of each that the server has taken."""
    while True:
        now = server.usage()
        before = peak.pop() if peak else now
        peak.append(Usage(*(max(pair) for pair in zip(vars(before).values(), vars(now).values(), strict=True))))
        await asyncio.sleep(0.25)


def show(measured: Measured) -> None:
    print(f"\n{'milliseconds':14} {'n':>7} {'p50':>7} {'p95':>7} {'p99':>7} {'most':>7}")
    for name, seconds in sorted(measured.seconds.items()):
        if seconds:
            p50, p95, p99 = (1e3 * np.percentile(seconds, q) for q in (50, 95, 99))
            goal = f"   goal: p95 ≤ {1e3 * GOALS[name]:.0f}" if name in GOALS else ""
            print(f"{name:14} {len(seconds):7,} {p50:7.0f} {p95:7.0f} {p99:7.0f} {1e3 * max(seconds):7.0f}{goal}")
    print(f"errors {sum(measured.errors.values())}", *(f"\n  {count} × {error}" for error, count in measured.errors.items()))


def show_usage(usages: dict[str, Usage]) -> None:
    print(f"\n{'server':16} {'MB':>7} {'threads':>8} {'descriptors':>12} {'CPU, s':>8}")
    for when, usage in usages.items():
        print(f"{when:16} {usage.megabytes:7.0f} {usage.threads:8} {usage.descriptors:12} {usage.cpu_seconds:8.1f}")


async def measure_load(server: Server, options: argparse.Namespace) -> None:
    """Many visitors at once, and a run beside them."""
    usages, alone = {"before": server.usage()}, 0.0
    if options.training:
        await start_training(server.url, int(options.ratings))
        begin = await round_now(server.url)
        await asyncio.sleep(ALONE)
        alone = seconds_a_round(begin, await round_now(server.url))
        usages["training alone"] = server.usage()
    peak: list[Usage] = []
    watch = asyncio.create_task(peak_usage(server, peak))
    begin, own = await round_now(server.url) if options.training else (0.0, 0), time.process_time()
    measured = await crowd(server.url, options.sessions, options.seconds, watching=options.training)
    end = await round_now(server.url) if options.training else (0.0, 1)
    watch.cancel()
    own = time.process_time() - own
    usages["peak"] = peak[-1]
    await settle(server.url, options.settle)
    usages["after"] = server.usage()
    print(f"{options.sessions} visitors for {options.seconds:.0f} s, {'with' if options.training else 'without'} a training")
    show(measured)
    if options.training:
        loaded = seconds_a_round(begin, end)
        print(f"a round of training: {1e3 * alone:.0f} ms alone, {1e3 * loaded:.0f} ms beside them: × {loaded / alone:.2f}   goal: × 1.25")
    show_usage(usages)
    print(f"the visitors themselves took {own:.1f} s of CPU; load of the machine in the last minute: {os.getloadavg()[0]:.1f}")


async def settle(url: str, seconds: float) -> None:
    """Wait until Streamlit has given up those who left; it clears them away when the next one leaves."""
    await asyncio.sleep(seconds)
    async with Visitor(url, keep=False) as visitor:
        await visitor.open("/")
    await asyncio.sleep(2)


async def measure_churn(server: Server, options: argparse.Namespace) -> None:
    """Visitors who vanish, a hundred after a hundred."""
    usages = {}
    for n in range(0, options.churn + 1, 100):
        usages[f"{n:5,} vanished"] = server.usage()
        if n < options.churn:
            await come_and_vanish(server.url, 100)
    await settle(server.url, options.settle)
    usages["after"] = server.usage()
    show_usage(usages)
    megabytes = [usage.megabytes for usage in usages.values()]
    print(f"from the 201st on {100 * (megabytes[-2] - megabytes[2]) / max(options.churn - 200, 1):.2f} MB per 100 visitors   goal: < 5")


async def measure(server: Server, options: argparse.Namespace) -> None:
    """Make the server ready, then measure."""
    async with Visitor(server.url, keep=False) as visitor:
        await visitor.open("/train")
        await visitor.see("What to train")
        for page in visitor.page.pages:
            await visitor.go(page)
    await (measure_churn if options.churn else measure_load)(server, options)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sessions", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--training", action=argparse.BooleanOptionalAction, default=True)
    parser.add_argument("--ratings", type=float, default=6e6, help="of the table that is trained on")
    parser.add_argument("--churn", type=int, default=0, help="visitors who vanish")
    parser.add_argument("--settle", type=float, default=AFTER, help="seconds to wait at the end, until those who left are given up")
    options, others = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), options=others) as server:
        asyncio.run(measure(server, options))


if __name__ == "__main__":
    main()
