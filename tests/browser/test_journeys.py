"""What people come for, from the first click to the last, in a real browser."""

import re

import pytest
from playwright.sync_api import expect

from tests.browser.waiting import go_to, wait_until_drawn

pytestmark = pytest.mark.browser

CHART = "[data-testid=stVegaLiteChart][aria-label*='average miss by round']"
NEIGHBOURS = "[data-testid=stProgress]"


def films(page):
    """Titles of the neighbours on the page of similar films."""
    titles = page.locator("[data-testid=stMain] strong")
    expect(page.get_by_role("button", name="Show similar")).to_have_count(10)
    wait_until_drawn(page)
    expect(titles).to_have_count(10)
    return titles.all_inner_texts()


def make_csv(tmp_path, n_users=300, n_movies=120, n_ratings=30_000, seed=0):
    """Ratings with three tastes, large enough that training can be watched."""
    import numpy as np

    rng = np.random.default_rng(seed)
    pairs = rng.choice(n_users * n_movies, n_ratings, replace=False)
    users, movies = pairs // n_movies, pairs % n_movies
    stars = np.where(users % 3 == movies % 3, 5, 2) - (rng.random(n_ratings) < 0.3)
    rows = [f"{u},{m},Film {m} (19{m % 80 + 10}),{s}" for u, m, s in zip(users, movies, stars, strict=True)]
    path = tmp_path / "my ratings.csv"
    path.write_text("user,movie,title,rating\n" + "\n".join(rows))
    return path


def upload(page, path):
    choose(page, "Ratings to learn from", "A file of your own")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(path)
    expect(page.get_by_text("ratings by 300 people of 120 films")).to_be_visible()


def choose(page, label, option):
    page.get_by_role("combobox", name=label).click()
    page.get_by_role("option", name=option, exact=True).click()


def change_rounds(page, recipe, own, value):
    """Choose a recipe, wait until the settings are its own, and change its number of rounds."""
    page.get_by_text(recipe, exact=True).click()
    page.get_by_text("Advanced: every setting").click()
    field = page.get_by_label("Rounds", exact=True).first
    expect(field).to_have_value(str(own))  # what is typed before would go to the settings of the recipe before
    field.fill(str(value))
    field.press("Enter")
    expect(page.get_by_text("Changed from the recipe: Rounds.")).to_be_visible()


def train(page):
    button = page.get_by_role("button", name="Train", exact=True)
    expect(button).to_be_enabled()
    button.click()


def test_search_wander_and_return(open_page):
    page = open_page()
    page.get_by_role("link", name="Find films").click()
    page.get_by_label("Search for a film").press_sequentially("godfahter", delay=60)
    page.get_by_role("button", name="The Godfather (1972)").click()
    expect(page.get_by_role("heading", name="The Godfather (1972)")).to_be_visible()
    expect(page).to_have_url(re.compile(r"film=127"))
    first = films(page)[0]
    page.get_by_role("button", name="Show similar").first.click()
    expect(page.get_by_role("heading", name=first)).to_be_visible()
    last = films(page)[-1]
    page.get_by_role("button", name="Show similar").last.click()
    expect(page.get_by_role("heading", name=last)).to_be_in_viewport()  # not far above where the visitor clicked
    page.get_by_role("button", name="The Godfather (1972)").first.click()
    expect(page.get_by_role("heading", name="The Godfather (1972)")).to_be_visible()


@pytest.mark.slow
def test_what_was_chosen_survives_a_page_change_and_a_reload(open_page):
    page = open_page("/similar?film=50")
    first = films(page)[0]
    choose(page, "Genre", "Comedy")
    expect(page).to_have_url(re.compile(r"genre=Comedy"))
    expect(page.locator("[data-testid=stMain] strong").first).not_to_have_text(first)
    chosen = films(page)
    go_to(page, "Map")
    expect(page.get_by_role("heading", name="Star Wars (1977)")).to_be_visible()
    go_to(page, "Similar films")
    assert films(page) == chosen
    expect(page).to_have_url(re.compile(r"film=50&genre=Comedy"))
    page.reload()
    assert films(page) == chosen


