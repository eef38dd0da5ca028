import tomllib
from math import sqrt
from pathlib import Path

import pandas as pd
import pytest

from cfrec import plots
from cfrec.trained import EpochMetrics

CONFIG = tomllib.loads(Path(".streamlit/config.toml").read_text())


def history(*losses):
    return [EpochMetrics(k, train, valid, 0.01 * k, 0.1, 1000.0) for k, (train, valid) in enumerate(losses, 1)]


def data_of(chart):
    (rows,) = chart.to_dict()["datasets"].values()
    return rows


def test_loss_points_are_roots_with_a_label_at_the_end_of_each_line():
    points = plots.loss_points(history((1.44, 1.21), (0.81, 1.0), (0.64, 1.0201)), history((4.0, 2.25)), {"always the same guess": 1.69})
    assert points.drop(columns="label_at").values.tolist() == [
        ["always the same guess", 0, 1.3, 1.69, "always the same guess"],
        [plots.TRAIN, 1, 1.2, 1.44, ""],
        [plots.TRAIN, 2, 0.9, 0.81, ""],
        [plots.TRAIN, 3, 0.8, 0.64, plots.TRAIN],
        [plots.VALID, 1, 1.1, 1.21, ""],
        [plots.VALID, 2, 1.0, 1.0, ""],
        [plots.VALID, 3, sqrt(1.0201), 1.0201, plots.VALID],
        [plots.BEFORE, 1, 1.5, 2.25, plots.BEFORE],
        [plots.BEST, 2, 1.0, 1.0, "best: round 2"],
    ]


def test_names_at_the_ends_of_lines_do_not_hide_one_another():
    near = history((1.44, 1.21), (1.0, 1.0201))  # the lines end at 1.00 and 1.01 stars, and the run before at 1.02
    points = plots.loss_points(near, history((1.44, 1.44), (1.44, 1.0404)), {}).set_index(["series", "epoch"])
    row = 0.2 * plots._LABEL_ROW  # of what is drawn, from 1.0 to 1.2 stars
    at = [points.loc[(series, 2), "label_at"] for series in (plots.TRAIN, plots.VALID, plots.BEFORE)]
    assert at == pytest.approx([1.0, 1.0 + row, 1.0 + 2 * row])
    assert row > 0.011  # so that each has moved by itself
    assert (points["label_at"] == points["stars"]).sum() == len(points) - 2  # and nothing else has
    longer = plots.loss_points(near + near + near, history((1.44, 1.0404)), {})
    assert at_its_place(longer[longer["series"] == plots.BEFORE])  # it ends far from the others
    far_above = history((9.0, 9.0), (1.0, 1.0201), (1.0, 1.0201))  # where only up to 1.04 stars are shown, a hundredth is enough
    assert at_its_place(plots.loss_points(far_above, history(*[(1.44, 1.0404)] * 3), {}, top=1.04))


def at_its_place(points):
    return points["label_at"].equals(points["stars"])


def test_loss_points_before_the_first_round():
    assert plots.loss_points([], [], {"a": 4.0}).values.tolist() == [["a", 0, 2.0, 4.0, "a", 2.0]]


def test_the_loss_chart_is_the_same_drawing_for_other_points():
    """Streamlit redraws a chart from nothing, with a flicker, as soon as anything but its data changes."""
    specs = []
    for losses in ([], [(1.0, 1.0)], [(1.0, 1.0), (0.9, 1.1)]):
        spec = plots.loss_chart(plots.loss_points(history(*losses), [], {"a": 1.2}), 5, 1.3).to_dict()
        name = spec["data"]["name"]
        assert spec.pop("datasets")[name]
        specs.append(str(spec).replace(name, "data"))
    assert specs[0] == specs[1] == specs[2]
    assert "'domain': [0, 5]" in specs[0]
    assert "'domainMax': 1.3" in specs[0]


def test_the_loss_drawing_is_the_loss_chart_without_its_points():
    chart = plots.loss_chart(plots.loss_points(history((1.0, 1.0)), [], {"a": 1.2}), 5, 1.3).to_dict()
    drawing = plots.loss_drawing(5, 1.3)
    assert drawing == {name: part for name, part in chart.items() if name not in ("data", "datasets")}
    assert {"layer", "height"} <= drawing.keys()


def test_lines_differ_in_colour_and_in_dashes():
    spec = plots.loss_chart(plots.loss_points(history((1, 1)), [], {}), 5, 1.3).to_dict()
    line = next(layer for layer in spec["layer"] if layer["mark"]["type"] == "line")
    for channel in ("color", "strokeDash"):
        values = [str(value) for value in line["encoding"][channel]["scale"]["range"]]
        assert len(set(values)) == len(values) == 3


