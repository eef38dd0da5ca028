"""What a server's messages draw, and what a browser sends back: Streamlit's protocol without a socket."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

EARLY, FRAGMENT = ForwardMsg.FINISHED_EARLY_FOR_RERUN, ForwardMsg.FINISHED_FRAGMENT_RUN_SUCCESSFULLY

_Set = Callable[[WidgetState, Any], object]


def _field(name: str) -> _Set:
    return lambda state, value: setattr(state, name, value)


def _list(name: str) -> _Set:
    return lambda state, value: getattr(state, name).data.extend(value)


SETTERS: dict[str, _Set] = {  # kind of widget -> how its value is sent
    "button": _field("trigger_value"),
    "download_button": _field("trigger_value"),
    "checkbox": _field("bool_value"),
    "expandable": _field("bool_value"),
    "text_input": _field("string_value"),
    "selectbox": _field("string_value"),
    "radio": _field("string_value"),
    "number_input": _field("double_value"),
    "slider": _list("double_array_value"),
    "multiselect": _list("string_array_value"),
    "button_group": _list("string_array_value"),
    "file_uploader": lambda state, value: state.file_uploader_state_value.CopyFrom(value),
}
BUTTONS = {"button", "download_button"}  # their values are sent once


def texts(message: Any) -> Iterator[str]:
    """All strings in a message and in the messages inside it; tables are bytes, and left out."""
    for descriptor, value in message.ListFields():
        for one in value if descriptor.is_repeated else [value]:
            if isinstance(one, str):
                yield one
            elif hasattr(one, "ListFields"):
                yield from texts(one)


@dataclass(frozen=True)
class Drawn:
    """An element or a block, and what drew it."""

    kind: str
    proto: Any
    run: str
    fragment: str


@dataclass
class Page:
    """What a visitor sees: each message changes it."""

    title: str = ""  # of the page in the navigation
    script: str = ""  # hash that names it
    pages: dict[str, Any] = field(default_factory=dict)  # title -> page, as the navigation has it
    session: str = ""  # the session's id
    query: str = ""
    items: dict[tuple[int, ...], Drawn] = field(default_factory=dict)  # by place
    fragments: tuple[str, ...] = ()  # those of the present run; none: the whole page
    _run: str = ""

    def receive(self, message: ForwardMsg) -> None:
        """Take over what a message changes."""
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self.session = message.new_session.initialize.session_id or self.session
            self._run, self.fragments = message.metadata.run.script_run_id, tuple(message.metadata.run.fragment_ids)
        elif kind == "navigation":
            self.pages = {page.page_name: page for page in message.navigation.app_pages}
            self.script = message.navigation.page_script_hash
            self.title = next((title for title, page in self.pages.items() if page.page_script_hash == self.script), "")
        elif kind == "page_info_changed":
            self.query = message.page_info_changed.query_string
        elif kind == "delta":
            self._draw(message)
        elif kind == "script_finished" and message.script_finished != EARLY:
            self._drop_old()

    def _draw(self, message: ForwardMsg) -> None:
        delta = message.delta
        part = {"new_element": delta.new_element, "add_block": delta.add_block}.get(delta.WhichOneof("type"))
        if part is not None:
            kind = part.WhichOneof("type") or ""
            proto = getattr(part, kind) if kind else None
            self.items[tuple(message.metadata.delta_path)] = Drawn(kind, proto, self._run, delta.fragment_id)

    def _drop_old(self) -> None:
        """Forget what the run that has ended did not draw again."""
        touched = self.fragments
        self.items = {
            place: item for place, item in self.items.items() if item.run == self._run or (touched and item.fragment not in touched)
        }

    def find(self, label: str, kinds: frozenset[str] | set[str] = frozenset(SETTERS)) -> Drawn:
        """The widget of this label. Raises LookupError, naming those that are there."""
        there = [item for item in self.items.values() if item.kind in kinds]
        for item in there:
            if item.proto.label.strip("* ") == label:
                return item
        raise LookupError(f"no {label!r} on the page {self.title!r}: {sorted({item.proto.label for item in there})}")

    def text(self) -> str:
        """All that is written on it, a line each."""
        return "\n".join(text for item in self.items.values() if item.proto is not None for text in texts(item.proto))

    def of_kind(self, *kinds: str) -> list[Any]:
        """The elements of these kinds."""
        return [item.proto for item in self.items.values() if item.kind in kinds]


def rerun(page: Page, state: Mapping[str, tuple[str, Any]], *, cached_message_hashes: Iterable[str] = (), **client: Any) -> BackMsg:
    """The message that asks for a run, with the values of the widgets: id -> (kind, value)."""
    message = BackMsg()
    request = message.rerun_script
    request.query_string, request.page_script_hash = page.query, page.script
    request.cached_message_hashes.extend(cached_message_hashes)
    for name, value in client.items():
        setattr(request, name, value)
    for widget_id, (kind, value) in state.items():
        SETTERS[kind](request.widget_states.widgets.add(id=widget_id), value)
    request.context_info.timezone, request.context_info.locale, request.context_info.color_scheme = "UTC", "en-GB", "light"
    return message
