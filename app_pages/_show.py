"""How pages show things: tables with a download, charts with their table, film cards, filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from typing import TYPE_CHECKING, Any, Literal

import streamlit as st

import cfrec
from app_pages import _words as words
from app_pages._words import plain
from cfrec.export import spreadsheet_safe
from cfrec.plots import in_ink

if TYPE_CHECKING:
    import altair
    import pandas

COLUMNS = {  # how a column of cfrec's tables is called and written
    "title": st.column_config.TextColumn("Film", width="medium"),
    "year": st.column_config.NumberColumn("Year", format="%d", width="small"),
    "genres": st.column_config.TextColumn("Genres", help=words.GENRE.help),
    "n_ratings": st.column_config.NumberColumn("Ratings", help=words.N_RATINGS.help, format="localized", width="small"),
    "mean_rating": st.column_config.NumberColumn("Plain average, stars", help=words.PLAIN_AVERAGE.help, format="%.2f"),
    "stars": st.column_config.NumberColumn("Popularity score, stars", help=words.POPULARITY.help, format="%.2f"),
    "bias": st.column_config.NumberColumn("Bias", help=words.BIAS.help, format="%.3f"),
    "gap": st.column_config.NumberColumn(f"{words.GAP.label}, stars", help=words.GAP.help, format="%+.2f"),
    "similarity": st.column_config.ProgressColumn(
        words.SIMILARITY.label, help=words.SIMILARITY.help, format="percent", min_value=0, max_value=1
    ),
    "movie_id": st.column_config.TextColumn("Film id", width="small"),
    "user_id": st.column_config.TextColumn("Person", width="small"),
    "rating": st.column_config.NumberColumn("Stars", format="%.1f", width="small"),
    "actual": st.column_config.NumberColumn("Real stars", format="%.1f", width="small"),
    "predicted": st.column_config.NumberColumn("Guess, stars", format="%.2f", width="small"),
    "miss": st.column_config.NumberColumn("Miss, stars", format="%+.2f", width="small"),
}
_N_SUGGESTED = 6
SURE = 0.5  # the score of a search above which the best match is taken for what was meant


def table(
    data: pandas.DataFrame | Sequence[Mapping[str, object]],
    name: str,
    *,
    alt: str,
    columns: Mapping[str, Any] | None = None,
    height: int | str = "auto",
    key: str | None = None,
    on_select: Callable[[], None] | Literal["ignore"] = "ignore",
) -> None:
    """A table, and a button to take it away as CSV. ``name`` names the file, and must be its own on the page.

    ``on_select`` is called when a row is clicked, and finds its number in ``st.session_state[key]["selection"]["rows"]``.
    """
    there = data[0] if isinstance(data, Sequence) else data.columns
    st.dataframe(
        data if isinstance(data, Sequence) else data.round({"similarity": 2}),  # whole percents, as elsewhere
        hide_index=True,
        column_config={column: how for column, how in (COLUMNS | dict(columns or {})).items() if column in there},
        alt=alt,
        height=height,
        key=key,
        on_select=on_select,
        selection_mode="single-row",
        placeholder="–",
    )
    _download(data, name)


def text_table(data: Sequence[Mapping[str, str]], name: str, *, alt: str, height: int | Literal["content"] = "content") -> None:
    """A table of sentences, each shown whole, its first column bold; and a button to take it away as CSV."""
    shown = [{name: plain(text) if k else f"**{plain(text)}**" for k, (name, text) in enumerate(row.items())} for row in data]
    st.table(shown, border="horizontal", alt=alt, height=height, hide_index=True)
    _download(data, name)


def _download(data: pandas.DataFrame | Sequence[Mapping[str, object]], name: str) -> None:
    st.download_button(
        "Download as CSV",
        lambda: spreadsheet_safe(data).to_csv(index=False).encode(),
        file_name=f"{name}.csv",
        mime="text/csv",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
        key=f"csv-{name}",
    )


def as_table(data: pandas.DataFrame | Callable[[], pandas.DataFrame], name: str, *, columns: Mapping[str, Any] | None = None) -> None:
    """What a chart shows, as a table that is made and sent once it is opened."""
    with st.expander("Show as table", type="compact", key=f"table-{name}", on_change="rerun") as expander:
        if expander.open:
            numbers = data() if callable(data) else data
            table(numbers, name, alt=f"The numbers of the chart above: {name}", columns=columns)


def chart(
    drawing: altair.TopLevelMixin | dict[str, Any],
    data: pandas.DataFrame,
    name: str,
    *,
    alt: str,
    columns: Mapping[str, Any] | None = None,
    on_select: Callable[[], None] | Literal["ignore"] = "ignore",
) -> None:
    """A chart, what it shows in words for those who cannot see it, and its table. A Vega-Lite drawing (a dict) draws ``data``,
    or what it has under ``datasets``.

    ``on_select`` is called when a mark is clicked, and finds it in ``st.session_state[f"chart-{name}"]["selection"]``.
    """
    if isinstance(drawing, dict):
        spec = {part: content if part == "datasets" else deepcopy(content) for part, content in drawing.items()} | {"config": in_ink(ink())}
        st.vega_lite_chart(
            None if "datasets" in spec else data, spec, height=_height(drawing), alt=alt, key=f"chart-{name}", on_select=on_select
        )
    else:
        st.altair_chart(drawing.configure(**in_ink(ink())), height=_height(drawing), alt=alt, key=f"chart-{name}", on_select=on_select)
    as_table(data, name, columns=columns)


def _height(drawing: altair.TopLevelMixin | dict[str, Any]) -> Any:
    """A chart's own height in pixels, so that its place is kept until it is drawn."""
    height = drawing.get("height") if isinstance(drawing, dict) else getattr(drawing, "height", None)
    return height if isinstance(height, int) else "content"


