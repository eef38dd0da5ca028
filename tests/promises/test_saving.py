"""M4: kill -9 never leaves a listed, broken model. M5: a full disk or a read-only folder leaves the old one, and the error says why."""

import contextlib
import errno
import json
import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

import cfrec
from cfrec import storage
from cfrec.encoding import encode
from cfrec.storage import rename_model, sweep
from tests.promises.counts import counted

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="forks, signals and mounts as Linux has them")
FIXTURE = Path("tests/fixtures/models/4-likeness")
FULL = "No space left on device. Free some space, and try again."
READ_ONLY = r"(Permission denied|Read-only file system)\. See that its folder can be written to, or choose another\."


# M4


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """What became of folders whose savers were killed, for counts of kills; each count is run once."""
    runs = {}

    def run(n_calls, n_random):
        if (n_calls, n_random) not in runs:
            folder = tmp_path_factory.mktemp("kill") / "models"
            command = [sys.executable, "-m", "tests.promises.killing", str(n_calls), str(n_random), str(folder)]
            runs[n_calls, n_random] = json.loads(subprocess.run(command, capture_output=True, check=True, text=True).stdout)
        return runs[n_calls, n_random]

    return run


OURS = ["first save", "replace", "replace beside others", "replace what a killed one left", "delete", "rename", "sweep"]


@counted(sample=3, full=10_000)
@pytest.mark.parametrize("scenario", OURS)
def test_m4_killed_at_any_call_no_model_is_broken_and_nothing_stays_behind(killed, n, scenario):
    result = killed(n, min(n * 2, 200))[scenario]
    assert result["kills"] == min(n, result["calls"])
    assert result["calls"] > 20
    assert result["wrong"] == {}


@counted(sample=3, full=10_000)
def test_m4_killed_at_random_no_model_is_broken_and_nothing_stays_behind(killed, n):
    result = killed(n, min(n * 2, 200))["replace, at random"]
    assert result["kills"] == min(n * 2, 200)
    assert result["wrong"] == {}


@counted(sample=3, full=10_000)
@pytest.mark.parametrize("scenario", ["save in place", "delete in place"])
def test_m4_what_works_in_place_is_caught(killed, n, scenario):
    """Negative control: saved or deleted in their place, models are broken by a kill, and seen to be."""
    result = killed(n, min(n * 2, 200))[scenario]
    assert len(result["wrong"]) > 0.3 * result["kills"]
    assert any("damaged: " in wrong for found in result["wrong"].values() for wrong in found)


# M5


@pytest.fixture
def models(tmp_path):
    shutil.copytree(FIXTURE, tmp_path / "models" / "mine")
    shutil.copytree(FIXTURE, tmp_path / "models" / "other")
    cfrec.save_model(cfrec.load_model(FIXTURE), tmp_path / "models" / "third")  # makes the lock, as the first save does
    cfrec.delete_model(tmp_path / "models" / "third")
    return tmp_path / "models"


def larger():
    """A model that takes more room than the one it should replace."""
    trained = cfrec.load_model(FIXTURE)
    return replace(trained, movies=trained.movies.assign(title=[f"{k} " + "x" * 3_000 for k in range(trained.n_movies)]))


def refusal(act):
    """What an act is refused with; empty where it is not."""
    try:
        act()
    except cfrec.CfrecError as error:
        return str(error)
    return ""


def assert_whole(models, *names):
    """The models of these names, and no others, are stored, bit-identical; and nothing besides."""
    assert sorted(path.name for path in models.iterdir() if path.name != ".cfrec.lock") == sorted(names)
    known = encode(cfrec.load_model(FIXTURE), resumable=True)
    for name in names:
        assert encode(cfrec.load_model(models / name), resumable=True) == known


@contextlib.contextmanager
def small_disk(n_kilobytes):
    """A file system of so much room; skips where it may not be mounted."""
    where = Path(tempfile.mkdtemp())
    mount = ["mount", "-t", "tmpfs", "-o", f"size={n_kilobytes}k", "tmpfs", str(where)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        where.rmdir()
        pytest.skip("mounting a small disk is not allowed here")
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)
        where.rmdir()


