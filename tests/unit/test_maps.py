import numpy as np
import pandas as pd
import pytest

from cfrec.maps import COLOURS, GENRE, Look, factor_map


@pytest.fixture
def places():
    table = pd.DataFrame(
        {
            "movie_id": [7, 8, 9],
            "title": ["a", "b <i>", "c"],
            "genre": ["Drama", "other", "Drama"],
            "genres": ["Drama|War", "", "Drama"],
            "year": pd.array([1990, None, 1950], dtype="Int64"),
            "stars": [4.0, 2.0, 3.0],
            "n_ratings": [1000, 10, 1],
            "x": [1.0, 2, 3],
            "y": [0.0, 1, 2],
            "z": [5.0, 5, 5],
        }
    )
    table.attrs = {"explained_variance_ratio": [0.5, 0.25, 0.1], "genres": ["Drama", "Horror", "War"]}
    return table


def traces(figure, mode):
    return [trace for trace in figure.data if trace.mode == mode]


def written(figure):
    """What stands on the map, with its place, the names of the axes first."""
    return {a.text: (a.x, a.y, a.z) for a in figure.layout.scene.annotations}


def test_points_labels_and_axes(places):
    figure = factor_map(places, Look(n_labels=3))
    (points,) = traces(figure, "markers")
    assert list(points.x) == [1, 2, 3]
    assert list(points.customdata) == [0, 1, 2]
    assert points.hovertext[0] == "<b>a</b><br>4.00 stars · 1,000 ratings<br>Drama · War"
    assert figure.layout.scene.xaxis.range == pytest.approx((0.88, 3.12))
    assert figure.layout.scene.zaxis.range == (4, 6)  # all alike: a range all the same
    assert written(figure) == {
        "direction 1 (50%)": (pytest.approx(2), pytest.approx(2.12), 4),
        "direction 2 (25%)": (pytest.approx(3.12), pytest.approx(1), 4),
        "direction 3 (10%)": (pytest.approx(3.12), pytest.approx(-0.12), 5),
        "a": (1, 0, 5),
        "b &lt;i&gt;": (2, 1, 5),  # a title is never markup
        "c": (3, 2, 5),
    }


@pytest.mark.parametrize("axes", [("x", "y", "z"), ("x", "y")])
def test_a_cross_in_space_lies_on_a_disc_that_the_pointer_finds(places, axes):
    genres = ["Drama", "Comedy", "Action", "Thriller", "Romance", "Adventure", "other"]
    all_marks = pd.concat([places.iloc[[0]]] * 7, ignore_index=True).assign(genre=genres, x=range(7))
    all_marks.attrs = places.attrs | {"genres": genres[:-1]}
    points = traces(factor_map(all_marks, Look(axes=axes, colour=GENRE)), "markers")
    seen = {trace.name: trace for trace in points if trace.marker.opacity > 0}
    unseen = {trace.name: trace for trace in points if trace.marker.opacity == 0}
    assert list(seen) == genres
    assert [name for name, trace in seen.items() if trace.marker.symbol == "cross"] == ["Thriller"]
    assert list(unseen) == (["Thriller"] if len(axes) == 3 else [])
    for name, trace in unseen.items():
        assert (trace.marker.symbol, trace.showlegend, trace.legendgroup) == (None, False, seen[name].legendgroup)  # Plotly's own: a disc
        assert list(trace.customdata) == list(seen[name].customdata) == [genres.index(name)]
        assert (list(trace.x), trace.hovertext) == (list(seen[name].x), seen[name].hovertext)


@pytest.mark.parametrize("axes", [("x", "y"), ("x", "y", "z")])
def test_titles_stand_apart_each_with_a_line_to_its_point(places, axes):
    many = pd.concat([places] * 4, ignore_index=True).assign(title=list("abcdefghijkl"))
    many.attrs = places.attrs
    for n, titles in ((3, list("abc")), (12, list("abcdefghijkl"))):
        layout = factor_map(many, Look(axes=axes, n_labels=n)).layout
        notes = [a for a in (layout.scene if len(axes) == 3 else layout).annotations if len(a.text) == 1]
        assert [a.text for a in notes] == titles
        assert [(a.x, a.y) for a in notes] == list(zip(many["x"][:n], many["y"][:n], strict=True))
        assert {(a.showarrow, a.arrowhead) for a in notes} == {(True, 0)}
        stand = {(a.x, a.y, a.ax, a.ay) for a in notes}
        assert len(stand) == n  # though four films lie at each place


def test_a_flat_map_of_other_directions(places):
    figure = factor_map(places, Look(axes=("z", "x")))
    (points,) = traces(figure, "markers")
    assert points.type == "scatter"
    assert (list(points.x), list(points.y)) == ([5, 5, 5], [1, 2, 3])
    assert figure.layout.xaxis.title.text == "direction 3 (10%)"
    assert figure.layout.yaxis.title.text == "direction 1 (50%)"


