"""The train page: the form, a run, its result."""

import math
from dataclasses import fields, replace
from threading import Event

import pytest
from streamlit.testing.v1 import AppTest

import cfrec
from app_pages import _run_view as run_view
from app_pages import _show as show
from app_pages import _state as state
from app_pages import _words as words
from cfrec import folders
from cfrec.board import JobBoard
from cfrec.checkpoints import Checkpoint
from cfrec.gibbs import GibbsRun
from cfrec.jobs import TrainingJob
from cfrec.plots import BEFORE
from cfrec.ratings import Source
from cfrec.trained import EpochMetrics
from cfrec.warm import is_warm, warm_up


@pytest.fixture(autouse=True, scope="module")
def _warm():
    warm_up(0).join()
    assert is_warm()


@pytest.fixture
def table(blocks) -> str:
    """The made-up ratings as CSV."""
    titles = blocks.movies["title"]
    rows = zip(blocks.user_ids[blocks.user_idx], blocks.movie_idx, blocks.rating, strict=True)
    return "user,movie,title,rating\n" + "".join(f'{user},{100 + movie},"{titles[movie]}",{stars:g}\n' for user, movie, stars in rows)


def upload(app, text, name="mine.csv"):
    return app.file_uploader[0].set_value((name, text.encode(), "text/csv")).run()


def button(app, label):
    return next(b for b in app.button if b.label == label)


def texts(app):
    return [element.value for element in (*app.caption, *app.markdown, *app.error, *app.warning, *app.success, *app.info)]


def says(app, text):
    return any(text in value.replace("\\", "") for value in texts(app))


def run_to_the_end(app):
    """Wait for the run that was just started, skip its show, and look at the result."""
    job = state.jobs().all()[0]
    assert job.wait(60).finished
    app.session_state["_skipped"] = {job.id}
    app.run()
    assert not app.exception
    return job


@pytest.fixture
def recorded(monkeypatch):
    """Runs that would have been started."""
    jobs = []
    monkeypatch.setattr(JobBoard, "submit", lambda self, job: jobs.append(job) or job)
    monkeypatch.setattr(TrainingJob, "wait", lambda self, seconds=None: self.snapshot)
    return jobs


def test_upload_train_accept_undo(open_page, blocks, table, models, no_data):
    app = upload(
        open_page(
            "train",
            {"data": "A file of your own", "recipe": "Quick", "epochs_quick": "8", "n_factors_quick": "4", "batch_size_quick": "64"},
        ),
        table,
    )
    assert says(app, f"**mine.csv**: {len(blocks):,} ratings")
    assert says(app, "ratings by 90 people of 36 films")
    button(app, "Train").click().run()
    job = run_to_the_end(app)
    assert (job.config.recipe, job.config.epochs, job.config.n_factors) == ("quick", 8, 4)
    assert says(app, "**Done after 8 rounds.**")
    trained = job.snapshot.result.trained
    figures = {metric.label: metric.value for metric in app.metric}
    assert figures["Average miss"] == f"{trained.metrics['rmse']:.3f} stars"
    assert figures["Best round"] == f"{trained.best_epoch} of 8"
    assert says(app, "were not tested on the same ratings")
    app.text_input[0].set_value("blocks")  # and the button at once: both reach the server together
    button(app, "Use this model").click().run()
    assert (models / "blocks" / "manifest.json").exists()
    assert state.load_stored("blocks").version == trained.version
    assert app.query_params["model"] == ["blocks"] or app.query_params["model"] == "blocks"
    assert says(app, "In use now, and stored as “blocks”")
    button(app, "Undo").click().run()
    assert app.session_state["_model"] == "ml-100k"
    assert (models / "blocks").exists()  # going back deletes nothing
    assert not says(app, "In use now")