@pytest.mark.slow
def test_train_stop_accept_and_undo(open_page, ml_100k):
    page = open_page("/similar?film=50")
    before = films(page)
    go_to(page, "Train")
    page.get_by_text("Seed", exact=True).click()
    train(page)
    chart = page.locator(f"{CHART}[aria-label*='after round']")
    early = chart.get_attribute("aria-label")
    expect(chart).not_to_have_attribute("aria-label", early)
    rounds = [int(re.search(r"after round (\d+)", label)[1]) for label in (early, chart.get_attribute("aria-label"))]
    assert rounds[0] < rounds[1] < 30  # the chart has grown
    page.get_by_role("button", name="Stop and keep the best").click()
    expect(page.get_by_text("Stopped after")).to_be_visible()
    page.get_by_role("button", name="Use this model").click()
    expect(page.get_by_text("In use now, and stored as")).to_be_visible()
    go_to(page, "Similar films")
    assert films(page) != before
    go_to(page, "Train")
    page.get_by_role("button", name="Undo").click()
    expect(page.get_by_role("button", name="Use this model")).to_be_visible()
    go_to(page, "Similar films")
    assert films(page) == before


@pytest.mark.slow
def test_a_short_run_is_drawn_round_by_round(open_page, tmp_path):
    page = open_page("/train")
    upload(page, make_csv(tmp_path))
    change_rounds(page, "Quick", 4, 8)
    page.evaluate(
        """() => { window.told = new Set(); setInterval(() => {
            const chart = document.querySelector("[data-testid=stVegaLiteChart][aria-label*='after round']");
            if (chart) told.add(chart.getAttribute("aria-label").match(/after round (\\d+)/)[1]);
        }, 50); }"""
    )
    train(page)
    expect(page.get_by_text("Done after 8 rounds.")).to_be_visible()
    assert page.evaluate("told.size") >= 4  # the run itself takes less than a blink


@pytest.mark.slow
def test_a_run_after_one_that_went_astray_can_be_seen(open_page, tmp_path):
    page = open_page("/train")
    upload(page, make_csv(tmp_path))
    page.get_by_text("Seed", exact=True).click()
    page.get_by_text("Advanced: every setting").click()
    step = page.get_by_label("Step size", exact=True).first
    expect(step).to_have_value("0.0015")
    for value, end in (("1", "Nothing was learned:"), ("0.0015", "Done after 30 rounds")):
        step.fill(value)
        step.press("Enter")
        wait_until_drawn(page)
        train(page)
        expect(page.get_by_text(end)).to_be_visible(timeout=120_000)  # a run stands back where others want the processors
        plot = page.locator(f"{CHART} svg .role-frame .background").first.bounding_box()
        assert plot["height"] > 200  # it did not shrink to make room for what lies far above it
        lines = [line.bounding_box() for line in page.locator(f"{CHART} svg .mark-line path").all()]
        ends = [line["y"] + line["height"] for line in lines]
        assert any(plot["y"] < end <= plot["y"] + plot["height"] for end in ends)  # and a line can be seen


@pytest.mark.slow
def test_a_reload_and_a_second_visitor_find_the_run_again(open_page, tmp_path):
    page = open_page("/train")
    upload(page, make_csv(tmp_path))
    change_rounds(page, "Seed", 30, 400)
    train(page)
    expect(page.get_by_text(re.compile(r"round \d+ of 400"))).to_be_visible()
    expect(page).to_have_url(re.compile(r"run=[0-9a-f]{8}"))
    page.reload()
    expect(page.get_by_text(re.compile(r"round \d+ of 400"))).to_be_visible()
    other = open_page("/train")  # without the run's address
    expect(other.get_by_text(re.compile(r"round \d+ of 400"))).to_be_visible()
    page.close()  # the run goes on without the tab that began it
    round_now = other.get_by_text(re.compile(r"round \d+ of 400")).inner_text()
    expect(other.get_by_text(round_now)).to_have_count(0)
    other.get_by_role("button", name="Stop and keep the best").click()
    expect(other.get_by_text("Stopped after")).to_be_visible()


@pytest.mark.slow
def test_the_live_chart_is_never_drawn_from_nothing(open_page, tmp_path):
    page = open_page("/train")
    upload(page, make_csv(tmp_path))
    change_rounds(page, "Seed", 30, 1000)
    train(page)
    expect(page.locator(f"{CHART}[aria-label*='after round']")).to_be_visible()
    page.evaluate(
        """selector => {
            const chart = document.querySelector(selector);
            window.updates = 0;
            window.remounts = 0;
            new MutationObserver(() => { window.updates += 1; }).observe(chart, { attributes: true, attributeFilter: ["aria-label"] });
            const gone = () => { if (!chart.isConnected) window.remounts += 1; };
            new MutationObserver(gone).observe(document.body, { childList: true, subtree: true });
        }""",
        CHART,
    )
    page.wait_for_function("window.updates >= 60", timeout=120_000)
    assert page.evaluate("window.remounts") == 0
    page.get_by_role("button", name="Stop and keep the best").click()
    expect(page.get_by_role("button", name="Use this model")).to_be_visible()


