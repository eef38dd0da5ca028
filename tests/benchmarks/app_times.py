"""How soon the app answers, by the browser's clock, beside a one-line app on the same machine.

    python tests/benchmarks/app_times.py

From ``streamlit run`` to healthy, to the first page's heading, and to all its figures; then page switches of a single visitor, from the
click until the page's heading and its main content are there; and from the click on Train, with the recipe Quick on MovieLens 100K, to
its result. That one needs ``python -m cfrec data ml-100k`` first.
"""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[2]))
from cfrec.datasets import data_home
from tests.browser.conftest import CHROMIUM, FLAGS  # the same browser as in the tests
from tests.server import ROOT, Server, serve

APP = ROOT / "streamlit_app.py"

HELLO = 'import streamlit as st\n\nst.title("Hello")\nst.write("world")\n'
RUNS, ROUNDS = 5, 6
PAGES = {  # name in the navigation -> heading, and the content that has to be there
    "Train": ("Train it yourself", "[data-testid=stVegaLiteChart] svg"),
    "Good and bad films": ("Good and bad films", "[data-testid=stVegaLiteChart] svg"),
    "Map": ("The map of films", ".js-plotly-plot .main-svg"),
    "Similar films": ("Similar films", "[data-testid=stTextInput]"),
    "Models": ("Models", "[data-testid=stDataFrame]"),
    "How it works": ("How it works", "[data-testid=stVegaLiteChart] svg"),
    "Start": ("See what a recommender learned", "[data-testid=stMetric]"),
}
SWITCH = """([name, heading, content]) => new Promise(done => {
    const link = [...document.querySelectorAll('a')].find(a => a.innerText.trim() === name);
    const begin = performance.now();
    link.click();
    const look = () => {
        const main = document.querySelector('[data-testid=stMain]');
        const there = [...main.querySelectorAll('h1')].some(h => h.innerText.includes(heading)) && main.querySelector(content);
        if (there) done(performance.now() - begin); else requestAnimationFrame(look);
    };
    requestAnimationFrame(look);
})"""


TRAIN = """() => new Promise(done => {
    const button = [...document.querySelectorAll('[data-testid=stMain] button')].find(b => b.innerText.trim().endsWith('Train'));
    const begin = performance.now();
    const look = () => {
        const there = [...document.querySelectorAll('button')].some(b => b.innerText.includes('Use this model'));
        if (there) done(performance.now() - begin); else requestAnimationFrame(look);
    };
    button.click();
    requestAnimationFrame(look);
})"""
WATCH = """selector => {
    const look = () => {
        if (document.querySelector('h1')) window.begun ??= Date.now();
        if (document.querySelector(selector)) window.drawn = Date.now(); else requestAnimationFrame(look);
    };
    look();
}"""


@contextmanager
def running(script: Path = APP) -> Iterator[Server]:
    """An app with the data sets of whoever runs this."""
    with tempfile.TemporaryDirectory() as folder, serve(Path(folder), script=script, home=data_home()) as server:
        yield server


def first_page(page: Page, script: Path, drawn: str) -> tuple[float, float, float]:
    """Seconds from ``streamlit run`` to healthy, to the first page's heading, and to all that is waited for."""
    with running(script) as server:
        page.goto(server.url, wait_until="commit")
        page.evaluate(WATCH, drawn)
        page.wait_for_function("window.drawn !== undefined")
        begun, drawn_at = page.evaluate("[window.begun, window.drawn]")
        return server.healthy - server.began, begun / 1000 - server.began, drawn_at / 1000 - server.began


def switches(page: Page) -> dict[str, list[float]]:
    """Milliseconds of each page switch, the first of each (which imports and fills caches) apart."""
    times: dict[str, list[float]] = {name: [] for name in PAGES}
    with running() as server:
        page.goto(server.url)
        page.locator("[data-testid=stMetric]").first.wait_for()
        page.wait_for_timeout(8000)  # the warm-up
        for _ in range(ROUNDS + 1):
            for name, (heading, content) in PAGES.items():
                times[name].append(page.evaluate(SWITCH, [name, heading, content]))
                page.wait_for_timeout(600)
    return times


def trainings(page: Page) -> list[float]:
    """Milliseconds from the click on Train to the result."""
    times = []
    with running() as server:
        for _ in range(ROUNDS + 1):
            page.goto(f"{server.url}/train?recipe=Quick")
            page.get_by_role("button", name="Train", exact=True).wait_for()
            page.wait_for_timeout(4000)  # the warm-up, and the estimate of the time
            times.append(page.evaluate(TRAIN))
    return times


def main() -> None:
    """Measure and print."""
    with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 900})
        hello = Path(folder) / "hello.py"
        hello.write_text(HELLO)
        pairs = [
            (first_page(page, hello, "[data-testid=stMarkdown]"), first_page(page, APP, "[data-testid=stMetric]")) for _ in range(RUNS)
        ]
        for k, what in enumerate(("healthy", "first heading", "first page drawn")):
            ours, theirs = (statistics.median(pair[who][k] for pair in pairs) for who in (1, 0))
            print(f"{what:18} {ours:5.2f} s   hello world {theirs:5.2f} s")
        times = switches(page)
        first, *then = trainings(page)
        browser.close()
    print(f"train, to result   first {first:5.0f} ms   then {statistics.median(then):5.0f} ms, at most {max(then):5.0f} ms")
    later = sorted(ms for each in times.values() for ms in each[1:])
    for name, each in times.items():
        print(f"{name:18} first {each[0]:5.0f} ms   then {statistics.median(each[1:]):5.0f} ms, at most {max(each[1:]):5.0f} ms")
    print(f"all switches       median {statistics.median(later):.0f} ms, p95 {later[int(0.95 * (len(later) - 1))]:.0f} ms, n {len(later)}")


if __name__ == "__main__":
    main()
