import tracemalloc
from dataclasses import replace

import numpy as np
import pytest

from cfrec.encoding import HEAD, check_head, encode
from cfrec.errors import ModelError
from cfrec.manifest import ALWAYS
from tests.forgery import load, with_file


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


def changed(data, seed):
    rng = np.random.default_rng(seed)
    data = bytearray(data)
    for at in rng.integers(0, len(data), rng.integers(1, 4)):
        data[at] = rng.integers(0, 256)
    return bytes(data)


@pytest.mark.parametrize("seed", range(200))
def test_random_changes_that_a_forged_manifest_vouches_for_are_refused_or_load_whole(files, seed):
    """Past the checksums, each file still has to parse into arrays and tables of the right shape: no other error may escape."""
    name = sorted(ALWAYS)[seed % 3]
    try:
        loaded = load(with_file(files, name, changed(files[name], seed)))
    except ModelError:
        return
    assert (loaded.n_users, loaded.n_movies, loaded.n_factors) == (90, 36, 4)
    assert all(np.isfinite(a).all() for a in (loaded.user_factors, loaded.movie_factors, loaded.user_bias, loaded.movie_bias))
    assert (len(loaded.movies), len(loaded.user_ids)) == (36, 90)


def test_weights_that_are_not_finite_are_refused(files, trained):
    data = bytearray(files["weights.safetensors"])
    data[-4:] = np.float32(np.inf).tobytes()
    with pytest.raises(ModelError, match="finite"):
        load(with_file(files, "weights.safetensors", bytes(data)))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"movie_bias": np.full(36, np.nan, np.float32)}, "its weights are not all finite"),
        ({"metrics": {"mse": float("nan"), "rmse": 1.0, "mae": 1.0}}, "not JSON compliant"),
        ({"created": "half a character: \ud800"}, "surrogates not allowed"),
        ({"n_train": -1}, "-1 stands where a count should"),
    ],
)
def test_a_model_that_could_not_be_read_again_is_not_written(trained, change, why):
    """Saved over a good one, it took that one's place and could not be loaded."""
    with pytest.raises(ModelError, match=f"could not be read again, so it is not stored: .*{why}.*Train it again"):
        encode(replace(trained, **change))


def test_tables_too_large_to_be_read_again_are_not_written(trained):
    """Titles of 10,000 characters were stored, and then never read."""
    movies = trained.movies.assign(title="x" * 10_000)
    with pytest.raises(ModelError, match=r"movies\.csv is larger or smaller than .*shorter titles"):
        encode(replace(trained, movies=movies))


def test_a_file_must_begin_as_one_of_its_name_does(files):
    for name in ALWAYS:
        check_head(name, files[name][:HEAD])
    for name, head in (
        ("weights.safetensors", (64 << 10).to_bytes(8, "little")[:7]),
        ("weights.safetensors", (64 << 10 | 1).to_bytes(8, "little")),
        ("weights.safetensors", b"PK\3\4" * 20),
        ("state.safetensors", b"\x80\x04" * 20),
        ("users.csv", b"user_id\n1\n"),
        ("users.csv", b'"user_id","x"\n1,2\n'),
        ("movies.csv", files["users.csv"]),
    ):
        with pytest.raises(ModelError, match=f"{name} (has no sensible header|does not begin with its columns)"):
            check_head(name, head)


def test_a_giant_header_is_refused_before_it_is_parsed(files):
    data = files["weights.safetensors"]
    giant = (100 << 20).to_bytes(8, "little") + data[8:]
    with pytest.raises(ModelError, match="no sensible header"):
        load(with_file(files, "weights.safetensors", giant))


def test_a_table_of_a_hundred_thousand_columns_is_refused_before_it_is_parsed(files):
    """pandas took 90 seconds for these 200 kB."""
    wide = b'"user_id"' + b',"a"' * 80_000 + b"\n" + b"1\n" * 90
    tracemalloc.start()
    with pytest.raises(ModelError, match=r"users\.csv does not begin with its columns"):
        load(with_file(files, "users.csv", wide))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 << 20


