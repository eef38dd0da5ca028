"""What a finished run came to: new against current, guesses against real ratings, and what to take away."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Literal

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _train_form as form
from app_pages import _words as words
from cfrec.comparison import bias_movers, changed_settings, neighbour_changes, same_test
from cfrec.export import spreadsheet_safe
from cfrec.jobs import JobResult, TrainingJob
from cfrec.packing import pack_model
from cfrec.plots import calibration_chart, loss_points
from cfrec.storage import model_folder, model_stamp

_OLD_NEW = {
    "old": st.column_config.NumberColumn("Current, stars", format="%.2f"),
    "new": st.column_config.NumberColumn("New, stars", format="%.2f"),
    "change": st.column_config.NumberColumn("Change, stars", format="%+.2f"),
    "movie_id": None,
}


def compared_with(job: TrainingJob, in_use: cfrec.TrainedModel) -> cfrec.TrainedModel:
    """The model to compare a run with: the one in use; when that is the run's own, the one used before, if it is still there."""
    result, before = job.snapshot.result, state.model_before()
    if result is None or before is None or in_use.version != result.trained.version:
        return in_use
    try:
        return state.load_stored(before)
    except cfrec.CfrecError:  # damaged since: nothing to compare with or to go back to
        return in_use


def show_result(job: TrainingJob, current: cfrec.TrainedModel, in_use: cfrec.TrainedModel) -> None:
    """The card *new against current*, and what can be seen and done with the new model."""
    result = job.snapshot.result
    if result is None:
        return
    new = result.trained
    with st.container(border=True):
        st.header("The new model against the current one", anchor=False)
        _figures(new, current)
        if in_use.version != new.version:
            _decide(job, new)
        else:
            _show_in_use(state.model_before() if current.version != new.version else None)
    changes, guesses, away = st.tabs(["What changed", "Guessed against real", "Take away"])
    with changes:
        _changes(new, current)
    with guesses:
        _guesses(job, result)
    with away:
        _downloads(job, new)


def _figures(new: cfrec.TrainedModel, current: cfrec.TrainedModel) -> None:
    comparable = same_test(current, new)
    change = new.metrics["rmse"] - current.metrics["rmse"]
    shown = None if not comparable else "no change" if abs(change) < 0.0005 else f"{change:+.3f} stars"
    word = words.AVERAGE_MISS
    (miss, now), (took, best) = (st.columns(2, gap="small") for _ in range(2))
    miss.metric(
        word.label,
        f"{new.metrics['rmse']:.3f} stars",
        shown,
        delta_color="off" if shown == "no change" else "inverse",
        delta_arrow="off" if shown == "no change" else "auto",
        help=word.help,
        border=True,
    )
    now.metric("Current model", f"{current.metrics['rmse']:.3f} stars", help="Its average miss.", border=True, height="stretch")
    took.metric("Training time", words.duration(new.fit_seconds), border=True, help=f"On {new.device}.")
    rounds = f"{new.best_epoch} of {len(new.history)}" if new.history else "none"
    best.metric("Best round", rounds, border=True, help=f"It {words.OUTCOMES[new.outcome]}. The numbers of its best round are kept.")
    if not comparable:
        st.caption("The two were not tested on the same ratings: their misses cannot be compared.")


def _show_in_use(before: str | None) -> None:
    st.success(f"In use now, and stored as “{state.model_name()}”: all pages show this model.", icon=":material/check:")
    if before:
        st.button("Undo", on_click=state.undo_use, icon=":material/undo:", key="undo", help=f"Go back to “{before}”.")


def _decide(job: TrainingJob, new: cfrec.TrainedModel) -> None:
    kept: set[str] = st.session_state.setdefault("_kept_current", set())
    if job.id in kept:
        st.caption("You kept the current model. This run stays in the list below.")
    problem = st.session_state.pop("_save_problem", None)
    if problem:
        st.error(problem)
    key = f"name-{job.id}"
    st.text_input(
        "Name to store it under",
        f"{job.config.recipe} {datetime.fromtimestamp(job.created, UTC):%Y-%m-%d %H.%M.%S}",
        key=key,
        max_chars=64,
    )
    kind: Literal["primary", "secondary"] = "secondary" if new.advice else "primary"
    with st.container(horizontal=True):
        st.button("Use this model", on_click=_accept, args=[new, key], type=kind, icon=":material/check:", key="accept")
        st.button("Keep the current one", on_click=kept.add, args=[job.id], key="keep", disabled=job.id in kept)


