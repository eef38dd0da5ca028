import hashlib
import json
import os
import shutil
import threading
import time

import pytest

from cfrec import folders
from cfrec.errors import ModelError
from cfrec.folders import MissingError, actual_place, gone_place, is_model, leftovers, new_folder, old_place, read_folder, stamp, sweep_up
from cfrec.manifest import seal
from cfrec.storage import save_model


@pytest.fixture
def folder(trained, tmp_path):
    return save_model(trained, tmp_path / "models" / "mine")


def hidden(folder):
    return sorted(p.name for p in folder.parent.iterdir() if p.name not in (".cfrec.lock", folder.name))


def at_once(act, seconds=1.0):
    """What an act returns or raises; it must not wait for ever, as one that opens a pipe does."""
    done = []

    def run():
        try:
            done.append(act())
        except ModelError as error:
            done.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive()
    return done[0]


def replaced(path, make):
    path.unlink()
    make(path)


def device(path):
    path.symlink_to("/dev/zero")


def loop(path):
    path.symlink_to(path.name)


@pytest.mark.skipif(os.name != "posix", reason="pipes and devices are files on POSIX alone")
@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "movies.csv", "users.csv"])
@pytest.mark.parametrize("make", [os.mkfifo, device, loop, os.mkdir], ids=["pipe", "device", "loop", "folder"])
def test_what_is_no_plain_file_is_refused_at_once(folder, name, make):
    """A named pipe called manifest.json made the page wait for ever; a link to /dev/zero filled the memory."""
    replaced(folder / name, make)
    error = at_once(lambda: read_folder(folder))
    assert str(error) == f"{name} is a link, or no file"
    assert at_once(lambda: is_model(folder)) in (True, False)


