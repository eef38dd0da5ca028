import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest

from cfrec import encoding
from cfrec.encoding import check_file, decode, encode, read_manifest
from cfrec.errors import ModelError


def load(files):
    """As storage does it: the manifest first, then each file against it."""
    manifest = read_manifest(files["manifest.json"])
    for name in manifest["files"]:
        check_file(manifest, name, files[name])
    return decode(manifest, files)


def forged(files, change):
    """The files with a changed manifest that vouches for itself: what a forger could make."""
    manifest = json.loads(files["manifest.json"])
    change(manifest)
    manifest["sha256"] = encoding._manifest_hash(manifest)
    return files | {"manifest.json": json.dumps(manifest).encode()}


def with_file(files, name, data):
    entry = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return forged(files, lambda m: m["files"].update({name: entry})) | {name: data}


@pytest.fixture(scope="module")
def files(trained):
    return encode(replace(trained, split=(0.2, 42)))


def test_without_the_checksum_a_changed_byte_would_pass(files, trained):
    """Negative control: the file with one other bit loads, with another weight, once its checksum is forged."""
    data = bytearray(files["weights.safetensors"])
    data[-1] ^= 1
    with pytest.raises(ModelError, match=r"weights\.safetensors does not have its SHA-256"):
        load(files | {"weights.safetensors": bytes(data)})
    other = load(with_file(files, "weights.safetensors", bytes(data)))
    assert not all(
        np.array_equal(getattr(other, n), getattr(trained, n)) for n in ("user_bias", "user_factors", "movie_bias", "movie_factors")
    )


def test_a_changed_number_in_the_manifest_is_noticed(files):
    manifest = json.loads(files["manifest.json"])
    manifest["offset"] += 1e-9
    with pytest.raises(ModelError, match="manifest does not have its SHA-256"):
        load(files | {"manifest.json": json.dumps(manifest).encode()})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m.update(format_version=2), "format version 2"),
        (lambda m: m["files"].update({"../evil": {"bytes": 1, "sha256": ""}}), "does not list the files of a model"),
        (lambda m: m["files"].pop("users.csv"), "does not list the files of a model"),
        (lambda m: m["files"]["users.csv"].update(bytes=10**9), r"users\.csv is larger than"),
        (lambda m: m["files"]["weights.safetensors"].update(bytes=2 << 30), r"weights\.safetensors is larger than"),
        (lambda m: m["shapes"].update(n_users=m["shapes"]["n_users"] + 1), "not float32 arrays of the shapes"),
        (lambda m: m["shapes"].update(n_users=-1), "stands where a count should"),
        (lambda m: m["id_types"].update(user_id="pickle"), "pickle"),
        (lambda m: m.update(y_range=[1]), "damaged|unpack"),
        (lambda m: m.update(y_range=[5, 1]), "not ranges"),
        (lambda m: m.update(y_range=[0, 10**400]), "too large"),
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


@pytest.mark.parametrize("seed", range(200))
def test_random_changes_that_a_forged_manifest_vouches_for_are_refused_or_load_whole(files, seed):
    """Past the checksums, each file still has to parse into arrays and tables of the right shape: no other error may escape."""
    name = sorted(encoding.ALWAYS)[seed % 3]
    try:
        loaded = load(with_file(files, name, changed(files[name], seed)))
    except ModelError:
        return
    assert (loaded.n_users, loaded.n_movies, loaded.n_factors) == (90, 36, 4)
    assert all(np.isfinite(a).all() for a in (loaded.user_factors, loaded.movie_factors, loaded.user_bias, loaded.movie_bias))
    assert (len(loaded.movies), len(loaded.user_ids)) == (36, 90)


def test_weights_that_are_not_finite_are_refused(trained):
    with pytest.raises(ModelError, match="finite"):
        load(encode(replace(trained, movie_bias=np.full_like(trained.movie_bias, np.nan))))


def test_a_giant_header_is_refused_before_it_is_parsed(files):
    with pytest.raises(ModelError, match="no sensible header"):
        load(with_file(files, "weights.safetensors", (100 << 20).to_bytes(8, "little") + b"{}"))


def test_tables_that_disagree_are_refused(files):
    with pytest.raises(ModelError, match="a table has 1 rows where 90"):
        load(with_file(files, "users.csv", b"user_id\n1\n"))
    with pytest.raises(ModelError, match=r"movie_id|columns"):
        load(with_file(files, "movies.csv", files["movies.csv"].replace(b"movie_id", b"film_id", 1)))


@pytest.fixture(scope="module")
def alike(trained):
    return replace(trained, movie_likeness=np.random.default_rng(0).standard_normal((36, 6)).astype(np.float32))


def test_likeness_comes_back_and_its_absence_too(alike, trained):
    assert load(encode(alike)).movie_likeness.tolist() == alike.movie_likeness.tolist()
    assert load(encode(trained)).movie_likeness is None


def test_a_manifest_older_than_likeness_is_read(files):
    def forget(manifest):
        del manifest["shapes"]["n_likeness"], manifest["config"]["n_likeness"]

    loaded = load(forged(files, forget))
    assert loaded.movie_likeness is None
    assert loaded.config.n_likeness == 0


@pytest.mark.parametrize("value", [0, 5, 7, -1, 1.5, "6", None, True, 10**30])
def test_likeness_of_another_width_than_the_manifest_says_is_refused(alike, value):
    with pytest.raises(ModelError, match=r"not float32 arrays of the shapes|stands where a|larger than a model"):
        load(forged(encode(alike), lambda m: m["shapes"].update(n_likeness=value)))


def test_likeness_that_the_manifest_promises_must_be_there(files):
    with pytest.raises(ModelError, match="not float32 arrays of the shapes"):
        load(forged(files, lambda m: m["shapes"].update(n_likeness=6)))


def test_damaged_likeness_is_refused(alike):
    rows = alike.movie_likeness.copy()
    rows[3, 2] = np.nan
    with pytest.raises(ModelError, match="finite"):
        load(encode(replace(alike, movie_likeness=rows)))
    with pytest.raises(ModelError, match="not float32 arrays"):
        load(encode(replace(alike, movie_likeness=alike.movie_likeness.astype(np.float64))))


def test_the_largest_weights_allow_for_likeness_and_no_more(alike):
    def announce(n_bytes):
        return lambda m: m["files"]["weights.safetensors"].update(bytes=n_bytes)

    most = 4 * (90 + 36) * 5 + 4 * 36 * 6 + encoding._LARGEST_HEADER
    read_manifest(forged(encode(alike), announce(most))["manifest.json"])
    with pytest.raises(ModelError, match=r"weights\.safetensors is larger than"):
        read_manifest(forged(encode(alike), announce(most + 1))["manifest.json"])
