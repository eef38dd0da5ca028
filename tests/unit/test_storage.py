import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, fields, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cfrec
from cfrec import storage
from cfrec.errors import ModelError
from cfrec.manifest import seal
from cfrec.ratings import build_ratings
from cfrec.storage import check_folder, delete_model, list_models, load_model, model_folder, model_stamp, rename_model, save_model


@pytest.fixture
def folder(trained, tmp_path):
    return save_model(trained, tmp_path / "models" / "mine")


def beside(folder):
    """What else lies in the folder of models, but for the lock."""
    return sorted(p.name for p in folder.parent.iterdir() if p.name != ".cfrec.lock")


def assert_same_model(a, b):
    for field in fields(a):
        left, right = getattr(a, field.name), getattr(b, field.name)
        if isinstance(left, np.ndarray):
            assert left.dtype == right.dtype, field.name
            assert left.tolist() == right.tolist(), field.name
        elif isinstance(left, pd.DataFrame):
            pd.testing.assert_frame_equal(left, right)
        elif field.name != "state":
            assert left == right, field.name


def test_what_is_saved_is_what_is_loaded(trained, folder):
    assert_same_model(replace(trained, split=(0.2, 42)), load_model(save_model(replace(trained, split=(0.2, 42)), folder)))
    assert load_model(folder).state is None
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "weights.safetensors", "movies.csv", "users.csv"}
    assert beside(folder) == ["mine"]  # nothing temporary stays behind


def test_choices_and_traits_are_saved_and_loaded(chosen, tmp_path):
    loaded = load_model(save_model(chosen, tmp_path / "chosen", resumable=True))
    assert_same_model(chosen, loaded)
    assert loaded.n_traits == 2
    assert loaded.state is not None


def test_a_model_with_likeness_is_loaded_and_saved_anew_without_it(tmp_path):
    """The format before this one held a second block of movie factors, which was not part of the network."""
    old = Path("tests/fixtures/models/4-likeness")
    assert json.loads((old / "manifest.json").read_text())["shapes"]["n_likeness"] == 5
    loaded = load_model(old)
    assert list(loaded.weights()) == ["user_factors", "user_bias", "movie_factors", "movie_bias"]
    assert (loaded.config.method, loaded.config.choice_weight) == ("gibbs", 0.0)
    again = save_model(loaded, tmp_path / "again")
    assert_same_model(loaded, load_model(again))
    manifest = json.loads((again / "manifest.json").read_text())
    assert manifest["format_version"] == 2
    assert "n_likeness" not in manifest["shapes"] | manifest["config"]


def test_awkward_ids_and_titles_survive(block_config, tmp_path):
    users = np.array(["7", "007", 'ann, "b"', "né\n2", "NA", "7"], object)
    movies = np.array(["NA", "", "null", "=1+1", "a,b", "1e5"], object)
    catalogue = {"NA": ('Line\nbreak, "The" (1999)', "A|B"), "": ("nan", ""), "null": ("  ", "")}
    ratings = build_ratings(users, movies, np.array([1.0, 2, 3, 4, 5, 3]), movies=catalogue)
    trained = cfrec.train(ratings, ratings, replace(block_config, epochs=1))
    assert_same_model(trained, load_model(save_model(trained, tmp_path / "m")))


def test_a_resumable_model_resumes_to_the_same_bits(blocks, block_config, trained, tmp_path):
    stop = threading.Event()
    first = cfrec.train(*blocks.split(), block_config, stop=stop, on_epoch=lambda m: m.epoch == 4 and stop.set())
    loaded = load_model(save_model(first, tmp_path / "m", resumable=True))
    resumed = cfrec.train(*blocks.split(), loaded.config, resume=loaded)
    assert resumed.movie_factors.tolist() == trained.movie_factors.tolist()


