"""The small print of how it works: the formula, the layers, the words, the limits, whose data it is, and versions."""

from __future__ import annotations

import platform
from importlib.metadata import version
from math import exp

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _words as words
from cfrec.walkthrough import network_layers, network_text

_LIBRARIES = {"Streamlit": "streamlit", "PyTorch": "torch", "scikit-learn": "scikit-learn", "NumPy": "numpy", "pandas": "pandas"}
_LIBRARIES |= {"Altair": "altair", "Plotly": "plotly"}
_LAYERS = {  # layer -> what it holds
    "user_factors": "taste numbers of each person",
    "user_bias": "generosity of each person",
    "movie_factors": "taste numbers of each film",
    "movie_bias": "popularity score of each film",
    "user_choice": "choice numbers of each person",
}


def show_formula(trained: cfrec.TrainedModel, movie_id: object, user_id: object) -> None:
    """The formula, what each sign stands for, and the numbers of one guess put into it."""
    st.header("The formula", anchor=False)
    (low, high), (least, most, _) = trained.y_range, trained.scale
    guess = r"\mathit{low} + (\mathit{high} - \mathit{low}) \cdot \sigma(s)"
    st.latex(_aligned(r"s &= p \cdot q + b_p + b_q + c", rf"\hat r &= {guess}"))
    st.markdown(
        f"- $\\hat r$: the guess, in stars, cut off at {least:g} and {most:g}\n"
        f"- $p$, $q$: the taste numbers of the person and of the film, {trained.n_factors} each. $p \\cdot q$ is their match: the first "
        "number of one times the first of the other, and so on, added up\n"
        "- $b_p$, $b_q$: the person’s generosity, and the film’s popularity score, as the network holds them\n"
        "- $c$: a constant that is not learned; it lets training begin at the average rating\n"
        f"- $\\sigma$: the sigmoid, $\\sigma(x) = 1 / (1 + e^{{-x}})$, which squeezes any number in between 0 and 1; *low* = {low:g} and "
        f"*high* = {high:g} stretch that to stars"
    )
    st.markdown("With the numbers of the example in picture 3:")
    st.latex(_worked_formula(trained, movie_id, user_id))
    st.caption(
        "Picture 3 tells the same in stars, one part after the other. What is usual in generosity and in scores is counted there as what "
        "anybody gives anything."
    )


def _worked_formula(trained: cfrec.TrainedModel, movie_id: object, user_id: object) -> str:
    user, movie = trained.user_row(user_id), trained.movie_row(movie_id)
    match = float(trained.user_factors[user] @ trained.movie_factors[movie])
    low, high = trained.y_range
    digits = 2 + len(f"{high - low:.0f}")  # where the sigmoid is steep, a thousandth of a score is a hundredth of a star
    terms = [round(term, digits) for term in (match, float(trained.user_bias[user]), float(trained.movie_bias[movie]), trained.offset)]
    score = sum(terms)
    stars = low + (high - low) / (1 + exp(min(-score, 700.0)))
    guess = float(cfrec.predict_ratings(trained, [user_id], [movie_id])[0])
    result = f"{guess:.2f}" if abs(guess - stars) <= 0.005 else rf"{stars:.2f} \to {guess:.2f}"  # cut off; less is rounding
    written = " ".join([f"{terms[0]:.{digits}f}", *(f"{term:+.{digits}f}" for term in terms[1:])])
    formula = rf"\hat r &= {low:g} + {high - low:g} \cdot \sigma({score:.{digits}f})"
    return _aligned(f"s &= {written}", f"&= {score:.{digits}f}", formula, f"&= {result}")


def _aligned(*lines: str) -> str:
    return r"\begin{aligned} " + r" \\ ".join(lines) + r" \end{aligned}"


