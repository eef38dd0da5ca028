"""The start page as a person sees it."""

import pytest
from playwright.sync_api import expect

pytestmark = pytest.mark.browser


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1280, 1920])
def test_the_model_is_shown_within_the_width_of_the_window(open_page, width, scheme):
    page = open_page(width=width, scheme=scheme)
    expect(page.get_by_role("heading", name="See what a recommender learned")).to_be_visible(timeout=20_000)
    expect(page.get_by_text("MovieLens 100K", exact=True)).to_be_visible()
    expect(page.get_by_test_id("stDataFrame")).to_have_count(3)
    expect(page.get_by_test_id("stDataFrame").last).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    background = page.evaluate("getComputedStyle(document.querySelector('.stApp')).backgroundColor")
    red = int(background.removeprefix("rgb(").split(",")[0])
    assert red > 200 if scheme == "light" else red < 60
