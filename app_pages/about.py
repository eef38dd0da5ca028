"""How it works: four pictures drawn from the model in use, then the small print."""

from math import sqrt
from typing import Any

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

import cfrec
from app_pages import _reference as reference
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from cfrec.datasets import DATASETS
from cfrec.evaluation import baseline_losses
from cfrec.pictures import factor_heatmap, prediction_steps, ratings_grid
from cfrec.plots import loss_chart, loss_points
from cfrec.walkthrough import Walkthrough, factor_cells, walk_through

N_NUMBERS = 8  # shown of each film


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=state.BY_VERSION)
def walk(trained: cfrec.TrainedModel, _ratings: cfrec.Ratings | None, n_ratings: int) -> Walkthrough:  # noqa: ARG001  # the cache's key
    return walk_through(trained, _ratings)


@st.cache_data(max_entries=8, show_spinner=False, hash_funcs=state.BY_VERSION)
def naive_losses(trained: cfrec.TrainedModel, _ratings: cfrec.Ratings) -> dict[str, float]:
    """Losses of guessing without learning, by name; none where it is not known which ratings were kept aside."""
    if trained.split is None:
        return {}
    learned_from, kept_aside = _ratings.split(*trained.split)
    if learned_from.fingerprint() != trained.fingerprint:
        return {}
    return {words.BASELINES[name]: loss for name, loss in baseline_losses(learned_from, kept_aside).items()}


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=state.BY_VERSION)
def numbers_of(trained: cfrec.TrainedModel, titles: tuple[str, ...], _shown: Walkthrough) -> tuple[Any, Any]:  # noqa: ARG001  # the cache's key
    """Of the films shown: what they differ most in, and their popularity scores."""
    scores = cfrec.movie_biases(trained).set_index("movie_id").loc[_shown.movie_ids, ["stars"]].assign(film=_shown.titles)
    return factor_cells(trained, _shown, N_NUMBERS), scores


def picture(number: int, heading: str) -> tuple[DeltaGenerator, DeltaGenerator]:
    """A place for words and a place for a drawing, side by side where there is room."""
    with st.container(border=True):
        told, drawn = st.columns([2, 3], gap="medium", vertical_alignment="center")
    told.header(f":blue-badge[{number}] {heading}", anchor=False)
    return told, drawn


def show_ratings(trained: cfrec.TrainedModel, shown: Walkthrough) -> None:
    told, drawn = picture(1, "A table full of gaps")
    n_ratings, n_cells = trained.n_train + trained.n_valid, trained.n_users * trained.n_movies
    knows_years = trained.user_choice is not None and trained.movies["year"].notna().any()
    years = ", the year in which each film came out," if knows_years else ""
    told.markdown(
        f"Each row is a film, each column a person, each number the stars that this person gave. Of all **{n_cells:,} cells** only "
        f"{n_ratings:,} are filled: **{100 * n_ratings / n_cells:.1f} %**. "
        f"The network is shown those{years} and nothing else. Its task: fill the gaps."
    )
    cells = shown.cells()
    n_films, n_people, n_gaps = len(shown.titles), len(shown.user_ids), int(cells["stars"].isna().sum())
    if shown.real:
        told.caption(f"A piece of the real table: {n_films} well-known films, and people who saw them differently.")
        alt = f"Table of {n_films} films and {n_people} people with {n_films * n_people - n_gaps} ratings and {n_gaps} gaps"
    else:
        told.badge("Guesses, not ratings", icon=":material/edit_note:", color="orange")
        fetched = " Train once on the Train page, and the real ones are shown here." if trained.source.name in DATASETS else ""
        told.caption(f"The ratings themselves are not on this machine; here stands what the network would write into the cells.{fetched}")
        alt = f"Table of {n_films} films and {n_people} people, filled with guesses"
    first = cells["stars"][:n_people].map("{:.3g}".format).replace("nan", "no rating")
    with drawn:
        show.drawn_once(
            lambda: ratings_grid(cells, trained.scale[:2], decimals=not shown.real, ink=show.ink()),
            cells,
            "ratings-table",
            version=trained.version,
            alt=f"{alt}. {shown.titles[0]}: {', '.join(first)}.",
            columns={"film": words.FILM.label, "person": "Person", "stars": st.column_config.NumberColumn("Stars", format="%.1f")},
        )