@pytest.mark.parametrize("name", ["weights.safetensors", "movies.csv", "users.csv"])
def test_a_changed_byte_is_noticed(folder, name):
    data = bytearray((folder / name).read_bytes())
    data[len(data) // 2] ^= 1
    (folder / name).write_bytes(data)
    with pytest.raises(ModelError, match=f"{name} does not have its SHA-256"):
        load_model(folder)


@pytest.mark.parametrize("name", ["weights.safetensors", "movies.csv", "users.csv"])
def test_missing_and_cut_files_are_noticed(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(ModelError, match=f"{name} is not {len(data)} bytes"):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(folder)


def test_a_symlink_is_not_followed(folder, tmp_path):
    shutil.copy(folder / "users.csv", tmp_path / "elsewhere.csv")
    (folder / "users.csv").unlink()
    (folder / "users.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(ModelError, match=r"users\.csv is a link, or no file"):
        load_model(folder)


def test_saving_replaces_a_model_and_nothing_else(trained, folder, tmp_path):
    save_model(replace(trained, device="other"), folder)
    assert load_model(folder).device == "other"
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    with pytest.raises(ModelError, match="is not a model"):
        save_model(trained, tmp_path / "photos")
    assert (tmp_path / "photos" / "cat.jpg").exists()


def test_a_save_that_fails_leaves_the_old_model(trained, folder, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(storage, "_write_synced", full)
    with pytest.raises(ModelError, match="No space left on device"):
        save_model(replace(trained, device="other"), folder)
    assert_same_model(trained, load_model(folder))
    assert beside(folder) == ["mine"]


def test_a_model_whose_replacement_was_interrupted_is_read_listed_and_brought_back(trained, folder):
    folder.rename(folder.with_name(".mine.old"))  # killed between the two renames
    (folder.parent / ".mine.new-x").mkdir()
    assert_same_model(trained, load_model(folder))
    assert [(e.name, e.problem) for e in list_models(folder.parent)] == [("mine", "")]
    assert beside(folder) == [".mine.new-x", ".mine.old"]  # reading writes nothing
    save_model(replace(trained, device="other"), folder)
    assert load_model(folder).device == "other"
    assert beside(folder) == ["mine"]


def test_hidden_files_that_are_not_ours_are_left_alone(trained, tmp_path):
    (tmp_path / ".profile.old").write_text("mine")
    (tmp_path / ".m.old").mkdir()
    (tmp_path / ".m.old" / "thesis.txt").write_text("mine")
    save_model(trained, tmp_path / "m2")
    delete_model(tmp_path / "m2")
    with pytest.raises(ModelError, match="The model 'm' could not be saved: Directory not empty"):
        save_model(trained, save_model(trained, tmp_path / "m"))
    assert (tmp_path / ".profile.old").read_text() == "mine"
    assert (tmp_path / ".m.old" / "thesis.txt").read_text() == "mine"
    assert_same_model(trained, load_model(tmp_path / "m"))


def test_a_folder_with_a_manifest_of_another_kind_is_left_alone(trained, tmp_path):
    (tmp_path / "webapp").mkdir()
    (tmp_path / "webapp" / "manifest.json").write_text('{"name": "my app"}')
    for change in (lambda: save_model(trained, tmp_path / "webapp"), lambda: delete_model(tmp_path / "webapp")):
        with pytest.raises(ModelError):
            change()
    assert (tmp_path / "webapp" / "manifest.json").exists()


def test_an_empty_folder_and_a_damaged_model_can_be_saved_over(trained, folder, tmp_path):
    (tmp_path / "empty").mkdir()
    assert_same_model(trained, load_model(save_model(trained, tmp_path / "empty")))
    (folder / "manifest.json").write_text("{")
    assert_same_model(trained, load_model(save_model(trained, folder)))


def test_a_link_to_a_model_is_followed(trained, folder, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    save_model(replace(trained, device="other"), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert load_model(tmp_path / "link").device == load_model(folder).device == "other"


@pytest.mark.parametrize("name", ["x" * 300, "a\0b", "/dev/null/x", "/proc/x/y"])
def test_places_that_cannot_be_are_refused(trained, name):
    with pytest.raises(ModelError, match=r"cannot be stored|could not be saved"):
        save_model(trained, name)


def test_the_shipped_model_is_in_the_package_or_beside_it(tmp_path, monkeypatch):
    package = tmp_path / "cfrec"
    monkeypatch.setattr(storage, "__file__", str(package / "storage.py"))
    assert storage.shipped_model("x") == tmp_path / "models" / "x"  # a checkout
    (package / "models").mkdir(parents=True)
    assert storage.shipped_model("x") == package / "models" / "x"  # an installed wheel


def test_check_folder_leaves_nothing_behind(tmp_path):
    assert check_folder(tmp_path / "a" / "b") == (tmp_path / "a" / "b").resolve()
    assert not list(tmp_path.iterdir())


def test_readers_and_writers_at_once_always_see_a_whole_model(trained, folder):
    """Two savers and two readers on one model: every reading is one of the two models, whole."""
    until, problems, n_read = time.monotonic() + 2, [], [0]
    models = [replace(trained, device=name, movie_bias=trained.movie_bias + k) for k, name in enumerate(("a", "b"))]
    save_model(models[0], folder)

    def repeat(action):
        try:
            while time.monotonic() < until:
                action()
        except Exception as error:  # noqa: BLE001  # whatever it is, the test must fail with it
            problems.append(error)

    def read():
        loaded = load_model(folder)
        n_read[0] += 1
        assert loaded.movie_bias[0] == models["ab".index(loaded.device)].movie_bias[0]

    threads = [
        threading.Thread(target=repeat, args=(action,)) for action in (*(lambda m=m: save_model(m, folder) for m in models), read, read)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert n_read[0] > 20
    assert beside(folder) == ["mine"]


SAVER = """
import sys, cfrec
model = cfrec.load_model(sys.argv[1])
print("ready", flush=True)
while True:
    cfrec.save_model(model, sys.argv[1])
"""


@pytest.mark.parametrize("after", [0.001, 0.004, 0.009, 0.013, 0.02])
def test_kill_9_leaves_a_whole_model(trained, folder, after):
    saver = subprocess.Popen([sys.executable, "-c", SAVER, str(folder)], stdout=subprocess.PIPE)
    assert saver.stdout.readline() == b"ready\n"
    time.sleep(after)
    saver.send_signal(signal.SIGKILL)
    saver.wait()
    assert_same_model(trained, load_model(folder))
    assert [(e.name, e.problem) for e in list_models(folder.parent)] == [("mine", "")]
    save_model(trained, folder)
    assert beside(folder) == ["mine"]  # the next writer sweeps up


def test_a_saver_that_writes_in_place_would_be_caught(trained, folder):
    """Negative control of the tests above: half a model in its place is told from a whole one."""
    data = (folder / "weights.safetensors").read_bytes()
    (folder / "weights.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(ModelError, match=r"damaged: weights\.safetensors"):
        load_model(folder)


@pytest.mark.skipif(os.name != "posix" or os.geteuid() != 0, reason="becomes another user, which only root can")
def test_folders_of_others_are_refused_in_words(trained, folder):
    """As a user who may read nothing, or read but not write."""
    code = (
        "import os, sys, filelock, safetensors.numpy, cfrec\nfrom cfrec.storage import delete_model\nos.setuid(65534)\n"
        "for act in (lambda: cfrec.load_model(sys.argv[1]), lambda: delete_model(sys.argv[1])):\n"
        "    try:\n        act()\n    except cfrec.CfrecError as error:\n        print(error)\n"
        "print([e.problem for e in cfrec.list_models(os.path.dirname(sys.argv[1]))])"
    )
    for parent in [*folder.parents][:4]:
        if str(parent).startswith("/tmp/"):
            parent.chmod(0o755)
    (folder / "manifest.json").chmod(0)
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    assert "manifest.json cannot be read (Permission denied)" in run.stdout
    assert "The model 'mine' could not be deleted: Permission denied. See that its folder can be written to" in run.stdout
    folder.chmod(0)
    run = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=False)
    folder.chmod(0o755)
    assert run.returncode == 0, run.stderr
    assert "manifest.json cannot be read (Permission denied)" in run.stdout  # load
    assert "There is no model in" in run.stdout  # delete: none that this user can see
    (folder / "manifest.json").chmod(0o644)
    assert_same_model(trained, load_model(folder))


def test_list_shows_damaged_models_with_the_reason(trained, folder):
    save_model(trained, folder.parent / "also")
    (folder / "users.csv").write_text("x")
    (folder.parent / "not-a-model").mkdir()
    entries = {entry.name: entry for entry in list_models(folder.parent)}
    assert list(entries) == ["also", "mine", "not-a-model"]
    assert entries["also"].problem == ""
    assert entries["also"].manifest["metrics"] == dict(trained.metrics)
    assert "damaged: users.csv" in entries["mine"].problem
    assert "manifest.json cannot be read" in entries["not-a-model"].problem
    assert list_models(folder / "nowhere") == []


def test_delete(folder, tmp_path):
    delete_model(folder)
    assert not folder.exists()
    with pytest.raises(ModelError, match="no model"):
        delete_model(tmp_path)
    assert tmp_path.exists()


@pytest.mark.parametrize(
    "name",
    [
        "mine",
        "ml-100k",
        "a",
        "7",
        "A b",
        "v1.2",
        "my_model-3",
        "x" * 64,
        "Con1",
        "console",
        "COM10",
        "nullable.v2",
        "com.puter",
        "a..b",
        "end_",
    ],
)
def test_plain_names_are_models_of_the_folder(name, tmp_path):
    assert model_folder(tmp_path, name) == tmp_path / name
    assert model_folder(str(tmp_path), name).parent == tmp_path
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "name",
    [
        *("", " ", ".", "..", "../x", "..\\x", "a/b", "/a", "a/", "a\\b", "~", "~root", "C:", "C:x", "a:b"),
        *(
            "a\0b",
            "a\0",
            "abc\n",
            "a\nb",
            "a\tb",
            "a\r",
            "\x1b[2J",
            ".hidden",
            ".cfrec.lock",
            "-rf",
            "_x",
            " a",
            "a ",
            "a.",
            "a. ",
            "x" * 65,
        ),
        *("CON", "con", "con.txt", "Con.tar.gz", "con .txt", "NUL", "nul.", "aux", "PRN.x", "COM1", "lpt9.zip", "COM3.a.b"),
        *("a*", "a?", 'a"b', "a|b", "a<b", "$HOME", "a;b", "a'b", "a%2fb", "a&b"),
        *(
            "caf\u00e9",
            "\u0430bc",
            "a\u2024b",
            "\uff0e\uff0e\uff0fx",
            "a\u2215b",
            "a\u200bb",
            "abc\u2028",
            "\u0661",
            "\u202egnp",
            "\U0001f600",
        ),
    ],
)
def test_names_that_could_lead_elsewhere_are_refused(name, tmp_path):
    with pytest.raises(ModelError, match=r"cannot be a model's name\. Use up to 64 plain letters"):
        model_folder(tmp_path, name)


def test_a_long_name_is_not_repeated_whole(tmp_path):
    with pytest.raises(ModelError) as caught:
        model_folder(tmp_path, "x" * 10_000)
    assert len(str(caught.value)) < 300


def test_the_stamp_changes_whenever_the_model_does(trained, folder):
    stamps = [model_stamp(folder)]
    assert model_stamp(str(folder)) == stamps[0]
    load_model(folder)
    assert model_stamp(folder) == stamps[0]  # reading changes nothing
    for device in ("b", "c", "d"):
        save_model(replace(trained, device=device), folder)
        stamps.append(model_stamp(folder))
    save_model(replace(trained, device="d"), folder)  # the same model, stored anew
    stamps.append(model_stamp(folder))
    assert len(set(stamps)) == 5
    save_model(trained, folder.parent / "other")
    assert model_stamp(folder) == stamps[-1]
    delete_model(folder)
    assert model_stamp(folder) is None
    save_model(trained, folder)
    assert model_stamp(folder) not in {*stamps, model_stamp(folder.parent / "other"), None}


def test_there_is_a_stamp_wherever_there_is_a_model(trained, folder):
    before = model_stamp(folder)
    folder.rename(folder.with_name(".mine.old"))  # killed between the two renames
    assert model_stamp(folder) not in (None, before)
    assert model_stamp(folder.parent / "nowhere") is None
    assert model_stamp(folder.parent / ".mine.old" / "manifest.json" / "x") is None


def test_a_renamed_model_is_the_same_under_its_new_name(trained, folder):
    save_model(replace(trained, device="other"), folder.parent / "other")
    assert rename_model(folder, "New name 2") == folder.parent / "New name 2"
    assert_same_model(trained, load_model(folder.parent / "New name 2"))
    assert beside(folder) == ["New name 2", "other"]
    assert model_stamp(folder) is None
    with pytest.raises(ModelError, match="There is no model in"):
        load_model(folder)
    assert load_model(folder.parent / "other").device == "other"
    rename_model(folder.parent / "New name 2", "mine")
    assert_same_model(trained, load_model(folder))


def test_a_model_is_not_renamed_over_another(trained, folder):
    save_model(replace(trained, device="other"), folder.parent / "other")
    (folder.parent / "photos").mkdir()
    (folder.parent / "photos" / "cat.jpg").write_text("x")
    (folder.parent / "notes").write_text("x")
    for taken in ("other", "photos", "notes", "mine"):
        with pytest.raises(ModelError, match=f"There is already a model '{taken}'. Choose another name"):
            rename_model(folder, taken)
    assert beside(folder) == ["mine", "notes", "other", "photos"]
    assert_same_model(trained, load_model(folder))
    assert load_model(folder.parent / "other").device == "other"


def test_a_name_whose_model_is_being_replaced_is_taken(trained, folder):
    save_model(replace(trained, device="other"), folder.parent / "other").rename(folder.parent / ".other.old")
    with pytest.raises(ModelError, match="There is already a model 'other'"):
        rename_model(folder, "other")
    assert load_model(folder.parent / "other").device == "other"


def test_what_is_no_model_is_not_renamed(folder, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.jpg").write_text("x")
    (tmp_path / "link").symlink_to(folder)
    for place in ("nowhere", "photos", "link"):
        with pytest.raises(ModelError, match=f"There is no model in .*{place}"):
            rename_model(tmp_path / place, "free")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "models", "photos"]  # not even a lock
    assert load_model(tmp_path / "link").n_users == 90


@pytest.mark.parametrize("name", ["", "../free", "a/b", ".free", "con.txt", "free\n", "x" * 65])
def test_a_model_gets_no_bad_name(trained, folder, name):
    with pytest.raises(ModelError, match="cannot be a model's name"):
        rename_model(folder, name)
    assert beside(folder) == ["mine"]
    assert_same_model(trained, load_model(folder))


def test_a_name_that_a_link_has_is_taken(trained, folder, tmp_path):
    """A link to nowhere was no model, and what was saved under its name was written to wherever it led."""
    (folder.parent / "new").symlink_to(tmp_path / "nowhere")
    for act in (lambda: rename_model(folder, "new"), lambda: save_model(trained, folder.parent / "new", overwrite=False)):
        with pytest.raises(ModelError, match="There is already a model"):
            act()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["models"]  # not even a lock
    assert_same_model(trained, load_model(folder))


def test_a_rename_that_fails_leaves_the_model(trained, folder, monkeypatch):
    def broken(*_):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(ModelError, match="The model 'mine' could not be renamed: Input/output error"):
        rename_model(folder, "new")
    assert_same_model(trained, load_model(folder))


def test_a_save_whose_last_rename_fails_leaves_the_old_model_under_its_name(trained, folder, monkeypatch):
    rename = Path.rename

    def broken(path, target):
        if ".new-" in path.name:
            raise OSError(5, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", broken)
    with pytest.raises(ModelError, match="could not be saved: Input/output error"):
        save_model(replace(trained, device="other"), folder)
    assert_same_model(trained, load_model(folder))
    assert beside(folder) == ["mine"]


@pytest.mark.parametrize("change", [delete_model, lambda folder: rename_model(folder, "new")])
def test_a_model_whose_replacement_was_interrupted_can_be_deleted_and_renamed(trained, folder, change):
    """It was listed and could be loaded, and yet there was none."""
    folder.rename(folder.with_name(".mine.old"))
    change(folder)
    assert not folder.exists()
    assert beside(folder) == ([] if change is delete_model else ["new"])


def test_saving_a_model_leaves_others_alone_whose_names_begin_like_what_it_sweeps_up(trained, folder):
    """A model `mine.new-2` whose replacement was interrupted lies in `.mine.new-2.old`: saving `mine` swept it away."""
    for name in ("mine.new-2", "mine.gone-2"):
        save_model(trained, folder.parent / name).rename(folder.parent / f".{name}.old")
    (folder.parent / ".mine.new-abcd_123").mkdir()
    save_model(trained, folder)
    assert beside(folder) == [".mine.gone-2.old", ".mine.new-2.old", "mine"]
    for name in ("mine.new-2", "mine.gone-2"):
        assert_same_model(trained, load_model(folder.parent / name))


def test_a_missing_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelError, match=r"no model in .*python -m cfrec train --out"):
        load_model(tmp_path / "x")


def test_the_shipped_model_is_small_whole_and_says_where_it_is_from(shipped):
    assert sum(p.stat().st_size for p in Path("models/ml-100k").iterdir()) < 2_000_000
    assert (shipped.n_users, shipped.n_movies, shipped.n_train, shipped.n_valid) == (943, 1682, 80_000, 20_000)
    assert asdict(shipped.source)["name"] == "ml-100k"
    assert "may not be redistributed" in shipped.source.licence
    assert "Harper" in shipped.source.citation
    assert shipped.metrics["mse"] < 0.775


def test_loading_and_exploring_need_no_torch():
    code = (
        "import sys, cfrec\nm = cfrec.load_model('models/ml-100k')\ncfrec.similar_movies(m, 50)\ncfrec.search_movies(m, 'x')\n"
        "cfrec.movie_biases(m)\ncfrec.predict_ratings(m, [1], [1])\ncfrec.recommend(m, {50: 5.0})\n"
        "assert not {'torch', 'sklearn', 'plotly'} & sys.modules.keys(), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_model_is_not_overwritten_where_it_may_not(tmp_path, trained):
    save_model(trained, tmp_path / "mine")
    with pytest.raises(ModelError, match="already a model 'mine'"):
        save_model(trained, tmp_path / "mine", overwrite=False)
    assert load_model(tmp_path / "mine").version == trained.version
    assert save_model(trained, tmp_path / "other", overwrite=False) == tmp_path / "other"


@pytest.mark.parametrize("bad", ["a\0b", "x" * 300, "~nobody-of-this-name/x", "/", "\ud800", "loop"])
def test_what_cannot_be_a_folder_is_refused_in_words_by_whoever_is_asked(bad, trained, tmp_path, monkeypatch):
    """A NUL, a link to itself and a home that nobody has raised errors of their own."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for act in (load_model, delete_model, lambda name: rename_model(name, "new"), lambda name: save_model(trained, name)):
        with pytest.raises(ModelError, match=r"no model in|cannot be stored|is damaged|is not a model") as caught:
            act(bad)
        str(caught.value).encode()
    assert model_stamp(bad) is None or bad == "/"
    assert [(e.name, e.problem[:8]) for e in list_models(tmp_path)] == [("loop", "damaged:")]


def test_messages_do_not_say_where_the_folder_lies(trained, folder, tmp_path, monkeypatch):
    """Pages show them to strangers."""
    (folder.parent / "photos").mkdir()
    (folder.parent / "photos" / "cat.jpg").write_text("x")
    shutil.copytree(folder, folder.parent / "broken")
    (folder.parent / "broken" / "users.csv").write_text("x")
    monkeypatch.setattr(storage, "_write_synced", lambda *_: (tmp_path / "nowhere").stat())
    acts = [
        lambda: load_model(folder.parent / "nowhere"),
        lambda: load_model(folder.parent / "broken"),
        lambda: load_model(folder.parent / "a\0b"),
        lambda: save_model(trained, folder),
        lambda: save_model(trained, folder, overwrite=False),
        lambda: save_model(trained, folder.parent / "photos"),
        lambda: save_model(trained, folder / "manifest.json" / "x"),
        lambda: delete_model(folder.parent / "photos"),
        lambda: rename_model(folder.parent / "nowhere", "x"),
        lambda: rename_model(folder, "broken"),
    ]
    for act in acts:
        with pytest.raises(ModelError) as caught:
            act()
        assert str(tmp_path) not in str(caught.value)
        assert str(caught.value)[-1] == "." or "models/NAME" in str(caught.value)


def test_a_relative_folder_is_named_as_it_was_given(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"There is no model in models/mine\. Train one"):
        load_model("models/mine")


def test_damaged_foreign_future_and_giant_folders_are_listed_and_not_loaded(trained, folder):
    models = folder.parent
    for name in ("changed", "future", "pipe", "sparse"):
        shutil.copytree(folder, models / name)
    (models / "changed" / "movies.csv").write_bytes((folder / "movies.csv").read_bytes().replace(b"film", b"firm", 1))
    (models / "future" / "manifest.json").write_bytes(seal(json.loads((folder / "manifest.json").read_text()) | {"format_version": 7}))
    (models / "pipe" / "manifest.json").unlink()
    os.mkfifo(models / "pipe" / "manifest.json")
    os.truncate(models / "sparse" / "weights.safetensors", 10 << 30)
    for k in range(1_000):
        (models / "foreign").mkdir(exist_ok=True)
        (models / "foreign" / f"{k}.jpg").touch()
    (models / "gone").symlink_to(models / "nowhere")
    (models / os.fsdecode(b"\xff")).mkdir()
    (models / "README.md").write_text("not a folder")
    start = time.perf_counter()
    listed = {entry.name: entry.problem for entry in list_models(models)}
    assert time.perf_counter() - start < 2
    assert listed == {
        "changed": "damaged: movies.csv does not have its SHA-256",
        "foreign": "damaged: manifest.json cannot be read (No such file or directory)",
        "future": "damaged: it has format version 7 and this cfrec reads 1 and 2: another version of cfrec is needed",
        "gone": "damaged: manifest.json cannot be read (No such file or directory)",
        "mine": "",
        "pipe": "damaged: manifest.json is a link, or no file",
        "sparse": f"damaged: weights.safetensors is not {(folder / 'weights.safetensors').stat().st_size} bytes long",
        "\\udcff": "damaged: manifest.json cannot be read (No such file or directory)",
    }


def test_a_list_made_while_models_come_and_go_names_none_that_is_broken(trained, folder):
    """A model that was replaced, or deleted, just as the list was made was listed as damaged."""
    until, problems = time.monotonic() + 1, []

    def change():
        while time.monotonic() < until:
            save_model(trained, folder)
            delete_model(rename_model(save_model(trained, folder.parent / "other"), "third"))

    thread = threading.Thread(target=change)
    thread.start()
    while thread.is_alive():
        problems += [entry for entry in list_models(folder.parent) if entry.problem]
        assert "mine" in [entry.name for entry in list_models(folder.parent)]
    thread.join()
    assert problems == []


def test_sweeping_finishes_what_killed_writers_had_begun_under_any_name(trained, folder):
    models = folder.parent
    save_model(replace(trained, device="other"), models / "other").rename(models / ".other.old")
    shutil.copytree(folder, models / ".mine.old")
    (models / ".third.new-x").mkdir()
    (models / ".fourth.gone-x").mkdir()
    storage.sweep(models)
    assert beside(folder) == ["mine", "other"]
    assert load_model(models / "other").device == "other"
    assert_same_model(trained, load_model(folder))


def test_sweeping_waits_for_a_writer_that_is_alive(trained, folder):
    (folder.parent / ".mine.new-x").mkdir()
    with storage._one_writer(folder, "saved"):
        alive = folder.parent / ".mine.new-y"
        alive.mkdir()
        thread = threading.Thread(target=storage.sweep, args=[folder.parent])
        thread.start()
        time.sleep(0.1)
        assert alive.is_dir()
    thread.join()
    assert beside(folder) == ["mine"]


def test_sweeping_nothing_writes_nothing(tmp_path, folder, caplog):
    (tmp_path / "empty").mkdir()
    with caplog.at_level("INFO"):
        for models in (tmp_path / "empty", tmp_path / "nowhere", folder / "manifest.json"):
            storage.sweep(models)
    assert list((tmp_path / "empty").iterdir()) == []
    assert "the folder nowhere was not swept: No such file or directory" in caplog.text
    assert str(tmp_path) not in caplog.text


def test_a_folder_that_may_not_be_changed_is_not_swept_and_does_not_fail(folder, monkeypatch, caplog):
    (folder.parent / ".mine.new-x").mkdir()

    def read_only(*_):
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(shutil, "rmtree", read_only)
    with caplog.at_level("INFO"):
        storage.sweep(folder.parent)
    assert beside(folder) == [".mine.new-x", "mine"]
    assert "what was left of the model 'mine' stays: Read-only file system" in caplog.text


def test_an_empty_folder_made_where_a_replaced_model_was_does_not_cost_the_old_one(trained, folder):
    folder.rename(folder.parent / ".mine.old")
    folder.mkdir()
    storage.sweep(folder.parent)
    assert beside(folder) == [".mine.old", "mine"]
    save_model(replace(trained, device="other"), folder)
    assert load_model(folder).device == "other"
    assert beside(folder) == ["mine"]


def test_two_who_delete_the_same_model_get_one_answer_each(trained, folder, monkeypatch):
    """The second one was told to free some space."""
    is_stored, asked = storage._is_stored, []

    def deleted_meanwhile(place):
        asked.append(place)
        return is_stored(place) if len(asked) == 1 else False

    monkeypatch.setattr(storage, "_is_stored", deleted_meanwhile)
    with pytest.raises(ModelError, match="There is no model in mine any more"):
        delete_model(folder)
