"""The page of stored models."""

import json
import math
from dataclasses import replace

import pytest
import streamlit as st

import cfrec
from app_pages import _stored
from cfrec.manifest import seal
from cfrec.packing import pack_model, unpack_model

SHIPPED = "ml-100k"


@pytest.fixture
def stored(models, trained):
    """Beside the shipped model: ``blocks``, ``blocks 2`` with another seed and step size, and ``broken``, whose users are lost."""
    cfrec.save_model(trained, models / "blocks")
    cfrec.save_model(replace(trained, config=replace(trained.config, seed=7, learning_rate=0.02)), models / "blocks 2")
    cfrec.save_model(trained, models / "broken")
    (models / "broken" / "users.csv").unlink()
    return models


@pytest.fixture
def page(stored, open_page):
    return open_page("models")


def names(folder):
    return sorted(path.name for path in folder.iterdir() if path.is_dir())


def captions(app):
    """As they are read: with nothing escaped."""
    return [caption.value.replace("\\", "") for caption in app.caption]


def in_use(app):
    return next(text.value for text in app.markdown if text.value.startswith("You are using"))


def chosen(app):
    return app.multiselect(key="compare").value


def table(app, column):
    """The first table that has a column of this name."""
    return next(frame.value for frame in app.dataframe if column in frame.value)


def act(app, key):
    app.button(key=key).click().run()
    assert not app.exception, app.exception
    return app


def upload(app, name, data):
    app.get("file_uploader")[0].set_value((name, data, "application/zip")).run()
    assert not app.exception, app.exception
    return app


def field(app):
    [text] = app.text_input
    return text


def button(app, label):
    return next(button for button in app.button if button.label == label)


# The list


def test_each_model_is_listed_with_its_figures_and_who_can_see_it(page, trained):
    assert not page.error
    assert in_use(page) == r"You are using **ml\-100k**."
    assert "stored on this server and shared" in page.markdown[0].value
    for name in (r"**ml\-100k**", "**blocks**", "**blocks 2**", "**broken**"):
        assert name in [text.value for text in page.markdown]
    miss = f"average miss {trained.metrics['rmse']:.2f} stars · Ratings · recipe quick"
    assert sum(text.startswith(miss) for text in captions(page)) == 2


def test_the_table_has_one_row_a_model_that_can_be_loaded(page, shipped, trained):
    figures = table(page, "rmse").set_index("model")
    assert figures.index.tolist() == ["blocks", "blocks 2", SHIPPED]
    assert figures.loc[SHIPPED, ["recipe", "rounds", "best_epoch", "n_factors", "n_movies", "n_users"]].tolist() == [
        *("accurate", 50, 50, 73, 1682, 943)
    ]
    assert figures.loc[SHIPPED, "rmse"] == shipped.metrics["rmse"]
    assert figures.loc["blocks", ["n_movies", "n_train", "n_valid"]].tolist() == [36, trained.n_train, trained.n_valid]


def test_a_damaged_model_is_shown_with_its_reason_and_can_only_be_renamed_or_deleted(page):
    [reason] = [text for text in captions(page) if text.startswith("damaged:")]
    assert reason.startswith("damaged: users.csv cannot be read (No such file or directory). Restore a copy of its folder, or delete it")
    assert {button.key for button in page.button if button.key.endswith("broken")} == {"rename-broken", "delete-broken"}
    assert "broken" not in page.multiselect(key="compare").options


def test_the_shipped_model_cannot_be_renamed_or_deleted_and_the_page_says_why(page):
    assert not [button for button in page.button if button.key in (f"rename-{SHIPPED}", f"delete-{SHIPPED}")]
    assert "It cannot be renamed or deleted, so that there is always a model to start from." in captions(page)


def test_a_damaged_shipped_model_is_not_to_be_deleted_but_restored(stored, open_page):
    (stored / SHIPPED / "manifest.json").write_text("{}")
    page = open_page("models")
    [reason] = [text for text in captions(page) if "manifest cannot be read" in text]
    assert reason.endswith("Restore a copy of its folder, or cfrec must be installed anew.")
    assert "is damaged or no longer here. Choose another one below" in page.error[0].value
    act(page, "use-blocks")
    assert not page.error
    assert in_use(page) == "You are using **blocks**."


