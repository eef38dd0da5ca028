"""What somebody who means ill sends to a server: frames, requests and sockets, made up at random. What comes back is handed on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from random import Random
from uuid import UUID

import websockets
from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.WidgetStates_pb2 import WidgetState

from tests.messages import SETTERS, rerun
from tests.web import exchange, request
from tests.wire import Visitor

PATIENCE = 20.0  # seconds
GIANT = 100_000_000  # bytes
REFUSED = (OSError, websockets.WebSocketException, ValueError)  # how a connection ends that is refused, or is lost

WORDS = ["", "\0", "../../etc/passwd", "%s%n", "{0}", "<script>alert(1)</script>", "=1+1", "\u202e", "-1", "NaN"]
STRINGS = [*WORDS, "x" * 100_000, "💥" * 1_000]
NUMBERS = [float("nan"), float("inf"), float("-inf"), 1e308, -1e308, 5e-324, -1.0, 0.0, 2.0**63, -(2.0**63), 1e9]
CLIMBS = ["../", "..\\", "%2e%2e/", "%2e%2e%2f", "..%2f", "..%5c", "....//", "%252e%252e%252f", "//", "%00", "C:\\", "\\\\host\\share\\"]
GOALS = ["etc/passwd", "streamlit_app.py", ".streamlit/config.toml", "models/ml-100k/manifest.json", "proc/self/environ", "", "index.html"]
PARAMETERS = ["model", "film", "run", "data", "recipe", "epochs_quick", "n_factors_quick", "k", "compare", "min_ratings", "view"]
VALUES = ["../x", "1e400", "NaN", "-1", "%00", "%ff", "99999999999999999999", "x" * 5_000]
PLACES = ["", "train", "similar", "models", "map", "biases", "about", "../x"]
ROOTS = ["/media/", "/component/", "/_stcore/bidi-components/", "/app/static/", "/static/", "/", "/_stcore/", "/_stcore/upload_file/"]


@dataclass(frozen=True)
class Target:
    """Whom it is meant for: a server, and somebody who uses it."""

    url: str
    session: str  # of somebody else
    file: str  # address of an upload of somebody else
    heard: Callable[[bytes], None]  # is told all that is sent back
    gained: Callable[[str], None]  # and what is got that should not be


Attack = Callable[[Random, Target], Awaitable[None]]


@asynccontextmanager
async def intruder(target: Target, path: str = "", **connection: str) -> AsyncIterator[Visitor]:
    """A connection of the attacker's; with ``path``, on a page. What it receives is handed on at its end."""
    visitor = Visitor(target.url)
    try:
        await (visitor.open(path) if path else visitor.connect(**connection))
        yield visitor
    finally:
        await visitor.kill()
        for data in visitor.received:
            target.heard(data)


def some_message(random: Random) -> BackMsg:
    """One of the messages that a browser sends, with something odd in it."""
    message = BackMsg()
    kind = random.choice([field.name for field in BackMsg.DESCRIPTOR.oneofs_by_name["type"].fields])
    if kind == "rerun_script":
        request = message.rerun_script
        request.query_string, request.page_script_hash = random.choice(STRINGS), random.choice(STRINGS)
        request.page_name, request.fragment_id = random.choice(STRINGS), random.choice(STRINGS)
        request.cached_message_hashes.extend(random.choices(STRINGS, k=3))
        request.context_info.timezone, request.context_info.locale = random.choice(STRINGS), random.choice(STRINGS)
    elif kind == "file_urls_request":
        message.file_urls_request.request_id = random.choice(STRINGS)
        message.file_urls_request.file_names.extend(random.choices(STRINGS, k=random.choice([1, 1_000])))
    elif kind == "backend_operation_request":
        _ask_for_something(random, message)
    else:
        setattr(message, kind, True)
    return message


