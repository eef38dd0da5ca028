import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from cfrec.config import TrainConfig
from cfrec.encoding import encode
from cfrec.errors import ModelError
from cfrec.manifest import LARGEST_HEADER, LARGEST_MANIFEST, read_manifest, seal
from tests.forgery import forged, load, with_file

LATER_SETTINGS = ("choice_weight", "unseen_weight", "user_choice_l2", "movie_choice_l2")  # than those of format 1


@pytest.fixture(scope="module")
def files(trained):
    return encode(replace(trained, split=(0.2, 42)))


def test_a_changed_number_in_the_manifest_is_noticed(files):
    manifest = json.loads(files["manifest.json"])
    manifest["offset"] += 1e-9
    with pytest.raises(ModelError, match="manifest does not have its SHA-256"):
        load(files | {"manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=3), "format version 3 and this cfrec reads 1 and 2: another version of cfrec is needed"),
        (lambda m: m.update(format_version="1"), "format version '1'"),
        (lambda m: m["files"].update({"../evil": {"bytes": 1, "sha256": ""}}), "does not list the files of a model"),
        (lambda m: m["files"].pop("users.csv"), "does not list the files of a model"),
        (lambda m: m["files"]["users.csv"].update(bytes=10**9), r"users\.csv is larger or smaller than"),
        (lambda m: m["files"]["weights.safetensors"].update(bytes=2 << 30), r"weights\.safetensors is larger or smaller than"),
        (lambda m: m["shapes"].update(n_users=m["shapes"]["n_users"] + 1), "not float32 arrays of the shapes"),
        (lambda m: m["shapes"].update(n_users=10**9, n_factors=64), "is larger or smaller than"),
        (lambda m: m["shapes"].update(n_users=0), "it knows no users, no movies or no factors"),
        (lambda m: m["shapes"].pop("n_movies"), "n_movies"),
        (lambda m: m["shapes"].update(n_users=-1), "stands where a count should"),
        (lambda m: m["id_types"].update(user_id="pickle"), "pickle"),
        (lambda m: m.update(y_range=[1]), "damaged|unpack"),
        (lambda m: m.update(y_range=[5, 1]), "not ranges"),
        (lambda m: m.update(y_range=[0, 10**400]), "too large"),
        (lambda m: m.update(y_range=[0, 1e300]), "not ranges"),
        (lambda m: m.update(scale=[1, 5, 1e7]), "not ranges"),
        (lambda m: m.update(offset="x"), "'x' stands where a number should"),
        (lambda m: m.update(offset=True), "True stands where a number should"),
        (lambda m: m.update(n_train=None), "None stands where a whole number should"),
        (lambda m: m.update(outcome=3), "3 stands where text should"),
        (lambda m: m.update(split=[1]), "unpack"),
        (lambda m: m["config"].update(epochs=-1), "epochs must lie between"),
        (lambda m: m["config"].update(evil=1), "no setting evil"),
        (lambda m: m["metrics"].pop("rmse"), "rmse"),
        (lambda m: m["history"][0].update(epoch="1"), "stands where a whole number"),
        (lambda m: m["history"][0].pop("seconds"), "seconds"),
        (lambda m: m.pop("history"), "history"),
        (lambda m: m.update(files=[]), "manifest"),
        (lambda m: m.update(state={"epoch": 1, "best_epoch": 1}), "does not list the files"),
        (lambda m: m["dataset"].update(name=["x"]), "stands where text should"),
        (lambda m: m["dataset"].update(title="x" * 10_001), "'x+ stands where text should"),
        (lambda m: m["dataset"].update({"\ud800": "x"}), r"unexpected keyword argument '\\ud800'"),
        (lambda m: m["dataset"].update(title="\ud800"), "surrogates not allowed"),
        (lambda m: m["config"].update(recipe="\udfff"), "surrogates not allowed"),
    ],
)
def test_a_forged_manifest_is_refused(files, change, message):
    with pytest.raises(ModelError, match=message):
        load(forged(files, change))


