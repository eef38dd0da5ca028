"""How the server is set up: safe on a laptop as it comes, and what opens it."""

from __future__ import annotations

import http.client
import tomllib
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.server import serve

SETTINGS = tomllib.loads(Path(".streamlit/config.toml").read_text())


@pytest.mark.parametrize(
    ("section", "name", "value"),
    [
        ("server", "address", "localhost"),
        ("server", "allowedHosts", ["localhost", "127.0.0.1"]),
        ("server", "enableCORS", True),
        ("server", "enableXsrfProtection", True),
        ("server", "enableStaticServing", False),
        ("server", "maxUploadSize", 400),
        ("client", "showErrorDetails", "none"),
        ("client", "toolbarMode", "viewer"),
        ("browser", "gatherUsageStats", False),
        ("runner", "postScriptGC", False),
    ],
)
def test_what_is_shipped(section, name, value):
    assert SETTINGS[section][name] == value


def shake_hands(url: str, host: str, origin: str) -> int:
    """Status of the answer to a browser that opens a session: 101 where it may."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    headers = {"Host": host, "Origin": origin, "Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
    connection.request("GET", "/_stcore/stream", headers=headers | {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="})
    status = connection.getresponse().status
    connection.close()
    return status


def test_a_page_that_claims_this_machines_name_opens_no_session(tmp_path):
    """DNS rebinding: the browser of the person in front of the laptop is made to believe that evil.example is here."""
    with serve(tmp_path) as server:
        port = urlsplit(server.url).port
        assert shake_hands(server.url, f"127.0.0.1:{port}", server.url) == 101
        assert shake_hands(server.url, f"localhost:{port}", f"http://localhost:{port}") == 101
        assert shake_hands(server.url, f"evil.example:{port}", f"http://evil.example:{port}") == 403
        assert shake_hands(server.url, f"127.0.0.1:{port}", "http://evil.example") == 403  # another page


def test_it_is_opened_to_a_name_by_the_environment(tmp_path, monkeypatch):
    """Negative control of the test above, and the way to run it in a container."""
    monkeypatch.setenv("STREAMLIT_SERVER_ALLOWED_HOSTS", "films.example")
    with serve(tmp_path, options=["--server.address", "0.0.0.0"]) as server:
        assert shake_hands(server.url, "films.example", "https://films.example") == 101
        assert shake_hands(server.url, "evil.example", "http://evil.example") == 403
