"""Good and bad films: the popularity score that was learned of each, beside the plain average of its stars."""

from __future__ import annotations

import zlib
from functools import partial
from typing import TYPE_CHECKING, Any

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from app_pages._bias_picture import COLUMNS, show_all
from cfrec.shrinkage import bias_dumbbells, dumbbell_domains, few_votes_example, overrated

if TYPE_CHECKING:
    import pandas

BY_SCORE, BY_GAP = words.POPULARITY.label, words.GAP.label
PRESETS = {  # name -> least ratings, order
    "Best and worst": (words.WEAK_BELOW, BY_SCORE),
    "Loved by everyone": (100, BY_SCORE),
    "Overrated by few votes": (2, BY_GAP),
}
ENDS = {  # order -> what the films at either end are
    BY_SCORE: ("best", "worst"),
    BY_GAP: ("most overrated", "most underrated"),
}
FILTERS = {"min_ratings": ("Any number of ratings", 0), "genre": ("Any genre", None), "years": ("Any decade", None)}


def presets_of(trained: cfrec.TrainedModel) -> dict[str, tuple[int, str]]:
    """The presets that differ for this model."""
    most = show.most_asked(trained)
    presets: dict[str, tuple[int, str]] = {}
    for name, (least, order) in PRESETS.items():
        if (min(least, most), order) not in presets.values():
            presets[name] = (min(least, most), order)
    return presets


def apply_preset(presets: dict[str, tuple[int, str]]) -> None:
    if name := st.session_state["preset"]:
        st.session_state["min_ratings"], st.session_state["order"] = presets[name]


def show_presets(trained: cfrec.TrainedModel, least: int, order: str) -> None:
    presets = presets_of(trained)
    st.session_state["preset"] = next((name for name, settings in presets.items() if settings == (least, order)), None)
    st.segmented_control(
        "Show", list(presets), key="preset", on_change=apply_preset, args=[presets], help="Sets the widgets below; change them as you like."
    )


def show_order() -> tuple[str, int]:
    """Widgets for the order and the length of the lists."""
    left, right = st.columns(2, vertical_alignment="bottom")
    order = left.segmented_control(
        "Sorted by", list(ENDS), default=BY_SCORE, required=True, key="order", bind="query-params", help=words.GAP.help
    )
    top = right.slider("Films in each list", 5, 40, 10, key="top", bind="query-params")
    return order or BY_SCORE, top


def loosen(name: str) -> None:
    st.session_state["decade" if name == "years" else name] = FILTERS[name][1]


def loosen_all() -> None:
    for name in FILTERS:
        loosen(name)


def show_nothing(trained: cfrec.TrainedModel, chosen: dict[str, Any]) -> None:
    """Say that no film fits, and offer what would help."""
    st.warning("No film fits all of this. Ask for less:", icon=":material/filter_alt_off:")
    helped = False
    with st.container(horizontal=True):
        for name, (label, anything) in FILTERS.items():
            fitting = 0 if chosen[name] == anything else len(cfrec.movie_biases(trained, **chosen | {name: anything}))
            if fitting:
                helped = True
                st.button(f"{label}: {words.plural(fitting, 'film')}", on_click=loosen, args=[name], key=f"loosen-{name}")
        if not helped:
            st.button("Take away all filters", on_click=loosen_all, key="loosen-all")


@st.cache_resource(max_entries=16, show_spinner=False, hash_funcs=state.BY_VERSION)
def lists_of(trained: cfrec.TrainedModel, genre: str | None, years: tuple[int, int] | None, least: int, order: str) -> tuple[Any, Any]:
    """The films of a genre and a decade, and whether each is shown; and those that are, as they are sorted. Shared: not to be changed."""
    around = cfrec.movie_biases(trained, genre=genre, years=years)
    around = around.assign(shown=around["n_ratings"] >= least)
    films = around[around["shown"]].drop(columns="shown")
    return around, overrated(films) if order == BY_GAP else films.reset_index(drop=True)


