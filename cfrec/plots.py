"""Altair charts from DataFrames; knows no model. The 3D map is in ``maps``, charts of biases are in ``shrinkage``.

Every colour is at least 3:1 against the app's light and its dark background, and never the only sign: lines differ in
their dashes, and are labelled where they end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.trained import EpochMetrics

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito's colours for every kind of sight, the pale ones darkened.
BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY, VIOLET, GREY = PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#C0649A"),
    *("#B07A00", "#2E8FC7", "#7A6AD8", "#808590"),
)

TRAIN, VALID, BEFORE, BEST = "ratings learned from", "ratings kept aside", "previous run", "best round"
INK = "ink"  # the style of text: the code that shows a chart says which colour that is, ``in_ink``
_LABEL_ROW, _LABEL_LETTER = 0.085, 0.022  # of what a chart of runs spans: a name's height in it, and a letter's width
_LONGEST_LABEL = 17  # letters
_LINES = {TRAIN: (BLUE, [6, 4]), VALID: (ORANGE, [1, 0]), BEFORE: (GREY, [2, 3])}


def in_ink(ink: str) -> dict[str, Any]:
    """A Vega-Lite configuration in which all text is of one colour, that of axes and legends a little fainter."""
    soft = {"labelColor": ink, "labelOpacity": 0.75, "titleColor": ink, "titleOpacity": 0.75}
    return {"style": {INK: {"color": ink}}, "axis": soft, "legend": soft}


def loss_chart(points: pd.DataFrame, epochs: int, top: float, *, height: int = 360) -> alt.LayerChart:
    """Average miss by round. The same drawing whatever the points, so that a page can update it without redrawing it.

    Parameters
    ----------
    points : DataFrame
        series (TRAIN, VALID, BEFORE, BEST, or the name of a baseline), epoch, stars, label (empty: none) and label_at (its height, stars).
        A baseline has one point, at epoch 0, and is drawn from side to side.
    epochs : int
        Rounds of the whole run.
    top : float
        Highest average miss that is shown, in stars.
    """
    import altair as alt

    base = alt.Chart(points)
    x = alt.X("epoch:Q", title="Round", scale=alt.Scale(domain=[0, epochs], nice=False), axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("stars:Q", title="Average miss, in stars", scale=alt.Scale(zero=False, domainMax=top, padding=12))
    tips = [
        alt.Tooltip("series:N", title="of"),
        alt.Tooltip("epoch:Q", title="round"),
        alt.Tooltip("stars:Q", format=".4f", title="average miss, stars"),
    ]
    names = list(_LINES)
    kinds = alt.FieldOneOfPredicate(field="series", oneOf=names)
    others = ~alt.FieldOneOfPredicate(field="series", oneOf=[*names, BEST])
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=[c for c, _ in _LINES.values()]), legend=None)
    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=names, range=[d for _, d in _LINES.values()]), legend=None)
    lines = base.transform_filter(kinds)
    baselines = base.transform_filter(others).transform_filter(f"datum.stars <= {top}")  # text beyond the top shrinks all to make room
    best = base.transform_filter(alt.FieldEqualPredicate(field="series", equal=BEST))
    return alt.layer(
        baselines.mark_rule(color=GREY, strokeWidth=1, clip=True).encode(y=y, tooltip=tips),
        baselines.mark_text(style=INK, align="left", dx=4, dy=-7, fontSize=12).encode(x=alt.value(0), y=y, text="label:N"),
        best.mark_rule(color=GREEN, strokeWidth=2, strokeDash=[4, 3]).encode(x=x),
        best.mark_text(style=INK, align="left", baseline="top", dx=6, dy=4, fontSize=13, fontWeight="bold").encode(
            x=x, y=alt.value(0), text="label:N"
        ),
        lines.mark_line(clip=True, strokeWidth=2.5).encode(x=x, y=y, color=colour, strokeDash=dash),
        lines.mark_point(filled=True, size=min(38, 1200 / max(epochs, 1)), opacity=1, clip=True).encode(
            x=x, y=y, color=colour, tooltip=tips
        ),
        lines.transform_filter(f"datum.label != '' && datum.label_at <= {top}")
        .mark_text(style=INK, align="left", baseline="middle", dx=7, fontSize=13)
        .encode(x=x, y=alt.Y("label_at:Q"), text="label:N"),
    ).properties(height=height)


@lru_cache(maxsize=64)
def loss_drawing(epochs: int, top: float) -> dict[str, Any]:
    """``loss_chart`` without its points, as Vega-Lite: to be drawn again and again. Read-only: it is made once for each pair."""
    spec: dict[str, Any] = loss_chart(loss_points([], [], {}), epochs, top).to_dict()
    return {name: part for name, part in spec.items() if name not in ("data", "datasets")}


def loss_points(
    history: Sequence[EpochMetrics], before: Sequence[EpochMetrics], baselines: Mapping[str, float], top: float | None = None
) -> pd.DataFrame:
    """What ``loss_chart`` draws, from losses in stars squared.

    Parameters
    ----------
    history, before
        Of this run so far, and of an earlier one to compare with (may be empty).
    baselines : mapping label -> loss
    top : float, optional
        Highest average miss that is shown, in stars; else that of the points.
    """
    rows = [(label, 0, loss, label) for label, loss in baselines.items()]
    for name, losses in (
        (TRAIN, [m.train_loss for m in history]),
        (VALID, [m.valid_loss for m in history]),
        (BEFORE, [m.valid_loss for m in before]),
    ):
        rows += [(name, k, loss, name if k == len(losses) else "") for k, loss in enumerate(losses, 1)]
    if history:
        best = min(history, key=lambda m: m.valid_loss)
        rows.append((BEST, best.epoch, best.valid_loss, f"best: round {best.epoch}"))
    points = pd.DataFrame(rows, columns=["series", "epoch", "loss", "label"])
    points.insert(2, "stars", np.sqrt(points["loss"].astype(float)))
    return points.assign(label_at=_spread(points, top or float(points["stars"].max())))


def _spread(points: pd.DataFrame, top: float) -> pd.Series[float]:
    """Heights of the names at the ends of lines, so far apart that each can be read; of all other rows, their own."""
    row, width = _LABEL_ROW * (top - float(points["stars"].min())), _LONGEST_LABEL * _LABEL_LETTER * float(points["epoch"].max())
    ends = points[points["series"].isin(list(_LINES)) & (points["label"] != "")].sort_values("stars")
    at, placed = points["stars"].copy(), list[tuple[float, float]]()
    for k, epoch, stars in zip(ends.index, ends["epoch"], ends["stars"], strict=True):
        at[k] = height = max([stars, *(below + row for other, below in placed if abs(epoch - other) < width)])
        placed.append((epoch, height))
    return at


def learning_rates(history: Sequence[EpochMetrics]) -> pd.DataFrame:
    """epoch, learning_rate."""
    return pd.DataFrame([(m.epoch, m.learning_rate) for m in history], columns=["epoch", "learning_rate"])


def learning_rate_chart(points: pd.DataFrame, *, height: int = 130) -> alt.Chart:
    """Step size by round, of ``learning_rates``."""
    import altair as alt

    return (
        alt.Chart(points)
        .mark_line(color=PURPLE, point=True)
        .encode(
            x=alt.X("epoch:Q", title="Round", axis=alt.Axis(tickMinStep=1, format="d")),
            y=alt.Y("learning_rate:Q", title="Step size"),
            tooltip=[alt.Tooltip("epoch:Q", title="round"), alt.Tooltip("learning_rate:Q", title="step size")],
        )
        .properties(height=height)
    )


def bars(table: pd.DataFrame, x: str, y: str, *, x_title: str, y_title: str, height: int = 240) -> alt.Chart:
    """One bar a row: ``x`` a category in the order of the rows, ``y`` a count."""
    import altair as alt

    return (
        alt.Chart(table)
        .mark_bar(color=BLUE, cornerRadiusEnd=4)
        .encode(
            x=alt.X(f"{x}:N", title=x_title, sort=None, axis=alt.Axis(labelAngle=0)),
            y=alt.Y(f"{y}:Q", title=y_title),
            tooltip=[alt.Tooltip(f"{x}:N", title=x_title), alt.Tooltip(f"{y}:Q", title=y_title, format=",")],
        )
        .properties(height=height)
    )


def calibration_chart(groups: pd.DataFrame, *, height: int = 300) -> alt.LayerChart:
    """Mean guess against mean real stars of equally large groups; a model that can be believed lies on the diagonal."""
    import altair as alt

    ends = [float(groups[["predicted", "actual"]].min().min()), float(groups[["predicted", "actual"]].max().max())]
    domain = alt.Scale(domain=ends, nice=True)
    x, y = alt.X("predicted:Q", scale=domain, title="Guessed, stars"), alt.Y("actual:Q", scale=domain, title="Really given, stars")
    tips = [
        alt.Tooltip("predicted:Q", format=".2f", title="guessed on average, stars"),
        alt.Tooltip("actual:Q", format=".2f", title="really given on average, stars"),
        alt.Tooltip("n_ratings:Q", format=",", title="ratings"),
    ]
    diagonal = alt.Chart(pd.DataFrame({"predicted": ends, "actual": ends})).mark_line(color=GREY, strokeDash=[5, 4])
    points = alt.Chart(groups).mark_point(color=BLUE, filled=True, size=110, opacity=1)
    return alt.layer(diagonal.encode(x=x, y=y), points.encode(x=x, y=y, tooltip=tips)).properties(height=height)


def run_curves(points: pd.DataFrame, *, height: int = 300) -> alt.LayerChart:
    """Average miss by round for several models: ``points`` has model, epoch, stars. Each line bears its model's name where it ends."""
    import altair as alt

    base, labels = alt.Chart(points), _end_labels(points)
    names = list(dict.fromkeys(points["model"]))
    x = alt.X("epoch:Q", title="Round", axis=alt.Axis(tickMinStep=1, format="d"))
    y = alt.Y("stars:Q", title="Average miss, in stars", scale=alt.Scale(zero=False))
    colour = alt.Color("model:N", scale=alt.Scale(domain=names, range=list(PALETTE[: len(names)])), legend=None)
    tips = [
        alt.Tooltip("model:N"),
        alt.Tooltip("epoch:Q", title="round"),
        alt.Tooltip("stars:Q", format=".4f", title="average miss, stars"),
    ]
    return alt.layer(
        base.mark_line(strokeWidth=2.5).encode(
            x=x, y=y, color=colour, strokeDash=alt.StrokeDash("model:N", scale=alt.Scale(domain=names), legend=None)
        ),
        base.mark_point(filled=True, size=36, opacity=1).encode(x=x, y=y, color=colour, tooltip=tips),
        *(
            alt.Chart(labels[labels["side"] == side])
            .mark_text(style=INK, align=align, baseline="middle", dx=dx, fontSize=13)
            .encode(x=x, y=y, text="label:N")
            for side, align, dx in ((1, "left", 8), (-1, "right", 4))
        ),
    ).properties(height=height)


