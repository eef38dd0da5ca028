"""The stored models, and what a visitor does to them: rename, delete, add. What is said about it waits until it is drawn."""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections.abc import Collection
from pathlib import PurePath
from typing import TYPE_CHECKING

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from cfrec.packing import unpack_model
from cfrec.storage import StoredModel, model_folder, model_stamp, rename_model

if TYPE_CHECKING:
    from streamlit.runtime.uploaded_file_manager import UploadedFile

COMPARED = "compare"  # key of the widget that chooses models to compare
_DIALOG, _SAID, _PROBLEM, _UPLOADS = "_models_dialog", "_models_said", "_models_problem", "_models_uploads"


@st.cache_data(max_entries=4, ttl=60, show_spinner="Checking the stored models …")
def _list(folder: str, stamp: object) -> list[StoredModel]:  # noqa: ARG001  # changes with what is stored
    return cfrec.list_models(folder)


def all_models() -> list[StoredModel]:
    """All stored models, the damaged ones too; read again when one was added, renamed or deleted, and once a minute."""
    return _list(str(state.MODELS), model_stamp(state.MODELS))


def unusable(entry: StoredModel) -> str:
    """Why a model cannot be used, and what to do; empty where it can."""
    if entry.problem.startswith("damaged"):
        way_out = "cfrec must be installed anew" if entry.name == state.SHIPPED else "delete it and train it again"
        return f"{entry.problem}. Restore a copy of its folder, or {way_out}."
    if entry.problem:
        return f"{entry.problem}. Try again later."
    try:
        model_folder(state.MODELS, entry.name)
    except cfrec.CfrecError as error:  # named by hand
        return f"{error} Rename it to use it."
    return ""


def say(text: str) -> None:
    """Leave word of what was done."""
    st.session_state[_SAID] = text


def show_said() -> None:
    """Show what was left, once, wherever on the page the visitor is."""
    if _SAID in st.session_state:
        st.toast(st.session_state.pop(_SAID), duration="long")


def _object(error: cfrec.CfrecError, next_step: str = "") -> None:
    st.session_state[_PROBLEM] = words.told(f"{error} {next_step}".strip())


def show_problem() -> None:
    """Show why the last thing asked for was not done, once, where it was asked for."""
    if _PROBLEM in st.session_state:
        st.error(st.session_state.pop(_PROBLEM))


def open_dialog(kind: str, name: str) -> None:
    """Ask about a model."""
    st.session_state[_DIALOG] = (kind, name)


def close_dialog() -> None:
    """Ask no more."""
    st.session_state.pop(_DIALOG, None)
    st.session_state.pop(_PROBLEM, None)


def dialog() -> tuple[str, str]:
    """What is asked, about which model; empty where nothing is."""
    kind, name = st.session_state.get(_DIALOG, ("", ""))
    return kind, name


def _replace_compared(old: str, *new: str) -> None:
    if COMPARED in st.session_state:
        chosen = st.session_state[COMPARED]
        st.session_state[COMPARED] = [name for kept in chosen for name in (new if kept == old else (kept,))]


def rename(old: str, key: str) -> None:
    """Give a model the name in a text field."""
    new = st.session_state[key].strip()
    if new == old:
        close_dialog()
        return
    try:
        rename_model(state.MODELS / old, new)
    except cfrec.CfrecError as error:
        _object(error)
        return
    _replace_compared(old, new)
    if state.model_name() == old:
        state.choose("model", new)
    close_dialog()
    say(f"“{show.plain(old)}” is now called “{show.plain(new)}”.")


def delete(name: str) -> None:
    """Delete a model; who used it goes back to the shipped one."""
    try:
        cfrec.delete_model(state.MODELS / name)
    except cfrec.CfrecError as error:
        _object(error, "Whoever runs this server can look into the folder, and remove it.")
        return
    _replace_compared(name)
    if state.model_name() == name:
        state.choose("model", state.SHIPPED)
    close_dialog()
    say(f"“{show.plain(name)}” was deleted.")


def add(trained: cfrec.TrainedModel, key: str) -> None:
    """Store a model under the name in a text field, unless there is one of this name."""
    name = st.session_state[key].strip()
    try:
        folder = model_folder(state.MODELS, name)
        cfrec.save_model(trained, folder, overwrite=False)
    except cfrec.CfrecError as error:
        _object(error)
        return
    st.session_state[_UPLOADS] = st.session_state.get(_UPLOADS, 0) + 1
    say(f"“{show.plain(name)}” is now among the models.")


def uploader_key() -> str:
    """Key of the uploader: a new one, which is empty, after each model that was added."""
    return f"upload-{st.session_state.get(_UPLOADS, 0)}"


def unpack(file: UploadedFile) -> cfrec.TrainedModel:
    """The model in an uploaded zip. Raises ModelError."""

    def read() -> cfrec.TrainedModel:
        with st.spinner("Checking the model …"):
            return unpack_model(file.getvalue())

    return state.kept().get(("uploaded model", file.file_id), read)


def free_name(file_name: str, taken: Collection[str]) -> str:
    """A name that a model can have and none has yet, after a file's."""
    plain = unicodedata.normalize("NFKD", PurePath(file_name).stem).encode("ascii", "ignore").decode()
    stem = re.sub(r"[^A-Za-z0-9 ._-]+", "-", plain).strip(" ._-")[:60].rstrip(" .") or "model"
    lower = {name.lower() for name in taken}
    return next(name for n in itertools.count(1) if (name := stem if n == 1 else f"{stem} {n}").lower() not in lower)
