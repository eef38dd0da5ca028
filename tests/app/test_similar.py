"""The page of similar films."""

import dataclasses

import cfrec

STAR_WARS, EMPIRE, GODFATHER = 50, 172, 127


def labels(app):
    return [b.label.replace("\\", "") for b in app.button]


def click(app, label):
    return next(b for b in app.button if b.label.replace("\\", "") == label).click().run()


def neighbours(app):
    return [text.value.replace("\\", "").strip("*") for text in app.markdown if text.value.startswith("**")]


def says(app, text):
    return any(text in element.value.replace("\\", "") for element in (*app.caption, *app.info, *app.markdown))


def test_it_begins_with_films_that_everybody_knows(open_page, no_data):
    app = open_page("similar")
    assert labels(app)[:2] == ["Star Wars (1977)", "Contact (1997)"]
    click(app, "Star Wars (1977)")
    assert app.header[0].value.replace("\\", "") == "Star Wars (1977)"
    assert {"Return of the Jedi (1983)", "The Empire Strikes Back (1980)"} <= set(neighbours(app)[:3])


def test_a_typo_finds_the_film_and_picking_it_clears_the_search(open_page, no_data):
    app = open_page("similar")
    app.text_input(key="search").set_value("godfahter").run()
    assert labels(app)[0] == "The Godfather (1972)"
    click(app, "The Godfather (1972)")
    assert app.text_input(key="search").value == ""
    assert app.header[0].value.replace("\\", "") == "The Godfather (1972)"
    figures = {metric.label: metric.value for metric in app.metric}
    assert figures["Ratings"] == "413"
    assert figures["Plain average"] == "4.28 stars"
    assert figures["Popularity score"].endswith(" stars")


def test_wandering_on_and_back(open_page, no_data):
    app = open_page("similar", {"film": str(STAR_WARS)})
    app.button(key=f"go-{EMPIRE}").click().run()
    assert app.header[0].value.startswith("The Empire Strikes Back")
    assert app.session_state["_film"] == str(EMPIRE)
    third = next(b for b in app.button if b.key and b.key.startswith("go-") and b.key != f"go-{STAR_WARS}")
    third.click().run()
    assert [b.label.replace("\\", "") for b in app.button if b.key and b.key.startswith("back-")] == [
        "Star Wars (1977)",
        "The Empire Strikes Back (1980)",
    ]
    app.button(key="back-2").click().run()
    assert app.header[0].value.startswith("Star Wars")
    assert not any(b.key and b.key.startswith("back-") for b in app.button)


def test_nothing_found_suggests_films(open_page, no_data):
    app = open_page("similar")
    app.text_input(key="search").set_value("日本").run()
    assert says(app, "No title resembles that")
    assert "Star Wars (1977)" in labels(app)


def test_each_filter_narrows_the_list(open_page, shipped, no_data):
    app = open_page("similar", {"film": str(STAR_WARS)})
    app.selectbox(key="genre").set_value("Animation").run()
    wanted = cfrec.similar_movies(shipped, STAR_WARS, 10, 20, genre="Animation")["title"].tolist()
    assert neighbours(app) == wanted
    app.selectbox(key="decade").set_value("1990s").run()
    wanted = cfrec.similar_movies(shipped, STAR_WARS, 10, 20, genre="Animation", years=(1990, 1999))["title"].tolist()
    assert neighbours(app) == wanted
    app.slider(key="k").set_value(5).run()
    assert neighbours(app) == wanted[:5]
    app.slider(key="min_ratings").set_value(0).run()
    assert neighbours(app) == cfrec.similar_movies(shipped, STAR_WARS, 5, 0, genre="Animation", years=(1990, 1999))["title"].tolist()


def test_a_filter_that_leaves_nothing_says_so(open_page, no_data):
    app = open_page("similar", {"film": str(STAR_WARS), "genre": "Documentary", "decade": "1930s"})
    assert says(app, "No film passes these filters: loosen one.")


def test_weak_evidence_has_a_badge(open_page, shipped, no_data):
    few = shipped.movies.loc[shipped.movies["n_ratings"].idxmin(), "movie_id"]
    app = open_page("similar", {"film": str(few)})
    assert any("few ratings" in text.value for text in app.markdown)
    app = open_page("similar", {"film": str(STAR_WARS)})
    assert not any("few ratings" in text.value for text in app.markdown)


def test_why_names_shared_genres_and_common_raters(open_page, ml_100k):
    app = open_page("similar", {"film": str(STAR_WARS)})
    both = set(ml_100k.user_idx[ml_100k.movie_idx == 49]) & set(ml_100k.user_idx[ml_100k.movie_idx == 171])
    assert says(app, f"367 ratings · shared genres: Action, Adventure, Romance, Sci-Fi, War · {len(both)} people rated both")
    assert says(app, "no genre in common")


def test_without_ratings_the_common_raters_are_left_out(open_page, no_data):
    app = open_page("similar", {"film": str(STAR_WARS)})
    assert says(app, "shared genres: Action")
    assert not says(app, "rated both")


def test_a_film_that_this_model_does_not_know(open_page, no_data):
    app = open_page("similar", {"film": "999999"})
    assert "Star Wars (1977)" in labels(app)
    assert "The film of this address is not in the model in use. Begin with another:" in [caption.value for caption in app.caption]


def test_text_ids_and_titles_that_look_like_markup(open_page, models, trained, no_data):
    movies = trained.movies.assign(movie_id=[f"tt{k:02}" for k in range(36)], genres="")
    movies.loc[1, "title"] = "**Bold** [x](http://x) $a$ <b>"
    cfrec.save_model(dataclasses.replace(trained, movies=movies), models / "mine")
    app = open_page("similar", {"model": "mine", "film": "tt00", "min_ratings": "0"})
    titles = [text.value for text in app.markdown]
    assert "**\\*\\*Bold\\*\\* \\[x\\]\\(http\\:\u2060//x\\) \\$a\\$ \\<b\\>**" in titles
    assert says(app, "no genre in common")


def test_a_film_without_ratings_to_learn_from(open_page, models, trained, no_data):
    factors = trained.movie_factors.copy()
    factors[0] = 0
    cfrec.save_model(dataclasses.replace(trained, movie_factors=factors), models / "mine")
    app = open_page("similar", {"model": "mine", "film": "100"})
    assert says(app, "Nothing was learned of this film")
