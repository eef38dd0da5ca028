"""The page that says how it works."""

import json
import re
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import pytest

import cfrec
from app_pages import _words
from cfrec.ratings import build_ratings
from cfrec.walkthrough import network_text, walk_through


def told(app):
    """All that is said on the page."""
    return "\n".join(element.value for element in [*app.markdown, *app.caption])


def charts(app):
    return app.get("arrow_vega_lite_chart") or app.get("vega_lite_chart")


def marks(chart):
    """The kinds of marks in a chart, and its text for those who cannot see it."""
    spec = json.loads(chart.proto.spec)
    return [layer["mark"]["type"] for layer in spec["layer"]], chart.proto.alt


def choices(app):
    film, person = app.selectbox
    return film, person


def worked_example(app):
    """The sum as it is written: its parts and what they come to."""
    line = next(text.value for text in app.markdown if re.match(r"-?[\d.]+ [+−] ", text.value))
    left, right = line.split(" = ")
    parts = [float(part.replace("− ", "-").replace("+ ", "")) for part in re.findall(r"(?:[+−] )?[\d.]+", left)]
    return parts, float(re.search(r"[\d.]+", right)[0])


def open_model(open_page, models, trained, name):
    cfrec.save_model(trained, models / name)
    return open_page("about", query={"model": name})


def test_four_numbered_pictures_each_with_its_chart(open_page, shipped, no_data):
    app, shown = open_page("about"), walk_through(shipped)
    usual = cfrec.explain_prediction(shipped, *reversed(shown.start))["stars"][0]
    headings = [heading.value for heading in app.header]
    assert [heading[:15] for heading in headings[:4]] == [f":blue-badge[{k}] " for k in (1, 2, 3, 4)]
    assert headings[4:] == ["The formula", "The layers", "Glossary", "Limits", "The data", "Version"]
    kinds, alts = zip(*map(marks, charts(app)), strict=True)
    assert [set(kind) for kind in kinds] == [{"rect", "text"}, {"rect", "text"}, {"rule", "bar", "text"}, {"rule", "text", "line", "point"}]
    for text, alt in zip(
        [
            f"filled with guesses. {shown.titles[0]}: ",
            f"8 taste numbers of 7 films; the highest popularity score: {shown.titles[best_of(shipped, shown)]}",
            f"Steps from {usual:.2f} stars",
            "50 rounds",
        ],
        alts,
        strict=True,
    ):
        assert text in alt
    assert sum(expander.label == "Show as table" for expander in app.expander) == 4


def best_of(trained, shown):
    """Place of the film with the highest popularity score."""
    return int(trained.movie_bias[[trained.movie_row(movie_id) for movie_id in shown.movie_ids]].argmax())


def test_the_worked_example_adds_up_to_the_prediction(open_page, shipped, no_data):
    app, shown = open_page("about"), walk_through(shipped)
    assert [choice.value for choice in choices(app)] == list(shown.start)
    for movie_id, user_id in [shown.start, *((shown.movie_ids[k], shown.user_ids[-k]) for k in (1, 3, 6))]:
        film, person = choices(app)
        film.set_value(movie_id)
        person.set_value(user_id).run()
        parts, guess = worked_example(app)
        assert len(parts) == 4
        assert sum(round(100 * part) for part in parts) == round(100 * guess)
        assert guess == pytest.approx(float(cfrec.predict_ratings(shipped, [user_id], [movie_id])[0]), abs=0.0051)
        assert re.search(rf"(&=|\\to) {guess:.2f}", app.latex[1].value)  # the formula with the same numbers


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("how", [("adam", 0.5, 3), ("gibbs", 50.0, 5)])
def test_the_formula_and_its_numbers(open_page, models, blocks, how):
    """The steeper the sigmoid, the more digits."""
    method, margin, digits = how
    config = cfrec.TrainConfig.preset("quick", method=method, margin_below=margin, margin_above=margin, n_factors=3, device="cpu")
    trained = cfrec.train(*blocks.split(), config)
    app, shown = open_model(open_page, models, trained, "any"), walk_through(trained)
    assert r"s &= p \cdot q + b_p + b_q + c" in app.latex[0].value
    assert r"\sigma(s)" in app.latex[0].value
    for movie_id in shown.movie_ids[:4]:
        choices(app)[0].set_value(movie_id).run()
        terms, total, score = re.search(r"s &= (.*?) \\\\ &= (\S+) .*sigma\((\S+)\)", app.latex[1].value).groups()
        numbers = re.findall(r"[+-]?[\d.]+", terms)
        assert {len(number.partition(".")[2]) for number in (*numbers, total, score)} == {digits}
        assert sum(map(float, numbers)) == pytest.approx(float(total), abs=1e-9)
        assert score == total
        assert float(numbers[3]) == pytest.approx(trained.offset, abs=0.0005)
    symbols = told(app)
    for symbol in (r"$\hat r$", "$p$, $q$", "$b_p$, $b_q$", "$c$", r"$\sigma$"):
        assert f"- {symbol}: " in symbols