def test_a_run_is_not_compared_with_itself(open_page, table, models, no_data):
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}, {"table-losses": True}), table)
    for n_runs in (1, 2):
        button(app, "Train").click().run()
        run_to_the_end(app)
        for _ in range(2):  # the second time as the model in use
            lines = next(table.value for table in app.dataframe if "series" in table.value)
            assert (lines["series"] == BEFORE).sum() == (0 if n_runs == 1 else cfrec.TrainConfig.preset("quick").epochs)
            if not says(app, "In use now"):
                button(app, "Use this model").click().run()


@pytest.mark.parametrize("same", [True, False])
def test_neighbours_are_compared_where_they_differ(open_page, table, models, no_data, same):
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}, {"advanced": True}), table)
    button(app, "Train").click().run()
    run_to_the_end(app)
    button(app, "Use this model").click().run()
    app.number_input(key="n_factors_quick").set_value(31 if same else 3).run()
    button(app, "Train").click().run()
    run_to_the_end(app)
    assert says(app, "The same in both") is same
    assert len([table for table in app.dataframe if "rank" in table.value]) == (0 if same else 1)


def test_keeping_the_current_model_changes_nothing(open_page, table, models, no_data):
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}), table)
    button(app, "Train").click().run()
    run_to_the_end(app)
    button(app, "Keep the current one").click().run()
    assert says(app, "You kept the current model")
    assert [p.name for p in models.iterdir() if p.is_dir()] == ["ml-100k"]


def test_a_taken_or_impossible_name_is_refused(open_page, table, models, no_data):
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}), table)
    button(app, "Train").click().run()
    run_to_the_end(app)
    for name, why in (("ml-100k", "already a model"), ("../x", "cannot be a model's name")):
        app.text_input[0].set_value(name).run()
        button(app, "Use this model").click().run()
        assert says(app, why)
    assert sorted(p.name for p in models.parent.iterdir()) == ["home", "models"] or [p.name for p in models.parent.iterdir()] == ["models"]


def test_the_same_run_again_compares_itself_with_the_accepted_one(open_page, table, models, no_data):
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}), table)
    button(app, "Train").click().run()
    run_to_the_end(app)
    app.text_input[0].set_value("first").run()
    button(app, "Use this model").click().run()
    button(app, "Train").click().run()
    run_to_the_end(app)
    change = next(metric.delta for metric in app.metric if metric.label == "Average miss")
    assert change == "no change"
    assert says(app, "None changed by more than a hundredth of a star.")
    runs = app.dataframe[-1].value
    assert runs["recipe"].tolist() == ["quick", "quick"]
    assert runs["link"].str.startswith("?run=").all()


CHANGED = {
    "method": "adam", "n_factors": 7, "epochs": 5, "batch_size": 100, "learning_rate": 0.02, "schedule": "linear",
    "beta2": 0.99, "weight_decay": 0.001,
    "choice_weight": 2.0, "unseen_weight": 0.3, "user_choice_l2": 0.03, "movie_choice_l2": 0.04,
    "user_l2": 0.3, "movie_l2": 0.4, "bias_l2": 0.02, "l2_exponent": 0.5, "factor_std": 0.1, "bias_std": 0.2, "start_at_mean": False,
    "margin_below": 0.7, "margin_above": 0.8, "patience": 3, "seed": 7, "n_threads": 2,
}  # fmt: skip


def test_every_setting_reaches_its_field(open_page, table, recorded, no_data):
    assert set(CHANGED) == {f.name for f in fields(cfrec.TrainConfig)} - {"recipe", "device"}
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}, {"advanced": True}), table)
    kinds = {bool: app.toggle, str: app.selectbox}
    for name, value in CHANGED.items():
        kinds.get(type(value), app.number_input)(key=f"{name}_quick").set_value(value)
    app.radio(key="device").set_value("cpu").run()
    button(app, "Train").click().run()
    assert recorded[0].config == cfrec.TrainConfig.preset("quick", device="cpu", **CHANGED)
    assert says(app, f"Changed from the recipe: {words.SETTINGS['method']}, {words.SETTINGS['n_factors']}")


