"""Similar films: type a title, see the films that please the same people, and wander on."""

from typing import Any

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from app_pages._bridge import to_top

N_RESULTS, N_TRAIL = 6, 5
TRAIL = "_trail"  # films seen before the present one, the latest last


def go_to(movie_id: object) -> None:
    """Show a film; the one before it joins the trail."""
    present = st.session_state.get("_present")
    trail: list[object] = st.session_state.setdefault(TRAIL, [])
    if present is not None and present != movie_id:
        trail.append(present)
        del trail[:-N_TRAIL]
    st.session_state["search"] = ""
    state.pick_film(movie_id)


def go_back(n_steps: int) -> None:
    """Go back along the trail."""
    trail: list[object] = st.session_state[TRAIL]
    movie_id = trail[-n_steps]
    del trail[-n_steps:]
    state.pick_film(movie_id)


def search(trained: cfrec.TrainedModel) -> None:
    text = st.text_input(
        "Search for a film",
        type="search",
        live="300ms",
        placeholder="A title, or part of it: typos, missing articles and accents do no harm",
        key="search",
        icon=":material/search:",
    )
    if not text:
        return
    found = cfrec.search_movies(trained, text, k=N_RESULTS)
    if found.empty:
        st.caption("No title resembles that. Try one distinctive word of it; these are films that many people rated:")
        show.suggest_films(trained, go_to)
        return
    st.caption("Best match first" if found["score"].iloc[0] > show.SURE else "Did you mean …")
    show.film_buttons(dict(zip(found["movie_id"].tolist(), found["title"], strict=True)), "found", go_to)


def show_trail(trained: cfrec.TrainedModel) -> None:
    known = dict(zip(trained.movies["movie_id"].tolist(), trained.movies["title"], strict=True))
    trail = [movie_id for movie_id in st.session_state.get(TRAIL, []) if movie_id in known]
    st.session_state[TRAIL] = trail
    if trail:
        with st.container(horizontal=True, gap="small", vertical_alignment="center"):
            st.caption("Back to", width="content")
            for n_steps in range(len(trail), 0, -1):
                movie_id = trail[-n_steps]
                st.button(
                    show.plain(known[movie_id]),
                    on_click=go_back,
                    args=[n_steps],
                    type="tertiary",
                    icon=":material/arrow_back:",
                    key=f"back-{n_steps}",
                )


def why(trained: cfrec.TrainedModel, movie_id: object, other: object, common: Any) -> str:
    """Genres that two films share, and how many people rated both, where that is known."""
    rows = [trained.movie_row(movie_id), trained.movie_row(other)]
    ours, theirs = (trained.movies["genres"].iloc[row].split("|") for row in rows)
    shared = [genre for genre in ours if genre and genre in theirs]
    parts = [f"shared genres: {show.plain(', '.join(shared))}" if shared else "no genre in common"]
    if common is not None:
        parts.append(f"{words.plural(int(common[rows[1]]), 'person')} rated both".replace("persons", "people"))
    return " · ".join(parts)


def show_neighbours(trained: cfrec.TrainedModel, movie_id: object, neighbours: Any) -> None:
    ratings = state.ratings_of(trained)
    common = ratings.common_raters(trained.movie_row(movie_id)) if ratings is not None else None
    for row in neighbours.itertuples():
        with st.container(border=True):
            film, bar, go_on = st.columns([5, 3, 2], vertical_alignment="center")
            with film:
                with st.container(horizontal=True, gap="small", vertical_alignment="center"):
                    st.markdown(f"**{show.plain(row.title)}**", width="content")
                    show.weak_evidence(row.n_ratings)
                st.caption(f"{words.plural(row.n_ratings, 'rating')} · {why(trained, movie_id, row.movie_id, common)}")
            bar.progress(max(float(row.similarity), 0.0), f"{row.similarity:.0%} alike")
            go_on.button("Show similar", on_click=go_to, args=[row.movie_id], key=f"go-{row.movie_id}", width="stretch")


def show_film(trained: cfrec.TrainedModel, movie_id: object) -> None:
    show.film_card(trained, movie_id)
    st.header("Films that please the same people", anchor=False, help=words.SIMILARITY.help)
    chosen = show.filters(trained)
    k = st.slider("How many", 5, 50, 10, 5, key="k", bind="query-params", width=260)
    neighbours = cfrec.similar_movies(trained, movie_id, k, **chosen)
    if neighbours.empty:
        nothing = not trained.movie_factors[trained.movie_row(movie_id)].any()
        st.info(
            "Nothing was learned of this film: it has no ratings to learn from." if nothing else "No film passes these filters: loosen one."
        )
        return
    show_neighbours(trained, movie_id, neighbours)
    st.page_link("app_pages/map.py", label="See it on the map", icon=":material/scatter_plot:")
    show.as_table(neighbours, "similar-films")


st.title("Similar films", anchor=False)
st.markdown(
    "Which films please the same people? The network found out from who rated what, and how; it never saw a genre, a plot or an actor."
)
model = state.model_in_use()
search(model)
film = state.film_picked(model)
st.session_state["_present"] = film
to_top("top", film)
show_trail(model)
if film is not None:
    show_film(model, film)
else:
    st.caption(f"{words.NO_SUCH_FILM} Begin with another:" if state.in_url("film") else "Or begin with one of these:")
    show.suggest_films(model, go_to)
