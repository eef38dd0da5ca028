"""The page of good and bad films: every widget against the table and the charts that it should change."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from streamlit.dataframe_util import convert_arrow_bytes_to_pandas_df

import cfrec
from cfrec.ratings import build_ratings

SLIDER, TOP, FIND = "Minimum number of ratings", "Films in each list", "Find a film in the picture"


def control(app, label):
    return next(
        widget for kind in (app.slider, app.selectbox, app.text_input, app.button_group) for widget in kind if widget.label == label
    )


def whole_list(app) -> pd.DataFrame:
    return app.dataframe[-1].value


def charts(app):
    """Of each chart: its words for those who cannot see it, its drawing, and the tables it draws."""
    protos = [chart.proto for chart in app.get("vega_lite_chart")]
    return [
        (proto.alt, json.loads(proto.spec), [convert_arrow_bytes_to_pandas_df(data.data.data) for data in proto.datasets])
        for proto in protos
    ]


def highlighted(app) -> set[str]:
    tables = [table for table in charts(app)[-1][2] if "label" in table]
    return {label for table in tables for label in table["label"] if label}


def text_with(app, piece: str) -> str:
    return next(element.value for element in (*app.markdown, *app.caption, *app.warning) if piece in element.value)


def headings(app) -> list[str]:
    return [heading.value.replace("\\", "") for heading in app.header]


@pytest.fixture
def open_model(open_page, models):
    """Store a model, and open the page on it."""

    def opener(trained, query=None):
        cfrec.save_model(trained, models / "mine")
        return open_page("biases", {"model": "mine", **(query or {})})

    return opener


@pytest.fixture(scope="module")
def nameless(block_config):
    """Films known by a text id alone: no title, no genre, no year; each of the last 6 has a single rating of 5."""
    rng = np.random.default_rng(1)
    pairs = [(f"u{u}", f"film $ {m}", float(rng.integers(1, 6))) for u in range(60) for m in range(8) if rng.random() < 0.6]
    pairs += [(f"u{k}", f"rare {k}", 5.0) for k in range(6)]
    users, movies, stars = (np.array(column, object) for column in zip(*pairs, strict=True))
    ratings = build_ratings(users, movies, stars.astype(float))
    return cfrec.train(*ratings.split(), block_config)


def test_it_opens_with_best_and_worst_and_an_explanation_from_this_model(open_page, shipped):
    app = open_page("biases")
    expected = cfrec.movie_biases(shipped, min_ratings=20)
    table = whole_list(app)
    assert list(table) == ["title", "year", "genres", "n_ratings", "mean_rating", "stars", "bias"]
    assert table["title"].tolist() == expected["title"].tolist()
    assert headings(app) == [
        "The 10 best",
        "The 10 worst",
        "All films: average against score",
        expected["title"][0],
        "The whole list: 939 films",
    ]
    (best_alt, _, (best,)), (worst_alt, _, (worst,)), (scatter_alt, _, _) = charts(app)
    assert best["title"].tolist() == expected["title"].tolist()[:10]
    assert worst["title"].tolist() == expected["title"].tolist()[:-11:-1]
    assert f"first {expected['title'][0]}: popularity score {expected['stars'][0]:.2f} stars" in best_alt
    assert "The 10 worst of 939 films" in worst_alt
    assert "1,682 films" in scatter_alt
    assert control(app, "Show").value == "Best and worst"
    assert "filled: popularity score" in text_with(app, "hollow: plain average")


def test_why_a_five_from_two_people_is_not_the_best_film(open_page, shipped):
    text = text_with(open_page("biases"), "do not make the best film")
    films = cfrec.movie_biases(shipped)
    named = re.search(r"\*(.+?)\* has a plain average of 5\.00 stars, from (\d) people\. So few", text)
    lucky = films[films["title"] == re.sub(r"\\(.)", r"\1", named[1])].iloc[0]
    assert (lucky["mean_rating"], lucky["n_ratings"]) == (5.0, int(named[2]))
    best = films[films["n_ratings"] >= 20].iloc[0]
    assert text.startswith(f"**Why 5.0 stars from {named[2]} people do not make the best film**")
    assert f"to a popularity score of **{lucky['stars']:.2f} stars**" in text
    assert f"averages {best['mean_rating']:.2f} stars from {best['n_ratings']} people" in text
    assert f"Its popularity score is **{best['stars']:.2f} stars**, the better film." in text


def test_a_model_that_believes_the_few_is_not_said_to_hold_them_back(open_model, shipped):
    bias = shipped.movie_bias.copy()
    bias[shipped.movies["mean_rating"].to_numpy() == 5] = 9.0  # as if a five from one person were worth the most
    text = text_with(open_model(replace(shipped, movie_bias=bias)), "do not make the best film")
    assert "this model lets them pull it all the way" in text
    assert "the better film" not in text


@pytest.mark.parametrize("least", [0, 100])
def test_minimum_ratings(open_page, least):
    app = open_page("biases")
    control(app, SLIDER).set_value(least).run()
    table = whole_list(app)
    assert len(table) == {0: 1682, 100: 338}[least]
    assert table["n_ratings"].min() == {0: 1, 100: 100}[least]
    hollow = charts(app)[-1][2][1]  # films with fewer stay in the picture
    assert len(hollow) == 1682 - len(table)


def test_genre_and_decade(open_page, shipped):
    app = open_page("biases")
    control(app, "Genre").set_value("Film-Noir").run()
    assert {"Film-Noir" in genres.split("|") for genres in whole_list(app)["genres"]} == {True}
    control(app, "Decade").set_value("1940s").run()
    assert whole_list(app)["year"].between(1940, 1949).all()
    years = {"genre": "film-noir", "years": (1940, 1949), "min_ratings": 20}
    assert whole_list(app)["title"].tolist() == cfrec.movie_biases(shipped, **years)["title"].tolist()


def test_the_forty_of_the_post(open_page, shipped):
    app = open_page("biases")
    control(app, TOP).set_value(40).run()
    assert headings(app)[:2] == ["The 40 best", "The 40 worst"]
    assert charts(app)[0][2][0]["title"].tolist() == cfrec.movie_biases(shipped, min_ratings=20)["title"].tolist()[:40]
    assert len(charts(app)[1][2][0]) == 40


def test_lists_of_few_films_do_not_overlap(open_page):
    app = open_page("biases", {"genre": "Film-Noir", "decade": "1940s"})
    n = len(whole_list(app))
    best, worst = charts(app)[0][2][0], charts(app)[1][2][0]
    assert 0 < n < 20
    assert len(best) + len(worst) == n
    assert not set(best["title"]) & set(worst["title"])


def test_sorted_by_how_far_the_average_is_off(open_page):
    app = open_page("biases")
    control(app, "Sorted by").set_value("Average minus score").run()
    gap = whole_list(app)["gap"]
    assert gap.is_monotonic_decreasing
    assert gap.tolist() == pytest.approx((whole_list(app)["mean_rating"] - whole_list(app)["stars"]).tolist())
    assert headings(app)[:2] == ["The 10 most overrated", "The 10 most underrated"]
    assert control(app, "Show").value is None  # no preset is like this


@pytest.mark.parametrize(
    ("preset", "least", "order", "first"),
    [
        ("Loved by everyone", 100, "Popularity score", "Schindler's List (1993)"),
        ("Overrated by few votes", 2, "Average minus score", "The Saint of Fort Washington (1993)"),
    ],
)
def test_presets_set_the_other_widgets(open_page, preset, least, order, first):
    app = open_page("biases", {"genre": "Drama"})
    control(app, "Show").set_value(preset).run()
    assert (control(app, SLIDER).value, control(app, "Sorted by").value) == (least, order)
    assert control(app, "Genre").value == "Drama"  # what was chosen beside it stays
    assert whole_list(app)["title"][0] == first
    assert control(app, "Show").value == preset
    control(app, SLIDER).set_value(37).run()
    assert control(app, "Show").value is None
    control(app, "Show").set_value("Best and worst").run()
    assert (control(app, SLIDER).value, control(app, "Sorted by").value) == (20, "Popularity score")


def test_search_highlights_despite_typos_and_shows_what_is_known(open_page, shipped):
    app = open_page("biases")
    assert highlighted(app) == {whole_list(app)["title"][0]}
    control(app, FIND).set_value("godfahter").run()
    assert highlighted(app) == {"The Godfather (1972)", "The Godfather: Part II (1974)"}
    assert text_with(app, "Found:") == r"Found: The Godfather \(1972\), The Godfather\: Part II \(1974\)."
    assert headings(app)[3] == "The Godfather (1972)"
    assert {metric.label: metric.value for metric in app.metric}["Ratings"] == "413"
    assert app.page_link[-1].proto.query_string == "film=127"
    control(app, FIND).set_value("").run()
    assert highlighted(app) == {"The Godfather (1972)"}  # the one picked stays


def test_search_says_why_a_film_cannot_be_seen(open_page):
    app = open_page("biases")
    control(app, FIND).set_value("prefontaine").run()
    assert r"Prefontaine \(1997\) (hollow: 3 ratings, fewer than the 20 you ask for)" in text_with(app, "Found:")
    control(app, "Genre").set_value("Horror").run()
    assert r"Prefontaine \(1997\) (not in the picture: another genre or decade than you chose)" in text_with(app, "Found:")
    assert highlighted(app) == set()
    control(app, FIND).set_value("").run()
    assert text_with(app, "This film is") == "This film is not in the picture: another genre or decade than you chose."


@pytest.mark.parametrize(
    ("text", "answer"), [("qzxqzx *bold*", r"No title is much like “qzxqzx \*bold\*”."), ("###", r"“\#\#\#”. Try a single")]
)
def test_search_that_finds_nothing_says_so(open_page, text, answer):
    app = open_page("biases")
    control(app, FIND).set_value(text).run()
    assert answer in text_with(app, "No title is much like")
    assert highlighted(app) == {whole_list(app)["title"][0]}


def test_a_film_of_the_address_is_shown(open_page):
    app = open_page("biases", {"film": "50"})
    assert headings(app)[3] == "Star Wars (1977)"
    assert highlighted(app) == {"Star Wars (1977)"}


def test_nothing_left_says_which_filter_to_loosen(open_page, shipped):
    app = open_page("biases", {"genre": "Film-Noir", "decade": "1920s"})
    assert "No film fits all of this" in app.warning[0].value
    assert "The whole list" not in " ".join(headings(app))
    rated = shipped.movies[shipped.movies["n_ratings"] >= 20]
    twenties, noir = rated["year"].between(1920, 1929).sum(), rated["genres"].str.contains("Film-Noir").sum()
    assert (twenties, noir) == (1, 16)
    assert [button.label for button in app.button if button.key.startswith("loosen")] == ["Any genre: 1 film", "Any decade: 16 films"]
    next(button for button in app.button if button.key == "loosen-genre").click().run()
    assert not app.warning
    assert control(app, "Genre").value is None
    assert whole_list(app)["title"].tolist() == rated[rated["year"].between(1920, 1929).fillna(False)]["title"].tolist()


def test_nothing_left_by_two_filters_takes_away_all(open_page):
    app = open_page("biases", {"genre": "Western", "decade": "1930s", "min_ratings": "290"})
    assert [button.label for button in app.button if button.key.startswith("loosen")] == ["Take away all filters"]
    app.button[-1].click().run()
    assert len(whole_list(app)) == 1682


def test_settings_are_read_from_the_address(open_page):
    app = open_page("biases", {"min_ratings": "50", "genre": "Comedy", "top": "7", "order": "Average minus score"})
    assert whole_list(app)["n_ratings"].min() >= 50
    assert control(app, "Genre").value == "Comedy"
    assert headings(app)[0] == "The 7 most overrated"


def test_what_this_model_does_not_have_is_ignored_in_the_address(open_page):
    query = {"min_ratings": "9999", "genre": "Nonsense", "decade": "1800s", "top": "99", "order": "x", "film": "none"}
    app = open_page("biases", query)
    assert headings(app)[0] == "The 10 best"
    assert len(whole_list(app)) == 939


def test_choices_of_another_model_do_not_stay(open_page, models, trained):
    cfrec.save_model(trained, models / "tiny")
    app = open_page("biases", {"genre": "Comedy", "decade": "1940s", "min_ratings": "200", "film": "1449"})
    app.query_params["model"] = "tiny"
    app.run()
    assert not app.exception
    assert (control(app, "Genre").value, control(app, "Decade").value, control(app, SLIDER).value) == (None, None, 20)
    assert len(whole_list(app)) == 36
    assert headings(app)[3] == whole_list(app)["title"][0]


def test_a_tiny_model_of_other_films(open_model, trained):
    app = open_model(trained)
    assert len(whole_list(app)) == 36
    assert control(app, "Genre").options == ["Genre0", "Genre1", "Genre2"]
    assert "no film with fewer than 20 ratings has a higher average" in text_with(app, "Two people may just be lucky")
    control(app, "Genre").set_value("Genre1").run()
    assert headings(app)[:2] == ["The 6 best", "The 6 worst"]
    control(app, FIND).set_value("block 1 film 13").run()
    assert "Block 1 film 13" in text_with(app, "Found:")


def test_films_without_names_genres_or_years(open_model, nameless):
    app = open_model(nameless)
    assert control(app, "Genre").options == control(app, "Decade").options == []
    assert sorted(whole_list(app)["title"]) == [f"film $ {m}" for m in range(8)]
    control(app, SLIDER).set_value(0).run()
    assert len(whole_list(app)) == nameless.n_movies
    assert "from one person" in text_with(app, "do not make the best film")
    control(app, FIND).set_value("film $ 3").run()
    assert not app.exception
    assert r"film \$ 3" in text_with(app, "Found:")
    assert app.page_link[-1].proto.query_string == "film=film+%24+3"
    control(app, "Sorted by").set_value("Average minus score").run()
    assert len(whole_list(app)) == int((nameless.movie_bias != 0).sum())  # those nothing was learned of are neither over- nor underrated


def test_a_single_film(open_model, trained):
    one = replace(
        trained, movie_factors=trained.movie_factors[:1], movie_bias=trained.movie_bias[:1], movies=trained.movies.iloc[:1], state=None
    )
    app = open_model(one)
    assert headings(app)[0] == "The best"
    assert len(charts(app)) == 2