def _ask_for_something(random: Random, message: BackMsg) -> None:
    request = message.backend_operation_request
    request.request_id = random.choice(STRINGS)
    kind = random.choice([field.name for field in request.DESCRIPTOR.oneofs_by_name["payload"].fields])
    getattr(request, kind).SetInParent()
    if kind == "dataframe_chunk":
        request.dataframe_chunk.source_id, request.dataframe_chunk.limit = random.choice(STRINGS), 2**32 - 1
    elif kind == "deferred_file":
        request.deferred_file.file_id = random.choice(STRINGS)


def some_value(random: Random, state: WidgetState) -> None:
    """Give a widget a value of any type."""
    field = random.choice([field.name for field in WidgetState.DESCRIPTOR.oneofs_by_name["value"].fields])
    if field in ("double_value", "double_array_value"):
        values = random.choices(NUMBERS, k=random.choice([1, 2, 1_000]))
        state.double_value = values[0]
        if field == "double_array_value":
            state.double_array_value.data.extend(values)
    elif field in ("string_value", "json_value", "json_trigger_value"):
        setattr(state, field, random.choice([*STRINGS, '{"selection": 3}', "[" * 2_000, "{}"]))
    elif field == "string_array_value":
        state.string_array_value.data.extend(random.choices(STRINGS, k=3))
    elif field in ("trigger_value", "bool_value"):
        setattr(state, field, True)
    elif field == "int_value":
        state.int_value = random.choice([-1, 2**63 - 1, -(2**63)])
    elif field == "bytes_value":
        state.bytes_value = random.randbytes(1_000)
    else:
        getattr(state, field).SetInParent()


async def noise(random: Random, target: Target) -> None:
    """Frames of random bytes, of half a message, or of one with bits turned."""
    async with intruder(target) as visitor:
        whole = bytearray(some_message(random).SerializeToString() or b"\x08\x01")
        for _ in range(random.randrange(8)):
            whole[random.randrange(len(whole))] ^= 1 << random.randrange(8)
        frames = [random.randbytes(random.randrange(4_096)), bytes(whole[: random.randrange(len(whole))]), bytes(whole)]
        await visitor.send(random.choice(frames))
        await visitor.listen(0.2)


async def text(random: Random, target: Target) -> None:
    """A frame of text."""
    async with intruder(target) as visitor:
        await visitor.send(random.choice(STRINGS))
        await visitor.listen(0.2)


async def giant(random: Random, target: Target) -> None:
    """A message of a hundred megabytes."""
    async with intruder(target) as visitor:
        await visitor.send(b"\x5a" + bytes(GIANT))
        await visitor.listen(PATIENCE)


async def odd_messages(random: Random, target: Target) -> None:
    """Every kind of message, with something odd in it, on a connection that has seen a page."""
    async with intruder(target, "/similar") as visitor:
        for _ in range(3):
            await visitor.send(some_message(random))
        await visitor.listen(0.3)


async def odd_values(random: Random, target: Target) -> None:
    """Values of the wrong type or beyond all limits, for the widgets of a page and for others; and a click on each button."""
    async with intruder(target, f"/{random.choice(PLACES)}") as visitor:
        message = rerun(visitor.page, {})
        ids = [item.proto.id for item in visitor.page.items.values() if item.kind in SETTERS and item.kind != "button"]
        for widget in (*random.sample(ids, min(len(ids), 5)), random.choice(STRINGS)):
            some_value(random, message.rerun_script.widget_states.widgets.add(id=widget))
        await visitor.send(message)
        await visitor.listen(0.3)


async def odd_address(random: Random, target: Target) -> None:
    """A page opened by an address that asks for what there is not."""
    query = "&".join(f"{random.choice(PARAMETERS)}={random.choice(VALUES)}" for _ in range(3))
    async with intruder(target, f"/{random.choice(PLACES)}?{query}") as visitor:
        await visitor.listen(0.1)


async def forged_session(random: Random, target: Target) -> None:
    """The session of somebody, by an id that is guessed."""
    near = target.session[:-1] + next(digit for digit in "01" if digit != target.session[-1])
    guess = random.choice([str(UUID(int=random.getrandbits(128))), near, "0", "x" * 1_000])
    async with intruder(target, session=guess) as visitor:
        await visitor.rerun()
        if visitor.page.session == target.session:
            target.gained("the session of somebody")


