"""S1: what a stranger's data calls its films, people and genres is shown as it is written: it never becomes script, markup or a request.

Each text ends in a mark of its own (Q17Z). Whatever node of the page has the mark must have the whole text before it: a piece that was
taken for markup would be missing. A script that runs sets window.hit, and addresses in the texts have "hit" in them.
"""

from __future__ import annotations

import csv
import re
import shutil
from dataclasses import replace

import numpy as np
import pytest
from playwright.sync_api import expect

import cfrec
from cfrec.datasets import data_home
from cfrec.packing import pack_model
from cfrec.ratings import Source, build_ratings
from tests.browser.test_journeys import CHART, choose, drawn_map
from tests.browser.waiting import go_to, wait_until_drawn
from tests.server import serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]

HOSTILE = [
    *("<script>window.hit=1</script>", "<SCRIPT SRC=//hit.invalid/x.js></SCRIPT>", "</title><script>window.hit=1</script>"),
    *("<img src=hit.png onerror=window.hit=1>", "<svg onload=window.hit=1>", "<svg><script>window.hit=1</script></svg>"),
    *("<iframe srcdoc='<script>parent.hit=1</script>'>", "<body onload=window.hit=1>", "<details open ontoggle=window.hit=1>"),
    *("<a href=//hit.invalid>a</a>", "<a href='javascript:window.hit=1'>a</a>", '"><b class=hit>b</b>', "'-window.hit=1-'"),
    *("<style>*{display:none}</style>", "<div style='position:fixed;inset:0;background:url(//hit.invalid)'>", "<!-- a remark -->"),
    *("<form action=//hit.invalid><button>b</button></form>", "<meta http-equiv=refresh content='0;url=//hit.invalid'>"),
    *("<math><mtext></mtext><img src=hit.png onerror=window.hit=1></math>", "<object data=//hit.invalid>", "<base href=//hit.invalid>"),
    *("<b>bold</b>", "a<br>b", "<i>i</i><sub>s</sub><sup>p</sup>", "<span style='font-size:90px'>large</span>", "<extra></extra>"),
    *("&lt;b&gt;", "&#60;script&#62;window.hit=1&#60;/script&#62;", "&amp;nbsp;&nbsp;", "&copy;"),
    *("[a](javascript:window.hit=1)", "[a](http://hit.invalid)", "![a](http://hit.invalid/x.png)", "<http://hit.invalid>"),
    *("http://hit.invalid/auto", "www.hit.invalid", "[a]: http://hit.invalid", "[^1]: a note", "[a][b]"),
    *("**bold**", "__bold__", "*i*", "_i_", "~~gone~~", "`code`", "```code```", "# heading", "> said", "- item", "1. item", "+ item"),
    *("| a | b |", "---", "a\\*b", "\\", "back\\slash"),
    *("$x^2$", "$$\\href{javascript:window.hit=1}{a}$$", "\\(x\\)", "$5 and $6"),
    *(":material/delete:", ":red[red]", ":rainbow[all]", ":blue-background[b]", ":red-badge[b]", ":small[s]", ":smile:", ":streamlit:"),
    *(" a -> b <- c <-> d -- e >= f <= g ~= h", "a@hit.invalid", "mailto:a@hit.invalid", "HTTP://hit.invalid/a_b_c"),
    *("{{7*7}}", "${window.hit=1}", "%s%n%d", "{0}", "%(asctime)s", "%{x}"),
    *("datum.stars", "datum['stars']", "signal(hit)", "{'signal': 'window.hit=1'}"),
    *(
        "\u202eright to left",
        "a\u200bb\u2060c\ufeff",
        "\u2066\u2067iso\u2069",
        "Z\u0351\u0346a\u0316l\u0347go",
        "\x1b[31mred\x1b[0m",
        "a\x7fb",
    ),
    *("nan", "null", "None", "undefined", "NaN", "true", "=1+1", "-0", "1e5", "\U0001f3ac film", "Großmütterchen’s", "映画", "فيلم"),
    *("long " * 800, "x" * 4000),
]
GENRES = [
    "<b>g</b>",
    "[g](http://hit.invalid)",
    ":red[g]",
    "$g$",
    "<img src=hit.png onerror=window.hit=1>",
    "*g*",
    ":material/delete:",
    "`g`",
]
PEOPLE = ["<b>u</b>", "[u](javascript:window.hit=1)", "$u$", "<script>window.hit=1</script>", ":material/delete:", "nan"]
FILE_NAME = "<img src=hit.png onerror=window.hit=1> **b** $x$ [a](b) :red[c]"
SHOWN_NAME = FILE_NAME.replace(":", ":\u2060")  # with a sign of no width, so that no colour is made of it
FOLDER = "<img src=hit.png onerror=window.hit=1> :red[m] S9Z"
VEGA = "[data-testid=stVegaLiteChart] svg"
PAGES = {  # address -> what is drawn last
    **{"": VEGA, "train": VEGA, "biases": VEGA, "map": ".js-plotly-plot .main-svg"},
    **{"similar": "[data-testid=stButton]", "models": "[data-testid=stDataFrame]", "about": "[data-testid=stDataFrame]"},
}