@counted(sample=6, full=60)
def test_m5_a_disk_that_fills_up_while_a_model_is_saved_leaves_the_old_one(n, models):
    """However much room is left: at some file of the new model it is not enough."""
    n_refused = 0
    with small_disk(400) as disk:
        for k in range(n):
            for path in disk.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            shutil.copytree(models, disk / "models")
            room = shutil.disk_usage(disk).free
            (disk / "ballast").write_bytes(bytes(max(0, room - k * 22 * 4096 // n)))
            if why := refusal(lambda: cfrec.save_model(larger(), disk / "models" / "mine")):
                n_refused += 1
                assert why == f"The model 'mine' could not be saved: {FULL}"
                assert_whole(disk / "models", "mine", "other")
    assert n / 3 < n_refused < n  # negative control: with room enough it is saved


def test_m5_a_full_disk_can_be_freed(models):
    """Deleting and renaming take no room: who has run out of it must be able to make some."""
    with small_disk(400) as disk:
        shutil.copytree(models, disk / "models")
        with contextlib.suppress(OSError), (disk / "ballast").open("wb", buffering=0) as stream:
            while True:
                stream.write(bytes(512))
        with pytest.raises(cfrec.CfrecError, match=FULL):
            cfrec.save_model(larger(), disk / "models" / "new")
        rename_model(disk / "models" / "other", "renamed")
        cfrec.delete_model(disk / "models" / "mine")
        sweep(disk / "models")
        assert_whole(disk / "models", "renamed")


WRITES = ("_write_synced", "_sync_folder", "new_folder")


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
@pytest.mark.parametrize("function", WRITES)
@counted(sample=2, full=8)
def test_m5_whichever_write_fails_the_old_model_stays(n, function, code, models, monkeypatch):
    """The k-th call of each function that writes fails."""
    real, n_failed = getattr(storage, function), 0
    for k in range(n):
        calls = iter(range(100))

        def failing(*args, calls=calls, k=k):
            if next(calls) == k:
                raise OSError(code, os.strerror(code))
            return real(*args)

        monkeypatch.setattr(storage, function, failing)
        if why := refusal(lambda: cfrec.save_model(cfrec.load_model(FIXTURE), models / "mine", resumable=True)):
            n_failed += 1
            assert why.startswith(f"The model 'mine' could not be saved: {os.strerror(code)}. ")
            assert ("Free some space" in why) == (code in (errno.ENOSPC, errno.EDQUOT))
        assert_whole(models, "mine", "other")
    assert n_failed >= 1


def limited():
    """What a child does before it saves: no file of its may grow beyond this."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


def child(code, *args, **how):
    # -B: a child whose files may not grow would leave half of a compiled test behind, and the next child read it
    run = subprocess.run([sys.executable, "-B", "-c", code, *map(str, args)], capture_output=True, text=True, check=False, **how)
    assert run.returncode == 0, run.stderr
    return run.stdout


SAVE_LARGER = (
    "import sys, cfrec; from pathlib import Path; from tests.promises.test_saving import larger\n"
    "try: cfrec.save_model(larger(), sys.argv[1])\nexcept cfrec.CfrecError as error: print(error)"
)


def test_m5_a_file_that_may_not_grow_leaves_the_old_model(models):
    said = child(SAVE_LARGER, models / "mine", preexec_fn=limited)
    assert said == "The model 'mine' could not be saved: File too large. Free some space, and try again.\n"
    assert_whole(models, "mine", "other")
    cfrec.save_model(larger(), models / "mine")  # negative control: without the limit it is saved
    assert cfrec.load_model(models / "mine").movies["title"].str.len().min() > 3_000


AS_NOBODY = """
import os, sys, filelock, safetensors.numpy, cfrec
from cfrec.storage import rename_model, sweep
models, mine, trained = sys.argv[1], sys.argv[1] + "/mine", cfrec.load_model(sys.argv[1] + "/mine")
if os.geteuid() == 0:
    os.setuid(65534)
sweep(models)
for act in (lambda: cfrec.save_model(trained, mine), lambda: cfrec.save_model(trained, models + "/new"),
            lambda: cfrec.delete_model(mine), lambda: rename_model(mine, "new")):
    try:
        act()
    except cfrec.CfrecError as error:
        print(error)
print([(entry.name, entry.problem) for entry in cfrec.list_models(models)], cfrec.load_model(mine).version == trained.version)
"""


def assert_refused_as_read_only(said):
    *errors, last = said.splitlines()
    assert last == "[('mine', ''), ('other', '')] True"
    assert len(errors) == 4
    for error, beginning in zip(
        errors, ("", "", "The model 'mine' could not be deleted: ", "The model 'mine' could not be renamed: "), strict=True
    ):
        assert error.startswith(beginning)
        assert re.search(READ_ONLY, error)
        assert "/" not in error


def test_m5_a_folder_of_somebody_else_is_only_read(models):
    """By whoever may not write there; with something to sweep, which must not make the start fail."""
    (models / ".mine.new-x").mkdir()
    for path in [models, *models.parents]:
        if path.stat().st_uid == os.geteuid() and path != Path("/"):
            path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o555)
    models.chmod(0o555)
    said = child(AS_NOBODY, models)
    models.chmod(0o755)
    assert_refused_as_read_only(said)
    sweep(models)
    assert_whole(models, "mine", "other")


def test_m5_a_file_system_that_is_read_only_is_only_read(models):
    with small_disk(400) as disk:
        shutil.copytree(models, disk / "models")
        (disk / "models" / ".mine.new-x").mkdir()
        disk.chmod(0o755)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        said = child(AS_NOBODY.replace("if os.geteuid() == 0:", "if False:"), disk / "models")
        assert_refused_as_read_only(said)
        assert (disk / "models" / ".mine.new-x").is_dir()


def test_m5_a_saver_that_works_in_place_is_caught(models):
    """Negative control: on a full disk it destroys the old model, and that is seen."""
    with small_disk(100) as disk:
        shutil.copytree(models / "mine", disk / "mine")
        (disk / "ballast").write_bytes(bytes(shutil.disk_usage(disk).free))
        with contextlib.suppress(OSError):
            for name, data in encode(larger()).items():
                (disk / "mine" / name).write_bytes(data)
        assert "damaged" in refusal(lambda: cfrec.load_model(disk / "mine"))
