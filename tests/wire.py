"""A visitor of a running app without a browser: cookies, socket, timers, uploads and downloads as a browser has them."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import Any, Self

import websockets
from google.protobuf.message import DecodeError
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.Common_pb2 import FileUploaderState, UploadedFileInfo
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg

from tests.messages import BUTTONS, EARLY, FRAGMENT, Page, rerun
from tests.web import PATIENCE, Response, request

_MEDIA = re.compile(rb"/media/[0-9A-Za-z]+(?:\.[0-9A-Za-z]+)?")
_CACHED_RUNS = 2  # runs of the page through which a browser keeps a message (global.maxCachedMessageAge)


class Visitor:
    """One tab of one browser.

    Parameters
    ----------
    url : str
        The app's.
    keep : bool
        Whether to keep all that is received, in ``received``.
    on_update : callable, optional
        Called with the seconds from each update that a timer asked for to the end of the run that brought it.
    """

    def __init__(self, url: str, *, keep: bool = True, on_update: Callable[[float], None] = lambda seconds: None) -> None:
        self.url, self.keep, self.on_update = url, keep, on_update
        self.page = Page()
        self.received: list[bytes] = []
        self.exceptions: list[str] = []  # boxes of exceptions that were drawn
        self.problem: Exception | None = None  # what ended the connection, if it was not this visitor
        self.cookie = ""
        self._state: dict[str, tuple[str, Any]] = {}  # widget id -> kind and value, of the widgets that were touched
        self._cache: dict[str, tuple[ForwardMsg, int]] = {}  # messages that the server need not send again
        self._runs = 0
        self._timers: dict[str, asyncio.Task[None]] = {}
        self._asked: dict[str, list[float]] = {}  # fragment -> when updates were asked for that no run has begun to bring
        self._coming: dict[str, list[float]] = {}  # and those that the present run brings
        self._reader: asyncio.Task[None] | None = None
        self._wanted = ""  # hash of the page that is waited for
        self._finished = asyncio.Event()
        self._answers: asyncio.Queue[ForwardMsg] = asyncio.Queue()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def open(self, path: str = "/") -> float:
        """Open a page by its address; seconds until it is drawn."""
        began = time.perf_counter()
        await self.connect()
        name, _, self.page.query = path.lstrip("/").partition("?")
        await self.rerun(page_name=name)
        return time.perf_counter() - began

    async def connect(self, *, session: str = "", **headers: str) -> None:
        """Fetch the cookie and open the socket; with ``session``, as the one who had that session."""
        answer = await self.get("/_stcore/health")
        self.cookie = answer.headers.get("set-cookie", self.cookie).partition(";")[0]
        words = ["streamlit", self.token or "none", *([session] if session else [])]
        self._socket = await websockets.connect(
            self.url.replace("http", "ws", 1) + "/_stcore/stream",
            subprotocols=[websockets.Subprotocol(word) for word in words],
            additional_headers={"Origin": self.url, "Cookie": self.cookie} | headers,
            max_size=None,
            compression=None,
            ping_interval=None,
            open_timeout=PATIENCE,
        )
        self.problem = None
        self._reader = asyncio.create_task(self._read())

    @property
    def token(self) -> str:
        """What shows the server that a request comes from its own page."""
        return self.cookie.partition("=")[2].strip('"')

    async def reconnect(self) -> bool:
        """Come back after the socket was lost; whether it is the same session still."""
        before = self.page.session
        await self.connect(session=before)
        await self.rerun()
        return self.page.session == before

    async def kill(self) -> None:
        """Lose the socket, as when a cable is pulled: no frame says so."""
        self._stop_timers()
        if self._reader:
            self._reader.cancel()
            self._socket.transport.abort()
            await asyncio.sleep(0)

    async def close(self) -> None:
        """Close the tab."""
        self._stop_timers()
        if self._reader:
            self._reader.cancel()
            await self._socket.close()

    async def send(self, message: BackMsg | bytes | str) -> None:
        """Send a message; bytes and text as they are."""
        await self._socket.send(message.SerializeToString() if isinstance(message, BackMsg) else message)

    async def listen(self, seconds: float) -> None:
        """Read on for so long, or until the server closes the connection."""
        if self._reader:
            await asyncio.wait({self._reader}, timeout=seconds)

    async def rerun(self, **client: Any) -> float:
        """Ask for a run of the page and wait for its end; seconds."""
        began = time.perf_counter()
        self._finished.clear()
        await self.send(self._request(**client))
        self._state = {widget: value for widget, value in self._state.items() if value[0] not in BUTTONS}
        await self._until(self._finished.wait())
        return time.perf_counter() - began

    async def go(self, title: str, query: str = "") -> float:
        """Switch to another page by its title in the navigation; seconds until it is drawn."""
        self.page.script = self._wanted = self.page.pages[title].page_script_hash
        self.page.query = query
        return await self.rerun()

    async def click(self, label: str) -> float:
        """Click on a button; seconds until the page is drawn again."""
        button = self.page.find(label, {"button"})
        if button.proto.disabled:
            raise LookupError(f"{label!r} is disabled")
        self._state[button.proto.id] = (button.kind, True)
        return await self.rerun()

    async def set(self, label: str, value: Any) -> None:
        """Give a widget a value; in a form, it is sent with the form."""
        widget = self.page.find(label)
        self._state[widget.proto.id] = (widget.kind, value)
        if not widget.proto.form_id:
            await self.rerun()

    async def see(self, text: str, patience: float = PATIENCE) -> None:
        """Wait until this is written on the page. Raises LookupError, with what is written there instead."""
        end = time.monotonic() + patience
        while text not in (written := self.page.text()):
            if self.problem:
                raise self.problem
            if time.monotonic() > end:
                raise LookupError(f"no {text!r} on the page {self.page.title!r}: {written[:1_000]}")
            await asyncio.sleep(0.02)

    async def upload(self, label: str, name: str, data: bytes) -> str:
        """Put a file into an uploader; the address where it was put."""
        message = BackMsg()
        message.file_urls_request.request_id, message.file_urls_request.session_id = name, self.page.session
        message.file_urls_request.file_names.append(name)
        urls = (await self.ask(message)).file_urls_response.file_urls[0]
        answer = await self.put(urls.upload_url, name, data)
        if answer.status != 204:
            raise OSError(f"upload: {answer.status} {answer.body[:200]!r}")
        files = FileUploaderState(uploaded_file_info=[UploadedFileInfo(name=name, size=len(data), file_id=urls.file_id, file_urls=urls)])
        await self.set(label, files)
        return str(urls.upload_url)

    async def put(self, path: str, name: str, data: bytes, **headers: str) -> Response:
        """Send a file to an address for uploads."""
        edge = "edge-of-a-part"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\nContent-Type: text/csv\r\n\r\n'
        body = head.encode() + data + f"\r\n--{edge}--\r\n".encode()
        fields = {"Content-Type": f"multipart/form-data; boundary={edge}", "X-Xsrftoken": self.token, "Cookie": self.cookie}
        return await request(self.url, path, method="PUT", headers=fields | headers, body=body)

    async def ask(self, message: BackMsg) -> ForwardMsg:
        """Send a message that is answered by another one, not by a run."""
        await self.send(message)
        return await self._until(self._answers.get())

    async def get(self, path: str) -> Response:
        """Fetch what is at an address, with this visitor's cookie."""
        answer = await request(self.url, path, headers={"Cookie": self.cookie} if self.cookie else {})
        self._note(answer.body)
        return answer

    async def take_all(self) -> dict[str, bytes]:
        """Fetch every picture and every download that the page offers: address -> content."""
        paths = {path.decode() for data in self.received for path in _MEDIA.findall(data)}
        for button in self.page.of_kind("download_button"):
            if button.deferred_file_id:
                message = BackMsg()
                message.backend_operation_request.request_id, message.backend_operation_request.session_id = button.id, self.page.session
                message.backend_operation_request.deferred_file.file_id = button.deferred_file_id
                paths.add((await self.ask(message)).backend_operation_response.deferred_file.url)
        return {path: (await self.get(path)).body for path in sorted(paths) if path}

    async def _until(self, waited: Awaitable[Any]) -> Any:
        result = await asyncio.wait_for(waited, PATIENCE)
        if self.problem:
            raise self.problem
        return result

    def _request(self, **client: Any) -> BackMsg:
        return rerun(self.page, self._state, cached_message_hashes=self._cache, **client)

    def _note(self, data: bytes) -> None:
        if self.keep:
            self.received.append(data)

    async def _read(self) -> None:
        try:
            async for data in self._socket:
                self._note(data)
                self._take(self._whole(ForwardMsg.FromString(data)))
            self.problem = ConnectionError("the server closed the connection")
        except (websockets.ConnectionClosed, DecodeError) as error:
            self.problem = error
        self._stop_timers()
        self._finished.set()
        self._answers.put_nowait(ForwardMsg())

    def _whole(self, message: ForwardMsg) -> ForwardMsg:
        """The message itself, where the server sent only the hash of one that was received before."""
        if message.WhichOneof("type") == "ref_hash":
            whole = ForwardMsg()
            whole.CopyFrom(self._cache[message.ref_hash][0])
            whole.metadata.CopyFrom(message.metadata)
            self._cache[message.ref_hash] = whole, self._runs
            return whole
        if message.metadata.cacheable:
            self._cache[message.hash] = message, self._runs
        return message

    def _take(self, message: ForwardMsg) -> None:
        self.page.receive(message)
        kind = message.WhichOneof("type")
        if kind == "new_session":
            self._begin_run()
        elif kind == "auto_rerun":
            self._start_timer(message.auto_rerun.fragment_id, message.auto_rerun.interval)
        elif kind == "stop_auto_rerun":
            self._stop_timers(message.stop_auto_rerun.fragment_ids)
        elif kind == "script_finished":
            self._end_run(message.script_finished)
        elif kind in ("file_urls_response", "backend_operation_response"):
            self._answers.put_nowait(message)
        elif kind == "delta" and message.delta.new_element.WhichOneof("type") == "exception":
            self.exceptions.append(message.delta.new_element.exception.message)

    def _begin_run(self) -> None:
        if not self.page.fragments:
            self._stop_timers()
        self._coming = {fragment: self._asked.pop(fragment) for fragment in self.page.fragments if fragment in self._asked}

    def _end_run(self, status: int) -> None:
        if status == FRAGMENT:
            for asked in self._coming.values():
                for moment in asked:
                    self.on_update(time.perf_counter() - moment)
        elif status != EARLY and self._wanted in ("", self.page.script):
            self._runs += 1
            oldest = self._runs - _CACHED_RUNS
            self._cache = {name: kept for name, kept in self._cache.items() if kept[1] >= oldest}
            self._finished.set()
        self._coming = {}

    def _start_timer(self, fragment: str, seconds: float) -> None:
        async def ask_again() -> None:
            with suppress(websockets.ConnectionClosed):
                while True:
                    await asyncio.sleep(seconds)
                    self._asked.setdefault(fragment, []).append(time.perf_counter())
                    await self.send(self._request(fragment_id=fragment, is_auto_rerun=True))

        if fragment not in self._timers:
            self._timers[fragment] = asyncio.create_task(ask_again())

    def _stop_timers(self, fragments: Iterable[str] | None = None) -> None:
        for fragment in list(self._timers) if fragments is None else fragments:
            if timer := self._timers.pop(fragment, None):
                timer.cancel()
            self._asked.pop(fragment, None)