def test_the_step_size_by_round():
    assert data_of(plots.learning_rate_chart(plots.learning_rates(history((1, 1), (1, 1))))) == [
        {"epoch": 1, "learning_rate": 0.01},
        {"epoch": 2, "learning_rate": 0.02},
    ]


def test_calibration_has_the_diagonal_over_all_its_groups():
    groups = pd.DataFrame({"predicted": [2.0, 4.0], "actual": [1.5, 4.5], "n_ratings": [10, 10]})
    tables = list(plots.calibration_chart(groups).to_dict()["datasets"].values())
    assert [{"predicted": 1.5, "actual": 1.5}, {"predicted": 4.5, "actual": 4.5}] in tables


def luminance(colour: str) -> float:
    parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.03928 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: str, b: str) -> float:
    low, high = sorted((luminance(a), luminance(b)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_of_black_and_white():
    assert contrast("#000000", "#FFFFFF") == pytest.approx(21)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_can_be_seen_on_the_background(theme):
    background = CONFIG["theme"][theme]["backgroundColor"]
    assert min(contrast(colour, background) for colour in plots.PALETTE) >= 3


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_can_be_read(theme):
    colours = CONFIG["theme"][theme]
    for background in (colours["backgroundColor"], colours["secondaryBackgroundColor"]):
        assert contrast(colours["textColor"], background) >= 4.5
        assert contrast(colours["linkColor"], background) >= 4.5
    assert contrast("#FFFFFF", colours["primaryColor"]) >= 4.5  # the text on a primary button


def test_the_theme_has_the_same_colours():
    assert CONFIG["theme"]["chartCategoricalColors"] == list(plots.PALETTE)


# Runs of several models in one chart


def runs(**losses):
    rows = [(name, epoch, stars) for name, line in losses.items() for epoch, stars in enumerate(line, 1)]
    return pd.DataFrame(rows, columns=["model", "epoch", "stars"])


def labels_of(points):
    """What is written into the chart of runs: name -> (round, stars, align)."""
    chart = plots.run_curves(points).to_dict()
    written = {}
    for layer in chart["layer"]:
        if layer["mark"]["type"] == "text":
            for row in chart["datasets"][layer["data"]["name"]]:
                written[row["label"]] = (row["epoch"], row["stars"], layer["mark"]["align"])
    return written


def test_a_name_stands_right_of_a_short_line_and_beneath_the_end_of_a_long_one():
    """The stars span 1: a row of letters is 0.085 high."""
    written = labels_of(runs(long=[2.0] + [1.0] * 19, short=[1.8, 1.5]))
    assert written["short"] == (2, 1.5, "left")
    assert written["long"] == (20, pytest.approx(1.0 - 0.085), "right")


def test_a_name_gives_way_to_a_line_that_goes_on():
    """One line ends on the other: its name would be struck through."""
    written = labels_of(runs(long=[2.0] + [1.0] * 29, short=[1.9, 1.0]))
    assert written["short"] == (2, pytest.approx(1.0 - 0.085), "left")


def test_names_of_lines_that_end_together_stand_one_above_the_other():
    written = labels_of(runs(a=[2.0, 1.0, 1.0], b=[2.0, 1.0, 1.0], c=[2.0, 1.0, 1.0]))
    low, middle, high = sorted(stars for _, stars, _ in written.values())
    assert min(middle - low, high - middle) > 0.0849
    assert min(abs(stars - 1.0) for stars in (low, middle, high)) > 0.0849


def test_a_long_name_keeps_both_its_ends():
    assert list(labels_of(runs(**{"my experiment of monday 1": [1.0, 0.9]}))) == ["my exper…monday 1"]
    assert list(labels_of(runs(**{"seventeen letters": [1.0, 0.9]}))) == ["seventeen letters"]


def test_one_round_alone_is_named_at_its_point():
    assert labels_of(runs(a=[1.5])) == {"a": (1, 1.5, "right")}


def test_each_model_has_a_colour_of_its_own():
    points = runs(a=[2, 1], b=[2, 1], c=[2, 1], d=[2, 1])
    scale = plots.run_curves(points).to_dict()["layer"][0]["encoding"]["color"]["scale"]
    assert scale["domain"] == ["a", "b", "c", "d"]
    assert scale["range"] == list(plots.PALETTE[:4])
