"""The start page: what this is, where to go, the model in use, and the data it learned from."""

from functools import partial
from pathlib import Path

import streamlit as st

IMAGES = Path(__file__).parent / "images"
CARDS = (  # page, heading, text, link, what its picture shows
    (
        "similar",
        "Find similar films",
        "Type a title, typos and all, and see which other films the same people loved.",
        ":material/search: Find films",
        "A film and four bars",
    ),
    (
        "map",
        "Explore the map",
        "Every film is a point; films for the same tastes lie close together.",
        ":material/scatter_plot: Open the map",
        "A cloud of points, one of them lit with its neighbours",
    ),
    (
        "train",
        "Train it yourself",
        "Press a button and watch the network learn, round by round.",
        ":material/model_training: Train",
        "Two curves that fall round by round, and the best round marked",
    ),
)


def show_cards() -> None:
    for place, (page, heading, text, label, alt) in zip(st.columns(3), CARDS, strict=True):
        with place.container(border=True, height="stretch"):
            with st.container(height=126, border=False):  # its place is kept until it comes
                st.image(IMAGES / f"{page}.svg", width=300, alt=alt)
            st.header(heading, anchor=False)
            st.write(text)
            st.page_link(f"app_pages/{page}.py", label=f"**{label}**")


st.title("See what a recommender learned", anchor=False)
st.markdown(
    "A small network was shown **who rated which film with how many stars**, and from that worked out "
    "which films are good in themselves, which are alike, and what a person will think of a film not seen yet."
)
show_cards()

# Imported only now: in a new server this takes 0.4 s, in which the above is already there to be read.
import cfrec  # noqa: E402
from app_pages import _show as show  # noqa: E402
from app_pages import _state as state  # noqa: E402
from app_pages import _words as words  # noqa: E402
from cfrec.plots import bars  # noqa: E402


def show_model(trained: cfrec.TrainedModel) -> None:
    st.header("The model in use", anchor=False)
    with st.container(horizontal=True):
        st.metric("Learned from", show.plain(trained.source.title), border=True, help=f"Stored as “{show.plain(state.model_name())}”.")
        st.metric(
            "Trained on", trained.created[:10], border=True, help=f"{trained.created} (UTC), in {words.duration(trained.fit_seconds)}."
        )
        word = words.AVERAGE_MISS
        st.metric(word.label, words.stars(trained.metrics["rmse"]), border=True, help=word.help)
        st.metric("Films", f"{trained.n_movies:,}", border=True)
        st.metric("People", f"{trained.n_users:,}", border=True)
        st.metric(
            "Ratings",
            f"{trained.n_train + trained.n_valid:,}",
            border=True,
            help=f"{trained.n_train:,} to learn from, the others kept aside.",
        )
    for name, films in state.WITH_CFREC.items():
        if name != state.model_name() and state.is_stored(name):
            st.button(f"Switch to {films}", icon=":material/swap_horiz:", on_click=state.use_model, args=[name], key=f"switch-{name}")


def show_data(trained: cfrec.TrainedModel) -> None:
    st.header("The data", anchor=False)
    most, few = st.columns(2, gap="large")
    with most:
        st.markdown("**The 20 films rated by most people**")
        top = trained.movies.nlargest(20, "n_ratings")[["title", "n_ratings", "mean_rating"]]
        show.table(top, "most-rated", alt="The twenty films with the most ratings, with their number and average", height=470)
    with few:
        ratings = state.ratings_of(trained)
        if ratings is None:
            show_without_ratings(trained)
        else:
            show_ratings(ratings)


def show_ratings(ratings: cfrec.Ratings) -> None:
    st.markdown("**How many stars people give**")
    histogram = ratings.histogram()
    most = histogram.loc[histogram["n_ratings"].idxmax()]
    draw = partial(bars, histogram, "stars", "n_ratings", x_title="Stars", y_title="Ratings")
    alt = f"Bar chart: {most['stars']:g} stars are given most often, {most['n_ratings']:,.0f} times"
    show.drawn_once(draw, histogram, "stars-given", version=str(ratings.fingerprint()), alt=alt, columns={"stars": "Stars"})
    st.markdown("**The first ratings: all that the network is shown**")
    show.table(ratings.head(5), "first-ratings", alt="The first five ratings: person, film, stars")


def show_without_ratings(trained: cfrec.TrainedModel) -> None:
    st.markdown("**How well films are liked on average**")
    histogram = cfrec.mean_rating_histogram(trained)
    draw = partial(bars, histogram, "stars", "films", x_title="Plain average, stars", y_title="Films")
    alt = f"Bar chart of films by their average: most, {histogram['films'].max():,}, lie in one step of half a star"
    show.drawn_once(draw, histogram, "film-averages", version=trained.version, alt=alt, columns={"stars": "Stars", "films": "Films"})
    st.caption("The single ratings may not be passed on with cfrec. Train once on the Train page, and they are fetched and shown here.")


model = state.model_in_use()
show_model(model)
show_data(model)
st.markdown(f":small[{words.linked(f'Data: {model.source.title}. {model.source.licence} {model.source.citation}')}]")