def test_without_any_model_the_page_says_so_and_takes_one(models, open_page, trained):
    for path in (models / SHIPPED).iterdir():
        path.unlink()
    (models / SHIPPED).rmdir()
    page = open_page("models")
    assert "no longer here" in page.error[0].value
    assert not page.dataframe
    upload(page, "ml-100k.zip", pack_model(trained))
    button(page, "Add to the models").click().run()
    assert in_use(page) == r"You are using **ml\-100k**."


def test_a_folder_named_by_hand_can_be_used_after_it_is_renamed(stored, open_page):
    (stored / "blocks").rename(stored / "größe [1]")
    page = open_page("models")
    assert any("cannot be a model's name" in text and text.endswith("Rename it to use it.") for text in captions(page))
    assert not [button for button in page.button if button.key == "use-größe [1]"]
    act(page, "rename-größe [1]")
    field(page).set_value("size 1")
    act(page, "rename-now")
    act(page, "use-size 1")
    assert in_use(page) == "You are using **size 1**."


def test_the_list_is_read_again_only_when_something_changed(stored, open_page, trained, monkeypatch):
    reads, list_models = [], cfrec.list_models
    monkeypatch.setattr(cfrec, "list_models", lambda folder: reads.append(folder) or list_models(folder))
    page = open_page("models")
    act(page, "use-blocks")
    assert len(reads) == 1
    cfrec.save_model(trained, stored / "new")
    page.run()
    assert len(reads) == 2
    assert "new" in table(page, "rmse")["model"].tolist()


def test_a_forged_manifest_does_not_break_the_page_for_everyone(stored, open_page):
    path = stored / "blocks" / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest |= {"best_epoch": 2**39, "fit_seconds": 10**200, "outcome": "**odd**"}
    manifest["dataset"]["title"] = "![x](http://evil/x.png) :red[d]"
    manifest["metrics"]["rmse"] = -(10**200)
    manifest["history"][0] |= {"valid_loss": -5, "epoch": 2**39}
    path.write_bytes(seal(manifest))
    page = open_page("models")
    assert table(page, "rmse").set_index("model").loc["blocks", "best_epoch"] == 2**39
    [caption] = [caption.value for caption in page.caption if "evil" in caption.value]
    assert r"\!\[x\]\(http\:" in caption
    assert caption.endswith(r"\*\*odd\*\*")


# Use, and undo


def test_use_and_undo(page):
    act(page, "use-blocks")
    assert in_use(page) == "You are using **blocks**."
    assert page.query_params["model"] == "blocks"
    assert not [button for button in page.button if button.key == "use-blocks"]
    assert page.button(key="undo").label == r"Undo: back to ml\-100k"
    act(page, "undo")
    assert in_use(page) == r"You are using **ml\-100k**."
    assert not [button for button in page.button if button.key == "undo"]


def test_there_is_no_way_back_to_a_model_that_is_gone(page, stored):
    act(page, "use-blocks")
    act(page, "use-blocks 2")
    assert page.button(key="undo").label.endswith("blocks")
    cfrec.delete_model(stored / "blocks")
    page.run()
    assert not [button for button in page.button if button.key == "undo"]


def test_the_model_in_the_address_is_in_use(stored, open_page):
    assert in_use(open_page("models", query={"model": "blocks"})) == "You are using **blocks**."


# Rename


def test_rename(page, stored):
    act(page, "rename-blocks")
    assert field(page).value == "blocks"
    field(page).set_value("  my best  ")
    act(page, "rename-now")
    assert names(stored) == ["blocks 2", "broken", SHIPPED, "my best"]
    assert page.toast[0].value == "“blocks” is now called “my best”."
    assert not page.text_input  # the dialog is closed
    assert chosen(page) == ["my best", "blocks 2", SHIPPED]
    assert in_use(page) == r"You are using **ml\-100k**."


def test_the_model_in_use_stays_in_use_under_its_new_name(page):
    act(page, "use-blocks")
    act(page, "rename-blocks")
    field(page).set_value("kept")
    act(page, "rename-now")
    assert in_use(page) == "You are using **kept**."
    assert page.query_params["model"] == "kept"
    act(page, "undo")
    assert in_use(page) == r"You are using **ml\-100k**."


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("blocks 2", "There is already a model 'blocks 2'. Choose another name."),
        (SHIPPED, "There is already a model 'ml-100k'. Choose another name."),
        ("../evil", "'../evil' cannot be a model's name. Use up to 64 plain letters"),
        (" ", "'' cannot be a model's name. Use up to 64 plain letters"),
    ],
)
def test_a_name_that_cannot_be_is_refused_in_the_dialog(page, stored, name, problem):
    before = names(stored)
    act(page, "rename-blocks")
    field(page).set_value(name)
    act(page, "rename-now")
    assert page.error[0].value.replace("\\", "").startswith(problem)
    assert field(page).value == name  # still open
    assert names(stored) == before
    act(page, "rename-cancel")
    assert not page.error
    assert not page.text_input