def drawn_once(
    draw: Callable[[], altair.TopLevelMixin | tuple[dict[str, Any], pandas.DataFrame]],
    data: pandas.DataFrame | Callable[[], pandas.DataFrame],
    name: str,
    *,
    version: str,
    alt: str,
    columns: Mapping[str, Any] | None = None,
) -> None:
    """Like ``chart``, but drawn once for all visitors as long as name, version, ``alt`` and theme are the same: a drawing takes 0.1 s.

    ``draw`` gives an Altair chart, or a Vega-Lite drawing and what it draws.
    """
    _kept_drawing(name, version, alt, st.context.theme.type, draw)
    as_table(data, name, columns=columns)


@st.cache_data(max_entries=100, show_spinner=False)
def _kept_drawing(name: str, version: str, alt: str, theme: str | None, _draw: Callable[[], Any]) -> None:  # noqa: ARG001
    drawing = _draw()
    if isinstance(drawing, tuple):
        st.vega_lite_chart(
            drawing[1], deepcopy(drawing[0]) | {"config": in_ink(ink())}, height=_height(drawing[0]), alt=alt, key=f"chart-{name}"
        )
    else:
        st.altair_chart(drawing.configure(**in_ink(ink())), height=_height(drawing), alt=alt, key=f"chart-{name}")


def film_buttons(titles: Mapping[object, str], prefix: str, pick: Callable[[object], None]) -> None:
    """A button for each film."""
    with st.container(horizontal=True, gap="small"):
        for movie_id, title in titles.items():
            st.button(plain(title), on_click=pick, args=[movie_id], key=f"{prefix}-{movie_id}")


def suggest_films(trained: cfrec.TrainedModel, pick: Callable[[object], None]) -> None:
    """Buttons for films that many people rated."""
    popular = trained.movies.nlargest(_N_SUGGESTED, "n_ratings")
    film_buttons(dict(zip(popular["movie_id"].tolist(), popular["title"], strict=True)), "suggested", pick)


def film_card(trained: cfrec.TrainedModel, movie_id: object) -> None:
    """What is known of a film, and what was learned of it."""
    row = trained.movie_row(movie_id)
    film = trained.movies.iloc[row]
    learned = trained.to_stars(trained.offset + trained.user_bias.mean() + trained.movie_bias[row : row + 1])[0]
    with st.container(border=True):
        with st.container(horizontal=True, vertical_alignment="center", gap="small"):
            st.header(plain(film["title"]), anchor=False, width="content")
            weak_evidence(film["n_ratings"])
        st.caption(plain(film["genres"].replace("|", " · ")) or "no genre given")
        with st.container(horizontal=True, gap="medium"):
            figures = [
                (words.POPULARITY, words.stars(learned)),
                (words.PLAIN_AVERAGE, words.stars(film["mean_rating"])),
                (words.N_RATINGS, f"{film['n_ratings']:,}"),
            ]
            for word, value in figures:
                st.metric(word.label, value, help=word.help, width="content")


def weak_evidence(n_ratings: int) -> None:
    """A badge, where too few people rated a film."""
    if n_ratings < words.WEAK_BELOW:
        st.badge(words.WEAK_EVIDENCE.label, color="orange", icon=":material/warning:", help=words.WEAK_EVIDENCE.help)


def ink() -> str:
    """The colour of text in charts: a chart does not know whether it is drawn on light or on dark."""
    return theme("textColor")


def theme(colour: str) -> str:
    """A colour of the theme this visitor sees, by its name in the configuration."""
    return str(st.get_option(f"theme.{st.context.theme.type or 'light'}.{colour}"))


@st.cache_data(max_entries=8, show_spinner=False)
def genres_of(_trained: cfrec.TrainedModel, version: str) -> list[str]:  # noqa: ARG001  # the cache's key
    """Genres of a model's films, by name."""
    return sorted({genre for genres in _trained.movies["genres"] for genre in genres.split("|") if genre})


def most_asked(trained: cfrec.TrainedModel) -> int:
    """Upper end of the slider for minimum ratings: few films have more."""
    return max(int(trained.movies["n_ratings"].quantile(0.98)) // 10 * 10, 20)


def filters(trained: cfrec.TrainedModel, *, min_ratings: int = words.WEAK_BELOW) -> dict[str, Any]:
    """Widgets for minimum ratings, genre and decade; returns arguments for ``movie_biases`` and ``similar_movies``."""
    years = trained.movies["year"].dropna()
    decades = sorted({int(year) // 10 * 10 for year in years}, reverse=True)
    most = most_asked(trained)
    if st.session_state.get("min_ratings", 0) > most:  # chosen for a model with more ratings
        st.session_state["min_ratings"] = min(min_ratings, most)
    columns = st.columns([2, 1, 1], vertical_alignment="bottom")
    least = columns[0].slider(
        words.MIN_RATINGS.label, 0, most, min(min_ratings, most), help=words.MIN_RATINGS.help, key="min_ratings", bind="query-params"
    )
    genre = columns[1].selectbox(
        words.GENRE.label,
        genres_of(trained, trained.version),
        index=None,
        placeholder="All",
        help=words.GENRE.help,
        key="genre",
        bind="query-params",
    )
    decade = columns[2].selectbox(
        words.DECADE.label,
        [f"{decade}s" for decade in decades],
        index=None,
        placeholder="All",
        help=words.DECADE.help,
        key="decade",
        bind="query-params",
    )
    first = int(decade[:4]) if decade else None
    return {"min_ratings": least, "genre": genre, "years": None if first is None else (first, first + 9)}
