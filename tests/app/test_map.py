"""The map page. Clicks and the camera need a browser: see tests/browser."""

import dataclasses
import json
import re

import cfrec
from cfrec.explore import kept_on_map, movie_map

STAR_WARS = 50


def figure(app):
    return json.loads(app.get("plotly_chart")[0].proto.spec)


def markers(app):
    """The traces of points that can be seen."""
    return [trace for trace in figure(app)["data"] if trace["mode"] == "markers" and trace["marker"]["opacity"] > 0]


def written(app):
    """What stands on the map."""
    layout = figure(app)["layout"]
    return [a["text"] for a in layout.get("annotations") or layout["scene"]["annotations"]]


def says(app, text):
    return any(text in element.value for element in (*app.caption, *app.markdown))


def test_the_map_in_space(open_page, shipped, no_data):
    app = open_page("map")
    traces = markers(app)
    assert {trace["type"] for trace in traces} == {"scatter3d"}
    assert sum(len(trace["hovertext"]) for trace in traces) == 400
    shares = movie_map(shipped, 5, min_ratings=20).attrs["explained_variance_ratio"]
    assert f"direction 1 ({shares[0]:.0%})" in written(app)
    assert says(app, f"Together the 3 drawn ones hold {sum(shares[:3]):.0%} of the differences")
    assert says(app, "Nothing picked yet")


def test_flat_with_other_directions(open_page, no_data):
    app = open_page("map")
    app.button_group(key="view").set_value("2D").run()
    assert {trace["type"] for trace in markers(app)} == {"scatter"}
    app.selectbox(key="along_x").set_value("pc4").run()
    assert figure(app)["layout"]["xaxis"]["title"]["text"].startswith("direction 4 (")


def test_each_colour(open_page, no_data):
    app = open_page("map")
    assert {trace["name"] for trace in markers(app)} >= {"Drama", "Comedy", "other"}
    for colour, title in (("decade", "year"), ("score", "score,<br>stars"), ("popularity", "ratings")):
        app.selectbox(key="colour").set_value(colour).run()
        assert markers(app)[0]["marker"]["colorbar"]["title"]["text"] == title


def test_the_posts_view_has_forty_films_each_with_its_title(open_page, shipped, no_data):
    app = open_page("map")
    app.button_group(key="films").set_value("Best by score").run()
    best = cfrec.movie_biases(shipped, min_ratings=20)["title"].head(40)
    titles = [text for text in written(app) if not text.startswith("direction")]
    assert len(titles) == 40
    assert set(titles) == set(best.str.replace("&", "&amp;"))
    app.slider(key="n_best").set_value(60).run()
    assert len(written(app)) == 60 + 3


def test_a_picked_film_is_lit_with_its_neighbours_and_judged(open_page, shipped, no_data):
    app = open_page("map", {"film": str(STAR_WARS)})
    assert app.header[0].value.replace("\\", "") == "Star Wars (1977)"
    alike = cfrec.similar_movies(shipped, STAR_WARS, 10, 20)
    assert app.dataframe[0].value["title"].tolist() == alike["title"].tolist()
    picked, lit = markers(app)[-1], markers(app)[-2]
    assert picked["marker"]["symbol"] == "diamond"
    assert picked["hovertext"][0].startswith("<b>Star Wars (1977)</b>")
    assert {re.search("<b>(.*)</b>", text)[1] for text in lit["hovertext"]} == set(alike["title"])
    places = movie_map(shipped, 5, min_ratings=20)
    kept = kept_on_map(places, ["x", "y", "z"], STAR_WARS, alike["movie_id"].tolist(), 30)
    assert says(app, f"{kept} of its 10 true neighbours are near")
    next(b for b in app.button if b.key == "pick-none").click().run()
    assert says(app, "Nothing picked yet")
    assert app.session_state["_film"] is None


def test_search_picks_a_film(open_page, no_data):
    app = open_page("map")
    app.text_input(key="find").set_value("godfahter").run()
    app.button(key="found-127").click().run()
    assert app.header[0].value.replace("\\", "") == "The Godfather (1972)"
    assert app.text_input(key="find").value == ""


def test_a_film_with_few_ratings_is_not_on_the_map_but_has_neighbours(open_page, shipped, no_data):
    few = shipped.movies[shipped.movies["n_ratings"] == 5].iloc[0]
    app = open_page("map", {"film": str(few["movie_id"])})
    assert says(app, "is not on the map")
    assert len(app.dataframe[0].value) == 10


def test_the_ends_of_a_direction(open_page, no_data):
    app = open_page("map")
    ends = [text.value for text in app.markdown if "One end" in text.value]
    assert len(ends) == 3
    assert all(text.count("·") == 8 for text in ends)  # five films at either end


def test_a_model_with_few_films_and_no_genres(open_page, models, trained, no_data):
    cfrec.save_model(dataclasses.replace(trained, movies=trained.movies.assign(genres="")), models / "mine")
    app = open_page("map", {"model": "mine", "film": "100"})
    assert app.header[0].value.startswith("Block 0 film 0") or "Block 0 film 0" in app.header[0].value
    assert "Genre" not in app.selectbox(key="colour").options  # all would be grey
    assert markers(app)[0]["marker"]["colorbar"]["title"]["text"] == "year"


def test_a_model_with_one_factor_has_one_direction(open_page, models, trained, no_data):
    cfrec.save_model(
        dataclasses.replace(trained, user_factors=trained.user_factors[:, :1], movie_factors=trained.movie_factors[:, :1]), models / "mine"
    )
    app = open_page("map", {"model": "mine"})
    assert figure(app)["layout"]["yaxis"]["title"]["text"].startswith("direction 1")
    assert len([text for text in app.markdown if "One end" in text.value]) == 1