def test_a_bad_file_is_explained_and_a_good_one_trains_and_is_used(open_page, tmp_path):
    bad = tmp_path / "bad.csv"
    bad.write_text("user,movie,rating\n1,2,3\n1,3,many\n")
    page = open_page("/train")
    choose(page, "Ratings to learn from", "A file of your own")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(bad)
    expect(page.get_by_text("bad.csv, line 3")).to_be_visible()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(make_csv(tmp_path))
    expect(page.get_by_text("ratings by 300 people of 120 films")).to_be_visible()
    page.get_by_text("Quick", exact=True).click()
    train(page)
    page.get_by_label("Name to store it under").fill("my films")
    page.get_by_label("Name to store it under").press("Enter")
    page.get_by_role("button", name="Use this model").click()
    expect(page.get_by_text("In use now, and stored as “my films”")).to_be_visible()
    go_to(page, "Start")
    expect(page.get_by_text("my ratings.csv").first).to_be_visible()
    go_to(page, "Similar films")
    page.get_by_label("Search for a film").press_sequentially("film 5", delay=60)
    expect(page.get_by_role("button", name="Film 5 (1915)", exact=True)).to_be_visible()


# The points of the map, those that stand most alone first: [x, y, title, pixels to the next, genre], by the scene's own projection.
ALONE = """() => {
    const plot = document.querySelector('.js-plotly-plot'), scene = plot._fullLayout.scene._scene;
    const s = scene.dataScale, camera = scene.glplot.cameraParams, box = scene.glplot.canvas.getBoundingClientRect();
    const times = (m, v) => [0, 1, 2, 3].map(i => m[i] * v[0] + m[4 + i] * v[1] + m[8 + i] * v[2] + m[12 + i] * v[3]);
    const points = plot._fullData.filter(t => t.mode === 'markers' && t.marker.opacity > 0).flatMap(t => Array.from(t.x, (_, k) => {
        const p = times(camera.projection, times(camera.view, times(camera.model, [t.x[k] * s[0], t.y[k] * s[1], t.z[k] * s[2], 1])));
        const title = new DOMParser().parseFromString(t.hovertext[k], 'text/html').querySelector('b').textContent;
        return { x: box.left + (p[0] / p[3] + 1) / 2 * box.width, y: box.top + (1 - p[1] / p[3]) / 2 * box.height, title, genre: t.name };
    }));
    const inside = ({ x, y }) => x > box.left + 40 && x < box.right - 40 && y > box.top + 40 && y < Math.min(box.bottom, innerHeight) - 40;
    const alone = a => Math.min(...points.filter(b => b !== a).map(b => Math.hypot(a.x - b.x, a.y - b.y)));
    return points.filter(inside).map(p => [p.x, p.y, p.title, alone(p), p.genre]).sort((a, b) => b[3] - a[3]);
}"""
VIEW = {
    "camera": {
        "eye": {"x": -1.23, "y": 0.93, "z": 0.58},
        "center": {"x": 0, "y": 0, "z": 0},
        "up": {"x": 0, "y": 0, "z": 1},
        "projection": {"type": "perspective"},
    },
    "aspectratio": {"x": 1, "y": 1, "z": 1},
}
EYE = """() => {
    const eye = document.querySelector('.js-plotly-plot')?._fullLayout?.scene?._scene?.getCamera().eye ?? {};
    return Object.values(eye).map(v => +v.toFixed(4));
}"""
DRAWN = "(document.querySelector('.js-plotly-plot')?._fullData ?? [])"
HOVERED = "() => [...document.querySelectorAll('.hovertext')].map(e => e.textContent).join()"


