"""The start page."""


def labels_and_values(app):
    return {metric.label: metric.value for metric in app.metric}


def test_it_shows_the_model_in_use_and_where_to_go(open_page, shipped, no_data):
    app = open_page()
    assert not app.error
    figures = labels_and_values(app)
    assert figures["Learned from"] == "MovieLens 100K"
    assert figures["Films"] == "1,682"
    assert figures["Ratings"] == "100,000"
    assert figures["Average miss"] == f"{shipped.metrics['rmse']:.2f} stars"
    assert [heading.value for heading in app.header[:3]] == ["Find similar films", "Explore the map", "Train it yourself"]
    assert app.dataframe[0].value["title"].tolist()[:2] == ["Star Wars (1977)", "Contact (1997)"]
    assert "may not be redistributed" in app.markdown[-1].value


def test_without_ratings_it_shows_what_the_model_knows(open_page, no_data):
    app = open_page()
    assert any("How well films are liked" in text.value for text in app.markdown)
    assert len(app.dataframe) == 1


def test_with_ratings_it_shows_the_first_of_them(open_page, ml_100k):
    app = open_page()
    assert app.dataframe[1].value.values.tolist()[0] == [196, "Kolya (1996)", 3.0]


def test_a_damaged_model_is_an_error_with_a_next_step(open_page, models, no_data):
    (models / "ml-100k" / "users.csv").write_text("x")
    app = open_page()
    told = app.error[0].value.replace("\\", "")  # it is shown as it is written, not as markup
    assert "users.csv" in told
    assert "Restore a copy, or train it again" in told
    assert not app.metric


def test_a_model_that_is_not_there_offers_the_shipped_one(open_page, no_data):
    app = open_page(query={"model": "gone"})
    assert "renamed or deleted" in app.error[0].value
    app.button[0].click().run()
    assert not app.error
    assert labels_and_values(app)["Films"] == "1,682"
