"""Plotly figures from DataFrames; knows no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_BIAS_SCALE = "RdBu"  # diverging; readable in both themes and for colour-blind people


def factor_map(places: pd.DataFrame, bias: pd.Series[float], *, n_labels: int = 12) -> Figure:
    """A 3D scatter of movies: place by factors, colour by bias.

    Parameters
    ----------
    places : DataFrame
        title, x, y, z, as ``project_factors`` gives, with ``.attrs["explained_variance_ratio"]``; most rated first.
    bias : Series (n_movies,)
        One number a movie, in the order of ``places``.
    n_labels : int
        Titles written beside the first so many points; all show on hover.
    """
    from plotly import graph_objects as go

    shares = places.attrs["explained_variance_ratio"]
    largest = float(bias.abs().max()) or 1.0
    labels = [title if row < n_labels else "" for row, title in enumerate(places["title"])]
    points = go.Scatter3d(
        x=places["x"],
        y=places["y"],
        z=places["z"],
        mode="markers+text",
        text=labels,
        textfont={"size": 11},
        hovertext=places["title"],
        hoverinfo="text",
        marker={
            "size": 4,
            "color": bias,
            "colorscale": _BIAS_SCALE,
            "cmin": -largest,
            "cmax": largest,
            "colorbar": {"title": "popularity score<br>(bias)", "len": 0.6},
        },
    )
    axes = {f"{name}axis": {"title": f"{name} ({share:.0%} of variation)"} for name, share in zip("xyz", shares, strict=False)}
    return go.Figure(points, layout={"scene": axes, "margin": {"l": 0, "r": 0, "t": 0, "b": 0}})
