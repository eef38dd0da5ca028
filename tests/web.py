"""HTTP requests as they are written: nothing in them is tidied up, as other clients do."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

PATIENCE = 60.0  # seconds


@dataclass(frozen=True)
class Response:
    """An answer to an HTTP request."""

    status: int
    headers: dict[str, str]
    body: bytes


async def exchange(url: str, data: bytes, patience: float = PATIENCE) -> bytes:
    """Send bytes to a server, and read until it closes the connection. Raises TimeoutError."""
    where = urlsplit(url)
    async with asyncio.timeout(patience):
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        try:
            writer.write(data)
            return await reader.read()
        finally:
            writer.close()


async def request(
    url: str, path: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes = b"", patience: float = PATIENCE
) -> Response:
    """Send a request with ``path`` as it is."""
    sent = {"Host": urlsplit(url).netloc} | ({"Content-Length": str(len(body))} if body else {}) | dict(headers or {})
    head = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    answer = await exchange(url, f"{method} {path} HTTP/1.0\r\n{head}\r\n".encode() + body, patience)
    first, _, rest = answer.partition(b"\r\n")
    lines, _, content = rest.partition(b"\r\n\r\n")
    pairs = (line.decode("latin-1").partition(":") for line in lines.split(b"\r\n"))
    return Response(int(first.split()[1]) if first else 0, {name.lower(): value.strip() for name, _, value in pairs}, content)