def spaced(text):
    """With single spaces, and without the sign that keeps addresses from becoming links, which has no width."""
    return " ".join(text.replace("\u2060", "").split())


def marked(texts, letter):
    return [f"{text} {letter}{k}Z" for k, text in enumerate(texts)]


SOURCE = Source("own:<b>name</b> N1Z", *(f"<b>{kind}</b> $x$ [a](http://hit.invalid) :red[c] S{k}Z" for k, kind in enumerate("tlc")))


@pytest.fixture(scope="module")
def model():
    """A model of films, people and genres that are called such things, with more ratings than the map asks for."""
    titles, genres, people = marked(HOSTILE, "Q"), marked(GENRES, "G"), marked(PEOPLE, "U")
    rng = np.random.default_rng(0)
    users, movies = np.nonzero(rng.random((150, len(titles))) < 0.5)
    ids = np.array([people[u] if u < len(people) else f"person {u}" for u in range(150)], object)
    catalogue = {str(m): (title, "|".join([genres[m % len(genres)], "Drama"])) for m, title in enumerate(titles)}
    stars = np.where(users % 3 == movies % 3, 5, 2) - (rng.random(len(users)) < 0.3)
    ratings = build_ratings(ids[users], movies.astype(np.int64), stars.astype(float), movies=catalogue)
    config = cfrec.TrainConfig.preset("quick", n_factors=8, device="cpu")
    return cfrec.train(*replace(ratings, source=SOURCE).split(), config)


@pytest.fixture(scope="module")
def app_url(tmp_path_factory, model):
    """The app with that model, and with a folder of models that has a name no model can have."""
    with serve(tmp_path_factory.mktemp("hostile"), home=data_home()) as server:
        cfrec.save_model(model, server.models / "hostile")
        shutil.copytree(server.models / "hostile", server.models / FOLDER)
        yield server.url


@pytest.fixture(scope="module")
def texts(model):
    """Mark -> the whole text, as the model has it."""
    known = [
        *model.movies["title"],
        *marked(GENRES, "G"),
        *marked(PEOPLE, "U"),
        SOURCE.title,
        SOURCE.licence,
        SOURCE.citation,
        SOURCE.name,
        FOLDER,
    ]
    return {re.search(r"[A-Z]\d+Z$", text)[0]: spaced(text) for text in known}


NODES = """() => {
    const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    for (let node = walker.nextNode(); node; node = walker.nextNode()) if (/[A-Z]\\d+Z/.test(node.data)) found.push(node.data);
    return found;
}"""
MADE = """() => [...document.querySelectorAll(
    '[src*="hit."],[href*="hit"],[srcdoc],[action*=hit],[class~=hit],[onerror],[onload],[ontoggle],[style*="hit."],object,embed,base,iframe,meta[http-equiv=refresh]'
)].map(element => element.outerHTML.slice(0, 200))"""