def _accept(new: cfrec.TrainedModel, key: str) -> None:
    """Store a model under the name typed in the field of this key, as it is now: it may have changed since the button was drawn."""
    try:
        folder = model_folder(state.MODELS, st.session_state[key].strip())
        if model_stamp(folder) is None or state.load_stored(folder.name).version != new.version:
            cfrec.save_model(new, folder, overwrite=False)
    except cfrec.CfrecError as error:
        st.session_state["_save_problem"] = f"The new model could not be stored. {words.told(error)}"
        return
    state.use_model(folder.name)
    st.toast(f"All pages show “{folder.name}” now.", icon=":material/check:")


def _changes(new: cfrec.TrainedModel, current: cfrec.TrainedModel) -> None:
    known = set(current.movies["movie_id"])
    both = new.movies[new.movies["movie_id"].isin(known)].nlargest(3, "n_ratings")["movie_id"].tolist()
    if not both or current.source.name != new.source.name:
        st.caption("The two learned from different films: there is nothing to compare film by film.")
        return
    st.markdown("**Most similar films, before and after**")
    neighbours = neighbour_changes(current, new, both, min_ratings=words.WEAK_BELOW)
    if neighbours["old"].equals(neighbours["new"]):
        st.caption("The same in both.")
    else:
        titles = {"title": "Film", "rank": st.column_config.NumberColumn("", width=40), "old": "Current", "new": "New", "movie_id": None}
        show.table(neighbours, "neighbours-before-after", alt="Five most similar films of three films, in both models", columns=titles)
    st.markdown("**Films whose popularity score changed most**")
    movers = bias_movers(current, new, 8, min_ratings=words.WEAK_BELOW)
    movers = movers[movers["change"].abs() >= 0.005]
    if movers.empty:
        st.caption("None changed by more than a hundredth of a star.")
    else:
        show.table(movers, "biggest-movers", alt="Films whose popularity score changed most", columns=_OLD_NEW)
    st.markdown("**Settings that differ**")
    settings = changed_settings(current.config, new.config)
    if settings.empty:
        st.caption("None: the same settings on the same ratings give the same model.")
    else:
        settings = settings.assign(setting=settings["setting"].map(words.SETTINGS), **settings[["old", "new"]].map(words.setting_value))
        columns = {"setting": "Setting", "old": "Current", "new": "New"}
        show.table(settings, "changed-settings", alt="Settings that differ between the two models", columns=columns)


def _guesses(job: TrainingJob, result: JobResult) -> None:
    st.markdown("**Ratings kept aside: what people gave, and what the model guessed**")
    half, one = (f"{result.within[name]:.0%}" for name in ("within_half", "within_one"))
    st.markdown(f"**{one}** of all guesses miss by at most one star, **{half}** by at most half a star.")
    if form.may_be_seen(job):
        data = result.guesses.drop(columns="movie_id")
        show.table(data, "guesses", alt="Held-out ratings beside the guesses of the new model", height=330)
    else:
        st.caption("Who gave what is shown only to the visitor whose file it is.")
    st.markdown("**Can its guesses be believed?**")
    drawing = calibration_chart(result.calibration)
    worst = (result.calibration["predicted"] - result.calibration["actual"]).abs().max()
    alt = f"Ten groups of ratings by guess: guessed and real averages differ by at most {worst:.2f} stars"
    columns = {"predicted": "Guessed, stars", "actual": "Really given, stars"}
    show.chart(drawing, result.calibration, "calibration", alt=alt, columns=columns)
    st.caption(f"Ratings kept aside, in ten groups by guess. The dashed line is perfect; the groups are off by at most {worst:.2f} stars.")


def _downloads(job: TrainingJob, new: cfrec.TrainedModel) -> None:
    stem = f"cfrec-{job.config.recipe}-{job.id}"
    history = loss_points(new.history, [], {}).drop(columns=["label", "label_at"])
    files = [
        (
            "The model, as a zip",
            lambda: pack_model(new),
            f"{stem}.zip",
            "application/zip",
            "To bring back on the Models page, here or elsewhere.",
        ),
        (
            "The losses of each round, as CSV",
            lambda: spreadsheet_safe(history).to_csv(index=False).encode(),
            f"{stem}-history.csv",
            "text/csv",
            None,
        ),
        (
            "The settings, as JSON",
            lambda: json.dumps(job.config.to_dict(), indent=1).encode(),
            f"{stem}-settings.json",
            "application/json",
            None,
        ),
    ]
    for label, data, file_name, mime, explained in files:
        st.download_button(
            label, data, file_name, mime, on_click="ignore", icon=":material/download:", help=explained, key=f"get-{file_name}"
        )
