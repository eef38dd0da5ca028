"""How far popularity scores are held back from plain averages: movies sorted by it, and charts of it. DataFrames in; knows no model."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import pandas as pd

from cfrec.plots import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    import altair as alt


def overrated(biases: pd.DataFrame) -> pd.DataFrame:
    """Movies by how far their plain average lies above their popularity score: what kind votes lift, first; what unkind ones sink, last.

    Parameters
    ----------
    biases : DataFrame
        As ``movie_biases`` gives.

    Returns
    -------
    DataFrame
        The same and gap (``mean_rating - stars``), largest first; without movies nothing was learned of (their bias is 0).
    """
    table = biases[biases["bias"] != 0].copy()
    table["gap"] = table["mean_rating"] - table["stars"]
    return table.sort_values("gap", ascending=False, kind="stable").reset_index(drop=True)


def few_votes_example(biases: pd.DataFrame, few: int) -> tuple[pd.Series[Any], pd.Series[Any]] | None:
    """Why an average of few votes is not to be believed: the highest among movies with fewer than ``few``, beside the best of the others.

    Returns
    -------
    (row, row) or None
        Of ``biases``: the first, of several, has more than one rating where possible, and lies farthest above its popularity score.
        None where no movie with few ratings has a higher average than the best with many.
    """
    lucky, many = overrated(biases[biases["n_ratings"] < few]), biases[biases["n_ratings"] >= few]
    lucky = lucky[lucky["n_ratings"] > 1] if (lucky["n_ratings"] > 1).any() else lucky
    if lucky.empty or many.empty:
        return None
    highest = lucky.sort_values("mean_rating", ascending=False, kind="stable").iloc[0]
    best = many.sort_values("stars", ascending=False, kind="stable").iloc[0]
    return (highest, best) if highest["mean_rating"] > best["mean_rating"] else None


def _film_tips() -> list[Any]:
    import altair as alt

    return [
        alt.Tooltip("title:N", title="film"),
        alt.Tooltip("stars:Q", format=".2f", title="popularity score, stars"),
        alt.Tooltip("mean_rating:Q", format=".2f", title="plain average, stars"),
        alt.Tooltip("n_ratings:Q", format=",", title="ratings"),
    ]


def dumbbell_domains(films: Sequence[pd.DataFrame], scale: tuple[float, float]) -> list[tuple[float, float]]:
    """Ends of the axes for ``bias_dumbbells`` side by side: each shows all its films, and a star is as long in one as in another."""
    low = [float(table[["mean_rating", "stars"]].min().min()) - 0.1 for table in films]
    high = [float(table[["mean_rating", "stars"]].max().max()) + 0.1 for table in films]
    span = min(max(h - a for a, h in zip(low, high, strict=True)), scale[1] - scale[0] + 0.2)
    starts = [min(max((a + h - span) / 2, scale[0] - 0.1), scale[1] + 0.1 - span) for a, h in zip(low, high, strict=True)]
    return [(start, start + span) for start in starts]


def bias_dumbbells(films: pd.DataFrame, domain: tuple[float, float], *, ink: str = GREY) -> alt.LayerChart:
    """For each film the plain average (hollow) and the popularity score (filled), joined: how far the score was held back.

    Parameters
    ----------
    films : DataFrame
        title, mean_rating, stars, n_ratings, in the order to be shown.
    domain : (low, high)
        Ends of the axis, in stars.
    ink : str
        Colour of the titles.
    """
    import altair as alt

    counts = films["n_ratings"].map(lambda n: f" · {n:,} rating{'s' * (n != 1)}")
    label = films["title"] + counts
    label += label.groupby(label).cumcount().map(lambda n: "\u200b" * n)  # an unseen mark tells namesakes apart
    base = alt.Chart(films.assign(label=label))
    above = {"labelAlign": "left", "labelPadding": 0, "labelOffset": -17, "labelLimit": alt.expr("width"), "labelFlush": False}
    y = alt.Y("label:N", sort=None, title=None, axis=alt.Axis(labelFontSize=13, labelColor=ink, labelOverlap=False, **above))
    stars = alt.Axis(orient="top", format=".1f", tickCount=6, titlePadding=6)
    score = alt.X("stars:Q", scale=alt.Scale(domain=list(domain), nice=False), title="Stars", axis=stars)
    mean = alt.X("mean_rating:Q", scale=alt.Scale(domain=list(domain), nice=False), title="Stars", axis=stars)
    tips = _film_tips()
    return alt.layer(
        base.mark_rule(color=GREY, strokeWidth=2).encode(y=y, x=mean, x2=alt.X2("stars:Q")),
        base.mark_point(color=BLUE, size=110, filled=True, opacity=1).encode(y=y, x=score, tooltip=tips),
        base.mark_point(color=ORANGE, size=130, filled=False, strokeWidth=2.5, opacity=1).encode(y=y, x=mean, tooltip=tips),
        height=42 * len(films) + 50,
    )


def bias_scatter(films: pd.DataFrame, scale: tuple[float, float], *, ink: str = GREY, height: int = 560) -> dict[str, Any]:
    """All films: plain average against popularity score, the larger the more ratings; on the diagonal they are the same.

    Parameters
    ----------
    films : DataFrame
        movie_id, title, mean_rating, stars, n_ratings; shown (false: a faint, hollow dot, for films with too few ratings);
        label: what is written beside a highlighted film, empty for the others.
    scale : (low, high)
        Of the ratings, in stars.
    ink : str
        Colour of what is written, and round what is highlighted.

    Returns
    -------
    dict
        Vega-Lite, with the tables that it draws under ``datasets``. The rest is made once and shared: read-only.
    """
    ends = scale[0] - 0.1, scale[1] + 0.1
    films = films[["movie_id", "title", "mean_rating", "stars", "n_ratings", "shown", "label"]]
    films = films.sort_values("n_ratings", ascending=False)  # small dots lie on large ones
    marked = films[films["label"] != ""]
    gap = 20 * (ends[1] - ends[0]) / (height - 150)  # between lines of text; axis and legend take some of the height
    high = marked["mean_rating"] > sum(scale) / 2
    tables = {
        "diagonal": pd.DataFrame({"mean_rating": ends, "stars": ends}),
        "few": films[~films["shown"]],
        "enough": films[films["shown"]],
        "marked": marked,
        "left": _beside(marked[high], "left", gap, ends[1]),
        "right": _beside(marked[~high], "right", gap, ends[1]),
    }
    return _scatter_drawing(ends, max(int(films["n_ratings"].max()), 1), ink, height) | {"datasets": tables}


@lru_cache(maxsize=32)
def _scatter_drawing(ends: tuple[float, float], most: int, ink: str, height: int) -> dict[str, Any]:
    """The scatter without its tables: Altair takes 0.1 s to make and check it."""
    import altair as alt

    domain = alt.Scale(domain=list(ends), nice=False)
    x = alt.X("mean_rating:Q", scale=domain, title="Plain average, stars", axis=alt.Axis(format=".1f", tickCount=5))
    y = alt.Y("stars:Q", scale=domain, title="Popularity score, stars", axis=alt.Axis(format=".1f", tickCount=5))
    picked = alt.selection_point(name="picked", fields=["movie_id"], on="click", toggle=False)
    tips = _film_tips()
    diagonal, few, enough, marked = (alt.Chart(alt.NamedData(name)) for name in ("diagonal", "few", "enough", "marked"))
    layers = [
        diagonal.mark_line(color=GREY, strokeDash=[5, 4]).encode(x=x, y=y),
        few.mark_point(color=GREY, opacity=0.7, strokeWidth=1, size=22).encode(x=x, y=y, tooltip=tips),
        enough.mark_circle(color=BLUE, opacity=0.85, stroke="white", strokeWidth=0.5)
        .encode(x=x, y=y, size=_size_by_ratings(most), tooltip=tips)
        .add_params(picked),
        marked.mark_circle(color=ORANGE, opacity=1, stroke=ink, strokeWidth=2, size=160).encode(x=x, y=y, tooltip=tips),
    ]
    for side in ("left", "right"):
        layers += _labels(side, domain, ink)
    spec: dict[str, Any] = alt.layer(*layers, height=height).to_dict()
    return spec


def _labels(side: str, domain: alt.Scale, ink: str) -> list[alt.Chart]:
    """Text on one side of the dots, and lines that lead to it."""
    import altair as alt

    base = alt.Chart(alt.NamedData(side)).encode(x=alt.X("label_x:Q", scale=domain), y=alt.Y("label_y:Q", scale=domain))
    align, dx = ("right", -16) if side == "left" else ("left", 16)
    text = base.mark_text(color=ink, align=align, dx=dx, fontSize=13, fontWeight="bold", limit=alt.expr("width / 2 + 40"))
    line = base.mark_rule(color=ink, opacity=0.5)
    return [line.encode(x2=alt.X2("mean_rating:Q"), y2=alt.Y2("stars:Q")), text.encode(text=alt.Text("label:N"))]


def _size_by_ratings(most: int) -> alt.Size:
    import altair as alt

    steps = [step * 10**power for power in range(1, 8) for step in (1, 5) if step * 10**power <= most][-4:] or [most]
    legend = alt.Legend(orient="bottom", values=steps, format=",d", symbolStrokeWidth=0)
    return alt.Size("n_ratings:Q", title="Ratings", scale=alt.Scale(domain=[0, most], range=[12, 380]), legend=legend)


def _beside(marked: pd.DataFrame, side: str, gap: float, top: float) -> pd.DataFrame:
    """Places for labels (label_x, label_y; stars): beside each dot and its near neighbours, ``gap`` apart, moved up rather than down."""
    marked = marked.sort_values("stars", kind="stable")
    cluster = (marked["stars"].diff().abs() > 2 * gap).cumsum()
    label_x = marked.groupby(cluster)["mean_rating"].transform("min" if side == "left" else "max")
    label_y: list[float] = []
    for place in marked["stars"].tolist():
        label_y.append(max(place, label_y[-1] + gap) if label_y else place)
    for k in range(1, len(label_y) + 1):
        label_y[-k] = min(label_y[-k], top - (k - 0.5) * gap)
    return marked.assign(label_x=label_x, label_y=label_y)