def test_the_same_name_again_changes_nothing(page, stored):
    act(page, "rename-blocks")
    act(page, "rename-now")
    assert not page.error
    assert not page.toast
    assert "blocks" in names(stored)


# Delete


def test_delete_asks_first(page, stored):
    act(page, "delete-blocks")
    assert any("**for everyone**" in text.value and "cannot be brought back" in text.value for text in page.markdown)
    assert not any(text.value.startswith("You are using it") for text in page.markdown)
    act(page, "delete-cancel")
    assert "blocks" in names(stored)
    act(page, "delete-blocks")
    act(page, "delete-now")
    assert names(stored) == ["blocks 2", "broken", SHIPPED]
    assert page.toast[0].value == "“blocks” was deleted."
    assert chosen(page) == ["blocks 2", SHIPPED]


def test_deleting_the_model_in_use_goes_back_to_the_shipped_one(page):
    act(page, "use-blocks")
    act(page, "delete-blocks")
    assert any(text.value.startswith(r"You are using it: you will go back to **ml-100k**") for text in page.markdown)
    act(page, "delete-now")
    assert in_use(page) == r"You are using **ml\-100k**."
    assert page.query_params["model"] == SHIPPED
    assert not [button for button in page.button if button.key == "undo"]


def test_a_damaged_model_can_be_deleted(page, stored):
    act(page, "delete-broken")
    act(page, "delete-now")
    assert names(stored) == ["blocks", "blocks 2", SHIPPED]
    assert not any("damaged" in text for text in captions(page))


def test_a_folder_that_is_no_model_is_shown_and_left_alone(stored, open_page):
    (stored / "notes").mkdir()
    (stored / "notes" / "diary.txt").write_text("dear diary")
    page = open_page("models")
    act(page, "delete-notes")
    act(page, "delete-now")
    assert "There is no model in" in page.error[0].value
    assert page.error[0].value.replace("\\", "").endswith("Whoever runs this server can look into the folder, and remove it.")
    assert (stored / "notes" / "diary.txt").read_text() == "dear diary"


def test_what_another_visitor_deleted_meanwhile_is_said_to_be_gone(page, stored):
    cfrec.delete_model(stored / "blocks")
    act(page, "rename-blocks")
    assert page.error[0].value.startswith("“blocks” is no longer here: someone else has renamed or deleted it.")
    assert not page.text_input


# Download and upload


def test_the_download_is_the_whole_model_and_made_when_asked_for(stored, open_page, trained, monkeypatch):
    buttons, download_button = {}, st.download_button

    def record(label, data, **options):
        buttons[options["key"]] = (data, options["file_name"])
        return download_button(label, data, **options)

    monkeypatch.setattr(st, "download_button", record)
    open_page("models")
    data, file_name = buttons["zip-blocks"]
    assert file_name == "blocks.zip"
    assert unpack_model(data()).version == trained.version
    assert "zip-broken" not in buttons


def test_upload(page, stored, trained):
    upload(page, "Mein Modèle #1.zip", pack_model(trained))
    assert any(text.value.startswith("It learned from **Ratings**: 36 films, rated by 90 people.") for text in page.markdown)
    assert field(page).value == "Mein Modele -1"
    field(page).set_value("brought")
    button(page, "Add to the models").click().run()
    assert cfrec.load_model(stored / "brought").version == trained.version
    assert page.toast[0].value == "“brought” is now among the models."
    assert not page.text_input  # the uploader is empty again
    assert "brought" in table(page, "rmse")["model"].tolist()


def test_an_uploaded_model_never_takes_the_place_of_another(page, stored, trained, shipped):
    upload(page, "ml-100k.zip", pack_model(trained))
    assert field(page).value == "ml-100k 2"
    field(page).set_value(SHIPPED)
    button(page, "Add to the models").click().run()
    assert page.error[0].value.replace("\\", "") == "There is already a model 'ml-100k'. Choose another name."
    assert field(page).value == SHIPPED
    assert cfrec.load_model(stored / SHIPPED).version == shipped.version


