"""Models: what is stored, side by side; use, rename, download, upload, delete."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _stored as stored
from app_pages import _words as words
from cfrec.comparison import differing_settings, groups_by_test, miss_by_round, overview, readable_top
from cfrec.packing import pack_model
from cfrec.plots import run_curves
from cfrec.storage import StoredModel

MOST_COMPARED = 4
NAME_HELP = "Up to 64 plain letters, digits, spaces, dots, dashes and underscores; the first and the last a letter or digit."
SETTING, TERM = "(setting)", "(technical term)"  # names of columns that no model can have
OVERVIEW = {
    "model": st.column_config.TextColumn("Model", pinned=True, width="medium"),
    "dataset": st.column_config.TextColumn("Learned from"),
    "recipe": st.column_config.TextColumn(words.RECIPE.label, help=words.RECIPE.help),
    "rmse": st.column_config.NumberColumn(f"{words.AVERAGE_MISS.label}, stars", help=words.AVERAGE_MISS.help, format="%.3f"),
    "rounds": st.column_config.NumberColumn(words.ROUNDS.label, help=words.ROUNDS.help, format="localized"),
    "best_epoch": st.column_config.NumberColumn(words.BEST_ROUND.label, help=words.BEST_ROUND.help, format="localized"),
    "n_factors": st.column_config.NumberColumn(words.TASTE_NUMBERS.label, help=words.TASTE_NUMBERS.help, format="localized"),
    "fit_seconds": st.column_config.NumberColumn(f"{words.FIT_TIME.label}, s", help=words.FIT_TIME.help, format="%.2f"),
    "device": st.column_config.TextColumn(words.DEVICE.label, help=words.DEVICE.help),
    "created": st.column_config.TextColumn("Trained on"),
    "n_movies": st.column_config.NumberColumn("Films", format="localized"),
    "n_users": st.column_config.NumberColumn("People", format="localized"),
    "n_train": st.column_config.NumberColumn(words.LEARNED_FROM.label, help=words.LEARNED_FROM.help, format="localized"),
    "n_valid": st.column_config.NumberColumn(words.HELD_OUT.label, help=words.HELD_OUT.help, format="localized"),
}
CURVES = {
    "model": st.column_config.TextColumn("Model"),
    "epoch": st.column_config.NumberColumn("Round", format="localized"),
    "stars": st.column_config.NumberColumn(f"{words.AVERAGE_MISS.label}, stars", help=words.AVERAGE_MISS.help, format="%.4f"),
}


def show_in_use(usable: Collection[str]) -> None:
    name, before = state.model_name(), state.model_before()
    with st.container(horizontal=True, vertical_alignment="center"):
        if name in usable:
            st.markdown(f"You are using **{show.plain(name)}**.", width="content")
        else:
            st.error(f"The model you were using, “{show.plain(name)}”, is damaged or no longer here. Choose another one below.")
        if before and before != name and before in usable:
            st.button(f"Undo: back to {show.plain(before)}", icon=":material/undo:", on_click=state.undo_use, key="undo", type="tertiary")


def summary(entry: StoredModel) -> str:
    facts = entry.manifest
    parts = [
        f"average miss {words.stars(facts['metrics']['rmse'])}",
        show.plain(facts["dataset"]["title"]),
        f"recipe {show.plain(facts['config']['recipe'])}",
        f"trained {show.plain(facts['created'][:10])} in {words.duration(facts['fit_seconds'])}",
    ]
    outcome = facts["outcome"]
    return " · ".join(parts if outcome == "completed" else [*parts, words.OUTCOMES.get(outcome, show.plain(outcome))])


def show_entry(entry: StoredModel, *, used: bool) -> None:
    problem, name = stored.unusable(entry), entry.name
    with st.container(border=True, gap="small"):
        about, actions = st.columns([5, 4], vertical_alignment="center")
        with about.container(gap="xsmall"):
            with st.container(horizontal=True, vertical_alignment="center", gap="small"):
                st.markdown(f"**{show.plain(name)}**", width="content")
                if used:
                    st.badge("in use", color="green")
                if name in state.WITH_CFREC:
                    st.badge("ships with cfrec", color="gray")
                if problem:
                    st.badge("cannot be used", color="red")
            st.caption(words.told(problem) if problem else summary(entry))
            if name in state.WITH_CFREC:
                st.caption("It cannot be renamed or deleted, so that there is always a model to start from.")
        with actions, st.container(horizontal=True, horizontal_alignment="right", gap="xsmall"):
            show_actions(entry, usable=not problem, used=used)


def show_actions(entry: StoredModel, *, usable: bool, used: bool) -> None:
    name = entry.name
    if usable and not used:
        st.button("Use", icon=":material/check:", on_click=state.use_model, args=[name], key=f"use-{name}")
    if usable:
        st.download_button(
            "Download",
            lambda: pack_model(cfrec.load_model(entry.path)),
            file_name=f"{name}.zip",
            mime="application/zip",
            on_click="ignore",
            type="tertiary",
            icon=":material/download:",
            key=f"zip-{name}",
        )
    if name not in state.WITH_CFREC:
        for kind, icon in (("Rename", "edit"), ("Delete", "delete")):
            st.button(
                kind,
                icon=f":material/{icon}:",
                on_click=stored.open_dialog,
                args=[kind, name],
                type="tertiary",
                key=f"{kind.lower()}-{name}",
            )


def show_upload(names: Collection[str]) -> None:
    with st.expander("Upload a model"):
        file = st.file_uploader("A zip that was downloaded from cfrec, here or elsewhere", type="zip", key=stored.uploader_key())
        if file is None:
            return
        try:
            trained = stored.unpack(file)
        except cfrec.CfrecError as error:
            st.error(words.told(error))
            return
        key = f"upload-name-{file.file_id}"
        with st.form("upload", border=False):
            st.markdown(
                f"It learned from **{show.plain(trained.source.title)}**: {words.plural(trained.n_movies, 'film')}, rated by "
                f"{trained.n_users:,} people. Its average miss is {words.stars(trained.metrics['rmse'])}."
            )
            st.text_input("Name", value=stored.free_name(file.name, names), max_chars=64, help=NAME_HELP, key=key)
            stored.show_problem()
            st.form_submit_button("Add to the models", type="primary", icon=":material/add:", on_click=stored.add, args=[trained, key])


def show_dialog(names: Collection[str]) -> None:
    kind, name = stored.dialog()
    if kind and name not in names:  # another visitor was faster
        stored.close_dialog()
        st.error(f"“{show.plain(name)}” is no longer here: someone else has renamed or deleted it. See what is in the list now.")
    elif kind == "Rename":
        st.dialog(f"Rename “{show.plain(name)}”", on_dismiss=stored.close_dialog)(show_rename)(name)
    elif kind == "Delete":
        st.dialog(f"Delete “{show.plain(name)}”?", on_dismiss=stored.close_dialog)(show_delete)(name)


def show_rename(name: str) -> None:
    if not stored.dialog()[0]:
        st.rerun()
    key = f"new-name-{name}"
    with st.form("rename", border=False):
        st.text_input("New name", value=name, max_chars=64, help=NAME_HELP, key=key)
        stored.show_problem()
        with st.container(horizontal=True):
            st.form_submit_button("Rename", type="primary", on_click=stored.rename, args=[name, key], key="rename-now")
            st.form_submit_button("Cancel", on_click=stored.close_dialog, key="rename-cancel")


def show_delete(name: str) -> None:
    if not stored.dialog()[0]:
        st.rerun()
    st.markdown("It is deleted **for everyone** who uses this server, and cannot be brought back.")
    if name == state.model_name():
        st.markdown(f"You are using it: you will go back to **{state.SHIPPED}**, the model that ships with cfrec.")
    stored.show_problem()
    with st.container(horizontal=True):
        st.button("Delete it", type="primary", icon=":material/delete:", on_click=stored.delete, args=[name], key="delete-now")
        st.button("Keep it", on_click=stored.close_dialog, key="delete-cancel")


def show_side_by_side(models: Sequence[StoredModel]) -> None:
    st.header("Side by side", anchor=False)
    table = overview(models)
    show.table(table, "models", alt="One row a stored model: what it learned from, its settings and its average miss", columns=OVERVIEW)
    names = [entry.name for entry in models]
    latest = [entry.name for entry in sorted(models, key=lambda entry: str(entry.manifest["created"]), reverse=True)]
    usual = list(dict.fromkeys([state.model_name(), *latest]))[:3]  # the one in use, and the latest others
    chosen = st.multiselect(
        "Models to compare",
        names,
        default=None if stored.COMPARED in st.session_state else [name for name in names if name in usual],
        max_selections=MOST_COMPARED,
        key=stored.COMPARED,
        bind="query-params",
        persist_state="session",
        placeholder="Choose two to four",
    )
    compared = [entry for entry in models if entry.name in chosen]
    if len(compared) < 2:
        st.caption("Choose at least two, and how they learned and were set is compared here. Train another one, or upload one, if need be.")
        return
    show_tests(groups_by_test(compared))
    curves, settings = st.columns([5, 6], gap="large")
    with curves:
        show_curves(compared)
    with settings:
        show_settings(compared)


def show_tests(groups: list[list[str]]) -> None:
    if len(groups) > 1:
        alike = [" and ".join(f"“{show.plain(name)}”" for name in group) for group in groups if len(group) > 1]
        st.warning(
            "These models were not all tested on the same ratings: a lower average miss may only mean an easier test. "
            + (f"Tested alike, and fit to be compared: {'; '.join(alike)}." if alike else "No two of them can be compared by it.")
        )


def show_settings(compared: Sequence[StoredModel]) -> None:
    st.markdown("**Settings that differ**")
    table = differing_settings(compared)
    if table.empty:
        st.caption("None: these models were trained with the same settings.")
        return
    table.insert(0, SETTING, [words.SETTINGS.get(name, name) for name in table.index])
    table[TERM] = table.index
    columns = {SETTING: st.column_config.TextColumn("Setting", pinned=True, width=190), TERM: st.column_config.TextColumn("Technical term")}
    columns |= {entry.name: st.column_config.TextColumn(entry.name, width=100) for entry in compared}
    show.table(table, "settings", alt="One row a setting that differs, one column a model", columns=columns, height="content")


def show_curves(compared: Sequence[StoredModel]) -> None:
    st.markdown(f"**How they learned: {words.AVERAGE_MISS.label.lower()} after each round**", help=words.AVERAGE_MISS.help)
    points, top = miss_by_round(compared), readable_top(compared)
    if points.empty:
        st.caption("Nothing: these models were stopped before their first round was over.")
        return
    drawn = miss_by_round(compared, top)
    ends = points.groupby("model", sort=False)["stars"].agg(["first", "min"])
    falls = [f"{name}: from {first:.2f} down to {least:.2f} stars." for name, first, least in ends.itertuples()]
    alt = " ".join(["Line chart of the average miss by round.", *falls])
    show.chart(run_curves(drawn), points, "learning", alt=alt, columns=CURVES)
    if len(drawn) < len(points):
        st.caption(f"Rounds that missed by more than {top:.2f} stars lie above the picture; the table has them.")


st.title("Models", anchor=False)
st.markdown(
    "Each model is what one training run learned. Models are **stored on this server and shared**: everyone who uses it sees this list, "
    "and can use, rename or delete what is in it. Which one you use is your own choice, and changes nothing for others."
)
entries = stored.all_models()
loadable = [entry for entry in entries if not stored.unusable(entry)]
damaged = [entry for entry in entries if stored.unusable(entry)]
stored.show_said()
with st.container():  # always there, so that what follows stays in its place
    show_dialog([entry.name for entry in entries])
show_in_use([entry.name for entry in loadable])
with st.container():
    for listed in [*loadable, *damaged]:
        show_entry(listed, used=listed.name == state.model_name())
show_upload([entry.name for entry in entries])
if loadable:
    show_side_by_side(loadable)