def show_ends(films: pandas.DataFrame, order: str, top: int, scale: tuple[float, float, float], version: str) -> None:
    """The films at either end of the list, beside each other."""
    ends = [films.head(min(top, (len(films) + 1) // 2)), films.tail(min(top, len(films) // 2))[::-1]]
    domains = dumbbell_domains([end for end in ends if not end.empty], scale[:2])
    for place, end, domain, what in zip(st.columns(2, gap="large"), ends, domains, ENDS[order], strict=False):
        with place:
            heading = f"The {len(end)} {what}" if len(end) > 1 else f"The {what}"
            st.header(heading, anchor=False)
            first = end.iloc[0]
            alt = (
                f"Dumbbell chart. {heading} of {words.plural(len(films), 'film')}; first {first['title']}: "
                f"popularity score {words.stars(first['stars'])}, plain average {words.stars(first['mean_rating'])}, "
                f"{words.plural(first['n_ratings'], 'rating')}"
            )
            show.drawn_once(
                partial(bias_dumbbells, end, domain, ink=show.ink()),
                end[COLUMNS],
                f"{what.replace(' ', '-')}-films",
                version=f"{version} {domain} {end['movie_id'].tolist()}",
                alt=alt,
            )
    st.caption(
        "●\u00a0filled: popularity score, what the network learned · ○\u00a0hollow: plain average of the stars · "
        "the line between: how far the network moved away from the average. "
        f"{words.plural(len(films), 'film')} to choose from with these filters."
    )


@st.cache_data(max_entries=8, show_spinner=False, hash_funcs=state.BY_VERSION)
def explain_few_votes(trained: cfrec.TrainedModel) -> None:
    """Why a 5.0 from two people is not the best film, with films of this model."""
    biases = cfrec.movie_biases(trained)
    example = few_votes_example(biases, words.WEAK_BELOW)
    with st.container(border=True):
        if example is None:
            st.markdown(
                "**Why an average of two votes is not to be believed**  \nTwo people may just be lucky, or kind. In this data "
                f"no film with fewer than {words.WEAK_BELOW} ratings has a higher average than the best of the others, so the plain "
                f"average misleads less than usual. The least rated film has {words.plural(int(biases['n_ratings'].min()), 'rating')}."
            )
        else:
            st.markdown(few_votes_in_words(trained, *example))


def few_votes_in_words(trained: cfrec.TrainedModel, lucky: pandas.Series, best: pandas.Series) -> str:
    usual = trained.to_stars(trained.offset + trained.user_bias.mean(keepdims=True))[0]
    people = "one person" if lucky["n_ratings"] == 1 else f"{lucky['n_ratings']} people"
    score = f"**{words.stars(lucky['stars'])}**"
    if lucky["gap"] > 0.05:
        pull = f"moves from there only as far as the ratings can pull it: to a popularity score of {score}"
    else:
        pull = f"this model lets them pull it all the way, to a popularity score of {score}: it was trained with little caution"
    return (
        f"**Why {lucky['mean_rating']:.1f} stars from {people} do not make the best film**  \n"
        f"*{show.plain(lucky['title'])}* has a plain average of {words.stars(lucky['mean_rating'])}, from {people}. So few may be "
        f"lucky, kind, or fans. The network expects {words.stars(usual)} of a film it knows nothing about, and {pull}. "
        f"*{show.plain(best['title'])}* averages {words.stars(best['mean_rating'])} from {best['n_ratings']:,} people: enough to be "
        f"believed. Its popularity score is **{words.stars(best['stars'])}**"
        + (", the better film." if best["stars"] > lucky["stars"] else ".")
        + " Who voted counts as well: a five says less from someone who gives everything a five."
    )


def pick_row(key: str, movie_ids: list[object]) -> None:
    if rows := st.session_state[key]["selection"]["rows"]:
        state.pick_film(movie_ids[rows[0]])


def show_table(trained: cfrec.TrainedModel, films: pandas.DataFrame, order: str) -> None:
    st.header(f"The whole list: {words.plural(len(films), 'film')}", anchor=False)
    st.caption("Click the box before a row to pick that film.")
    movie_ids = films["movie_id"].tolist()
    key = f"rows-{zlib.crc32(repr((trained.version, movie_ids)).encode())}"
    show.table(
        films[[*COLUMNS, "gap"] if order == BY_GAP else COLUMNS],
        "good-and-bad-films",
        alt=f"{words.plural(len(films), 'film')} with ratings, plain average and popularity score, sorted by {order.lower()}",
        height=420,
        key=key,
        on_select=partial(pick_row, key, movie_ids),
    )
    if rows := st.session_state[key]["selection"]["rows"]:
        film = films.iloc[rows[0]]
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{show.plain(film['title'])}** is picked.", width="content")
            st.page_link(
                "app_pages/similar.py",
                label="Films like this one",
                icon=":material/search:",
                query_params={"film": str(movie_ids[rows[0]])},
            )


def main() -> None:
    trained = state.model_in_use()
    st.title("Good and bad films", anchor=False)
    st.markdown(
        "How good is a film in itself, no matter who watches it? The **popularity score** is the network's answer, beside the "
        "**plain average** of the stars people gave."
    )
    place = st.container()
    chosen = show.filters(trained)
    order, top = show_order()
    with place:
        show_presets(trained, chosen["min_ratings"], order)
    around, films = lists_of(trained, chosen["genre"], chosen["years"], chosen["min_ratings"], order)
    if films.empty:
        show_nothing(trained, chosen)
    else:
        show_ends(films, order, top, trained.scale, trained.version)
    explain_few_votes(trained)
    if not around.empty:
        show_all(trained, around, chosen)
    if not films.empty:
        show_table(trained, films, order)


main()