def test_real_ratings_where_they_are_on_this_machine(open_page, ml_100k, shipped):
    app = open_page("about")
    assert not app.exception
    _, alt = marks(charts(app)[0])
    assert "ratings and" in alt
    assert "gaps" in alt
    assert not app.get("badge")
    assert "A piece of the real table" in told(app)
    stars, rest = re.search(r"Really given: \*\*(\d) stars\*\*; the guess misses by (\d\.\d\d)", told(app)).groups()
    assert float(rest) == pytest.approx(abs(worked_example(app)[1] - float(stars)), abs=1e-9)
    assert "it was kept aside" in told(app)


def test_the_tables_behind_the_charts(open_page, ml_100k, shipped):
    app = open_page("about", state={f"table-{name}": True for name in ("ratings-table", "film-numbers", "guess", "miss-by-round")})
    ratings, numbers, guess, misses = (table.value for table in app.dataframe[:4])
    assert len(ratings) == 56
    assert 10 < ratings["stars"].isna().sum() < 40
    shown = walk_through(shipped, ml_100k)
    row = numbers.set_index("film").loc[shown.titles[0]]
    factors = shipped.movie_factors[shipped.movie_row(shown.movie_ids[0])]
    assert row.drop("stars").to_dict() == pytest.approx({name: factors[int(name) - 1] for name in row.index[1:]})
    assert guess["part"].tolist() == [*_words.PARTS.values(), "Really given"]
    assert misses["series"].tolist()[:2] == list(_words.BASELINES.values())
    assert misses["stars"].tolist()[:2] == pytest.approx([1.1237, 1.0223], abs=0.01)
    assert len([button for button in app.get("download_button") if button.proto.label == "Download as CSV"]) == 6


def test_guesses_are_not_passed_off_as_ratings(open_page, no_data):
    app = open_page("about")
    assert "Guesses, not ratings" in told(app)
    assert "Train once on the Train page" in told(app)
    assert "What the person really gave is not known here." in told(app)
    assert "Really given" not in told(app)


def test_a_damaged_data_set_does_not_spoil_the_page(open_page, no_data):
    no_data.mkdir(parents=True)
    (no_data / "ml-100k.zip").write_bytes(b"not a zip")
    app = open_page("about")
    assert not app.exception
    assert "Guesses, not ratings" in told(app)


def test_the_layers_as_pytorch_prints_them(open_page, shipped, no_data):
    app = open_page("about")
    assert app.code[0].value == network_text(shipped)
    layers = app.dataframe[0].value
    assert layers["parameters"].sum() == shipped.n_parameters
    assert layers["holds"].tolist()[0] == "taste numbers of each person"
    assert f"**{shipped.n_parameters:,} numbers** in {len(layers)} tables" in told(app)


@pytest.mark.usefixtures("no_data")
@pytest.mark.parametrize("two", [True, False])
def test_it_says_what_the_taste_numbers_were_learned_from(open_page, models, chosen, two):
    model = chosen if two else replace(chosen, user_choice=None, movie_traits=None)
    app = open_model(open_page, models, model, "any")
    text = told(app)
    assert ("learned from two things at once: **how many stars** people gave, and **who rated what**" in text) is two
    assert ("The network is shown those, the year in which each film came out, and nothing else." in text) is two
    assert ("The network is shown those and nothing else." in text) is not two
    assert ("the fifth says which films a person chooses to rate" in text) is two
    assert ("choice numbers of each person" in app.dataframe[0].value["holds"].tolist()) is two
    assert ("(user_choice): Embedding(90, 6)" in app.code[0].value) is two


