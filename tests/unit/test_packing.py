import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest

from cfrec import packing
from cfrec.encoding import encode
from cfrec.errors import ModelError
from cfrec.packing import pack_model, unpack_model
from tests.forgery import forged, zipped

NEXT_STEP = r"\. Choose a zip that was downloaded from cfrec\.$"


@pytest.fixture(scope="module")
def files(trained):
    return encode(trained)


@pytest.fixture(scope="module")
def packed(trained):
    return pack_model(trained)


def with_entries(data, at, value):
    """The zip with two bytes of each entry of its directory changed."""
    data = bytearray(data)
    [start] = struct.unpack_from("<I", data, data.rfind(b"PK\5\6") + 16)
    while (start := data.find(b"PK\1\2", start)) >= 0:
        struct.pack_into("<H", data, start + at, value)
        start += 4
    return bytes(data)


def assert_same(loaded, trained):
    """Each file of both is the same, byte for byte: arrays, tables, history and all."""
    assert loaded.version == trained.version
    assert encode(loaded) == encode(trained)


def test_what_is_packed_is_what_is_unpacked(trained, packed, files):
    with zipfile.ZipFile(io.BytesIO(packed)) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == files
    loaded = unpack_model(packed)
    assert_same(loaded, trained)
    assert loaded.history == trained.history
    assert loaded.state is None  # nobody takes away four times the size


def test_choices_and_traits_are_packed_too(chosen):
    loaded = unpack_model(pack_model(chosen))
    assert_same(loaded, chosen)
    assert loaded.user_choice.tolist() == chosen.user_choice.tolist()
    assert loaded.movie_traits.tolist() == chosen.movie_traits.tolist()


def test_the_shipped_model_comes_back_to_the_bit(shipped):
    assert_same(unpack_model(pack_model(shipped)), shipped)


def test_the_comparison_is_not_blind(trained, files):
    """Negative control: a model with one other number in its manifest unpacks too, and differs."""
    other = unpack_model(zipped(forged(files, lambda m: m.update(offset=m["offset"] + 1e-9))))
    assert encode(other) != encode(trained)


@pytest.mark.parametrize("folder", ["", "mine/", "a/b/my model/"])
def test_the_files_may_lie_in_a_folder(trained, files, folder):
    assert_same(unpack_model(zipped(files, folder)), trained)


def test_what_a_mac_adds_is_passed_over(trained, files):
    mac = {"mine/": b"", **{f"mine/{name}": data for name, data in files.items()}}
    mac |= {"mine/.DS_Store": b"x", "__MACOSX/": b"", "__MACOSX/mine/._manifest.json": b"x", "__MACOSX/mine/manifest.json": b"x"}
    assert_same(unpack_model(zipped(mac)), trained)


def test_files_that_are_not_compressed_are_read(trained, files):
    assert_same(unpack_model(zipped(files, method=zipfile.ZIP_STORED)), trained)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_bomb_packed_so_that_it_unpacks_at_one_blow_is_refused(files, method):
    """A zip of 460 bytes became 870 MB in memory, however few bytes of it were asked for."""
    assert zipfile.ZipFile(io.BytesIO(zipped(files, method=method))).read("users.csv") == files["users.csv"]
    bomb = zipped(files | {"manifest.json": bytes(16 << 20)}, method=method)
    assert len(bomb) < 20_000
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"manifest\.json is packed in an unusual way" + NEXT_STEP):
        unpack_model(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20
    with pytest.raises(ModelError, match="packed in an unusual way" + NEXT_STEP):
        unpack_model(zipped(files, method=method))


def test_a_list_of_a_hundred_thousand_members_is_not_read(files):
    crowded = zipped(files | {f"{n}": b"" for n in range(20_000)})
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"it should hold one manifest\.json and the files beside it" + NEXT_STEP):
        unpack_model(crowded)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_bomb_that_its_manifest_vouches_for_is_refused_by_its_ratio(files, monkeypatch):
    """All that it announces is there, and it is a model's; but a thousand times larger than the zip."""

    def announce(manifest):
        manifest["shapes"]["n_users"] = 250_000
        manifest["shapes"]["n_factors"] = 100
        manifest["files"]["users.csv"]["bytes"] = 500_000
        manifest["files"]["weights.safetensors"]["bytes"] = 101_015_000

    with pytest.raises(ModelError, match="it would unpack to more than 64 MB" + NEXT_STEP):
        unpack_model(zipped(forged(files, announce)))


