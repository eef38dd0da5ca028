import pandas as pd

from cfrec.pictures import factor_heatmap, prediction_steps, ratings_grid


def rows(drawing):
    """What a chart draws: all its data sets, row by row."""
    return [row for data in drawing.to_dict()["datasets"].values() for row in data]


def test_the_grid_marks_gaps_and_places_stars_on_the_scale():
    cells = pd.DataFrame({"film": ["A", "A"], "person": ["1", "2"], "stars": [4.0, None]})
    drawing = ratings_grid(cells, (1.0, 5.0), decimals=False)
    assert rows(drawing)[0]["share"] == 0.75
    assert rows(drawing)[1]["stars"] is None
    texts = [layer["encoding"]["text"] for layer in drawing.to_dict()["layer"] if layer["mark"]["type"] == "text"]
    assert texts[0]["format"] == "~g"
    assert texts[1] == {"value": "?"}


def test_the_grid_of_a_scale_with_one_value():
    cells = pd.DataFrame({"film": ["A"], "person": ["1"], "stars": [3.0]})
    assert rows(ratings_grid(cells, (3.0, 3.0), decimals=True))[0]["share"] == 0


def test_the_heatmap_tells_signs_from_noise():
    cells = pd.DataFrame({"film": ["A", "A", "A"], "number": [1, 2, 3], "value": [0.4, -0.2, 0.01]})
    drawn = [row for row in rows(factor_heatmap(cells, pd.DataFrame({"film": ["A"], "stars": [4.2]}))) if "sign" in row]
    assert [(row["sign"], row["strength"]) for row in drawn] == [("+", 1.0), ("−", 0.5), ("", 0.025)]


def test_a_heatmap_of_zeros_is_drawn():
    cells = pd.DataFrame({"film": ["A"], "number": [1], "value": [0.0]})
    assert rows(factor_heatmap(cells, pd.DataFrame({"film": ["A"], "stars": [3.0]})))[0]["strength"] == 0


def test_steps_name_what_raises_and_what_lowers_a_guess():
    parts = pd.DataFrame(
        {
            "part": list("abcdef"),
            "stars": [3.5, 0.25, -0.5, 0.0, 3.25, 4.0],
            "start": [0, 3.5, 3.75, 3.25, 0, 0],
            "end": [3.5, 3.75, 3.25, 3.25, 3.25, 4],
        }
    )
    drawn = {row["part"]: row for row in rows(prediction_steps(parts, (1.0, 5.0)))}
    assert [drawn[part]["kind"] for part in "abcdef"] == ["base", "up", "down", "up", "total", "real"]
    assert [drawn[part]["label"] for part in "abcdef"] == ["3.50", "+0.25", "−0.50", "+0.00", "3.25", "4.00"]
    without = prediction_steps(parts[:5], (1.0, 5.0))
    assert {row["kind"] for row in rows(without)} == {"base", "up", "down", "total"}
