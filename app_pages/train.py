"""Train: choose data, recipe and device, watch the network learn, and decide whether to use what it learned."""

from __future__ import annotations

from typing import TYPE_CHECKING

import streamlit as st

import cfrec
from app_pages import _result as result
from app_pages import _run_view as run_view
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _story as story
from app_pages import _train_form as form
from app_pages import _words as words
from cfrec.board import runs_table
from cfrec.checkpoints import Checkpoint
from cfrec.jobs import TrainingJob
from cfrec.plots import loss_drawing, loss_points

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator

_SOON = 0.4  # seconds: what ends so soon is shown at once
RUN_COLUMNS = {
    "run": None,
    "started": st.column_config.DatetimeColumn("Started", format="distance"),
    "data": "Ratings",
    "recipe": "Recipe",
    "changed": "Changed settings",
    "rmse": st.column_config.NumberColumn("Average miss, stars", format="%.4f", help=words.AVERAGE_MISS.help),
    "best_epoch": "Best round",
    "epochs": st.column_config.NumberColumn("Rounds", help=words.ROUNDS.help),
    "device": "Device",
    "seconds": st.column_config.NumberColumn("Time, s", format="%.2f"),
    "outcome": "How it ended",
    "link": st.column_config.LinkColumn("Link", display_text="open"),
}


def start(data: form.Data, config: cfrec.TrainConfig) -> TrainingJob | None:
    """Start a run, or let it wait for its turn, and look at it; if the same is under way already, look at that one."""
    return look_at(TrainingJob(data.load, config, data.title, data=data.key, models=state.MODELS))


def start_gentler(data: form.Data, config: cfrec.TrainConfig) -> None:
    """Start a run with a smaller step size, which the form then has too."""
    st.session_state[f"learning_rate_{config.recipe}"] = config.learning_rate
    start(data, config)


def look_at(job: TrainingJob) -> TrainingJob | None:
    try:
        taken = state.jobs().submit(job)
    except cfrec.CfrecError as error:
        st.toast(words.told(error), icon=":material/error:")
        return None
    taken.wait(_SOON)
    if taken is not job:
        st.toast("The same run is already under way: you see that one.", icon=":material/group:")
    state.choose("run", taken.id)
    return taken


def resume(checkpoint: Checkpoint, unfinished: cfrec.TrainedModel, data: form.Data) -> None:
    """Go on with a run that was cut short."""
    try:
        job = TrainingJob.resuming(checkpoint, unfinished, data.load, data.key)
    except cfrec.CfrecError as error:
        st.toast(words.told(error), icon=":material/error:")
    else:
        look_at(job)


def show_unfinished(chosen: form.Data | None) -> list[str]:
    """The runs that were cut short, each with what can be done about it; returns their ids."""
    unfinished = state.unfinished()
    for checkpoint, trained in unfinished:
        n, of, title = len(trained.history), trained.config.epochs, trained.source.title
        data, problem = None, ""
        try:
            data = form.data_of(trained, chosen)
        except cfrec.CfrecError as error:
            problem = words.told(error)
        with st.container(border=True):
            st.markdown(
                f"A run was cut short: **{words.plain(title)}**, recipe “{words.plain(trained.config.recipe)}”, "
                f"after round {n} of {of}. What it had learned until then is kept."
            )
            if problem:
                st.error(problem, icon=":material/error:")
            elif data is None:
                st.caption(f"To go on with it, choose the same file, {words.plain(title)}, under “Ratings to learn from”.")
            with st.container(horizontal=True):
                st.button(
                    f"Resume from round {n}",
                    on_click=resume,
                    args=[checkpoint, trained, data],
                    icon=":material/resume:",
                    disabled=data is None or state.jobs().is_full(),
                    key=f"resume-{checkpoint.run}",
                )
                st.button("Discard it", on_click=checkpoint.drop, icon=":material/delete:", key=f"discard-{checkpoint.run}")
    return [checkpoint.run for checkpoint, _ in unfinished]


def show_queue() -> None:
    """The runs that wait for their turn."""
    waiting = state.jobs().waiting()
    if not waiting:
        return
    st.header("Waiting for their turn", anchor=False)
    for job, turn in zip(waiting, words.TURNS, strict=False):
        with st.container(horizontal=True, vertical_alignment="center"):
            st.markdown(f"**{words.plain(job.title)}**, recipe “{job.config.recipe}”: {turn}", width="content")
            if state.in_url("run") != job.id:
                st.button("Watch it", on_click=state.choose, args=["run", job.id], type="tertiary", key=f"watch-{job.id}")
            st.button("Take it out", on_click=run_view.withdraw, args=[job], type="tertiary", key=f"withdraw-{job.id}")


def choose_all(preview: DeltaGenerator) -> tuple[form.Data | None, cfrec.TrainConfig | None]:
    """The form; what it lacks, or what does not go together, is said in it."""
    data = config = None
    with st.container(border=True):
        st.header("What to train", anchor=False)
        try:
            data = form.choose_data(preview)
            config = form.choose_config()
            return data, config
        except cfrec.CfrecError as error:
            st.error(words.told(error), icon=":material/error:")
    return None, None


