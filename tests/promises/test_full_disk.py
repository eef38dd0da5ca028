"""M5: a disk that takes no more, as a visitor meets it: the page names the cause, the old model is there, the server is healthy."""

from __future__ import annotations

import asyncio
import sys

import numpy as np
import pytest

import cfrec
from tests.server import Server, serve
from tests.wire import Visitor

FORM = "data=A+file+of+your+own&recipe=Quick"
CAUSE = "could not be saved: File too large. Free some space, and try again."


def make_table() -> bytes:
    """Ratings whose model takes more than the largest file allowed below."""
    random = np.random.default_rng(0)
    rows = zip(random.integers(600, size=9_000), random.integers(400, size=9_000), random.integers(1, 6, size=9_000), strict=True)
    return "\n".join(["user,movie,rating", *(f"{u},{m},{s}" for u, m, s in rows)]).encode()


async def train_and_use(server: Server) -> str:
    """What a visitor reads who trains and uses the new model."""
    async with Visitor(server.url) as visitor:
        await visitor.open(f"/train?{FORM}")
        await visitor.see("Ratings to learn from")
        await visitor.upload("A table of ratings", "own.csv", make_table())
        await visitor.see("**own")
        await visitor.click("Train")
        await visitor.see("Use this model")
        await visitor.click("Use this model")
        assert not visitor.exceptions
        return visitor.page.text().replace("\\", "")  # as it is read: with nothing escaped


async def look_at_the_model_before(server: Server) -> None:
    async with Visitor(server.url) as visitor:
        await visitor.open("/similar?film=50")
        await visitor.see("Return of the Jedi")
        assert (await visitor.get("/_stcore/health")).status == 200


@pytest.mark.skipif(sys.platform != "linux", reason="the size of another process's files is limited on Linux only")
def test_m5_a_visitor_is_told_that_the_disk_is_full(tmp_path):
    import resource

    with serve(tmp_path) as server:
        before = cfrec.load_model(server.models / "ml-100k").version
        log = server.log.stat().st_size
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (50_000, resource.RLIM_INFINITY))
        assert CAUSE in asyncio.run(train_and_use(server))
        asyncio.run(look_at_the_model_before(server))
        assert [entry.name for entry in cfrec.list_models(server.models)] == ["ml-100k", "ml-latest-small"]
        assert cfrec.load_model(server.models / "ml-100k").version == before
        assert log < 50_000 > server.log.stat().st_size  # of which nothing was lost
        resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert "In use now, and stored as" in asyncio.run(train_and_use(server))  # negative control
        assert len(cfrec.list_models(server.models)) == 3
