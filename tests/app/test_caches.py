"""What the app keeps in memory is bounded, in number everywhere and in bytes where it is large."""

import ast
from pathlib import Path

import pytest

import cfrec
from app_pages import _state
from cfrec.keeping import size_of

SOURCES = [*Path("app_pages").glob("*.py"), Path("streamlit_app.py")]
ONE_OF_EACH = {"kept", "jobs", "set_out"}  # take no argument, so that there is one


def cached(source: str) -> dict[str, bool]:
    """Functions with a cache: whether the number of what it holds is bounded."""
    found = {}
    for function in (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)):
        for decorator in function.decorator_list:
            if "cache" in ast.unparse(decorator):
                named = [keyword.arg for keyword in getattr(decorator, "keywords", [])]
                arguments = function.args.args + function.args.kwonlyargs
                found[function.name] = "max_entries" in named or (function.name in ONE_OF_EACH and not arguments)
    return found


def test_every_cache_is_bounded_in_number():
    found = {}
    for path in SOURCES:
        found |= cached(path.read_text())
    assert {name for name, bounded in found.items() if not bounded} == set()
    assert found.keys() >= ONE_OF_EACH


@pytest.mark.parametrize("decorator", ["st.cache_data", "st.cache_resource(show_spinner=False)", "functools.lru_cache"])
def test_a_cache_without_a_bound_would_be_found(decorator):
    """Negative control."""
    assert cached(f"@{decorator}\ndef read(name): ...") == {"read": False}
    assert cached(f"@{decorator}\ndef jobs(of_whom): ...") == {"jobs": False}


@pytest.fixture
def many_models(models, trained):
    """Six stored models, and room for three of them."""
    for k in range(6):
        cfrec.save_model(trained, models / f"m{k}")
    return size_of(cfrec.load_model(models / "m0"))


def test_models_that_are_looked_at_one_after_the_other_stay_within_the_bytes(many_models, open_page, monkeypatch):
    monkeypatch.setattr(_state, "_KEPT_BYTES", 3 * many_models + 100)
    page = open_page("similar", {"model": "m5"})
    for k in range(6):
        _look_at(page, f"m{k}")
        assert _state.kept().n_bytes <= 3 * many_models + 100
    assert _state.kept().n_bytes == pytest.approx(3 * many_models, abs=100)


def _look_at(page, name):
    page.query_params["model"] = name
    page.run()
    assert not page.exception
    return page


def test_a_model_larger_than_all_that_may_be_kept_is_shown_all_the_same(many_models, open_page, monkeypatch):
    monkeypatch.setattr(_state, "_KEPT_BYTES", many_models // 2)
    page = open_page("similar", {"model": "m0"})
    assert not page.error
    assert _state.kept().n_bytes == pytest.approx(many_models, abs=100)
    _look_at(page, "m1")
    assert not page.error
    assert _state.kept().n_bytes == pytest.approx(many_models, abs=100)


def test_a_model_that_changed_on_disk_is_read_again(many_models, models, open_page, blocks, block_config):
    page = open_page("similar", {"model": "m0"})
    before = _state.load_stored("m0").version
    assert _state.load_stored("m0").version == before
    cfrec.save_model(cfrec.train(*blocks.split(seed=1), block_config), models / "m0")
    assert _state.load_stored("m0").version != before
    _look_at(page, "m0")