def test_the_middle_score_is_the_middle_of_its_scale(places):
    marker = traces(factor_map(places, Look(colour="score")), "markers")[0].marker
    assert (marker.cmin, marker.cmax) == (2.0, 4.0)
    assert marker.colorscale[1][0] == 0.5


def test_popularity_is_drawn_by_its_logarithm(places):
    marker = traces(factor_map(places, Look(colour="popularity")), "markers")[0].marker
    assert list(marker.color) == [3, 1, 0]
    assert list(marker.colorbar.ticktext) == ["1", "3", "10", "30", "100", "300", "1,000"]


def test_a_film_without_a_year_takes_the_middle_colour(places):
    marker = traces(factor_map(places, Look(colour="decade")), "markers")[0].marker
    assert list(marker.color) == [1990, 1970, 1950]


def test_genres_differ_in_colour_and_mark(places):
    places.loc[2, "genre"] = "War"
    points = traces(factor_map(places, Look(colour=GENRE)), "markers")
    assert [trace.name for trace in points] == ["Drama", "War", "other"]
    assert len({trace.marker.color for trace in points}) == 3
    assert points[0].marker.symbol != points[1].marker.symbol
    assert [list(trace.customdata) for trace in points] == [[0], [2], [1]]
    alone = places.iloc[2:]
    assert traces(factor_map(alone, Look(colour=GENRE)), "markers")[0].marker.symbol == points[1].marker.symbol  # whichever films are shown


def test_a_picked_film_and_its_neighbours_are_lit_and_labelled(places):
    figure = factor_map(places, Look(picked=2, neighbours=[0], n_labels=2))
    (spokes,) = traces(figure, "lines")
    assert list(spokes.x) == [3, 1]
    others, lit, picked = traces(figure, "markers")
    assert list(lit.customdata) == [0]
    assert list(picked.customdata) == [2]
    assert others.marker.opacity < lit.marker.opacity == picked.marker.opacity == 1
    assert {"c", "a"} <= set(written(figure))
    assert {"a", "c", "b &lt;i&gt;"} <= set(written(factor_map(places, Look(picked=2, neighbours=[0], n_labels=3))))  # where all are wanted
    assert "b &lt;i&gt;" not in written(figure)


@pytest.mark.parametrize("axes", [("x", "y"), ("x", "y", "z")])
def test_text_and_lines_take_the_colours_of_the_theme(places, axes):
    layout = factor_map(places, Look(axes=axes, ink="#111111", paper="#222222", grid="#333333")).layout
    space = layout.scene if len(axes) == 3 else layout
    assert {(a.font.color, a.bgcolor) for a in space.annotations} == {("#111111", "#222222")}
    assert space.xaxis.gridcolor == "#333333"
    assert layout.paper_bgcolor == "#222222"


def test_where_it_is_looked_at_from_is_kept(places):
    camera = {"eye": {"x": 0.1, "y": 2.0, "z": 0.3}}
    assert factor_map(places, Look(view={"camera": camera})).layout.scene.camera.eye.y == 2.0
    flat = factor_map(places, Look(axes=("x", "y"), view={"x": [0, 9], "y": [1, 2]}))
    assert tuple(flat.layout.xaxis.range) == (0, 9)
    assert tuple(flat.layout.yaxis.range) == (1, 2)
    assert tuple(factor_map(places, Look(axes=("x", "y"))).layout.xaxis.range) == pytest.approx((0.88, 3.12))


def test_titles_make_room_as_the_films_are_seen_not_as_they_lie(places):
    places.loc[:, ["x", "y", "z"]] = [[1.0, 0, 5], [1, 8, 5], [1, 4, 5]]  # one behind the other, for who looks along y
    for eye, apart in (({"y": -2}, False), ({"x": 2}, True)):
        notes = factor_map(places, Look(n_labels=3, view={"camera": {"eye": eye}})).layout.scene.annotations
        ways = {a.text: (a.ax, a.ay) for a in notes if a.ax is not None}
        assert (ways["a"] == ways["b &lt;i&gt;"] == (0, -18)) is apart


@pytest.mark.parametrize("colour", COLOURS)
@pytest.mark.parametrize("axes", [("x", "y"), ("x", "y", "z")])
def test_one_film_alone(places, colour, axes):
    figure = factor_map(places.head(1), Look(axes=axes, colour=colour, picked=0))
    assert np.concatenate([trace.x for trace in traces(figure, "markers")]).tolist() == [1, 1]


def test_an_unknown_colour(places):
    with pytest.raises(ValueError, match="unknown colour 'x'"):
        factor_map(places, Look(colour="x"))
