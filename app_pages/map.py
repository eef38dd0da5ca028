"""The map: every film a point, placed by what the network learned; click one to see its neighbours."""

from dataclasses import replace
from typing import Any

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from app_pages._bridge import listen
from cfrec.explore import axis_ends, kept_on_map, movie_map
from cfrec.export import map_page
from cfrec.maps import COLOURS, GENRE, Look, factor_map

SPACE, FLAT = "3D", "2D"
POPULAR, BEST = "Most rated", "Best by score"
N_BEST = 40  # films in the post's view
N_NEIGHBOURS = 10
N_LABELS = 12  # titles where not all are written
N_COMPONENTS = 5
COLOUR_NAMES = dict(zip(COLOURS, ("Genre", "Year", "Popularity score", "Number of ratings"), strict=True))
AXIS_NAMES = ["x", "y", "z", "pc4", "pc5"]
HEIGHT = 620


@st.cache_resource(max_entries=4, show_spinner="Drawing the map …", hash_funcs=state.BY_VERSION)
def places_of(trained: cfrec.TrainedModel) -> Any:
    return movie_map(trained, N_COMPONENTS, min_ratings=words.WEAK_BELOW)


def choose_films(places: Any) -> Any:
    """Which films are on the map."""
    which = st.segmented_control(
        "Films",
        [POPULAR, BEST],
        default=POPULAR,
        required=True,
        key="films",
        bind="query-params",
        help=f"{BEST}: those with the highest popularity score, each with its title.",
    )
    most = len(places)
    if which == BEST:
        n = (
            st.slider("How many", 10, min(most, 100), min(N_BEST, most), 10, key="n_best", bind="query-params", width=200)
            if most > 10
            else most
        )
        return places.nlargest(n, "stars")
    if most > 60:
        n = st.slider("How many", 50, min(most, 2000), min(400, most), 50, key="n", bind="query-params", width=200)
        return places.head(n)
    return places


def choose_look(n_axes: int, colours: list[str]) -> Look:
    """Colour, dimensions and axes."""
    options = [SPACE, FLAT] if n_axes > 2 else [FLAT]
    dims = st.segmented_control("View", options, default=options[0], required=True, key="view", bind="query-params")
    colour = st.selectbox("Colour by", colours, format_func=COLOUR_NAMES.__getitem__, key="colour", bind="query-params", width=200)
    with st.popover("Directions", icon=":material/3d_rotation:"):
        st.caption("Which directions of the films’ numbers are drawn. The first show most. Technical term: principal components.")
        sides = "xyz" if dims == SPACE else "xy"
        axes = [
            st.selectbox(
                f"Along {side}",
                AXIS_NAMES[:n_axes],
                min(k, n_axes - 1),
                format_func=_direction,
                key=f"along_{side}",
                bind="query-params",
            )
            for k, side in enumerate(sides)
        ]
    return Look(axes=axes, colour=colour, ink=show.ink(), paper=show.theme("backgroundColor"), grid=show.theme("borderColor"))


def _direction(axis: str) -> str:
    return f"direction {AXIS_NAMES.index(axis) + 1}"


def pick_from_click() -> None:
    row = st.session_state["listener"].get("picked")
    shown = st.session_state.get("_map_ids", [])
    if row is not None and row < len(shown):
        state.pick_film(shown[row])


def go_flat() -> None:
    """On a phone the map is flat, until the visitor says otherwise."""
    if not st.session_state.get("_map_was_narrow"):
        st.session_state["_map_was_narrow"] = True
        st.session_state["view"] = FLAT


def search_film(trained: cfrec.TrainedModel) -> None:
    """Pick a film by its title."""
    text = st.text_input("Find a film on the map", type="search", live="300ms", placeholder="A title, or part of it", key="find")
    if not text:
        return
    found = cfrec.search_movies(trained, text, k=4)
    if found.empty:
        st.caption("No title resembles that. Try one distinctive word of it.")
    elif found["score"].iloc[0] <= show.SURE:
        st.caption("Did you mean …")
    for movie_id, title in zip(found["movie_id"].tolist(), found["title"], strict=True):
        st.button(show.plain(title), on_click=found_film, args=[movie_id], key=f"found-{movie_id}", width="stretch")


def found_film(movie_id: object) -> None:
    state.pick_film(movie_id)
    st.session_state["find"] = ""


def view_for(signature: tuple[Any, ...], space: bool) -> dict[str, Any]:
    """Where a figure starts to be looked at from. A figure that only the camera changed for stays as it was drawn."""
    drawn, view = st.session_state.get("_map_drawn", (None, {}))
    if signature != drawn:
        reported = st.session_state.get("listener", {}).get("view") or {}
        view = reported if ("camera" in reported) == space else {}
        st.session_state["_map_drawn"] = signature, view
    return dict(view)


@st.cache_resource(max_entries=12, show_spinner=False)
def _figure(version: str, ids: tuple[object, ...], looks: str, _shown: Any, _look: Look) -> Any:  # noqa: ARG001  # the cache's key
    return factor_map(_shown, _look)