def test_settings_are_drawn_once_they_are_asked_for(open_page, table, recorded, no_data):
    app = open_page("train", {"recipe": "Quick"})
    assert not app.number_input
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick", "epochs_quick": "8"}), table)
    assert len(app.number_input) > 10
    button(app, "Train").click().run()
    assert recorded[0].config == cfrec.TrainConfig.preset("quick", epochs=8)


def test_every_setting_has_a_name_and_an_explanation():
    for field in fields(cfrec.TrainConfig):
        assert words.SETTINGS[field.name]
        assert f"`{field.name}`" in words.setting_help(field.name)


@pytest.mark.parametrize("recipe", cfrec.TrainConfig.preset_names())
def test_each_recipe_untouched_is_its_preset(open_page, table, recorded, no_data, recipe):
    app = upload(open_page("train", {"data": "A file of your own", "recipe": recipe.capitalize()}), table)
    button(app, "Train").click().run()
    assert recorded[0].config == cfrec.TrainConfig.preset(recipe)


def test_what_is_chosen_in_the_moment_before_the_click_is_trained(open_page, table, recorded, no_data):
    """A quick hand changes the recipe and clicks before the page has been drawn anew: both reach the server at once."""
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}), table)
    app.radio(key="recipe").set_value("Seed")
    button(app, "Train").click().run()
    assert [job.config.recipe for job in recorded] == ["seed"]


def test_a_missing_device_says_why_and_cannot_be_trained_on(open_page, table, no_data):
    app = upload(open_page("train", {"data": "A file of your own", "device": "Apple GPU"}), table)
    assert any("Apple" in caption for caption in app.radio(key="device").proto.captions) or says(app, "Apple")
    assert says(app, "The device 'mps' cannot be used")
    assert button(app, "Train").disabled


def test_a_bad_file_is_named_with_its_line_and_can_be_read_without_its_bad_rows(open_page, table, no_data):
    app = upload(open_page("train", {"data": "A file of your own"}), table + "x,1,,9999999\n1,101,,many\n")
    assert says(app, "mine.csv, line")
    assert button(app, "Train").disabled
    app.toggle(key="drop_bad").set_value(True).run()
    assert not app.error
    assert says(app, "1 left out") or says(app, "2 left out")
    assert not button(app, "Train").disabled


def test_no_file_yet(open_page, no_data):
    app = open_page("train", {"data": "A file of your own"})
    assert button(app, "Train").disabled
    assert says(app, "Choose what to train first.")


def test_a_file_that_made_room_for_others_is_asked_for_again(open_page, table, no_data):
    app = upload(open_page("train", {"data": "A file of your own"}), table)
    app.switch_page("app_pages/start.py").run()
    app.switch_page("app_pages/train.py").run()
    assert says(app, "**mine.csv**")  # though the page was left: negative control
    app.switch_page("app_pages/start.py").run()
    state.kept()._kept.clear()
    app.switch_page("app_pages/train.py").run()
    assert says(app, "Your file is no longer in this server's memory: others needed the room. Choose it again.")
    assert button(app, "Train").disabled


def test_a_data_set_that_is_not_here_shows_its_size_and_licence(open_page, no_data):
    app = open_page("train")
    assert says(app, "a download of 4.9 MB, once")
    assert says(app, "may not be redistributed")
    assert not button(app, "Train").disabled


def test_a_data_set_too_large_for_the_memory_is_refused(open_page, no_data, monkeypatch):
    monkeypatch.setattr("cfrec.config.free_memory", lambda: 10_000_000)
    app = open_page("train", {"data": "MovieLens 25M (2019)"})
    assert says(app, "Training would need about")
    assert button(app, "Train").disabled


@pytest.fixture
def waiting(blocks):
    """A run of somebody else, which waits for its data until it is let go."""
    go = Event()

    def load(on_progress):
        on_progress(1_000_000, 4_000_000)
        assert go.wait(30)
        return blocks

    job = TrainingJob(load, cfrec.TrainConfig.preset("quick", n_factors=4, epochs=8, batch_size=64, device="cpu"), "Somebody's ratings")
    yield job, go
    go.set()
    if job._thread.ident:
        job.wait(30)