def _end_labels(points: pd.DataFrame) -> pd.DataFrame:
    """Where names are written: right of a line's end, or beneath or above it where that is far right; off all lines and other names.

    Returns
    -------
    DataFrame
        model, epoch, stars, label; side: 1 where the name starts at the epoch, -1 where it ends there.
    """
    lines = {str(name): line.sort_values("epoch") for name, line in points.groupby("model", sort=False)}
    row = _LABEL_ROW * float(points["stars"].max() - points["stars"].min())
    letter = _LABEL_LETTER * float(points["epoch"].max())
    placed: list[tuple[str, float, float, str, int]] = []
    boxes: list[tuple[float, float, float]] = []  # of names: first and last epoch, height
    for name, line in lines.items():
        end, stars, label = float(line["epoch"].iloc[-1]), float(line["stars"].iloc[-1]), _shortened(name)
        side = 1 if end + len(label) * letter <= points["epoch"].max() else -1
        first, last = sorted((end, end + side * len(label) * letter))
        crossed = [_heights(other, first, last) for key, other in lines.items() if key != name or side < 0]
        heights = np.concatenate([*crossed, [height for a, b, height in boxes if a < last and b > first]])
        places = [stars + step * row for step in (0, -1, 1, -2, 2, -3, 3, -4, 4)]
        place = next((at for at in places if (abs(at - heights) >= 0.9 * row).all()), stars)
        placed.append((name, end, place, label, side))
        boxes.append((first, last, place))
    return pd.DataFrame(placed, columns=["model", "epoch", "stars", "label", "side"])


def _heights(line: pd.DataFrame, start: float, end: float) -> npt.NDArray[np.float64]:
    """How high a line is at places between two rounds, where it is there at all."""
    epochs, stars = (line[column].to_numpy(np.float64) for column in ("epoch", "stars"))
    places = np.linspace(start, end, 21)
    heights: npt.NDArray[np.float64] = np.interp(places[(places >= epochs[0]) & (places <= epochs[-1])], epochs, stars)
    return heights


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_LABEL else f"{name[: _LONGEST_LABEL // 2]}…{name[-(_LONGEST_LABEL // 2) :]}"