async def foreign_page(random: Random, target: Target) -> None:
    """A connection that a page of another site opens, or one to a name that was bent to this machine."""
    evil = random.choice(["http://evil.example", "null", "http://127.0.0.1.evil.example", "file://"])
    headers = random.choice([{"Origin": evil}, {"Origin": evil, "Host": "evil.example"}, {"Origin": evil, "Cookie": ""}])
    async with intruder(target, **headers) as visitor:
        await visitor.rerun()
        if visitor.page.items:
            target.gained("entry from a page of another site")


async def climb(random: Random, target: Target) -> None:
    """A path that leads out of what is served."""
    path = random.choice(ROOTS) + random.choice(CLIMBS) * random.randrange(1, 9) + random.choice(GOALS)
    answer = await request(target.url, path.replace(" ", "%20"), method=random.choice(["GET", "GET", "HEAD", "OPTIONS"]), patience=PATIENCE)
    target.heard(answer.body)


async def foreign_upload(random: Random, target: Target) -> None:
    """A file put into, or taken out of, the session of somebody else: without the token that only its page has, or to a guessed session."""
    guessed = f"/_stcore/upload_file/{UUID(int=random.getrandbits(128))}/{random.choice(['x', '..%2f..%2fx'])}"
    path, method = random.choice([target.file, guessed]), random.choice(["PUT", "DELETE"])
    part = b'--e\r\nContent-Disposition: form-data; name="f"; filename="../x"\r\n\r\nx\r\n--e--\r\n'
    body = random.choice([b"", b"x" * 100_000, b"--e\r\n\r\n", part])
    lies = [{"Content-Length": "-1"}, {"Content-Length": "99999999999"}, {"X-Xsrftoken": "x", "Cookie": "_streamlit_xsrf=y"}]
    headers = {"Content-Type": random.choice(["multipart/form-data; boundary=e", "multipart/form-data", "text/csv", ""])}
    headers |= random.choice([{}, *lies])
    answer = await request(target.url, path, method=method, headers=headers, body=body, patience=2)
    target.heard(answer.body)
    if path == target.file and answer.status < 400:
        target.gained("a change to an upload of somebody")


async def odd_request(random: Random, target: Target) -> None:
    """What is hardly HTTP."""
    host = target.url.removeprefix("http://").encode()
    lines = [
        b"GET / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\nX: " + b"x" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n",
        b"TRACE / HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n\r\n",
        b"GET /_stcore/stream HTTP/1.1\r\nHost: " + host + b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + random.randbytes(500),
        random.randbytes(2_000) + b"\r\n\r\n",
        b"GET /_stcore/metrics HTTP/1.0\r\n\r\n",
        b"GET /_stcore/script-health-check HTTP/1.0\r\n\r\n",
        b"POST /_stcore/agent/interact HTTP/1.0\r\nContent-Length: 2\r\n\r\n{}",
    ]
    with suppress(TimeoutError):
        target.heard(await exchange(target.url, random.choice(lines), 2))


async def leave_at_once(random: Random, target: Target) -> None:
    """A page that is asked for by one who does not wait for it."""
    async with intruder(target) as visitor:
        await visitor.send(rerun(visitor.page, {}, page_name=random.choice(["", "map", "train", "about"])))
        await asyncio.sleep(random.random() / 10)


OFTEN: tuple[Attack, ...] = (
    *(noise, noise, text, odd_messages, odd_values, odd_values, odd_address, forged_session, foreign_page),
    *(climb, climb, foreign_upload, odd_request, leave_at_once),
)


def choose_attacks(random: Random, n: int) -> list[Attack]:
    """Which attacks to commit, n in all; one in a thousand is giant."""
    giants = [giant] * max(1, n // 1_000)
    chosen = giants + random.choices(OFTEN, k=n - len(giants))
    random.shuffle(chosen)
    return chosen


async def commit(attack: Attack, random: Random, target: Target) -> None:
    """Commit one attack; that it is refused, or the connection lost, is as it should be."""
    with suppress(*REFUSED):
        await attack(random, target)