def drawn_map(page):
    expect(page.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    page.wait_for_function("document.querySelector('.js-plotly-plot')?._fullLayout?.scene?._scene?.glplot?.cameraParams !== undefined")
    wait_until_drawn(page)


def names(page, x, y, title):
    """Move over a point; whether the map then says that it is this film."""
    page.mouse.move(x - 4, y - 4)
    page.wait_for_timeout(150)
    page.mouse.move(x, y)
    page.wait_for_timeout(350)
    return title in page.evaluate(HOVERED)


def hover_lonely(page):
    """Move over the point that stands most alone until the map says which it is; returns its title."""
    for _ in range(20):
        x, y, title, *_ = page.evaluate(ALONE)[0]
        if names(page, x, y, title):
            return title
    pytest.fail(f"the map never named {title}")


def turn(page):
    box = page.locator(".js-plotly-plot").bounding_box()
    x, y = box["x"] + box["width"] * 0.8, box["y"] + box["height"] * 0.8
    page.mouse.move(x, y)
    page.wait_for_timeout(300)
    page.mouse.down()
    page.mouse.move(x - 90, y - 30, steps=12)
    page.wait_for_timeout(300)
    page.mouse.up()


@pytest.mark.slow
def test_a_click_in_space_picks_a_film_and_the_camera_stays(open_page):
    page = open_page("/map", height=1000)
    drawn_map(page)
    start = page.evaluate(EYE)
    turn(page)
    page.wait_for_function(f"JSON.stringify(({EYE})()) !== JSON.stringify({start})")
    title = hover_lonely(page)  # which takes long enough for the map to have come to rest
    turned = page.evaluate(EYE)
    page.mouse.down()
    page.mouse.up()
    expect(page.get_by_role("heading", name=title)).to_be_visible()
    camera_stays = f"JSON.stringify(({EYE})()) === JSON.stringify({turned})"
    page.wait_for_function(f"{DRAWN}.some(t => t.mode === 'lines') && {camera_stays}")  # drawn anew, with its neighbours lit
    choose(page, "Colour by", "Year")
    page.wait_for_function(f"{DRAWN}.some(t => t.marker?.colorbar?.title?.text === 'year') && {camera_stays}")


@pytest.mark.slow
def test_a_film_is_found_by_the_pointer_whatever_its_mark(open_page):
    page = open_page("/map?n=100", height=1000)
    drawn_map(page)
    page.wait_for_timeout(1000)  # until it has come to rest
    # Plotly draws crosses so thin that of some not a pixel is left where it looks for what the pointer is over: of two, seen from here.
    page.evaluate("view => document.querySelector('.js-plotly-plot')._fullLayout.scene._scene.setViewport(view)", VIEW)
    page.wait_for_function(f"JSON.stringify(({EYE})()) === '[-1.23,0.93,0.58]'")
    page.wait_for_timeout(500)
    points = [(*place, title) for *place, title, distance, genre in page.evaluate(ALONE) if distance > 14 and genre == "Thriller"]
    assert len(points) >= 5
    missed = [title for *place, title in points if not names(page, *place, title) and not names(page, *place, title)]
    assert missed == []


@pytest.mark.slow
def test_a_click_on_the_flat_map_picks_a_film(open_page):
    page = open_page("/map?view=2D", height=1000)
    expect(page.locator(".js-plotly-plot .scatterlayer .point").first).to_be_visible()
    page.wait_for_timeout(1000)
    place = """() => {
        const plot = document.querySelector('.js-plotly-plot'), box = plot.getBoundingClientRect();
        const trace = plot._fullData.find(t => t.mode === 'markers' && Array.from(t.customdata).includes(0));
        const k = Array.from(trace.customdata).indexOf(0), { xaxis: x, yaxis: y } = plot._fullLayout;
        return [box.left + x._offset + x.d2p(trace.x[k]), box.top + y._offset + y.d2p(trace.y[k])];
    }"""
    page.mouse.click(*page.evaluate(place))
    expect(page.get_by_role("heading", name="Star Wars (1977)")).to_be_visible()


RANGE = "JSON.stringify(document.querySelector('.js-plotly-plot')?._fullLayout?.xaxis?.range.map(v => +v.toFixed(3)))"


@pytest.mark.slow
def test_a_double_click_on_the_flat_map_takes_the_zoom_back_for_good(open_page):
    page = open_page("/map?view=2D&films=Best+by+score", height=1000)
    expect(page.locator(".js-plotly-plot .scatterlayer .point").first).to_be_visible()
    best = page.evaluate(RANGE)
    page.get_by_text("Most rated", exact=True).click()
    expect(page.locator(".js-plotly-plot .scatterlayer .point").nth(399)).to_be_attached()
    whole = page.evaluate(RANGE)
    box = page.locator(".js-plotly-plot").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    page.mouse.wheel(0, -300)
    page.wait_for_function(f"{RANGE} !== {whole!r}")
    page.wait_for_timeout(1000)
    page.mouse.dblclick(box["x"] + box["width"] * 0.97, box["y"] + box["height"] * 0.88)  # where no film is
    page.wait_for_timeout(1500)
    page.get_by_text("Best by score", exact=True).click()
    page.wait_for_function(f"{RANGE} === {best!r}")  # all of the other films, not the piece where the first ones lay


@pytest.mark.slow
def test_on_a_phone_the_map_is_flat_until_the_visitor_says_otherwise(open_page):
    page = open_page("/map", width=390)
    expect(page.locator(".js-plotly-plot .scatterlayer").first).to_be_visible()
    page.get_by_role("radio", name="3D").or_(page.get_by_role("button", name="3D")).first.click()
    drawn_map(page)
