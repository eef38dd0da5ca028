import hashlib
import json
import shutil
import subprocess
import sys
from dataclasses import asdict, fields, replace

import numpy as np
import pandas as pd
import pytest

import cfrec
from cfrec import storage
from cfrec.errors import ModelError
from cfrec.ratings import build_ratings
from cfrec.storage import delete_model, list_models, load_model, save_model


@pytest.fixture
def folder(trained, tmp_path):
    return save_model(trained, tmp_path / "models" / "mine")


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


def edit_manifest(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))


def test_what_is_saved_is_what_is_loaded(trained, folder):
    assert_same_model(replace(trained, split=(0.2, 42)), load_model(save_model(replace(trained, split=(0.2, 42)), folder)))
    assert load_model(folder).state is None
    assert {p.name for p in folder.iterdir()} == {"manifest.json", "weights.safetensors", "movies.csv", "users.csv"}
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]  # nothing temporary stays behind


def test_awkward_ids_and_titles_survive(block_config, tmp_path):
    users = np.array(["7", "007", 'ann, "b"', "né\n2", "NA", "7"], object)
    movies = np.array(["NA", "", "null", "=1+1", "a,b", "1e5"], object)
    catalogue = {"NA": ('Line\nbreak, "The" (1999)', "A|B"), "": ("nan", ""), "null": ("  ", "")}
    ratings = build_ratings(users, movies, np.array([1.0, 2, 3, 4, 5, 3]), movies=catalogue)
    trained = cfrec.train(ratings, ratings, replace(block_config, epochs=1))
    assert_same_model(trained, load_model(save_model(trained, tmp_path / "m")))


def test_a_resumable_model_resumes_to_the_same_bits(blocks, block_config, trained, tmp_path):
    import threading

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


def test_without_the_checksum_the_change_would_pass(folder, trained, monkeypatch):
    """Negative control: the same changed byte, with a manifest that vouches for it, loads with another weight."""
    path = folder / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    edit_manifest(folder, lambda m: m["files"]["weights.safetensors"].update(sha256=hashlib.sha256(data).hexdigest()))
    assert load_model(folder).user_factors.tolist() != trained.user_factors.tolist()


@pytest.mark.parametrize("name", ["weights.safetensors", "movies.csv", "users.csv"])
def test_missing_and_cut_files_are_noticed(folder, name):
    data = (folder / name).read_bytes()
    (folder / name).write_bytes(data[:-1])
    with pytest.raises(ModelError, match=f"{name} is missing or not {len(data)} bytes"):
        load_model(folder)
    (folder / name).unlink()
    with pytest.raises(ModelError, match=name):
        load_model(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format version 2"),
        (lambda m: m["files"].update({"../evil": {"bytes": 1, "sha256": ""}}), "does not list the files of a model"),
        (lambda m: m["files"].pop("users.csv"), "does not list the files of a model"),
        (lambda m: m["shapes"].update(n_users=10**9), "not finite float32 arrays of the shapes"),
        (lambda m: m.update(y_range=[1]), "damaged"),
        (lambda m: m["config"].update(epochs=-1), "epochs must lie between"),
        (lambda m: m["config"].update(evil=1), "no setting evil"),
        (lambda m: m.pop("history"), "damaged"),
        (lambda m: m.update(files=[]), "does not list"),
    ],
)
def test_a_manifest_that_lies_is_refused(folder, change, message):
    edit_manifest(folder, change)
    with pytest.raises(ModelError, match=message):
        load_model(folder)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', "[" * 100_000])
def test_a_broken_manifest_is_refused(folder, text):
    (folder / "manifest.json").write_text(text)
    with pytest.raises(ModelError, match="manifest"):
        load_model(folder)


def test_weights_that_are_not_finite_are_refused(trained, tmp_path):
    broken = replace(trained, movie_bias=np.full_like(trained.movie_bias, np.nan))
    with pytest.raises(ModelError, match="finite"):
        load_model(save_model(broken, tmp_path / "m"))


def test_a_giant_header_is_refused_before_it_is_parsed(folder):
    data = (100 << 20).to_bytes(8, "little") + b"{}"
    (folder / "weights.safetensors").write_bytes(data)
    edit_manifest(
        folder, lambda m: m["files"].update({"weights.safetensors": {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}})
    )
    with pytest.raises(ModelError, match="no sensible header"):
        load_model(folder)


def test_a_symlink_is_not_followed(folder, tmp_path):
    shutil.copy(folder / "users.csv", tmp_path / "elsewhere.csv")
    (folder / "users.csv").unlink()
    (folder / "users.csv").symlink_to(tmp_path / "elsewhere.csv")
    with pytest.raises(ModelError, match=r"users\.csv"):
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
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]


def test_a_save_killed_between_the_two_renames_is_finished_by_the_next_load(trained, folder):
    folder.rename(storage._hidden_old(folder))
    assert_same_model(trained, load_model(folder))
    assert [p.name for p in folder.parent.iterdir()] == ["mine"]


def test_list_shows_damaged_models_with_the_reason(trained, folder):
    save_model(trained, folder.parent / "also")
    (folder / "users.csv").write_text("x")
    (folder.parent / "not-a-model").mkdir()
    entries = {entry.name: entry for entry in list_models(folder.parent)}
    assert list(entries) == ["also", "mine", "not-a-model"]
    assert entries["also"].problem == ""
    assert entries["also"].manifest["metrics"] == dict(trained.metrics)
    assert "users.csv" in entries["mine"].problem
    assert "no model" in entries["not-a-model"].problem
    assert list_models(folder / "nowhere") == []


def test_delete(folder, tmp_path):
    delete_model(folder)
    assert not folder.exists()
    with pytest.raises(ModelError, match="no model"):
        delete_model(tmp_path)
    assert tmp_path.exists()


def test_a_missing_model_says_how_to_make_one(tmp_path):
    with pytest.raises(ModelError, match="python -m cfrec train --out"):
        load_model(tmp_path / "x")


def test_the_shipped_model_is_small_whole_and_says_where_it_is_from(shipped):
    assert sum(p.stat().st_size for p in storage.Path("models/ml-100k").iterdir()) < 1_000_000
    assert (shipped.n_users, shipped.n_movies, shipped.n_train, shipped.n_valid) == (943, 1682, 80_000, 20_000)
    assert asdict(shipped.source)["name"] == "ml-100k"
    assert "may not be redistributed" in shipped.source.licence
    assert "Harper" in shipped.source.citation
    assert shipped.metrics["mse"] < 0.825


def test_loading_and_exploring_need_no_torch():
    code = (
        "import sys, cfrec\nm = cfrec.load_model('models/ml-100k')\ncfrec.similar_movies(m, 50)\ncfrec.search_movies(m, 'x')\n"
        "cfrec.movie_biases(m)\ncfrec.predict_ratings(m, [1], [1])\ncfrec.recommend(m, {50: 5.0})\n"
        "assert not {'torch', 'sklearn', 'plotly'} & sys.modules.keys(), 'heavy import'"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
