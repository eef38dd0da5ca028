"""What this visitor looks at: the model in use, the film picked; and what all visitors share: loaded models, ratings, runs."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from functools import cache, wraps
from pathlib import Path
from threading import RLock
from typing import TypeVar

import streamlit as st
from streamlit import net_util

import cfrec
from app_pages._words import plain, told
from cfrec import warm
from cfrec.board import JobBoard
from cfrec.checkpoints import Checkpoint, sweep_checkpoints, unfinished_runs
from cfrec.datasets import DATASETS, find_local, sweep_downloads
from cfrec.errors import ShortageError
from cfrec.keeping import Keeper
from cfrec.logs import set_up
from cfrec.storage import model_folder, model_stamp, sweep

logger = logging.getLogger("cfrec.app")

MODELS = Path(os.environ.get("CFREC_MODELS") or Path(__file__).parent.parent / "models")
SHIPPED = "ml-100k"
WITH_CFREC = {SHIPPED: "films up to 1998", "ml-latest-small": "films up to 2018"}  # models that come with the project, the first by default
BY_VERSION = {cfrec.TrainedModel: lambda trained: trained.version}  # for caches of what is worked out from a model
_LARGEST_SHOWN = 2_000_000  # ratings: a data set that is read while a page waits
_OPEN_FILES = 10_240  # macOS allows no more, and by itself 256
_KEPT_BYTES, _MOST_KEPT = 1 << 30, 32  # the smallest machines that apps are given have 2 GB


Made = TypeVar("Made")


def cached_for_good(make: Callable[[], Made]) -> Callable[[], Made]:
    """Make something once in a process, for all visitors. Streamlit's caches any visitor can have cleared: by a message no page sends."""
    lock, remembered = RLock(), cache(make)

    @wraps(make)
    def made() -> Made:
        with lock:
            return remembered()

    made.cache_clear = remembered.cache_clear  # as those of functools have it, for tests
    return made


@cached_for_good
def kept() -> Keeper:
    """The large things that pages read: models, stored or uploaded, and ratings; those used last stay in memory, for all visitors."""
    return Keeper(_KEPT_BYTES, _MOST_KEPT)


@cached_for_good
def set_out() -> None:
    """Once in a process, after the first page is drawn: set the log up, clear away what a dead server left, import what pages need."""
    set_up()
    # Each time a page of another site asks to be let in, Streamlit would ask a third site which address this machine has: all wait.
    net_util.get_external_ip = lambda: None
    _allow_many_visitors()
    jobs()
    warm.warm_up()


def _allow_many_visitors() -> None:
    """Raise the number of files and sockets that may be open: a visitor takes four, and one who has left three for a while."""
    if sys.platform == "win32":  # knows no such limit
        return
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def load_stored(name: str) -> cfrec.TrainedModel:
    """A stored model, read once for all visitors. Raises ModelError."""
    return _load(model_folder(MODELS, name))


def _load(folder: Path) -> cfrec.TrainedModel:
    return kept().get(("model", folder, model_stamp(folder)), lambda: cfrec.load_model(folder))


@cached_for_good
def jobs() -> JobBoard:
    """The runs, shared by all visitors; made when the server starts, which is when what dead ones left is cleared away."""
    sweep(MODELS)
    sweep_checkpoints(MODELS)
    sweep_downloads()
    board = JobBoard()
    board.close_at_exit()
    return board


def unfinished() -> list[tuple[Checkpoint, cfrec.TrainedModel]]:
    """The runs that were cut short, the latest first; one whose checkpoint is damaged is dropped."""
    found = []
    for checkpoint in unfinished_runs(MODELS):
        try:
            found.append((checkpoint, _load(checkpoint.folder)))
        except ShortageError as error:
            logger.warning("run %s: %s", checkpoint.run, error)
        except cfrec.CfrecError as error:
            logger.warning("run %s cannot be resumed: %s", checkpoint.run, error)
            checkpoint.drop()
    return found


