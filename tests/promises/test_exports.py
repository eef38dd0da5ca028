"""D5: a table taken away as CSV runs nothing when a spreadsheet opens it, whatever films, people and genres are called.

The movies.csv and users.csv in a model's folder, and in its zip, are not among them: cfrec reads them back, titles as they are.
"""

from __future__ import annotations

import ast
import csv
import io
import logging
import random
import re
import time
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st

import cfrec
from app_pages import _show
from cfrec.export import export_model, spreadsheet_safe
from tests.promises.counts import counted

logger = logging.getLogger(__name__)

SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫"
NOT_SEEN = ' \t\r\n\xa0\u3000"\u200b\u200e\u2060\ufeff'
FORMULAS = ["=1+1", "=HYPERLINK(0)", "+cmd|'/C calc'!A0", "-2+3", "@SUM(A1)", "=", "-", "＝1＋1", "＠SUM(A1)", "－1", "=A1;B1", "@x\n=y"]
BEFORE = ["", "", " ", '"', '""', '" ', "\t", "\r", "\n", "\xa0", "\u200b", "\ufeff", "Film; ", ";"]
BEFORE += ["a;", 'a"; ', "a\t", "a\n", "a\r\n", ";;", "\t;\t"]
KNOWN = ["=1+1", " =1+1", '"=1+1"', "a;=1+1", "\tx", "\rx", "＝1", "\ufeff=1", "a\n=1", ";=1", "-", '";=cmd|"/C calc"!A0;"']


def names(n: int) -> list[str]:
    rng = random.Random(n)
    return [*KNOWN, *(rng.choice(BEFORE) + rng.choice(BEFORE) + rng.choice(FORMULAS) + rng.choice(["", ";", " (1999)"]) for _ in range(n))]


def cells_that_run(data: str, separator: str = ",") -> list[str]:
    """Cells in which a spreadsheet sees a formula, or may: whatever it takes for the end of a cell in its country."""
    found = []
    for delimiter in ",;\t":
        for row in csv.reader(io.StringIO(data, newline=""), delimiter=delimiter):
            for cell in row:
                seen = cell.strip(NOT_SEEN)
                is_formula = seen[:1] in {*SIGNS} and not re.fullmatch("[-+0-9.,;e\t]+", seen)
                if is_formula or (delimiter == separator and cell[:1] in {*"\t\r\n"}):
                    found.append(cell)
    return found


def a_model_of(trained: cfrec.TrainedModel, titles: list[str]) -> cfrec.TrainedModel:
    """A model whose films, genres, people and ids are called so."""
    rows, users = np.arange(len(titles)) % len(trained.movies), np.arange(len(titles)) % len(trained.user_ids)
    movies = trained.movies.iloc[rows].reset_index(drop=True)
    ids = np.array([f"{title}{k}" for k, title in enumerate(titles)], object)
    return replace(
        trained,
        movies=movies.assign(movie_id=ids, title=titles, raw_title=titles, genres=titles[::-1]),
        movie_factors=trained.movie_factors[rows],
        movie_bias=trained.movie_bias[rows],
        user_ids=ids,
        user_factors=trained.user_factors[users],
        user_bias=trained.user_bias[users],
    )


def exported(model: cfrec.TrainedModel, folder: Path) -> Iterator[tuple[str, str]]:
    """Each file that the library writes for other programs."""
    for kind in ("csv", "projector"):
        for path in export_model(model, kind, folder / kind):
            yield path.name, path.read_bytes().decode()


def downloaded(model: cfrec.TrainedModel, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """What the app's buttons give, for tables as the pages show them."""
    given = {}
    monkeypatch.setattr(st, "download_button", lambda _, data, *, file_name, **__: given.update({file_name: data().decode()}))
    guesses = pd.DataFrame({"title": model.movies["title"], "user_id": model.user_ids, "actual": 1.0, "predicted": -1.0})
    tables = {"biases": cfrec.movie_biases(model), "map": cfrec.project_factors(model, n_components=3), "guesses": guesses}
    tables["similar"] = cfrec.similar_movies(model, model.movies["movie_id"][0], k=len(model.movies))
    tables["stars"] = [{"title": title, "stars": -1, "note": None} for title in model.movies["title"]]
    for name, table in tables.items():
        _show._download(table, name)
    assert len(given) == 5
    yield from given.items()


@counted(sample=300, full=20_000)
def test_no_cell_of_a_file_for_other_programs_runs(trained, tmp_path, monkeypatch, n):
    model = a_model_of(trained, names(n))
    n_cells = 0
    for name, data in [*exported(model, tmp_path), *downloaded(model, monkeypatch)]:
        separator = "\t" if name.endswith(".tsv") else ","
        running = cells_that_run(data, separator)
        assert not running, (name, running[:5])
        n_cells += sum(map(len, csv.reader(io.StringIO(data, newline=""), delimiter=separator)))
    plain = cells_that_run(model.movies.to_csv(index=False))
    logger.info("%d names: 0 of %d cells run; without the apostrophes, %d of the table of movies alone", n, n_cells, len(plain))
    assert n_cells > 30 * n
    assert len(plain) > 3 * n  # negative control: title, raw_title, genres and movie_id


def test_what_is_harmless_stays_as_it_is():
    titles = ["Face/Off", "a=b", "Mission: Impossible - II", "'Til", "é", "a, -b", None]
    table = pd.DataFrame({"title": titles, "n": [-1.5] * 7, "k": [-1] * 7})
    assert spreadsheet_safe(table).equals(table)
    once = spreadsheet_safe(pd.DataFrame({"title": names(500)}))
    assert spreadsheet_safe(once).equals(once)
    kept = [re.sub("\r\n?", "\n", name).replace("'", "") for name in names(500)]  # a lone CR would end a row
    assert [text.replace("'", "") for text in once["title"]] == kept


def test_long_names_take_no_time():
    """A pattern that looked ahead from each of a hundred thousand tabs would take a minute."""
    started = time.perf_counter()
    spreadsheet_safe(pd.DataFrame({"title": ["\t" * 100_000, "a" + " " * 100_000 + "=", "a;" * 50_000, '"' * 100_000]}))
    assert time.perf_counter() - started < 1


def unsafe_calls(source: str) -> list[int]:
    """Lines with a ``to_csv`` on something else than ``spreadsheet_safe(…)``."""
    lines = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "to_csv":
            made_by = {getattr(inner.func, "id", "") for inner in ast.walk(node.func.value) if isinstance(inner, ast.Call)}
            lines += [node.lineno] if "spreadsheet_safe" not in made_by else []
    return lines


def test_every_csv_is_made_safe_but_those_that_cfrec_reads_back():
    unsafe = {}
    for path in [*Path("cfrec").glob("*.py"), *Path("app_pages").glob("*.py"), Path("streamlit_app.py")]:
        source = path.read_text()
        if lines := unsafe_calls(source):
            unsafe[path.name] = [source.splitlines()[line - 1].strip() for line in lines]
    assert unsafe.pop("export.py") == [
        'pd.DataFrame(trained.movie_factors).to_csv(vectors, sep="\\t", header=False, index=False)'
    ]  # numbers
    assert [(name, len(lines)) for name, lines in unsafe.items()] == [("encoding.py", 1)]
    assert unsafe_calls("x.to_csv()\nspreadsheet_safe(x).to_csv()\ny(x).replace(1).to_csv(z)") == [1, 3]


def test_tables_of_streamlit_offer_no_csv_of_their_own():
    """Theirs would hold the titles as they are."""
    assert tomllib.loads(Path(".streamlit/config.toml").read_text())["client"]["disableDataExport"] is True
