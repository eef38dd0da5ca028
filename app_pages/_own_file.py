"""A visitor's own file of ratings: what it says about itself before anything is trained on it, and what to do about what looks odd."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import streamlit as st

import cfrec
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from cfrec.errors import ColumnsError
from cfrec.ratings import Source
from cfrec.readers import Preview, peek
from cfrec.report import ReadReport

if TYPE_CHECKING:
    from streamlit.delta_generator import DeltaGenerator
    from streamlit.runtime.uploaded_file_manager import UploadedFile

OWN = "own"
_MOST_COLUMNS = 24  # that are shown one by one
_MOST_BARS = 21
_AS_IT_WAS = {"not_rated": None, "columns": None}


@dataclass(frozen=True)
class Choice:
    """How this visitor wants a file to be read: what tells one reading of it from another."""

    file: str
    drop_bad: bool = False
    not_rated: float | None = None
    columns: tuple[tuple[str, int | None], ...] | None = None

    @property
    def key(self) -> Hashable:
        """What the ratings are kept under."""
        return (OWN, self)


def choose_own(preview: DeltaGenerator) -> tuple[Hashable, cfrec.Ratings] | None:
    """What the ratings are kept under, and the ratings; None until there are some that can be learned from.

    What is in the file, and what each column was taken for, is shown in ``preview``. Raises CfrecError where it cannot be read.
    """
    file = st.file_uploader(
        "A table of ratings",
        help="CSV, TSV, JSON or Parquet, also compressed, or a zip of one: a row for each rating, with columns for person, film and stars, "
        "or a row for each person and a column for each film. Titles, genres and times are used if they are there. Who gave what stays in "
        "this server's memory, and is shown to nobody else. What is learned from it is seen by everybody here, with the file's name, the "
        "titles and the people's ids; of a long run that is cut short it is kept on this server until the run is resumed or discarded.",
        key="own_file",
        on_change=_forget,
    )
    choice: Choice | None = st.session_state.get("_own")  # how the file was read last
    if file is not None:
        choice = Choice(file.file_id, _drop_bad(), st.session_state.get("_not_rated"), st.session_state.get("_columns"))
    if choice is None:
        return None
    st.session_state["_own"] = choice
    try:
        ratings = state.kept().get(choice.key, lambda: _read(file, choice))
    except cfrec.CfrecError as error:
        if file is not None:
            with preview:
                _show_columns(file, choice)
        if isinstance(error, ColumnsError):
            raise cfrec.CfrecError(f"{error.problem} Say under “What is in which column?” which is which.") from error
        raise
    _show_notes(ratings, choice, can_change=file is not None)
    with preview:
        _show_understood(ratings)
        if file is not None and not any(note.kind == "pivot" for note in ratings.report.notes):
            _show_columns(file, choice)
    return None if ratings.n_users == 1 else (choice.key, ratings)


def _forget() -> None:
    """Another file is chosen: nothing that was chosen for the last one holds."""
    for key in ("_own", "_not_rated", "_columns"):
        st.session_state.pop(key, None)


def _drop_bad() -> bool:
    return st.toggle("Leave out bad rows", help="Else the first bad row is named, with its line and what is wrong with it.", key="drop_bad")


def _read(file: UploadedFile | None, choice: Choice) -> cfrec.Ratings:
    if file is None:
        raise cfrec.CfrecError("Your file is no longer in this server's memory: others needed the room. Choose it again.")
    with st.spinner("Reading the file …"):
        file.seek(0)
        return cfrec.read_ratings(
            file,
            None if choice.columns is None else dict(choice.columns),
            drop_bad=choice.drop_bad,
            not_rated=choice.not_rated,
            source=Source(f"own:{PurePath(file.name).stem}", file.name),
        )


def _show_understood(ratings: cfrec.Ratings) -> None:
    """The first rows, and the scale with its picture."""
    st.header("What your file says", anchor=False)
    st.markdown("**The first rows, as they were understood**")
    show.table(ratings.head(5), "first-rows", alt="The first ratings of the file: person, film, stars")
    st.markdown("**How often each number of stars is given**")
    counts = ratings.histogram()
    drawing = {
        "mark": {"type": "bar", "tooltip": True},
        "encoding": {
            "x": {"field": "stars", "type": "quantitative" if len(counts) > _MOST_BARS else "ordinal", "title": "Stars"},
            "y": {"field": "n_ratings", "type": "quantitative", "title": "Ratings", "axis": {"tickCount": 4, "format": "~s"}},
        },
        "height": 180,
    }
    drawing["encoding"]["x"]["axis"] = {"labelAngle": 0}
    alt = f"Bar chart of how often each number of stars is given, from {ratings.scale[0]:g} to {ratings.scale[1]:g}"
    show.chart(drawing, counts, "stars-of-own-file", alt=alt)


def _show_notes(ratings: cfrec.Ratings, choice: Choice, *, can_change: bool) -> None:
    """What was left out and why, what looks odd, and the choice beside it."""
    report, (lowest, highest, _) = ratings.report, ratings.scale
    scale = f"stars from {lowest:g} to {highest:g}" if highest > lowest else "no stars to tell apart"
    people = "one person" if ratings.n_users == 1 else f"{ratings.n_users:,} people"
    size = f"{words.plural(len(ratings), 'rating')} by {people} of {words.plural(ratings.n_movies, 'film')}"
    st.caption(f"**{words.plain(ratings.source.title)}**: {size}, {scale}")
    if report.n_rows > report.n_used:
        reasons = "".join(f"; {words.plain(rule)}: {words.plural(count, 'row')}" for rule, count in report.reasons.items())
        repeated = f", {report.n_duplicates:,} repeated (the latest was kept)" if report.n_duplicates else ""
        st.caption(f"Of {words.plural(report.n_rows, 'row')} {report.n_used:,} are used, {report.n_dropped:,} left out{repeated}{reasons}.")
    for k, note in enumerate(report.notes):
        if note.odd:
            text = _guessed(report) if note.kind == "guess" else words.told(note.text)
            st.warning(text, icon=":material/help:")
        else:
            st.caption(words.told(note.text))
        if note.change and can_change:
            st.button(_label(note.change), on_click=_change, args=[choice, note.change], key=f"change-{k}", icon=":material/check:")
    if can_change and (choice.not_rated is not None or choice.columns is not None):
        st.button("Undo: read it as it was", on_click=_change, args=[choice, _AS_IT_WAS], key="as-it-was", icon=":material/undo:")


def _guessed(report: ReadReport) -> str:
    taken = [f"{words.plain(column.name)}: {words.ROLES[column.role].lower()}" for column in report.columns if column.found == "guess"]
    return f"What is in which column was guessed: {', '.join(taken)}. Is that right? It can be changed under “What is in which column?”."


def _label(change: Mapping[str, Any]) -> str:
    """What a button that changes the reading says."""
    if "columns" in change:
        kinds = {"movie": "Take the rows for films", "user": "Take the rows for people"}
        return next((kinds[role] for role in change["columns"] if role in kinds), "Take them for counts, not for stars")
    mark = change["not_rated"]
    return f"Leave out the ratings that are {mark:g}" if mark == mark else "Count it as a rating"  # noqa: PLR0124  # NaN: there is no mark


def _change(choice: Choice, change: Mapping[str, Any]) -> None:
    """Read the file otherwise."""
    if "not_rated" in change:
        st.session_state["_not_rated"] = change["not_rated"]
    if "columns" in change:
        columns = change["columns"]
        st.session_state["_columns"] = None if columns is None else tuple((dict(choice.columns or ()) | dict(columns)).items())
        for key in [key for key in st.session_state if str(key).startswith(f"role-{choice.file}-")]:
            del st.session_state[key]


def _show_columns(file: UploadedFile, choice: Choice) -> None:
    """What each column was taken for; another choice takes effect at once."""
    try:
        preview = _peek(file.file_id, choice.columns, file)
    except cfrec.CfrecError:  # it is no table at all, which the error beside it says
        return
    if len(preview.columns) > _MOST_COLUMNS:
        return
    st.markdown("**What is in which column?**")
    roles = [column.role for column in preview.columns]
    with st.container(horizontal=True):
        for k, column in enumerate(preview.columns):
            with st.container(width=200, gap=None):
                st.selectbox(
                    words.plain(column.name or f"column {k + 1}"),
                    list(words.ROLES),
                    index=list(words.ROLES).index(column.role),
                    format_func=words.ROLES.__getitem__,
                    key=_role_key(choice, k),
                    on_change=_take,
                    args=[choice, roles, k],
                    filter_mode=None,
                )
                st.caption(words.plain(", ".join(row[k][:20] for row in preview.rows[:3] if k < len(row) and row[k])) or "nothing")


def _role_key(choice: Choice, column: int) -> str:
    return f"role-{choice.file}-{column}"


def _take(choice: Choice, roles: Sequence[str], changed: int) -> None:
    """Read the file with the roles that are chosen: the one that was given to this column is taken from any other."""
    keys = [_role_key(choice, k) for k in range(len(roles))]
    role = st.session_state[keys[changed]]
    if role == roles[changed]:  # Streamlit also calls where a browser tells a value that it was given
        return
    for key in keys:
        if role and key != keys[changed] and st.session_state[key] == role:
            st.session_state[key] = ""
    taken = {st.session_state[key]: k + 1 for k, key in enumerate(keys)}
    st.session_state["_columns"] = tuple((role, taken.get(role)) for role in words.ROLES if role)


@st.cache_data(max_entries=20, show_spinner=False)
def _peek(file_id: str, columns: tuple[tuple[str, int | None], ...] | None, _file: UploadedFile) -> Preview:  # noqa: ARG001  # the key
    _file.seek(0)
    return peek(_file, None if columns is None else dict(columns))