def draw(trained: cfrec.TrainedModel, shown: Any, look: Look, picked: object, neighbours: Any) -> Look:
    """The figure, and the listener to it."""
    ids = shown["movie_id"].tolist()
    st.session_state["_map_ids"] = ids
    row_of = {movie_id: row for row, movie_id in enumerate(ids)}
    space = len(look.axes) == 3
    n_labels = len(shown) if st.session_state["films"] == BEST else N_LABELS
    look = replace(look, picked=row_of.get(picked), neighbours=[row_of[i] for i in neighbours if i in row_of], n_labels=n_labels)
    axes_and_films = (trained.version, *look.axes)
    signature = (axes_and_films, look.colour, look.paper, tuple(ids), picked)
    look = replace(look, view=view_for(signature, space))
    alt = f"Map of {len(shown)} films by {', '.join(map(_direction, look.axes))}"
    with st.container(key="map"):
        config = {
            "scrollZoom": not space,
            "doubleClick": "autosize",  # a reset would come back as a piece that was chosen, and stay for other films
            "displaylogo": False,
            "plotGlPixelRatio": 1.5,  # Plotly's own 2 looks the same and takes a tenth of a second longer where there is no GPU
            "modeBarButtonsToRemove": ["select2d", "lasso2d", "toImage", "resetScale2d"],
        }
        st.plotly_chart(_figure(trained.version, tuple(ids), repr(look), shown, look), key="figure", config=config, height=HEIGHT, alt=alt)
    listen("listener", "map", space=space, on_pick=pick_from_click, on_narrow=go_flat)
    return look


def show_picked(trained: cfrec.TrainedModel, places: Any, look: Look, picked: object, neighbours: Any) -> None:
    """The picked film, its neighbours, and how far the picture can be trusted there."""
    show.film_card(trained, picked)
    on_map = (places["movie_id"] == picked).any()
    if on_map and len(neighbours):
        near = max(3 * N_NEIGHBOURS, len(places) * 3 // 100)
        kept = kept_on_map(places, look.axes, picked, neighbours["movie_id"].tolist(), near)
        colour = "green" if kept >= 7 else "orange" if kept >= 4 else "red"
        explained = f"Near here: among the {near} nearest of {len(places):,} films in this view. Many numbers are flattened here."
        st.badge(f"{kept} of its {len(neighbours)} true neighbours are near", color=colour, icon=":material/explore:", help=explained)
    elif not on_map:
        st.caption(f"It has fewer than {words.WEAK_BELOW} ratings and is not on the map: its place would be mostly luck.")
    if neighbours.empty:
        st.caption("Nothing was learned of this film: it has no ratings to learn from.")
        return
    columns = {"movie_id": None, "n_ratings": None}
    show.table(neighbours, "neighbours", alt="The ten most similar films in all their numbers", columns=columns, height="content")
    with st.container(horizontal=True, vertical_alignment="center"):
        st.page_link("app_pages/similar.py", label="More on the Similar page", icon=":material/search:")
        st.button("Pick none", on_click=state.pick_film, args=[None], type="tertiary", key="pick-none")


@st.cache_data(max_entries=8, show_spinner=False)
def ends_of(version: str, axis: str, _places: Any) -> tuple[list[str], list[str]]:  # noqa: ARG001  # the cache's key
    return axis_ends(_places, axis)


def describe_axes(version: str, places: Any, axes: Any) -> None:
    st.header("What the directions mean", anchor=False)
    shares = places.attrs["explained_variance_ratio"]
    drawn = [shares[AXIS_NAMES.index(axis)] for axis in dict.fromkeys(axes)]
    st.caption(
        f"Nobody named them: the network made them up from the ratings. Together the {len(drawn)} drawn ones hold {sum(drawn):.0%} of the "
        "differences between films. Look at the films at either end and guess."
    )
    distinct = list(dict.fromkeys(axes))
    for place, axis in zip(st.columns(len(distinct)), distinct, strict=True):
        low, high = ends_of(version, axis, places)
        with place.container(border=True):
            st.markdown(f"**{_direction(axis).capitalize()}** · {shares[AXIS_NAMES.index(axis)]:.1%} of the differences")
            ends = [f"**One end:** {show.plain(' · '.join(low))}", f"**Other end:** {show.plain(' · '.join(high))}"]
            st.markdown("\n\n".join(ends))


st.title("The map of films", anchor=False)
st.markdown(
    "Each film is a point. Films that please the same people lie close together, though the network never saw a genre or a plot. "
    "**Click a film** to light up those most like it."
)
model = state.model_in_use()
all_places = places_of(model)
with st.container(horizontal=True, vertical_alignment="bottom", gap="medium"):
    films = choose_films(all_places)
    colours = [colour for colour in COLOURS if colour != GENRE or all_places.attrs["genres"]]
    chosen = choose_look(len(all_places.attrs["explained_variance_ratio"]), colours)
film = state.film_picked(model)
alike = cfrec.similar_movies(model, film, N_NEIGHBOURS, words.WEAK_BELOW) if film is not None else model.movies.head(0)
if film is not None:
    wanted = all_places["movie_id"].isin([film, *alike["movie_id"]])
    films = all_places[all_places["movie_id"].isin(films["movie_id"]) | wanted]
left, right = st.columns([5, 3], gap="large")
with right:
    search_film(model)
    if film is None:
        why = words.NO_SUCH_FILM if state.in_url("film") else "Nothing picked yet."
        st.caption(f"{why} Click a point, search, or begin with one of these:")
        show.suggest_films(model, state.pick_film)
with left:
    drawn_look = draw(model, films, chosen, film, alike["movie_id"].tolist())
    columns = dict.fromkeys(("genre", *AXIS_NAMES[3:]))
    show.as_table(films, "films-on-the-map", columns=columns)
    st.download_button(
        "Download the map as a page",
        lambda: map_page(films, drawn_look).encode(),
        "map.html",
        "text/html",
        on_click="ignore",
        type="tertiary",
        icon=":material/download:",
        help="One HTML file that turns and zooms in any browser, without a network.",
    )
if film is not None:
    with right:
        show_picked(model, all_places, chosen, film, alike)
describe_axes(model.version, all_places, chosen.axes)