@pytest.mark.parametrize("data", [b"", b"user,movie,rating\n1,2,3\n", b"PK\5\6" + bytes(18)])
def test_what_is_no_model_is_refused_with_a_next_step(page, stored, data):
    before = names(stored)
    upload(page, "bad.zip", data)
    assert page.error[0].value.replace("\\", "").startswith("This is not a whole")
    assert page.error[0].value.replace("\\", "").endswith("Choose a zip that was downloaded from cfrec.")
    assert not page.text_input
    assert names(stored) == before


def test_a_name_that_leads_elsewhere_is_refused(page, stored, trained):
    upload(page, "a.zip", pack_model(trained))
    field(page).set_value("../a")
    button(page, "Add to the models").click().run()
    assert "cannot be a model's name" in page.error[0].value
    assert not (stored.parent / "a").exists()


@pytest.mark.parametrize(
    ("file_name", "name"),
    [
        ("quick.zip", "quick"),
        ("blocks.zip", "blocks 3"),
        ("BLOCKS.ZIP", "BLOCKS 3"),
        ("größe/../étoile.zip", "etoile"),
        (".hidden_.zip", "hidden"),
        ("電影.zip", "model"),
        ("a" * 100 + ".zip", "a" * 60),
    ],
)
def test_names_suggested_for_files(file_name, name):
    assert _stored.free_name(file_name, ["blocks", "blocks 2"]) == name


# Side by side


def test_up_to_three_are_compared_at_first(page):
    assert chosen(page) == ["blocks", "blocks 2", SHIPPED]
    assert page.multiselect(key="compare").proto.max_selections == 4


def test_settings_that_differ(page, trained):
    page.multiselect(key="compare").set_value(["blocks", "blocks 2"]).run()
    settings = table(page, "(setting)")
    assert list(settings) == ["(setting)", "blocks", "blocks 2", "(technical term)"]
    step = ["Step size", f"{trained.config.learning_rate:g}", "0.02", "learning_rate"]
    assert settings.to_numpy().tolist() == [step, ["Dice (random seed)", "42", "7", "seed"]]


def test_the_same_settings(stored, open_page, trained):
    cfrec.save_model(trained, stored / "blocks 2")
    page = open_page("models", query={"compare": ["blocks", "blocks 2"]})
    assert "None: these models were trained with the same settings." in captions(page)


def test_a_model_may_be_called_like_a_column(stored, open_page):
    (stored / "blocks").rename(stored / "title")
    (stored / "blocks 2").rename(stored / "setting")
    page = open_page("models", query={"compare": ["setting", "title"]})
    assert list(table(page, "(setting)")) == ["(setting)", "setting", "title", "(technical term)"]


def test_models_tested_on_other_ratings_are_told_apart(page):
    [warning] = page.warning
    assert warning.value.endswith("Tested alike, and fit to be compared: “blocks” and “blocks 2”.")
    page.multiselect(key="compare").set_value(["blocks", SHIPPED]).run()
    assert page.warning[0].value.endswith("No two of them can be compared by it.")
    page.multiselect(key="compare").set_value(["blocks", "blocks 2"]).run()
    assert not page.warning


def test_the_curves_are_the_misses_by_round(page, trained):
    page.multiselect(key="compare").set_value(["blocks", "blocks 2"]).run()
    chart = page.get("vega_lite_chart")[0].proto
    first, least = (math.sqrt(loss) for loss in (trained.history[0].valid_loss, min(m.valid_loss for m in trained.history)))
    assert f"blocks 2: from {first:.2f} down to {least:.2f} stars." in chart.alt
    assert "Show as table" in [expander.label for expander in page.expander]


@pytest.mark.parametrize("few", [[], ["blocks"]])
def test_fewer_than_two_are_not_compared(page, few):
    page.multiselect(key="compare").set_value(few).run()
    assert any(text.startswith("Choose at least two") for text in captions(page))
    assert not page.get("vega_lite_chart")
    assert len(page.dataframe) == 1


def test_the_address_says_what_is_compared(stored, open_page):
    assert chosen(open_page("models", query={"compare": ["blocks 2", "gone", SHIPPED]})) == ["blocks 2", SHIPPED]
