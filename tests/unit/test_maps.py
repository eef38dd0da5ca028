import pandas as pd
import pytest

from cfrec.maps import factor_map


def test_points_labels_and_axes():
    places = pd.DataFrame({"title": ["a", "b", "c"], "x": [1.0, 2, 3], "y": [0.0, 1, 2], "z": [5.0, 5, 5]})
    places.attrs["explained_variance_ratio"] = [0.5, 0.25, 0.1]
    figure = factor_map(places, pd.Series([0.1, -0.4, 0.2]), n_labels=2)
    points = figure.data[0]
    assert list(points.x) == [1, 2, 3]
    assert list(points.text) == ["a", "b", ""]
    assert list(points.hovertext) == ["a", "b", "c"]
    assert (points.marker.cmin, points.marker.cmax) == pytest.approx((-0.4, 0.4))  # zero bias is the middle of the scale
    assert figure.layout.scene.xaxis.title.text == "x (50% of variation)"
