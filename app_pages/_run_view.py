"""A run as it goes on: progress, the chart of losses, the sentence under it, and the buttons."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import ceil, isfinite, log, sqrt
from typing import TYPE_CHECKING

import streamlit as st

from app_pages import _show as show
from app_pages import _state as state
from app_pages import _story as story
from app_pages import _words as words
from cfrec.jobs import READING, WAITING, JobSnapshot, TrainingJob
from cfrec.plots import learning_rate_chart, learning_rates, loss_drawing, loss_points
from cfrec.trained import EpochMetrics

if TYPE_CHECKING:
    import pandas

POLL = 0.5  # seconds between updates: sooner ones would cut off, where many watch, those that are still being drawn
_PACE, _SHOW, _EACH = 0.3, 4.0, 20  # seconds a round is drawn for, at most, and all of them; at most this many rounds are all drawn
CHART_COLUMNS = {
    "series": "Of",
    "epoch": st.column_config.NumberColumn("Round", help=words.ROUNDS.help),
    "stars": st.column_config.NumberColumn("Average miss, stars", help=words.AVERAGE_MISS.help, format="%.4f"),
    "loss": st.column_config.NumberColumn("Mean squared error, stars²", format="%.4f"),
    "label": None,
    "label_at": None,
}
_SIZE_COLUMNS = {
    "epoch": CHART_COLUMNS["epoch"],
    "learning_rate": st.column_config.NumberColumn(words.LEARNING_RATE.label, help=words.LEARNING_RATE.help, format="%.6f"),
}


def rounds_drawn(job: TrainingJob, now: float) -> int:
    """How many rounds of a run are drawn at a time: however fast they come, a person can watch them come."""
    known = len(job.snapshot.history)
    if job.id in st.session_state.get("_skipped", ()):
        return known
    return min(known, int((now - job.snapshot.training_since) / _pace(job)))


def _pace(job: TrainingJob) -> float:
    return min(_PACE, _SHOW / job.config.epochs)


def is_drawn(job: TrainingJob) -> bool:
    """Whether a run is over and all of it has been drawn."""
    return job.snapshot.finished and rounds_drawn(job, time.time()) == len(job.snapshot.history)


def show_run(job: TrainingJob, before: Sequence[EpochMetrics]) -> None:
    """Draw a run; until all of it is drawn, again and again by itself. The whole page follows when it begins, ends, and is all drawn."""
    phase, over = job.snapshot.phase, is_drawn(job)

    often = min(POLL, 0.8 * _pace(job)) if job.config.epochs <= _EACH else POLL

    @st.fragment(run_every=None if over else often)
    def drawn_again() -> None:
        _draw(job, before)
        if (job.snapshot.phase, is_drawn(job)) != (phase, over):
            st.rerun()

    drawn_again()


def _draw(job: TrainingJob, before: Sequence[EpochMetrics]) -> None:
    now = job.snapshot
    n_drawn = rounds_drawn(job, time.time())
    history = now.history[:n_drawn]
    over = now.finished and n_drawn == len(now.history)
    _progress(job, now, n_drawn, over)
    if now.phase == WAITING:
        st.caption("It begins by itself when the run before it is over. You can close this tab meanwhile.")
    elif now.phase == READING or (now.finished and not now.baselines):
        st.skeleton(400) if not now.finished else None
    else:
        _chart(job, now, history, before)
    result = now.result
    if over and result:
        best, trained = result.trained.best_epoch, result.trained
        st.markdown(story.tell_end(trained.outcome, history, best, trained.metrics["rmse"], now.baselines))
    elif now.baselines:
        st.markdown(story.tell_round(history, now.baselines))
    _buttons(job, now, over)
    if history and st.toggle("Show the step size", help=words.LEARNING_RATE.help, key="step_size", persist_state="session"):
        sizes = learning_rates(history)
        alt = f"Line chart: the step size of each round, {sizes['learning_rate'].iloc[-1]:.4g} in the latest"
        show.chart(learning_rate_chart(sizes), sizes, "step-size", alt=alt, columns=_SIZE_COLUMNS)


def _progress(job: TrainingJob, now: JobSnapshot, n_drawn: int, over: bool) -> None:
    done, total = now.fetched
    if now.error:
        st.progress(0.0, f"**{words.plain(job.title)}** · did not finish")
    elif now.phase == WAITING:
        st.progress(0.0, f"**{words.plain(job.title)}** · waits for its turn: {_turn(job)}")
    elif now.phase == READING:
        share = done / total if total else 0.0
        text = f"Downloading · {words.size(done)} of {words.size(total)}" if total else "Reading the ratings …"
        st.progress(share, f"**{words.plain(job.title)}** · {text}")
    elif over:
        rounds = words.plural(len(now.history), "round")
        st.progress(
            1.0, f"**{words.plain(job.title)}** · {rounds} in {words.duration(now.result.trained.fit_seconds) if now.result else '?'}"
        )
    elif n_drawn == job.config.epochs:
        st.progress(1.0, f"**{words.plain(job.title)}** · finishing")
    else:
        parts = [f"**{words.plain(job.title)}** · round {min(n_drawn + 1, job.config.epochs)} of {job.config.epochs}"]
        left = job.seconds_left()
        if job.paused:
            parts.append("paused")
        elif job.stopping:
            parts.append("stopping")
        elif left is not None:
            parts.append(f"{'about ' if left >= 1 else ''}{words.duration(left)} left")
        if now.history:
            parts.append(f"{now.history[-1].ratings_per_second:,.0f} ratings a second")
        st.progress(n_drawn / job.config.epochs, " · ".join(parts))


def _turn(job: TrainingJob) -> str:
    waiting = state.jobs().waiting()
    return words.TURNS[waiting.index(job)] if job in waiting else "now"


def _chart(job: TrainingJob, now: JobSnapshot, history: Sequence[EpochMetrics], before: Sequence[EpochMetrics]) -> None:
    top = _top(now, history)

    def points() -> pandas.DataFrame:
        return loss_points(history, before, {words.BASELINES[name]: loss for name, loss in now.baselines.items()}, top)

    latest = (
        f"after round {len(history)} of {job.config.epochs} the average miss is {sqrt(history[-1].valid_loss):.3f} stars"
        if history
        else "no round yet"
    )
    show.drawn_once(
        lambda: (loss_drawing(job.config.epochs, top), points()),
        points,
        "losses",
        version=f"{job.id} {len(history)} {hash(tuple(before))}",
        alt=f"Line chart of the average miss by round: {latest}",
        columns=CHART_COLUMNS,
    )


def _top(now: JobSnapshot, history: Sequence[EpochMetrics]) -> float:
    """Highest miss that is drawn: a little above always guessing the same, or above the best round, in steps, where that is still worse."""
    top = 1.04 * sqrt(now.baselines["mean"])
    best = min([m.valid_loss for m in history], default=0.0)
    return top if best <= top**2 or not isfinite(best) else top * 1.5 ** ceil(log(sqrt(best) / top, 1.5))


def _buttons(job: TrainingJob, now: JobSnapshot, over: bool) -> None:
    with st.container(horizontal=True):
        if now.phase == WAITING:
            st.button("Leave the queue", on_click=withdraw, args=[job], icon=":material/close:", key="leave")
        elif not now.finished:
            if job.paused:
                st.button("Go on", on_click=job.go_on, icon=":material/play_arrow:", key="go-on")
            else:
                st.button("Pause", on_click=job.pause, icon=":material/pause:", key="pause", disabled=job.stopping or now.phase == READING)
            label = "Stop" if now.phase == READING else "Stop and keep the best"
            st.button(label, on_click=job.stop, icon=":material/stop:", key="stop", disabled=job.stopping)
        elif not over:
            st.button("Skip to the end", on_click=_skip, args=[job.id], icon=":material/skip_next:", key="skip")


def withdraw(job: TrainingJob) -> None:
    """Take a run out of the queue, and look at another."""
    state.jobs().withdraw(job)
    if state.in_url("run") == job.id:
        state.choose("run", None)


def _skip(job_id: str) -> None:
    st.session_state["_skipped"] = {*st.session_state.get("_skipped", ()), job_id}


def history_before(job: TrainingJob, in_use: Sequence[EpochMetrics]) -> Sequence[EpochMetrics]:
    """The losses to compare a run with, so far as it goes itself: of the run before it on the same data, else of the model in use."""
    earlier = [other for other in state.jobs().all() if other.created < job.created and other.title == job.title and other.snapshot.history]
    return (earlier[0].snapshot.history if earlier else in_use)[: job.config.epochs]  # what lay beyond the axis would make it shrink
