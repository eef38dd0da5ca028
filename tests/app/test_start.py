"""The start page through the entry file, without a browser."""

import shutil

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest

from cfrec.storage import load_model


@pytest.fixture
def app():
    st.cache_resource.clear()
    return AppTest.from_file("../../streamlit_app.py", default_timeout=30)


def test_it_shows_the_shipped_model(app, shipped):
    app.run()
    assert not app.exception
    assert not app.error
    figures = {metric.label: metric.value for metric in app.metric}
    assert figures["Trained on"] == "MovieLens 100K"
    assert figures["Films"] == "1,682"
    assert figures["Average miss"] == f"{shipped.metrics['mae']:.2f} stars"
    neighbours = app.dataframe[2].value["title"].tolist()
    assert neighbours[:3] == ["The Empire Strikes Back (1980)", "Return of the Jedi (1983)", "Raiders of the Lost Ark (1981)"]
    assert "may not be redistributed" in app.caption[0].value


def test_a_damaged_model_is_an_error_with_a_next_step(app, tmp_path, monkeypatch):
    damaged = shutil.copytree("models/ml-100k", tmp_path / "ml-100k")
    (damaged / "users.csv").write_text("x")
    monkeypatch.setattr("cfrec.load_model", lambda _: load_model(damaged))
    app.run()
    assert not app.exception
    assert "users.csv" in app.error[0].value
    assert "Restore a copy, or train it again" in app.error[0].value
    assert not app.metric
