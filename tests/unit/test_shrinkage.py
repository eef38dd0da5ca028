from itertools import pairwise

import pandas as pd
import pytest

from cfrec.shrinkage import bias_dumbbells, bias_scatter, dumbbell_domains, few_votes_example, overrated


@pytest.fixture
def biases():
    """Best first, as movie_biases gives; of d nothing was learned."""
    rows = [
        ("a", 0.9, 4.4, 100, 4.5),
        ("b", 0.3, 5.0, 2, 3.8),
        ("c", 0.2, 5.0, 3, 3.9),
        ("d", 0.0, 5.0, 1, 3.5),
        ("e", -0.1, 3.0, 30, 3.2),
        ("f", -0.5, 1.0, 2, 2.7),
    ]
    return pd.DataFrame(rows, columns=["title", "bias", "mean_rating", "n_ratings", "stars"]).assign(movie_id=range(6))


def test_overrated_by_hand(biases):
    table = overrated(biases)
    assert table["title"].tolist() == ["b", "c", "a", "e", "f"]  # without d
    assert table["gap"].tolist() == pytest.approx([1.2, 1.1, -0.1, -0.2, -1.7])
    assert "gap" not in biases


def test_few_votes_example_by_hand(biases):
    lucky, best = few_votes_example(biases, 20)
    assert (lucky["title"], best["title"]) == ("b", "a")  # of two with 5.0 the one held back the most
    assert lucky["gap"] == pytest.approx(1.2)
    single = biases.assign(n_ratings=[100, 1, 1, 1, 30, 1])
    assert few_votes_example(single, 20)[0]["title"] == "b"  # a single rating, where none has two


def test_no_example_where_few_votes_do_not_mislead(biases):
    assert few_votes_example(biases[biases["n_ratings"] >= 20], 20) is None
    assert few_votes_example(biases[biases["n_ratings"] < 20], 20) is None
    assert few_votes_example(biases.assign(mean_rating=[4.4, 4.3, 4.2, 5, 3, 1]), 20) is None  # nothing was learned of the 5.0


def test_a_star_is_as_long_in_one_dumbbell_chart_as_in_the_other():
    best = pd.DataFrame({"mean_rating": [4.0, 4.4], "stars": [4.1, 4.2]})
    worst = pd.DataFrame({"mean_rating": [1.0, 2.0], "stars": [2.2, 2.0]})
    (a, b), (c, d) = dumbbell_domains([best, worst], (1.0, 5.0))
    assert b - a == pytest.approx(d - c) == pytest.approx(1.4)  # from 1.0 to 2.2, and 0.1 at each end
    assert (a + b) / 2 == pytest.approx(4.2)
    assert (c, d) == pytest.approx((0.9, 2.3))
    at_the_top = pd.DataFrame({"mean_rating": [5.0], "stars": [5.0]})
    assert dumbbell_domains([at_the_top, worst], (1.0, 5.0))[0] == pytest.approx((3.7, 5.1))  # not beyond the scale


def test_dumbbells_join_a_hollow_average_and_a_filled_score(biases):
    spec = bias_dumbbells(biases, (0.9, 5.1), ink="#123456").to_dict()
    line, score, mean = spec["layer"]
    assert (line["encoding"]["x"]["field"], line["encoding"]["x2"]["field"]) == ("mean_rating", "stars")
    assert (score["encoding"]["x"]["field"], score["mark"]["filled"]) == ("stars", True)
    assert (mean["encoding"]["x"]["field"], mean["mark"]["filled"]) == ("mean_rating", False)
    assert score["mark"]["color"] != mean["mark"]["color"]
    for layer in spec["layer"]:
        assert layer["encoding"]["x"]["scale"]["domain"] == [0.9, 5.1]
        assert layer["encoding"]["y"]["sort"] is None  # the order of the rows
        assert layer["encoding"]["y"]["axis"]["labelColor"] == "#123456"
    assert [tip["field"] for tip in score["encoding"]["tooltip"]] == ["title", "stars", "mean_rating", "n_ratings"]


def test_dumbbells_say_how_many_ratings_and_keep_namesakes_apart():
    films = pd.DataFrame({"title": ["Chasing Amy"] * 2 + ["X"], "mean_rating": 3.0, "stars": 3.1, "n_ratings": [1200, 1200, 1]})
    spec = bias_dumbbells(films, (1, 5)).to_dict()
    (rows,) = spec["datasets"].values()
    assert [row["label"].rstrip("\u200b") for row in rows] == ["Chasing Amy · 1,200 ratings"] * 2 + ["X · 1 rating"]
    assert len({row["label"] for row in rows}) == 3
    assert spec["height"] > bias_dumbbells(films[:1], (1, 5)).to_dict()["height"]