def test_the_glossary_has_every_word(open_page, no_data):
    app = open_page("about")
    table = app.table[0].value
    shown = {word.strip("*").replace("\\", "") for word in table["Here"]}
    every = [word for word in vars(_words).values() if isinstance(word, _words.Word)]
    assert shown == {_words.capital(word.label) for word in every}
    assert len(every) > 20
    by_word = table.set_index(table["Here"].str.strip("*"))
    assert by_word.loc["Taste numbers", "In the field"] == "factors, or an embedding"
    assert by_word.loc["Average miss", "In the field"] == r"root mean squared error \(RMSE\), in stars"
    assert by_word["Meaning"].str.len().min() > 10
    assert not by_word["Meaning"].str.contains("Technical term").any()


def test_every_table_can_be_downloaded(open_page, no_data):
    app = open_page("about")
    labels = [button.proto.label for button in app.get("download_button")]
    assert labels == ["Download as CSV"] * 2  # layers and glossary; the charts' tables bring their own once they are opened


def test_limits_licence_citation_and_versions(open_page, shipped, no_data):
    text = told(open_page("about"))
    weak = int((shipped.movies["n_ratings"] < 20).sum())
    assert f"**{weak:,} of its films have fewer than 20 ratings.**" in text
    assert "no film after 1998" in text
    assert "71\u00a0% of them men" in text
    assert "may not be redistributed without separate permission" in text.replace("\\", "")
    assert "The MovieLens Datasets: History and Context" in text.replace("\\", "")
    assert "<https://doi.org/10.1145/2827872>" in text
    assert re.findall(r"https?://[^\s>)]+", text) == ["https://doi.org/10.1145/2827872"]
    assert f"**cfrec {cfrec.__version__}**" in text
    for library in ("streamlit", "torch", "numpy"):
        assert version(library) in text
    assert shipped.version in text


def test_a_model_of_one_s_own(open_page, models, trained, no_data):
    app = open_model(open_page, models, trained, "blocks")
    text = told(app)
    assert "Of all **3,240 cells**" in text
    assert "Train once" not in text  # these ratings cannot be fetched
    assert "None was given with this data" in text
    assert "71\u00a0%" not in text
    assert app.code[0].value == network_text(trained)
    film, _ = choices(app)
    assert all(re.fullmatch(r"The Block \d film \d+", title) for title in film.options)
    parts, guess = worked_example(app)
    assert sum(round(100 * part) for part in parts) == round(100 * guess)


def test_three_films_with_ids_of_text_and_no_year(open_page, models, no_data):
    users, movies = zip(*((u, m) for u in ("ann", "bob", "cyd") for m in ("Alien", "*Heat*", "Up")), strict=True)
    ratings = build_ratings(np.array(users, object), np.array(movies, object), np.array([5, 1, 3, 2, 5, 4, 4, 1, 3.0]))
    trained = cfrec.train(*ratings.split(), cfrec.TrainConfig.preset("quick", n_factors=2, epochs=3, device="cpu"))
    app = open_model(open_page, models, trained, "three")
    film, person = choices(app)
    assert sorted(film.options) == ["*Heat*", "Alien", "Up"]
    assert sorted(person.options) == ["Person ann", "Person bob", "Person cyd"]
    assert "no film after" not in told(app)
    person.set_value("bob")
    film.set_value("Up").run()
    assert worked_example(app)[1] == pytest.approx(float(cfrec.predict_ratings(trained, ["bob"], ["Up"])[0]), abs=0.0051)


def test_links_in_a_citation_are_not_followed_but_for_the_doi(open_page, models, trained, no_data):
    source = replace(trained.source, citation="See [here](https://evil.example) or https://doi.org/10.1/x_y.", licence="**free** <b>")
    text = told(open_model(open_page, models, replace(trained, source=source), "linked"))
    assert "See \\[here\\]\\(https\\:\u2060//evil\\.example\\) or <https://doi.org/10.1/x_y>\\." in text
    assert r"\*\*free\*\* \<b\>" in text


def test_a_model_without_history_says_so(open_page, models, trained, no_data):
    app = open_model(open_page, models, replace(trained, history=[]), "bare")
    assert len(charts(app)) == 3
    assert "No record of its rounds was stored" in told(app)


def test_the_page_needs_neither_torch_nor_sklearn(models):
    """Its first paint waits for nothing that takes seconds."""
    code = (
        "import sys; from cfrec import warm; warm.warm_up = lambda: None\n"
        "from streamlit.testing.v1 import AppTest\n"
        "app = AppTest.from_file('streamlit_app.py', default_timeout=60).run().switch_page('app_pages/about.py').run()\n"
        "assert not app.exception and app.code[0].value.startswith('EmbeddingNet(')\n"
        "sys.exit(' '.join({'torch', 'sklearn'} & set(sys.modules)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