def test_tables_that_disagree_are_refused(files):
    with pytest.raises(ModelError, match=r"users\.csv has 1 rows where 90"):
        load(with_file(files, "users.csv", b'"user_id"\n1' + b"\n" * 300))
    with pytest.raises(ModelError, match=r"movies\.csv does not begin with its columns"):
        load(with_file(files, "movies.csv", files["movies.csv"].replace(b"movie_id", b"film_id", 1)))
    with pytest.raises(ModelError, match="or an id twice"):
        load(with_file(files, "users.csv", files["users.csv"].replace(b"\n2\n", b"\n1\n")))


@pytest.mark.parametrize("numbers", ["9,inf", "9,-inf", "9,nan", "9,1e39", "-9,3.5"])
def test_numbers_of_movies_that_cannot_be_are_refused(files, numbers):
    """A mean of infinity or a count of -1 would break every page that shows the film."""
    first, second, *rest = files["movies.csv"].splitlines(keepends=True)

    def with_numbers(text):
        return with_file(files, "movies.csv", b"".join([first, second.rsplit(b",", 2)[0] + f",{text}\n".encode(), *rest]))

    assert load(with_numbers("9,3.5")).movies.loc[0, ["n_ratings", "mean_rating"]].tolist() == [9, 3.5]
    with pytest.raises(ModelError, match=r"movies\.csv has numbers that cannot be|ValueError"):
        load(with_numbers(numbers))


def test_choices_and_traits_come_back_and_their_absence_too(chosen, trained):
    loaded = load(encode(chosen))
    assert loaded.user_choice.tolist() == chosen.user_choice.tolist()
    assert loaded.movie_traits.tolist() == chosen.movie_traits.tolist()
    without = load(encode(trained))
    assert without.user_choice is without.movie_traits is None


def test_choices_without_any_trait_come_back(chosen):
    bare = replace(chosen, user_choice=chosen.user_choice[:, :4], movie_traits=chosen.movie_traits[:, :0])
    loaded = load(encode(bare))
    assert loaded.user_choice.tolist() == bare.user_choice.tolist()
    assert loaded.movie_traits.shape == (36, 0)


@pytest.mark.parametrize("name", ["user_choice", "movie_traits"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_choices_and_traits_that_are_not_finite_are_neither_stored_nor_loaded(chosen, name, value):
    from safetensors.numpy import save

    array = getattr(chosen, name).copy()
    array[3, 1] = value
    with pytest.raises(ModelError, match="finite"):
        encode(replace(chosen, **{name: array}))
    with pytest.raises(ModelError, match="finite"):
        load(with_file(encode(chosen), "weights.safetensors", save(chosen.weights() | {name: array})))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: {"user_choice": None},
        lambda m: {"movie_traits": None},
        lambda m: {"user_choice": m.user_choice[:, 1:]},
        lambda m: {"user_choice": m.user_choice[1:]},
        lambda m: {"movie_traits": m.movie_traits[:, 1:]},
        lambda m: {"movie_traits": m.movie_traits[1:]},
        lambda m: {"user_choice": m.user_choice.astype(np.float64)},
        lambda m: {"movie_traits": m.movie_traits.astype(np.float64)},
    ],
)
def test_choices_and_traits_that_do_not_fit_together_are_neither_stored_nor_loaded(chosen, change):
    from safetensors.numpy import save

    other = change(chosen)
    with pytest.raises(ModelError, match="not float32 arrays of the shapes"):
        encode(replace(chosen, **other))
    weights = {name: np.ascontiguousarray(array) for name, array in (chosen.weights() | other).items() if array is not None}
    with pytest.raises(ModelError, match=r"not float32 arrays of the shapes|larger or smaller"):
        load(with_file(encode(chosen), "weights.safetensors", save(weights)))
