"""Altair charts from DataFrames; knows no model. The 3D map is in ``maps``.

Every colour is at least 3:1 against the app's light and its dark background, and never the only sign: lines differ in
their dashes, and are labelled where they end.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd

if TYPE_CHECKING:
    import altair as alt

# Okabe and Ito's colours for every kind of sight, the pale ones darkened.
BLUE, ORANGE, GREEN, PURPLE, GOLD, SKY, VIOLET, GREY = PALETTE = (
    *("#0072B2", "#D55E00", "#009E73", "#C0649A"),
    *("#B07A00", "#2E8FC7", "#7A6AD8", "#808590"),
)
DIVERGING = ("#D55E00", "#808590", "#0072B2")  # low, middle, high
_STARS = "0.00"

TRAIN, VALID, BEFORE, BEST = "ratings learned from", "ratings kept aside", "previous run", "best round"
_LINES = {TRAIN: (BLUE, [6, 4], 2), VALID: (ORANGE, [1, 0], 3), BEFORE: (GREY, [2, 3], 2)}


def loss_chart(points: pd.DataFrame, epochs: int, top: float, *, height: int = 360) -> alt.LayerChart:
    """Average miss by round. The same drawing whatever the points, so that a page can update it without redrawing it.

    Parameters
    ----------
    points : DataFrame
        series (TRAIN, VALID, BEFORE, BEST, or the name of a baseline), epoch, stars, label (empty: none).
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
    colour = alt.Color("series:N", scale=alt.Scale(domain=names, range=[c for c, _, _ in _LINES.values()]), legend=None)
    dash = alt.StrokeDash("series:N", scale=alt.Scale(domain=names, range=[d for _, d, _ in _LINES.values()]), legend=None)
    width = alt.StrokeWidth("series:N", scale=alt.Scale(domain=names, range=[w for _, _, w in _LINES.values()]), legend=None)
    lines = base.transform_filter(kinds)
    baselines = base.transform_filter(others)
    best = base.transform_filter(alt.FieldEqualPredicate(field="series", equal=BEST))
    label = {"align": "left", "baseline": "middle", "dx": 7, "fontSize": 13}
    return alt.layer(
        baselines.mark_rule(color=GREY, strokeWidth=1, clip=True).encode(y=y, tooltip=tips),
        baselines.mark_text(color=GREY, align="left", dx=4, dy=-7, fontSize=12).encode(x=alt.value(0), y=y, text="label:N"),
        best.mark_rule(color=GREEN, strokeWidth=2, strokeDash=[4, 3]).encode(x=x),
        best.mark_text(color=GREEN, align="left", baseline="top", dx=6, dy=4, fontSize=13, fontWeight="bold").encode(
            x=x, y=alt.value(0), text="label:N"
        ),
        lines.mark_line(clip=True).encode(x=x, y=y, color=colour, strokeDash=dash, strokeWidth=width),
        lines.mark_point(filled=True, size=38, opacity=1, clip=True).encode(x=x, y=y, color=colour, tooltip=tips),
        lines.mark_text(**label).encode(x=x, y=y, color=colour, text="label:N"),
    ).properties(height=height, padding={"right": 140})


def learning_rate_chart(points: pd.DataFrame, *, height: int = 130) -> alt.Chart:
    """Step size by round: ``points`` has epoch and learning_rate."""
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


def _film_tips() -> list[Any]:
    import altair as alt

    return [
        alt.Tooltip("title:N", title="film"),
        alt.Tooltip("stars:Q", format=".2f", title="popularity score, stars"),
        alt.Tooltip("mean_rating:Q", format=".2f", title="plain average, stars"),
        alt.Tooltip("n_ratings:Q", format=",", title="ratings"),
    ]


def bias_dumbbells(films: pd.DataFrame, scale: tuple[float, float]) -> alt.LayerChart:
    """For each film the plain average (hollow) and the popularity score (filled), joined: how far the score was held back.

    ``films`` has title, mean_rating, stars, n_ratings, in the order to be shown.
    """
    import altair as alt

    base = alt.Chart(films)
    y = alt.Y("title:N", sort=None, title=None, axis=alt.Axis(labelLimit=230, ticks=False, domain=False))
    domain = alt.Scale(domain=list(scale), nice=False)
    tips = _film_tips()
    return alt.layer(
        base.mark_rule(color=GREY, strokeWidth=2).encode(y=y, x=alt.X("mean_rating:Q", scale=domain, title="Stars"), x2="stars:Q"),
        base.mark_point(color=ORANGE, size=90, filled=False, strokeWidth=2).encode(
            y=y, x=alt.X("mean_rating:Q", scale=domain), tooltip=tips
        ),
        base.mark_point(color=BLUE, size=110, filled=True, opacity=1).encode(y=y, x=alt.X("stars:Q", scale=domain), tooltip=tips),
    ).properties(height=alt.Step(23))