@pytest.mark.parametrize("name", ["best_epoch", "n_train", "n_valid", "fingerprint"])
@pytest.mark.parametrize("value", [10**30, -1, 1.5, "1", True])
def test_counts_that_are_none_are_refused(trained, name, value):
    """A count of 10^30 once passed, and a page that made a table of it broke for everybody."""
    with pytest.raises(ModelError, match=r"stands where a (count|whole number) should"):
        load(forged(encode(trained), lambda manifest: manifest.update({name: value})))


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"format_version": 1}', "[" * 100_000, '{"format_version": NaN}'])
def test_a_broken_manifest_is_refused(text):
    with pytest.raises(ModelError, match="manifest"):
        read_manifest(text.encode())


def changed(data, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 4)):
        data[at] = rng.integers(0, 256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(100))
def test_random_changes_of_the_manifest_are_refused_or_change_nothing(files, seed):
    try:
        loaded = load(files | {"manifest.json": changed(files["manifest.json"], seed)})
    except ModelError:
        return
    assert encode(loaded)["manifest.json"] == files["manifest.json"]


def with_likeness(trained):
    """A model as the format before this one had it, with a second block of movie factors: 6 numbers for each of 36 movies."""
    from safetensors.numpy import save

    def age(manifest):
        manifest.update(format_version=1)
        manifest["shapes"].update(n_likeness=6)
        for name in LATER_SETTINGS:
            del manifest["config"][name]
        manifest["config"].update(method="sgd", n_likeness=6)

    rows = np.random.default_rng(0).standard_normal((36, 6)).astype(np.float32)
    return with_file(forged(encode(trained), age), "weights.safetensors", save(trained.weights() | {"movie_likeness": rows}))


@pytest.mark.parametrize("method", ["sgd", "adam", "gibbs"])
def test_a_manifest_with_likeness_is_read_and_the_likeness_dropped(trained, method):
    loaded = load(forged(with_likeness(trained), lambda m: m["config"].update(method=method)))
    assert {name: array.tolist() for name, array in loaded.weights().items()} == {n: a.tolist() for n, a in trained.weights().items()}
    assert loaded.config == replace(trained.config, method="gibbs" if method == "sgd" else method, choice_weight=0.0)


@pytest.mark.parametrize("change", [{"method": "sgd"}, {"n_likeness": 6}])
def test_the_settings_of_earlier_formats_are_none_of_this_one(files, change):
    with pytest.raises(ModelError, match=r"no setting n_likeness|method must be one of"):
        load(forged(files, lambda m: m["config"].update(change)))


@pytest.mark.parametrize("name", ["n_likeness", "n_traits"])
@pytest.mark.parametrize("value", [0, 1, 3, 5, 7, -1, 1.5, "2", "6", None, True, 10**30])
def test_arrays_of_another_width_than_the_manifest_says_are_refused(trained, chosen, name, value):
    files = with_likeness(trained) if name == "n_likeness" else encode(chosen)
    with pytest.raises(ModelError, match=r"not float32 arrays of the shapes|stands where a|larger or smaller than a model"):
        load(forged(files, lambda m: m["shapes"].update({name: value})))


@pytest.mark.parametrize("name", ["n_likeness", "n_traits"])
def test_arrays_that_the_manifest_promises_must_be_there(files, name):
    with pytest.raises(ModelError, match=r"not float32 arrays of the shapes|larger or smaller than a model"):
        load(forged(files, lambda m: m["shapes"].update({name: 2})))


@pytest.mark.parametrize("name", ["n_likeness", "n_traits"])
def test_arrays_that_the_manifest_is_silent_about_are_refused(trained, chosen, name):
    files = with_likeness(trained) if name == "n_likeness" else encode(chosen)
    with pytest.raises(ModelError, match=r"not float32 arrays of the shapes|larger or smaller than a model"):
        load(forged(files, lambda m: m["shapes"].pop(name)))


