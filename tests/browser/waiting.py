"""Waiting for Streamlit."""

from playwright.sync_api import Page, expect


def wait_until_drawn(page: Page) -> None:
    """Wait until no script runs and nothing of an earlier run is left.

    The mark of a running script at the top right is no sign: it comes late, and a short run never has one.
    """
    expect(page.get_by_test_id("stApp")).to_have_attribute("data-test-script-state", "notRunning")
    expect(page.locator("[data-stale=true]")).to_have_count(0)
    expect(page.get_by_test_id("stSkeleton")).to_have_count(0)


def go_to(page: Page, name: str) -> None:
    """Switch to another page in the navigation, and wait until it is drawn.

    Its title is the first thing a page sets: until then, what is seen may still be the page before.
    """
    page.get_by_role("link", name=name, exact=True).first.click()
    expect(page).to_have_title(f"{name} · cfrec")
    wait_until_drawn(page)