def show_layers(trained: cfrec.TrainedModel) -> None:
    """The network as PyTorch prints it, and as a table."""
    st.header("The layers", anchor=False)
    layers = network_layers(trained)
    fifth = "" if trained.user_choice is None else " Four make the guesses; the fifth says which films a person chooses to rate."
    st.markdown(f"**{trained.n_parameters:,} numbers** in {len(layers)} tables, as PyTorch prints them.{fifth}")
    st.code(network_text(trained), language=None)
    show.table(
        layers.assign(holds=[_LAYERS[layer] for layer in layers["layer"]])[["layer", "holds", "rows", "columns", "parameters"]],
        "layers",
        alt=f"The {len(layers)} tables of the network with {trained.n_parameters:,} numbers in all",
        columns={
            "layer": "Layer",
            "holds": "Holds",
            "rows": st.column_config.NumberColumn("Rows", format="localized"),
            "columns": st.column_config.NumberColumn("Numbers a row", format="localized"),
            "parameters": st.column_config.NumberColumn("Numbers", format="localized"),
        },
    )


def show_glossary() -> None:
    """Every word of the app."""
    st.header("Glossary", anchor=False)
    st.markdown("What the app calls things, and what the field calls them.")
    entries = [{"Here": word, "In the field": term, "Meaning": meaning} for word, term, meaning in words.glossary()]
    show.text_table(entries, "glossary", alt=f"Glossary of {len(entries)} words: technical term and meaning", height=480)


def show_limits(trained: cfrec.TrainedModel) -> None:
    """What not to believe, and what not to use it for."""
    st.header("Limits", anchor=False)
    films = trained.movies
    n_weak = int((films["n_ratings"] < words.WEAK_BELOW).sum())
    years = films["year"].dropna()
    known = "" if years.empty else f" and no film after {years.max()}"
    lines = [
        f"**It knows {trained.n_movies:,} films{known}**, and only as the {trained.n_users:,} people in its data saw them"
        + (": volunteers of 1997 and 1998, 71 % of them men, 21 % students." if trained.source.name == "ml-100k" else "."),
        f"**{n_weak:,} of its films have fewer than {words.WEAK_BELOW} ratings.** What it learned about those is mostly luck.",
        f"**A guess misses by {words.stars(trained.metrics['rmse'])} on average.** It cannot be perfect: asked again, people themselves "
        "give other stars than the first time, by about 0.6 on the five-star scale.",
        "**Alike means “watched and liked by the same people”**, not “about the same thing”. It never saw a genre, a plot or a face; "
        "films that few people saw both of can look alike by chance.",
        "**It is here to show how such models work.** It is not for decisions about people, not for finding out who somebody is or what "
        "they are like, and no measure of a film’s worth.",
    ]
    st.markdown("\n".join(f"- {line}" for line in lines))


def show_source(trained: cfrec.TrainedModel) -> None:
    """Whose ratings the model learned from, what may be done with them, and how to name them."""
    st.header("The data", anchor=False)
    source = trained.source
    st.markdown(f"The model in use learned from **{show.plain(source.title)}**, {trained.n_train + trained.n_valid:,} ratings.")
    st.markdown(f"**Licence.** {show.plain(source.licence) or 'None was given with this data. Its owner decides what it may be used for.'}")
    if source.citation:
        st.markdown(f"**To be cited as.** {words.linked(source.citation)}")
    st.caption("The single ratings are neither part of cfrec nor stored in a model: only titles, counts, averages and learned numbers are.")


@st.cache_data(max_entries=1, show_spinner=False)
def _versions() -> list[str]:
    return [f"Python {platform.python_version()}", *(f"{name} {version(package)}" for name, package in _LIBRARIES.items())]


def show_versions(trained: cfrec.TrainedModel) -> None:
    """Versions of cfrec, of the model in use, and of what cfrec stands on."""
    st.header("Version", anchor=False)
    st.markdown(f"**cfrec {cfrec.__version__}**, under the MIT licence. Nothing that you do here leaves the machine it runs on.")
    st.caption(" · ".join([*_versions(), f"model {trained.version}, trained {trained.created[:10]}"]))