def test_nothing_is_written_wherever_the_names_lead(trained, files, tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert_same(unpack_model(zipped(files, "../evil/")), trained)
    assert [p.name for p in tmp_path.rglob("*")] == ["here"]


@pytest.mark.parametrize("data", [b"", b"PK", b"user,movie,rating\n1,2,3\n", b"\x89PNG\r\n\x1a\n" + bytes(100), b"PK\5\6" + b"\xff" * 18])
def test_what_is_no_zip_is_refused_with_a_next_step(data):
    with pytest.raises(ModelError, match=r"^This is not a whole zip archive \(.+\)" + NEXT_STEP):
        unpack_model(data)


@pytest.mark.parametrize("name", ["manifest.json", "weights.safetensors", "movies.csv", "users.csv"])
def test_a_missing_file_is_named(files, name):
    fewer = {n: data for n, data in files.items() if n != name}
    with pytest.raises(ModelError, match=f"^This is not a whole model: .*{name}.*" + NEXT_STEP):
        unpack_model(zipped(fewer, "mine/"))


def test_a_file_beside_the_folder_is_none_of_the_model(files):
    with pytest.raises(ModelError, match=r"users\.csv is missing" + NEXT_STEP):
        unpack_model(zipped({f"mine/{n}" if n != "users.csv" else n: data for n, data in files.items()}))


def test_two_models_in_one_zip_are_refused(files):
    both = {f"{folder}/{name}": data for folder in "ab" for name, data in files.items()}
    with pytest.raises(ModelError, match=r"it should hold one manifest\.json and the files beside it" + NEXT_STEP):
        unpack_model(zipped(both))


@pytest.mark.parametrize("name", ["weights.safetensors", "movies.csv", "users.csv"])
def test_a_changed_byte_is_noticed_though_the_zip_is_whole(files, name):
    data = bytearray(files[name])
    data[len(data) // 2] ^= 1
    with pytest.raises(ModelError, match=f"{name} does not have its SHA-256" + NEXT_STEP):
        unpack_model(zipped(files | {name: bytes(data)}))


def test_a_changed_manifest_is_noticed(files):
    changed = files["manifest.json"].replace(b'"outcome": "completed"', b'"outcome": "stopped"')
    assert changed != files["manifest.json"]
    with pytest.raises(ModelError, match="manifest does not have its SHA-256" + NEXT_STEP):
        unpack_model(zipped(files | {"manifest.json": changed}))


def test_a_hundred_members_are_the_most(trained, files):
    crowded = files | {f"note {n}.txt": b"" for n in range(96)}
    assert len(crowded) == 100
    assert_same(unpack_model(zipped(crowded)), trained)
    with pytest.raises(ModelError, match=r"it should hold one manifest\.json and the files beside it" + NEXT_STEP):
        unpack_model(zipped(crowded | {"one more.txt": b""}))


@pytest.mark.parametrize("name", ["manifest.json", "users.csv", "weights.safetensors"])
def test_a_member_larger_than_it_should_be_is_not_unpacked(files, name):
    """A bomb of 32 MB of zeros in 32 kB: refused before much of it is in memory."""
    bomb = zipped(files | {name: bytes(32 << 20)})
    assert len(bomb) < 50_000
    tracemalloc.start()
    with pytest.raises(ModelError, match=f"{name} is larger than it may be" + NEXT_STEP):
        unpack_model(bomb)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 << 20


def test_one_byte_more_than_the_manifest_says_is_too_many(files):
    with pytest.raises(ModelError, match=r"users\.csv is larger than it may be" + NEXT_STEP):
        unpack_model(zipped(files | {"users.csv": files["users.csv"] + b"\n"}))
    with pytest.raises(ModelError, match=r"users\.csv does not have its SHA-256" + NEXT_STEP):
        unpack_model(zipped(files | {"users.csv": files["users.csv"][:-1]}))


def test_a_manifest_that_announces_gigabytes_is_refused_before_they_are_read(files, monkeypatch):
    def announce(manifest):
        manifest["shapes"]["n_users"] = 2**29 // 5
        manifest["files"]["weights.safetensors"]["bytes"] = (2 << 30) + 2000
        manifest["files"]["users.csv"]["bytes"] = 2**30

    giant = zipped(forged(files, announce))
    with pytest.raises(ModelError, match="it would unpack to more than 64 MB" + NEXT_STEP):
        unpack_model(giant)
    monkeypatch.setattr(packing, "_LARGEST_RATIO", 1_000_000)
    with pytest.raises(ModelError, match="it would unpack to more than 2,048 MB" + NEXT_STEP):
        unpack_model(giant)
    total = sum(len(data) for name, data in files.items() if name != "manifest.json")
    monkeypatch.setattr(packing, "_LARGEST", total)
    assert unpack_model(zipped(files)).n_users == 90  # just as much as is allowed
    monkeypatch.setattr(packing, "_LARGEST", total - 1)
    with pytest.raises(ModelError, match="unpack to more than"):
        unpack_model(zipped(files))


def test_encrypted_members_are_refused(packed):
    assert with_entries(packed, 8, 0) == packed  # negative control: these two bytes are the flags, and none is set
    with pytest.raises(ModelError, match="encrypted, password required.*" + NEXT_STEP):
        unpack_model(with_entries(packed, 8, 1))


def test_unknown_compression_is_refused(packed):
    assert with_entries(packed, 10, zipfile.ZIP_DEFLATED) == packed
    with pytest.raises(ModelError, match="packed in an unusual way" + NEXT_STEP):
        unpack_model(with_entries(packed, 10, 97))


@pytest.mark.parametrize("offset", [2**64 - 1, 2**63, 2**63 - 1, 2**40])
def test_an_offset_beyond_all_bounds_is_refused(offset):
    """A 64-bit offset was once more than a seek in memory can take: an OverflowError."""
    data = zipped({"manifest.json": b"{}"})
    start, end = data.rfind(b"PK\1\2"), data.rfind(b"PK\5\6")
    entry, last = bytearray(data[start:end]), bytearray(data[end:])
    struct.pack_into("<H", entry, 30, 12)  # bytes of extra fields
    struct.pack_into("<I", entry, 42, 2**32 - 1)  # the offset stands there
    struct.pack_into("<I", last, 12, len(entry) + 12)  # bytes of the directory
    with pytest.raises(ModelError, match="not a whole zip archive.*" + NEXT_STEP):
        unpack_model(data[:start] + entry + struct.pack("<HHQ", 1, 8, offset) + last)


def test_a_zip_cut_anywhere_is_refused(packed):
    for length in range(0, len(packed), 3):
        with pytest.raises(ModelError, match=NEXT_STEP):
            unpack_model(packed[:length])


def test_a_zip_with_a_hole_anywhere_is_refused_or_whole(trained, packed):
    n_refused = 0
    for start in range(0, len(packed) - 8, 5):
        try:
            loaded = unpack_model(packed[:start] + packed[start + 8 :])
        except ModelError:
            n_refused += 1
        else:
            assert loaded.version == trained.version
    assert n_refused > 900


def test_random_changes_are_refused_or_change_nothing(trained, packed):
    rng, n_refused = np.random.default_rng(0), 0
    directory = packed.find(b"PK\1\2")
    for k in range(400):
        data = bytearray(packed)
        for at in rng.integers(directory if k % 2 else 0, len(data), rng.integers(1, 4)):
            data[at] = rng.integers(0, 256)
        try:
            loaded = unpack_model(bytes(data))
        except ModelError:
            n_refused += 1
        else:
            assert_same(loaded, trained)
    assert n_refused > 250