def what_went_wrong(page, texts):
    """Texts that are not whole, elements that they made, and whether a script of theirs has run; and the marks that were seen."""
    wrong, seen = [], set()
    for node in page.evaluate(NODES):
        shown = spaced(node)
        for mark in re.findall(r"[A-Z]\d+Z", shown):
            seen.add(mark)
            if mark in texts and texts[mark] not in shown:
                wrong.append(f"{texts[mark][:60]!r} is shown as {shown[:90]!r}")
    wrong += page.evaluate(MADE)
    if page.evaluate("window.hit"):
        wrong.append("a script ran")
    return wrong, seen


@pytest.fixture
def check(texts):
    """Check a page; returns the marks that were seen on it."""

    def check_page(page, *, least=0):
        wait_until_drawn(page)
        wrong, seen = what_went_wrong(page, texts)
        assert wrong == []
        assert len(seen) >= least
        return seen

    return check_page


@pytest.fixture
def visit(open_page):
    """Open a page with the hostile model; any dialog or request for what a text names is a problem."""

    def opener(path, **more):
        page = open_page(f"/{path}{'&' if '?' in path else '?'}model=hostile", **more)
        page.on("dialog", lambda dialog: page.problems.append(dialog.message))
        page.on("request", lambda r: page.problems.append(r.url) if "hit." in r.url else None)
        expect(page.locator(PAGES[path.partition("?")[0]]).first).to_be_attached()
        return page

    return opener


def open_all(page):
    """Open each expander that can be seen, and those in each tab."""
    for tab in [None, *page.get_by_role("tab").all()]:
        if tab:
            tab.click()
            page.wait_for_timeout(300)
        for expander in page.locator("[data-testid=stExpander] details:not([open]) > summary").all():
            if expander.is_visible():
                expander.click()
                page.wait_for_timeout(300)


@pytest.mark.parametrize("path", PAGES)
def test_every_page_with_all_that_can_be_opened(path, visit, check):
    page = visit(path)
    check(page)
    open_all(page)
    check(page, least=1)


def test_each_film_on_the_page_of_similar_films(visit, check, model, texts):
    """Its card, its neighbours, and the trail that leads back to it."""
    page, seen = visit("similar?film=0&k=50&min_ratings=0"), set()
    open_film = page.url
    for movie_id, title in zip(model.movies["movie_id"], model.movies["title"], strict=True):
        if movie_id:
            page.goto(open_film.replace("film=0", f"film={movie_id}"))
        heading = page.locator("[data-testid=stMain] h2").first
        expect(heading).to_contain_text(re.search(r"Q\d+Z", title)[0])
        assert spaced(heading.inner_text()) == spaced(title)
        expect(page.get_by_role("link", name="See it on the map")).to_be_visible()  # which comes after the neighbours
        seen |= check(page, least=40)
    page.get_by_role("button", name="Show similar").first.click()
    expect(page.get_by_text("Back to")).to_be_visible()
    check(page)
    assert {mark for mark in texts if mark.startswith(("Q", "G"))} <= seen


@pytest.mark.parametrize("path", ["similar", "biases", "map"])
def test_what_is_typed_into_a_search_and_what_it_finds(path, visit, check):
    page = visit(path)
    field = page.get_by_label(re.compile("Search for a film|Find a film"))
    for text in ["script window hit", "href javascript", "bold heading", "<b>zzz</b> **y** [a](http://hit.invalid)", "$x$ :red[q]"]:
        field.fill(text)
        field.press("Enter")
        page.wait_for_timeout(800)
        check(page)


