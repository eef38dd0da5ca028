"""A running app and a real Chromium; skipped, with the reason, where there is none."""

from __future__ import annotations

import os
import shutil

import pytest
from playwright.sync_api import ConsoleMessage, expect, sync_playwright

from cfrec.datasets import data_home
from tests.server import serve

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
expect.set_options(timeout=30_000)  # a busy machine with two cores draws 3D in software

# A quiet browser: no sandbox (tests may run as root), nothing of its own to fetch, 3D drawn in software.
FLAGS = [
    *(
        "--no-sandbox",
        "--no-first-run",
        "--disable-quic",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
    ),
    *("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist"),
]


@pytest.fixture(scope="session")
def app_url(tmp_path_factory):
    """The app, with models of its own; the data sets are those of whoever runs the tests."""
    with serve(tmp_path_factory.mktemp("browser"), home=data_home()) as server:
        yield server.url


@pytest.fixture(scope="module")
def chromium():
    """A browser's context: its cache is shared by the tests of a file, and each page in it is a visitor of its own.

    Not of all tests: as long as it is open, asyncio takes its loop for a running one, and other tests could run none of their own.
    """
    if not CHROMIUM:
        pytest.skip("no Chromium here: install it (Debian: apt-get install chromium) or set CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield browser.new_context()
        browser.close()


def _is_probe(message: ConsoleMessage) -> bool:
    """Opened at the address of a page, Streamlit asks below that address for its server first, and gets a 404."""
    url = message.location["url"]
    return "404" in message.text and url.endswith(("/_stcore/health", "/_stcore/host-config"))


@pytest.fixture
def open_page(chromium, app_url):
    """Open the app; afterwards: no console error, no exception box, and no request that left this host."""
    pages = []

    def opener(path: str = "", *, width: int = 1280, height: int = 800, scheme: str = "light"):
        page = chromium.new_page()
        page.set_viewport_size({"width": width, "height": height})
        page.emulate_media(color_scheme=scheme)
        page.problems = []
        page.on("console", lambda m: page.problems.append(f"{m.text} {m.location}") if m.type == "error" and not _is_probe(m) else None)
        page.on("request", lambda r: None if r.url.startswith((app_url, "data:", "blob:")) else page.problems.append(r.url))
        page.on("websocket", lambda w: None if w.url.startswith(app_url.replace("http", "ws")) else page.problems.append(w.url))
        pages.append(page)
        page.goto(app_url + path)
        expect(page.get_by_test_id("stMain").get_by_role("heading").first).to_be_visible()
        return page

    yield opener
    for page in pages:
        assert page.problems == []
        if page.is_closed():
            continue
        assert page.locator("[data-testid=stException]").count() == 0
        page.close()
