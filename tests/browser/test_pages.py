"""Every page as a person sees it: light and dark, on a phone, on a laptop and on a wide screen."""

import os
from pathlib import Path

import pytest
from playwright.sync_api import expect

from tests.browser.waiting import wait_until_drawn

pytestmark = pytest.mark.browser

PAGES = {  # address -> a heading on it, and what must have been drawn
    "": ("See what a recommender learned", "[data-testid=stMetric]"),
    "train": ("Train it yourself", "[data-testid=stVegaLiteChart] svg"),
    "biases": ("Good and bad films", "[data-testid=stVegaLiteChart] svg"),
    "map": ("The map of films", ".js-plotly-plot .main-svg"),
    "similar": ("Similar films", "[data-testid=stMetric]"),
    "models": ("Models", "[data-testid=stDataFrame]"),
    "about": ("How it works", "[data-testid=stVegaLiteChart] svg"),
}
QUERY = {"similar": "?film=50", "map": "?film=50"}


def settle(page, name):
    """Wait until a page is drawn and nothing runs."""
    heading, drawn = PAGES[name]
    expect(page.get_by_role("heading", name=heading).first).to_be_visible()
    expect(page.locator(drawn).first).to_be_visible()
    wait_until_drawn(page)


@pytest.mark.parametrize(
    "name", ["", "similar", *(pytest.param(name, marks=pytest.mark.slow) for name in PAGES if name not in ("", "similar"))]
)
@pytest.mark.parametrize(("width", "scheme"), [(390, "dark"), pytest.param(1920, "light", marks=pytest.mark.slow)])
def test_a_page_fits_its_window_in_its_theme_and_says_what_its_charts_show(open_page, name, width, scheme):
    page = open_page(f"/{name}{QUERY.get(name, '')}", width=width, scheme=scheme)
    settle(page, name)
    main = page.get_by_test_id("stMain")
    assert main.evaluate("e => e.scrollWidth - e.clientWidth") <= 0
    wider = "es => es.filter(e => e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 100))"
    assert page.locator("[data-testid=stMain] [data-testid=stElementContainer]").evaluate_all(wider) == []
    background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    for chart in page.locator("[data-testid=stVegaLiteChart]").all():
        assert len(chart.get_attribute("aria-label") or "") > 20
    assert background == ("rgb(252, 251, 248)" if scheme == "light" else "rgb(12, 14, 20)")


def test_the_pages_are_reached_with_the_keyboard(open_page):
    page = open_page()
    settle(page, "")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent").strip() == "Similar films":
            break
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="Similar films")).to_be_visible()


@pytest.mark.slow
def test_screenshots_for_the_readme(open_page, tmp_path):
    """``CFREC_SCREENSHOTS=.github/images pytest tests/browser -k screenshots`` makes README's pictures; else one is tried."""
    wanted = os.environ.get("CFREC_SCREENSHOTS")
    folder = Path(wanted or tmp_path)
    for name in PAGES if wanted else ["similar"]:
        page = open_page(f"/{name}{QUERY.get(name, '')}", height=900, scheme="dark" if name == "map" else "light")
        settle(page, name)
        page.wait_for_timeout(1500)  # for the last of the drawing, and fonts
        picture = folder / f"{name or 'start'}.png"
        page.screenshot(path=picture)
        assert picture.stat().st_size > 30_000
        page.close()