@pytest.mark.skipif(os.name != "posix", reason="pipes are files on POSIX alone")
def test_a_reader_without_the_check_would_wait_for_a_pipe(tmp_path):
    """Negative control: the test above would notice."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(AssertionError):
        at_once((tmp_path / "pipe").read_bytes, 0.2)
    os.close(os.open(tmp_path / "pipe", os.O_WRONLY))  # lets the thread go


def test_a_file_exchanged_for_a_pipe_at_the_last_moment_is_refused(folder, monkeypatch):
    checked = folders._check_plain

    def exchange(status, name):
        checked(status, name)
        if name == "users.csv" and (folder / name).is_file():
            replaced(folder / name, os.mkfifo)

    monkeypatch.setattr(folders, "_check_plain", exchange)
    assert str(at_once(lambda: read_folder(folder))) == "users.csv is a link, or no file"


def test_what_cannot_be_read_is_told_from_what_is_missing(folder):
    shutil.copytree(folder, folder.parent / "other")
    (folder.parent / "other" / "users.csv").unlink()
    with pytest.raises(ModelError, match=r"^users\.csv cannot be read \(No such file or directory\)$") as caught:
        read_folder(folder.parent / "other")
    assert type(caught.value) is ModelError
    with pytest.raises(MissingError, match=r"^manifest\.json cannot be read \(No such file or directory\)$"):
        read_folder(folder.parent)


def giant(folder, n_bytes, head=b""):
    """A model of files that take no space, and a manifest that vouches for their sizes."""
    manifest = json.loads((folder / "manifest.json").read_text())
    n_users, n_factors = n_bytes // 4_000, 999
    manifest["shapes"] |= {"n_users": n_users, "n_factors": n_factors}
    for name, size in (("weights.safetensors", 4 * (n_users + 36) * (n_factors + 1)), ("users.csv", 4 * n_users)):
        manifest["files"][name] = {"bytes": size, "sha256": hashlib.sha256(b"").hexdigest()}
        with (folder / name).open("r+b") as stream:
            stream.write(head)
            stream.truncate(size)
    (folder / "manifest.json").write_bytes(seal(manifest))


def test_a_giant_file_that_does_not_begin_like_one_of_a_model_is_not_read(folder, monkeypatch):
    """Ten gigabytes of zeros that take no space were read, and hashed, for 20 seconds."""
    monkeypatch.setattr(folders, "free_memory", lambda: 1 << 40)
    giant(folder, 10 << 30, head=bytes([255] * 8))
    start = time.perf_counter()
    with pytest.raises(ModelError, match=r"has no sensible header|does not begin with its columns"):
        read_folder(folder)
    assert time.perf_counter() - start < 1


def test_a_model_that_does_not_fit_into_memory_is_refused_before_it_is_read(folder, monkeypatch):
    monkeypatch.setattr(folders, "free_memory", lambda: 3 << 30)
    giant(folder, 10 << 30)
    with pytest.raises(ModelError, match=r"^it needs 21\.5 GB of memory, and 3\.2 GB are free$"):
        read_folder(folder)
    monkeypatch.setattr(folders, "_SMALL", 0)
    monkeypatch.setattr(folders, "free_memory", lambda: 0)
    with pytest.raises(ModelError, match=r"GB of memory, and 0\.0 GB are free$"):
        read_folder(save_again(folder))


def save_again(folder):
    shutil.copytree("models/ml-100k", folder.parent / "small")
    return folder.parent / "small"


def test_a_folder_that_holds_anything_else_is_no_model(folder):
    assert is_model(folder)
    (folder / "notes.txt").write_text("x")
    assert not is_model(folder)
    (folder / "notes.txt").unlink()
    (folder / "weights.safetensors").unlink()
    assert is_model(folder)  # by its manifest
    (folder / "manifest.json").write_text('{"name": "my app"}')
    assert not is_model(folder)
    for nothing in (folder / "nowhere", folder / "manifest.json", "a\0b", folder.parent / ("x" * 300)):
        assert not is_model(folder.parent / nothing)


def test_where_a_model_is(folder):
    assert actual_place(folder) == folder
    folder.rename(old_place(folder))
    assert actual_place(folder) == old_place(folder) == folder.parent / ".mine.old"
    assert actual_place(folder.parent / "nowhere") == folder.parent / "nowhere"
    assert stamp(folder.parent / "a\0b") is stamp(folder.parent / ("x" * 300)) is None
    assert gone_place(folder) != gone_place(folder)


def names(found):
    return sorted((left.hidden.name, left.place.name, left.is_old) for left in found)


@pytest.fixture
def models(tmp_path):
    for name in (
        ".a.new-1x_z",
        ".a.b.new-x",
        ".a.new-2.old",
        ".a.gone-q/a",
        ".b.old",
        ".unfinished",
        ".new-x",
        ".old",
        "a.old",
        ".a.new-1.x",
    ):
        (tmp_path / name).mkdir(parents=True)
    for name in (".b.old/users.csv", ".a.gone-q/a/users.csv"):
        (tmp_path / name).write_text("user_id\n")
    (tmp_path / ".c.old").write_text("mine")
    (tmp_path / ".d.old").symlink_to(tmp_path / ".b.old")
    (tmp_path / ".e.gone-x").mkdir()
    (tmp_path / ".e.gone-x" / "thesis.txt").write_text("mine")
    return tmp_path


def test_leftovers_are_what_writers_made_and_nothing_else(models):
    a, ab = [(".a.gone-q", "a", False), (".a.new-1x_z", "a", False)], (".a.b.new-x", "a.b", False)
    assert names(leftovers(models)) == sorted([*a, ab, (".a.new-2.old", "a.new-2", True), (".b.old", "b", True)])
    assert names(leftovers(models, "a")) == a
    assert names(leftovers(models, "c")) == []


def test_sweeping_removes_leftovers_and_brings_back_what_was_moved_aside(models):
    before = {p.name for p in models.iterdir()}
    sweep_up(models)
    gone = {".a.gone-q", ".a.new-1x_z", ".a.b.new-x", ".a.new-2.old", ".b.old"}
    assert {p.name for p in models.iterdir()} == (before - gone) | {"a.new-2", "b"}
    assert (models / "b" / "users.csv").read_text() == "user_id\n"
    assert (models / ".e.gone-x" / "thesis.txt").read_text() == "mine"


def test_what_was_moved_aside_is_removed_only_where_a_model_took_its_place(folder):
    shutil.copytree(folder, old_place(folder))
    sweep_up(folder.parent)
    assert hidden(folder) == []
    for other in (folder.mkdir, lambda: folder.write_text("x")):  # an empty folder, or a file: not what took its place
        shutil.copytree("models/ml-100k", old_place(folder), dirs_exist_ok=True)
        shutil.rmtree(folder) if folder.is_dir() else None
        other()
        sweep_up(folder.parent)
        assert hidden(folder) == [".mine.old"]


def test_a_half_deleted_old_model_is_removed(folder):
    """Killed while it deleted the model it had replaced, a saver left files that no later save could replace: all failed."""
    for left in ({"movies.csv"}, {"users.csv", "weights.safetensors"}, set()):
        shutil.copytree(folder, old_place(folder))
        for path in old_place(folder).iterdir():
            if path.name not in left:
                path.unlink()
        sweep_up(folder.parent, "mine")
        assert hidden(folder) == []
        assert is_model(folder)


def test_one_leftover_that_cannot_be_removed_does_not_keep_the_others(models, monkeypatch, caplog):
    rmtree = shutil.rmtree

    def stubborn(path):
        if path.name == ".a.new-1x_z":
            raise OSError(13, "Permission denied", str(path))
        rmtree(path)

    monkeypatch.setattr(shutil, "rmtree", stubborn)
    with caplog.at_level("INFO"):
        sweep_up(models)
    assert names(leftovers(models)) == [(".a.new-1x_z", "a", False)]
    assert "what was left of the model 'a' stays: Permission denied" in caplog.text
    assert str(models) not in caplog.text


def test_a_new_folder_is_a_leftover_until_it_has_its_name(folder):
    new = new_folder(folder)
    assert names(leftovers(folder.parent)) == [(new.name, "mine", False)]
    sweep_up(folder.parent, "other")
    assert new.is_dir()
    sweep_up(folder.parent, "mine")
    assert not new.exists()