def test_the_largest_weights_allow_for_choices_and_traits_and_no_more(chosen):
    def announce(n_bytes):
        return lambda m: m["files"]["weights.safetensors"].update(bytes=n_bytes)

    most = 4 * (90 + 36) * 5 + 4 * 90 * 6 + 4 * 36 * 2 + 8 + LARGEST_HEADER
    read_manifest(forged(encode(chosen), announce(most))["manifest.json"])
    with pytest.raises(ModelError, match=r"weights\.safetensors is larger or smaller than"):
        read_manifest(forged(encode(chosen), announce(most + 1))["manifest.json"])
    with pytest.raises(ModelError, match=r"weights\.safetensors is larger or smaller than"):
        read_manifest(forged(encode(chosen), announce(most - 8 - LARGEST_HEADER - 1))["manifest.json"])


def first_format(files):
    """A manifest as the first models had it: no checksum of its own, no fingerprint, no word of what came later."""
    manifest = json.loads(files["manifest.json"]) | {"format_version": 1}
    del manifest["sha256"], manifest["fingerprint"], manifest["config"]["method"]
    for name in LATER_SETTINGS:
        del manifest["config"][name]
    return manifest


def test_a_manifest_of_the_first_format_is_read(files):
    old = first_format(files)
    read, again = (read_manifest(json.dumps(old).encode()) for _ in range(2))
    defaults = {name: value for name, value in TrainConfig().to_dict().items() if name in LATER_SETTINGS}
    config = {**old["config"], **defaults, "method": "adam", "choice_weight": 0.0}
    assert read == {**old, "fingerprint": read["fingerprint"], "config": config} == again
    other = read_manifest(json.dumps(old | {"created": "2026-11-24T00:00:00+00:00"}).encode())
    assert other["fingerprint"] != read["fingerprint"]  # nobody knows whether they learned from the same ratings


def test_settings_that_a_manifest_leaves_out_are_filled_in(files):
    """A manifest without a recipe loaded, and then broke the page that lists models for everybody."""
    read = read_manifest(forged(files, lambda m: m["config"].pop("recipe"))["manifest.json"])
    assert read["config"] == json.loads(files["manifest.json"])["config"] | {"recipe": "balanced"}


@pytest.mark.parametrize("kept", ["format_version", "sha256", "fingerprint", "n_likeness", "method"])
def test_a_newer_manifest_that_lost_its_checksum_is_not_taken_for_one_of_the_first_format(files, trained, kept):
    source = files if kept == "format_version" else with_likeness(trained)
    new, old = json.loads(source["manifest.json"]), first_format(files)
    for part in (new, new["shapes"], new["config"]):
        if kept in part:
            next(o for o, n in ((old, new), (old["shapes"], new["shapes"]), (old["config"], new["config"])) if n is part)[kept] = part[kept]
    with pytest.raises(ModelError, match="its manifest does not have its SHA-256"):
        read_manifest(json.dumps(old).encode())


def test_a_manifest_of_a_thousand_epochs_is_read(trained):
    """The most epochs that there can be, each of its numbers as long as it can get."""
    epoch = replace(
        trained.history[0], train_loss=-1.2345678901234567e-100, seconds=1.2345678901234567e-100, valid_loss=0.12345678901234567
    )
    long = replace(trained, history=[replace(epoch, epoch=k) for k in range(1_000)])
    assert asdict(epoch)["train_loss"] == -1.2345678901234567e-100
    data = encode(long)["manifest.json"]
    assert len(data) < LARGEST_MANIFEST / 2
    assert len(read_manifest(data)["history"]) == 1_000


@pytest.mark.parametrize(
    "inside", ["[" + "[]," * 150_000 + "[]]", "[" + "{}," * 150_000 + "{}]", "[" + "1.5," * 100_000 + "1]", '"' + "x" * (512 << 10) + '"']
)
def test_a_manifest_full_of_small_things_is_refused_before_it_is_parsed(files, inside):
    """Four megabytes of brackets became a hundred megabytes of lists."""
    with pytest.raises(ModelError, match="its manifest is too large"):
        read_manifest(b'{"format_version": 1, "history": ' + inside.encode() + b"}")
    assert read_manifest(seal(json.loads(files["manifest.json"])))  # negative control: it is not the shape of the outside
