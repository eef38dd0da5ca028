"""How a model works, in pictures: a table of ratings, what was learned of films, and how a guess adds up. Altair, from DataFrames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from cfrec.plots import BLUE, GREEN, GREY, ORANGE

if TYPE_CHECKING:
    import altair as alt

_FEW_TO_MANY = ("#e8f3f8", "#a8d2e4", "#5ea8ca", "#1c628a", "#0a3653")  # as the theme's sequential colours
_INK, _PAPER, _INK_UNTIL = "#121722", "#FFFFFF", 0.62  # what is written on them: dark up to this share of the scale
_ROW, _AXIS = 32, 50  # pixels a row, and for an axis with its title
_N_PARTS = 4  # of a guess
_TITLES = 150  # pixels for the titles of films: a phone must have room for the rest


def ratings_grid(cells: pd.DataFrame, scale: tuple[float, float], *, decimals: bool, ink: str = GREY) -> alt.LayerChart:
    """Stars by film (down) and person (across); a question mark where there are none.

    Parameters
    ----------
    cells : DataFrame
        film, person, stars (NaN: none), in the order to be shown.
    scale : (lowest, highest)
        In stars.
    decimals : bool
        Whether the stars are written with a decimal.
    ink : str
        Colour of text on the page.
    """
    import altair as alt

    low, high = scale
    cells = cells.assign(share=(cells["stars"] - low) / ((high - low) or 1))
    base = alt.Chart(cells)
    x = alt.X("person:N", sort=None, title="Person", axis=alt.Axis(labelAngle=0, orient="top", ticks=False, domain=False))
    y = alt.Y("film:N", sort=None, title=None, axis=alt.Axis(labelLimit=_TITLES, ticks=False, domain=False))
    tips = [
        alt.Tooltip("film:N"),
        alt.Tooltip("person:N"),
        alt.Tooltip("stars:Q", format=".1f"),
    ]
    colour = alt.Color("share:Q", scale=alt.Scale(domain=[0, 0.25, 0.5, 0.75, 1], range=list(_FEW_TO_MANY)), legend=None)
    on_it = alt.condition(f"datum.share > {_INK_UNTIL}", alt.value(_PAPER), alt.value(_INK))
    given, gaps = base.transform_filter("isValid(datum.stars)"), base.transform_filter("!isValid(datum.stars)")
    text = {"fontSize": 14, "fontWeight": "bold"}
    return alt.layer(
        given.mark_rect(stroke=GREY, strokeWidth=0.5, cornerRadius=3).encode(x=x, y=y, color=colour, tooltip=tips),
        gaps.mark_rect(fill="transparent", stroke=GREY, strokeWidth=0.5, strokeDash=[2, 3], cornerRadius=3).encode(x=x, y=y),
        given.mark_text(**text).encode(x=x, y=y, text=alt.Text("stars:Q", format=".1f" if decimals else "~g"), color=on_it),
        gaps.mark_text(color=ink, **text).encode(x=x, y=y, text=alt.value("?")),
    ).properties(height=_ROW * cells["film"].nunique() + _AXIS)


def factor_heatmap(cells: pd.DataFrame, scores: pd.DataFrame, *, ink: str = GREY) -> alt.LayerChart:
    """Numbers learned, one row a film: blue above zero, orange below, the stronger the farther; and its popularity score beside them.

    Parameters
    ----------
    cells : DataFrame
        film, number (1, 2, …), value.
    scores : DataFrame
        film, stars.
    ink : str
        Colour of text on the page.
    """
    import altair as alt

    largest = float(cells["value"].abs().max()) or 1.0
    strength = (cells["value"].abs() / largest).round(3)
    sign = cells["value"].map(lambda value: "+" if value > 0 else "−").where(strength > 0.15, "")
    x = alt.X("number:O", title="Number", axis=alt.Axis(labelAngle=0, orient="top", ticks=False, domain=False))
    y = alt.Y("film:N", sort=None, title=None, axis=alt.Axis(labelLimit=_TITLES, ticks=False, domain=False))
    base = alt.Chart(cells.assign(strength=strength, sign=sign))
    beside = alt.Chart(scores)
    text = {"fontSize": 13, "fontWeight": "bold"}
    head = alt.Chart(pd.DataFrame({"label": ["score,\nstars"]})).mark_text(
        align="left", dx=10, dy=-24, color=ink, fontSize=12, lineBreak="\n"
    )
    return alt.layer(
        base.mark_rect(stroke=GREY, strokeWidth=0.5, cornerRadius=3).encode(
            x=x,
            y=y,
            fill=alt.condition("datum.value > 0", alt.value(BLUE), alt.value(ORANGE)),
            fillOpacity=alt.FillOpacity("strength:Q", scale=alt.Scale(domain=[0, 1], range=[0, 1]), legend=None),
            tooltip=["film:N", alt.Tooltip("number:O", title="number"), alt.Tooltip("value:Q", format="+.2f")],
        ),
        base.mark_text(fontSize=13).encode(
            x=x, y=y, text="sign:N", color=alt.condition("datum.strength > 0.8", alt.value(_PAPER), alt.value(ink))
        ),
        beside.mark_text(align="left", dx=10, color=ink, **text).encode(x=alt.value("width"), y=y, text=alt.Text("stars:Q", format=".2f")),
        head.encode(x=alt.value("width"), y=alt.value(0), text="label:N"),
    ).properties(height=_ROW * len(scores) + _AXIS, padding={"right": 50})


def prediction_steps(parts: pd.DataFrame, scale: tuple[float, float], *, ink: str = GREY) -> alt.LayerChart:
    """How a guess adds up, one step below the other.

    Parameters
    ----------
    parts : DataFrame
        part, stars, start, end, as ``explain_prediction`` gives: four parts, their sum, and perhaps what was really given.
    scale : (lowest, highest)
        Of the guesses, in stars.
    ink : str
        Colour of text on the page.
    """
    import altair as alt

    kinds = ["base", *("up" if stars >= 0 else "down" for stars in parts["stars"][1:_N_PARTS]), "total", "real"][: len(parts)]
    labels = [
        f"{stars:+.2f}".replace("-", "−") if kind in ("up", "down") else f"{stars:.2f}"
        for kind, stars in zip(kinds, parts["stars"], strict=True)
    ]
    steps = parts.assign(kind=kinds, label=labels, right=parts[["start", "end"]].max(axis=1), below=parts["part"].shift(-1))
    base = alt.Chart(steps)
    y = alt.Y("part:N", sort=None, title=None, axis=alt.Axis(labelLimit=_TITLES, ticks=False, domain=False))
    x = alt.Scale(domain=[min(0.0, scale[0]), max(scale[1], 0.0)], nice=False)
    colour = alt.Color(
        "kind:N",
        scale=alt.Scale(domain=["base", "up", "down", "total", "real"], range=[GREY, BLUE, ORANGE, GREEN, GREY]),
        legend=None,
    )
    return alt.layer(
        alt.Chart(steps[:_N_PARTS]).mark_rule(color=GREY, strokeDash=[2, 2]).encode(y=y, y2="below:N", x=alt.X("end:Q", scale=x)),
        base.mark_bar(height=22, cornerRadius=4).encode(
            y=y,
            x=alt.X("start:Q", title="Stars", scale=x, axis=alt.Axis(tickCount=6)),
            x2="end:Q",
            color=colour,
            tooltip=[alt.Tooltip("part:N", title="part"), alt.Tooltip("label:N", title="stars")],
        ),
        base.mark_text(align="left", dx=6, fontSize=14, fontWeight="bold", color=ink).encode(
            y=y, x=alt.X("right:Q", scale=x), text="label:N"
        ),
    ).properties(height=38 * len(parts) + _AXIS, padding={"right": 50})
