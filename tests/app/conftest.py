"""The app without a browser: each page through the entry file, on a folder of models of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from app_pages import _state

OpenPage = Callable[..., AppTest]


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """A folder of models that holds a copy of the shipped one; the app uses it."""
    folder = tmp_path / "models"
    shutil.copytree("models/ml-100k", folder / "ml-100k")
    monkeypatch.setattr(_state, "MODELS", folder)
    return folder


@pytest.fixture
def no_data(cache):
    """No data set is on this machine."""
    return cache


@pytest.fixture
def open_page(models) -> OpenPage:
    """Open a page by its file's name, with a query string; run it once. Caches are empty before, and hold on between two visits."""
    st.cache_resource.clear()
    st.cache_data.clear()
    _state.jobs.cache_clear()
    _state.kept.cache_clear()

    def opener(page: str = "start", query: Mapping[str, str] | None = None, state: Mapping[str, object] | None = None) -> AppTest:
        app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
        for name, value in (query or {}).items():
            app.query_params[name] = value
        for name, value in (state or {}).items():
            app.session_state[name] = value
        if page != "start":
            app.switch_page(f"app_pages/{page}.py")
        app.run()
        assert not app.exception, app.exception
        return app

    return opener