def test_a_second_visitor_watches_the_run_that_is_under_way(open_page, waiting, no_data):
    app = open_page("train")
    job, go = waiting
    state.jobs().submit(job)
    app.run()
    assert says(app, "A run is under way, and yours would be first in line.")
    assert app.session_state["_run"] == job.id
    assert app.get("progress")[0].proto.text == "**Somebody's ratings** · Downloading · 1.0 MB of 4.0 MB"
    go.set()
    run_to_the_end(app)
    assert says(app, "**Done after 8 rounds.**")


def test_runs_wait_for_their_turn_and_all_see_the_queue(open_page, waiting, blocks, table, no_data):
    job, go = waiting
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick", "epochs_quick": "3"}), table)
    state.jobs().submit(job)
    button(app, "Train").click().run()
    [mine] = state.jobs().waiting()
    assert app.session_state["_run"] == mine.id
    assert app.get("progress")[0].proto.text == "**mine\\.csv** · waits for its turn: first in line"
    other = open_page_of_another_visitor()
    assert says(other, "**mine.csv**, recipe “quick”: first in line")
    for _ in range(2):
        state.jobs().submit(TrainingJob(lambda _: blocks, mine.config, "Others"))
    other.run()
    assert button(other, "Train").disabled
    assert says(other, "A run is under way, and as many wait as may.")
    assert says(other, "**Others**, recipe “quick”: third in line")
    other.button(key=f"withdraw-{state.jobs().waiting()[2].id}").click().run()
    assert len(state.jobs().waiting()) == 2
    button(app, "Leave the queue").click().run()
    assert mine.snapshot.error == "It was taken out of the queue."
    assert app.session_state["_run"] == job.id  # what is under way is looked at instead
    go.set()


def open_page_of_another_visitor():
    app = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    app.switch_page("app_pages/train.py")
    return app.run()


@pytest.fixture
def cut_short(blocks, models):
    """A run of a file of one's own whose server ended after a few rounds; its id."""
    config = cfrec.TrainConfig.preset("quick", n_factors=4, epochs=8, batch_size=64, device="cpu")
    stop, kept = Event(), []

    def stop_after_three(metrics):
        if metrics.epoch == 3:
            stop.set()

    own = replace(blocks, source=Source("own:mine", "mine.csv"))
    cfrec.train(*own.split(), config, on_epoch=stop_after_three, stop=stop, on_checkpoint=kept.append)
    checkpoint = Checkpoint(models, "ab12cd34")
    assert checkpoint.keep(kept[0])
    checkpoint.release()
    return checkpoint


def test_a_run_that_was_cut_short_is_resumed_with_the_same_file(open_page, cut_short, table, no_data):
    app = open_page("train", {"data": "A file of your own", "run": cut_short.run})
    assert says(app, "A run was cut short: **mine.csv**, recipe “quick”, after round 3 of 8.")
    assert says(app, "To go on with it, choose the same file, mine.csv")
    assert not says(app, "no longer kept")
    assert button(app, "Resume from round 3").disabled
    upload(app, table)
    button(app, "Resume from round 3").click().run()
    job = run_to_the_end(app)
    assert job.id == cut_short.run
    assert [m.epoch for m in job.snapshot.history] == list(range(1, 9))
    assert says(app, "**Done after 8 rounds.**")
    assert not says(app, "cut short")


def test_a_run_that_was_cut_short_is_not_resumed_with_another_file_of_its_name(open_page, cut_short, table, no_data):
    app = upload(open_page("train", {"data": "A file of your own"}), table.replace(",5\n", ",4\n"))
    button(app, "Resume from round 3").click().run()
    assert "trained on other ratings" in run_to_the_end(app).snapshot.error
    assert says(app, "A run was cut short")  # so that the right file can still be chosen


def test_a_run_that_was_cut_short_can_be_discarded(open_page, cut_short, no_data):
    app = open_page("train")
    button(app, "Discard it").click().run()
    assert not says(app, "cut short")
    assert not cut_short.folder.exists()


