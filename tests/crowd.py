"""Many visitors of a running app at once: some wander, some watch a run, some vanish."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from random import Random

from tests.web import request
from tests.wire import Visitor

PAGES = ("Start", "Train", "Good and bad films", "Map", "Similar films", "Models", "How it works")
SEARCHES = ("godfather", "star wars", "toy story", "the matirx", "1995", "amelie", "psycho")
_THINK = 3.0  # seconds between what a visitor does, on average
_RAMP = 5.0  # seconds in which all come


@dataclass
class Measured:
    """What all of them saw."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    errors: Counter[str] = field(default_factory=Counter)


async def come_and_vanish(url: str, n: int, *, at_once: int = 8) -> None:
    """Visitors who look at two pages each, where there are two, and are gone without a word."""
    numbers = iter(range(n))

    async def worker() -> None:
        for number in numbers:
            visitor = Visitor(url, keep=False)
            await visitor.open("/")
            if pages := list(visitor.page.pages):
                await visitor.go(pages[number % len(pages)])
            await visitor.kill()

    await asyncio.gather(*(worker() for _ in range(at_once)))


async def crowd(url: str, n: int, seconds: float, *, watching: bool) -> Measured:
    """Let n visitors use the app for so long after all have come; where there is something to watch, every third of them does."""
    measured = Measured()
    probe = asyncio.create_task(_probe(url, measured))
    deadline = time.perf_counter() + _RAMP + seconds
    visits = (_visit(url, Random(number), deadline, watching and number % 3 == 0, measured) for number in range(n))
    await asyncio.gather(*visits)
    probe.cancel()
    return measured


async def _visit(url: str, random: Random, deadline: float, watches: bool, measured: Measured) -> None:
    await asyncio.sleep(random.random() * _RAMP)
    async with Visitor(url, keep=False, on_update=measured.seconds["live chart"].append) as visitor:
        try:
            measured.seconds["first page"].append(await visitor.open("/train" if watches else "/"))
            while (pause := random.expovariate(1 / _THINK)) < deadline - time.perf_counter():
                await asyncio.sleep(pause)
                if visitor.problem:
                    raise visitor.problem
                if not watches:
                    await _do_something(visitor, random, measured)
            await asyncio.sleep(max(deadline - time.perf_counter(), 0))
        except Exception as error:  # noqa: BLE001  # counted, whatever it is
            measured.errors[f"{type(error).__name__}: {error}"[:200]] += 1
        measured.errors.update(visitor.exceptions)


async def _do_something(visitor: Visitor, random: Random, measured: Measured) -> None:
    if visitor.page.title == "Similar films" and random.random() < 0.6:
        began = time.perf_counter()
        await visitor.set("Search for a film", random.choice(SEARCHES))
        measured.seconds["search"].append(time.perf_counter() - began)
    else:
        page = random.choice([page for page in PAGES if page != visitor.page.title])
        measured.seconds["page switch"].append(await visitor.go(page))


async def _probe(url: str, measured: Measured) -> None:
    while True:
        began = time.perf_counter()
        try:
            answer = await request(url, "/_stcore/health", patience=10)
            measured.seconds["health"].append(time.perf_counter() - began)
            if answer.status != 200:
                measured.errors[f"health: {answer.status}"] += 1
        except OSError as error:
            measured.errors[f"health: {type(error).__name__}"] += 1
        await asyncio.sleep(0.25)