def show_numbers(trained: cfrec.TrainedModel, shown: Walkthrough) -> None:
    told, drawn = picture(2, "A score, and a list of tastes")
    numbers_shown = f"{min(N_NUMBERS, trained.n_factors)} taste numbers"
    told.markdown(
        f"For each film the network keeps one **popularity score**, how good it is in itself, and **{trained.n_factors} taste numbers** "
        "that nobody named. For each person it keeps as many, and one for their generosity."
    )
    if trained.user_choice is not None:
        told.markdown(
            "A film’s taste numbers are learned from two things at once: **how many stars** people gave, and **who rated what**. For the "
            "second, each person has a list of choice numbers too, and a liking for well-known films and for certain years. So the taste "
            "numbers need not say what was on show when."
        )
    alike = "" if shown.similarity is None else f"{100 * shown.similarity:.0f} % alike"
    if alike:
        first, second = (f"*{show.plain(title)}*" for title in shown.titles[:2])
        told.markdown(
            f"Compare the first two rows: {first} and {second} are **{alike}**. Nobody told the network what they have in common."
        )
    told.caption(f"The {numbers_shown} in which these films differ most. Blue, +: above zero. Orange, −: below.")
    told.page_link("app_pages/similar.py", label="Find films alike", icon=":material/search:")
    cells, scores = numbers_of(trained, tuple(shown.titles), shown)
    best = scores.loc[scores["stars"].idxmax()]
    numbers = cells.pivot(index="film", columns="number", values="value").rename(columns=str)
    alt = f"{numbers_shown} of {len(shown.titles)} films; the highest popularity score: {best['film']}, {words.stars(best['stars'])}"
    with drawn:
        show.drawn_once(
            lambda: factor_heatmap(cells, scores, ink=show.ink()),
            scores[["film", "stars"]].merge(numbers, on="film"),
            "film-numbers",
            version=trained.version,
            alt=f"Heatmap: {alt}." + (f" The first two rows are {alike}." if alike else ""),
            columns={"film": words.FILM.label}
            | {name: st.column_config.NumberColumn(f"Number {name}", format="%+.2f") for name in numbers.columns},
        )


def choose_pair(trained: cfrec.TrainedModel, shown: Walkthrough) -> tuple[object, object]:
    """A film and a person, of those in the first picture."""
    titles = dict(zip(shown.movie_ids, shown.titles, strict=True))
    film, person = st.columns([3, 2])
    movie_id = film.selectbox(
        words.FILM.label,
        shown.movie_ids,
        index=shown.movie_ids.index(shown.start[0]),
        format_func=lambda key: titles.get(key, str(key)),
        key=f"example-film-{trained.version}",
        persist_state="session",
    )
    user_id = person.selectbox(
        "Person",
        shown.user_ids,
        index=shown.user_ids.index(shown.start[1]),
        format_func=lambda key: f"Person {key}",
        key=f"example-person-{trained.version}",
        persist_state="session",
    )
    return movie_id, user_id


def reality(guess: float, stars: float | None, kept_aside: bool | None, *, real: bool) -> str:
    """What the person really gave, beside the guess."""
    if stars is None:
        return "A gap in the table: nobody knows yet how good this guess is." if real else "What the person really gave is not known here."
    seen = {None: "", True: " The network never saw this rating: it was kept aside.", False: " The network learned from this rating."}
    return f"Really given: **{stars:g} stars**; the guess misses by {abs(guess - stars):.2f}.{seen[kept_aside]}"