def test_a_checkpoint_stays_that_cannot_be_read_for_want_of_memory(open_page, cut_short, no_data, monkeypatch, caplog):
    with monkeypatch.context() as scarce:
        scarce.setattr(folders, "_SMALL", 0)
        scarce.setattr(folders, "free_memory", lambda: 1)
        assert state.unfinished() == []
    assert "0.0 GB are free" in caplog.text
    assert says(open_page("train"), "cut short")


def test_a_cut_short_run_of_a_damaged_data_set_does_not_break_the_page(open_page, blocks, cut_short, models, cache):
    cache.mkdir()
    (cache / "ml-100k.zip").write_bytes(b"no zip")
    kept = cfrec.load_model(cut_short.folder)
    assert cut_short.keep(replace(kept, source=replace(kept.source, name="ml-100k", title="MovieLens 100K")))
    cut_short.release()
    app = open_page("train", {"data": "A file of your own"})
    assert not app.exception
    assert says(app, "ml-100k.zip is damaged") or says(app, "ml-100k.zip")
    assert not says(app, str(cache))
    assert button(app, "Resume from round 3").disabled
    assert not button(app, "Discard it").disabled


def test_a_damaged_checkpoint_is_dropped(open_page, cut_short, no_data, caplog):
    (cut_short.folder / "users.csv").write_text("x")
    assert not says(open_page("train"), "cut short")
    assert "run ab12cd34 cannot be resumed" in caplog.text


def test_an_address_leads_back_to_its_run(open_page, waiting, no_data):
    open_page("train")
    job, go = waiting
    go.set()
    state.jobs().submit(job).wait(30)
    app = open_page("train", {"run": job.id}, {"_skipped": {job.id}})
    assert says(app, "**Done after 8 rounds.**")


def test_stopping_while_the_data_comes_leaves_nothing_but_a_reason(open_page, waiting, no_data):
    app = open_page("train")
    job, go = waiting
    state.jobs().submit(job)
    app.run()
    button(app, "Stop").click().run()
    go.set()
    run_to_the_end(app)
    assert says(app, "stopped before training began")
    assert not button(app, "Train").disabled


def test_pause_and_go_on(open_page, waiting, no_data):
    app = open_page("train")
    job, go = waiting
    job.pause()
    state.jobs().submit(job)
    go.set()
    while job.snapshot.phase in ("waiting", "reading"):
        job.wait(0.02)
    app.run()
    assert "paused" in app.get("progress")[0].proto.text
    button(app, "Go on").click().run()
    run_to_the_end(app)
    assert says(app, "**Done after 8 rounds.**")


def test_a_longer_run_is_compared_with_so_far_as_the_axis_goes(shipped):
    """A label at its hundredth round, on an axis of fourteen, once left no room for the drawing."""
    job = TrainingJob(lambda _: None, cfrec.TrainConfig(epochs=14), "Nobody's ratings")
    assert [m.epoch for m in run_view.history_before(job, shipped.history)] == list(range(1, 15))


def test_beside_a_run_what_cannot_be_trained_is_still_explained(open_page, waiting, no_data):
    job, _ = waiting
    state.jobs().submit(job)
    app = open_page("train", {"device": "NVIDIA GPU"})
    assert says(app, "A run is under way.")
    assert says(app, "The device 'cuda' cannot be used")
    app = open_page("train", {"data": "A file of your own"})
    assert says(app, "Choose what to train first.")


def test_a_file_that_is_taken_away_is_chosen_no_more(open_page, table, no_data):
    app = upload(open_page("train", {"data": "A file of your own"}), "user,movie,rating\n1,2,many\n")
    assert says(app, "mine.csv, line 2")
    app.file_uploader[0].set_value(None).run()
    assert says(app, "Choose what to train first.")
    assert not app.error
    upload(app, table)
    assert says(app, "**mine.csv**")
    app.file_uploader[0].set_value(None).run()
    assert not says(app, "**mine.csv**")
    assert says(app, "Choose what to train first.")


