"""All films as dots, plain average against popularity score: a search among them, a click, and what is known of the film picked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import streamlit as st
from streamlit.dataframe_util import convert_pandas_df_to_arrow_bytes

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from cfrec.shrinkage import bias_scatter

if TYPE_CHECKING:
    import pandas

COLUMNS = ["title", "year", "genres", "n_ratings", "mean_rating", "stars", "bias"]
MOST_DRAWN = 3000  # dots
SURE = 0.25  # the score of a search from which a title may be what was meant


def matches(trained: cfrec.TrainedModel, text: str) -> pandas.DataFrame:
    """Films that a text may mean, best first; empty where none is much like it."""
    found = cfrec.search_movies(trained, text, k=5)
    return found[found["score"] >= max(SURE, 0.6 * found["score"].max())] if len(found) else found


def pick_found(trained: cfrec.TrainedModel) -> None:
    found = matches(trained, st.session_state["find"])
    if len(found):
        state.pick_film(found["movie_id"].tolist()[0])


def pick_clicked() -> None:
    clicked = st.session_state["chart-all-films"]["selection"].get("picked")
    if clicked:
        state.pick_film(clicked[0]["movie_id"])


def search_box(trained: cfrec.TrainedModel, films: pandas.DataFrame, chosen: dict[str, Any]) -> list[object]:
    """Find films in the picture; returns the ids of those found, and says what became of each that is not plain to see."""
    text = st.text_input(
        "Find a film in the picture",
        type="search",
        live="300ms",
        placeholder="Part of a title, typos welcome",
        key="find",
        persist_state="session",  # not in the address: a fragment that writes to it as one types would set back what is typed
        on_change=pick_found,
        args=[trained],
    )
    if not (text or "").strip():
        st.caption("Or click a dot to see which film it is.")
        return []
    found = matches(trained, text)
    if found.empty:
        nearest = [show.plain(title) for title in cfrec.search_movies(trained, text, k=3)["title"]]
        hint = f"The nearest: {', '.join(nearest)}." if nearest else "Try a single distinctive word of its title."
        st.markdown(f"No title is much like “{show.plain(text)}”. {hint}")
        return []
    said = []
    for movie_id, title in zip(found["movie_id"].tolist(), found["title"], strict=True):
        why = absence(films, movie_id, chosen["min_ratings"])
        said.append(show.plain(title) + (f" ({why})" if why else ""))
    st.markdown(f"Found: {', '.join(said)}.")
    return found["movie_id"].tolist()


def absence(films: pandas.DataFrame, movie_id: object, least: int) -> str:
    """Why a film cannot be seen among the dots, or is hollow; empty where it is plain to see."""
    film = films[films["movie_id"] == movie_id]
    if film.empty:
        return "not in the picture: another genre or decade than you chose"
    if not film["shown"].iloc[0]:
        return f"hollow: {words.plural(film['n_ratings'].iloc[0], 'rating')}, fewer than the {least} you ask for"
    return ""


@st.fragment
def show_all(trained: cfrec.TrainedModel, films: pandas.DataFrame, chosen: dict[str, Any]) -> None:
    """All films as dots, a search among them, and what is known of the one picked."""
    st.header("All films: average against score", anchor=False)
    left, right = st.columns([5, 7], gap="large")
    with left:
        found = search_box(trained, films, chosen)
        picked = state.film_picked(trained)
        card = found[0] if picked is None and found else picked
        card = films["movie_id"].tolist()[0] if card is None else card
        show.film_card(trained, card)
        if card not in found and (why := absence(films, card, chosen["min_ratings"])):
            st.caption(f"This film is {why}.")
        st.page_link("app_pages/similar.py", label="Films like this one", icon=":material/search:", query_params={"film": str(card)})
    with right:
        drawing, alt = drawing_of(trained, (*found, card), tuple(chosen.items()), show.ink(), films)
        show.chart(drawing, films[COLUMNS], "all-films", alt=alt, on_select=pick_clicked)
        explain_picture(films)


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=state.BY_VERSION)
def drawing_of(
    trained: cfrec.TrainedModel,
    labelled: tuple[object, ...],
    chosen: tuple[tuple[str, Any], ...],  # noqa: ARG001  # the cache's key
    ink: str,
    _films: pandas.DataFrame,
) -> tuple[dict[str, Any], str]:
    """The picture, ready to be sent, and what it shows in words: made once for all who choose the same."""
    marked = _films["movie_id"].isin(labelled)
    drawn = _films.assign(label=_films["title"].where(marked, ""))
    if len(_films) > MOST_DRAWN:
        drawn = drawn[drawn.index.isin(drawn.sample(MOST_DRAWN, random_state=0).index) | marked]
    drawing = bias_scatter(drawn, trained.scale[:2], ink=ink)
    tables = {name: convert_pandas_df_to_arrow_bytes(table) for name, table in drawing["datasets"].items()}
    return drawing | {"datasets": tables}, scatter_alt(_films)


def explain_picture(films: pandas.DataFrame) -> None:
    unknown = films[films["bias"] == 0]
    sentences = [
        "A dot is a film, larger the more ratings it has; hollow and grey: fewer than you ask for.",
        "On the dashed line popularity score and plain average are the same.",
        "Films with few ratings lie far from it: the network holds them near the middle.",
    ]
    if len(unknown):
        level = words.stars(unknown["stars"].iloc[0])
        sentences.append(f"In the level row at {level}: {words.plural(len(unknown), 'film')} nothing was learned of.")
    if len(films) > MOST_DRAWN:
        sentences.append(f"About {MOST_DRAWN:,} of {len(films):,} films are drawn.")
    st.caption(" ".join(sentences))


def scatter_alt(films: pandas.DataFrame) -> str:
    gap = (films["mean_rating"] - films["stars"]).abs()
    few = films["n_ratings"] < words.WEAK_BELOW
    parts = [f"Scatter plot of {words.plural(len(films), 'film')}: plain average against popularity score, in stars."]
    if few.any():
        parts.append(f"Films with fewer than {words.WEAK_BELOW} ratings lie {gap[few].mean():.2f} stars off the diagonal on average,")
    if (~few).any():
        parts.append(f"those with more {gap[~few].mean():.2f}.")
    return " ".join(parts)