def in_url(name: str) -> str | None:
    """What the visitor chose under this name: from the address when it is new there, else from before; kept in both."""
    given, before = st.query_params.get(name), f"_{name}_in_url"
    if given is not None and given != st.session_state.get(before):
        st.session_state[f"_{name}"] = given
    chosen: str | None = st.session_state.get(f"_{name}")
    if chosen is not None and chosen != given:
        st.query_params[name] = chosen
    st.session_state[before] = chosen
    return chosen


def choose(name: str, value: object) -> None:
    """Choose a value under a name that ``in_url`` reads; None: nothing."""
    st.session_state[f"_{name}"] = None if value is None else str(value)
    if value is None:
        st.query_params.pop(name, None)


def model_name() -> str:
    """Name of the stored model that this visitor uses."""
    return in_url("model") or SHIPPED


def use_model(name: str) -> None:
    """From now on this visitor uses another stored model; ``undo_use`` goes back."""
    before = model_name()
    if name != before:
        st.session_state["_model_before"] = before
        choose("model", name)


def undo_use() -> str | None:
    """Go back to the model used before; its name, or None if there was no model before."""
    before: str | None = st.session_state.pop("_model_before", None)
    if before:
        choose("model", before)
    return before


def model_before() -> str | None:
    """Name of the model that ``undo_use`` goes back to; None if there was no model before, or it has been deleted since."""
    before: str | None = st.session_state.get("_model_before")
    return before if before and is_stored(before) else None


def is_stored(name: str) -> bool:
    """Whether there is a model of this name, whole or damaged."""
    try:
        return model_stamp(model_folder(MODELS, name)) is not None
    except cfrec.CfrecError:  # no proper name
        return False


def model_in_use() -> cfrec.TrainedModel:
    """The model in use; where it cannot be loaded, the page says why, offers the shipped one, and ends."""
    name = model_name()
    try:
        return load_stored(name)
    except cfrec.CfrecError as error:
        problem = told(error)
    if name != SHIPPED and not is_stored(name):
        problem = "There is none of this name on this server: it was renamed or deleted, or the address is mistyped."
    st.error(f"The model “{plain(name)}” cannot be shown. {problem}")
    if name != SHIPPED:
        st.button("Use the model that ships with cfrec", on_click=use_model, args=[SHIPPED], type="primary")
    st.stop()


def local_ratings(name: str) -> cfrec.Ratings | None:
    """A data set's ratings, if they are on this machine and few enough to read while a page waits. Raises DataError."""
    path = find_local(name) if name in DATASETS else None
    if path is None or DATASETS[name].n_ratings > _LARGEST_SHOWN:
        return None

    def read() -> cfrec.Ratings:
        with st.spinner("Reading the ratings …"):
            return cfrec.load_dataset(name)

    return kept().get(("ratings", path, path.stat().st_mtime), read)


def ratings_of(trained: cfrec.TrainedModel) -> cfrec.Ratings | None:
    """The very ratings that a model learned from, if they are on this machine; those of another set of the same name are not."""
    try:
        ratings = local_ratings(trained.source.name)
    except cfrec.CfrecError:  # damaged: the Train page says so
        return None
    return ratings if ratings is not None and _learned_from(trained, ratings.fingerprint(), ratings) else None


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=BY_VERSION)
def _learned_from(trained: cfrec.TrainedModel, fingerprint: int, _ratings: cfrec.Ratings) -> bool:  # noqa: ARG001  # the cache's key
    return trained.split is not None and _ratings.split(*trained.split)[0].fingerprint() == trained.fingerprint


@st.cache_resource(max_entries=8, show_spinner=False, hash_funcs=BY_VERSION)
def _ids(trained: cfrec.TrainedModel) -> dict[str, object]:
    return {str(movie_id): movie_id for movie_id in trained.movies["movie_id"].tolist()}


def film_picked(trained: cfrec.TrainedModel) -> object | None:
    """Id of the film that this visitor looks at, on whatever page; None if this model has no such film."""
    chosen = in_url("film")
    return None if chosen is None else _ids(trained).get(chosen)


def pick_film(movie_id: object) -> None:
    """Look at another film."""
    choose("film", movie_id)