def test_who_gave_what_is_shown_to_nobody_else(open_page, table, no_data):
    form = {"data": "A file of your own", "recipe": "Quick", "epochs_quick": "8", "n_factors_quick": "4"}
    app = upload(open_page("train", form), table)
    button(app, "Train").click().run()
    job = run_to_the_end(app)
    assert any("user_id" in frame.value for frame in app.dataframe)
    other = open_page("train", {"run": job.id})
    other.session_state["_skipped"] = {job.id}
    other.run()
    assert says(other, "of all guesses miss by at most one star")
    assert says(other, "Who gave what is shown only to the visitor whose file it is.")
    assert not any("user_id" in frame.value for frame in other.dataframe)


def test_what_lies_above_the_usual_top_is_drawn_too(waiting):
    now = replace(waiting[0].snapshot, baselines={"mean": 1.0})
    assert run_view._top(now, ()) == 1.04
    assert run_view._top(now, [EpochMetrics(1, 4.0, 4.0, 0.01, 1.0, 1.0)]) == pytest.approx(1.04 * 1.5**2)  # the best misses by 2 stars
    assert run_view._top(now, [EpochMetrics(k, v, v, 0.01, 1.0, 1.0) for k, v in ((1, 4.0), (2, 0.9))]) == 1.04  # it no longer does


def test_each_sees_their_own_curve_from_before(waiting, monkeypatch):
    """Two visitors whose models in use have equally many rounds once got the same drawing."""
    versions = []
    monkeypatch.setattr(show, "drawn_once", lambda *_, version, **__: versions.append(version))
    now = replace(waiting[0].snapshot, baselines={"mean": 1.2})
    for loss in (0.9, 0.8, 0.9):
        run_view._chart(waiting[0], now, (), [EpochMetrics(1, loss, loss, 0.01, 1.0, 1.0)])
    assert versions[0] == versions[2] != versions[1]


def test_a_run_that_fails_says_why(open_page, no_data):
    def load(_):
        raise cfrec.CfrecError("The disk is full. Free some space.")

    app = open_page("train")
    state.jobs().submit(TrainingJob(load, cfrec.TrainConfig(), "x")).wait(30)
    app.session_state["_run"] = state.jobs().all()[0].id
    app.run()
    assert says(app, "The run did not finish. The disk is full. Free some space.")


def test_a_run_that_diverges_offers_a_smaller_step(open_page, table, no_data):
    app = upload(
        open_page(
            "train",
            {"data": "A file of your own", "recipe": "Seed", "learning_rate_seed": "10", "epochs_seed": "60", "batch_size_seed": "64"},
        ),
        table,
    )
    button(app, "Train").click().run()
    job = run_to_the_end(app)
    assert job.snapshot.result.trained.outcome == "diverged" or job.snapshot.result.trained.advice
    assert app.warning
    button(app, "Try again with a step size of 0.0065").click().run()
    again = run_to_the_end(app)
    assert again.config.learning_rate == 0.0065
    assert again.snapshot.result.trained.outcome == "completed"
    assert app.number_input(key="learning_rate_seed").value == 0.0065  # or else Train would fail in the same way again


def test_a_run_without_steps_that_diverges_is_offered_none(open_page, table, no_data, monkeypatch):
    """It was advised a smaller step size, which its method does not have."""
    monkeypatch.setattr(GibbsRun, "_loss", lambda run, _: math.nan if run.history else 1.0)
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}), table)
    button(app, "Train").click().run()
    assert run_to_the_end(app).snapshot.result.trained.outcome == "diverged"
    assert "Try fewer factors, or another recipe." in app.warning[0].value
    assert not [b for b in app.button if b.label.startswith("Try again")]


def test_a_run_that_is_gone(open_page, no_data):
    app = open_page("train", {"run": "0000abcd"})
    assert says(app, "no longer kept")
    assert says(app, "How the model in use learned")