def show_start(data: form.Data | None, config: cfrec.TrainConfig | None) -> TrainingJob | None:
    """The button and what can be said of the run before it; returns the run that it has just started."""
    running = state.jobs().running()
    seconds, problem = None, ""
    if data and config:
        try:
            seconds = form.seconds_needed(config.to_dict(), data.n_users, data.n_movies, max(data.n_ratings * 4 // 5, 1))
        except cfrec.CfrecError as error:
            problem = words.told(error)
    ready = seconds is not None and not state.jobs().is_full()
    icon = ":material/model_training:"
    clicked = st.button("Train", type="primary", icon=icon, disabled=not ready, key="train")
    started = None
    if clicked and ready and data and config:  # as they are now: a callback would have them as they were when the button was drawn
        started = start(data, config)
        state.in_url("run")  # so that the address leads back to it
        if started and not started.snapshot.finished:
            st.rerun()  # so that the whole page tells of it
    if running:
        n_waiting = len(state.jobs().waiting())
        place = f"yours would be {words.TURNS[n_waiting]}" if n_waiting < len(words.TURNS) else "as many wait as may"
        st.caption(f"A run is under way, and {place}." if seconds is not None else "A run is under way.")
        if state.in_url("run") != running.id:
            st.button("Watch it", on_click=state.choose, args=["run", running.id], key="watch")
    if problem:
        st.error(problem, icon=":material/error:")
    elif seconds is None or not data or not config:
        st.caption("Choose what to train first.")
    elif not running:
        about = f"{'about ' if seconds >= 1 else ''}{words.duration(seconds)}"
        st.caption(
            f"{words.plain(data.title)}, recipe “{config.recipe}”: {about} on this machine. The model in use stays until you decide."
        )
    return started


def show_how_it_learned(trained: cfrec.TrainedModel) -> None:
    """The losses of the model in use, before there is a run."""
    if not trained.history:
        st.caption("The model in use was stopped before its first round was over: there is nothing to draw of how it learned.")
        return
    points = loss_points(trained.history, [], {})
    top = 1.02 * float(points["stars"].max())
    st.markdown(f"**How the model in use learned** ({words.plain(trained.source.title)}, recipe “{words.plain(trained.config.recipe)}”)")
    alt = f"Line chart of the average miss by round; the best is round {trained.best_epoch} with {trained.metrics['rmse']:.3f} stars"
    show.chart(loss_drawing(len(trained.history), top), points, "losses-in-use", alt=alt, columns=run_view.CHART_COLUMNS)
    st.caption(
        "Each round it goes through all the ratings, guesses each, and corrects its numbers a little. Press Train to watch a new one."
    )


def show_run(job: TrainingJob, other: cfrec.TrainedModel, data: form.Data | None) -> None:
    """A run beside another model, and what can be done about it."""
    now = job.snapshot
    is_own = now.result is not None and now.result.trained.version == other.version
    comparable = job.title == other.source.title and not is_own
    run_view.show_run(job, run_view.history_before(job, other.history if comparable else []))
    if not now.finished:
        kept = f" It is kept on this server up to round {now.kept_epoch}, should the server stop." if now.kept_epoch else ""
        st.caption(f"Everyone here sees this run, and can stop it. It goes on when this tab is closed; its address leads back to it.{kept}")
    elif now.error:
        st.error(f"The run did not finish. {words.told(now.error)}", icon=":material/error:")
    elif now.result and now.result.trained.advice:
        trained, gentler = now.result.trained, job.config.gentler()
        steps = trained.config.method == "adam"  # the other method takes none: the library's own advice is what helps
        advice = story.tell_advice(trained.outcome, trained.best_epoch, gentler.learning_rate) if steps else trained.advice
        st.warning(advice, icon=":material/lightbulb:")
        if steps and trained.outcome != "stopped" and data and data.title == job.title:
            st.button(
                f"Try again with a step size of {gentler.learning_rate:g}", on_click=start_gentler, args=[data, gentler], key="gentler"
            )


def show_runs() -> None:
    jobs = state.jobs().all()
    if not jobs:
        return
    st.header("Runs since the server started", anchor=False)
    table = runs_table(jobs)
    table["changed"] = [
        ", ".join(f"{words.SETTINGS[name]}: {words.setting_value(value)}" for name, value in changed.items())
        for changed in table["changed"]
    ]
    table["outcome"] = table["outcome"].map(lambda outcome: words.OUTCOMES.get(outcome, outcome))
    table["link"] = "?run=" + table["run"]
    show.table(table, "runs", alt="The latest runs with their settings and results", columns=RUN_COLUMNS)


st.title("Train it yourself", anchor=False)
st.markdown("The network starts knowing nothing. Round by round it guesses ratings, sees how far it missed, and corrects its numbers.")
top = st.container(horizontal=True, vertical_alignment="center")
cut_short = st.container()
form.wait_until_warm()
model = state.model_in_use()
board = state.jobs()
told_of = board.running()
wanted = state.in_url("run")
job = board.get(wanted) if wanted else None
if job is None and (job := board.running()):
    state.choose("run", job.id)
    state.in_url("run")
left, right = st.columns([3, 2], gap="large")
with left:
    run, preview = st.container(), st.container()
with right:
    data, config = choose_all(preview)
with top:
    job = show_start(data, config) or job
with cut_short:
    unfinished = show_unfinished(data)
with run:
    if job:
        other = result.compared_with(job, model)
        show_run(job, other, data)
        if job.snapshot.finished:
            result.show_result(job, other, in_use=model)
    else:
        if wanted and wanted not in unfinished:
            st.info("The run of this address is no longer kept: only the latest are, until the server restarts.", icon=":material/history:")
        if "_own" not in st.session_state or st.session_state["data"] != form.OWN:  # else what the file says stands here
            show_how_it_learned(model)
show_queue()
show_runs()
if told_of and told_of.snapshot.finished:  # meanwhile, so that what is said above of a run under way is not true any more
    st.rerun()