def layers_with_rows(spec):
    return [(layer, spec["datasets"][layer["data"]["name"]].to_dict("records")) for layer in spec["layer"]], spec


def test_scatter_layers(biases):
    films = biases.assign(shown=biases["n_ratings"] >= 20, label=["", "b!", "", "", "", ""])
    layers, spec = layers_with_rows(bias_scatter(films, (1.0, 5.0), ink="#123456"))
    diagonal, few, enough, marked = layers[:4]
    assert [(point["mean_rating"], point["stars"]) for point in diagonal[1]] == [(0.9, 0.9), (5.1, 5.1)]
    assert diagonal[0]["mark"]["strokeDash"]
    assert [row["title"] for row in few[1]] == ["c", "b", "f", "d"]  # hollow; the most rated are drawn first
    assert few[0]["mark"]["type"] == "point"
    assert [row["title"] for row in enough[1]] == ["a", "e"]
    assert (enough[0]["mark"]["type"], enough[0]["encoding"]["size"]["field"]) == ("circle", "n_ratings")
    assert enough[0]["encoding"]["size"]["legend"]["values"] == [10, 50, 100]
    assert [row["title"] for row in marked[1]] == ["b"]
    for layer, _ in layers[1:4]:
        assert (layer["encoding"]["x"]["field"], layer["encoding"]["y"]["field"]) == ("mean_rating", "stars")
        assert layer["encoding"]["x"]["scale"]["domain"] == layer["encoding"]["y"]["scale"]["domain"] == [0.9, 5.1]
    (param,) = spec["params"]
    assert (param["name"], param["select"]["fields"]) == ("picked", ["movie_id"])


def test_scatter_of_films_with_few_ratings_still_has_a_legend(biases):
    films = biases.assign(n_ratings=3, shown=True, label="")
    layers, _ = layers_with_rows(bias_scatter(films, (1.0, 5.0)))
    assert layers[2][0]["encoding"]["size"]["legend"]["values"] == [3]
    assert [rows for _, rows in layers[3:]] == [[]] * 5  # nothing highlighted, no labels


def test_labels_lie_on_the_side_with_room_and_do_not_cover_each_other():
    films = pd.DataFrame(
        {
            "movie_id": range(5),
            "title": list("abcde"),
            "mean_rating": [4.5, 4.3, 4.4, 2.0, 3.2],
            "stars": [4.4, 4.41, 4.42, 2.5, 3.1],
            "n_ratings": 50,
            "shown": True,
            "label": list("abcde"),
        }
    )
    layers, spec = layers_with_rows(bias_scatter(films, (1.0, 5.0), ink="#123456"))
    (_, left), (text, _), (_, right), (right_text, _) = layers[4:]
    assert (text["mark"]["align"], right_text["mark"]["align"]) == ("right", "left")
    assert text["mark"]["color"] == "#123456"
    assert [row["label"] for row in right] == ["d"]  # a low average: room to its right
    place = {row["label"]: (row["label_x"], row["label_y"]) for row in left}
    assert place["e"] == (3.2, 3.1)  # alone: beside its dot
    assert {place[name][0] for name in "abc"} == {4.3}  # left of all three
    heights = sorted(place[name][1] for name in "abc")
    line = 20 * 4.2 / (spec["height"] - 150)
    assert min(b - a for a, b in pairwise(heights)) == pytest.approx(line)
    assert sorted("abc", key=lambda name: place[name][1]) == ["a", "b", "c"]  # as the dots lie


def test_labels_stay_inside_the_picture():
    films = pd.DataFrame(
        {
            "movie_id": range(6),
            "title": list("abcdef"),
            "mean_rating": 5.0,
            "stars": 5.0,
            "n_ratings": 9,
            "shown": True,
            "label": list("abcdef"),
        }
    )
    layers, _ = layers_with_rows(bias_scatter(films, (1.0, 5.0)))
    heights = [row["label_y"] for row in layers[4][1]]
    assert max(heights) < 5.1
    assert min(b - a for a, b in pairwise(heights)) == pytest.approx(20 * 4.2 / 410)