def test_the_step_size_is_shown_on_demand(open_page, waiting, no_data):
    app = open_page("train")
    job, go = waiting
    go.set()
    state.jobs().submit(job).wait(30)
    app.session_state["_run"] = job.id
    run_to_the_end(app)
    before = len(app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart"))
    app.toggle(key="step_size").set_value(True).run()
    assert len(app.get("vega_lite_chart") or app.get("arrow_vega_lite_chart")) == before + 1


def accepted(open_page, table):
    """A visitor who has trained on a file of their own and uses the result, stored as "first"."""
    app = upload(open_page("train", {"data": "A file of your own", "recipe": "Quick"}), table)
    button(app, "Train").click().run()
    job = run_to_the_end(app)
    app.text_input[0].set_value("first").run()
    button(app, "Use this model").click().run()
    return app, job


def test_a_second_visitor_may_accept_the_same_run_under_the_same_name(open_page, table, no_data):
    _, job = accepted(open_page, table)
    board = state.jobs()
    other = AppTest.from_file("../../streamlit_app.py", default_timeout=60)
    other.query_params["run"] = job.id
    other.session_state["_skipped"] = {job.id}
    other.switch_page("app_pages/train.py").run()
    assert state.jobs() is board
    other.text_input[0].set_value("first").run()
    button(other, "Use this model").click().run()
    assert not other.error
    assert says(other, "In use now, and stored as “first”")


def test_undo_is_not_offered_for_a_model_that_is_gone(open_page, models, table, trained, no_data):
    cfrec.save_model(trained, models / "mine")
    app = upload(open_page("train", {"model": "mine", "data": "A file of your own", "recipe": "Quick"}), table)
    button(app, "Train").click().run()
    run_to_the_end(app)
    button(app, "Use this model").click().run()
    assert any(b.label == "Undo" for b in app.button)
    cfrec.delete_model(models / "mine")
    app.run()
    assert not app.exception
    assert not any(b.label == "Undo" for b in app.button)


def test_a_model_that_was_replaced_on_disk_is_read_again(open_page, models, trained, shipped, no_data):
    open_page()
    cfrec.save_model(trained, models / "mine")
    assert state.load_stored("mine").version == trained.version
    cfrec.save_model(shipped, models / "mine")
    assert state.load_stored("mine").version == shipped.version
    cfrec.delete_model(models / "mine")
    with pytest.raises(cfrec.CfrecError, match="There is no model"):
        state.load_stored("mine")


def test_a_model_without_a_whole_round_is_shown_without_a_chart(open_page, models, trained, no_data):
    cfrec.save_model(replace(trained, history=[]), models / "mine")
    app = open_page("train", {"model": "mine"})
    assert says(app, "stopped before its first round was over")


def test_another_run_can_be_watched_from_the_address_of_an_old_one(open_page, waiting, no_data):
    app = open_page("train", {"run": "0000abcd"})
    job, go = waiting
    finished = TrainingJob(lambda _: None, cfrec.TrainConfig(), "x")
    state.jobs().submit(finished).wait(30)
    app.session_state["_run"] = finished.id
    state.jobs().submit(job)
    app.run()
    button(app, "Watch it").click().run()
    assert app.session_state["_run"] == job.id
    go.set()


@pytest.mark.parametrize("value", ["1e9", "nan", "x", "-3"])
def test_an_impossible_number_in_the_address_is_left_aside(open_page, no_data, value):
    app = open_page("train", {"epochs_balanced": value, "learning_rate_balanced": value})
    assert app.number_input(key="epochs_balanced").value == 7


@pytest.mark.parametrize("value", ["inf", "-inf", "1e400"])
def test_infinity_in_the_address_is_an_error_with_a_next_step(open_page, no_data, value):
    app = open_page("train", {"epochs_balanced": value})
    assert says(app, "The address of this page gives “Rounds” no number")
    assert button(app, "Train").disabled


def test_an_address_is_never_markup(open_page, no_data):
    app = open_page("train", {"model": "![x](http://evil/x.png)"})
    assert "![x](" not in app.error[0].value