def bias_scatter(films: pd.DataFrame, scale: tuple[float, float], *, height: int = 460) -> alt.LayerChart:
    """All films: plain average against popularity score, the larger the more ratings; on the diagonal they are the same.

    ``films`` has title, mean_rating, stars, n_ratings, and label: what is written beside a highlighted film, empty for the others.
    """
    import altair as alt

    domain = alt.Scale(domain=list(scale), nice=False)
    x = alt.X("mean_rating:Q", scale=domain, title="Plain average, stars")
    y = alt.Y("stars:Q", scale=domain, title="Popularity score, stars")
    size = alt.Size("n_ratings:Q", title="Ratings", scale=alt.Scale(type="sqrt", range=[8, 420]), legend=alt.Legend(orient="bottom"))
    points = alt.Chart(films)
    marked = points.transform_filter("datum.label != ''")
    ends = alt.Chart(pd.DataFrame({"mean_rating": scale, "stars": scale}))
    return alt.layer(
        ends.mark_line(color=GREY, strokeDash=[5, 4]).encode(x=x, y=y),
        points.mark_circle(color=BLUE, opacity=0.45, clip=True).encode(x=x, y=y, size=size, tooltip=_film_tips()),
        marked.mark_circle(color=ORANGE, opacity=1, stroke="white", strokeWidth=1).encode(x=x, y=y, size=size, tooltip=_film_tips()),
        marked.mark_text(color=ORANGE, align="left", dx=10, fontSize=13, fontWeight="bold").encode(x=x, y=y, text="label:N"),
    ).properties(height=height)


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
    """Average miss by round for several models: ``points`` has model, epoch, stars, label (the model's name at its last round)."""
    import altair as alt

    base = alt.Chart(points)
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
        base.mark_text(align="left", dx=8, fontSize=13).encode(x=x, y=y, color=colour, text="label:N"),
    ).properties(height=height, padding={"right": 120})


def prediction_steps(parts: pd.DataFrame, *, height: int = 210) -> alt.LayerChart:
    """How a guess adds up: ``parts`` has part, start, end (stars) and label, from the first to the total."""
    import altair as alt

    base = alt.Chart(parts)
    y = alt.Y("part:N", sort=None, title=None, axis=alt.Axis(labelLimit=220, ticks=False, domain=False))
    kinds = alt.Scale(domain=["base", "up", "down", "total"], range=[GREY, BLUE, ORANGE, GREEN])
    return alt.layer(
        base.mark_bar(height=22, cornerRadius=4).encode(
            y=y,
            x=alt.X("start:Q", title="Stars", scale=alt.Scale(zero=True)),
            x2="end:Q",
            color=alt.Color("kind:N", scale=kinds, legend=None),
        ),
        base.mark_text(align="left", dx=6, fontSize=13, color=GREY).encode(y=y, x="right:Q", text="label:N"),
    ).properties(height=height, padding={"right": 40})


def factor_heatmap(cells: pd.DataFrame, *, height: int = 220) -> alt.Chart:
    """Numbers learned, one row a film: ``cells`` has film, number (1, 2, …) and value."""
    import altair as alt

    largest = float(cells["value"].abs().max()) or 1.0
    colour = alt.Scale(domain=[-largest, 0, largest], range=list(DIVERGING))
    return (
        alt.Chart(cells)
        .mark_rect()
        .encode(
            x=alt.X("number:O", title="Taste number", axis=alt.Axis(labelAngle=0)),
            y=alt.Y("film:N", sort=None, title=None, axis=alt.Axis(labelLimit=200)),
            color=alt.Color("value:Q", scale=colour, title="Value"),
            tooltip=["film:N", "number:O", alt.Tooltip("value:Q", format="+.2f")],
        )
        .properties(height=height)
    )
