"""The start page: what this is, and the model that is here."""

from pathlib import Path

import streamlit as st

import cfrec

MODEL = Path(__file__).parent.parent / "models" / "ml-100k"


@st.cache_resource(max_entries=1)
def shipped_model() -> cfrec.TrainedModel:
    return cfrec.load_model(MODEL)


def show_figures(trained: cfrec.TrainedModel) -> None:
    with st.container(horizontal=True):
        st.metric("Trained on", trained.source.title, border=True)
        st.metric("Ratings learned from", f"{trained.n_train:,}", border=True)
        st.metric("Films", f"{trained.n_movies:,}", border=True)
        st.metric("People", f"{trained.n_users:,}", border=True)
        miss = f"{trained.metrics['mae']:.2f} stars"
        st.metric("Average miss", miss, border=True, help="Mean absolute error on ratings that were held out of training.")


def show_films(trained: cfrec.TrainedModel) -> None:
    liked = cfrec.movie_biases(trained, min_ratings=20)
    like_star_wars = cfrec.similar_movies(trained, 50, k=8, min_ratings=20)
    columns = {
        "title": st.column_config.TextColumn("Film", width="medium"),
        "mean_rating": st.column_config.NumberColumn("Average stars", width="small", format="%.2f"),
        "similarity": st.column_config.ProgressColumn("Likeness", width="small", format="%.2f", min_value=0, max_value=1),
    }
    for place, heading, table, shown in zip(
        st.columns(3),
        ("Good in themselves", "Poor in themselves", "Most like Star Wars"),
        (liked.head(8), liked.tail(8)[::-1], like_star_wars),
        (["title", "mean_rating"], ["title", "mean_rating"], ["title", "similarity"]),
        strict=True,
    ):
        with place:
            st.subheader(heading)
            st.dataframe(table[shown], hide_index=True, column_config=columns, alt=f"{heading}: a table of eight films")


st.title("See what a recommender learned")
st.write(
    "A small network was shown nothing but who rated which film with how many stars. From that alone it found out which films "
    "are good in themselves, and which are alike."
)
try:
    model = shipped_model()
except cfrec.CfrecError as error:
    st.error(f"The model that ships with cfrec cannot be shown. {error}")
    st.stop()
show_figures(model)
show_films(model)
st.caption(f"Data: {model.source.title}. {model.source.licence} {model.source.citation}")
