"""S2: what one visitor does never shows to another, except what is shared and says so. Every byte that each receives is read."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import Callable, Coroutine
from dataclasses import replace
from typing import Any

import pytest

import cfrec
from app_pages._words import plain
from cfrec.packing import pack_model
from tests.promises.counts import counted
from tests.server import serve
from tests.wire import Visitor

pytestmark = pytest.mark.slow  # a new server needs seconds until it can train

OWN = "data=A+file+of+your+own"
OWN_DATA, OWN_MODEL = "A table of ratings", "A zip that was downloaded from cfrec, here or elsewhere"
PAGES = ("Start", "Train", "Good and bad films", "Map", "Similar films", "Models", "How it works")
MODELS = ("first", "second")
Act = Callable[[Visitor, int], Coroutine[Any, Any, None]]

LEAKY = """
import io, zipfile
import leak
import streamlit as st

if file := st.file_uploader("A table"):
    leak.seen[file.name] = file.getvalue()
if st.query_params["where"] == "page":
    st.write(list(leak.seen))
else:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for k, content in enumerate(list(leak.seen.values())):
            archive.writestr(str(k), content)
    st.download_button("All tables", packed.getvalue(), "all.zip")
"""


def mark(number: int) -> str:
    """What stands in all that a visitor brings, and in nothing else; none is part of another."""
    return f"Marked{number:03d}q"


def marked_csv(number: int) -> bytes:
    rows = [f"{user},{film},{mark(number)} film {film} (1990),{1 + (user * film) % 5}" for user in range(8) for film in range(6)]
    return "\n".join(["user,movie,title,rating", *rows]).encode()


def marked_model(trained: cfrec.TrainedModel, number: int) -> cfrec.TrainedModel:
    titles = [f"{mark(number)} film {row} (1990)" for row in range(trained.n_movies)]
    return replace(
        trained,
        movies=trained.movies.assign(title=titles, genres=mark(number)),
        source=replace(trained.source, title=f"data of {mark(number)}"),
    )


def contents(data: bytes) -> bytes:
    """The bytes, and those of the members where they are a zip."""
    if not data.startswith(b"PK"):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return data + b"".join(name.encode() + archive.read(name) for name in archive.namelist())


async def marks_seen(visitor: Visitor, n: int) -> set[int]:
    """Numbers of the visitors whose marks are in anything that this one received, or can download."""
    seen = [contents(data) for data in (*visitor.received, *(await visitor.take_all()).values())]
    return {number for number in range(n) if any(mark(number).encode() in data for data in seen)}


async def act_together(url: str, n: int, act: Act) -> list[set[int]]:
    """Let n visitors act at once; the marks that each of them has seen."""
    visitors = [Visitor(url) for _ in range(n)]
    try:
        await asyncio.gather(*(act(visitor, number) for number, visitor in enumerate(visitors)))
        assert [visitor.exceptions for visitor in visitors] == [[]] * n
        return [await marks_seen(visitor, n) for visitor in visitors]
    finally:
        await asyncio.gather(*(visitor.close() for visitor in visitors))


@pytest.fixture(scope="module")
def app(tmp_path_factory, trained):
    """The app, with two more models than ship with it."""
    with serve(tmp_path_factory.mktemp("visitors")) as server:
        for name in MODELS:
            cfrec.save_model(trained, server.models / name)
        yield server


async def bring_data(visitor: Visitor, number: int) -> None:
    """Open the Train page with a table of one's own."""
    await visitor.open(f"/train?{OWN}")
    await visitor.see(OWN_DATA)
    await visitor.upload(OWN_DATA, f"own {mark(number)}.csv", marked_csv(number))
    await visitor.see("48 ratings by 8 people of 6 films")


@counted(sample=4, full=20)
def test_nothing_of_one_visitor_is_sent_to_another(app, trained, n):
    """Each brings a table and a model, chooses a model and a film, and searches; then all is as each of them left it."""

    async def do_everything(visitor: Visitor, number: int) -> None:
        model, film = MODELS[number % len(MODELS)], number % trained.n_movies
        await bring_data(visitor, number)
        await visitor.go("Models", f"model={model}")
        await visitor.upload(OWN_MODEL, f"{mark(number)}.zip", pack_model(marked_model(trained, number)))
        await visitor.see(f"data of {mark(number)}")
        await visitor.take_all()
        await visitor.go("Similar films", f"film={trained.movies['movie_id'][film]}")
        await visitor.set("Search for a film", mark(number))
        for page in PAGES:
            await visitor.go(page)
        await visitor.go("Start")
        assert f"Stored as “{model}”" in visitor.page.text()
        await visitor.go("Similar films")
        assert plain(trained.movies["title"][film]) in [heading.body for heading in visitor.page.of_kind("heading")]
        await visitor.go("Train", OWN)
        await visitor.see(plain(f"own {mark(number)}.csv"))

    assert asyncio.run(act_together(app.url, n, do_everything)) == [{number} for number in range(n)]


def test_a_copy_of_a_model_with_other_titles_never_passes_for_the_model_itself(app, shipped):
    """What is worked out from a model is kept for all who use it; a copy with its numbers and other titles is another model."""
    cfrec.save_model(marked_model(shipped, 0), app.models / "twin")

    async def look_everywhere(model: str) -> set[int]:
        async with Visitor(app.url) as visitor:
            await visitor.open(f"/?model={model}&film={shipped.movies['movie_id'][0]}")
            for page in PAGES:
                if page != "Models":  # it lists the copy, as it should
                    await visitor.go(page)
            return await marks_seen(visitor, 1)

    assert asyncio.run(look_everywhere("twin")) == {0}
    assert asyncio.run(look_everywhere("ml-100k")) == set()


def test_a_run_and_a_stored_model_are_shared_and_both_say_so(app):
    """The first visitor trains and stores; the others see that, and nothing of each other."""
    n, ready = 3, asyncio.Barrier(3)

    async def train_or_watch(visitor: Visitor, number: int) -> None:
        await bring_data(visitor, number)
        assert "seen by everybody" in visitor.page.text()
        await ready.wait()
        if number == 0:
            await visitor.click("Train")
            await visitor.see("Use this model")
            await visitor.click("Use this model")
        await ready.wait()
        await visitor.go("Train")  # its table of runs
        await visitor.go("Models")
        await visitor.see(mark(0))
        assert "stored on this server and shared" in visitor.page.text()

    assert asyncio.run(act_together(app.url, n, train_or_watch)) == [{0}, {0, 1}, {0, 2}]


@pytest.mark.parametrize("where", ["page", "download"])
def test_an_app_that_leaks_is_found_out(tmp_path, where):
    """Negative control: files of all visitors in one dictionary, shown on the page, or hidden in a compressed download."""
    (tmp_path / "leak.py").write_text("seen = {}\n")
    (tmp_path / "app.py").write_text(LEAKY)
    n, brought = 3, asyncio.Barrier(3)

    async def bring_a_table(visitor: Visitor, number: int) -> None:
        await visitor.open(f"/?where={where}")
        await visitor.upload("A table", f"{mark(number)}.csv", marked_csv(number))
        await brought.wait()
        await visitor.rerun()

    with serve(tmp_path, script=tmp_path / "app.py") as server:
        assert asyncio.run(act_together(server.url, n, bring_a_table)) == [{0, 1, 2}] * n
