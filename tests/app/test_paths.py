"""No page tells where things lie on the machine that it is served from, whatever goes wrong."""

import pytest

import cfrec
from app_pages._words import plain, told
from cfrec.errors import DataError
from cfrec.packing import pack_model
from cfrec.storage import save_model

PAGES = ["start", "train", "biases", "map", "similar", "models", "about"]


def everything(app):
    """All that is sent to the browser, in one text; without the backslashes that keep Markdown from reading it."""
    return "\n".join(str(element.proto) for element in app._tree if hasattr(element, "proto")).replace("\\", "")


def damage(folder):
    (folder / "manifest.json").write_bytes(b"{}")


@pytest.fixture
def no_path(tmp_path):
    """Check a page: something is said to be wrong on it, and nothing of where."""

    def check(app, said):
        assert not app.exception
        text = everything(app)
        assert said in text
        assert str(tmp_path) not in text
        assert tmp_path.name not in text
        assert "Traceback" not in text

    return check


@pytest.mark.parametrize("page", PAGES)
def test_a_damaged_model_in_use(page, open_page, models, no_path, monkeypatch):
    monkeypatch.setattr("app_pages._train_form.is_warm", lambda: True)
    save_model(cfrec.load_model(models / "ml-100k"), models / "mine")
    damage(models / "mine")
    no_path(open_page(page, {"model": "mine"}), "damaged")


@pytest.mark.parametrize("name", ["gone", "../../etc", "a" * 300, "/etc/passwd", "ml-100k\0", "x/../ml-100k"])
@pytest.mark.parametrize("page", ["start", "models"])
def test_a_model_that_is_not_there(page, name, open_page, no_path):
    no_path(open_page(page, {"model": name}), "no longer here" if page == "models" else "cannot be shown")


@pytest.fixture
def unwritable(models):
    """A folder of models in which nothing can be locked, not even by root, and with a model beside the shipped one."""
    save_model(cfrec.load_model(models / "ml-100k"), models / "mine")
    (models / ".cfrec.lock").unlink()
    (models / ".cfrec.lock").mkdir()
    return models


def click(app, key):
    return app.button(key=key).click().run()


def test_a_model_that_cannot_be_renamed(unwritable, open_page, no_path):
    app = click(open_page("models"), "rename-mine")
    app.text_input(key="new-name-mine").set_value("other")
    no_path(click(app, "rename-now"), "could not be renamed")


def test_a_model_that_cannot_be_deleted(unwritable, open_page, no_path):
    no_path(click(click(open_page("models"), "delete-mine"), "delete-now"), "could not be deleted")


def test_a_model_that_cannot_be_stored(unwritable, open_page, no_path, trained, monkeypatch):
    """Neither an uploaded one, nor one that was trained here."""
    from app_pages import _result, _stored

    app = open_page("models")
    app.session_state["name"] = "new"
    monkeypatch.setattr(_stored.st, "session_state", {"name": "new"})
    _stored.add(trained, "name")
    assert "could not be saved" in _stored.st.session_state["_models_problem"]
    assert str(unwritable) not in _stored.st.session_state["_models_problem"].replace("\\", "")
    _result._accept(trained, "name")
    assert "could not be saved" in _result.st.session_state["_save_problem"]
    assert str(unwritable) not in _result.st.session_state["_save_problem"].replace("\\", "")


def test_an_upload_that_is_no_model(open_page, no_path, trained):
    app = open_page("models")
    for data in (b"no zip", pack_model(trained)[:-100]):
        app.file_uploader[0].upload("mine.zip", data, "application/zip").run()
        no_path(app, "This is not a whole")


@pytest.mark.parametrize("page", [page for page in PAGES if page != "train"])
def test_a_damaged_data_set_on_this_machine(page, open_page, cache):
    cache.mkdir()
    (cache / "ml-100k.zip").write_bytes(b"no zip")
    app = open_page(page)
    assert not app.exception
    assert str(cache) not in everything(app)


@pytest.mark.parametrize(
    ("message", "shown"),
    [
        ("/home/me/cfrec cannot be written to: no space.", "cfrec cannot be written to: no space."),
        ("To fetch it afresh, delete /var/a/ml-100k.zip.", "To fetch it afresh, delete ml-100k.zip."),
        ("The model '/srv/my data/a model' is damaged", "The model 'a model' is damaged"),
        ("C:\\Users\\Jo\\model is damaged", "model is damaged"),
        ("~/model and ~jo/other", "model and other"),
        ("Get https://example.org/a/b.zip; 1/2, 5 / 7, and/or n/a", "Get https://example.org/a/b.zip; 1/2, 5 / 7, and/or n/a"),
        ("*bold* <b> $x$ [a](b)", "*bold* <b> $x$ [a](b)"),
    ],
)
def test_paths_are_cut_to_their_last_name_by_hand(message, shown):
    assert told(message) == plain(shown)
    assert told(DataError(message)) == plain(shown)


def test_the_cache_may_lie_in_a_folder_with_spaces(tmp_path, monkeypatch):
    monkeypatch.setenv("CFREC_HOME", str(tmp_path / "my films" / "all of them"))
    assert told(f"{tmp_path}/my films/all of them cannot be written to") == "all of them cannot be written to"
    assert told(f"delete {tmp_path}/my films/all of them/ml.zip") == plain("delete ml.zip")


def test_a_page_that_told_would_be_found(open_page, models, no_path):
    """Negative control."""
    app = open_page("models", {"model": str(models)})
    with pytest.raises(AssertionError):
        no_path(app, "no longer here")
