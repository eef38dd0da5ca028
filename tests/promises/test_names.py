"""M6: names never leave the folder of models. Which single names are refused: tests/unit/test_storage.py; here, what comes of using any."""

import contextlib
import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cfrec
from cfrec.packing import pack_model, unpack_model
from cfrec.storage import list_models, model_folder, model_stamp, rename_model, sweep
from tests.forgery import zipped
from tests.promises.counts import counted
from tests.promises.hostile import NAMES, SEEDS

TRAINED = cfrec.load_model(SEEDS[-1])
ESCAPES = ["../evil", "..\\evil", "../../evil", "/evil", "{outside}/evil", "\\\\host\\share", "C:\\evil", "C:evil", "D:", "~/evil", "~root"]
ESCAPES += [
    f"{name}{end}" for name in ("models/../../evil", "x/../../evil", "./../evil", "....//evil", "..") for end in ("", "/", "\0", "\n")
]
ESCAPES += [
    "%2e%2e%2fevil",
    "..%2fevil",
    "%252e%252e/evil",
    "..%c0%af",
    "..;/evil",
    "$HOME",
    "${HOME}",
    "`true`",
    "$(true)",
    "|true",
    ";true",
]
ESCAPES += [
    "\u2024\u2024/evil",
    "\uff0e\uff0e\uff0fevil",
    "..\u2215evil",
    "..\u2044evil",
    "..\u29f5evil",
    "\u202e..\u202cevil",
    "e\u0301vil",
    "ｅvil",
]
ESCAPES += [
    "CON",
    "nul.txt",
    "com1",
    "LPT9.x",
    "aux ",
    "COM\u00b9",
    ".cfrec.lock",
    ".mine.old",
    ".mine.new-x",
    ".mine.gone-x",
    "evil\0.txt",
]
ESCAPES += [
    "x" * 300,
    "x" * 5_000,
    "/" * 300,
    "../" * 300 + "evil",
    "",
    ".",
    "..",
    " ",
    "-rf",
    "link",
    "link/evil",
    "loop",
    "nowhere",
    "mine/evil",
]
PLAIN = ["evil", "Evil 2", "a.b", "x" * 64, "..a".strip("."), "mine.old", "mine.new-x", "mine.gone-x", "README.md", "a..b"]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A folder of models with links that lead out of it, beside another folder that nothing may touch."""
    root = tmp_path_factory.mktemp("world")
    models, outside = root / "models", root / "outside"
    outside.mkdir()
    (outside / "secret").write_text("untouched")
    shutil.copytree(SEEDS[-1], outside / "model")
    cfrec.save_model(TRAINED, models / "mine")
    (models / "README.md").write_text("untouched")
    (models / "link").symlink_to(outside)
    (models / "to-a-model").symlink_to(outside / "model")
    (models / "nowhere").symlink_to(outside / "new")
    (models / "loop").symlink_to("loop")
    return root


def tree(root):
    """All that there is, without following links: paths with sizes, times and targets."""
    found = {}
    for folder, folders, files in os.walk(root, followlinks=False):
        for name in (*folders, *files):
            path = Path(folder) / name
            state = path.lstat()
            is_plain = path.is_file() and not path.is_symlink()
            found[str(path.relative_to(root))] = (state.st_ino, state.st_size, state.st_mtime_ns if is_plain else 0)
    return found


def escaped(root, act, own="\0"):
    """What an act changed outside the folder of models, or there in what was not its own, and what it was refused with."""
    before, refused = tree(root), ""
    try:
        act(root / "models")
    except cfrec.CfrecError as error:
        refused = str(error)
    after = tree(root)
    changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
    mine = f"models/{own}"
    allowed = {
        name for name in changed if name.startswith("models/") and (name not in before or name == mine or name.startswith(f"{mine}/"))
    }
    assert str(root) not in refused or str(root) in own  # strangers read it
    refused.encode()
    return sorted(changed - allowed), refused


def everything(name):
    """What the app does with a name that a visitor typed, or put into the address."""

    def save(models):
        cfrec.save_model(TRAINED, model_folder(models, name), overwrite=False)

    def look(models):
        model_stamp(model_folder(models, name))
        cfrec.load_model(model_folder(models, name))

    def rename(models):
        cfrec.save_model(TRAINED, models / "temporary")
        try:
            rename_model(models / "temporary", name)
        finally:
            with contextlib.suppress(cfrec.CfrecError):
                cfrec.delete_model(models / "temporary")

    def delete(models):
        folder = model_folder(models, name)
        if name != "mine":
            cfrec.delete_model(folder)

    return [save, look, rename, delete, sweep, list_models]


def use(root, name):
    """Do everything with a name; what of it was refused. Nothing may change but the model of this name."""
    refused = []
    for act in everything(name):
        outside, why = escaped(root, act, name)
        assert outside == [], (act.__name__, name)
        refused += [act.__name__] if why else []
    return refused


@pytest.mark.parametrize("name", ESCAPES, ids=ascii)
def test_m6_names_that_lead_elsewhere_change_nothing(world, name):
    assert {"save", "look", "rename", "delete"} <= set(use(world, name.replace("{outside}", str(world / "outside"))))
    assert (world / "outside" / "secret").read_text() == "untouched"


@pytest.mark.parametrize("name", PLAIN)
def test_m6_plain_names_make_a_folder_of_that_name_and_nothing_else(world, name):
    """Negative control: what is watched sees a model that is saved."""
    before = tree(world)
    taken = (world / "models" / name).exists()
    if not taken:
        cfrec.save_model(TRAINED, model_folder(world / "models", name), overwrite=False)
        made = tree(world).keys() - before.keys()
        assert {f"models/{name}", f"models/{name}/weights.safetensors"} <= made
        assert all(path.startswith(f"models/{name}") for path in made)
        cfrec.delete_model(world / "models" / name)
    assert ("save" in use(world, name)) == taken
    assert tree(world).keys() == before.keys()


def nasty_text():
    """Text that looks like a path, or like a name, or like anything."""
    part = st.sampled_from(
        ["..", ".", "/", "\\", "evil", "mine", "link", "nowhere", "C:", "\0", "\n", " ", "~", "%2f", "\u202e", ".old", ".new-", "A"]
    )
    return st.one_of(st.text(max_size=80), st.lists(part, max_size=8).map("".join), st.from_regex(r"[A-Za-z0-9 ._-]{0,70}", fullmatch=True))


@counted(sample=80, full=5_000)
def test_m6_whatever_the_name_nothing_outside_changes(n, world):
    @settings(max_examples=n, deadline=None, database=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(nasty_text())
    def check(name):
        outside, refused = escaped(world, lambda models: cfrec.save_model(TRAINED, model_folder(models, name), overwrite=False))
        assert outside == []
        if not refused:
            outside, why = escaped(world, lambda models: rename_model(models / name, "renamed"), name)
            assert (outside, why) == ([], "")
        made = [path for path in (world / "models").iterdir() if path.is_dir() and not path.is_symlink() and path.name != "mine"]
        assert len(made) == (not refused)
        for path in made:
            cfrec.delete_model(path)

    check()
    assert (world / "outside" / "secret").read_text() == "untouched"
    assert [entry.name for entry in list_models(world / "models") if not entry.problem] == ["mine", "to-a-model"]


def test_m6_names_within_a_zip_lead_nowhere(world):
    """Its members are read by what they are, never written under the names that they bring."""
    files = {name: (SEEDS[-1] / name).read_bytes() for name in NAMES}
    for folder in ("../../", "/", str(world / "outside") + "/", "..\\..\\", "C:/", "link/", "\u202e/"):
        data = zipped({**files, "../../evil": b"x", "/evil": b"x", f"{world}/outside/secret": b"changed"}, folder)
        outside, _ = escaped(world, lambda models, data=data: cfrec.save_model(unpack_model(data), models / "mine"))
        assert [name for name in outside if not name.startswith("models/mine")] == []
    assert unpack_model(pack_model(TRAINED)).version == TRAINED.version


def test_m6_a_link_is_followed_for_reading_and_never_changed_by_name(world):
    """Who runs the server may keep models elsewhere; a visitor's names must not reach what lies there."""
    models = world / "models"
    assert cfrec.load_model(model_folder(models, "to-a-model")).version == TRAINED.version
    before = tree(world)
    for act in (
        lambda: cfrec.save_model(TRAINED, model_folder(models, "to-a-model"), overwrite=False),
        lambda: cfrec.save_model(TRAINED, model_folder(models, "nowhere"), overwrite=False),
        lambda: cfrec.delete_model(model_folder(models, "to-a-model")),
        lambda: rename_model(model_folder(models, "to-a-model"), "other"),
        lambda: rename_model(models / "mine", "nowhere"),
    ):
        with pytest.raises(cfrec.CfrecError):
            act()
    assert tree(world) == before


@pytest.mark.parametrize("name", ["../evil", "nowhere", "link/evil"])
def test_m6_a_store_that_joins_names_would_be_caught(world, name):
    """Negative control: a folder and a name put together, as is often done, lead out; and that is seen."""
    outside, refused = escaped(world, lambda models: cfrec.save_model(TRAINED, Path(f"{models}/{name}")))
    assert not refused
    assert outside
    for path in (world / "evil", world / "outside" / "evil", world / "outside" / "new"):
        shutil.rmtree(path, ignore_errors=True)
