"""The map of movies as a Plotly figure; knows no model.

Colours are readable on a light and on a dark background, and never the only sign: genres differ in their marks too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.labels import FLAT, SPACE, apart, seen_from
from cfrec.plots import BLUE, GOLD, GREEN, GREY, ORANGE, PURPLE, SKY, VIOLET

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

OTHER = "other"
GENRE, DECADE, SCORE, POPULARITY = COLOURS = ("genre", "decade", "score", "popularity")
_DIVERGING = [[0, ORANGE], [0.5, GREY], [1, BLUE]]
_RISING = [[0, VIOLET], [0.35, SKY], [0.7, GREEN], [1, GOLD]]
_GENRE_MARKS = tuple(  # gold is for neighbours, grey for what is left; in space Plotly draws these marks alone everywhere
    zip((BLUE, ORANGE, GREEN, PURPLE, SKY, VIOLET), ("circle", "square", "diamond", "cross", "circle-open", "square-open"), strict=True)
)
_PICKED = "#C2185B"
_EYE = {
    "eye": {"x": 1.08, "y": 1.08, "z": 0.72},
    "center": {"x": 0, "y": 0, "z": -0.08},
}  # nearer than Plotly's own, which leaves two thirds of the box empty


@dataclass(frozen=True)
class Look:
    """How a map is drawn.

    Attributes
    ----------
    axes : columns of the places; two for a flat map, three for one in space
    colour : one of COLOURS
    n_labels : titles written beside the first n points
    picked : row of the places, or None; ``neighbours`` are rows that are lit with it
    view : where it is looked at from, as the browser reported it: ``{"camera": …}`` in space, ``{"x": [low, high], "y": …}`` flat
    ink, paper, grid : colours of text, of what it stands on, and of the lines behind the points
    """

    axes: Sequence[str] = ("x", "y", "z")
    colour: str = SCORE
    n_labels: int = 12
    picked: int | None = None
    neighbours: Sequence[int] = ()
    view: Mapping[str, Any] = field(default_factory=dict)
    ink: str = "#121722"
    paper: str = "#FCFBF8"
    grid: str = "#DCD7CA"


def factor_map(places: pd.DataFrame, look: Look) -> Figure:
    """A scatter of movies: place by factors.

    Parameters
    ----------
    places : DataFrame
        title, genre, year, stars, n_ratings and the columns of ``look.axes``, as ``movie_map`` gives, with its
        ``attrs``. Each point's ``customdata`` is its row.
    look : Look

    Raises
    ------
    ValueError
        An unknown colour.
    """
    from plotly import graph_objects as go

    figure = go.Figure([*_points(places, look), *_lit(places, look)])
    margin = {"l": 0, "r": 0, "t": 0, "b": 0}
    legend = {"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0, "itemsizing": "constant"}
    font = {"color": look.ink, "size": 12}
    figure.update_layout(modebar={"orientation": "v"}, legend=legend, font=font, paper_bgcolor=look.paper, plot_bgcolor=look.paper)
    titles = _titles(places, look)
    if len(look.axes) == 3:
        figure.update_layout(scene=_space(places, look, titles), margin=margin)
    else:
        ends = _ends(places, look)
        axes = {
            f"{side}axis": _axis(look) | {"title": {"text": _direction(places, axis)}, "range": ends[side]}
            for side, axis in zip("xy", look.axes, strict=True)
        }
        figure.update_layout(**axes, annotations=titles, margin=margin | {"b": 44, "l": 48}, dragmode="pan")
    return figure


def _axis(look: Look) -> dict[str, Any]:
    return {"showticklabels": False, "showgrid": True, "gridcolor": look.grid, "zeroline": False}


def _direction(places: pd.DataFrame, axis: str) -> str:
    """What is written at an axis: its number, and its share of the variation."""
    names = ["x", "y", "z", *(f"pc{k}" for k in range(4, 20))]
    k = names.index(axis)
    return f"direction {k + 1} ({places.attrs['explained_variance_ratio'][k]:.0%})"


def _space(places: pd.DataFrame, look: Look, titles: list[dict[str, Any]]) -> dict[str, Any]:
    """The scene of a map in space. All its text is SVG: to make triangles of letters takes Plotly a second, and blurs them."""
    ends = _ends(places, look)
    axes = {f"{side}axis": _axis(look) | {"title": {"text": ""}, "range": ends[side], "backgroundcolor": look.paper} for side in "xyz"}
    (left, right), (near, far), (low, high) = ends.values()
    edges = [((left + right) / 2, far, low), (right, (near + far) / 2, low), (right, near, (low + high) / 2)]  # those in front at first
    names = [_text(_direction(places, axis), edge, look) for edge, axis in zip(edges, look.axes, strict=True)]
    names[2]["xanchor"] = "left"  # at the left of the map, where half of it would be cut off
    return axes | {"aspectmode": "cube", "camera": look.view.get("camera", _EYE), "annotations": [*names, *titles]}


def _ends(places: pd.DataFrame, look: Look) -> dict[str, Sequence[float]]:
    """What each side of the map spans."""
    return {side: look.view.get(side) or _padded(places[axis]) for side, axis in zip("xyz", look.axes, strict=False)}


def _padded(values: pd.Series[float]) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _titles(places: pd.DataFrame, look: Look) -> list[dict[str, Any]]:
    """Titles beside their points, each with a line to its own: of those lit, or else of the first."""
    lit = [] if look.picked is None else [look.picked, *look.neighbours]
    rows = lit if lit and look.n_labels < len(places) else list(range(len(places)))[: look.n_labels]
    titles = places["title"].iloc[rows]
    offsets = apart(_on_screen(places, look)[rows], titles.str.len().tolist(), SPACE if len(look.axes) == 3 else FLAT)
    line = {"showarrow": True, "arrowhead": 0, "arrowwidth": 1, "arrowcolor": GREY, "standoff": 4}
    named = zip(titles, places[list(look.axes)].iloc[rows].to_numpy().tolist(), offsets.tolist(), strict=True)
    return [_text(_plain(title), place, look, ax=right, ay=down, **line) for title, place, (right, down) in named]


def _on_screen(places: pd.DataFrame, look: Look) -> npt.NDArray[np.float64]:
    """About where the points are seen: pixels rightwards and downwards from the middle."""
    low, high = np.array(list(_ends(places, look).values()), float).T
    shares = (places[list(look.axes)].to_numpy(float) - (low + high) / 2) / (high - low)
    return seen_from(shares, look.view.get("camera", _EYE)) if len(look.axes) == 3 else shares * FLAT * [1, -1]


def _text(text: str, place: Sequence[float], look: Look, **settings: Any) -> dict[str, Any]:
    on_paper = {"font": {"color": look.ink, "size": 12}, "bgcolor": look.paper, "opacity": 0.85, "borderpad": 1, "showarrow": False}
    return dict(zip("xyz", place, strict=False)) | {"text": text} | on_paper | settings


def _scatter(places: pd.DataFrame, rows: Sequence[int], axes: Sequence[str], **settings: Any) -> Any:
    from plotly import graph_objects as go

    part = places.iloc[list(rows)]
    coordinates = {side: part[axis] for side, axis in zip("xyz", axes, strict=False)}
    kind = go.Scatter3d if len(axes) == 3 else go.Scatter
    return kind(**coordinates, customdata=list(rows), **settings)


def _hover(places: pd.DataFrame, rows: Sequence[int]) -> dict[str, Any]:
    part = places.iloc[list(rows)]
    texts = [
        f"<b>{_plain(title)}</b><br>{stars:.2f} stars · {n:,} ratings<br>{_plain(genres.replace('|', ' · '))}"
        for title, stars, n, genres in zip(part["title"], part["stars"], part["n_ratings"], part["genres"], strict=True)
    ]
    return {"hovertext": texts, "hoverinfo": "text"}


def _plain(text: str) -> str:
    """Without what Plotly would read as markup."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _points(places: pd.DataFrame, look: Look) -> list[Any]:
    rows = range(len(places))
    opacity = 0.85 if look.picked is None else 0.6
    if look.colour == GENRE:
        genres = places.attrs["genres"]  # so that a genre has the same mark whichever of the films are shown
        marks = dict(zip(genres, _GENRE_MARKS, strict=False)) | {OTHER: (GREY, "circle")}
        traces = []
        for genre in (genre for genre in [*genres, OTHER] if (places["genre"] == genre).any()):
            of_genre = np.flatnonzero(places["genre"] == genre).tolist()
            colour, symbol = marks[genre]
            marker = {"size": _size(look), "color": colour, "symbol": symbol, "opacity": opacity}
            common = {"mode": "markers", "name": _plain(genre), "legendgroup": genre, **_hover(places, of_genre)}
            traces.append(_scatter(places, of_genre, look.axes, marker=marker, **common))
            if symbol == "cross" and len(look.axes) == 3:  # so thin that it may fall between pixels, where no pointer would find it
                unseen = {"size": _size(look), "opacity": 0}
                traces.append(_scatter(places, of_genre, look.axes, marker=unseen, showlegend=False, **common))
        return traces
    marker = {"size": _size(look), "opacity": opacity} | _scale(places, look.colour)
    return [_scatter(places, rows, look.axes, mode="markers", showlegend=False, marker=marker, **_hover(places, rows))]