def test_good_and_bad_films_in_charts_hints_and_tables(visit, check):
    page = visit("biases?top=40&min_ratings=0")
    charts = page.locator("[data-testid=stVegaLiteChart] svg")
    expect(charts.nth(2)).to_be_visible()
    hints = 0
    for chart in charts.all():
        marks = chart.locator("path[aria-label], path[aria-roledescription]").all()
        for mark in marks[:: max(len(marks) // 25, 1)]:
            mark.hover(force=True)
            page.wait_for_timeout(60)
            hints += page.locator("#vg-tooltip-element.visible").count()
            check(page)
    assert hints > 10
    check(page, least=60)


@pytest.mark.parametrize("colour", ["genre", "score"])
def test_the_flat_map_its_labels_and_its_hints(colour, visit, check, model, texts):
    page = visit("map?view=2D&films=Best+by+score" + ("&colour=Genre" if colour == "genre" else ""), height=1100)
    expect(page.locator(".js-plotly-plot .scatterlayer .point").first).to_be_visible()
    page.wait_for_timeout(1000)
    assert len(check(page)) >= 30  # titles beside points
    places = page.evaluate("""() => {
        const plot = document.querySelector('.js-plotly-plot'), box = plot.getBoundingClientRect();
        const { xaxis: x, yaxis: y } = plot._fullLayout;
        return plot._fullData.filter(t => t.mode === 'markers').flatMap(t => Array.from(t.x, (_, k) =>
            [box.left + x._offset + x.d2p(t.x[k]), box.top + y._offset + y.d2p(t.y[k])]));
    }""")
    seen = set()
    for x, y in places:
        page.mouse.move(x, y)
        page.wait_for_timeout(120)
        seen |= {mark for text in page.locator(".hovertext").all_text_contents() for mark in re.findall(r"[QG]\d+Z", text)}
        check(page)
    assert len(seen) > 25
    page.mouse.click(*places[0])
    expect(page.get_by_text("true neighbours").or_(page.get_by_text("Pick none")).first).to_be_visible()
    check(page)


def test_the_map_in_space_and_the_page_that_it_can_be_saved_as(visit, check, chromium, tmp_path):
    page = visit("map?film=3")
    drawn_map(page)
    check(page, least=10)
    with page.expect_download() as download:
        page.get_by_role("button", name="Download the map as a page").click()
    saved = tmp_path / "map.html"
    download.value.save_as(saved)
    alone = chromium.new_page()
    requests = []
    alone.on("request", lambda r: requests.append(r.url))
    alone.goto(saved.as_uri())
    expect(alone.locator(".js-plotly-plot .main-svg").first).to_be_visible()
    assert alone.evaluate("window.hit") is None
    assert requests == [saved.as_uri()]
    alone.close()


def test_models_with_hostile_names_and_data(visit, check, model, tmp_path):
    page = visit("models")
    check(page, least=2)
    for kind in ("Rename", "Delete"):
        page.locator(f"[class*=st-key-{kind.lower()}-]").last.get_by_role("button").click()
        expect(page.get_by_role("dialog")).to_contain_text("S9Z")
        check(page)
        page.keyboard.press("Escape")
        expect(page.get_by_role("dialog")).to_have_count(0)
    packed = tmp_path / f"{FILE_NAME}.zip"
    packed.write_bytes(pack_model(model))
    page.get_by_text("Upload a model").click()
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(packed)
    expect(page.get_by_text("It learned from")).to_be_visible()
    assert "S0Z" in check(page)
    damaged = tmp_path / f"{FILE_NAME} damaged.zip"
    damaged.write_bytes(b"no zip")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(damaged)
    expect(page.get_by_text("This is not a whole").first).to_be_visible()
    check(page)


@pytest.mark.parametrize("query", ["model", "film", "run", "genre", "recipe", "data", "find", "n_factors_balanced"])
def test_addresses(query, open_page, check):
    for path in ("train", "similar", "models"):
        page = open_page(f"/{path}?{query}=%3Cimg src=hit.png onerror=window.hit=1%3E **b** $x$ [a](http://hit.invalid) :red[c] S7Z")
        wait_until_drawn(page)
        check(page)
        page.close()


def test_an_uploaded_table_from_its_name_to_the_result_of_its_training(visit, check, model, texts, tmp_path):
    path = tmp_path / f"{FILE_NAME}.csv"
    rng = np.random.default_rng(1)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["user", "movie", "rating", "title", "genres"])
        people = [*marked(PEOPLE, "U"), *(f"person {k}" for k in range(100))]
        films = list(model.movies[["title", "genres"]].itertuples(index=False))
        rows.writerows([u, m, rng.integers(1, 6), *film] for u in people for m, film in enumerate(films) if rng.random() < 0.4)
    page = visit("train")
    choose(page, "Ratings to learn from", "A file of your own")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(path)
    expect(page.get_by_test_id("stMain")).to_contain_text(f"{SHOWN_NAME}.csv:")
    check(page)
    page.get_by_text("Quick", exact=True).click()
    page.get_by_role("button", name="Train", exact=True).click()
    expect(page.get_by_role("button", name="Use this model")).to_be_visible()
    expect(page.locator(CHART).first).to_be_visible()
    expect(page.get_by_test_id("stMain")).to_contain_text(f"{SHOWN_NAME}.csv · {cfrec.TrainConfig.preset('quick').epochs} rounds")
    open_all(page)
    check(page)
    page.get_by_role("button", name="Use this model").click()
    expect(page.get_by_text("In use now, and stored as")).to_be_visible()
    for name in ("Start", "Similar films", "How it works"):
        go_to(page, name)
        expect(page.get_by_test_id("stMain")).to_contain_text(f"{SHOWN_NAME}.csv" if name != "Similar films" else "Or begin")
        check(page)
    go_to(page, "Train")
    damaged = tmp_path / f"{FILE_NAME} damaged.csv"
    damaged.write_text("user,movie,rating\n1,2,many\n")
    page.get_by_test_id("stFileUploaderDropzoneInput").set_input_files(damaged)
    expect(page.get_by_test_id("stMain")).to_contain_text("line 2")
    check(page)


def test_no_page_lets_markup_through():
    """The one way in which Streamlit would show HTML."""
    from pathlib import Path

    sources = "".join(path.read_text() for path in [*Path("app_pages").glob("*.py"), Path("streamlit_app.py")])
    assert "unsafe_allow" not in sources
    assert not re.search(r"st\.html|components\.v1|st\.iframe|st\.write_stream", sources)


CARELESS = """
import json
from pathlib import Path
import pandas as pd
import plotly.express as px
import streamlit as st
titles = json.loads(Path(__file__).with_name("titles.json").read_text())
st.title("Careless")
for title in titles:
    st.markdown(title, unsafe_allow_html=True)
    st.button(title, key=title)
st.plotly_chart(px.scatter(x=range(len(titles)), y=range(len(titles)), text=titles))
"""


def test_a_careless_page_would_be_found(chromium, tmp_path, texts):
    """Negative control: the same texts, shown by a page that believes them."""
    import json

    (tmp_path / "careless.py").write_text(CARELESS)
    too_strong = ("refresh", "<style", "<base", "position:fixed")  # of these one would do away with all others
    shown = [text for mark, text in texts.items() if mark[0] == "Q" and len(text) < 200 and not any(word in text for word in too_strong)]
    (tmp_path / "titles.json").write_text(json.dumps(shown))
    requests = []
    with serve(tmp_path, script=tmp_path / "careless.py") as server:
        page = chromium.new_page()
        page.on("request", lambda r: requests.append(r.url))
        page.route("**/*hit.*", lambda route: route.abort())
        page.goto(server.url)
        expect(page.get_by_text("Careless")).to_be_visible()
        page.wait_for_timeout(3000)
        wrong, seen = what_went_wrong(page, texts)
        page.close()
    assert len(seen) > 60
    assert len(wrong) > 50
    assert any("hit." in url for url in requests)