def show_guess(trained: cfrec.TrainedModel, shown: Walkthrough) -> tuple[object, object]:
    told, drawn = picture(3, "A guess is a sum")
    with told:
        st.markdown(
            "Begin with what anybody gives anything. Add what this film is worth to everybody, and how generous this person is. "
            "Then comes what makes it personal: how well their tastes match."
        )
        movie_id, user_id = choose_pair(trained, shown)
    parts = cfrec.explain_prediction(trained, user_id, movie_id, decimals=2)
    first, *changes, guess = parts["stars"].tolist()
    line = " ".join([f"{first:.2f}", *(f"{'−' if change < 0 else '+'} {abs(change):.2f}" for change in changes)])
    told.markdown(f"{line} = **{words.stars(guess)}**")
    given, kept_aside = shown.rating(movie_id, user_id)
    told.caption(reality(guess, given, kept_aside, real=shown.real))
    named = parts.assign(part=[words.PARTS[part] for part in parts["part"]])
    if given is not None:
        named.loc[len(named)] = ["Really given", given, 0.0, given]
    steps = ", ".join(f"{part} {change:+.2f}" for part, change in zip(named["part"][1:4], changes, strict=True))
    title = shown.titles[shown.movie_ids.index(movie_id)]
    with drawn:
        show.drawn_once(
            lambda: prediction_steps(named, trained.scale[:2], ink=show.ink()),
            named,
            "guess",
            version=trained.version,
            alt=f"Steps from {words.stars(first)} to the guess for {title} by person {user_id}, {words.stars(guess)}: {steps}",
            columns={"part": "Part"}
            | {
                name: st.column_config.NumberColumn(f"{label}, stars", format="%.2f")
                for name, label in {"stars": "Worth", "start": "From", "end": "To"}.items()
            },
        )
    return movie_id, user_id


def show_training(trained: cfrec.TrainedModel, baselines: dict[str, float]) -> None:
    told, drawn = picture(4, "Training: guess, compare, correct")
    told.markdown(
        f"At the start these numbers mean nothing. In each **round** the network goes through {trained.n_train:,} ratings, guesses each, "
        "compares, and moves its numbers a little so that it would have missed by less."
    )
    best = f"after round {trained.best_epoch}, the best" if trained.best_epoch else "as at the start: no round did better"
    told.markdown(
        f"Another {trained.n_valid:,} ratings were **kept aside**, to see how far it misses on what it never saw: "
        f"**{words.stars(trained.metrics['rmse'])}** {best}. Where the two lines part, it begins to know its own ratings by heart."
    )
    told.page_link("app_pages/train.py", label="Watch it learn", icon=":material/model_training:")
    points = loss_points(trained.history, (), baselines)
    points = points[points["stars"] < 10 * trained.metrics["rmse"]]  # what diverged would hide the rest
    if points.empty:
        drawn.caption("No record of its rounds was stored with this model.")
        return
    kept, learned = (
        [sqrt(loss) for loss in losses] for losses in zip(*((m.valid_loss, m.train_loss) for m in trained.history), strict=True)
    )
    with drawn:
        show.drawn_once(
            lambda: loss_chart(points, len(trained.history), 1.03 * float(points["stars"].max()), height=300),
            points,
            "miss-by-round",
            version=f"{trained.version} {len(baselines)}",
            alt=f"Line chart of the average miss, {len(kept)} rounds. Ratings kept aside: from {kept[0]:.3f} to {kept[-1]:.3f} stars. "
            f"Ratings learned from: from {learned[0]:.3f} to {learned[-1]:.3f} stars. Best round: {trained.best_epoch}.",
            columns={
                "series": "Of",
                "epoch": st.column_config.NumberColumn("Round", help=words.ROUNDS.help),
                "stars": st.column_config.NumberColumn("Average miss, stars", help=words.AVERAGE_MISS.help, format="%.4f"),
                "loss": st.column_config.NumberColumn("Mean squared error, stars²", format="%.4f"),
                "label": None,
                "label_at": None,
            },
        )


st.title("How it works", anchor=False)
st.markdown("In four pictures, each drawn from the model in use with its own numbers.")
model = state.model_in_use()
ratings = state.ratings_of(model)
walked = walk(model, ratings, 0 if ratings is None else len(ratings))
show_ratings(model, walked)
show_numbers(model, walked)
pair = show_guess(model, walked)
show_training(model, naive_losses(model, ratings) if ratings is not None and walked.real else {})
formula, layers = st.columns(2, gap="medium")
with formula:
    reference.show_formula(model, *pair)
with layers:
    reference.show_layers(model)
reference.show_glossary()
limits, source = st.columns(2, gap="medium")
with limits:
    reference.show_limits(model)
with source:
    reference.show_source(model)
    reference.show_versions(model)