def _size(look: Look) -> int:
    return 4 if len(look.axes) == 3 else 8


def _scale(places: pd.DataFrame, colour: str) -> dict[str, Any]:
    bar = {"thickness": 12, "len": 0.7, "outlinewidth": 0}
    if colour == SCORE:
        middle = float(places["stars"].mean())
        reach = float((places["stars"] - middle).abs().max()) or 1.0
        return {
            "color": places["stars"],
            "colorscale": _DIVERGING,
            "cmin": middle - reach,
            "cmax": middle + reach,
            "colorbar": bar | {"title": {"text": "score,<br>stars"}},
        }
    if colour == DECADE:
        years = places["year"].astype("float")
        return {
            "color": years.fillna(years.median()),
            "colorscale": _RISING,
            "colorbar": bar | {"title": {"text": "year"}, "tickformat": "d"},
        }
    if colour == POPULARITY:
        ticks = [n for n in (1, 3, 10, 30, 100, 300, 1_000, 3_000, 10_000, 30_000, 100_000) if n <= places["n_ratings"].max()]
        named = {"title": {"text": "ratings"}, "tickvals": np.log10(ticks), "ticktext": [f"{n:,}" for n in ticks]}
        return {"color": np.log10(places["n_ratings"].clip(lower=1)), "colorscale": _RISING, "colorbar": bar | named}
    raise ValueError(f"unknown colour {colour!r}")


def _lit(places: pd.DataFrame, look: Look) -> list[Any]:
    """The picked movie, its neighbours, and lines from one to the others."""
    if look.picked is None:
        return []
    spokes = [row for neighbour in look.neighbours for row in (look.picked, neighbour)]
    size = _size(look)
    edge = {"color": "white", "width": 1}
    common: dict[str, Any] = {"mode": "markers", "showlegend": False}
    traces = (
        [_scatter(places, spokes, look.axes, mode="lines", showlegend=False, hoverinfo="skip", line={"color": GOLD, "width": 2})]
        if spokes
        else []
    )
    if look.neighbours:
        marker = {"size": size + 3, "color": GOLD, "line": edge, "opacity": 1}
        traces.append(_scatter(places, look.neighbours, look.axes, marker=marker, **common, **_hover(places, look.neighbours)))
    marker = {"size": 2 * size + 4, "color": _PICKED, "symbol": "diamond", "line": edge, "opacity": 1}
    return [*traces, _scatter(places, [look.picked], look.axes, marker=marker, **common, **_hover(places, [look.picked]))]
